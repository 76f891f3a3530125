#include "error.h"

#include "windows_api.h"

int
procset__error_last(procset__call call)
{
    DWORD code = GetLastError();

    // A code that says nothing, or does not fit, still is a failure.
    return procset__error(call, code == 0 || code > 0xFFFF ? ERROR_GEN_FAILURE
                                                           : (int) code);
}

int
procset__error_invalid(procset__call call)
{
    return procset__error(call, ERROR_INVALID_PARAMETER);
}

int
procset__error_no_memory(void)
{
    return procset__error(PROCSET__CALL_CALLOC, ERROR_NOT_ENOUGH_MEMORY);
}

int
procset__error_gone(procset__call call)
{
    return procset__error(call, ERROR_NOT_FOUND);
}

int
procset__error_missing(procset__call call)
{
    return procset__error(call, ERROR_NOT_SUPPORTED);
}

int
procset__error_again(procset__call call)
{
    return procset__error(call, ERROR_RETRY);
}

// There is no code for INTERRUPTED: nothing interrupts a wait on Windows.
procset_kind
procset__kind_of_code(int code)
{
    switch (code) {
    case ERROR_INVALID_PARAMETER:
        return PROCSET_KIND_INVALID;
    case ERROR_RETRY:
        return PROCSET_KIND_AGAIN;
    case ERROR_WAIT_NO_CHILDREN:
        return PROCSET_KIND_NO_CHILD;
    case ERROR_NOT_FOUND:
        return PROCSET_KIND_GONE;
    case ERROR_TOO_MANY_OPEN_FILES:
    case ERROR_NOT_ENOUGH_MEMORY:
    case ERROR_OUTOFMEMORY:
    case ERROR_MAX_THRDS_REACHED:
    case ERROR_NO_SYSTEM_RESOURCES:
    case ERROR_WORKING_SET_QUOTA:
    case ERROR_PAGEFILE_QUOTA:
    case ERROR_COMMITMENT_LIMIT:
    case ERROR_NOT_ENOUGH_QUOTA:
        return PROCSET_KIND_LIMIT;
    case ERROR_ACCESS_DENIED:
    case ERROR_INVALID_FUNCTION:
    case ERROR_INVALID_ACCESS:
    case ERROR_NOT_SUPPORTED:
    case ERROR_CALL_NOT_IMPLEMENTED:
    case ERROR_ACCESS_DISABLED_BY_POLICY:
    case ERROR_PRIVILEGE_NOT_HELD:
        return PROCSET_KIND_REFUSED;
    default:
        return PROCSET_KIND_OTHER;
    }
}
