// Starting programs: what has been prepared, and the half that is the
// system's.

#ifndef PROCSET_LAUNCH_H
#define PROCSET_LAUNCH_H

#include "proc.h"
#include "procset.h"
#include "words.h"

// One process to start.
typedef struct {
    procset__words arguments;
    char *variable; // NULL when it has none of its own
    char *errors;   // NULL when its standard error is the launcher's
    int64_t errors_offset;
    procset_handle *inherited;
    size_t inherited_count;
    size_t inherited_capacity;
    procset__proc proc; // pid 0 until it has been started
} procset__launchee;

struct procset_launch {
    unsigned features;
    char *path;
    procset__words environment;
    size_t variable_index; // of the variable that differs, in the environment
    uint64_t blocked;      // bit n-1 is signal n
    procset_handle job;    // borrowed
    procset__launchee *entries;
    size_t count;
    size_t capacity;
};

// The features of launching that work here.
unsigned
procset__launch_probe(void);

// Puts a process's own variable into the environment, and, called again, what
// was there before.
void
procset__launch_swap_variable(procset_launch *launch,
                              procset__launchee *entry);

// Appends the environment of this process.
int
procset__launch_copy_environment(procset__words *environment);

#endif
