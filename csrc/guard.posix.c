// A thread that waits for the end of the launcher.
//
// Why a thread, and not a signal on the death of the parent (Linux: prctl(2),
// PR_SET_PDEATHSIG): that signal comes when the *thread* ends that has started
// the process, and a rank's parent need not be its launcher.

#define _GNU_SOURCE

#include "guard.h"

#include "board.h"
#include "error.h"
#include "guard_end.h"
#include "thread.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

// Where this rank says that it has ended well; NULL without a board.
static struct {
    procset__board_entry *board;
    size_t rank;
} own;

// The thread's argument; the thread frees it never, because it never ends.
typedef struct {
    procset_guard guard;
    procset__board_entry *board;
    pthread_mutex_t mutex;
    pthread_cond_t changed;
    bool ready;
    bool has_own_table;
    char job[];
} guarding;

bool
procset__guard_works(void)
{
    return true;
}

// Whether an answer of poll() means that the launcher is gone.
static bool
is_gone(const struct pollfd *entry)
{
    return (entry->revents & (POLLIN | POLLHUP | POLLERR)) != 0;
}

// Returns whether the launcher is gone; waits for that unless `timeout` is 0.
static bool
wait_for_launcher(const procset_guard *guard, int timeout)
{
    struct pollfd entries[2] = {
        // It comes unasked, but macOS looks only at what it is asked for.
        {.fd = (int) guard->pipe, .events = POLLHUP},
        // Negative descriptors are left out.
        {.fd = (int) guard->launcher, .events = POLLIN},
    };

    for (;;) {
        int count = poll(entries, 2, timeout);

        if (count < 0) {
            // No signal reaches this thread, but a stop and a continuation of
            // the process interrupt it.
            continue;
        }
        if (count == 0) {
            return false;
        }
        if (is_gone(&entries[0]) || is_gone(&entries[1])) {
            return true;
        }
        // The rank has closed a descriptor that it shares with this thread.
        for (size_t i = 0; i < 2; i++) {
            if (entries[i].revents & POLLNVAL) {
                entries[i].fd = -1;
            }
        }
    }
}

static void *
run_guard(void *argument)
{
    guarding *self = argument;
    bool has_own_table =
        procset__guard_own_table(self->guard.pipe, self->guard.launcher);

    procset__guard_continue_at(self->guard.pipe);
    // A rank whose launcher is gone already does not come to its function: it
    // might stop itself there, and nobody would continue it any more.
    if (!wait_for_launcher(&self->guard, 0)) {
        (void) pthread_mutex_lock(&self->mutex);
        self->has_own_table = has_own_table;
        self->ready = true;
        (void) pthread_cond_signal(&self->changed);
        (void) pthread_mutex_unlock(&self->mutex);
        (void) wait_for_launcher(&self->guard, -1);
    }
    procset__guard_end(&self->guard, self->board);
}

// Mapped, because the rank may close what it has inherited.
static int
map_board(const procset_guard *guard, procset__board_entry **ret_board)
{
    void *board;

    if (guard->board == PROCSET_HANDLE_INVALID) {
        *ret_board = NULL;
        return 0;
    }
    board = mmap(NULL, guard->world_size * PROCSET_BOARD_ENTRY_SIZE,
                 PROT_READ | PROT_WRITE, MAP_SHARED, (int) guard->board, 0);
    if (board == MAP_FAILED) {
        return procset__error_last(PROCSET__CALL_MMAP);
    }
    *ret_board = board;
    return 0;
}

void
procset_guard_ended_well(void)
{
    if (own.board != NULL) {
        procset__board_end_well(own.board, own.rank);
    }
}

int
procset_guard_start(const procset_guard *guard, bool *ret_private)
{
    size_t size = strlen(guard->job) + 1;
    guarding *self = calloc(1, sizeof(*self) + size);
    int r;

    if (self == NULL) {
        return procset__error_no_memory();
    }
    self->guard = *guard;
    memcpy(self->job, guard->job, size);
    self->guard.job = self->job;
    r = map_board(guard, &self->board);
    if (r < 0) {
        free(self);
        return r;
    }
    own.board = self->board;
    own.rank = guard->rank;
    (void) pthread_mutex_init(&self->mutex, NULL);
    (void) pthread_cond_init(&self->changed, NULL);
    r = procset__thread_start(run_guard, self);
    if (r < 0) {
        free(self);
        if (procset_error_kind(r) != PROCSET_KIND_REFUSED) {
            return r;
        }
        // A sandbox that has the C library make no threads (clone3 gives EPERM
        // there, which it takes for final).
        *ret_private = false;
        return procset__guard_by_parent(guard->pipe);
    }
    (void) pthread_mutex_lock(&self->mutex);
    while (!self->ready) {
        (void) pthread_cond_wait(&self->changed, &self->mutex);
    }
    (void) pthread_mutex_unlock(&self->mutex);
    *ret_private = self->has_own_table;
    return 0;
}
