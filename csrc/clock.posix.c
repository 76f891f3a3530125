#define _GNU_SOURCE

#include "clock.h"

#include <assert.h>
#include <time.h>

// The clock that Python has chosen as its monotonic one.
#ifdef __APPLE__
#define MONOTONIC CLOCK_UPTIME_RAW
#else
#define MONOTONIC CLOCK_MONOTONIC
#endif

int64_t
procset__now(void)
{
    struct timespec now;
    int r;

    r = clock_gettime(MONOTONIC, &now);
    assert(r == 0 && "the monotonic clock can be read");
    (void) r;
    return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec;
}
