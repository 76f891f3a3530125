// The strictest kind of child that the contenders of join.py wait for: the
// kernel takes it apart in no time.
//
// It waits for one byte on its standard input, stays away for a while so that
// its parent is surely asleep by then, writes the time into its slot of a
// shared mapping, and leaves. End of file on the input, at any moment, means
// that the parent has gone: the child then leaves at once, without a stamp.
//
// usage: child SLOTS_FD SLOT READY_FD DELAY_NS

#define _GNU_SOURCE
#include <poll.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL

static int64_t
now_ns(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t) ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

int
main(int argc, char **argv)
{
    if (argc != 5) {
        return 2;
    }
    int slots_fd = (int) strtol(argv[1], NULL, 10);
    size_t slot = strtoul(argv[2], NULL, 10);
    int ready_fd = (int) strtol(argv[3], NULL, 10);
    int64_t delay = strtoll(argv[4], NULL, 10);

    volatile int64_t *slots = mmap(NULL, (slot + 1) * sizeof(int64_t),
                                   PROT_WRITE, MAP_SHARED, slots_fd, 0);
    if (slots == MAP_FAILED) {
        return 1;
    }
    // Take the page fault now, not between the clock and the exit.
    slots[slot] = 0;
    (void) close(slots_fd);
    (void) close(ready_fd);

    char byte;
    if (read(STDIN_FILENO, &byte, 1) != 1) {
        return 0;
    }
    // No event is asked for: only the hang-up of the parent can cut it short.
    struct pollfd parent = {.fd = STDIN_FILENO};
    struct timespec timeout = {.tv_sec = delay / NS_PER_S,
                               .tv_nsec = delay % NS_PER_S};
    if (ppoll(&parent, 1, &timeout, NULL) != 0) {
        return 0;
    }
    slots[slot] = now_ns();
    _exit(0);
}
