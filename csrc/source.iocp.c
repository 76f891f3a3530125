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

#include "source.h"

#include "error.h"
#include "windows_api.h"

#include <stdlib.h>

// How long a read may take to be cancelled; it takes no time.
#define CANCEL_MS 2000

struct procset__source {
    HANDLE port;
    size_t key;
    uint64_t token;
    HANDLE handle;
    // The thread pool's wait, for the event of a pipe or for a process.
    HANDLE wait;
    // Nonzero while this source is queued at the port.
    volatile LONG queued;
    // For pipes only; NULL marks a process.
    HANDLE event;
    OVERLAPPED read;
    bool reading;
    char nothing;
};

static bool
is_pipe(const procset__source *source)
{
    return source->event != NULL;
}

int
procset__source_new(procset_handle port, size_t key, uint64_t token,
                    procset_handle handle, bool is_pipe,
                    procset__source **ret_source)
{
    procset__source *source = calloc(1, sizeof(*source));

    if (source == NULL) {
        return procset__error_no_memory();
    }
    source->port = procset__to_native(port);
    source->key = key;
    source->token = token;
    source->handle = procset__to_native(handle);
    if (is_pipe) {
        source->event = CreateEventW(NULL, FALSE, FALSE, NULL);
        if (source->event == NULL) {
            int r = procset__error_last(PROCSET__CALL_CREATE_EVENT);

            free(source);
            return r;
        }
    }
    *ret_source = source;
    return 0;
}

bool
procset__source_is(const procset__source *source, procset_handle handle,
                   bool pipe)
{
    return source->handle == procset__to_native(handle)
           && is_pipe(source) == pipe;
}

uint64_t
procset__source_token(const procset__source *source)
{
    return source->token;
}

// Queues the source, unless it is queued already.
static void
announce(procset__source *source)
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
begin_read(procset__source *source)
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

int
procset__source_watch(procset__source *source)
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

int
procset__source_free(procset__source *source)
{
    if (source == NULL) {
        return 0;
    }
    // Returns when the thread pool is not in on_signal() and never will be.
    if (source->wait != NULL
        && !UnregisterWaitEx(source->wait, INVALID_HANDLE_VALUE)) {
        // Lost rather than freed under the feet of the thread pool.
        return procset__error_last(PROCSET__CALL_UNREGISTER_WAIT);
    }
    if (is_pipe(source)) {
        if (source->reading && !HasOverlappedIoCompleted(&source->read)) {
            (void) CancelIoEx(source->handle, &source->read);
            if (WaitForSingleObject(source->event, CANCEL_MS)
                != WAIT_OBJECT_0) {
                // The pipe was closed before its time, and somebody else still
                // has it: lost too.
                return procset__error(PROCSET__CALL_READ_FILE, WAIT_TIMEOUT);
            }
        }
        (void) CloseHandle(source->event);
    }
    free(source);
    return 0;
}

// Whether a read from the pipe would tell something: data, the end, an error.
static bool
has_news(HANDLE pipe)
{
    DWORD available = 0;

    return !PeekNamedPipe(pipe, NULL, 0, NULL, &available, NULL)
           || available > 0;
}

static int
take_pipe(procset__source *source, bool *ret_ready)
{
    int r;

    *ret_ready = false;
    if (source->reading && !HasOverlappedIoCompleted(&source->read)) {
        return 0;
    }
    source->reading = false;
    if (!has_news(source->handle)) {
        r = begin_read(source);
        if (r < 0) {
            // The next wait tries again.
            announce(source);
        }
        return r;
    }
    *ret_ready = true;
    announce(source);
    return 0;
}

static uint64_t
end_of(HANDLE process)
{
    FILETIME created, ended, kernel, user;

    if (!GetProcessTimes(process, &created, &ended, &kernel, &user)) {
        return 0;
    }
    return (uint64_t) ended.dwHighDateTime << 32 | ended.dwLowDateTime;
}

int
procset__source_take(procset__source *source, bool *ret_ready,
                     uint64_t *ret_end)
{
    // Before the look: what comes after it is queued again.
    (void) InterlockedExchange(&source->queued, 0);
    if (is_pipe(source)) {
        *ret_end = PROCSET__NO_END;
        return take_pipe(source, ret_ready);
    }
    *ret_end = end_of(source->handle);
    *ret_ready = true;
    return 0;
}
