#define _GNU_SOURCE

#include "leave.h"

#include <errno.h>
#include <pthread.h>
#include <stdbool.h>
#include <stdio.h>
#include <time.h>
#include <unistd.h>

// How long a stream may take that another thread is busy with.
#define FLUSH_SECONDS 1

// Static, because the thread that uses it may outlive the function that starts
// it.
static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
static pthread_cond_t changed = PTHREAD_COND_INITIALIZER;
static bool flushed;

static void *
flush_all(void *argument)
{
    (void) argument;
    (void) fflush(NULL);
    (void) pthread_mutex_lock(&mutex);
    flushed = true;
    (void) pthread_cond_signal(&changed);
    (void) pthread_mutex_unlock(&mutex);
    return NULL;
}

static void
flush_unless_busy(FILE *stream)
{
    if (ftrylockfile(stream) == 0) {
        (void) fflush(stream);
        funlockfile(stream);
    }
}

// fflush(NULL) waits for every stream that another thread is busy with, and
// one that reads from a terminal or a pipe may be busy for ever. There is no
// way to leave those out, so a thread of its own waits for them.
static void
flush_for_a_while(void)
{
    struct timespec end;
    pthread_t thread;
    int r = 0;

    if (pthread_create(&thread, NULL, flush_all, NULL) != 0) {
        flush_unless_busy(stdout);
        flush_unless_busy(stderr);
        return;
    }
    (void) clock_gettime(CLOCK_REALTIME, &end);
    end.tv_sec += FLUSH_SECONDS;
    (void) pthread_mutex_lock(&mutex);
    while (!flushed && r != ETIMEDOUT) {
        r = pthread_cond_timedwait(&changed, &mutex, &end);
    }
    (void) pthread_mutex_unlock(&mutex);
}

_Noreturn void
procset_leave(int code)
{
    flush_for_a_while();
    _exit(code);
}
