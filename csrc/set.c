#include "set.h"

#include "error.h"
#include "guard.h"
#include "hunt.h"
#include "launch.h"

#include <stdlib.h>

unsigned
procset_probe(void)
{
    unsigned features = procset__launch_probe() | procset__poller_probe();

    if (procset__proc_has_handles()) {
        features |= PROCSET_FEATURE_PIDFD;
    }
    if (procset__hunt_works()) {
        features |= PROCSET_FEATURE_TREE;
    }
    if (procset__guard_works()) {
        features |= PROCSET_FEATURE_GUARD;
    }
    return features;
}

int
procset_open(unsigned features, procset **ret_set)
{
    procset *set = calloc(1, sizeof(*set));
    int r;

    if (set == NULL) {
        return procset__error_no_memory();
    }
    set->features = features;
    set->first_ended = PROCSET__NO_ENTRY;
    set->poller.handle = PROCSET_HANDLE_INVALID;
    set->wake = PROCSET__PIPE_INVALID;
    r = procset__mutex_new(&set->mutex);
    if (r < 0) {
        goto finish;
    }
    r = procset__poller_open(features, &set->poller);
    if (r < 0) {
        goto finish;
    }
    r = procset__pipe_open(&set->wake);
    if (r < 0) {
        goto finish;
    }
    r = procset__watch_new(set->wake.write, &set->watch);
    if (r < 0) {
        goto finish;
    }
    r = procset__poller_add(&set->poller, set->wake.read,
                            procset__to_token(PROCSET__TOKEN_WAKE, 0));
    if (r < 0) {
        goto finish;
    }
    *ret_set = set;
    set = NULL;

finish:
    (void) procset_close(set);
    return r;
}

// Closes the descriptors of the set but for the poller's, and frees its table.
static void
drop_contents(procset *set)
{
    for (size_t i = 0; i < set->count; i++) {
        procset__proc_done(&set->entries[i].proc);
    }
    set->wake = procset__pipe_close(set->wake);
    free(set->entries);
    free(set);
}

procset *
procset_close(procset *set)
{
    if (set != NULL) {
        // First: a watching thread may ring until it has been let go.
        set->watch = procset__watch_free(set->watch);
        set->mutex = procset__mutex_free(set->mutex);
        procset__poller_done(&set->poller);
        drop_contents(set);
    }
    return NULL;
}

procset *
procset_abandon(procset *set)
{
    if (set != NULL) {
        // The mutexes may be held by a thread that the fork left behind; the
        // few bytes of them and of the watchers are lost.
        procset__poller_abandon(&set->poller);
        drop_contents(set);
    }
    return NULL;
}

static int
reserve_entry(procset *set)
{
    size_t capacity = set->capacity == 0 ? 8 : set->capacity * 2;
    procset__entry *entries;

    if (set->count < set->capacity) {
        return 0;
    }
    entries = realloc(set->entries, capacity * sizeof(*entries));
    if (entries == NULL) {
        return procset__error_no_memory();
    }
    set->entries = entries;
    set->capacity = capacity;
    return 0;
}

// Whether the poller has been told to announce another end of the same pid. A
// system without handles tells by the pid, and tells one only.
static bool
has_twin(const procset *set, const procset__proc *proc)
{
    if (proc->handle != PROCSET_HANDLE_INVALID
        || proc->sentinel != PROCSET_HANDLE_INVALID) {
        return false;
    }
    for (size_t i = 0; i < set->count; i++) {
        if (set->entries[i].polled && !set->entries[i].told
            && set->entries[i].proc.pid == proc->pid) {
            return true;
        }
    }
    return false;
}

// Has the end of an entry's process announced: by the poller, by a thread, or
// at once.
static int
watch_end(procset *set, procset__entry *entry, size_t index)
{
    int r = 0;

    if (entry->proc.status.state != PROCSET_RUNNING) {
        r = procset__pipe_ring(set->wake.write);
        if (r == 0) {
            entry->due = true;
            set->due_count++;
        }
        return r;
    }
    if (!has_twin(set, &entry->proc)) {
        r = procset__poller_add_end(
            &set->poller, &entry->proc,
            procset__to_token(PROCSET__TOKEN_END, index), &entry->polled);
    }
    if (r < 0 || entry->polled) {
        return r;
    }
    return procset__watch_start(set->watch, entry->proc.pid, index);
}

