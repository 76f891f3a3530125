// There are no jobs here.

#include "procset.h"

#include "error.h"

int
procset_job_open(procset_handle *ret_job)
{
    *ret_job = PROCSET_HANDLE_INVALID;
    return 0;
}

int
procset_job_end(procset_handle job)
{
    (void) job;
    return procset__error_invalid(PROCSET__CALL_JOB);
}

int
procset_job_clear(procset_handle job, int64_t deadline, size_t *ret_left,
                  int64_t *ret_pid)
{
    (void) job;
    (void) deadline;
    (void) ret_left;
    (void) ret_pid;
    return procset__error_invalid(PROCSET__CALL_JOB);
}
