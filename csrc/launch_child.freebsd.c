// Keeping descriptors from a new program on FreeBSD. Async-signal-safe, as all
// of launch_child.fork.c.

#define _GNU_SOURCE

#include "launch_child.h"

#include "error.h"

#include <unistd.h>

// FreeBSD 13.1.
#ifndef CLOSE_RANGE_CLOEXEC
#define CLOSE_RANGE_CLOEXEC (1 << 2)
#endif

bool
procset__child_has_close_range(void)
{
    // No descriptor has this number.
    return close_range(~0u, ~0u, CLOSE_RANGE_CLOEXEC) == 0;
}

int
procset__child_keep_all(bool has_close_range)
{
    if (!has_close_range) {
        procset__child_keep_each();
        return 0;
    }
    if (close_range(PROCSET__FIRST_AFTER_STANDARD, ~0u, CLOSE_RANGE_CLOEXEC)
        < 0) {
        return procset__error_last(PROCSET__CALL_CLOSE_RANGE);
    }
    return 0;
}
