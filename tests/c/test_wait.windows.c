#include "check.h"
#include "clock.h"
#include "member.windows.h"

// A report is announced until it has been read, and then no more; its end is
// announced too.
static void
test_report(void)
{
    test_child child = child_start(0);
    procset *set = open_with(NULL, 0);
    procset_member member = member_of(&child);
    procset_handle read_end, write_end;
    procset_event event;
    char buffer[16];
    size_t index, count;
    DWORD written;
    int r;

    OK(procset_report_open(&read_end, &write_end));
    member.report = read_end;
    OK(procset_add(set, &member, &index));
    r = procset_read(set, 0, buffer, sizeof(buffer), &count);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_AGAIN);
    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK(WriteFile((HANDLE) write_end, "hello", 5, &written, NULL));
    for (int i = 0; i < 3; i++) {
        event = next_event(set);
        CHECK_INT(event.type, ==, PROCSET_EVENT_READABLE);
        CHECK_INT(event.index, ==, 0);
    }
    OK(procset_read(set, 0, buffer, 2, &count));
    CHECK_INT(count, ==, 2);
    CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_READABLE);
    OK(procset_read(set, 0, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 3);
    CHECK_INT(memcmp(buffer, "llo", 3), ==, 0);
    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK(CloseHandle((HANDLE) write_end));
    CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_READABLE);
    OK(procset_read(set, 0, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 0);
    OK(procset_forget_report(set, 0));
    OK(procset_forget_report(set, 0));
    CHECK_INT(look(set, &event, 1), ==, 0);
    set = procset_close(set);
    CHECK(CloseHandle((HANDLE) read_end));
    child_release(&child);
    child_done(&child);
}

// A report that was forgotten is nobody's, and can be watched by another set.
static void
test_report_of_two_sets(void)
{
    test_child child = child_start(0);
    procset_member member = member_of(&child);
    procset_handle read_end, write_end;
    procset_event event;
    size_t index;
    DWORD written;

    OK(procset_report_open(&read_end, &write_end));
    member.report = read_end;
    for (int i = 0; i < 2; i++) {
        procset *set = open_with(NULL, 0);

        OK(procset_add(set, &member, &index));
        CHECK(WriteFile((HANDLE) write_end, "x", 1, &written, NULL));
        CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_READABLE);
        OK(procset_forget_report(set, 0));
        CHECK_INT(look(set, &event, 1), ==, 0);
        set = procset_close(set);
    }
    CHECK(CloseHandle((HANDLE) read_end));
    CHECK(CloseHandle((HANDLE) write_end));
    child_release(&child);
    child_done(&child);
}

static DWORD WINAPI
wake_set(void *set)
{
    OK(procset_wake(set));
    return 0;
}

// wake() from another thread and a byte on the wake handle end a wait, once.
static void
test_wake(void)
{
    procset *set = open_with(NULL, 0);
    HANDLE thread = CreateThread(NULL, 0, wake_set, set, 0, NULL);
    procset_event event;
    DWORD written;

    CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_WOKEN);
    CHECK_INT(WaitForSingleObject(thread, INFINITE), ==, WAIT_OBJECT_0);
    CHECK(CloseHandle(thread));
    CHECK_INT(look(set, &event, 1), ==, 0);
    OK(procset_wake(set));
    OK(procset_wake(set));
    CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_WOKEN);
    CHECK_INT(look(set, &event, 1), ==, 0);
    CHECK(
        WriteFile((HANDLE) procset_wake_handle(set), "x", 1, &written, NULL));
    CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_WOKEN);
    set = procset_close(set);
}

// What can be waited for elsewhere is signalled when a wait would return.
static void
test_wait_handle(void)
{
    procset *set = open_with(NULL, 0);
    HANDLE handle = (HANDLE) procset_wait_handle(set);

    CHECK_INT(WaitForSingleObject(handle, 0), ==, WAIT_TIMEOUT);
    OK(procset_wake(set));
    CHECK_INT(WaitForSingleObject(handle, INFINITE), ==, WAIT_OBJECT_0);
    CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_WOKEN);
    set = procset_close(set);
}

// A wait ends at its deadline, and never before.
static void
test_deadlines(void)
{
    const int64_t lengths[] = {1, 100000, 1000000, 3300000, 40000000};
    procset *set = open_with(NULL, 0);
    procset_event event;
    size_t count;

    for (size_t i = 0; i < 5; i++) {
        int64_t deadline = procset__now() + lengths[i];

        count = 99;
        OK(procset_wait(set, deadline, &event, 1, &count));
        CHECK_INT(count, ==, 0);
        CHECK_INT(procset__now(), >=, deadline);
        CHECK_INT(procset__now(), <, deadline + LIVENESS_NS);
    }
    set = procset_close(set);
}

// Whatever a set was used for, it takes no handle along.
static void
test_no_handle_is_lost(void)
{
    enum { ROUNDS = 100, MOST_OF_THE_POOL = 30 };
    test_child child = child_start(0);
    unsigned before = count_handles();
    procset_handle job;

    OK(procset_job_open(&job));
    for (int i = 0; i < ROUNDS; i++) {
        procset *set = open_with(&child, 1);
        procset_member member = member_of(&child);
        procset_handle write_end;
        size_t index;

        member.job = job;
        OK(procset_report_open(&member.report, &write_end));
        OK(procset_add(set, &member, &index));
        if (i % 2 == 0) {
            OK(procset_wake(set));
            CHECK_INT(next_event(set).type, ==, PROCSET_EVENT_WOKEN);
            OK(procset_forget_report(set, index));
        }
        set = procset_close(set);
        CHECK(CloseHandle((HANDLE) member.report));
        CHECK(CloseHandle((HANDLE) write_end));
    }
    CHECK(CloseHandle((HANDLE) job));
    CHECK_INT(count_handles(), <, before + MOST_OF_THE_POOL);
    child_release(&child);
    child_done(&child);
}

// A set that is closed leaves its members as they are.
static void
test_close_leaves_members_running(void)
{
    test_child child = child_start(3);
    procset *set = open_with(&child, 1);
    DWORD code;

    set = procset_close(set);
    CHECK_INT(WaitForSingleObject(child.process, 0), ==, WAIT_TIMEOUT);
    child_release(&child);
    CHECK_INT(WaitForSingleObject(child.process, INFINITE), ==, WAIT_OBJECT_0);
    CHECK(GetExitCodeProcess(child.process, &code));
    CHECK_INT(code, ==, 3);
    child_done(&child);
}

int
main(int argc, char **argv)
{
    child_main(argc, argv);
    RUN(test_report);
    RUN(test_report_of_two_sets);
    RUN(test_wake);
    RUN(test_wait_handle);
    RUN(test_deadlines);
    RUN(test_no_handle_is_lost);
    RUN(test_close_leaves_members_running);
    return 0;
}
