// What POSIX systems do in different ways about a process; proc.posix.c does
// the rest of proc.h.

#ifndef PROCSET_PROC_SYSTEM_H
#define PROCSET_PROC_SYSTEM_H

#include "proc.h"

// Opens the handle of a process. PROCSET_KIND_GONE when there is none with
// this pid, PROCSET_KIND_REFUSED where the system has no handles.
int
procset__proc_open_handle(int64_t pid, procset_handle *ret_handle);

int
procset__proc_signal_handle(procset_handle handle, int signal);

// Zero while the process is a child of ours, running or unreaped, and
// PROCSET_KIND_NO_CHILD when it is not.
int
procset__proc_look(const procset__proc *proc);

// Reaps the child if it has ended, and fills in its status; leaves a running
// one and its status alone. PROCSET_KIND_NO_CHILD as above.
int
procset__proc_reap(const procset__proc *proc, procset_status *status);

#endif
