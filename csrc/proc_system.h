// What POSIX systems do in different ways about a process; proc.posix.c does
// the rest of proc.h.

#ifndef PROCSET_PROC_SYSTEM_H
#define PROCSET_PROC_SYSTEM_H

#include "proc.h"

// Zero while the process is a child of ours, running or unreaped, and
// PROCSET_KIND_NO_CHILD when it is not.
int
procset__proc_look(const procset__proc *proc);

// Reaps the child if it has ended, and fills in its status; leaves a running
// one and its status alone. PROCSET_KIND_NO_CHILD as above.
int
procset__proc_reap(const procset__proc *proc, procset_status *status);

#endif
