// Facts about jobs that this file relies on:
//
// - A process that is in a job has its children in the same job, whatever
//   becomes of their parents.
// - The last handle of a job is closed with the process that had it, however
//   that ends.
// - Since Windows 8 a process can be in several jobs, one inside of the other:
//   a job without processes becomes the innermost job of the first process
//   that is put into it.

#include "job.h"

#include "error.h"
#include "handle.h"
#include "windows_api.h"

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
