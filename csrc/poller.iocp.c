// A wait for any number of handles on Windows: the system's thread pool waits
// and posts what it sees to a completion port, where the waiting thread
// sleeps.
//
// Facts about Windows that this file relies on:
//
// - WaitForMultipleObjects() takes 64 handles. The thread pool has one thread
//   for every 63 of them, and since Windows 8 one for all.
// - A read of zero bytes completes when the pipe has data or no writer left,
//   and takes nothing out of it.
// - The low bit of the event's handle keeps an operation from being announced
//   at a completion port. So a borrowed pipe is not bound to ours, which could
//   never be undone, and a binding to its owner's port does no harm.
// - An operation that fails at once sets neither its event nor its status. One
//   that succeeds at once sets both.
// - Operations of a thread are cancelled when the thread ends; that sets the
//   event too, and the waiting thread begins another one.
// - GetQueuedCompletionStatusEx() counts in ticks of the system's timer (1 ms
//   to 15.6 ms) and may return early by a part of one.
// - A completion port is signalled while something is queued at it. Microsoft
//   does not say so.

#include "poller.h"

#include "clock.h"
#include "error.h"
#include "windows_api.h"

#include <stdlib.h>

// Something to watch: a pipe, or a process that will end.
typedef struct {
    HANDLE port;
    size_t key;
    uint64_t token;
    HANDLE handle;
    // The thread pool's wait, for the event of a pipe or for a process.
    HANDLE wait;
    // Nonzero while this source is queued at the port.
    volatile LONG queued;
    // For pipes only; INVALID_HANDLE_VALUE marks a process.
    HANDLE event;
    OVERLAPPED read;
    bool reading;
    char nothing;
} poll_source;

struct procset__poller_state {
    // Guards the table.
    SRWLOCK lock;
    // What is queued at the port names a place in this table. Places are not
    // used again, so what is still queued for a source that was removed names
    // nothing.
    poll_source **sources;
    size_t count;
    size_t capacity;
};

// -------------------------------------------------------------- the sources

static bool
is_pipe(const poll_source *source)
{
    return source->event != INVALID_HANDLE_VALUE;
}

// Queues the source, unless it is queued already.
static void
announce(poll_source *source)
{
    if (InterlockedExchange(&source->queued, 1) == 0) {
        (void) PostQueuedCompletionStatus(source->port, 0, source->key, NULL);
    }
}

// Runs in a thread of the system's pool.
static void CALLBACK
on_signal(void *context, BOOLEAN timed_out)
{
    (void) timed_out;
    announce(context);
}

// Begins a read of nothing, which completes when there is something.
static int
begin_read(poll_source *source)
{
    source->read = (OVERLAPPED) {
        .hEvent = (HANDLE) ((uintptr_t) source->event | 1),
    };
    source->reading = true;
    if (ReadFile(source->handle, &source->nothing, 0, NULL, &source->read)) {
        announce(source);
        return 0;
    }
    switch (GetLastError()) {
    case ERROR_IO_PENDING:
        return 0;
    case ERROR_MORE_DATA:
    case ERROR_BROKEN_PIPE:
        source->reading = false;
        announce(source);
        return 0;
    default:
        source->reading = false;
        return procset__error_last(PROCSET__CALL_READ_FILE);
    }
}

static int
source_watch(poll_source *source)
{
    ULONG flags = WT_EXECUTEINWAITTHREAD;

    if (!is_pipe(source)) {
        flags |= WT_EXECUTEONLYONCE;
    }
    if (!RegisterWaitForSingleObject(
            &source->wait, is_pipe(source) ? source->event : source->handle,
            on_signal, source, INFINITE, flags)) {
        source->wait = NULL;
        return procset__error_last(PROCSET__CALL_REGISTER_WAIT);
    }
    return is_pipe(source) ? begin_read(source) : 0;
}

// Nobody else may know the source any more.
static int
source_free(poll_source *source)
{
    // Returns when the thread pool is not in on_signal() and never will be.
    if (source->wait != NULL
        && !UnregisterWaitEx(source->wait, INVALID_HANDLE_VALUE)) {
        // Lost rather than freed under the feet of the thread pool.
        return procset__error_last(PROCSET__CALL_UNREGISTER_WAIT);
    }
    if (is_pipe(source)) {
        if (source->reading && !HasOverlappedIoCompleted(&source->read)) {
            (void) CancelIoEx(source->handle, &source->read);
            (void) WaitForSingleObject(source->event, INFINITE);
        }
        (void) CloseHandle(source->event);
    }
    free(source);
    return 0;
}

// ---------------------------------------------------------------- the table

