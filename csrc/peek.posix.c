// Looking at a child, and leaving it as it is.
//
// Facts about waitid() that this file relies on:
//
// - With WNOHANG, where no child has ended, it leaves `si_pid` as it was.
// - macOS gives all 32 bits of an exit code, of which wait() keeps 8.

#define _GNU_SOURCE

#include "error.h"

#include <signal.h>
#include <sys/types.h>
#include <sys/wait.h>

int
procset_peek(int64_t pid, bool block, procset_status *ret_status)
{
    siginfo_t info = {0};
    procset_status status = {.state = PROCSET_RUNNING};

    if (waitid(P_PID, (id_t) pid, &info,
               WEXITED | WNOWAIT | (block ? 0 : WNOHANG))
        < 0) {
        return procset__error_last(PROCSET__CALL_WAITID);
    }
    if (info.si_pid != 0 && info.si_code == CLD_EXITED) {
        status.state = PROCSET_EXITED;
        status.code = info.si_status & 0xFF;
    }
    else if (info.si_pid != 0) {
        status.state = PROCSET_SIGNALED;
        status.code = info.si_status & 0x7F;
        status.core_dumped = info.si_code == CLD_DUMPED;
    }
    *ret_status = status;
    return 0;
}
