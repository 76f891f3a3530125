// A wait for any number of handles on Windows: the system's thread pool waits
// and posts what it sees to a completion port, where the waiting thread
// sleeps.
//
// Facts about completion ports that this file relies on:
//
// - GetQueuedCompletionStatusEx() counts in ticks of the system's timer (1 ms
//   to 15.6 ms) and may return early by a part of one.
// - A port is signalled while something is queued at it. Microsoft does not
//   say so.

#include "poller.h"

#include "clock.h"
#include "error.h"
#include "source.h"
#include "windows_api.h"

#include <stdlib.h>

struct procset__poller_state {
    // Guards the table.
    SRWLOCK lock;
    // What is queued at the port names a place in this table. Places are not
    // used again, so what is still queued for a source that was removed names
    // nothing.
    procset__source **sources;
    size_t count;
    size_t capacity;
};

// ---------------------------------------------------------------- the table

unsigned
procset__poller_probe(void)
{
    return 0;
}

int
procset__poller_open(unsigned features, procset__poller *ret_poller)
{
    struct procset__poller_state *state = calloc(1, sizeof(*state));
    HANDLE port;
    int r;

    if (state == NULL) {
        return procset__error_no_memory();
    }
    port = CreateIoCompletionPort(INVALID_HANDLE_VALUE, NULL, 0, 1);
    if (port == NULL) {
        r = procset__error_last(PROCSET__CALL_CREATE_IO_COMPLETION_PORT);
        free(state);
        return r;
    }
    InitializeSRWLock(&state->lock);
    *ret_poller = (procset__poller) {
        .handle = procset__from_native(port),
        .features = features,
        .state = state,
    };
    return 0;
}

void
procset__poller_done(procset__poller *poller)
{
    struct procset__poller_state *state = poller->state;

    if (state == NULL) {
        return;
    }
    for (size_t i = 0; i < state->count; i++) {
        (void) procset__source_free(state->sources[i]);
    }
    (void) CloseHandle(procset__to_native(poller->handle));
    free(state->sources);
    free(state);
    poller->handle = PROCSET_HANDLE_INVALID;
    poller->state = NULL;
}

void
procset__poller_abandon(procset__poller *poller)
{
    procset__poller_done(poller);
}

// Makes a place for one more source.
static int
reserve_place(struct procset__poller_state *state)
{
    size_t capacity = state->capacity == 0 ? 16 : state->capacity * 2;
    procset__source **sources;

    if (state->count < state->capacity) {
        return 0;
    }
    sources = realloc(state->sources, capacity * sizeof(*sources));
    if (sources == NULL) {
        return procset__error_no_memory();
    }
    state->sources = sources;
    state->capacity = capacity;
    return 0;
}

static int
add_source(procset__poller *poller, procset_handle handle, bool is_pipe,
           uint64_t token)
{
    struct procset__poller_state *state = poller->state;
    procset__source *source = NULL;
    int r;

    AcquireSRWLockExclusive(&state->lock);
    r = reserve_place(state);
    if (r == 0) {
        r = procset__source_new(poller->handle, state->count, token, handle,
                                is_pipe, &source);
    }
    if (r == 0) {
        state->sources[state->count++] = source;
        r = procset__source_watch(source);
        if (r < 0) {
            state->sources[state->count - 1] = NULL;
        }
    }
    ReleaseSRWLockExclusive(&state->lock);
    if (r < 0) {
        (void) procset__source_free(source);
    }
    return r;
}

static int
remove_source(procset__poller *poller, procset_handle handle, bool is_pipe)
{
    struct procset__poller_state *state = poller->state;
    procset__source *found = NULL;

    AcquireSRWLockExclusive(&state->lock);
    for (size_t i = 0; i < state->count && found == NULL; i++) {
        if (state->sources[i] != NULL
            && procset__source_is(state->sources[i], handle, is_pipe)) {
            found = state->sources[i];
            state->sources[i] = NULL;
        }
    }
    ReleaseSRWLockExclusive(&state->lock);
    if (found == NULL) {
        return procset__error(PROCSET__CALL_UNREGISTER_WAIT,
                              ERROR_INVALID_HANDLE);
    }
    return procset__source_free(found);
}

