// Starting programs on POSIX: all or none of them.

#define _GNU_SOURCE

#include "launch.h"

#include "clock.h"
#include "error.h"
#include "launch_system.h"
#include "mask.h"
#include "poller.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>

// How long an undone start waits for a process that was killed.
#define UNDO_NS (2 * INT64_C(1000000000))

// A shared library on macOS does not see the variable itself.
#ifdef __APPLE__
#include <crt_externs.h>
#define environ (*_NSGetEnviron())
#else
extern char **environ;
#endif

// A job-control shell, or nohup, ignores these on behalf of the whole job.
static const int kept_ignored[] = {
    SIGHUP, SIGINT, SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU,
};

bool
procset__launch_keeps_ignored(int signal)
{
    for (size_t i = 0; i < sizeof(kept_ignored) / sizeof(*kept_ignored); i++) {
        if (kept_ignored[i] == signal) {
            return true;
        }
    }
    return false;
}

int
procset__launch_copy_environment(procset__words *environment)
{
    int r = 0;

    for (char **entry = environ; r >= 0 && entry != NULL && *entry != NULL;
         entry++) {
        r = procset__words_add(environment, *entry);
    }
    return r;
}

// Sleeps until the handle of a process is ready, or the deadline has passed.
static void
wait_for_handle(procset_handle handle, int64_t deadline)
{
    struct pollfd entry = {.fd = (int) handle, .events = POLLIN};
    int64_t left;

    while ((left = deadline - procset__now()) > 0
           && poll(&entry, 1, (int) (left / 1000000) + 1) < 0
           && errno == EINTR) {
    }
}

// The same for a process without a handle. Returns whether the deadline has
// passed; false also where the system does not wait for a pid with a time-out.
static bool
is_stuck(const procset__proc *proc, unsigned features, int64_t deadline)
{
    procset__poller poller;
    uint64_t token;
    bool added = false;
    size_t count = 1;

    if (procset__poller_open(features, &poller) < 0) {
        return false;
    }
    if (procset__poller_add_end(&poller, proc, 0, &added) == 0 && added) {
        // All signals are blocked: nothing interrupts it.
        (void) procset__poller_wait(&poller, deadline, &token, 1, &count);
    }
    procset__poller_done(&poller);
    return count == 0;
}

// Waits for a process that has been killed or has given up, and reaps it.
static void
reap(procset__proc *proc, unsigned features)
{
    int64_t deadline = procset__now() + UNDO_NS;

    if (proc->handle != PROCSET_HANDLE_INVALID) {
        wait_for_handle(proc->handle, deadline);
    }
    else if (!is_stuck(proc, features, deadline)) {
        (void) procset__proc_block(proc->pid);
    }
    (void) procset__proc_collect(proc);
}

static int
create(const procset__launcher *launcher, const procset_launch *launch,
       procset__launchee *entry)
{
    procset__proc proc = entry->proc;
    int r;

    r = procset__launcher_create(launcher, launch, entry, &proc);
    if (r < 0) {
        if (proc.pid != 0) {
            reap(&proc, launch->features);
            procset__proc_done(&proc);
        }
        return r;
    }
    entry->proc = proc;
    if ((launch->features & PROCSET_FEATURE_PIDFD) != 0
        && proc.handle == PROCSET_HANDLE_INVALID) {
        r = procset__proc_open(proc.pid, PROCSET_HANDLE_INVALID, true, &proc);
        if (r < 0) {
            return r;
        }
        entry->proc = proc;
        // A member of a set may do without; the caller of this has no other
        // way to learn of the end.
        if (proc.handle == PROCSET_HANDLE_INVALID
            && proc.status.state == PROCSET_RUNNING) {
            return procset__error(PROCSET__CALL_PIDFD_OPEN, EMFILE);
        }
    }
    return 0;
}

static void
undo(procset_launch *launch)
{
    for (size_t i = 0; i < launch->count; i++) {
        if (launch->entries[i].proc.pid != 0) {
            (void) procset__proc_signal(&launch->entries[i].proc, SIGKILL);
        }
    }
    for (size_t i = 0; i < launch->count; i++) {
        if (launch->entries[i].proc.pid != 0) {
            reap(&launch->entries[i].proc, launch->features);
            procset__proc_done(&launch->entries[i].proc);
            launch->entries[i].proc.pid = 0;
        }
    }
}

int
procset_launch_start(procset_launch *launch)
{
    procset__launcher launcher = {.memory = NULL};
    procset__mask mask;
    int r;

    for (size_t i = 0; i < launch->count; i++) {
        if (launch->entries[i].proc.pid != 0) {
            return procset__error_invalid(PROCSET__CALL_LAUNCH);
        }
    }
    r = procset__launcher_open(&launcher);
    if (r < 0) {
        return r;
    }
    // No handler of ours may run in a child, and none must interrupt us in
    // between.
    r = procset__mask_fill(&mask);
    if (r < 0) {
        goto finish;
    }
    for (size_t i = 0; r >= 0 && i < launch->count; i++) {
        procset__launch_swap_variable(launch, &launch->entries[i]);
        r = create(&launcher, launch, &launch->entries[i]);
        procset__launch_swap_variable(launch, &launch->entries[i]);
    }
    if (r < 0) {
        undo(launch);
    }
    procset__mask_restore(&mask);

finish:
    procset__launcher_close(&launcher);
    return r;
}
