// The inside of a set, shared by set.c (the table) and wait.c (waiting).

#ifndef PROCSET_SET_H
#define PROCSET_SET_H

#include "handle.h"
#include "mutex.h"
#include "pipe.h"
#include "poller.h"
#include "proc.h"
#include "procset.h"
#include "watch.h"

typedef struct {
    procset__proc proc;
    // PROCSET_HANDLE_INVALID when there is none, or it was forgotten.
    procset_handle report;
    // The end of the process is announced by the poller, not by a thread.
    bool polled;
    // The next ring of the set is to look at the process: it had ended before
    // it was added, or a look at its end has failed.
    bool due;
    // The end of the process has been told to the caller of procset_wait().
    bool told;
    // The next in the set's list of ended members; NO_ENTRY at its end.
    size_t next_ended;
} procset__entry;

#define PROCSET__NO_ENTRY SIZE_MAX

struct procset {
    // Guards the entries. Not held while the poller waits.
    procset__mutex *mutex;
    procset__poller poller;
    procset__pipe wake;
    procset__watch *watch;
    unsigned features;
    procset__entry *entries;
    size_t count;
    size_t capacity;
    // Told members whose handle is still open and in the poller: the next
    // wait lets go of it before it sleeps, so that nobody waits for that.
    size_t first_ended;
    // How many entries are due.
    size_t due_count;
};

// What a token of the poller stands for.
typedef enum {
    PROCSET__TOKEN_WAKE,
    PROCSET__TOKEN_END,
    PROCSET__TOKEN_REPORT,
} procset__token;

#define PROCSET__TOKEN_BITS 2
#define PROCSET__TOKEN_TYPES ((1 << PROCSET__TOKEN_BITS) - 1)

static inline uint64_t
procset__to_token(procset__token type, size_t index)
{
    return (uint64_t) index << PROCSET__TOKEN_BITS | (uint64_t) type;
}

#endif
