#include "mutex.h"

#include "error.h"
#include "windows_api.h"

#include <stdlib.h>

struct procset__mutex {
    SRWLOCK native;
};

int
procset__mutex_new(procset__mutex **ret_mutex)
{
    procset__mutex *mutex = calloc(1, sizeof(*mutex));

    if (mutex == NULL) {
        return procset__error_no_memory();
    }
    InitializeSRWLock(&mutex->native);
    *ret_mutex = mutex;
    return 0;
}

procset__mutex *
procset__mutex_free(procset__mutex *mutex)
{
    free(mutex);
    return NULL;
}

void
procset__mutex_lock(procset__mutex *mutex)
{
    AcquireSRWLockExclusive(&mutex->native);
}

void
procset__mutex_unlock(procset__mutex *mutex)
{
    ReleaseSRWLockExclusive(&mutex->native);
}
