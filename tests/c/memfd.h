// Files in memory on Linux; glibc has memfd_create() since 2.27 only.

#ifndef MEMFD_H
#define MEMFD_H

#include <sys/syscall.h>
#include <unistd.h>

#define MFD_CLOEXEC_LINUX 1u

static inline int
make_memfd(const char *name)
{
    return (int) syscall(SYS_memfd_create, name, MFD_CLOEXEC_LINUX);
}

#endif
