// Facts about /proc on Linux that this file relies on; see proc(5):
//
// - /proc/PID/stat: the name is in parentheses and may contain any byte; the
//   fields are counted after the last parenthesis. State, parent, (5 others,)
//   flags, ... and the 20th of them is the start time in clock ticks, which
//   together with the pid tells processes apart: a pid is not given out again
//   within a tick but where the limit on pids is tiny. A handle does better,
//   and is what is used wherever there are handles.
// - /proc/PID/environ: what the program was started with, forks included. It
//   is empty while a process becomes another program, for kernel threads and
//   for zombies.
// - /proc/PID/maps names the file of every mapping, also those that have no
//   name in any folder any more. Only forks inherit mappings, so it is enough
//   to look at processes that run our own program.
// - A pidfd becomes readable when its process ends, whoever the parent is.

#define _GNU_SOURCE

#include "hunt.h"

#include "clock.h"
#include "error.h"
#include "handle.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#ifndef SYS_pidfd_send_signal
#define SYS_pidfd_send_signal 424
#endif
#ifndef SYS_pidfd_open
#define SYS_pidfd_open 434
#endif
#define MFD_CLOEXEC_LINUX 1u

// More than any limit on pids that is in use on one host; a host with more
// processes is hunted through in parts.
#define MOST_LISTED ((size_t) 1 << 20)
#define MOST_FOUND ((size_t) 1 << 14)
#define PATH_SIZE 48
#define PIECE 8192
#define MAX_MARK 256
#define FLAG_KERNEL_THREAD 0x00200000
// Where nobody tells that a process is gone.
#define LOOK_AGAIN_NS INT64_C(1000000)
// How often what could not be read is looked at again.
#define MOST_UNSETTLED 3

bool
procset__hunt_works(void)
{
    int fd = open("/proc/self/environ", O_RDONLY | O_CLOEXEC);

    if (fd < 0) {
        return false;
    }
    (void) close(fd);
    return true;
}

static void *
reserve(size_t size)
{
    void *memory = mmap(NULL, size, PROT_READ | PROT_WRITE,
                        MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);

    return memory == MAP_FAILED ? NULL : memory;
}

static void
let_go_of_spares(procset__hunt *hunt)
{
    for (size_t i = 0; i < 2; i++) {
        hunt->spare[i] = procset__handle_close(hunt->spare[i]);
    }
}

// Where there are none, the next reading may do without.
static void
take_spares(procset__hunt *hunt)
{
    for (size_t i = 0; i < 2; i++) {
        hunt->spare[i] = open("/dev/null", O_RDONLY | O_CLOEXEC);
    }
}

int
procset__hunt_open(procset__hunt *hunt)
{
    hunt->found = reserve(MOST_FOUND * sizeof(*hunt->found));
    hunt->listed = reserve(MOST_LISTED * sizeof(*hunt->listed));
    if (hunt->found == NULL || hunt->listed == NULL) {
        int r = procset__error_last(PROCSET__CALL_MMAP);

        hunt->spare[0] = hunt->spare[1] = PROCSET_HANDLE_INVALID;
        procset__hunt_done(hunt);
        return r;
    }
    take_spares(hunt);
    return 0;
}

void
procset__hunt_done(procset__hunt *hunt)
{
    if (hunt->found == NULL || hunt->listed == NULL) {
        // It was not opened, or not quite.
        hunt->spare[0] = hunt->spare[1] = PROCSET_HANDLE_INVALID;
    }
    let_go_of_spares(hunt);
    for (size_t i = 0; i < hunt->found_count; i++) {
        (void) procset__handle_close(hunt->found[i].handle);
    }
    if (hunt->found != NULL) {
        (void) munmap(hunt->found, MOST_FOUND * sizeof(*hunt->found));
    }
    if (hunt->listed != NULL) {
        (void) munmap(hunt->listed, MOST_LISTED * sizeof(*hunt->listed));
    }
    hunt->found = NULL;
    hunt->listed = NULL;
    hunt->found_count = hunt->listed_count = 0;
}

