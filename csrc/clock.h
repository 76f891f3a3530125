// The monotonic clock, and deadlines on it.

#ifndef PROCSET_CLOCK_H
#define PROCSET_CLOCK_H

#include <stdint.h>

// Nanoseconds of the monotonic clock; the same clock in every process of a
// host. Cannot fail where the library runs at all.
int64_t
procset__now(void);

// Nanoseconds from now to `deadline`: zero when it has passed, and
// PROCSET_NEVER stays PROCSET_NEVER.
int64_t
procset__remaining(int64_t deadline);

#endif
