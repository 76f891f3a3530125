#define _GNU_SOURCE

#include "watch.h"

#include "error.h"
#include "mutex.h"
#include "pipe.h"
#include "proc.h"
#include "thread.h"

#include <stdlib.h>

// One watched child. It is in nobody's list while its thread waits, and in
// the list of ended ones after that.
typedef struct watcher {
    procset__watch *watch;
    struct watcher *next;
    int64_t pid;
    size_t index;
} watcher;

struct procset__watch {
    procset__mutex *mutex;
    // The set, and one for each thread.
    size_t references;
    // PROCSET_HANDLE_INVALID after the set has let go.
    procset_handle wake;
    watcher *first;
    watcher **last;
};

int
procset__watch_new(procset_handle wake, procset__watch **ret_watch)
{
    procset__watch *watch = calloc(1, sizeof(*watch));
    int r;

    if (watch == NULL) {
        return procset__error_no_memory();
    }
    r = procset__mutex_new(&watch->mutex);
    if (r < 0) {
        free(watch);
        return r;
    }
    watch->references = 1;
    watch->wake = wake;
    watch->last = &watch->first;
    *ret_watch = watch;
    return 0;
}

static void
drop_reference(procset__watch *watch)
{
    size_t references;
    watcher *ended;

    procset__mutex_lock(watch->mutex);
    references = --watch->references;
    procset__mutex_unlock(watch->mutex);
    if (references > 0) {
        return;
    }
    while (watch->first != NULL) {
        ended = watch->first;
        watch->first = ended->next;
        free(ended);
    }
    (void) procset__mutex_free(watch->mutex);
    free(watch);
}

procset__watch *
procset__watch_free(procset__watch *watch)
{
    if (watch != NULL) {
        procset__mutex_lock(watch->mutex);
        watch->wake = PROCSET_HANDLE_INVALID;
        procset__mutex_unlock(watch->mutex);
        drop_reference(watch);
    }
    return NULL;
}

static void *
watch_child(void *argument)
{
    watcher *self = argument;
    procset__watch *watch = self->watch;

    // Nobody could act on a failure here: the set looks at the child itself
    // when it is rung, and says what is wrong.
    (void) procset__proc_block(self->pid);
    procset__mutex_lock(watch->mutex);
    *watch->last = self;
    watch->last = &self->next;
    if (watch->wake != PROCSET_HANDLE_INVALID) {
        (void) procset__pipe_ring(watch->wake);
    }
    procset__mutex_unlock(watch->mutex);
    drop_reference(watch);
    return NULL;
}

int
procset__watch_start(procset__watch *watch, int64_t pid, size_t index)
{
    watcher *self = calloc(1, sizeof(*self));
    int r;

    if (self == NULL) {
        return procset__error_no_memory();
    }
    *self = (watcher) {.watch = watch, .pid = pid, .index = index};
    procset__mutex_lock(watch->mutex);
    watch->references++;
    procset__mutex_unlock(watch->mutex);
    r = procset__thread_start(watch_child, self);
    if (r < 0) {
        free(self);
        drop_reference(watch);
    }
    return r;
}

bool
procset__watch_next(procset__watch *watch, size_t *ret_index)
{
    watcher *ended;

    procset__mutex_lock(watch->mutex);
    ended = watch->first;
    if (ended != NULL) {
        watch->first = ended->next;
        if (watch->first == NULL) {
            watch->last = &watch->first;
        }
    }
    procset__mutex_unlock(watch->mutex);
    if (ended == NULL) {
        return false;
    }
    *ret_index = ended->index;
    free(ended);
    return true;
}