bool
procset__poller_has_pwait2(void)
{
    return false;
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
        if (state->sources[i] != NULL) {
            (void) source_free(state->sources[i]);
        }
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
    poll_source **sources;

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
add_source(procset__poller *poller, HANDLE handle, HANDLE event,
           uint64_t token)
{
    struct procset__poller_state *state = poller->state;
    poll_source *added = calloc(1, sizeof(*added));
    int r;

    if (added == NULL) {
        return procset__error_no_memory();
    }
    added->port = procset__to_native(poller->handle);
    added->token = token;
    added->handle = handle;
    added->event = event;
    AcquireSRWLockExclusive(&state->lock);
    r = reserve_place(state);
    if (r == 0) {
        added->key = state->count;
        state->sources[state->count++] = added;
        r = source_watch(added);
        if (r < 0) {
            state->sources[added->key] = NULL;
        }
    }
    ReleaseSRWLockExclusive(&state->lock);
    if (r < 0) {
        // The event stays the caller's.
        added->event = INVALID_HANDLE_VALUE;
        (void) source_free(added);
    }
    return r;
}

int
procset__poller_add(procset__poller *poller, procset_handle handle,
                    uint64_t token)
{
    HANDLE event = CreateEventW(NULL, FALSE, FALSE, NULL);
    int r;

    if (event == NULL) {
        return procset__error_last(PROCSET__CALL_CREATE_EVENT);
    }
    r = add_source(poller, procset__to_native(handle), event, token);
    if (r < 0) {
        (void) CloseHandle(event);
    }
    return r;
}

static int
remove_source(procset__poller *poller, procset_handle handle, bool pipe)
{
    struct procset__poller_state *state = poller->state;
    poll_source *found = NULL;

    AcquireSRWLockExclusive(&state->lock);
    for (size_t i = 0; i < state->count && found == NULL; i++) {
        poll_source *each = state->sources[i];

        if (each != NULL && is_pipe(each) == pipe
            && each->handle == procset__to_native(handle)) {
            found = each;
            state->sources[i] = NULL;
        }
    }
    ReleaseSRWLockExclusive(&state->lock);
    if (found == NULL) {
        return procset__error(PROCSET__CALL_UNREGISTER_WAIT,
                              ERROR_INVALID_HANDLE);
    }
    return source_free(found);
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
    int r = add_source(poller, procset__to_native(end_handle(proc)),
                       INVALID_HANDLE_VALUE, token);

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

// Whether a read from the pipe would tell something: data, the end, an error.
static bool
has_news(HANDLE pipe)
{
    DWORD available = 0;

    return !PeekNamedPipe(pipe, NULL, 0, NULL, &available, NULL)
           || available > 0;
}

// Finds out whether the pipe is ready, and sees to it that it is queued again:
// at once, behind all others, while it is ready, and otherwise when it is.
static int
look_at_pipe(poll_source *source, bool *ret_ready)
{
    *ret_ready = false;
    if (source->reading && !HasOverlappedIoCompleted(&source->read)) {
        return 0;
    }
    source->reading = false;
    if (!has_news(source->handle)) {
        return begin_read(source);
    }
    *ret_ready = true;
    announce(source);
    return 0;
}

// When a process ended, by the system's clock; zero where that is not known.
static uint64_t
end_time_of(const poll_source *source)
{
    FILETIME created, ended, kernel, user;

    if (!GetProcessTimes(source->handle, &created, &ended, &kernel, &user)) {
        return 0;
    }
    return (uint64_t) ended.dwHighDateTime << 32 | ended.dwLowDateTime;
}

#define NO_END_TIME UINT64_MAX

// What one wait has found.
typedef struct {
    uint64_t *tokens;
    uint64_t end_times[PROCSET__POLLER_BATCH]; // NO_END_TIME for pipes
    size_t count;
} findings;

// Several threads of the pool queue ends in whatever order they get to run, so
// the ends are put in order here, among themselves.
static void
push(findings *found, uint64_t token, uint64_t end_time)
{
    size_t at = found->count++;

    for (size_t i = at; end_time != NO_END_TIME && i-- > 0;) {
        if (found->end_times[i] == NO_END_TIME) {
            continue;
        }
        if (found->end_times[i] <= end_time) {
            break;
        }
        found->tokens[at] = found->tokens[i];
        found->end_times[at] = found->end_times[i];
        at = i;
    }
    found->tokens[at] = token;
    found->end_times[at] = end_time;
}

static int
take(struct procset__poller_state *state, const OVERLAPPED_ENTRY *entry,
     findings *found)
{
    size_t key = (size_t) entry->lpCompletionKey;
    poll_source *taken = key < state->count ? state->sources[key] : NULL;
    bool ready;
    int r;

    if (taken == NULL) {
        return 0;
    }
    // Before the look: what comes after it is queued again.
    (void) InterlockedExchange(&taken->queued, 0);
    if (!is_pipe(taken)) {
        push(found, taken->token, end_time_of(taken));
        return 0;
    }
    r = look_at_pipe(taken, &ready);
    if (r == 0 && ready) {
        push(found, taken->token, NO_END_TIME);
    }
    return r;
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
    int r = 0;

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
        AcquireSRWLockExclusive(&poller->state->lock);
        for (ULONG i = 0; i < count && r == 0; i++) {
            r = take(poller->state, &entries[i], &found);
        }
        ReleaseSRWLockExclusive(&poller->state->lock);
        if (r < 0) {
            return r;
        }
    }
    *ret_count = found.count;
    return 0;
}
