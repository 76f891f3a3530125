// A plain, non-recursive mutex.

#ifndef PROCSET_MUTEX_H
#define PROCSET_MUTEX_H

typedef struct procset__mutex procset__mutex;

int
procset__mutex_new(procset__mutex **ret_mutex);

// Accepts NULL; returns NULL.
procset__mutex *
procset__mutex_free(procset__mutex *mutex);

void
procset__mutex_lock(procset__mutex *mutex);

void
procset__mutex_unlock(procset__mutex *mutex);

#endif
