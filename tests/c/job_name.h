// A job of this run's own: tests that run at the same time, such as those of
// another checkout, end the descendants of each other otherwise.

#ifndef JOB_NAME_H
#define JOB_NAME_H

#include <stdio.h>
#include <unistd.h>

static char job[33];

static inline void
name_job(void)
{
    snprintf(job, sizeof(job), "%032x", (unsigned) getpid());
}

#endif
