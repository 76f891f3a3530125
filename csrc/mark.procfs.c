// Facts about /proc on Linux that this file relies on; see proc(5):
//
// - /proc/PID/environ: what the program was started with, forks included. It
//   is empty while a process becomes another program, for kernel threads and
//   for zombies.
// - /proc/PID/maps names the file of every mapping, also those that have no
//   name in any folder any more. Only forks inherit mappings, so it is enough
//   to look at processes that run our own program.

#define _GNU_SOURCE

#include "mark.h"

#include "error.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#define PIECE 8192
#define MAX_MARK 256

// Opens a file that nobody else can open, and whose name has `name` in it.
static int
open_named(const char *name)
{
    char path[MAX_MARK + 16];
    procset_handle fd;

    if (procset_memory_open(name, &fd) < 0) {
        // A sandbox may refuse it.
        (void) snprintf(path, sizeof(path), "/dev/shm/%s", name);
        fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        (void) unlink(path);
    }
    return (int) fd;
}

int
procset__hunt_mark(const char *job, size_t rank)
{
    char name[MAX_MARK];
    void *mapping;
    int fd, r = 0;

    if (strlen(job) > MAX_MARK / 2) {
        return procset__error_invalid(PROCSET__CALL_TREE);
    }
    (void) snprintf(name, sizeof(name), "flamespawn-%s.%zu", job, rank);
    fd = open_named(name);
    if (fd < 0) {
        return procset__error_last(PROCSET__CALL_OPEN);
    }
    mapping = mmap(NULL, 1, PROT_NONE, MAP_PRIVATE, fd, 0);
    if (mapping == MAP_FAILED) {
        r = procset__error_last(PROCSET__CALL_MMAP);
    }
    (void) close(fd);
    return r;
}

// Looks in `text`, which ends with a zero byte, for the mark of a wanted rank.
// A number at its very end may go on in the next piece, unless this is the
// `last` one.
static bool
find_mark(const procset__hunt *hunt, const char *text, size_t size, bool last,
          size_t *ret_rank)
{
    size_t length = strlen(hunt->job);
    const char *end = text + size;
    const char *at = text;

    while ((at = memmem(at, (size_t) (end - at), hunt->job, length)) != NULL) {
        at += length;
        if (end - at > 1 && at[0] == '.' && at[1] >= '0' && at[1] <= '9') {
            size_t rank = (size_t) procset__listing_number(at + 1);
            const char *after = at + 1 + strspn(at + 1, "0123456789");

            if ((after < end || last) && procset__hunt_wants(hunt, rank)) {
                *ret_rank = rank;
                return true;
            }
        }
    }
    return false;
}

// Looks for a mark in a file of a process. `ret_empty` tells whether there was
// nothing to look at, although it is not forbidden.
static bool
file_has_mark(const procset__hunt *hunt, int32_t pid, const char *name,
              size_t *ret_rank, bool *ret_empty)
{
    // One more byte ends a number at the end of the text.
    char text[MAX_MARK + PIECE + 1];
    size_t kept = 0;
    int fd = procset__listing_open(pid, name);
    bool found = false;
    ssize_t n;

    // One that may not be read is not ours, or has another user; one that is
    // gone may have left a child.
    *ret_empty = fd < 0 && errno != EACCES && errno != EPERM;
    if (fd < 0) {
        return false;
    }
    while (!found) {
        size_t size;

        n = procset__listing_read(fd, text + kept, PIECE);
        if (n < 0) {
            *ret_empty = errno == ESRCH;
            break;
        }
        size = kept + (size_t) n;

        text[size] = '\0';
        *ret_empty = size == 0;
        // A mark that is cut off here is whole in the next piece, where its
        // beginning is kept.
        found = find_mark(hunt, text, size, n == 0, ret_rank);
        if (n == 0) {
            break;
        }
        kept = size < MAX_MARK ? size : MAX_MARK;
        memmove(text, text + size - kept, kept);
    }
    (void) close(fd);
    return found;
}

static bool
runs_our_program(int32_t pid)
{
    char path[PROCSET__LISTING_PATH_SIZE];
    char ours[1024], theirs[1024];
    ssize_t own = readlink("/proc/self/exe", ours, sizeof(ours));
    ssize_t other;

    procset__listing_path(path, pid, "exe");
    other = readlink(path, theirs, sizeof(theirs));
    return own > 0 && own == other && memcmp(ours, theirs, (size_t) own) == 0;
}

bool
procset__mark_find(procset__hunt *hunt, int32_t pid, size_t *ret_rank)
{
    bool empty;

    if (file_has_mark(hunt, pid, "environ", ret_rank, &empty)) {
        return true;
    }
    hunt->unsettled = hunt->unsettled || empty;
    if (!runs_our_program(pid)) {
        return false;
    }
    if (file_has_mark(hunt, pid, "maps", ret_rank, &empty)) {
        return true;
    }
    hunt->unsettled = hunt->unsettled || empty;
    return false;
}
