#include "set.h"

// The events that one procset_wait() is filling in.
typedef struct {
    procset_event *events;
    size_t capacity;
    size_t count;
} event_list;

static bool
is_full(const event_list *list)
{
    return list->count == list->capacity;
}

static void
push(event_list *list, procset_event event)
{
    list->events[list->count++] = event;
}

// Has the poller forget what told of a process's end.
static int
unpoll(procset *set, procset__entry *entry)
{
    if (!entry->polled) {
        return 0;
    }
    entry->polled = false;
    return procset__poller_remove_end(&set->poller, &entry->proc);
}

// Collects a member that is said to have ended, and tells it if it has.
static int
collect(procset *set, size_t index, event_list *list)
{
    procset__entry *entry = &set->entries[index];
    const procset_status *status;
    int r;

    if (entry->told) {
        return 0;
    }
    r = procset__proc_collect(&entry->proc);
    if (r < 0) {
        return r;
    }
    status = &entry->proc.status;
    if (status->state == PROCSET_RUNNING) {
        // Ended, but a debugger that traces it still holds the status back.
        // A readable handle would spin; a thread blocks until it is let go.
        r = unpoll(set, entry);
        return r < 0
                   ? r
                   : procset__watch_start(set->watch, entry->proc.pid, index);
    }
    entry->told = true;
    entry->next_ended = set->first_ended;
    set->first_ended = index;
    push(list, (procset_event) {.type = PROCSET_EVENT_ENDED,
                                .index = index,
                                .state = status->state,
                                .code = status->code});
    return 0;
}

// Lets go of what members that have been told still hold.
static int
release_ended(procset *set)
{
    procset__entry *entry;
    int r = 0;

    while (r == 0 && set->first_ended != PROCSET__NO_ENTRY) {
        entry = &set->entries[set->first_ended];
        set->first_ended = entry->next_ended;
        r = unpoll(set, entry);
        procset__proc_done(&entry->proc);
    }
    return r;
}

// The same. Where that fails it is done again by the next call: what has told
// of the end may do so once only.
static int
collect_or_postpone(procset *set, size_t index, event_list *list)
{
    procset__entry *entry = &set->entries[index];
    int r = collect(set, index, list);

    if (entry->due != (r < 0)) {
        entry->due = r < 0;
        set->due_count = entry->due ? set->due_count + 1 : set->due_count - 1;
    }
    return r;
}

// Members whose end the poller does not tell: those watched by a thread, and
// those that are due. Returns the first error.
static int
collect_rung(procset *set, event_list *list)
{
    size_t index;
    int first = 0;
    int r;

    while (!is_full(list) && procset__watch_next(set->watch, &index)) {
        r = collect_or_postpone(set, index, list);
        first = first < 0 ? first : r;
    }
    for (size_t i = 0; set->due_count > 0 && i < set->count && !is_full(list);
         i++) {
        if (set->entries[i].due) {
            r = collect_or_postpone(set, i, list);
            first = first < 0 ? first : r;
        }
    }
    return first;
}

// What a byte in the wake pipe may stand for: ends, and procset_wake().
static int
handle_wake(procset *set, event_list *list)
{
    int r;

    r = procset__pipe_drain(set->wake.read);
    if (r < 0) {
        return r;
    }
    r = collect_rung(set, list);
    if (r < 0) {
        return r;
    }
    if (is_full(list)) {
        // What does not fit comes with the next call.
        return procset__pipe_ring(set->wake.write);
    }
    push(list, (procset_event) {.type = PROCSET_EVENT_WOKEN});
    return 0;
}

static int
handle_token(procset *set, uint64_t token, event_list *list)
{
    size_t index = (size_t) (token >> PROCSET__TOKEN_BITS);

    switch ((procset__token) (token & PROCSET__TOKEN_TYPES)) {
    case PROCSET__TOKEN_WAKE:
        // After all others, which have their places in the list already.
        return 0;
    case PROCSET__TOKEN_END:
        return collect_or_postpone(set, index, list);
    case PROCSET__TOKEN_REPORT:
        // Forgotten between the poller's answer and now: nobody's event.
        if (set->entries[index].report != PROCSET_HANDLE_INVALID) {
            push(list, (procset_event) {.type = PROCSET_EVENT_READABLE,
                                        .index = index});
        }
        return 0;
    }
    return 0;
}

// Turns tokens into events; returns the first error.
static int
handle_tokens(procset *set, const uint64_t *tokens, size_t count,
              event_list *list)
{
    bool rung = false;
    int first = 0;
    int r;

    for (size_t i = 0; i < count; i++) {
        rung = rung || tokens[i] == procset__to_token(PROCSET__TOKEN_WAKE, 0);
        r = handle_token(set, tokens[i], list);
        first = first < 0 ? first : r;
    }
    if (rung) {
        r = handle_wake(set, list);
        first = first < 0 ? first : r;
    }
    return first;
}

int
procset_wait(procset *set, int64_t deadline, procset_event *events,
             size_t capacity, size_t *ret_count)
{
    event_list list = {.events = events, .capacity = capacity};
    uint64_t tokens[PROCSET__POLLER_BATCH];
    size_t count;
    int r;

    procset__mutex_lock(set->mutex);
    r = release_ended(set);
    procset__mutex_unlock(set->mutex);
    if (r < 0) {
        return r;
    }
    r = procset__poller_wait(
        &set->poller, deadline, tokens,
        capacity < PROCSET__POLLER_BATCH ? capacity : PROCSET__POLLER_BATCH,
        &count);
    if (r < 0) {
        return r;
    }
    procset__mutex_lock(set->mutex);
    r = handle_tokens(set, tokens, count, &list);
    if (r < 0) {
        (void) procset__pipe_ring(set->wake.write);
    }
    procset__mutex_unlock(set->mutex);
    if (r < 0 && list.count == 0) {
        return r;
    }
    // Events are not lost with an error; it comes again if it is there to
    // stay.
    *ret_count = list.count;
    return 0;
}
