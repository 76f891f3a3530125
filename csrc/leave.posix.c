#define _GNU_SOURCE

#include "leave.h"

#include <stdio.h>
#include <unistd.h>

// fflush(NULL) waits for every stream that another thread is busy with, and
// one that reads from the terminal may be busy for ever. Nothing is lost by
// leaving out a stream that is read from.
static void
flush_unless_busy(FILE *stream)
{
    if (ftrylockfile(stream) == 0) {
        (void) fflush(stream);
        funlockfile(stream);
    }
}

_Noreturn void
procset_leave(int code)
{
    if (ftrylockfile(stdin) == 0) {
        funlockfile(stdin);
        (void) fflush(NULL);
    }
    else {
        flush_unless_busy(stdout);
        flush_unless_busy(stderr);
    }
    _exit(code);
}
