#define _GNU_SOURCE

#include "mask.h"

#include "error.h"

#include <signal.h>
#include <string.h>

_Static_assert(sizeof(sigset_t) <= sizeof(procset__mask), "every mask fits");

static int
exchange(const sigset_t *mask, sigset_t *previous)
{
    int r = pthread_sigmask(SIG_SETMASK, mask, previous);

    return r == 0 ? 0 : procset__error(PROCSET__CALL_PTHREAD_SIGMASK, r);
}

int
procset__mask_fill(procset__mask *ret_previous)
{
    sigset_t all, previous;
    int r;

    (void) sigfillset(&all);
    r = exchange(&all, &previous);
    if (r == 0) {
        memcpy(ret_previous, &previous, sizeof(previous));
    }
    return r;
}

void
procset__mask_restore(const procset__mask *previous)
{
    sigset_t mask;

    memcpy(&mask, previous, sizeof(mask));
    (void) exchange(&mask, NULL);
}

int
procset__mask_set(uint64_t blocked)
{
    sigset_t mask;

    (void) sigemptyset(&mask);
    for (int signal = 1; signal < NSIG && signal <= 64; signal++) {
        if ((blocked >> (signal - 1) & 1) != 0) {
            (void) sigaddset(&mask, signal);
        }
    }
    return exchange(&mask, NULL);
}
