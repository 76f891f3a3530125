// One blocking wait over many handles.

#ifndef PROCSET_POLLER_H
#define PROCSET_POLLER_H

#include "procset.h"

typedef struct {
    procset_handle handle;
    bool pwait2;
} procset__poller;

// At most this many tokens come from one wait.
#define PROCSET__POLLER_BATCH 256

int
procset__poller_open(unsigned features, procset__poller *ret_poller);

void
procset__poller_done(procset__poller *poller);

// Whether the system's wait takes nanoseconds.
bool
procset__poller_has_pwait2(void);

// Reports `token` while `handle` is readable or hung up.
int
procset__poller_add(procset__poller *poller, procset_handle handle,
                    uint64_t token);

// A handle must be removed before it is closed.
int
procset__poller_remove(procset__poller *poller, procset_handle handle);

// Blocks until a handle is ready or the deadline has passed, and writes the
// tokens of up to `capacity` ready handles, in the order in which they became
// ready.
int
procset__poller_wait(procset__poller *poller, int64_t deadline,
                     uint64_t *tokens, size_t capacity, size_t *ret_count);

#endif
