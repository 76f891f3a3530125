// Starting a program on Linux.
//
// A child is made by clone(CLONE_VM | CLONE_VFORK): it lives in the memory of
// the launcher, whose thread sleeps until the child has become the program or
// has given up. Nothing of the launcher is copied, however large it is, and
// what went wrong is simply written to memory. Where that is not to be had
// (some sandboxes and emulators make a plain fork of it) it is fork().
//
// Facts about clone(2) that this file relies on:
//
// - The C library's clone() moves to the child's stack on every architecture.
//   clone3() has no such wrapper. It would add one thing that is of use here,
//   CLONE_CLEAR_SIGHAND, and that saves a few microseconds.
// - CLONE_PIDFD (5.2) stores the handle through the parameter for the parent's
//   thread id; older kernels leave that alone. It is closed on execve().
// - A child whose exit signal is 0 is seen by waits with __WCLONE or __WALL
//   only, so hardly anybody else reaps the children of the probe.

#define _GNU_SOURCE

#include "launch_system.h"

#include "error.h"
#include "launch_child.h"
#include "mask.h"

#include <errno.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#ifndef CLONE_PIDFD
#define CLONE_PIDFD 0x1000
#endif

#define STACK_SIZE ((size_t) 64 * 1024)
#define GUARD_SIZE ((size_t) 64 * 1024)

// The launcher's memory is a stack for the child, with a gap below it that
// nobody can use.
int
procset__launcher_open(procset__launcher *ret_launcher)
{
    char *base = mmap(NULL, GUARD_SIZE + STACK_SIZE, PROT_NONE,
                      MAP_PRIVATE | MAP_ANONYMOUS | MAP_STACK, -1, 0);

    if (base == MAP_FAILED) {
        return procset__error_last(PROCSET__CALL_MMAP);
    }
    if (mprotect(base + GUARD_SIZE, STACK_SIZE, PROT_READ | PROT_WRITE) < 0) {
        int r = procset__error_last(PROCSET__CALL_MPROTECT);

        (void) munmap(base, GUARD_SIZE + STACK_SIZE);
        return r;
    }
    *ret_launcher = (procset__launcher) {.memory = base};
    return 0;
}

void
procset__launcher_close(procset__launcher *launcher)
{
    (void) munmap(launcher->memory, GUARD_SIZE + STACK_SIZE);
    launcher->memory = NULL;
}

static char *
stack_top(const procset__launcher *launcher)
{
    return (char *) launcher->memory + GUARD_SIZE + STACK_SIZE;
}

// ------------------------------------------------------------------- probe

static int
set_flag(void *flag)
{
    *(volatile bool *) flag = true;
    return 0;
}

// Whether a child made with `flags` runs in our memory while we wait for it.
static bool
try_clone(const procset__launcher *launcher, int flags)
{
    volatile bool ran = false;
    int pidfd = -1;
    int pid =
        clone(set_flag, stack_top(launcher), flags, (void *) &ran, &pidfd);

    if (pid < 0) {
        return false;
    }
    while (waitpid(pid, NULL, (int) __WCLONE) < 0 && errno == EINTR) {
    }
    if (pidfd >= 0) {
        (void) close(pidfd);
    }
    return ran && (pidfd >= 0) == ((flags & CLONE_PIDFD) != 0);
}

// ThreadSanitizer's own clone() takes such a child for a fork, and notes in
// the memory that the two share that all other threads are gone.
#ifdef __SANITIZE_THREAD__
#define SHARING_WORKS false
#else
#define SHARING_WORKS true
#endif

unsigned
procset__launch_probe(void)
{
    unsigned features = 0;
    procset__launcher launcher;
    procset__mask mask;

    if (procset__child_has_close_range()) {
        features |= PROCSET_FEATURE_CLOSE_RANGE;
    }
    if (!SHARING_WORKS || procset__launcher_open(&launcher) < 0) {
        return features;
    }
    if (procset__mask_fill(&mask) == 0) {
        if (try_clone(&launcher, CLONE_VM | CLONE_VFORK | CLONE_PIDFD)) {
            features |= PROCSET_FEATURE_VFORK | PROCSET_FEATURE_CLONE_PIDFD;
        }
        else if (try_clone(&launcher, CLONE_VM | CLONE_VFORK)) {
            features |= PROCSET_FEATURE_VFORK;
        }
        procset__mask_restore(&mask);
    }
    procset__launcher_close(&launcher);
    return features;
}

// ------------------------------------------------------------------ create

// What a child that shares our memory leaves there.
typedef struct {
    procset__child_plan plan;
    int error;
} shared_plan;

static int
become_shared(void *argument)
{
    shared_plan *shared = argument;

    shared->error = procset__child_become(&shared->plan);
    procset__child_give_up();
}

// Returns the error of the child, or of making it.
static int
create_shared(const procset__child_plan *plan,
              const procset__launcher *launcher, bool want_handle,
              procset__proc *proc)
{
    shared_plan shared = {.plan = *plan};
    int flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    int pidfd = -1;
    int pid;

    if (want_handle) {
        flags |= CLONE_PIDFD;
    }
    pid = clone(become_shared, stack_top(launcher), flags, &shared, &pidfd);
    if (pid < 0) {
        return procset__error_last(PROCSET__CALL_CLONE);
    }
    proc->pid = pid;
    proc->handle = want_handle ? pidfd : PROCSET_HANDLE_INVALID;
    return *(volatile int *) &shared.error;
}

int
procset__launcher_create(const procset__launcher *launcher,
                         const procset_launch *launch,
                         const procset__launchee *entry, procset__proc *proc)
{
    const unsigned both = PROCSET_FEATURE_PIDFD | PROCSET_FEATURE_CLONE_PIDFD;
    procset__child_plan plan = procset__child_plan_of(launch, entry);

    if ((launch->features & PROCSET_FEATURE_VFORK) == 0) {
        return procset__child_fork(&plan, proc);
    }
    return create_shared(&plan, launcher, (launch->features & both) == both,
                         proc);
}
