// A thread that waits for the end of the launcher.
//
// Why a thread, and not a signal on the death of the parent (Linux: prctl(2),
// PR_SET_PDEATHSIG): that signal comes when the *thread* ends that has started
// the process, and a rank's parent need not be its launcher.

#define _GNU_SOURCE

#include "guard.h"

#include "error.h"
#include "guard_end.h"
#include "handle.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>

// Enough for the hunt, and for the thread-local storage of everything that a
// process may have loaded; only touched pages cost memory.
#define STACK_SIZE (256 * 1024)

// The thread's argument; the thread frees it never, because it never ends.
typedef struct {
    procset_guard guard;
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

static void
wait_for_launcher(const procset_guard *guard)
{
    struct pollfd entries[2] = {
        // It comes unasked, but macOS looks only at what it is asked for.
        {.fd = (int) guard->pipe, .events = POLLHUP},
        // Negative descriptors are left out.
        {.fd = (int) guard->launcher, .events = POLLIN},
    };

    for (;;) {
        if (poll(entries, 2, -1) < 0) {
            // No signal reaches this thread, but a stop and a continuation of
            // the process interrupt it.
            continue;
        }
        if (is_gone(&entries[0]) || is_gone(&entries[1])) {
            return;
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
    (void) pthread_mutex_lock(&self->mutex);
    self->has_own_table = has_own_table;
    self->ready = true;
    (void) pthread_cond_signal(&self->changed);
    (void) pthread_mutex_unlock(&self->mutex);
    wait_for_launcher(&self->guard);
    procset__guard_end(&self->guard);
}

// Starts a detached thread to which no signal is delivered.
static int
start_thread(guarding *self)
{
    pthread_attr_t attributes;
    sigset_t all, old;
    pthread_t thread;
    int r;

    r = pthread_attr_init(&attributes);
    if (r != 0) {
        return procset__error(PROCSET__CALL_PTHREAD_CREATE, r);
    }
    (void) pthread_attr_setdetachstate(&attributes, PTHREAD_CREATE_DETACHED);
    (void) pthread_attr_setstacksize(&attributes, STACK_SIZE);
    (void) sigfillset(&all);
    (void) pthread_sigmask(SIG_SETMASK, &all, &old);
    r = pthread_create(&thread, &attributes, run_guard, self);
    (void) pthread_sigmask(SIG_SETMASK, &old, NULL);
    (void) pthread_attr_destroy(&attributes);
    return r == 0 ? 0 : procset__error(PROCSET__CALL_PTHREAD_CREATE, r);
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
    (void) pthread_mutex_init(&self->mutex, NULL);
    (void) pthread_cond_init(&self->changed, NULL);
    r = start_thread(self);
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
