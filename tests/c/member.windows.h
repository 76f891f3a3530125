// Sets whose members are children; see child.windows.h.

#ifndef MEMBER_WINDOWS_H
#define MEMBER_WINDOWS_H

#include "child.windows.h"

// What the tests allow to anything that is sure to happen.
#define LIVENESS_NS (60 * INT64_C(1000000000))

// A set of these children.
procset *
open_with(const test_child *children, size_t count);

// A member that is this child.
procset_member
member_of(const test_child *child);

// Waits for the one end that is due, and returns its index.
size_t
wait_for_end(procset *set);

procset_status
status_of(procset *set, size_t index);

// Events that are there now.
size_t
look(procset *set, procset_event *events, size_t capacity);

// Waits for the next event.
procset_event
next_event(procset *set);

#endif
