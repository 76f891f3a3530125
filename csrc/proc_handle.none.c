// Where processes have no handles, or nobody asks for those of others.

#include "procset.h"

#include "error.h"

int
procset_handle_open(int64_t pid, procset_handle *ret_handle)
{
    (void) pid;
    (void) ret_handle;
    return procset__error_missing(PROCSET__CALL_HANDLE);
}

int
procset_handle_signal(procset_handle handle, int signal)
{
    (void) handle;
    (void) signal;
    return procset__error_missing(PROCSET__CALL_HANDLE);
}
