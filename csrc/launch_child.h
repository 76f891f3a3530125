// A child of ours that becomes the program. launch.fork.c has what the
// launcher does and launch_child.fork.c what the child does.

#ifndef PROCSET_LAUNCH_CHILD_H
#define PROCSET_LAUNCH_CHILD_H

#include "launch.h"

#define PROCSET__FIRST_AFTER_STANDARD 3

// All that the child needs, made ready beforehand.
typedef struct {
    const char *path;
    char *const *arguments;
    char *const *environment;
    uint64_t blocked;
    const char *errors;
    int64_t errors_offset;
    const procset_handle *inherited;
    size_t inherited_count;
    bool has_close_range;
} procset__child_plan;

// What `entry` is to become. Nothing is copied.
procset__child_plan
procset__child_plan_of(const procset_launch *launch,
                       const procset__launchee *entry);

// Makes the child with fork(). Returns its error, or that of making it; `proc`
// has the pid of a child that is to be reaped.
int
procset__child_fork(const procset__child_plan *plan, procset__proc *proc);

// Becomes the program. Returns only when that fails, with the error value.
int
procset__child_become(const procset__child_plan *plan);

// Leaves a child that could not become the program.
_Noreturn void
procset__child_give_up(void);

// Whether all descriptors can be kept from a program in one call.
bool
procset__child_has_close_range(void);

// Keeps all descriptors but the standard ones from the program.
int
procset__child_keep_all(bool has_close_range);

// The same by asking for each number that there may be.
void
procset__child_keep_each(void);

#endif
