#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "handle.h"
#include "pipe.h"

#include <fcntl.h>
#include <unistd.h>

// Destroy functions take the invalid value and give it back.
static void
test_close_of_nothing(void)
{
    CHECK_INT(procset__handle_close(PROCSET_HANDLE_INVALID), ==,
              PROCSET_HANDLE_INVALID);
    CHECK_INT(procset__pipe_close(PROCSET__PIPE_INVALID).read, ==,
              PROCSET_HANDLE_INVALID);
}

static void
test_pipe_is_not_inherited(void)
{
    procset__pipe pipe;

    OK(procset__pipe_open(&pipe));
    CHECK(fcntl((int) pipe.read, F_GETFD) & FD_CLOEXEC);
    CHECK(fcntl((int) pipe.write, F_GETFD) & FD_CLOEXEC);
    pipe = procset__pipe_close(pipe);
}

// However often it is rung, one drain makes it silent; a full pipe is no
// error.
static void
test_ring_and_drain(void)
{
    procset__pipe pipe;
    bool ready;

    OK(procset__pipe_open(&pipe));
    OK(procset__handle_ready(pipe.read, &ready));
    CHECK(!ready);
    for (int i = 0; i < 100000; i++) {
        OK(procset__pipe_ring(pipe.write));
    }
    OK(procset__handle_ready(pipe.read, &ready));
    CHECK(ready);
    OK(procset__pipe_drain(pipe.read));
    OK(procset__handle_ready(pipe.read, &ready));
    CHECK(!ready);
    OK(procset__pipe_drain(pipe.read));
    pipe = procset__pipe_close(pipe);
}

// A read neither blocks on a blocking pipe, nor confuses empty with ended.
static void
test_read_of_a_blocking_pipe(void)
{
    char buffer[8];
    size_t count = 0;
    int ends[2];
    int r;

    open_pair(ends);
    r = procset__pipe_read(ends[0], buffer, sizeof(buffer), &count);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_AGAIN);
    CHECK_INT(write(ends[1], "abc", 3), ==, 3);
    OK(procset__pipe_read(ends[0], buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 3);
    CHECK_INT(close(ends[1]), ==, 0);
    OK(procset__pipe_read(ends[0], buffer, sizeof(buffer), &count));
    CHECK_INT(count, ==, 0);
    CHECK_INT(close(ends[0]), ==, 0);
}

static void
test_read_of_no_pipe(void)
{
    char buffer[8];
    size_t count = 77;
    int r = procset__pipe_read(12345, buffer, sizeof(buffer), &count);

    CHECK_INT(r, <, 0);
    CHECK_STR(procset_error_call(r), "read");
    CHECK_INT(count, ==, 77);
}

int
main(void)
{
    int before = count_descriptors();

    RUN(test_close_of_nothing);
    RUN(test_pipe_is_not_inherited);
    RUN(test_ring_and_drain);
    RUN(test_read_of_a_blocking_pipe);
    RUN(test_read_of_no_pipe);
    CHECK_INT(count_descriptors(), ==, before);
    return 0;
}
