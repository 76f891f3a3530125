// Facts about kqueue that this file relies on:
//
// - An event is known by its filter and its number, a descriptor or a pid,
//   once in each kqueue: adding it again changes the one that is there.
// - Active events are a queue, and one that stays active goes back to its end:
//   the order is that of becoming active. EVFILT_READ is active while there is
//   something to read or the other end is closed.
// - EVFILT_PROC with NOTE_EXIT tells once of the end of any process, be it a
//   child or not; then the event is gone.
// - FreeBSD takes a process that has ended and was not reaped, and tells of it
//   at once. macOS refuses it with ESRCH, and also one that is about to end,
//   which cannot be reaped yet.
// - Both tell of an end a moment before the process can be reaped.
// - A forked child does not inherit a kqueue; there its number is free.
// - A call that only changes events does not sleep, so no signal interrupts
// it.

#define _GNU_SOURCE

#include "poller.h"
#include "clock.h"
#include "error.h"
#include "handle.h"

#include <sys/types.h>

#include <fcntl.h>
#include <sys/event.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

// Systems do not agree on the longest time-out that they take.
#define LONGEST_NS (INT64_C(86400) * 1000000000)

unsigned
procset__poller_probe(void)
{
    procset__proc self = {
        .pid = getpid(),
        .handle = PROCSET_HANDLE_INVALID,
        .sentinel = PROCSET_HANDLE_INVALID,
    };
    unsigned features = PROCSET_FEATURE_PWAIT2;
    procset__poller poller;
    bool works = false;
    int r;

    r = procset__poller_open(PROCSET_FEATURE_PID_EVENTS, &poller);
    if (r < 0) {
        // Out of descriptors says nothing about the kernel.
        return features | PROCSET_FEATURE_PID_EVENTS;
    }
    r = procset__poller_add_end(&poller, &self, 0, &works);
    procset__poller_done(&poller);
    return r == 0 && works ? features | PROCSET_FEATURE_PID_EVENTS : features;
}

int
procset__poller_open(unsigned features, procset__poller *ret_poller)
{
    int fd = kqueue();
    int r;

    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_KQUEUE);
    }
    // For a program that takes the place of this one.
    if (fcntl(fd, F_SETFD, FD_CLOEXEC) < 0) {
        r = procset__error_last(PROCSET__CALL_FCNTL);
        (void) procset__handle_close(fd);
        return r;
    }
    *ret_poller = (procset__poller) {.handle = fd, .features = features};
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
    poller->handle = PROCSET_HANDLE_INVALID;
}

static int
change(const procset__poller *poller, struct kevent event)
{
    if (kevent((int) poller->handle, &event, 1, NULL, 0, NULL) < 0) {
        return procset__error_last(PROCSET__CALL_KEVENT);
    }
    return 0;
}

int
procset__poller_add(procset__poller *poller, procset_handle handle,
                    uint64_t token)
{
    return change(poller, (struct kevent) {
                              .ident = (uintptr_t) handle,
                              .filter = EVFILT_READ,
                              .flags = EV_ADD,
                              .udata = (void *) (uintptr_t) token,
                          });
}

int
procset__poller_remove(procset__poller *poller, procset_handle handle)
{
    return change(poller, (struct kevent) {
                              .ident = (uintptr_t) handle,
                              .filter = EVFILT_READ,
                              .flags = EV_DELETE,
                          });
}

// Adds the end of a process by its pid, unless the system refuses that.
static int
add_pid(const procset__poller *poller, int64_t pid, uint64_t token,
        bool *ret_added)
{
    int r;

    r = change(poller, (struct kevent) {
                           .ident = (uintptr_t) pid,
                           .filter = EVFILT_PROC,
                           .flags = EV_ADD | EV_ONESHOT,
                           .fflags = NOTE_EXIT,
                           .udata = (void *) (uintptr_t) token,
                       });
    if (r < 0) {
        switch (procset_error_kind(r)) {
        case PROCSET_KIND_GONE:
        case PROCSET_KIND_LIMIT:
        case PROCSET_KIND_REFUSED:
            break;
        default:
            return r;
        }
    }
    *ret_added = r == 0;
    return 0;
}

int
procset__poller_add_end(procset__poller *poller, const procset__proc *proc,
                        uint64_t token, bool *ret_added)
{
    int r;

    if (proc->sentinel != PROCSET_HANDLE_INVALID) {
        r = procset__poller_add(poller, proc->sentinel, token);
        if (r == 0) {
            *ret_added = true;
        }
        return r;
    }
    if ((poller->features & PROCSET_FEATURE_PID_EVENTS) != 0) {
        return add_pid(poller, proc->pid, token, ret_added);
    }
    *ret_added = false;
    return 0;
}

int
procset__poller_remove_end(procset__poller *poller, const procset__proc *proc)
{
    if (proc->sentinel != PROCSET_HANDLE_INVALID) {
        return procset__poller_remove(poller, proc->sentinel);
    }
    // That of a pid is gone since it was reported.
    return 0;
}

// Returns the number of events or an error value.
static int
wait_for_events(const procset__poller *poller, int64_t remaining,
                struct kevent *events, int capacity)
{
    int64_t ns = remaining < LONGEST_NS ? remaining : LONGEST_NS;
    struct timespec timeout = {
        .tv_sec = (time_t) (ns / 1000000000),
        .tv_nsec = (long) (ns % 1000000000),
    };
    int n;

    n = kevent((int) poller->handle, NULL, 0, events, capacity,
               remaining == PROCSET_NEVER ? NULL : &timeout);
    return n < 0 ? procset__error_last(PROCSET__CALL_KEVENT) : n;
}

int
procset__poller_wait(procset__poller *poller, int64_t deadline,
                     uint64_t *tokens, size_t capacity, size_t *ret_count)
{
    struct kevent events[PROCSET__POLLER_BATCH];
    int limit = capacity < PROCSET__POLLER_BATCH ? (int) capacity
                                                 : PROCSET__POLLER_BATCH;
    int64_t remaining;
    int n;

    do {
        remaining = procset__remaining(deadline);
        n = wait_for_events(poller, remaining, events, limit);
    } while (n == 0 && remaining > 0);
    if (n < 0) {
        return n;
    }
    for (int i = 0; i < n; i++) {
        tokens[i] = (uint64_t) (uintptr_t) events[i].udata;
    }
    *ret_count = (size_t) n;
    return 0;
}
