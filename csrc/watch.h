// Waiting for children that have no handle: a thread each, blocked in the
// system's wait, which rings the set when the child has ended.
//
// Why a thread and not the hang-up of a pipe that the child holds: children
// of the child inherit such a pipe, and then it outlives the child. Why not
// one thread for all: it would have to wait for any child, and wake up for
// ever at the first one that the user of the process leaves unreaped.

#ifndef PROCSET_WATCH_H
#define PROCSET_WATCH_H

#include "procset.h"

// What the watching threads of one set share. It outlives the set while a
// thread still waits for a child that the set left running.
typedef struct procset__watch procset__watch;

// Threads ring `wake`, which is borrowed.
int
procset__watch_new(procset_handle wake, procset__watch **ret_watch);

// Lets the threads go: each ends with its child and touches nothing of the
// set's. Accepts NULL; returns NULL.
procset__watch *
procset__watch_free(procset__watch *watch);

// Starts watching the child `pid` on behalf of the member `index`.
int
procset__watch_start(procset__watch *watch, int64_t pid, size_t index);

// Takes the next member whose child has ended; false when there is none.
bool
procset__watch_next(procset__watch *watch, size_t *ret_index);

#endif
