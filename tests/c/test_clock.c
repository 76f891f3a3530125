#include "check.h"
#include "clock.h"
#include "procset.h"

static void
test_now_does_not_go_back(void)
{
    int64_t before = procset__now();

    CHECK_INT(procset__now(), >=, before);
}

// No deadline stays none, a past one leaves nothing, a future one its
// distance.
static void
test_remaining(void)
{
    int64_t left;

    CHECK_INT(procset__remaining(PROCSET_NEVER), ==, PROCSET_NEVER);
    CHECK_INT(procset__remaining(0), ==, 0);
    CHECK_INT(procset__remaining(-5), ==, 0);
    left = procset__remaining(procset__now() + 60000000000);
    CHECK_INT(left, >, 0);
    CHECK_INT(left, <=, 60000000000);
}

int
main(void)
{
    RUN(test_now_does_not_go_back);
    RUN(test_remaining);
    return 0;
}
