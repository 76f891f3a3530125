// Files in memory, on systems that have them.
//
// Facts that this file relies on:
//
// - Linux has memfd_create() since 3.17, and glibc only since 2.27, so the
//   kernel is asked. On FreeBSD (13) it is a function of the C library.
// - Both number the flags in the same way.

#define _GNU_SOURCE

#include "procset.h"

#include "error.h"

#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#define CLOEXEC_AND_SEALS 3u

int
procset_memory_open(const char *name, procset_handle *ret_handle)
{
#ifdef SYS_memfd_create
    long fd = syscall(SYS_memfd_create, name, CLOEXEC_AND_SEALS);
#else
    int fd = memfd_create(name, CLOEXEC_AND_SEALS);
#endif

    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_MEMFD_CREATE);
    }
    *ret_handle = (procset_handle) fd;
    return 0;
}
