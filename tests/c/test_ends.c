// Ends that are not as usual: told late, told early, or told to others.

#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "clock.h"
#include "procset.h"

#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#ifdef __linux__
#include <errno.h>
#include <sys/ptrace.h>
#endif

// Every test runs with the features of this system, and with fewer.
static unsigned features;

static procset *
open_with(const test_child *children, size_t count)
{
    return set_of(features, children, count);
}

// Somebody else's wait takes the status; the end is told all the same.
static void
test_reaped_elsewhere(void)
{
    test_child child = child_start(CHILD_EXITS, 0);
    procset *set = open_with(&child, 1);
    int r;

    child_release(&child);
    CHECK_INT(waitpid(child.pid, NULL, 0), ==, child.pid);
    r = procset_signal(set, 0, SIGTERM);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_GONE);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_UNKNOWN);
    set = procset_close(set);
}

static void
test_reaped_before_it_was_added(void)
{
    test_child children[2] = {child_start(CHILD_EXITS, 0),
                              child_start(CHILD_EXITS, 5)};
    procset *set;

    child_release(&children[0]);
    CHECK_INT(waitpid(children[0].pid, NULL, 0), ==, children[0].pid);
    set = open_with(children, 2);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_UNKNOWN);
    child_release(&children[1]);
    CHECK_INT(wait_for_end(set), ==, 1);
    CHECK_INT(status_of(set, 1).code, ==, 5);
    set = procset_close(set);
}

// The kernel reaps by itself where SIGCHLD is ignored.
static void
test_sigchld_ignored(void)
{
    test_child child = child_start(CHILD_EXITS, 0);
    procset *set = open_with(&child, 1);

    (void) signal(SIGCHLD, SIG_IGN);
    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_UNKNOWN);
    (void) signal(SIGCHLD, SIG_DFL);
    set = procset_close(set);
}

// A child that has ended and waits for somebody to reap it is told like any
// other.
static void
test_ended_before_it_was_added(void)
{
    test_child child = child_start(CHILD_EXITS, 8);
    siginfo_t info;
    procset *set;

    child_release(&child);
    CHECK_INT(waitid(P_PID, (id_t) child.pid, &info, WEXITED | WNOWAIT), ==,
              0);
    set = open_with(&child, 1);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_EXITED);
    CHECK_INT(status_of(set, 0).code, ==, 8);
    set = procset_close(set);
}

// A process that is two members ends twice; only one can have its status.
static void
test_one_process_as_two_members(void)
{
    test_child child = child_start(CHILD_EXITS, 4);
    test_child twice[2] = {child, child};
    procset *set = open_with(twice, 2);
    size_t first, second;

    child_release(&child);
    first = wait_for_end(set);
    second = wait_for_end(set);
    CHECK_INT(first + second, ==, 1);
    CHECK_INT(status_of(set, first).state, ==, PROCSET_EXITED);
    CHECK_INT(status_of(set, first).code, ==, 4);
    CHECK_INT(status_of(set, second).state, ==, PROCSET_UNKNOWN);
    set = procset_close(set);
}

// A look at a child takes nothing away.
static void
test_peek(void)
{
    test_child exits = child_start(CHILD_EXITS, 9);
    test_child dies = child_start(CHILD_DIES, SIGUSR2);
    procset_status status;
    int r;

    OK(procset_peek(exits.pid, false, &status));
    CHECK_INT(status.state, ==, PROCSET_RUNNING);
    child_release(&exits);
    child_release(&dies);
    for (int i = 0; i < 2; i++) {
        OK(procset_peek(exits.pid, true, &status));
        CHECK_INT(status.state, ==, PROCSET_EXITED);
        CHECK_INT(status.code, ==, 9);
        OK(procset_peek(dies.pid, true, &status));
        CHECK_INT(status.state, ==, PROCSET_SIGNALED);
        CHECK_INT(status.code, ==, SIGUSR2);
        CHECK(!status.core_dumped);
    }
    CHECK_INT(waitpid(exits.pid, NULL, 0), ==, exits.pid);
    CHECK_INT(waitpid(dies.pid, NULL, 0), ==, dies.pid);
    r = procset_peek(exits.pid, false, &status);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_NO_CHILD);
}

#ifdef __linux__
typedef struct {
    pid_t pid;
    int hold; // closing it lets the tracer go on
} test_tracer;

