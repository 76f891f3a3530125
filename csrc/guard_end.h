// The system's half of a guard: what makes it independent of its rank.

#ifndef PROCSET_GUARD_END_H
#define PROCSET_GUARD_END_H

#include "board.h"

// Gives the calling thread a table of descriptors of its own, with these two
// only; PROCSET_HANDLE_INVALID stands for none. Returns whether it has one.
bool
procset__guard_own_table(procset_handle one, procset_handle other);

// Has the system continue this process, should it be stopped, when the pipe
// is hung up: the guard of a stopped process does not run. Where the system
// cannot do that, such a rank stays until somebody continues it.
void
procset__guard_continue_at(procset_handle pipe);

// For a process in which no thread can be started: has the system kill it when
// its parent has ended. Where there are no threads, there is none either that
// could end before its process does. The descendants stay.
int
procset__guard_by_parent(procset_handle pipe);

// Ends this process and its descendants, and those of the ranks that nobody
// cares for by the board, which may be NULL.
_Noreturn void
procset__guard_end(const procset_guard *guard, procset__board_entry *board);

#endif
