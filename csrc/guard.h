// Guards; see procset.h.

#ifndef PROCSET_GUARD_H
#define PROCSET_GUARD_H

#include "procset.h"

// Whether processes of this system can be guarded.
bool
procset__guard_works(void);

#endif
