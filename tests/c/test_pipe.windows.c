#include "check.h"
#include "child.windows.h"
#include "handle.h"
#include "pipe.h"

// Destroy functions take the invalid value and give it back.
static void
test_close_of_nothing(void)
{
    CHECK_INT(procset_handle_close(PROCSET_HANDLE_INVALID), ==,
              PROCSET_HANDLE_INVALID);
    CHECK_INT(procset__pipe_close(PROCSET__PIPE_INVALID).read, ==,
              PROCSET_HANDLE_INVALID);
}

static void
check_not_inherited(procset_handle handle)
{
    DWORD flags;

    CHECK(GetHandleInformation((HANDLE) handle, &flags));
    CHECK_INT(flags & HANDLE_FLAG_INHERIT, ==, 0);
}

// Neither end is inherited, nor is a duplicate of one.
static void
test_nothing_is_inherited(void)
{
    procset__pipe pipe, report;
    procset_handle copy;

    OK(procset__pipe_open(&pipe));
    OK(procset_report_open(&report.read, &report.write));
    OK(procset__handle_dup(report.read, &copy));
    check_not_inherited(pipe.read);
    check_not_inherited(pipe.write);
    check_not_inherited(report.read);
    check_not_inherited(report.write);
    check_not_inherited(copy);
    copy = procset__handle_close(copy);
    pipe = procset__pipe_close(pipe);
    report = procset__pipe_close(report);
}

static int
read_some(procset_handle pipe, char *buffer, size_t size, size_t *ret_count)
{
    return procset__pipe_read(pipe, buffer, size, ret_count);
}

// However often it is rung, one drain makes it silent; a full pipe is no
// error.
static void
test_ring_and_drain(void)
{
    // As much as the pipe holds.
    static char filling[65536];
    procset__pipe pipe;
    char buffer[4];
    size_t count;
    DWORD written;
    int r;

    OK(procset__pipe_open(&pipe));
    r = read_some(pipe.read, buffer, sizeof(buffer), &count);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_AGAIN);
    CHECK(WriteFile((HANDLE) pipe.write, filling, sizeof(filling), &written,
                    NULL));
    for (int i = 0; i < 10; i++) {
        OK(procset__pipe_ring(pipe.write));
    }
    OK(read_some(pipe.read, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 4);
    OK(procset__pipe_drain(pipe.read));
    r = read_some(pipe.read, buffer, sizeof(buffer), &count);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_AGAIN);
    OK(procset__pipe_drain(pipe.read));
    OK(procset__pipe_ring(pipe.write));
    OK(read_some(pipe.read, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 1);
    pipe = procset__pipe_close(pipe);
}

// A read does not block, and what was written before the end is not lost.
static void
test_read(void)
{
    procset__pipe pipe;
    char buffer[8];
    size_t count = 0;
    DWORD written;
    int r;

    OK(procset_report_open(&pipe.read, &pipe.write));
    r = read_some(pipe.read, buffer, sizeof(buffer), &count);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_AGAIN);
    CHECK(WriteFile((HANDLE) pipe.write, "abc", 3, &written, NULL));
    pipe.write = procset__handle_close(pipe.write);
    OK(read_some(pipe.read, buffer, 2, &count));
    CHECK_INT(count, ==, 2);
    OK(read_some(pipe.read, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 1);
    OK(read_some(pipe.read, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 0);
    pipe = procset__pipe_close(pipe);
}

// The pipes of multiprocessing hand out messages; a part of one is no error.
static void
test_read_of_messages(void)
{
    const char *name = "\\\\.\\pipe\\procset-test-messages";
    DWORD written;
    procset__pipe pipe;
    char buffer[8];
    size_t count;

    pipe.read = (procset_handle) CreateNamedPipeA(
        name, PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED,
        PIPE_TYPE_MESSAGE | PIPE_READMODE_MESSAGE | PIPE_WAIT, 1, 0, 8192, 0,
        NULL);
    CHECK_INT(pipe.read, !=, PROCSET_HANDLE_INVALID);
    pipe.write = (procset_handle) CreateFileA(name, GENERIC_WRITE, 0, NULL,
                                              OPEN_EXISTING, 0, NULL);
    CHECK_INT(pipe.write, !=, PROCSET_HANDLE_INVALID);
    CHECK(WriteFile((HANDLE) pipe.write, "abcdef", 6, &written, NULL));
    CHECK(WriteFile((HANDLE) pipe.write, "ghi", 3, &written, NULL));
    OK(read_some(pipe.read, buffer, 4, &count));
    CHECK_INT(count, ==, 4);
    OK(read_some(pipe.read, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 2);
    OK(read_some(pipe.read, buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 3);
    CHECK_INT(memcmp(buffer, "ghi", 3), ==, 0);
    pipe = procset__pipe_close(pipe);
}

static void
test_read_of_no_pipe(void)
{
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    char buffer[8];
    size_t count = 77;
    int r = read_some((procset_handle) event, buffer, sizeof(buffer), &count);

    CHECK_INT(r, <, 0);
    CHECK_STR(procset_error_call(r), "PeekNamedPipe");
    CHECK_INT(count, ==, 77);
    CHECK(CloseHandle(event));
}

// Any number can be open at a time: no two have the same name.
static void
test_many_pipes(void)
{
    enum { COUNT = 300 };
    static procset__pipe pipes[COUNT];

    for (size_t i = 0; i < COUNT; i++) {
        OK(procset_report_open(&pipes[i].read, &pipes[i].write));
    }
    for (size_t i = 0; i < COUNT; i++) {
        pipes[i] = procset__pipe_close(pipes[i]);
    }
}

int
main(void)
{
    unsigned before = count_handles();

    RUN(test_close_of_nothing);
    RUN(test_nothing_is_inherited);
    RUN(test_ring_and_drain);
    RUN(test_read);
    RUN(test_read_of_messages);
    RUN(test_read_of_no_pipe);
    RUN(test_many_pipes);
    CHECK_INT(count_handles(), ==, before);
    return 0;
}
