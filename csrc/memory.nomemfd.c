#include "procset.h"

#include "error.h"

int
procset_memory_open(const char *name, procset_handle *ret_handle)
{
    (void) name;
    (void) ret_handle;
    return procset__error_missing(PROCSET__CALL_MEMFD_CREATE);
}
