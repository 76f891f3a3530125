#define _GNU_SOURCE

#include "thread.h"

#include "error.h"

#include <pthread.h>
#include <signal.h>

// Enough for what is called here, and for the thread-local storage of
// everything that a process may have loaded; only touched pages cost memory.
#define STACK_SIZE (256 * 1024)

int
procset__thread_start(void *(*function)(void *), void *argument)
{
    pthread_attr_t attributes;
    sigset_t all, old;
    pthread_t thread;
    int r;

    r = pthread_attr_init(&attributes);
    if (r != 0) {
        return procset__error(PROCSET__CALL_PTHREAD_CREATE, r);
    }
    (void) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void) pthread_attr_setstacksize(&attributes, STACK_SIZE);
    (void) sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&thread, &attributes, function, argument);
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void) pthread_attr_destroy(&attributes);
    return r == 0 ? 0 : procset__error(PROCSET__CALL_PTHREAD_CREATE, r);
}
