#include "clock.h"

#include "procset.h"

int64_t
procset__remaining(int64_t deadline)
{
    int64_t now;

    if (deadline == PROCSET_NEVER) {
        return PROCSET_NEVER;
    }
    now = procset__now();
    return deadline > now ? deadline - now : 0;
}
