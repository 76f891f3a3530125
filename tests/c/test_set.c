#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "clock.h"
#include "procset.h"

#include <pthread.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Every test runs with the features of this system, and with fewer.
static unsigned features;

// Events that are there now.
static size_t
look(procset *set, procset_event *events, size_t capacity)
{
    size_t count = 99;

    OK(procset_wait(set, 0, events, capacity, &count));
    return count;
}

static procset *
open_with(const test_child *children, size_t count)
{
    return set_of(features, children, count);
}

static void
test_close_of_nothing(void)
{
    CHECK(procset_close(NULL) == NULL);
    CHECK(procset_abandon(NULL) == NULL);
}

static void
test_empty_set(void)
{
    procset *set = open_with(NULL, 0);
    procset_event event;
    procset_status status;

    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK_INT(procset_get_status(set, 0, &status), <, 0);
    CHECK_INT(procset_signal(set, 0, SIGTERM), <, 0);
    CHECK_INT(procset_forget_report(set, 0), <, 0);
    set = procset_close(set);
}

static void
test_impossible_pids_are_refused(void)
{
    const int64_t pids[] = {0, -1, (int64_t) 1 << 40};
    procset *set = open_with(NULL, 0);
    size_t index = 77;

    for (size_t i = 0; i < 3; i++) {
        procset_member member = {.pid = pids[i],
                                 .sentinel = PROCSET_HANDLE_INVALID,
                                 .report = PROCSET_HANDLE_INVALID,
                                 .job = PROCSET_HANDLE_INVALID};
        int r = procset_add(set, &member, &index);

        CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_INVALID);
        CHECK_INT(index, ==, 77);
    }
    set = procset_close(set);
}

static void
test_exit_code_and_usage(void)
{
    test_child child = child_start(CHILD_EXITS, 42);
    procset *set = open_with(&child, 1);
    procset_event event;

    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_RUNNING);
    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_EXITED);
    CHECK_INT(status_of(set, 0).code, ==, 42);
    CHECK_INT(status_of(set, 0).max_rss, >, 0);
    CHECK_INT(waitpid(child.pid, NULL, 0), ==, -1);
    // Told once.
    CHECK(look(set, &event, 1) == 0 || event.type == PROCSET_EVENT_WOKEN);
    CHECK_INT(look(set, &event, 1), ==, 0);
    set = procset_close(set);
}

static void
test_death_by_signal(void)
{
    test_child child = child_start(CHILD_DIES, SIGUSR1);
    procset *set = open_with(&child, 1);

    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_SIGNALED);
    CHECK_INT(status_of(set, 0).code, ==, SIGUSR1);
    CHECK(!status_of(set, 0).core_dumped);
    set = procset_close(set);
}

// A signal reaches the member; a second one finds it gone, before and after
// it has been reaped.
static void
test_signal(void)
{
    test_child child = child_start(CHILD_EXITS, 0);
    procset *set = open_with(&child, 1);
    int r;

    OK(procset_signal(set, 0, SIGKILL));
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).code, ==, SIGKILL);
    r = procset_signal(set, 0, SIGKILL);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_GONE);
    child_release(&child);
    set = procset_close(set);
}

// Children that end while nobody waits are told in the order of their ends,
// also when the room for events is small.
static void
test_order_of_ends(void)
{
    const size_t order[] = {3, 1, 4, 0, 2};
    test_child children[5];
    procset *set;

    for (size_t i = 0; i < 5; i++) {
        children[i] = child_start(CHILD_EXITS, (int) i);
    }
    set = open_with(children, 5);
    for (size_t i = 0; i < 5; i++) {
        child_release(&children[order[i]]);
        CHECK_INT(waitid(P_PID, (id_t) children[order[i]].pid,
                         &(siginfo_t) {0}, WEXITED | WNOWAIT),
                  ==, 0);
    }
    if ((features & WAITABLE) != 0) {
        for (size_t i = 0; i < 5; i++) {
            procset_event event;

            CHECK_INT(look(set, &event, 1), ==, 1);
            CHECK_INT(event.type, ==, PROCSET_EVENT_ENDED);
            CHECK_INT(event.index, ==, order[i]);
        }
    }
    else {
        // Threads tell, in whatever order they get to run.
        size_t seen = 0;

        for (size_t i = 0; i < 5; i++) {
            seen |= (size_t) 1 << wait_for_end(set);
        }
        CHECK_INT(seen, ==, 31);
    }
    set = procset_close(set);
}

// More ends than room for events: none is lost.
static void
test_more_ends_than_room(void)
{
    enum { COUNT = 40 };
    test_child children[COUNT];
    bool seen[COUNT] = {false};
    procset *set;

    for (size_t i = 0; i < COUNT; i++) {
        children[i] = child_start(CHILD_EXITS, 0);
    }
    set = open_with(children, COUNT);
    for (size_t i = 0; i < COUNT; i++) {
        child_release(&children[i]);
    }
    for (size_t i = 0; i < COUNT; i++) {
        size_t index = wait_for_end(set);

        CHECK(!seen[index]);
        seen[index] = true;
    }
    set = procset_close(set);
}

