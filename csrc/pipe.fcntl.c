// Opening a pipe where its modes are set one by one.
//
// Between pipe() and fcntl() another thread may start a program, which then
// inherits the ends. What is started from here does not.

#define _GNU_SOURCE

#include "pipe.h"

#include "error.h"

#include <fcntl.h>
#include <unistd.h>

static int
open_with(int flags, procset__pipe *ret_pipe)
{
    int ends[2];

    if (pipe(ends) < 0) {
        return procset__error_last(PROCSET__CALL_PIPE);
    }
    for (int i = 0; i < 2; i++) {
        if (fcntl(ends[i], F_SETFD, FD_CLOEXEC) < 0
            || fcntl(ends[i], F_SETFL, flags) < 0) {
            int r = procset__error_last(PROCSET__CALL_FCNTL);

            (void) close(ends[0]);
            (void) close(ends[1]);
            return r;
        }
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