// ------------------------------------------------------------------- /proc

// Writes "/proc/PID/NAME".
static void
make_path(char *path, int32_t pid, const char *name)
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

static int
open_of(int32_t pid, const char *name)
{
    char path[PATH_SIZE];

    make_path(path, pid, name);
    return open(path, O_RDONLY | O_CLOEXEC);
}

static ssize_t
read_once(int fd, char *buffer, size_t size)
{
    ssize_t n;

    do {
        n = read(fd, buffer, size);
    } while (n < 0 && errno == EINTR);
    return n;
}

static uint64_t
parse(const char *text)
{
    uint64_t number = 0;

    while (*text >= '0' && *text <= '9') {
        number = number * 10 + (uint64_t) (*text++ - '0');
    }
    return number;
}

// Reads parent and start time; false for what has ended and what is the
// kernel's own.
static bool
list_one(int32_t pid, procset__listed *ret_listed)
{
    char text[1024];
    int fd = open_of(pid, "stat");
    ssize_t size;
    char *at;
    uint64_t fields[20] = {0};
    char state;

    if (fd < 0) {
        return false;
    }
    size = read_once(fd, text, sizeof(text) - 1);
    (void) close(fd);
    if (size <= 0) {
        return false;
    }
    text[size] = '\0';
    at = memrchr(text, ')', (size_t) size);
    if (at == NULL || at[1] == '\0') {
        return false;
    }
    state = at[2];
    at += 2;
    for (size_t i = 0; i < 20 && at != NULL; i++) {
        fields[i] = parse(at);
        at = strchr(at, ' ');
        at = at == NULL ? NULL : at + 1;
    }
    *ret_listed = (procset__listed) {
        .pid = pid,
        .parent = (int32_t) fields[1],
        .start = fields[19],
    };
    return state != 'Z' && state != 'X' && !(fields[6] & FLAG_KERNEL_THREAD);
}

// ------------------------------------------------------------------- marks

