// Between fork() or clone() and execve().
//
// Everything in this file is async-signal-safe: it may run in the memory of
// the launcher, while other threads of it may hold any lock, or in a copy of
// that memory. No malloc, no stdio, nothing but system calls and their
// wrappers.
//
// Facts about children that this file relies on:
//
// - The table of signal handlers is the child's own. Until the handlers are
//   gone all signals have to stay blocked, because a handler of the launcher
//   might run in the launcher's memory.
// - execve() resets caught signals, but neither ignored ones nor the mask.
// - The table of descriptors is the child's own.

#define _GNU_SOURCE

#include "launch_child.h"

#include "error.h"
#include "launch_system.h"
#include "mask.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/resource.h>
#include <unistd.h>

// Where a system has no better way and the limit on descriptors is huge, those
// above this number are left alone.
#define MOST_DESCRIPTORS (1 << 20)
#define EXIT_NOT_EXECUTED 127

// What the address sanitizer notes about variables that are out of scope stays
// in a memory that is shared, because their function never returns, and there
// the next child would stumble over it.
__attribute__((no_sanitize_address)) static void
reset_dispositions(void)
{
    struct sigaction action;

    for (int signal = 1; signal < NSIG; signal++) {
        // It fails for the signals that the C library keeps for itself, which
        // execve() resets as it does all that are caught.
        if (sigaction(signal, NULL, &action) < 0
            || action.sa_handler == SIG_DFL
            || (action.sa_handler == SIG_IGN
                && procset__launch_keeps_ignored(signal))) {
            continue;
        }
        action.sa_handler = SIG_DFL;
        action.sa_flags = 0;
        (void) sigaction(signal, &action, NULL);
    }
}

void
procset__child_keep_each(void)
{
    struct rlimit limit = {.rlim_cur = MOST_DESCRIPTORS};

    (void) getrlimit(RLIMIT_NOFILE, &limit);
    for (int fd = PROCSET__FIRST_AFTER_STANDARD;
         fd < MOST_DESCRIPTORS && (rlim_t) fd < limit.rlim_cur; fd++) {
        (void) fcntl(fd, F_SETFD, FD_CLOEXEC);
    }
}

// Lets the program have the standard descriptors and those of the plan only.
static int
choose_descriptors(const procset__child_plan *plan)
{
    int r;

    r = procset__child_keep_all(plan->has_close_range);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < plan->inherited_count; i++) {
        if (fcntl((int) plan->inherited[i], F_SETFD, 0) < 0) {
            return procset__error_last(PROCSET__CALL_FCNTL);
        }
    }
    return 0;
}

// The file is opened here so that each child has an offset of its own in it.
static int
choose_errors(const procset__child_plan *plan)
{
    int fd;

    if (plan->errors == NULL) {
        return 0;
    }
    fd = open(plan->errors, O_RDWR | O_CLOEXEC | O_NOCTTY);
    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_OPEN);
    }
    if (lseek(fd, (off_t) plan->errors_offset, SEEK_SET) < 0) {
        return procset__error_last(PROCSET__CALL_LSEEK);
    }
    if (dup2(fd, STDERR_FILENO) < 0 || fcntl(STDERR_FILENO, F_SETFD, 0) < 0) {
        return procset__error_last(PROCSET__CALL_DUP2);
    }
    return 0;
}

int
procset__child_become(const procset__child_plan *plan)
{
    int r;

    r = choose_descriptors(plan);
    if (r < 0) {
        return r;
    }
    r = choose_errors(plan);
    if (r < 0) {
        return r;
    }
    reset_dispositions();
    r = procset__mask_set(plan->blocked);
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
