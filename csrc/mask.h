// The signal mask of this thread.

#ifndef PROCSET_MASK_H
#define PROCSET_MASK_H

#include <stdint.h>

// As the system keeps it.
typedef struct {
    uint64_t words[16];
} procset__mask;

// Blocks every signal that can be blocked.
int
procset__mask_fill(procset__mask *ret_previous);

void
procset__mask_restore(const procset__mask *previous);

// Blocks these and no others; bit n-1 is signal n. Async-signal-safe.
int
procset__mask_set(uint64_t blocked);

#endif
