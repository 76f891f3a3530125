// Processes on POSIX, by their handle where there is one and by the pid where
// there is none.
//
// Facts about children that this file relies on:
//
// - The pid of a child is not given to another process before somebody waits
//   for the child.
// - A wait fails with ECHILD for a process that is not our child and for a
//   child that somebody else has reaped, or that the kernel reaped because
//   SIGCHLD is ignored. For the launcher the three are the same.

#define _GNU_SOURCE

#include "proc.h"
#include "error.h"
#include "handle.h"
#include "proc_system.h"

#include <signal.h>
#include <sys/types.h>

// Whether the process is gone for us: nobody's status is left to collect. A
// child that has ended and was not reaped is not gone.
static int
look(const procset__proc *proc, bool *ret_over)
{
    int r;

    if (proc->sentinel != PROCSET_HANDLE_INVALID) {
        return procset__handle_ready(proc->sentinel, ret_over);
    }
    r = procset__proc_look(proc);
    if (r < 0 && procset_error_kind(r) != PROCSET_KIND_NO_CHILD) {
        return r;
    }
    *ret_over = r < 0;
    return 0;
}

int
procset__proc_open(int64_t pid, procset_handle sentinel, bool want_handle,
                   procset__proc *ret_proc)
{
    procset__proc proc = {
        .pid = pid,
        .handle = PROCSET_HANDLE_INVALID,
        .sentinel = PROCSET_HANDLE_INVALID,
        .job = PROCSET_HANDLE_INVALID,
    };
    bool over = false;
    int r;

    if (sentinel != PROCSET_HANDLE_INVALID) {
        r = procset__handle_dup(sentinel, &proc.sentinel);
        if (r < 0) {
            return r;
        }
    }

    if (want_handle) {
        r = procset_handle_open(pid, &proc.handle);
        if (r < 0) {
            switch (procset_error_kind(r)) {
            case PROCSET_KIND_LIMIT:
            case PROCSET_KIND_REFUSED:
                break;
            case PROCSET_KIND_GONE:
                over = true;
                break;
            default:
                goto finish;
            }
        }
    }
    // Only now is it certain that the handle is the process that we mean, and
    // not one that took over its pid.
    if (!over) {
        r = look(&proc, &over);
        if (r < 0) {
            goto finish;
        }
    }
    if (over) {
        procset__proc_done(&proc);
        proc.status.state = PROCSET_UNKNOWN;
    }
    *ret_proc = proc;
    return 0;

finish:
    procset__proc_done(&proc);
    return r;
}

void
procset__proc_done(procset__proc *proc)
{
    proc->handle = procset__handle_close(proc->handle);
    proc->sentinel = procset__handle_close(proc->sentinel);
    proc->job = procset__handle_close(proc->job);
}

int
procset__proc_collect(procset__proc *proc)
{
    bool over = false;
    int r;

    if (proc->status.state != PROCSET_RUNNING) {
        return 0;
    }
    if (proc->sentinel != PROCSET_HANDLE_INVALID) {
        r = look(proc, &over);
    }
    else {
        r = procset__proc_reap(proc, &proc->status);
        if (r < 0 && procset_error_kind(r) == PROCSET_KIND_NO_CHILD) {
            over = true;
            r = 0;
        }
    }
    if (r == 0 && over) {
        proc->status.state = PROCSET_UNKNOWN;
    }
    return r;
}

// Signals a process that has only a pid, after a look at whether the pid is
// still the process.
static int
signal_pid(const procset__proc *proc, int signal)
{
    bool over;
    int r;

    r = look(proc, &over);
    if (r < 0) {
        return r;
    }
    if (over) {
        return procset__error_gone(PROCSET__CALL_KILL);
    }
    if (kill((pid_t) proc->pid, signal) < 0) {
        return procset__error_last(PROCSET__CALL_KILL);
    }
    return 0;
}

int
procset__proc_signal(procset__proc *proc, int signal)
{
    if (proc->status.state != PROCSET_RUNNING) {
        return procset__error_gone(PROCSET__CALL_KILL);
    }
    if (proc->handle != PROCSET_HANDLE_INVALID) {
        return procset_handle_signal(proc->handle, signal);
    }
    return signal_pid(proc, signal);
}
