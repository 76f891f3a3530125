#include "check.h"
#include "clock.h"
#include "member.windows.h"
#include "program.windows.h"

static void
test_empty_set(void)
{
    procset *set = open_with(NULL, 0);
    procset_event event;
    procset_status status;

    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK_INT(procset_get_status(set, 0, &status), <, 0);
    CHECK_INT(procset_signal(set, 0, SIGNAL_TERM), <, 0);
    CHECK_INT(procset_forget_report(set, 0), <, 0);
    CHECK(procset_close(set) == NULL);
    CHECK(procset_close(NULL) == NULL);
    CHECK(procset_abandon(NULL) == NULL);
}

// All 32 bits of an exit code arrive, those that mean "running" among them.
static void
test_exit_codes(void)
{
    const unsigned codes[] = {0, 42, 259, 0xC0000005, 0xFFFFFFFF};
    const size_t count = sizeof(codes) / sizeof(*codes);
    test_child children[sizeof(codes) / sizeof(*codes)];
    procset_event event;
    procset *set;

    for (size_t i = 0; i < count; i++) {
        children[i] = child_start(codes[i]);
    }
    set = open_with(children, count);
    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_RUNNING);
    for (size_t i = 0; i < count; i++) {
        child_release(&children[i]);
    }
    for (size_t i = 0; i < count; i++) {
        (void) wait_for_end(set);
    }
    for (size_t i = 0; i < count; i++) {
        CHECK_INT(status_of(set, i).state, ==, PROCSET_EXITED);
        CHECK_INT((unsigned) status_of(set, i).code, ==, codes[i]);
        child_done(&children[i]);
    }
    // Told once.
    CHECK_INT(look(set, &event, 1), ==, 0);
    set = procset_close(set);
}

// The exit code of a process that has crashed names the reason.
static void
test_crash(void)
{
    test_child child = child_start(CRASH);
    procset *set = open_with(&child, 1);

    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_EXITED);
    CHECK_INT((unsigned) status_of(set, 0).code, ==, STATUS_ACCESS_VIOLATION);
    set = procset_close(set);
    child_done(&child);
}

static void
test_usage(void)
{
    test_child child = child_start(0);
    procset *set = open_with(&child, 1);

    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).user_ns, >=, 0);
    CHECK_INT(status_of(set, 0).system_ns, >=, 0);
    if (is_wine()) {
        SKIP(max_rss, "Wine forgets the memory of a process that has ended");
    }
    else {
        CHECK_INT(status_of(set, 0).max_rss, >, 0);
    }
    set = procset_close(set);
    child_done(&child);
}

// What is ended by force has died of SIGTERM, and a second time it is gone.
static void
test_signal(void)
{
    test_child child = child_start(0);
    procset *set = open_with(&child, 1);
    int r;

    OK(procset_signal(set, 0, 0));
    r = procset_signal(set, 0, 9);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_INVALID);
    // Nobody knows whether it leads a group.
    r = procset_signal(set, 0, SIGNAL_BREAK);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_INVALID);
    OK(procset_signal(set, 0, SIGNAL_TERM));
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_SIGNALED);
    CHECK_INT(status_of(set, 0).code, ==, SIGNAL_TERM);
    r = procset_signal(set, 0, SIGNAL_TERM);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_GONE);
    set = procset_close(set);
    child_release(&child);
    child_done(&child);
}

// A signal to a member that has ended and was not told yet finds it gone.
static void
test_signal_after_the_end(void)
{
    test_child child = child_start(0);
    procset *set = open_with(&child, 1);
    int r;

    child_release(&child);
    CHECK_INT(WaitForSingleObject(child.process, INFINITE), ==, WAIT_OBJECT_0);
    r = procset_signal(set, 0, SIGNAL_TERM);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_GONE);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_EXITED);
    set = procset_close(set);
    child_done(&child);
}

typedef struct {
    test_child child;
    procset_handle read_end;
    procset_handle write_end;
    bool ended;
    bool read;
} reporter;

// Reads what there is; true at the end of the report.
static bool
read_report(procset *set, size_t index)
{
    char buffer[16];
    size_t count;
    int r = procset_read(set, index, buffer, sizeof(buffer), &count);

    if (r < 0) {
        CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_AGAIN);
        return false;
    }
    if (count == 0) {
        OK(procset_forget_report(set, index));
    }
    return count == 0;
}

