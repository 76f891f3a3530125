// Facts about epoll that this file relies on:
//
// - An entry belongs to the open file, not to the descriptor: closing one of
//   two duplicates leaves the entry alive. Hence "remove before close".
// - The ready list is a queue. A level-triggered entry that was reported goes
//   back to its end, so no entry starves, and entries that became ready while
//   nobody waited are reported in the order of becoming ready.
// - A pidfd becomes readable when the last thread of its process has ended
//   (Linux 5.3), whoever the parent is, and stays readable.
// - epoll_wait() counts in milliseconds and epoll_pwait2() (Linux 5.11) in
//   nanoseconds. An epoll descriptor can itself be polled, so ppoll() gives
//   the same precision to older kernels.

#define _GNU_SOURCE

#include "poller.h"
#include "clock.h"
#include "error.h"
#include "handle.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

// The number is the same on every architecture; glibc has a name for it since
// 2.32 only.
#ifndef SYS_epoll_pwait2
#define SYS_epoll_pwait2 441
#endif

static struct timespec
to_timespec(int64_t ns)
{
    return (struct timespec) {
        .tv_sec = (time_t) (ns / 1000000000),
        .tv_nsec = (long) (ns % 1000000000),
    };
}

unsigned
procset__poller_probe(void)
{
    struct epoll_event event;
    struct timespec zero = {0};

    // No such descriptor: a kernel that knows the call says EBADF.
    if (syscall(SYS_epoll_pwait2, -1, &event, 1, &zero, NULL, 0) < 0
        && errno == EBADF) {
        return PROCSET_FEATURE_PWAIT2;
    }
    return 0;
}

int
procset__poller_open(unsigned features, procset__poller *ret_poller)
{
    int fd = epoll_create1(EPOLL_CLOEXEC);

    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_EPOLL_CREATE1);
    }
    *ret_poller = (procset__poller) {
        .handle = fd,
        .features = features,
    };
    return 0;
}

void
procset__poller_done(procset__poller *poller)
{
    poller->handle = procset__handle_close(poller->handle);
}

void
procset__poller_abandon(procset__poller *poller)
{
    // A second descriptor of the same instance, which the parent keeps.
    procset__poller_done(poller);
}

int
procset__poller_add(procset__poller *poller, procset_handle handle,
                    uint64_t token)
{
    struct epoll_event event = {.events = EPOLLIN, .data.u64 = token};

    if (epoll_ctl((int) poller->handle, EPOLL_CTL_ADD, (int) handle, &event)
        < 0) {
        return procset__error_last(PROCSET__CALL_EPOLL_CTL);
    }
    return 0;
}

int
procset__poller_remove(procset__poller *poller, procset_handle handle)
{
    if (epoll_ctl((int) poller->handle, EPOLL_CTL_DEL, (int) handle, NULL)
        < 0) {
        return procset__error_last(PROCSET__CALL_EPOLL_CTL);
    }
    return 0;
}

// The handle that becomes readable when the process ends, if there is one.
static procset_handle
end_handle(const procset__proc *proc)
{
    return proc->sentinel != PROCSET_HANDLE_INVALID ? proc->sentinel
                                                    : proc->handle;
}

int
procset__poller_add_end(procset__poller *poller, const procset__proc *proc,
                        uint64_t token, bool *ret_added)
{
    procset_handle handle = end_handle(proc);
    int r = 0;

    if (handle != PROCSET_HANDLE_INVALID) {
        r = procset__poller_add(poller, handle, token);
    }
    if (r == 0) {
        *ret_added = handle != PROCSET_HANDLE_INVALID;
    }
    return r;
}

int
procset__poller_remove_end(procset__poller *poller, const procset__proc *proc)
{
    return procset__poller_remove(poller, end_handle(proc));
}

// Returns the number of events or an error value.
static int
wait_for_events(const procset__poller *poller, int64_t remaining,
                struct epoll_event *events, int capacity)
{
    struct pollfd entry = {.fd = (int) poller->handle, .events = POLLIN};
    struct timespec timeout;
    int n;

    if (remaining == 0 || remaining == PROCSET_NEVER) {
        n = epoll_wait(entry.fd, events, capacity, remaining == 0 ? 0 : -1);
        return n < 0 ? procset__error_last(PROCSET__CALL_EPOLL_WAIT) : n;
    }
    timeout = to_timespec(remaining);
    if ((poller->features & PROCSET_FEATURE_PWAIT2) != 0) {
        n = (int) syscall(SYS_epoll_pwait2, entry.fd, events, capacity,
                          &timeout, NULL, 0);
        return n < 0 ? procset__error_last(PROCSET__CALL_EPOLL_PWAIT2) : n;
    }
    n = ppoll(&entry, 1, &timeout, NULL);
    if (n < 0) {
        return procset__error_last(PROCSET__CALL_PPOLL);
    }
    return n == 0 ? 0 : wait_for_events(poller, 0, events, capacity);
}

int
procset__poller_wait(procset__poller *poller, int64_t deadline,
                     uint64_t *tokens, size_t capacity, size_t *ret_count)
{
    struct epoll_event events[PROCSET__POLLER_BATCH];
    int limit = capacity < PROCSET__POLLER_BATCH ? (int) capacity
                                                 : PROCSET__POLLER_BATCH;
    int n;

    n = wait_for_events(poller, procset__remaining(deadline), events, limit);
    if (n < 0) {
        return n;
    }
    for (int i = 0; i < n; i++) {
        tokens[i] = events[i].data.u64;
    }
    *ret_count = (size_t) n;
    return 0;
}
