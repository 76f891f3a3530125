// A kqueue for tests on Linux, made of epoll and pidfds. It does what the
// library relies on, see csrc/poller.kqueue.c, and refuses the rest:
//
// - an event is known by its filter and its number, and adding it again
//   changes it;
// - the end of a process is told once;
// - closing a descriptor drops its events (link with -Wl,--wrap=close);
// - a forked child does not have the kqueue;
// - with KQUEUE_REFUSES_ENDED a process that has ended is refused, as macOS
//   does it.

#define _GNU_SOURCE

#include <sys/event.h>

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

enum { MOST_NOTES = 4096, MOST_EVENTS = 256, MOST_QUEUES = 16 };

// A registered event.
typedef struct {
    int queue; // -1 where the place is free
    int fd;    // what epoll watches: the descriptor itself, or an own pidfd
    // Given out once: epoll may tell of what has been replaced meanwhile.
    uint32_t number;
    struct kevent event;
} note;

static note notes[MOST_NOTES];
static size_t note_count;
static uint32_t last_number;
static int queues[MOST_QUEUES]; // descriptor plus one, or zero
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_once_t once = PTHREAD_ONCE_INIT;

int
__real_close(int fd);

int
__wrap_close(int fd);

static void
drop(note *dropped)
{
    (void) epoll_ctl(dropped->queue, EPOLL_CTL_DEL, dropped->fd, NULL);
    if (dropped->event.filter == EVFILT_PROC) {
        (void) __real_close(dropped->fd);
    }
    dropped->queue = -1;
}

int
__wrap_close(int fd)
{
    (void) pthread_mutex_lock(&mutex);
    for (note *i = notes; i < notes + note_count; i++) {
        if (i->queue >= 0
            && (i->queue == fd
                || (i->fd == fd && i->event.filter == EVFILT_READ))) {
            drop(i);
        }
    }
    for (size_t i = 0; i < MOST_QUEUES; i++) {
        if (queues[i] == fd + 1) {
            queues[i] = 0;
        }
    }
    (void) pthread_mutex_unlock(&mutex);
    return __real_close(fd);
}

static void
lock(void)
{
    (void) pthread_mutex_lock(&mutex);
}

static void
unlock(void)
{
    (void) pthread_mutex_unlock(&mutex);
}

static void
close_in_child(void)
{
    for (note *i = notes; i < notes + note_count; i++) {
        if (i->queue >= 0 && i->event.filter == EVFILT_PROC) {
            (void) __real_close(i->fd);
        }
        i->queue = -1;
    }
    for (size_t i = 0; i < MOST_QUEUES; i++) {
        if (queues[i] > 0) {
            (void) __real_close(queues[i] - 1);
            queues[i] = 0;
        }
    }
    unlock();
}

static void
arrange_fork(void)
{
    (void) pthread_atfork(lock, unlock, close_in_child);
}

int
kqueue(void)
{
    int fd;

    (void) pthread_once(&once, arrange_fork);
    lock();
    fd = epoll_create1(0);
    for (size_t i = 0; fd >= 0 && i < MOST_QUEUES; i++) {
        if (queues[i] == 0) {
            queues[i] = fd + 1;
            break;
        }
    }
    unlock();
    return fd;
}

static note *
find(int queue, const struct kevent *event)
{
    for (note *i = notes; i < notes + note_count; i++) {
        if (i->queue == queue && i->event.filter == event->filter
            && i->event.ident == event->ident) {
            return i;
        }
    }
    return NULL;
}

static note *
find_place(void)
{
    for (note *i = notes; i < notes + note_count; i++) {
        if (i->queue < 0) {
            return i;
        }
    }
    return note_count < MOST_NOTES ? &notes[note_count++] : NULL;
}

// A pidfd, or -1 with errno as kevent() has it.
static int
open_process(pid_t pid)
{
    int fd = (int) syscall(SYS_pidfd_open, pid, 0);

#ifdef KQUEUE_REFUSES_ENDED
    siginfo_t info = {0};

    if (fd >= 0
        && waitid(P_PID, (id_t) pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0
        && info.si_pid != 0) {
        (void) __real_close(fd);
        errno = ESRCH;
        fd = -1;
    }
#endif
    return fd;
}

static int
add(int queue, const struct kevent *event)
{
    note *place = find(queue, event);
    struct epoll_event entry = {.events = EPOLLIN};
    int fd = (int) event->ident;
    int code;

    if (place != NULL) {
        place->event = *event;
        return 0;
    }
    if (event->filter == EVFILT_PROC) {
        fd = open_process((pid_t) event->ident);
        if (fd < 0) {
            return -1;
        }
    }
    place = find_place();
    if (place == NULL) {
        abort();
    }
    *place = (note) {
        .queue = queue, .fd = fd, .number = ++last_number, .event = *event};
    entry.data.u64 =
        (uint64_t) (place - notes) << 32 | (uint64_t) place->number;
    if (epoll_ctl(queue, EPOLL_CTL_ADD, fd, &entry) < 0) {
        code = errno;
        drop(place);
        errno = code;
        return -1;
    }
    return 0;
}

static int
change(int queue, const struct kevent *event)
{
    note *place;

    if (event->filter != EVFILT_READ
        && (event->filter != EVFILT_PROC || event->fflags != NOTE_EXIT)) {
        abort();
    }
    if ((event->flags & EV_ADD) != 0) {
        return add(queue, event);
    }
    place = find(queue, event);
    if (place == NULL) {
        errno = ENOENT;
        return -1;
    }
    drop(place);
    return 0;
}

// Turns what epoll has told into what a kqueue tells.
static int
take(const struct epoll_event *told, int count, struct kevent *events)
{
    int taken = 0;

    for (int i = 0; i < count; i++) {
        note *place = &notes[told[i].data.u64 >> 32];

        if (place->queue < 0 || place->number != (uint32_t) told[i].data.u64) {
            continue;
        }
        events[taken++] = place->event;
        if ((place->event.flags & EV_ONESHOT) != 0) {
            drop(place);
        }
    }
    return taken;
}

int
kevent(int queue, const struct kevent *changes, int change_count,
       struct kevent *events, int capacity, const struct timespec *timeout)
{
    struct epoll_event told[MOST_EVENTS];
    struct pollfd entry = {.fd = queue, .events = POLLIN};
    int n;

    if (change_count > 0) {
        if (change_count > 1 || capacity > 0) {
            abort();
        }
        lock();
        n = change(queue, changes);
        unlock();
        return n;
    }
    n = ppoll(&entry, 1, timeout, NULL);
    if (n <= 0) {
        return n;
    }
    lock();
    n = epoll_wait(queue, told,
                   capacity < MOST_EVENTS ? capacity : MOST_EVENTS, 0);
    if (n > 0) {
        n = take(told, n, events);
    }
    unlock();
    return n;
}
