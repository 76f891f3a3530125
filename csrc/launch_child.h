// What a new process does before it becomes another program.

#ifndef PROCSET_LAUNCH_CHILD_H
#define PROCSET_LAUNCH_CHILD_H

#include "procset.h"

// All that the child needs, made ready beforehand.
typedef struct {
    const char *path;
    char *const *arguments;
    char *const *environment;
    uint64_t blocked;
    const procset_handle *inherited;
    size_t inherited_count;
    bool has_close_range;
} procset__child_plan;

// Becomes the program. Returns only when that fails, with the error value.
int
procset__child_become(const procset__child_plan *plan);

// Leaves a child that could not become the program.
_Noreturn void
procset__child_give_up(void);

// close_range(2) with CLOSE_RANGE_CLOEXEC, Linux 5.11.
bool
procset__child_has_close_range(void);

// Sets the signal mask of this thread, with nothing left out: the C library's
// own functions keep two signals for themselves.
int
procset__child_set_mask(uint64_t mask, uint64_t *ret_previous);

#endif
