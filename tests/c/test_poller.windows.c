#include "check.h"
#include "clock.h"
#include "handle.h"
#include "member.windows.h"
#include "pipe.h"
#include "poller.h"

// What comes within the time that the tests allow; NOW looks only.
#define SOON LIVENESS_NS
#define NOW 0

static size_t
wait_for(procset__poller *poller, int64_t ns, uint64_t *tokens)
{
    size_t count = 99;

    OK(procset__poller_wait(poller, procset__now() + ns, tokens, 8, &count));
    return count;
}

static procset__poller
open_poller(void)
{
    procset__poller poller;

    OK(procset__poller_open(0, &poller));
    return poller;
}

// Whatever its length, a time-out is never cut short.
static void
test_timeouts(void)
{
    procset__poller poller = open_poller();
    uint64_t tokens[8];

    for (int64_t ns = 1; ns < 30000000; ns = ns * 3 + 1) {
        int64_t start = procset__now();

        CHECK_INT(wait_for(&poller, ns, tokens), ==, 0);
        CHECK_INT(procset__now() - start, >=, ns);
    }
    procset__poller_done(&poller);
}

// A pipe is reported as long as there is something in it.
static void
test_level(void)
{
    procset__poller poller = open_poller();
    procset__pipe pipe;
    uint64_t tokens[8];

    OK(procset__pipe_open(&pipe));
    OK(procset__poller_add(&poller, pipe.read, 42));
    CHECK_INT(wait_for(&poller, NOW, tokens), ==, 0);
    for (int round = 0; round < 20; round++) {
        OK(procset__pipe_ring(pipe.write));
        for (int i = 0; i < 3; i++) {
            CHECK_INT(wait_for(&poller, SOON, tokens), ==, 1);
            CHECK_INT(tokens[0], ==, 42);
        }
        OK(procset__pipe_drain(pipe.read));
        CHECK_INT(wait_for(&poller, NOW, tokens), ==, 0);
    }
    OK(procset__pipe_ring(pipe.write));
    OK(procset__poller_remove(&poller, pipe.read));
    CHECK_INT(wait_for(&poller, NOW, tokens), ==, 0);
    pipe = procset__pipe_close(pipe);
    procset__poller_done(&poller);
}

// What is in a pipe before it is added is reported, and so is its end.
static void
test_ready_before_it_was_added(void)
{
    procset__poller poller = open_poller();
    procset__pipe pipes[2];
    uint64_t tokens[8], seen = 0;

    for (size_t i = 0; i < 2; i++) {
        OK(procset__pipe_open(&pipes[i]));
    }
    OK(procset__pipe_ring(pipes[0].write));
    pipes[1].write = procset__handle_close(pipes[1].write);
    for (size_t i = 0; i < 2; i++) {
        OK(procset__poller_add(&poller, pipes[i].read, i + 1));
    }
    while (seen != 3) {
        size_t count = wait_for(&poller, SOON, tokens);

        CHECK_INT(count, >, 0);
        for (size_t i = 0; i < count; i++) {
            seen |= tokens[i];
        }
    }
    // Not removed: that is done with the poller.
    procset__poller_done(&poller);
    for (size_t i = 0; i < 2; i++) {
        pipes[i] = procset__pipe_close(pipes[i]);
    }
}

// Of many ready pipes none is left out, however small the room is.
static void
test_nobody_starves(void)
{
    enum { COUNT = 150 };
    static procset__pipe pipes[COUNT];
    static int seen[COUNT];
    procset__poller poller = open_poller();
    uint64_t tokens[8];
    size_t left = COUNT, count;

    for (size_t i = 0; i < COUNT; i++) {
        OK(procset__pipe_open(&pipes[i]));
        OK(procset__poller_add(&poller, pipes[i].read, i));
        OK(procset__pipe_ring(pipes[i].write));
    }
    while (left > 0) {
        count = wait_for(&poller, SOON, tokens);
        CHECK_INT(count, >, 0);
        for (size_t i = 0; i < count; i++) {
            left -= seen[tokens[i]]++ == 0;
        }
    }
    for (size_t i = 0; i < COUNT; i++) {
        CHECK_INT(seen[i], <, 20);
        OK(procset__poller_remove(&poller, pipes[i].read));
        pipes[i] = procset__pipe_close(pipes[i]);
    }
    CHECK_INT(wait_for(&poller, NOW, tokens), ==, 0);
    procset__poller_done(&poller);
}

typedef struct {
    procset__poller *poller;
    procset_handle handle;
} addition;

static DWORD WINAPI
add_pipe(void *argument)
{
    addition *added = argument;

    OK(procset__poller_add(added->poller, added->handle, 7));
    return 0;
}

// The system gives up what a thread has begun when the thread ends; a pipe is
// watched on.
static void
test_added_by_a_thread_that_ends(void)
{
    procset__poller poller = open_poller();
    procset__pipe pipe;
    uint64_t tokens[8];
    HANDLE thread;

    OK(procset__pipe_open(&pipe));
    thread = CreateThread(NULL, 0, add_pipe, &(addition) {&poller, pipe.read},
                          0, NULL);
    CHECK_INT(WaitForSingleObject(thread, INFINITE), ==, WAIT_OBJECT_0);
    CHECK(CloseHandle(thread));
    CHECK_INT(wait_for(&poller, 20000000, tokens), ==, 0);
    OK(procset__pipe_ring(pipe.write));
    CHECK_INT(wait_for(&poller, SOON, tokens), ==, 1);
    CHECK_INT(tokens[0], ==, 7);
    OK(procset__poller_remove(&poller, pipe.read));
    pipe = procset__pipe_close(pipe);
    procset__poller_done(&poller);
}

static void
test_errors_name_the_call(void)
{
    procset__poller poller = open_poller();
    int r;

    r = procset__poller_add(&poller, 0x7770, 0);
    CHECK_STR(procset_error_call(r), "ReadFile");
    CHECK_INT(procset_error_code(r), ==, ERROR_INVALID_HANDLE);
    r = procset__poller_remove(&poller, 0x7770);
    CHECK_STR(procset_error_call(r), "UnregisterWaitEx");
    procset__poller_done(&poller);
    procset__poller_done(&poller);
}

int
main(void)
{
    RUN(test_timeouts);
    RUN(test_level);
    RUN(test_ready_before_it_was_added);
    RUN(test_nobody_starves);
    RUN(test_added_by_a_thread_that_ends);
    RUN(test_errors_name_the_call);
    return 0;
}
