#define _GNU_SOURCE

#include "clock.h"

#include <assert.h>
#include <time.h>

int64_t
procset__now(void)
{
    struct timespec now;
    int r;

    r = clock_gettime(CLOCK_MONOTONIC, &now);
    assert(r == 0 && "the monotonic clock can be read");
    (void) r;
    return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}
