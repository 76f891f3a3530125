// Starting programs on POSIX: all or none of them.

#define _GNU_SOURCE

#include "launch.h"

#include "clock.h"
#include "error.h"
#include "launch_system.h"
#include "mask.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>

// How long an undone start waits for a process that was killed.
#define UNDO_NS (2 * INT64_C(1000000000))

extern char **environ;

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

// Waits for a process that has been killed or has given up, and reaps it.
static void
reap(procset__proc *proc)
{
    struct pollfd entry = {.fd = (int) proc->handle, .events = POLLIN};
    int64_t deadline = procset__now() + UNDO_NS;
    int64_t left;

    if (proc->handle == PROCSET_HANDLE_INVALID) {
        // It cannot be waited for with a time-out.
        (void) procset__proc_block(proc->pid);
    }
    else {
        while ((left = deadline - procset__now()) > 0
               && poll(&entry, 1, (int) (left / 1000000) + 1) < 0
               && errno == EINTR) {
        }
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
            reap(&proc);
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
            reap(&launch->entries[i].proc);
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
