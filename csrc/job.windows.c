// Facts about jobs that this file relies on:
//
// - A process that is in a job has its children in the same job, whatever
//   becomes of their parents.
// - The last handle of a job is closed with the process that had it, however
//   that ends.
// - Since Windows 8 a process can be in several jobs, one inside of the other:
//   a job without processes becomes the innermost job of the first process
//   that is put into it.
// - TerminateJobObject() need not wait until the processes have ended. Those
//   that have not are in the list of the job.

#include "job.h"

#include "clock.h"
#include "error.h"
#include "handle.h"
#include "windows_api.h"

#include <stdlib.h>

// How many processes there is room for at first.
#define ROOM 64
#define LOOK_AGAIN_MS 1

int
procset__job_open_plain(procset_handle *ret_job)
{
    HANDLE job = CreateJobObjectW(NULL, NULL);

    if (job == NULL) {
        return procset__error_last(PROCSET__CALL_CREATE_JOB_OBJECT);
    }
    *ret_job = procset__from_native(job);
    return 0;
}

int
procset_job_open(procset_handle *ret_job)
{
    JOBOBJECT_EXTENDED_LIMIT_INFORMATION limits = {
        .BasicLimitInformation.LimitFlags = JOB_OBJECT_LIMIT_KILL_ON_JOB_CLOSE,
    };
    procset_handle job = PROCSET_HANDLE_INVALID;
    int r;

    r = procset__job_open_plain(&job);
    if (r < 0) {
        return r;
    }
    if (!SetInformationJobObject(procset__to_native(job),
                                 JobObjectExtendedLimitInformation, &limits,
                                 sizeof(limits))) {
        r = procset__error_last(PROCSET__CALL_SET_INFORMATION_JOB_OBJECT);
        (void) procset__handle_close(job);
        return r;
    }
    *ret_job = job;
    return 0;
}

int
procset_job_end(procset_handle job)
{
    if (!TerminateJobObject(procset__to_native(job),
                            PROCSET__ENDED_BY_FORCE)) {
        return procset__error_last(PROCSET__CALL_TERMINATE_JOB_OBJECT);
    }
    return 0;
}

typedef JOBOBJECT_BASIC_PROCESS_ID_LIST pid_list;

static int
list_pids(HANDLE job, pid_list **ret_list)
{
    for (size_t room = ROOM;; room *= 2) {
        size_t size = sizeof(pid_list) + room * sizeof(ULONG_PTR);
        pid_list *list = malloc(size);
        int r;

        if (list == NULL) {
            return procset__error_no_memory();
        }
        if (QueryInformationJobObject(job, JobObjectBasicProcessIdList, list,
                                      (DWORD) size, NULL)) {
            *ret_list = list;
            return 0;
        }
        r = procset__error_last(PROCSET__CALL_QUERY_INFORMATION_JOB_OBJECT);
        free(list);
        if (procset_error_code(r) != ERROR_MORE_DATA) {
            return r;
        }
    }
}

// Waits for the end of a process, unless somebody else has got its pid.
static void
wait_for_end(HANDLE job, ULONG_PTR pid, int64_t deadline)
{
    HANDLE process = OpenProcess(SYNCHRONIZE | PROCESS_QUERY_INFORMATION,
                                 FALSE, (DWORD) pid);
    BOOL is_inside;

    if (process == NULL) {
        if (GetLastError() != ERROR_INVALID_PARAMETER) {
            // It is there, and nobody tells when it ends.
            Sleep(LOOK_AGAIN_MS);
        }
        return;
    }
    if (IsProcessInJob(process, job, &is_inside) && is_inside) {
        int64_t left = procset__remaining(deadline) / 1000000;

        (void) WaitForSingleObject(
            process, left < INFINITE - 1 ? (DWORD) left + 1 : INFINITE);
    }
    (void) CloseHandle(process);
}

int
procset_job_clear(procset_handle job, int64_t deadline, size_t *ret_left,
                  int64_t *ret_pid)
{
    HANDLE native = procset__to_native(job);

    for (;;) {
        pid_list *list = NULL;
        bool is_over;
        int r;

        r = list_pids(native, &list);
        if (r < 0) {
            return r;
        }
        is_over = list->NumberOfProcessIdsInList == 0
                  || procset__remaining(deadline) == 0;
        if (is_over) {
            *ret_left = list->NumberOfProcessIdsInList;
            if (*ret_left > 0) {
                *ret_pid = (int64_t) list->ProcessIdList[0];
            }
        }
        else {
            r = procset_job_end(job);
            for (DWORD i = 0; r == 0 && i < list->NumberOfProcessIdsInList;
                 i++) {
                wait_for_end(native, list->ProcessIdList[i], deadline);
            }
        }
        free(list);
        if (is_over || r < 0) {
            return r;
        }
    }
}
