#include "error.h"

#include "windows_api.h"

int
procset_peek(int64_t pid, bool block, procset_status *ret_status)
{
    (void) pid;
    (void) block;
    (void) ret_status;
    return procset__error_missing(PROCSET__CALL_WAITID);
}