static int
add_locked(procset *set, const procset_member *member, size_t *ret_index)
{
    bool want_handle = (set->features & PROCSET_FEATURE_PIDFD) != 0;
    procset__entry entry = {
        .proc = {.pid = member->pid,
                 .handle = PROCSET_HANDLE_INVALID,
                 .sentinel = PROCSET_HANDLE_INVALID,
                 .job = PROCSET_HANDLE_INVALID},
        .report = PROCSET_HANDLE_INVALID,
    };
    size_t index = set->count;
    int r;

    r = reserve_entry(set);
    if (r < 0) {
        return r;
    }
    if (member->over) {
        entry.proc.status.state = PROCSET_UNKNOWN;
    }
    else {
        r = procset__proc_open(member->pid, member->sentinel, want_handle,
                               &entry.proc);
        if (r < 0) {
            return r;
        }
    }
    if (member->job != PROCSET_HANDLE_INVALID) {
        r = procset__handle_dup(member->job, &entry.proc.job);
        if (r < 0) {
            goto finish;
        }
    }
    if (member->report != PROCSET_HANDLE_INVALID) {
        r = procset__poller_add(
            &set->poller, member->report,
            procset__to_token(PROCSET__TOKEN_REPORT, index));
        if (r < 0) {
            goto finish;
        }
        entry.report = member->report;
    }
    r = watch_end(set, &entry, index);
    if (r < 0) {
        goto finish;
    }
    set->entries[index] = entry;
    set->count++;
    *ret_index = index;
    return 0;

finish:
    if (entry.report != PROCSET_HANDLE_INVALID) {
        (void) procset__poller_remove(&set->poller, entry.report);
    }
    procset__proc_done(&entry.proc);
    return r;
}

int
procset_add(procset *set, const procset_member *member, size_t *ret_index)
{
    int r;

    if (member->pid <= 0 || member->pid > INT32_MAX) {
        return procset__error_invalid(PROCSET__CALL_ADD);
    }
    procset__mutex_lock(set->mutex);
    r = add_locked(set, member, ret_index);
    procset__mutex_unlock(set->mutex);
    return r;
}

int
procset_wake(procset *set)
{
    return procset__pipe_ring(set->wake.write);
}

procset_handle
procset_wake_handle(const procset *set)
{
    return set->wake.write;
}

procset_handle
procset_wait_handle(const procset *set)
{
    return set->poller.handle;
}

// Locks the set and finds a member's entry. NULL, and nothing is locked, when
// there is none; otherwise the caller unlocks.
static procset__entry *
lock_entry(procset *set, size_t index)
{
    procset__mutex_lock(set->mutex);
    if (index < set->count) {
        return &set->entries[index];
    }
    procset__mutex_unlock(set->mutex);
    return NULL;
}

int
procset_get_status(procset *set, size_t index, procset_status *ret_status)
{
    procset__entry *entry = lock_entry(set, index);

    if (entry == NULL) {
        return procset__error_invalid(PROCSET__CALL_INDEX);
    }
    *ret_status = entry->proc.status;
    procset__mutex_unlock(set->mutex);
    return 0;
}

int
procset_signal(procset *set, size_t index, int signal)
{
    procset__entry *entry = lock_entry(set, index);
    int r;

    if (entry == NULL) {
        return procset__error_invalid(PROCSET__CALL_INDEX);
    }
    r = procset__proc_signal(&entry->proc, signal);
    procset__mutex_unlock(set->mutex);
    return r;
}

int
procset_read(procset *set, size_t index, void *buffer, size_t size,
             size_t *ret_count)
{
    procset__entry *entry = lock_entry(set, index);
    int r = 0;

    if (entry == NULL) {
        return procset__error_invalid(PROCSET__CALL_INDEX);
    }
    if (entry->report == PROCSET_HANDLE_INVALID) {
        *ret_count = 0;
    }
    else {
        r = procset__pipe_read(entry->report, buffer, size, ret_count);
    }
    procset__mutex_unlock(set->mutex);
    return r;
}

int
procset_forget_report(procset *set, size_t index)
{
    procset__entry *entry = lock_entry(set, index);
    int r = 0;

    if (entry == NULL) {
        return procset__error_invalid(PROCSET__CALL_INDEX);
    }
    if (entry->report != PROCSET_HANDLE_INVALID) {
        r = procset__poller_remove(&set->poller, entry->report);
        entry->report = PROCSET_HANDLE_INVALID;
    }
    procset__mutex_unlock(set->mutex);
    return r;
}