// A wait takes no more than 64 handles; a set takes as many as there are, with
// their reports.
static void
test_many_members(void)
{
    enum { COUNT = 200 };
    static reporter all[COUNT];
    procset *set = open_with(NULL, 0);
    procset_event events[32];
    size_t left = 2 * COUNT, count;

    for (size_t i = 0; i < COUNT; i++) {
        procset_member member;

        all[i] = (reporter) {.child = child_start((unsigned) i)};
        OK(procset_report_open(&all[i].read_end, &all[i].write_end));
        member = member_of(&all[i].child);
        member.report = all[i].read_end;
        OK(procset_add(set, &member, &count));
    }
    for (size_t i = 0; i < COUNT; i++) {
        DWORD written;

        CHECK(WriteFile((HANDLE) all[i].write_end, "x", 1, &written, NULL));
        CHECK(CloseHandle((HANDLE) all[i].write_end));
        child_release(&all[i].child);
    }
    while (left > 0) {
        OK(procset_wait(set, procset__now() + LIVENESS_NS, events, 32,
                        &count));
        CHECK_INT(count, >, 0);
        for (size_t i = 0; i < count; i++) {
            size_t index = events[i].index;
            bool *done = events[i].type == PROCSET_EVENT_ENDED
                             ? &all[index].ended
                             : &all[index].read;

            CHECK(!*done);
            *done = events[i].type == PROCSET_EVENT_ENDED
                    || read_report(set, index);
            left -= *done;
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK_INT(status_of(set, i).code, ==, i);
        child_done(&all[i].child);
        CHECK(CloseHandle((HANDLE) all[i].read_end));
    }
    set = procset_close(set);
}

// Those that end while nobody waits are told in the order of their ends.
static void
test_order_of_ends(void)
{
    const size_t order[] = {3, 1, 4, 0, 2};
    test_child children[5];
    procset_event events[8];
    size_t count, ended = 0;
    procset *set;

    for (size_t i = 0; i < 5; i++) {
        children[i] = child_start((unsigned) i);
    }
    set = open_with(children, 5);
    for (size_t i = 0; i < 5; i++) {
        child_release(&children[order[i]]);
        CHECK_INT(WaitForSingleObject(children[order[i]].process, INFINITE),
                  ==, WAIT_OBJECT_0);
    }
    while (ended < 5) {
        OK(procset_wait(set, procset__now() + LIVENESS_NS, events, 8, &count));
        for (size_t i = 0; i < count; i++) {
            CHECK_INT(events[i].type, ==, PROCSET_EVENT_ENDED);
            CHECK_INT(events[i].index, ==, order[ended++]);
        }
    }
    for (size_t i = 0; i < 5; i++) {
        child_done(&children[i]);
    }
    set = procset_close(set);
}

// Without a handle the process is looked for by its pid.
static void
test_member_by_pid(void)
{
    test_child child = child_start(7);
    procset *set = open_with(NULL, 0);
    procset_member member = member_of(&child);
    size_t index;

    member.sentinel = PROCSET_HANDLE_INVALID;
    OK(procset_add(set, &member, &index));
    child_release(&child);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).code, ==, 7);
    set = procset_close(set);
    child_done(&child);
}

// A process that is gone has ended, and how it has is known for as long as
// somebody else still has a handle of it.
static void
test_member_that_is_gone(void)
{
    test_child child = child_start(7);
    procset *set = open_with(NULL, 0);
    procset_member member = member_of(&child);
    size_t index;
    int r;

    member.sentinel = PROCSET_HANDLE_INVALID;
    child_release(&child);
    CHECK_INT(WaitForSingleObject(child.process, INFINITE), ==, WAIT_OBJECT_0);
    child_done(&child);
    OK(procset_add(set, &member, &index));
    r = procset_signal(set, 0, SIGNAL_TERM);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_GONE);
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK(status_of(set, 0).state == PROCSET_UNKNOWN
          || status_of(set, 0).code == 7);
    set = procset_close(set);
}

// Something else than the process may tell of its end.
static void
test_foreign_sentinel(void)
{
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    test_child child = child_start(7);
    procset *set = open_with(NULL, 0);
    procset_member member = member_of(&child);
    procset_event events[2];
    size_t index;

    member.sentinel = (procset_handle) event;
    OK(procset_add(set, &member, &index));
    CHECK_INT(look(set, events, 2), ==, 0);
    CHECK(SetEvent(event));
    CHECK_INT(wait_for_end(set), ==, 0);
    CHECK_INT(status_of(set, 0).state, ==, PROCSET_UNKNOWN);
    set = procset_close(set);
    CHECK(CloseHandle(event));
    child_release(&child);
    child_done(&child);
}

int
main(int argc, char **argv)
{
    child_main(argc, argv);
    RUN(test_empty_set);
    RUN(test_exit_codes);
    RUN(test_crash);
    RUN(test_usage);
    RUN(test_signal);
    RUN(test_signal_after_the_end);
    RUN(test_many_members);
    RUN(test_order_of_ends);
    RUN(test_member_by_pid);
    RUN(test_member_that_is_gone);
    RUN(test_foreign_sentinel);
    return 0;
}
