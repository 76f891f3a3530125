// Between clone() and execve().
//
// Everything in this file is async-signal-safe: it runs in the memory of the
// launcher, while other threads of it may hold any lock, or in a copy of that
// memory. No malloc, no stdio, nothing but system calls and their wrappers.
//
// Facts about Linux that this file relies on:
//
// - The table of signal handlers is the child's own (no CLONE_SIGHAND). Until
//   the handlers are gone all signals have to stay blocked, because a handler
//   of the launcher would run in the launcher's memory.
// - execve() resets caught signals, but neither ignored ones nor the mask.
// - The table of descriptors is the child's own (no CLONE_FILES).

#define _GNU_SOURCE

#include "launch_child.h"

#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

// The same on every architecture; the C library has the names since glibc
// 2.34 only.
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define CLOSE_RANGE_CLOEXEC_LINUX 4u

#define FIRST_AFTER_STANDARD 3
// Where neither close_range() nor /proc can be used and the limit on
// descriptors is huge, those above this number are left alone.
#define MOST_DESCRIPTORS (1 << 20)
#define EXIT_NOT_EXECUTED 127

// A job-control shell, or nohup, ignores these on behalf of the whole job.
static const int kept_ignored[] = {
    SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU,
};

int
procset__child_set_mask(uint64_t mask, uint64_t *ret_previous)
{
    uint64_t previous = 0;

    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, &previous,
                sizeof(mask))
        < 0) {
        return procset__error_last(PROCSET__CALL_RT_SIGPROCMASK);
    }
    *ret_previous = previous;
    return 0;
}

static bool
is_kept_ignored(int signal)
{
    for (size_t i = 0; i < sizeof(kept_ignored) / sizeof(*kept_ignored); i++) {
        if (kept_ignored[i] == signal) {
            return true;
        }
    }
    return false;
}

static void
reset_dispositions(void)
{
    struct sigaction action;

    for (int signal = 1; signal < NSIG; signal++) {
        // It fails for the signals that the C library keeps for itself, which
        // execve() resets as it does all that are caught.
        if (sigaction(signal, NULL, &action) < 0
            || action.sa_handler == SIG_DFL
            || (action.sa_handler == SIG_IGN && is_kept_ignored(signal))) {
            continue;
        }
        action.sa_handler = SIG_DFL;
        action.sa_flags = 0;
        (void) sigaction(signal, &action, NULL);
    }
}

bool
procset__child_has_close_range(void)
{
    // No descriptor has this number.
    return syscall(SYS_close_range, ~0u, ~0u, CLOSE_RANGE_CLOEXEC_LINUX) == 0;
}

static int
parse_number(const char *text)
{
    int number = 0;

    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return -1;
        }
        number = number * 10 + (*text - '0');
    }
    return number;
}

// One entry of a folder as the kernel writes it; see getdents64(2).
typedef struct {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
} entry64;

// Returns false where /proc cannot be read.
static bool
mark_listed(void)
{
    char buffer[2048] __attribute__((aligned(8)));
    int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long size;

    if (folder < 0) {
        return false;
    }
    do {
        size = syscall(SYS_getdents64, folder, buffer, sizeof(buffer));
        for (long at = 0; at < size;) {
            const entry64 *entry = (const entry64 *) (buffer + at);
            int fd = parse_number(entry->name);

            if (fd >= FIRST_AFTER_STANDARD) {
                (void) fcntl(fd, F_SETFD, FD_CLOEXEC);
            }
            at += entry->size;
        }
    } while (size > 0);
    (void) close(folder);
    return size == 0;
}

static void
mark_up_to_limit(void)
{
    struct rlimit limit = {.rlim_cur = MOST_DESCRIPTORS};

    (void) getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = FIRST_AFTER_STANDARD;
         fd < MOST_DESCRIPTORS && (rlim_t) fd < limit.rlim_cur; fd++) {
        (void) fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
}

// Lets the program have the standard descriptors and those of the plan only.
static int
choose_descriptors(const procset__child_plan *plan)
{
    if (plan->has_close_range) {
        if (syscall(SYS_close_range, FIRST_AFTER_STANDARD, ~0u,
                    CLOSE_RANGE_CLOEXEC_LINUX)
            < 0) {
            return procset__error_last(PROCSET__CALL_CLOSE_RANGE);
        }
    }
    else if (!mark_listed()) {
        mark_up_to_limit();
    }
    for (size_t i = 0; i < plan->inherited_count; i++) {
        if (fcntl((int) plan->inherited[i], F_SETFD, 0) < 0) {
            return procset__error_last(PROCSET__CALL_FCNTL);
        }
    }
    return 0;
}

int
procset__child_become(const procset__child_plan *plan)
{
    uint64_t previous;
    int r;

    r = choose_descriptors(plan);
    if (r < 0) {
        return r;
    }
    reset_dispositions();
    r = procset__child_set_mask(plan->blocked, &previous);
    if (r < 0) {
        return r;
    }
    (void) execve(plan->path, plan->arguments, plan->environment);
    return procset__error_last(PROCSET__CALL_EXECVE);
}

_Noreturn void
procset__child_give_up(void)
{
    _exit(EXIT_NOT_EXECUTED);
}
