// One process: its pid, its handle and its status, as one value.

#ifndef PROCSET_PROC_H
#define PROCSET_PROC_H

#include "procset.h"

typedef struct {
    int64_t pid;
    // PROCSET_HANDLE_INVALID where the system gives none, and after
    // procset__proc_done().
    procset_handle handle;
    // The end of another parent's child is told by this handle; for our own
    // children it is PROCSET_HANDLE_INVALID.
    procset_handle sentinel;
    // The job of the process and of all that it starts, if it is known.
    procset_handle job;
    procset_status status;
} procset__proc;

// Whether every call on process handles that this module makes works here.
bool
procset__proc_has_handles(void);

// Opens the identity of a running or unreaped process. A process that is gone
// already, or that was reaped by somebody else, is not an error: its status
// is PROCSET_UNKNOWN from the start. `want_handle` false forces the fall-back.
// The sentinel is duplicated; the job is
// for the caller to set, and belongs to the result then.
int
procset__proc_open(int64_t pid, procset_handle sentinel, bool want_handle,
                   procset__proc *ret_proc);

// Closes the handles; the status stays.
void
procset__proc_done(procset__proc *proc);

// Takes over the exit status if the process has ended. Reaps a child; never
// blocks. `status.state` tells; once it is not PROCSET_RUNNING it is final.
int
procset__proc_collect(procset__proc *proc);

// PROCSET_KIND_GONE when the process has ended. See procset_signal().
int
procset__proc_signal(procset__proc *proc, int signal);

// Blocks until a child has ended, and leaves it unreaped. Returns zero also
// when there is no such child any more.
int
procset__proc_block(int64_t pid);

#endif