// Opens a file that nobody else can open, and whose name has `name` in it.
static int
open_named(const char *name)
{
    char path[MAX_MARK + 16];
    long fd = syscall(SYS_memfd_create, name, MFD_CLOEXEC_LINUX);

    if (fd < 0) {
        // Linux 3.17; a sandbox may refuse it.
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

static bool
is_wanted(const procset__hunt *hunt, size_t rank)
{
    if (hunt->board != NULL) {
        return rank < hunt->world_size && hunt->board[rank] == 0;
    }
    for (size_t i = 0; i < hunt->rank_count; i++) {
        if (hunt->ranks[i] == rank) {
            return true;
        }
    }
    return false;
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
            size_t rank = (size_t) parse(at + 1);
            const char *after = at + 1 + strspn(at + 1, "0123456789");

            if ((after < end || last) && is_wanted(hunt, rank)) {
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
    int fd = open_of(pid, name);
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

        n = read_once(fd, text + kept, PIECE);
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
    char path[PATH_SIZE];
    char ours[1024], theirs[1024];
    ssize_t own = readlink("/proc/self/exe", ours, sizeof(ours));
    ssize_t other;

    make_path(path, pid, "exe");
    other = readlink(path, theirs, sizeof(theirs));
    return own > 0 && own == other && memcmp(ours, theirs, (size_t) own) == 0;
}

static bool
has_mark(procset__hunt *hunt, int32_t pid, size_t *ret_rank)
{
    bool empty;

    if (file_has_mark(hunt, pid, "environ", ret_rank, &empty)) {
        return true;
    }
    hunt->unsettled = hunt->unsettled || empty;
    return runs_our_program(pid)
           && file_has_mark(hunt, pid, "maps", ret_rank, &empty);
}

// ------------------------------------------------------------------- found

static bool
is_found(const procset__hunt *hunt, const procset__listed *listed)
{
    for (size_t i = 0; i < hunt->found_count; i++) {
        if (hunt->found[i].pid == listed->pid
            && hunt->found[i].start == listed->start) {
            return true;
        }
    }
    return false;
}

// Adds a process, unless it has become another one meanwhile. What has told
// that it is a descendant must be looked at again when the handle is open:
// hence the start time.
static bool
add(procset__hunt *hunt, const procset__listed *listed, size_t rank)
{
    procset__quarry quarry = {
        .pid = listed->pid,
        .start = listed->start,
        .handle = PROCSET_HANDLE_INVALID,
        .rank = rank,
    };
    procset__listed now;

    if (listed->pid == hunt->self || hunt->found_count == MOST_FOUND
        || is_found(hunt, listed)) {
        return false;
    }
    if (hunt->has_handles) {
        long fd = syscall(SYS_pidfd_open, listed->pid, 0);

        if (fd >= 0) {
            quarry.handle = (procset_handle) fd;
        }
    }
    if (!list_one(listed->pid, &now) || now.start != listed->start) {
        (void) procset__handle_close(quarry.handle);
        return false;
    }
    hunt->found[hunt->found_count++] = quarry;
    return true;
}

static void
add_if_marked(procset__hunt *hunt, const procset__listed *listed)
{
    size_t rank;

    if ((hunt->rank_count > 0 || hunt->board != NULL)
        && listed->pid != hunt->self && !is_found(hunt, listed)
        && has_mark(hunt, listed->pid, &rank)) {
        (void) add(hunt, listed, rank);
    }
}

// One entry of a folder as the kernel writes it; see getdents64(2).
typedef struct {
    uint64_t inode;
    int64_t offset;
    unsigned short size;
    unsigned char type;
    char name[];
} entry64;

int
procset__hunt_snapshot(procset__hunt *hunt)
{
    char buffer[PIECE] __attribute__((aligned(8)));
    int r = 0;
    long size;
    int folder;

    hunt->listed_count = 0;
    hunt->unsettled = false;
    let_go_of_spares(hunt);
    folder = open("/proc", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    if (folder < 0) {
        r = procset__error_last(PROCSET__CALL_OPEN);
        take_spares(hunt);
        return r;
    }
    while ((size = syscall(SYS_getdents64, folder, buffer, sizeof(buffer)))
           > 0) {
        for (long at = 0; at < size;) {
            const entry64 *entry = (const entry64 *) (buffer + at);
            int32_t pid = (int32_t) parse(entry->name);

            at += entry->size;
            if (pid > 0 && hunt->listed_count < MOST_LISTED
                && list_one(pid, &hunt->listed[hunt->listed_count])) {
                // At once: a moment later it may have left its work to a
                // child and be gone.
                add_if_marked(hunt, &hunt->listed[hunt->listed_count]);
                hunt->listed_count++;
            }
        }
    }
    if (size < 0) {
        r = procset__error_last(PROCSET__CALL_GETDENTS64);
    }
    (void) close(folder);
    take_spares(hunt);
    return r;
}

void
procset__hunt_add(procset__hunt *hunt, int64_t pid, size_t rank)
{
    procset__listed listed;

    if (list_one((int32_t) pid, &listed)) {
        (void) add(hunt, &listed, rank);
    }
}

void
procset__hunt_follow(procset__hunt *hunt, int64_t pid, size_t rank)
{
    // Children of what is found are looked for in turn.
    size_t next = hunt->found_count;
    int64_t parent = pid;

    for (;;) {
        for (size_t i = 0; i < hunt->listed_count; i++) {
            if (hunt->listed[i].parent == parent) {
                (void) add(hunt, &hunt->listed[i], rank);
            }
        }
        if (next == hunt->found_count) {
            return;
        }
        parent = hunt->found[next++].pid;
    }
}

void
procset__hunt_extend(procset__hunt *hunt)
{
    size_t known = hunt->found_count;

    for (size_t i = 0; i < known; i++) {
        if (is_wanted(hunt, hunt->found[i].rank)) {
            procset__hunt_follow(hunt, hunt->found[i].pid,
                                 hunt->found[i].rank);
        }
    }
}

// --------------------------------------------------------------------- end

static bool
is_alive(const procset__quarry *quarry)
{
    procset__listed now;

    return list_one(quarry->pid, &now) && now.start == quarry->start;
}

static void
kill_one(procset__quarry *quarry)
{
    long r;

    if (quarry->handle != PROCSET_HANDLE_INVALID) {
        r = syscall(SYS_pidfd_send_signal, (int) quarry->handle, SIGKILL, NULL,
                    0);
    }
    else {
        r = is_alive(quarry) ? kill(quarry->pid, SIGKILL) : 0;
    }
    // ESRCH is what it is all about; anything else is told as "left".
    quarry->refused = r < 0 && errno != ESRCH;
}

// Waits until a process is gone; false at the deadline. Fails when a signal
// handler ran.
static int
wait_for(const procset__quarry *quarry, int64_t deadline, bool *ret_gone)
{
    struct pollfd entry = {.fd = (int) quarry->handle, .events = POLLIN};
    nfds_t count = quarry->handle == PROCSET_HANDLE_INVALID ? 0 : 1;
    int64_t left;
    int r = 0;

    *ret_gone = false;
    for (;;) {
        if (!is_alive(quarry)) {
            *ret_gone = true;
            return 0;
        }
        left = procset__remaining(deadline);
        if (left == 0) {
            return 0;
        }
        // A zombie's handle is readable, so this never spins: it is not alive.
        if (count == 0 && left > LOOK_AGAIN_NS) {
            left = LOOK_AGAIN_NS;
        }
        r = ppoll(&entry, count,
                  &(struct timespec) {.tv_sec = left / 1000000000,
                                      .tv_nsec = left % 1000000000},
                  NULL);
        if (r < 0) {
            return procset__error_last(PROCSET__CALL_PPOLL);
        }
    }
}

int
procset__hunt_kill(procset__hunt *hunt, int64_t deadline)
{
    size_t kept = 0;
    int r = 0;

    for (size_t i = 0; i < hunt->found_count; i++) {
        if (is_wanted(hunt, hunt->found[i].rank)) {
            kill_one(&hunt->found[i]);
        }
    }
    for (size_t i = 0; i < hunt->found_count; i++) {
        procset__quarry quarry = hunt->found[i];
        bool gone = false;

        if (r == 0 && is_wanted(hunt, quarry.rank)) {
            r = quarry.refused ? 0 : wait_for(&quarry, deadline, &gone);
        }
        if (gone) {
            (void) procset__handle_close(quarry.handle);
        }
        else {
            hunt->found[kept++] = quarry;
        }
    }
    hunt->found_count = kept;
    return r;
}

size_t
procset__hunt_left(const procset__hunt *hunt, int64_t *ret_pid)
{
    size_t count = 0;

    for (size_t i = 0; i < hunt->found_count; i++) {
        if (is_wanted(hunt, hunt->found[i].rank)) {
            *ret_pid = hunt->found[i].pid;
            count++;
        }
    }
    return count;
}

int
procset__hunt_down(procset__hunt *hunt, int64_t deadline)
{
    int unsettled = 0;
    int64_t pid;
    int r;

    for (;;) {
        size_t left;

        // What is known is ended first: it is what makes more.
        r = procset__hunt_kill(hunt, deadline);
        if (r < 0) {
            return r;
        }
        left = procset__hunt_left(hunt, &pid);
        r = procset__hunt_snapshot(hunt);
        if (r < 0) {
            return r;
        }
        procset__hunt_extend(hunt);
        if (procset__hunt_left(hunt, &pid) == 0) {
            if (!hunt->unsettled || ++unsettled > MOST_UNSETTLED) {
                return 0;
            }
            // A process becomes a program in less than this; nobody tells.
            (void) poll(NULL, 0, 1);
        }
        else if (procset__remaining(deadline) == 0
                 || procset__hunt_left(hunt, &pid) == left) {
            // What is left cannot be ended, and nothing new has come up.
            return 0;
        }
    }
}
