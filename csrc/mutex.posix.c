#define _GNU_SOURCE

#include "mutex.h"

#include "error.h"

#include <assert.h>
#include <pthread.h>
#include <stdlib.h>

struct procset__mutex {
    pthread_mutex_t native;
};

int
procset__mutex_new(procset__mutex **ret_mutex)
{
    procset__mutex *mutex = calloc(1, sizeof(*mutex));
    int r;

    if (mutex == NULL) {
        return procset__error_no_memory();
    }
    r = pthread_mutex_init(&mutex->native, NULL);
    if (r != 0) {
        free(mutex);
        return procset__error(PROCSET__CALL_PTHREAD_MUTEX_INIT, r);
    }
    *ret_mutex = mutex;
    return 0;
}

procset__mutex *
procset__mutex_free(procset__mutex *mutex)
{
    if (mutex != NULL) {
        (void) pthread_mutex_destroy(&mutex->native);
        free(mutex);
    }
    return NULL;
}

void
procset__mutex_lock(procset__mutex *mutex)
{
    int r = pthread_mutex_lock(&mutex->native);

    assert(r == 0 && "a normal mutex can be locked");
    (void) r;
}

void
procset__mutex_unlock(procset__mutex *mutex)
{
    int r = pthread_mutex_unlock(&mutex->native);

    assert(r == 0 && "only the holder unlocks");
    (void) r;
}
