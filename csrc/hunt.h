// Finding and ending the descendants of a rank; see procset.h, "tree".
//
// Nothing here allocates from the heap or takes a lock: a guard does this in
// a process that shares the memory of a rank which may have been stopped
// anywhere. What the functions need is reserved by procset__hunt_open().

#ifndef PROCSET_HUNT_H
#define PROCSET_HUNT_H

#include "listing.h"

// A descendant.
typedef struct {
    int32_t pid;
    bool refused; // it could not be signalled
    uint64_t start;
    // PROCSET_HANDLE_INVALID where there is none.
    procset_handle handle;
    size_t rank;
} procset__quarry;

typedef struct {
    bool has_handles;
    const char *job;
    // Whose descendants are ended.
    const size_t *ranks;
    size_t rank_count;
    // If not NULL, it is those that the first of the ranks has claimed there;
    // see board.h.
    const volatile uint32_t *board;
    size_t world_size;
    // Never taken for a descendant.
    int64_t self;
    // Those found so far, oldest first.
    procset__quarry *found;
    size_t found_count;
    // All processes of the last snapshot.
    procset__listed *listed;
    size_t listed_count;
    // Closed while /proc is read, so that there is a descriptor for that when
    // this process has no other left.
    procset_handle spare[2];
    // Some process was ending or becoming a program when it was looked at, so
    // that what it has become or left may have been missed.
    bool unsettled;
    // Which processes were dead, but not collected, in the last snapshot.
    uint64_t dead;
} procset__hunt;

// Whether descendants can be found on this system.
bool
procset__hunt_works(void);

// See procset_tree_mark(). Allocates nothing either.
int
procset__hunt_mark(const char *job, size_t rank);

// Whether a rank is one of those whose descendants are ended.
bool
procset__hunt_wants(const procset__hunt *hunt, size_t rank);

// Reserves memory; the pages cost nothing until they are used. The caller
// fills in the first members before and the ranks any time.
int
procset__hunt_open(procset__hunt *hunt);

// Frees the memory and closes the handles.
void
procset__hunt_done(procset__hunt *hunt);

// Lists all processes, and adds those that carry the mark of one of the ranks.
int
procset__hunt_snapshot(procset__hunt *hunt);

// Adds a process itself, on behalf of a rank.
void
procset__hunt_add(procset__hunt *hunt, int64_t pid, size_t rank);

// Adds the listed descendants of a process.
void
procset__hunt_follow(procset__hunt *hunt, int64_t pid, size_t rank);

// Adds the listed descendants of all that have been found for the ranks.
void
procset__hunt_extend(procset__hunt *hunt);

// Kills those found for the ranks, and waits until they are gone or the
// deadline has passed. The ones that are gone are forgotten. Fails when a
// signal handler ran.
int
procset__hunt_kill(procset__hunt *hunt, int64_t deadline);

// The number of those found for the ranks, and the pid of one.
size_t
procset__hunt_left(const procset__hunt *hunt, int64_t *ret_pid);

// Extends and kills until there is nothing more to be found.
int
procset__hunt_down(procset__hunt *hunt, int64_t deadline);

#endif
