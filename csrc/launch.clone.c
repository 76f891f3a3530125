// Starting programs on Linux: prepare, create, confirm.
//
// A child is made by clone(CLONE_VM | CLONE_VFORK): it lives in the memory of
// the launcher, whose thread sleeps until the child has become the program or
// has given up. Nothing of the launcher is copied, however large it is, and
// what went wrong is simply written to memory. Where that is not to be had
// (some sandboxes and emulators make a plain fork of it) it is fork() and a
// pipe that closes on execve().
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
// - fork() runs what was registered with pthread_atfork().

#define _GNU_SOURCE

#include "launch.h"

#include "clock.h"
#include "error.h"
#include "launch_child.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
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
#define ALL_SIGNALS (~(uint64_t) 0)
// How long an undone start waits for a process that was killed.
#define UNDO_NS (2 * INT64_C(1000000000))

extern char **environ;

// A stack for the child, with a gap below it that nobody can use.
typedef struct {
    char *base;
} child_stack;

static int
stack_open(child_stack *ret_stack)
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
    *ret_stack = (child_stack) {.base = base};
    return 0;
}

static void
stack_close(const child_stack *stack)
{
    (void) munmap(stack->base, GUARD_SIZE + STACK_SIZE);
}

static char *
stack_top(const child_stack *stack)
{
    return stack->base + GUARD_SIZE + STACK_SIZE;
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
try_clone(const child_stack *stack, int flags)
{
    volatile bool ran = false;
    int pidfd = -1;
    int pid = clone(set_flag, stack_top(stack), flags, (void *) &ran, &pidfd);

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
    uint64_t mask;
    child_stack stack = {.base = NULL};

    if (procset__child_has_close_range()) {
        features |= PROCSET_FEATURE_CLOSE_RANGE;
    }
    if (!SHARING_WORKS || stack_open(&stack) < 0) {
        return features;
    }
    if (procset__child_set_mask(ALL_SIGNALS, &mask) == 0) {
        if (try_clone(&stack, CLONE_VM | CLONE_VFORK | CLONE_PIDFD)) {
            features |= PROCSET_FEATURE_VFORK | PROCSET_FEATURE_CLONE_PIDFD;
        }
        else if (try_clone(&stack, CLONE_VM | CLONE_VFORK)) {
            features |= PROCSET_FEATURE_VFORK;
        }
        (void) procset__child_set_mask(mask, &mask);
    }
    stack_close(&stack);
    return features;
}

// ----------------------------------------------------------------- prepare

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

static char *no_words[] = {NULL};

static procset__child_plan
make_plan(const procset_launch *launch, const procset__launchee *entry)
{
    char **arguments = entry->arguments.items;
    char **environment = launch->environment.items;

    return (procset__child_plan) {
        .path = launch->path,
        .arguments = arguments == NULL ? no_words : arguments,
        .environment = environment == NULL ? no_words : environment,
        .blocked = launch->blocked,
        .inherited = entry->inherited,
        .inherited_count = entry->inherited_count,
        .has_close_range = launch->features & PROCSET_FEATURE_CLOSE_RANGE,
    };
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
create_shared(const procset__child_plan *plan, const child_stack *stack,
              bool want_handle, procset__proc *proc)
{
    shared_plan shared = {.plan = *plan};
    int flags = CLONE_VM | CLONE_VFORK | SIGCHLD;
    int pidfd = -1;
    int pid;

    if (want_handle) {
        flags |= CLONE_PIDFD;
    }
    pid = clone(become_shared, stack_top(stack), flags, &shared, &pidfd);
    if (pid < 0) {
        return procset__error_last(PROCSET__CALL_CLONE);
    }
    proc->pid = pid;
    proc->handle = want_handle ? pidfd : PROCSET_HANDLE_INVALID;
    return *(volatile int *) &shared.error;
}

// Returns the error that a forked child has written to `read_end`, or zero
// when the pipe was closed by the start of the program.
static int
read_error(procset_handle read_end)
{
    int error = 0;
    ssize_t n;

    do {
        n = read((int) read_end, &error, sizeof(error));
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return procset__error_last(PROCSET__CALL_READ);
    }
    return n == (ssize_t) sizeof(error) ? error : 0;
}

static int
create_forked(const procset__child_plan *plan, procset__proc *proc)
{
    int ends[2];
    pid_t pid;
    int r;

    if (pipe2(ends, O_CLOEXEC) < 0) {
        return procset__error_last(PROCSET__CALL_PIPE2);
    }
    pid = fork();
    if (pid == 0) {
        r = procset__child_become(plan);
        // The launcher reads, or is gone; either way there is nobody to tell.
        (void) !write(ends[1], &r, sizeof(r));
        procset__child_give_up();
    }
    r = pid < 0 ? procset__error_last(PROCSET__CALL_FORK) : 0;
    (void) close(ends[1]);
    if (r == 0) {
        proc->pid = pid;
        r = read_error(ends[0]);
    }
    (void) close(ends[0]);
    return r;
}

// ----------------------------------------------------------------- confirm

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
create(const procset_launch *launch, const child_stack *stack,
       procset__launchee *entry)
{
    procset__child_plan plan = make_plan(launch, entry);
    bool wants_handle = launch->features & PROCSET_FEATURE_PIDFD;
    bool gets_handle =
        wants_handle && (launch->features & PROCSET_FEATURE_CLONE_PIDFD);
    procset__proc proc = entry->proc;
    int r;

    if (launch->features & PROCSET_FEATURE_VFORK) {
        r = create_shared(&plan, stack, gets_handle, &proc);
    }
    else {
        r = create_forked(&plan, &proc);
    }
    if (r < 0) {
        if (proc.pid != 0) {
            reap(&proc);
            procset__proc_done(&proc);
        }
        return r;
    }
    entry->proc = proc;
    if (wants_handle && proc.handle == PROCSET_HANDLE_INVALID) {
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
    uint64_t mask;
    child_stack stack = {.base = NULL};
    int r;

    for (size_t i = 0; i < launch->count; i++) {
        if (launch->entries[i].proc.pid != 0) {
            return procset__error_invalid(PROCSET__CALL_LAUNCH);
        }
    }
    r = stack_open(&stack);
    if (r < 0) {
        return r;
    }
    // No handler of ours may run in a child, and none must interrupt us in
    // between.
    r = procset__child_set_mask(ALL_SIGNALS, &mask);
    if (r < 0) {
        goto finish;
    }
    for (size_t i = 0; r >= 0 && i < launch->count; i++) {
        r = create(launch, &stack, &launch->entries[i]);
    }
    if (r < 0) {
        undo(launch);
    }
    (void) procset__child_set_mask(mask, &mask);

finish:
    stack_close(&stack);
    return r;
}
