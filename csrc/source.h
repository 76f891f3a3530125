// What a poller on Windows watches: a pipe, or a process that will end.

#ifndef PROCSET_SOURCE_H
#define PROCSET_SOURCE_H

#include "procset.h"

typedef struct procset__source procset__source;

// The time at which a source without an end has ended.
#define PROCSET__NO_END UINT64_MAX

// Makes a source that queues `key` at the completion port `port`.
int
procset__source_new(procset_handle port, size_t key, uint64_t token,
                    procset_handle handle, bool is_pipe,
                    procset__source **ret_source);

// Begins to watch. Until then nothing is queued.
int
procset__source_watch(procset__source *source);

// Accepts NULL. After that nothing is queued any more; what is queued already
// stays. Nobody else may know the source.
int
procset__source_free(procset__source *source);

bool
procset__source_is(const procset__source *source, procset_handle handle,
                   bool is_pipe);

uint64_t
procset__source_token(const procset__source *source);

// Looks at a source that was queued: whether it is ready, and when a process
// ended, by the system's clock, if that is known (zero otherwise). A pipe is
// queued again: at once, behind all others, while it is ready, and otherwise
// when it is.
int
procset__source_take(procset__source *source, bool *ret_ready,
                     uint64_t *ret_end);

#endif
