// Keeping descriptors from a new program on Linux. Async-signal-safe, as all
// of launch_child.fork.c.

#define _GNU_SOURCE

#include "launch_child.h"

#include "error.h"

#include <fcntl.h>
#include <sys/syscall.h>
#include <unistd.h>

// The same on every architecture; the C library has the names since glibc
// 2.34 only.
#ifndef SYS_close_range
#define SYS_close_range 436
#endif
#define CLOSE_RANGE_CLOEXEC_LINUX 4u

bool
procset__child_has_close_range(void)
{
    // No descriptor has this number.
    return syscall(SYS_close_range, ~0u, ~0u, CLOSE_RANGE_CLOEXEC_LINUX) == 0;
}

static int
parse_number(const char *text)
{
    int number = 0;

    for (; *text != '\0'; text++) {
        if (*text < '0' || *text > '9') {
            return -1;
        }
        number = number * 10 + (*text - '0');
    }
    return number;
}

// One entry of a folder as the kernel writes it; see getdents64(2).
typedef struct {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
} entry64;

// Returns false where /proc cannot be read.
static bool
mark_listed(void)
{
    char buffer[2048] __attribute__((aligned(8)));
    int folder = open("/proc/self/fd", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    long size;

    if (folder < 0) {
        return false;
    }
    do {
        size = syscall(SYS_getdents64, folder, buffer, sizeof(buffer));
        for (long at = 0; at < size;) {
            const entry64 *entry = (const entry64 *) (buffer + at);
            int fd = parse_number(entry->name);

            if (fd >= PROCSET__FIRST_AFTER_STANDARD) {
                (void) fcntl(fd, F_SETFD, FD_CLOEXEC);
            }
            at += entry->size;
        }
    } while (size > 0);
    (void) close(folder);
    return size == 0;
}

int
procset__child_keep_all(bool has_close_range)
{
    if (!has_close_range) {
        if (!mark_listed()) {
            procset__child_keep_each();
        }
        return 0;
    }
    if (syscall(SYS_close_range, PROCSET__FIRST_AFTER_STANDARD, ~0u,
                CLOSE_RANGE_CLOEXEC_LINUX)
        < 0) {
        return procset__error_last(PROCSET__CALL_CLOSE_RANGE);
    }
    return 0;
}
