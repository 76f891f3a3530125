// The lists that a process on Windows is started with: the handles that it
// inherits, and the jobs that it is in.

#ifndef PROCSET_ATTRIBUTES_H
#define PROCSET_ATTRIBUTES_H

#include "procset.h"

#define PROCSET__MOST_JOBS 2

// Where they are, the lists must stay from `finish` to `done`.
typedef struct {
    void *list; // what CreateProcessW() takes; NULL before it is finished
    procset_handle *handles;
    size_t handle_count;
    procset_handle jobs[PROCSET__MOST_JOBS];
    size_t job_count;
} procset__attributes;

// Opens empty lists, with room for this many handles.
int
procset__attributes_open(size_t capacity, procset__attributes *ret_attributes);

void
procset__attributes_done(procset__attributes *attributes);

// Adds a handle once, however often it is given.
void
procset__attributes_add_handle(procset__attributes *attributes,
                               procset_handle handle);

// Adds a job inside of those added before.
void
procset__attributes_add_job(procset__attributes *attributes,
                            procset_handle job);

int
procset__attributes_finish(procset__attributes *attributes);

#endif