int
procset__poller_add(procset__poller *poller, procset_handle handle,
                    uint64_t token)
{
    return add_source(poller, handle, true, token);
}

int
procset__poller_remove(procset__poller *poller, procset_handle handle)
{
    return remove_source(poller, handle, true);
}

static procset_handle
end_handle(const procset__proc *proc)
{
    return proc->sentinel != PROCSET_HANDLE_INVALID ? proc->sentinel
                                                    : proc->handle;
}

int
procset__poller_add_end(procset__poller *poller, const procset__proc *proc,
                        uint64_t token, bool *ret_added)
{
    int r = add_source(poller, end_handle(proc), false, token);

    if (r == 0) {
        *ret_added = true;
    }
    return r;
}

int
procset__poller_remove_end(procset__poller *poller, const procset__proc *proc)
{
    return remove_source(poller, end_handle(proc), false);
}

// ------------------------------------------------------------------ waiting

// What one wait has found.
typedef struct {
    uint64_t *tokens;
    uint64_t ends[PROCSET__POLLER_BATCH]; // PROCSET__NO_END for pipes
    size_t count;
} findings;

// Several threads of the pool queue ends in whatever order they get to run, so
// the ends are put in order here, among themselves.
static void
push(findings *found, uint64_t token, uint64_t end)
{
    size_t at = found->count++;

    for (size_t i = at; end != PROCSET__NO_END && i-- > 0;) {
        if (found->ends[i] == PROCSET__NO_END) {
            continue;
        }
        if (found->ends[i] <= end) {
            break;
        }
        found->tokens[at] = found->tokens[i];
        found->ends[at] = found->ends[i];
        at = i;
    }
    found->tokens[at] = token;
    found->ends[at] = end;
}

static int
take(struct procset__poller_state *state, size_t key, findings *found)
{
    procset__source *source = key < state->count ? state->sources[key] : NULL;
    bool ready = false;
    uint64_t end;
    int r;

    if (source == NULL) {
        return 0;
    }
    r = procset__source_take(source, &ready, &end);
    if (ready) {
        push(found, procset__source_token(source), end);
    }
    return r;
}

// Returns the first error, when there is nothing else to tell: an end is told
// by the system once, so it must not be lost with an error.
static int
take_all(struct procset__poller_state *state, const OVERLAPPED_ENTRY *entries,
         size_t count, findings *found)
{
    int first = 0;
    int r;

    AcquireSRWLockExclusive(&state->lock);
    for (size_t i = 0; i < count; i++) {
        r = take(state, (size_t) entries[i].lpCompletionKey, found);
        first = first < 0 ? first : r;
    }
    ReleaseSRWLockExclusive(&state->lock);
    return found->count > 0 ? 0 : first;
}

static DWORD
to_milliseconds(int64_t ns)
{
    const int64_t most = INFINITE - 1;
    int64_t ms = ns / 1000000 + (ns % 1000000 != 0);

    if (ns == PROCSET_NEVER) {
        return INFINITE;
    }
    return (DWORD) (ms < most ? ms : most);
}

int
procset__poller_wait(procset__poller *poller, int64_t deadline,
                     uint64_t *tokens, size_t capacity, size_t *ret_count)
{
    OVERLAPPED_ENTRY entries[PROCSET__POLLER_BATCH];
    ULONG limit = capacity < PROCSET__POLLER_BATCH ? (ULONG) capacity
                                                   : PROCSET__POLLER_BATCH;
    findings found;
    int r;

    found.tokens = tokens;
    found.count = 0;
    while (found.count == 0) {
        int64_t left = procset__remaining(deadline);
        ULONG count = 0;

        if (!GetQueuedCompletionStatusEx(procset__to_native(poller->handle),
                                         entries, limit, &count,
                                         to_milliseconds(left), FALSE)) {
            if (GetLastError() != WAIT_TIMEOUT) {
                return procset__error_last(
                    PROCSET__CALL_GET_QUEUED_COMPLETION_STATUS);
            }
            if (left == 0) {
                break;
            }
            count = 0;
        }
        r = take_all(poller->state, entries, count, &found);
        if (r < 0) {
            return r;
        }
    }
    *ret_count = found.count;
    return 0;
}
