// Marks: what tells that a process descends from a rank of a job.

#ifndef PROCSET_MARK_H
#define PROCSET_MARK_H

#include "hunt.h"

// Whether a process carries the mark of a rank that is wanted, and which. What
// cannot be told yet makes the hunt unsettled.
bool
procset__mark_find(procset__hunt *hunt, int32_t pid, size_t *ret_rank);

#endif