// The child of another parent has ended when its sentinel is hung up.
static void
test_child_of_another_parent(void)
{
    test_child middle = child_start(CHILD_EXITS, 0);
    procset *set = open_with(NULL, 0);
    procset_event event;
    size_t index;
    int ends[2];
    int r;

    open_pair(ends);
    r = procset_add(set,
                    &(procset_member) {.pid = middle.pid,
                                       .sentinel = ends[0],
                                       .report = PROCSET_HANDLE_INVALID,
                                       .job = PROCSET_HANDLE_INVALID},
                    &index);
    OK(r);
    CHECK_INT(look(set, &event, 1), ==, 0);
    OK(procset_signal(set, 0, 0));
    CHECK_INT(close(ends[1]), ==, 0);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_UNKNOWN);
    r = procset_signal(set, 0, SIGKILL);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_GONE);
    set = procset_close(set);
    CHECK_INT(close(ends[0]), ==, 0);
    child_release(&middle);
    CHECK_INT(waitpid(middle.pid, NULL, 0), ==, middle.pid);
}

// A report can be read until it is forgotten; a member without one reads as
// ended.
static void
test_report(void)
{
    test_child child = child_start(CHILD_EXITS, 0);
    procset *set = open_with(NULL, 0);
    procset_event event;
    char buffer[16];
    size_t index, count;
    int ends[2];
    int r;

    open_pair(ends);
    OK(procset_add(set,
                   &(procset_member) {.pid = child.pid,
                                      .sentinel = PROCSET_HANDLE_INVALID,
                                      .report = ends[0],
                                      .job = PROCSET_HANDLE_INVALID},
                   &index));
    r = procset_read(set, 0, buffer, sizeof(buffer), &count);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_AGAIN);
    CHECK_INT(write(ends[1], "hello", 5), ==, 5);
    for (int i = 0; i < 2; i++) {
        CHECK_INT(look(set, &event, 1), ==, 1);
        CHECK_INT(event.type, ==, PROCSET_EVENT_READABLE);
        CHECK_INT(event.index, ==, 0);
    }
    OK(procset_read(set, 0, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 5);
    CHECK_INT(look(set, &event, 1), ==, 0);
    OK(procset_forget_report(set, 0));
    OK(procset_forget_report(set, 0));
    CHECK_INT(write(ends[1], "more", 4), ==, 4);
    CHECK_INT(look(set, &event, 1), ==, 0);
    OK(procset_read(set, 0, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 0);
    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    set = procset_close(set);
    CHECK_INT(close(ends[0]), ==, 0);
    CHECK_INT(close(ends[1]), ==, 0);
}

// wake() and a byte on the wake handle end a wait, once.
static void
test_wake(void)
{
    procset *set = open_with(NULL, 0);
    procset_event event;

    OK(procset_wake(set));
    OK(procset_wake(set));
    CHECK_INT(look(set, &event, 1), ==, 1);
    CHECK_INT(event.type, ==, PROCSET_EVENT_WOKEN);
    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK_INT(write((int) procset_wake_handle(set), "x", 1), ==, 1);
    CHECK_INT(look(set, &event, 1), ==, 1);
    CHECK(procset_wait_handle(set) != PROCSET_HANDLE_INVALID);
    set = procset_close(set);
}

// Out of descriptors, a child is watched by a thread, and told like any other.
static void
test_out_of_descriptors(void)
{
    test_child child = child_start(CHILD_EXITS, 9);
    procset *set = open_with(NULL, 0);
    procset_member member = member_of(&child);
    struct rlimit old, none;
    size_t index;
    int r;

    CHECK_INT(getrlimit(RLIMIT_NOFILE, &old), ==, 0);
    none = old;
    none.rlim_cur = 0;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &none), ==, 0);
    r = procset_add(set, &member, &index);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &old), ==, 0);
    OK(r);
    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).code, ==, 9);
    set = procset_close(set);
}

// A set that is closed leaves its members as they are.
static void
test_close_leaves_members_running(void)
{
    test_child child = child_start(CHILD_EXITS, 3);
    procset *set = open_with(&child, 1);
    int status;

    set = procset_close(set);
    CHECK_INT(waitpid(child.pid, &status, WNOHANG), ==, 0);
    child_release(&child);
    CHECK_INT(waitpid(child.pid, &status, 0), ==, child.pid);
    CHECK_INT(WEXITSTATUS(status), ==, 3);
}

// A child of the fork drops its copy; the parent's set goes on working.
static void
test_abandon_in_a_fork(void)
{
    test_child child = child_start(CHILD_EXITS, 0);
    procset *set = open_with(&child, 1);
    int before, status;
    pid_t pid;

    before = count_descriptors();
    pid = fork();
    if (pid == 0) {
        set = procset_abandon(set);
        if (count_descriptors() < before) {
            // Not _exit(): what abandoning loses on purpose is no leak.
            (void) execl("/usr/bin/true", "true", (char *) NULL);
        }
        _exit(1);
    }
    CHECK_INT(waitpid(pid, &status, 0), ==, pid);
    CHECK_INT(status, ==, 0);
    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    set = procset_close(set);
}

static void
run_all(unsigned mask)
{
    features = mask;
    RUN(test_close_of_nothing);
    RUN(test_empty_set);
    RUN(test_impossible_pids_are_refused);
    RUN(test_exit_code_and_usage);
    RUN(test_death_by_signal);
    RUN(test_signal);
    RUN(test_order_of_ends);
    RUN(test_more_ends_than_room);
    RUN(test_child_of_another_parent);
    RUN(test_report);
    RUN(test_wake);
    RUN(test_out_of_descriptors);
    RUN(test_close_leaves_members_running);
    RUN(test_abandon_in_a_fork);
}

int
main(void)
{
    run_with_fewer(run_all);
    return 0;
}
