// Where the system itself ends what a launcher leaves behind, or nothing can.

#include "guard.h"

#include "error.h"

bool
procset__guard_works(void)
{
    return false;
}

int
procset_guard_start(const procset_guard *guard, bool *ret_private)
{
    (void) guard;
    (void) ret_private;
    return procset__error_invalid(PROCSET__CALL_GUARD);
}
