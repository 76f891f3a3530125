#define _GNU_SOURCE

#include "handle.h"

#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <unistd.h>

procset_handle
procset__handle_close(procset_handle handle)
{
    if (handle != PROCSET_HANDLE_INVALID) {
        // Not repeated on EINTR: Linux has released the descriptor by then,
        // see close(2), "Dealing with error returns from close()".
        (void) close((int) handle);
    }
    return PROCSET_HANDLE_INVALID;
}

procset_handle
procset_handle_close(procset_handle handle)
{
    return procset__handle_close(handle);
}

int
procset_handle_move(procset_handle *handle)
{
    int fd;

    if (*handle > STDERR_FILENO) {
        return 0;
    }
    fd = fcntl((int) *handle, F_DUPFD_CLOEXEC, STDERR_FILENO + 1);
    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_FCNTL);
    }
    (void) procset__handle_close(*handle);
    *handle = fd;
    return 0;
}

int
procset__handle_dup(procset_handle handle, procset_handle *ret_handle)
{
    int fd = fcntl((int) handle, F_DUPFD_CLOEXEC, 0);

    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_FCNTL);
    }
    *ret_handle = fd;
    return 0;
}

int
procset__handle_ready(procset_handle handle, bool *ret_ready)
{
    struct pollfd entry = {.fd = (int) handle, .events = POLLIN};
    int r;

    do {
        r = poll(&entry, 1, 0);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return procset__error_last(PROCSET__CALL_POLL);
    }
    *ret_ready = r > 0;
    return 0;
}
