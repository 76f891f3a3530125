// For tests on Linux: what the library uses of <sys/event.h> on macOS and
// FreeBSD. kqueue.c has the functions.

#ifndef KQUEUE_SYS_EVENT_H
#define KQUEUE_SYS_EVENT_H

#include <stdint.h>
#include <time.h>

#define EVFILT_READ (-1)
#define EVFILT_PROC (-5)

#define EV_ADD 0x0001
#define EV_DELETE 0x0002
#define EV_ONESHOT 0x0010

#define NOTE_EXIT 0x80000000u

struct kevent {
    uintptr_t ident;
    int16_t filter;
    uint16_t flags;
    uint32_t fflags;
    intptr_t data;
    void *udata;
};

int
kqueue(void);

// Either changes or waits: one change and no room for events, or the reverse.
int
kevent(int queue, const struct kevent *changes, int change_count,
       struct kevent *events, int capacity, const struct timespec *timeout);

#endif
