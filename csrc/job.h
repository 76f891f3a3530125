// A job for one process and what it starts; see procset.h, "job".

#ifndef PROCSET_JOB_H
#define PROCSET_JOB_H

#include "procset.h"

// The exit code of what is ended by force; multiprocessing uses the same.
#define PROCSET__ENDED_BY_FORCE 0x10000

// Opens a job whose processes outlive it.
int
procset__job_open_plain(procset_handle *ret_job);

#endif
