// The end of a rank whose launcher is gone, on Linux.
//
// What ends it is a process of its own, which a guard makes when it is needed.
// It shares the rank's memory, so that nothing is copied however large that
// is, and it outlives the rank: it can stop the rank first, so that nothing
// new is started while it looks, and look again when the rank is gone.
//
// Everything in this file is async-signal-safe: the other threads of the rank
// may have been stopped anywhere.
//
// Facts about Linux that this file relies on:
//
// - close_range() with CLOSE_RANGE_UNSHARE (5.9) gives the calling *thread* a
//   table of descriptors of its own. unshare(CLONE_FILES) would do as well,
//   but container runtimes refuse unshare() as a whole.
// - O_ASYNC belongs to an open file. The pipe's is shared with the other
//   ranks, so this one is opened anew, through /proc. When the last writer of
//   a pipe is gone, the kernel sends its owner the signal that F_SETSIG names
//   (fs/pipe.c, pipe_release); SIGCONT continues a process even where it is
//   blocked or ignored.

#define _GNU_SOURCE

#include "guard_end.h"

#include "clock.h"
#include "error.h"
#include "hunt.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define CLOSE_RANGE_UNSHARE_LINUX 2u
#ifndef F_SETSIG
#define F_SETSIG 10
#endif

#define STACK_SIZE ((size_t) 128 * 1024)
// Within this time all is to be gone.
#define END_NS (2 * INT64_C(1000000000))

bool
procset__guard_own_table(procset_handle one, procset_handle other)
{
    unsigned low, high;

    if (other == PROCSET_HANDLE_INVALID) {
        other = one;
    }
    low = (unsigned) (one < other ? one : other);
    high = (unsigned) (one < other ? other : one);
    // First what is above, because that always is a range: this is the call
    // that tells whether it can be done.
    if (syscall(SYS_close_range, high + 1, ~0u, CLOSE_RANGE_UNSHARE_LINUX)
        < 0) {
        return false;
    }
    if (low > 0) {
        (void) syscall(SYS_close_range, 0u, low - 1, 0u);
    }
    if (high > low + 1) {
        (void) syscall(SYS_close_range, low + 1, high - 1, 0u);
    }
    return true;
}

void
procset__guard_continue_at(procset_handle pipe)
{
    // "/proc/thread-self" is the table of this thread.
    char path[48] = "/proc/thread-self/fd/";
    char digits[12];
    size_t at = sizeof("/proc/thread-self/fd/") - 1;
    int count = 0;
    int fd = (int) pipe;

    do {
        digits[count++] = (char) ('0' + fd % 10);
        fd /= 10;
    } while (fd > 0);
    while (count > 0) {
        path[at++] = digits[--count];
    }
    path[at] = '\0';
    fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
    if (fd < 0) {
        return;
    }
    (void) fcntl(fd, F_SETSIG, SIGCONT);
    (void) fcntl(fd, F_SETOWN, getpid());
    (void) fcntl(fd, F_SETFL, O_NONBLOCK | O_ASYNC);
}

int
procset__guard_by_parent(procset_handle pipe)
{
    struct pollfd entry = {.fd = (int) pipe, .events = 0};

    if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0) {
        return procset__error_last(PROCSET__CALL_PRCTL);
    }
    // The parent may have ended before.
    if (poll(&entry, 1, 0) > 0) {
        (void) kill(getpid(), SIGKILL);
    }
    return 0;
}

typedef struct {
    const procset_guard *guard;
    procset__board_entry *board;
    pid_t rank_pid;
    // This is a process of its own and not a thread of the rank.
    bool is_apart;
} ending;

// Claims the ranks that nobody has claimed: they died before the launcher did,
// or are stopped, or their guards are about to do it. Returns whether there
// are any.
static bool
claim_forgotten(const ending *self)
{
    bool any = false;

    for (size_t i = 0; i < self->guard->world_size; i++) {
        any = procset__board_claim(self->board, i, self->guard->rank) || any;
    }
    return any;
}

// Claims this rank itself. Returns false when another guard was earlier, which
// may end this process any moment.
static bool
claim_own(const ending *self)
{
    size_t rank = self->guard->rank;

    return procset__board_claim(self->board, rank, rank)
           || self->board[rank] == PROCSET__BOARD_ENDED_WELL;
}

static int
end_all(void *argument)
{
    const ending *self = argument;
    size_t rank = self->guard->rank;
    procset__hunt hunt = {
        .has_handles = (self->guard->features & PROCSET_FEATURE_PIDFD) != 0,
        .job = self->guard->job,
        .ranks = &rank,
        .rank_count = 1,
        .self = getpid(),
    };

    bool claims = self->board != NULL && claim_own(self);

    if ((self->guard->features & PROCSET_FEATURE_TREE)
        && procset__hunt_open(&hunt) == 0) {
        if (self->is_apart) {
            // Whatever its descendants do, it starts no more.
            (void) kill(self->rank_pid, SIGSTOP);
        }
        if (procset__hunt_snapshot(&hunt) == 0) {
            if (self->is_apart) {
                procset__hunt_add(&hunt, self->rank_pid, rank);
            }
            procset__hunt_follow(&hunt, self->rank_pid, rank);
            procset__hunt_extend(&hunt);
        }
        (void) procset__hunt_down(&hunt, procset__now() + END_NS);
        if (claims && claim_forgotten(self)) {
            hunt.board = self->board;
            hunt.world_size = self->guard->world_size;
            (void) procset__hunt_down(&hunt, procset__now() + END_NS);
        }
    }
    (void) kill(self->rank_pid, SIGKILL);
    return 0;
}

_Noreturn void
procset__guard_end(const procset_guard *guard, procset__board_entry *board)
{
    ending self = {
        .guard = guard,
        .board = board,
        .rank_pid = getpid(),
        .is_apart = true,
    };
    char *stack = mmap(NULL, STACK_SIZE, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);
    int pid = -1;

    if (stack != MAP_FAILED && (guard->features & PROCSET_FEATURE_VFORK)) {
        pid = clone(end_all, stack + STACK_SIZE, CLONE_VM, &self);
    }
    if (pid < 0) {
        // What the rank starts in the last moment is not found.
        self.is_apart = false;
        (void) end_all(&self);
    }
    for (;;) {
        (void) poll(NULL, 0, -1);
    }
}