// Has another process trace a child: it keeps the status back when the child
// has ended, until it is let go.
static test_tracer
trace(const test_child *child)
{
    int ready[2], hold[2];
    test_tracer tracer;
    char byte;

    open_pair(ready);
    open_pair(hold);
    tracer.pid = fork();
    if (tracer.pid == 0) {
        (void) close(hold[1]);
        (void) close(child->control);
        if (ptrace(PTRACE_SEIZE, child->pid, 0, 0) != 0) {
            _exit(1);
        }
        (void) !write(ready[1], "x", 1);
        (void) !read(hold[0], &byte, 1);
        _exit(waitpid(child->pid, NULL, 0) == child->pid ? 0 : 1);
    }
    CHECK_INT(read(ready[0], &byte, 1), ==, 1);
    (void) close(ready[0]);
    (void) close(ready[1]);
    (void) close(hold[0]);
    tracer.hold = hold[1];
    return tracer;
}

static void
let_go(const test_tracer *tracer)
{
    CHECK_INT(close(tracer->hold), ==, 0);
    CHECK_INT(waitpid(tracer->pid, NULL, 0), ==, tracer->pid);
}

// While a debugger holds a dead child back, the wait sleeps; when it lets go,
// the status is ours.
static void
test_traced_child(void)
{
    test_child child = child_start(CHILD_EXITS, 6);
    procset *set = open_with(&child, 1);
    test_tracer tracer = trace(&child);
    procset_event events[4];
    struct rusage before, after;
    size_t count;

    child_release(&child);
    // The handle is ready and the status is not. Whoever would now spin would
    // use up the 100 ms; a wait sleeps through them.
    CHECK_INT(getrusage(RUSAGE_THREAD, &before), ==, 0);
    OK(procset_wait(set, procset__now() + 50000000, events, 4, &count));
    OK(procset_wait(set, procset__now() + 50000000, events, 4, &count));
    CHECK_INT(count, ==, 0);
    CHECK_INT(getrusage(RUSAGE_THREAD, &after), ==, 0);
    CHECK_INT(after.ru_utime.tv_usec + after.ru_stime.tv_usec
                  - before.ru_utime.tv_usec - before.ru_stime.tv_usec,
              <, 40000);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_RUNNING);
    let_go(&tracer);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).code, ==, 6);
    set = procset_close(set);
}

// From now on this process starts no thread: a user other than root may be
// kept from that.
static void
forbid_threads(void)
{
    const struct rlimit none = {0, 0};

    CHECK_INT(setrlimit(RLIMIT_NPROC, &none), ==, 0);
    if (getuid() == 0) {
        CHECK_INT(setuid(65534), ==, 0);
    }
}

static void
wait_without_threads(void)
{
    test_child children[2] = {child_start(CHILD_EXITS, 6),
                              child_start(CHILD_EXITS, 7)};
    procset *set = open_with(children, 2);
    test_tracer tracer = trace(&children[0]);
    procset_event events[4];
    siginfo_t info;
    size_t count;
    int r;

    child_release(&children[0]);
    child_release(&children[1]);
    CHECK_INT(waitid(P_PID, (id_t) children[1].pid, &info, WEXITED | WNOWAIT),
              ==, 0);
    forbid_threads();
    OK(procset_wait(set, PROCSET_NEVER, events, 4, &count));
    CHECK_INT(count, ==, 1);
    CHECK_INT(events[0].index, ==, 1);
    CHECK_INT(events[0].code, ==, 7);
    for (int i = 0; i < 2; i++) {
        r = procset_wait(set, PROCSET_NEVER, events, 4, &count);
        CHECK_STR(procset_error_call(r), "pthread_create");
    }
    let_go(&tracer);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).code, ==, 6);
    set = procset_close(set);
}

// What is told in one breath with an error is not lost, nor what has failed.
static void
test_an_end_that_cannot_be_watched(void)
{
    int status;
    pid_t pid;

    if ((features & WAITABLE) == 0) {
        // The threads are there before the error.
        return;
    }
    pid = fork();
    if (pid == 0) {
        wait_without_threads();
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), ==, pid);
    CHECK_INT(status, ==, 0);
}

// Not so under an emulator. No process can be its own tracer, so this does
// nothing.
static bool
can_trace(void)
{
    return ptrace(PTRACE_SEIZE, getpid(), 0, 0) == 0 || errno != ENOSYS;
}
#endif

static void
run_all(unsigned mask)
{
    features = mask;
    RUN(test_reaped_elsewhere);
    RUN(test_reaped_before_it_was_added);
    RUN(test_sigchld_ignored);
    RUN(test_ended_before_it_was_added);
    RUN(test_one_process_as_two_members);
    RUN(test_peek);
#ifdef __linux__
    if (can_trace()) {
        RUN(test_traced_child);
        RUN(test_an_end_that_cannot_be_watched);
    }
#endif
}

int
main(void)
{
    run_with_fewer(run_all);
    return 0;
}
