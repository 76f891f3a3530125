#include "error.h"

#include <errno.h>

int
procset__error_last(procset__call call)
{
    return procset__error(call, errno);
}

int
procset__error_invalid(procset__call call)
{
    return procset__error(call, EINVAL);
}

int
procset__error_no_memory(void)
{
    return procset__error(PROCSET__CALL_CALLOC, ENOMEM);
}

int
procset__error_gone(procset__call call)
{
    return procset__error(call, ESRCH);
}

int
procset__error_missing(procset__call call)
{
    return procset__error(call, ENOSYS);
}

int
procset__error_again(procset__call call)
{
    return procset__error(call, EAGAIN);
}

procset_kind
procset__kind_of_code(int code)
{
    switch (code) {
    case EINVAL:
        return PROCSET_KIND_INVALID;
    case EINTR:
        return PROCSET_KIND_INTERRUPTED;
    case EAGAIN:
        return PROCSET_KIND_AGAIN;
    case ECHILD:
        return PROCSET_KIND_NO_CHILD;
    case ESRCH:
        return PROCSET_KIND_GONE;
    case EMFILE:
    case ENFILE:
    case ENOMEM:
    case ENOSPC:
        return PROCSET_KIND_LIMIT;
    case EPERM:
    case EACCES:
    case ENOSYS:
        return PROCSET_KIND_REFUSED;
    default:
        return PROCSET_KIND_OTHER;
    }
}
