// Facts about Linux that this file relies on: a pidfd becomes readable when
// its process ends, whoever the parent is.

#define _GNU_SOURCE

#include "hunt.h"

#include "board.h"
#include "clock.h"
#include "error.h"
#include "handle.h"
#include "mark.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

// More than any limit on pids that is in use on one host; a host with more
// processes is hunted through in parts.
#define MOST_LISTED ((size_t) 1 << 20)
#define MOST_FOUND ((size_t) 1 << 14)
#define PIECE 8192
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

// ------------------------------------------------------------------- found

bool
procset__hunt_wants(const procset__hunt *hunt, size_t rank)
{
    if (hunt->board != NULL) {
        return rank < hunt->world_size
               && procset__board_has(hunt->board, rank, hunt->ranks[0]);
    }
    for (size_t i = 0; i < hunt->rank_count; i++) {
        if (hunt->ranks[i] == rank) {
            return true;
        }
    }
    return false;
}

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
        (void) procset_handle_open(listed->pid, &quarry.handle);
    }
    if (procset__listing_one(listed->pid, &now) != PROCSET__LIVES
        || now.start != listed->start) {
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
        && procset__mark_find(hunt, listed->pid, &rank)) {
        (void) add(hunt, listed, rank);
    }
}

// Looks at a process that was listed a moment ago. One that has ended since
// then may have left a child that was not.
static void
look_at(procset__hunt *hunt, int32_t pid, uint64_t *dead)
{
    procset__listed *listed = &hunt->listed[hunt->listed_count];

    switch (procset__listing_one(pid, listed)) {
    case PROCSET__LIVES:
        // At once: a moment later it may have left its work to a child and be
        // gone.
        add_if_marked(hunt, listed);
        hunt->listed_count++;
        break;
    case PROCSET__IS_DEAD:
        // Those that were there before are no news.
        *dead += (listed->start << 32) ^ (uint64_t) pid;
        break;
    case PROCSET__IS_GONE:
        hunt->unsettled = true;
        break;
    case PROCSET__IS_NONE_OF_OURS:
        break;
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
    uint64_t dead = 0;
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
            int32_t pid = (int32_t) procset__listing_number(entry->name);

            at += entry->size;
            if (pid > 0 && hunt->listed_count < MOST_LISTED) {
                look_at(hunt, pid, &dead);
            }
        }
    }
    hunt->unsettled = hunt->unsettled || dead != hunt->dead;
    hunt->dead = dead;
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

    if (procset__listing_one((int32_t) pid, &listed) == PROCSET__LIVES) {
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
        if (procset__hunt_wants(hunt, hunt->found[i].rank)) {
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

    return procset__listing_one(quarry->pid, &now) == PROCSET__LIVES
           && now.start == quarry->start;
}

static void
kill_one(procset__quarry *quarry)
{
    int r;

    if (quarry->handle != PROCSET_HANDLE_INVALID) {
        r = procset_handle_signal(quarry->handle, SIGKILL);
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
        if (procset__hunt_wants(hunt, hunt->found[i].rank)) {
            kill_one(&hunt->found[i]);
        }
    }
    for (size_t i = 0; i < hunt->found_count; i++) {
        procset__quarry quarry = hunt->found[i];
        bool gone = false;

        if (r == 0 && procset__hunt_wants(hunt, quarry.rank)) {
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
        if (procset__hunt_wants(hunt, hunt->found[i].rank)) {
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
