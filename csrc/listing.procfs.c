// Facts about /proc/PID/stat on Linux that this file relies on; see proc(5):
// the name is in parentheses and may contain any byte; the fields are counted
// after the last parenthesis. State, parent, (5 others,) flags, ... and the
// 20th of them is the start time in clock ticks, which together with the pid
// tells processes apart: a pid is not given out again within a tick but where
// the limit on pids is tiny. A handle does better, and is what is used
// wherever there are handles.

#define _GNU_SOURCE

#include "listing.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <unistd.h>

#define FLAG_KERNEL_THREAD 0x00200000

void
procset__listing_path(char *path, int32_t pid, const char *name)
{
    char digits[12];
    int count = 0;

    memcpy(path, "/proc/", 6);
    path += 6;
    do {
        digits[count++] = (char) ('0' + pid % 10);
        pid /= 10;
    } while (pid > 0);
    while (count > 0) {
        *path++ = digits[--count];
    }
    *path++ = '/';
    memcpy(path, name, strlen(name) + 1);
}

int
procset__listing_open(int32_t pid, const char *name)
{
    char path[PROCSET__LISTING_PATH_SIZE];

    procset__listing_path(path, pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

ssize_t
procset__listing_read(int fd, char *buffer, size_t size)
{
    ssize_t n;

    do {
        n = read(fd, buffer, size);
    } while (n < 0 && errno == EINTR);
    return n;
}

uint64_t
procset__listing_number(const char *text)
{
    uint64_t number = 0;

    while (*text >= '0' && *text <= '9') {
        number = number * 10 + (uint64_t) (*text++ - '0');
    }
    return number;
}

procset__liveness
procset__listing_one(int32_t pid, procset__listed *ret_listed)
{
    char text[1024];
    int fd = procset__listing_open(pid, "stat");
    ssize_t size;
    char *at;
    uint64_t fields[20] = {0};
    char state;

    if (fd < 0) {
        return errno == ENOENT || errno == ESRCH ? PROCSET__IS_GONE
                                                 : PROCSET__IS_NONE_OF_OURS;
    }
    size = procset__listing_read(fd, text, sizeof(text) - 1);
    (void) close(fd);
    if (size <= 0) {
        return PROCSET__IS_GONE;
    }
    text[size] = '\0';
    at = memrchr(text, ')', (size_t) size);
    if (at == NULL || at[1] == '\0') {
        return PROCSET__IS_NONE_OF_OURS;
    }
    state = at[2];
    at += 2;
    for (size_t i = 0; i < 20 && at != NULL; i++) {
        fields[i] = procset__listing_number(at);
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    *ret_listed = (procset__listed) {
        .pid = pid,
        .parent = (int32_t) fields[1],
        .start = fields[19],
    };
    if (fields[6] & FLAG_KERNEL_THREAD) {
        return PROCSET__IS_NONE_OF_OURS;
    }
    return state == 'Z' || state == 'X' ? PROCSET__IS_DEAD : PROCSET__LIVES;
}
