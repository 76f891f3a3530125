// Real child processes for the tests: each does one thing when it is told to.

#ifndef CHILD_H
#define CHILD_H

#include "procset.h"

#include <sys/types.h>

typedef struct {
    pid_t pid;
    int control; // closing it, or the test's own end, lets the child go on
} test_child;

typedef enum {
    CHILD_EXITS,   // exits with `value`
    CHILD_DIES,    // sends the signal `value` to itself
    CHILD_IGNORES, // ignores the signal `value`, then exits with 0
} child_kind;

// Starts a child that waits for child_release() before it ends. It runs as
// long as its control pipe is open, so it never outlives the test.
test_child
child_start(child_kind kind, int value);

void
child_release(test_child *child);

// A pipe whose ends block and are not inherited.
void
open_pair(int ends[2]);

// Number of open descriptors and of threads of this process.
int
count_descriptors(void);

int
count_threads(void);

// Waits for the one end that is due, and returns its index.
size_t
wait_for_end(procset *set);

// Either lets a set wait for a process without a thread.
#define WAITABLE (PROCSET_FEATURE_PIDFD | PROCSET_FEATURE_PID_EVENTS)

// Runs tests of sets with the features of this system and with fewer, and
// checks that they leave nothing.
void
run_with_fewer(void (*run_all)(unsigned features));

// The child as a member of a set, with no report.
procset_member
member_of(const test_child *child);

// A set of these children, with their places as indices.
procset *
set_of(unsigned features, const test_child *children, size_t count);

procset_status
status_of(procset *set, size_t index);

#endif
