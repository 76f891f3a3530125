// Processes on Windows, by their handles.
//
// Facts about processes that this file relies on:
//
// - A pid is not used again while somebody has a handle of the process.
// - The exit code of a running process reads as 259, which is also an exit
//   code like any other; so the handle says whether the process has ended.
// - TerminateProcess() on a process that has ended is "access denied".
// - A process that leads a process group can be asked to stop by CTRL_BREAK,
//   if it has the same console as the asker. For the pid of one that leads
//   none, Windows may ask all processes of the console, the asker included.

#include "proc.h"

#include "error.h"
#include "handle.h"
#include "job.h"
#include "windows_api.h"

// After windows.h, which it needs.
#include <psapi.h>

// The numbers that the C library of Windows has for them.
#define SIGNAL_TERM 15
#define SIGNAL_BREAK 21

#define ACCESS                                                                \
    (SYNCHRONIZE | PROCESS_QUERY_LIMITED_INFORMATION | PROCESS_TERMINATE)

bool
procset__proc_has_handles(void)
{
    return true;
}

static int
open_pid(int64_t pid, procset_handle *ret_handle)
{
    HANDLE process = OpenProcess(ACCESS, FALSE, (DWORD) pid);

    if (process == NULL) {
        return GetLastError() == ERROR_INVALID_PARAMETER
                   ? procset__error_gone(PROCSET__CALL_OPEN_PROCESS)
                   : procset__error_last(PROCSET__CALL_OPEN_PROCESS);
    }
    *ret_handle = procset__from_native(process);
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
    int r;

    // There is nothing to fall back on.
    (void) want_handle;
    if (sentinel != PROCSET_HANDLE_INVALID) {
        r = procset__handle_dup(sentinel, &proc.sentinel);
        if (r < 0) {
            return r;
        }
        if (GetProcessId(procset__to_native(proc.sentinel)) == pid) {
            proc.handle = proc.sentinel;
            proc.sentinel = PROCSET_HANDLE_INVALID;
        }
    }
    if (proc.handle == PROCSET_HANDLE_INVALID) {
        r = open_pid(pid, &proc.handle);
        if (r < 0) {
            procset__proc_done(&proc);
            if (procset_error_kind(r) != PROCSET_KIND_GONE) {
                return r;
            }
            proc.status.state = PROCSET_UNKNOWN;
        }
    }
    *ret_proc = proc;
    return 0;
}

void
procset__proc_done(procset__proc *proc)
{
    proc->handle = procset__handle_close(proc->handle);
    proc->sentinel = procset__handle_close(proc->sentinel);
    proc->job = procset__handle_close(proc->job);
}

static int64_t
to_ns(FILETIME time)
{
    return ((int64_t) time.dwHighDateTime << 32 | time.dwLowDateTime) * 100;
}

// The usage is left zero where the system does not tell.
static void
read_usage(HANDLE process, procset_status *status)
{
    PROCESS_MEMORY_COUNTERS memory = {.cb = sizeof(memory)};
    FILETIME created, ended, kernel, user;

    if (GetProcessTimes(process, &created, &ended, &kernel, &user)) {
        status->user_ns = to_ns(user);
        status->system_ns = to_ns(kernel);
    }
    if (K32GetProcessMemoryInfo(process, &memory, sizeof(memory))) {
        status->max_rss = (int64_t) memory.PeakWorkingSetSize;
    }
}

// Whether the process has ended, or its sentinel says so.
static int
look(const procset__proc *proc, bool *ret_over)
{
    return procset__handle_ready(proc->sentinel != PROCSET_HANDLE_INVALID
                                     ? proc->sentinel
                                     : proc->handle,
                                 ret_over);
}

int
procset__proc_collect(procset__proc *proc)
{
    HANDLE process = procset__to_native(proc->handle);
    procset_status status = {.state = PROCSET_EXITED};
    bool over;
    DWORD code;
    int r;

    if (proc->status.state != PROCSET_RUNNING) {
        return 0;
    }
    r = look(proc, &over);
    if (r < 0 || !over) {
        return r;
    }
    // What told of the end need not have been the process itself.
    r = procset__handle_ready(proc->handle, &over);
    if (r < 0) {
        return r;
    }
    if (!over) {
        proc->status.state = PROCSET_UNKNOWN;
        return 0;
    }
    if (!GetExitCodeProcess(process, &code)) {
        return procset__error_last(PROCSET__CALL_GET_EXIT_CODE_PROCESS);
    }
    status.code = (int) code;
    if (code == PROCSET__ENDED_BY_FORCE) {
        status.state = PROCSET_SIGNALED;
        status.code = SIGNAL_TERM;
    }
    read_usage(process, &status);
    proc->status = status;
    return 0;
}

// Ends the process, together with what it has started where that is known.
static int
end(const procset__proc *proc)
{
    bool over;

    if (proc->job != PROCSET_HANDLE_INVALID) {
        return procset_job_end(proc->job);
    }
    if (!TerminateProcess(procset__to_native(proc->handle),
                          PROCSET__ENDED_BY_FORCE)) {
        int r = procset__error_last(PROCSET__CALL_TERMINATE_PROCESS);

        // It may have ended since the look.
        if (look(proc, &over) == 0 && over) {
            return procset__error_gone(PROCSET__CALL_TERMINATE_PROCESS);
        }
        return r;
    }
    return 0;
}

static int
ask_to_stop(const procset__proc *proc)
{
    // Only what was started in a job of ours is known to lead a group.
    if (proc->job == PROCSET_HANDLE_INVALID) {
        return procset__error_invalid(
            PROCSET__CALL_GENERATE_CONSOLE_CTRL_EVENT);
    }
    if (!GenerateConsoleCtrlEvent(CTRL_BREAK_EVENT, (DWORD) proc->pid)) {
        return procset__error_last(PROCSET__CALL_GENERATE_CONSOLE_CTRL_EVENT);
    }
    return 0;
}

int
procset__proc_signal(procset__proc *proc, int signal)
{
    bool over = true;
    int r = 0;

    if (proc->status.state == PROCSET_RUNNING) {
        r = look(proc, &over);
    }
    if (r < 0) {
        return r;
    }
    if (over) {
        return procset__error_gone(PROCSET__CALL_TERMINATE_PROCESS);
    }
    switch (signal) {
    case 0:
        return 0;
    case SIGNAL_TERM:
        return end(proc);
    case SIGNAL_BREAK:
        return ask_to_stop(proc);
    default:
        return procset__error_invalid(PROCSET__CALL_TERMINATE_PROCESS);
    }
}

int
procset__proc_block(int64_t pid)
{
    procset_handle process = PROCSET_HANDLE_INVALID;
    int r;

    r = open_pid(pid, &process);
    if (r < 0) {
        return procset_error_kind(r) == PROCSET_KIND_GONE ? 0 : r;
    }
    if (WaitForSingleObject(procset__to_native(process), INFINITE)
        == WAIT_FAILED) {
        r = procset__error_last(PROCSET__CALL_WAIT_FOR_SINGLE_OBJECT);
    }
    (void) procset__handle_close(process);
    return r;
}
