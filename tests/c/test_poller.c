#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "clock.h"
#include "pipe.h"
#include "poller.h"

// With and without the system's own nanoseconds.
static unsigned flavours[] = {0, PROCSET_FEATURE_PWAIT2};
static unsigned flavour;

static size_t
wait_for(procset__poller *poller, int64_t ns, uint64_t *tokens)
{
    size_t count = 99;

    OK(procset__poller_wait(poller, procset__now() + ns, tokens, 8, &count));
    return count;
}

// A short time-out is neither cut to zero nor rounded up to milliseconds.
static void
test_timeouts_below_a_millisecond(void)
{
    int64_t best = INT64_MAX;
    procset__poller poller;
    uint64_t tokens[8];

    OK(procset__poller_open(flavour, &poller));
    for (int i = 0; i < 50; i++) {
        int64_t start = procset__now(), took;

        CHECK_INT(wait_for(&poller, 200000, tokens), ==, 0);
        took = procset__now() - start;
        CHECK_INT(took, >=, 200000);
        best = took < best ? took : best;
    }
    CHECK_INT(best, <, 1000000);
    procset__poller_done(&poller);
}

// A deadline in the past returns what is ready and does not block.
static void
test_past_deadline(void)
{
    procset__poller poller;
    procset__pipe pipe;
    uint64_t tokens[8];

    OK(procset__poller_open(flavour, &poller));
    OK(procset__pipe_open(&pipe));
    OK(procset__poller_add(&poller, pipe.read, 42));
    CHECK_INT(wait_for(&poller, -1, tokens), ==, 0);
    OK(procset__pipe_ring(pipe.write));
    CHECK_INT(wait_for(&poller, -1, tokens), ==, 1);
    CHECK_INT(tokens[0], ==, 42);
    OK(procset__poller_remove(&poller, pipe.read));
    CHECK_INT(wait_for(&poller, -1, tokens), ==, 0);
    pipe = procset__pipe_close(pipe);
    procset__poller_done(&poller);
}

// What became ready while nobody waited comes in that order.
static void
test_order_of_readiness(void)
{
    const size_t order[] = {2, 0, 3, 1};
    procset__poller poller;
    procset__pipe pipes[4];
    uint64_t tokens[8];

    OK(procset__poller_open(flavour, &poller));
    for (size_t i = 0; i < 4; i++) {
        OK(procset__pipe_open(&pipes[i]));
        OK(procset__poller_add(&poller, pipes[i].read, i));
    }
    for (size_t i = 0; i < 4; i++) {
        OK(procset__pipe_ring(pipes[order[i]].write));
    }
    CHECK_INT(wait_for(&poller, -1, tokens), ==, 4);
    for (size_t i = 0; i < 4; i++) {
        CHECK_INT(tokens[i], ==, order[i]);
        pipes[i] = procset__pipe_close(pipes[i]);
    }
    procset__poller_done(&poller);
}

static void
check_call(int r)
{
    const char *call = procset_error_call(r);

    CHECK(strcmp(call, "epoll_ctl") == 0 || strcmp(call, "kevent") == 0);
}

static void
test_errors_name_the_call(void)
{
    procset__poller poller;
    int r;

    OK(procset__poller_open(flavour, &poller));
    r = procset__poller_add(&poller, 12345, 0);
    check_call(r);
    r = procset__poller_remove(&poller, 0);
    check_call(r);
    procset__poller_done(&poller);
    procset__poller_done(&poller);
}

int
main(void)
{
    int before = count_descriptors();

    for (size_t i = 0; i < 2; i++) {
        flavour = flavours[i];
        if ((flavour & ~procset__poller_probe()) != 0) {
            continue;
        }
        RUN(test_timeouts_below_a_millisecond);
        RUN(test_past_deadline);
        RUN(test_order_of_readiness);
        RUN(test_errors_name_the_call);
    }
    CHECK_INT(count_descriptors(), ==, before);
    return 0;
}
