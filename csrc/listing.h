// What the system tells of its processes, whoever has started them.
//
// Nothing here allocates or takes a lock; see hunt.h.

#ifndef PROCSET_LISTING_H
#define PROCSET_LISTING_H

#include "procset.h"

#include <sys/types.h>

// Holds any path of procset__listing_path().
#define PROCSET__LISTING_PATH_SIZE 48

// A living process, as the system lists it.
typedef struct {
    int32_t pid;
    int32_t parent;
    uint64_t start; // with the pid, its identity
} procset__listed;

typedef enum {
    PROCSET__LIVES,
    // Nobody has collected it yet.
    PROCSET__IS_DEAD,
    PROCSET__IS_GONE,
    // The kernel's own, or nobody may know.
    PROCSET__IS_NONE_OF_OURS,
} procset__liveness;

// Reads parent and start time of what lives or is dead.
procset__liveness
procset__listing_one(int32_t pid, procset__listed *ret_listed);

// Writes the path of what the system tells of a process under a name.
void
procset__listing_path(char *path, int32_t pid, const char *name);

// Opens that; fails as open() does.
int
procset__listing_open(int32_t pid, const char *name);

// read(), again after each signal.
ssize_t
procset__listing_read(int fd, char *buffer, size_t size);

// The number that a text starts with, or 0.
uint64_t
procset__listing_number(const char *text);

#endif
