// Handles of processes on Linux; proc.pidfd.c says what they are.

#define _GNU_SOURCE

#include "procset.h"

#include "error.h"

#include <sys/syscall.h>
#include <sys/types.h>
#include <unistd.h>

// These numbers are the same on every architecture. The C library has names
// for them since glibc 2.31 only.
#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif

int
procset_handle_open(int64_t pid, procset_handle *ret_handle)
{
    long fd = syscall(SYS_pidfd_open, (pid_t) pid, 0);

    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_PIDFD_OPEN);
    }
    *ret_handle = (procset_handle) fd;
    return 0;
}

int
procset_handle_signal(procset_handle handle, int signal)
{
    if (syscall(SYS_pidfd_send_signal, (int) handle, signal, NULL, 0) < 0) {
        return procset__error_last(PROCSET__CALL_PIDFD_SEND_SIGNAL);
    }
    return 0;
}
