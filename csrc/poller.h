// One blocking wait over many handles.

#ifndef PROCSET_POLLER_H
#define PROCSET_POLLER_H

#include "proc.h"
#include "procset.h"

typedef struct {
    procset_handle handle;
    unsigned features;
    // What a mechanism has to remember; NULL where the system does.
    struct procset__poller_state *state;
} procset__poller;

// At most this many tokens come from one wait.
#define PROCSET__POLLER_BATCH 256

int
procset__poller_open(unsigned features, procset__poller *ret_poller);

void
procset__poller_done(procset__poller *poller);

// The same in a forked child, where the poller is a copy, or is not there.
void
procset__poller_abandon(procset__poller *poller);

// The features of waiting that work here.
unsigned
procset__poller_probe(void);

// Reports `token` while `handle` is readable or hung up.
int
procset__poller_add(procset__poller *poller, procset_handle handle,
                    uint64_t token);

// A handle must be removed before it is closed.
int
procset__poller_remove(procset__poller *poller, procset_handle handle);

// Reports `token` when the process has ended, or its sentinel says so. Nothing
// is added where the system cannot tell of this process, such as one without
// a handle where a handle is needed. At most once for each pid that has
// neither a handle nor a sentinel.
int
procset__poller_add_end(procset__poller *poller, const procset__proc *proc,
                        uint64_t token, bool *ret_added);

// Undoes procset__poller_add_end(), also after it has been reported.
int
procset__poller_remove_end(procset__poller *poller, const procset__proc *proc);

// Blocks until a handle is ready or the deadline has passed, and writes the
// tokens of up to `capacity` ready handles, in the order in which they became
// ready.
int
procset__poller_wait(procset__poller *poller, int64_t deadline,
                     uint64_t *tokens, size_t capacity, size_t *ret_count);

#endif
