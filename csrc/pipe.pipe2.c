// Opening a pipe where that and its modes are one system call.

#define _GNU_SOURCE

#include "pipe.h"

#include "error.h"

#include <fcntl.h>
#include <unistd.h>

static int
open_with(int flags, procset__pipe *ret_pipe)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC | flags) < 0) {
        return procset__error_last(PROCSET__CALL_PIPE2);
    }
    *ret_pipe = (procset__pipe) {.read = ends[0], .write = ends[1]};
    return 0;
}

int
procset__pipe_open(procset__pipe *ret_pipe)
{
    return open_with(O_NONBLOCK, ret_pipe);
}

int
procset__pipe_open_blocking(procset__pipe *ret_pipe)
{
    return open_with(0, ret_pipe);
}
