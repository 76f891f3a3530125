// Files in memory, for tests that pass descriptors to calls of the system.

#ifndef MEMFD_H
#define MEMFD_H

#include "check.h"
#include "procset.h"

static inline int
make_memfd(const char *name)
{
    procset_handle fd;

    CHECK_INT(procset_memory_open(name, &fd), ==, 0);
    return (int) fd;
}

#endif
