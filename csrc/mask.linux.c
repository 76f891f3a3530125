// The system call itself: the C library's functions keep two signals for
// themselves, which are to be blocked and reset like all others.

#define _GNU_SOURCE

#include "mask.h"

#include "error.h"

#include <signal.h>
#include <sys/syscall.h>
#include <unistd.h>

#define ALL_SIGNALS (~(uint64_t) 0)

static int
exchange(uint64_t mask, uint64_t *previous)
{
    if (syscall(SYS_rt_sigprocmask, SIG_SETMASK, &mask, previous, sizeof(mask))
        < 0) {
        return procset__error_last(PROCSET__CALL_RT_SIGPROCMASK);
    }
    return 0;
}

int
procset__mask_fill(procset__mask *ret_previous)
{
    return exchange(ALL_SIGNALS, &ret_previous->words[0]);
}

void
procset__mask_restore(const procset__mask *previous)
{
    (void) exchange(previous->words[0], NULL);
}

int
procset__mask_set(uint64_t blocked)
{
    return exchange(blocked, NULL);
}
