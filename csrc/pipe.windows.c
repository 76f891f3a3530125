// Facts about pipes on Windows that this file relies on:
//
// - Anonymous pipes can neither be read without blocking nor be waited for;
//   named ones can, when they were opened for overlapped operations.
// - PeekNamedPipe() never blocks. It says ERROR_BROKEN_PIPE when the pipe is
//   empty and has no writer left.
// - A read of no more than what is there completes at once.
// - In the mode PIPE_NOWAIT a write to a full pipe succeeds and writes
//   nothing.
// - The low bit of the event's handle keeps an operation from being announced
//   at a completion port, which may be its owner's.

#include "pipe.h"

#include "error.h"
#include "handle.h"
#include "windows_api.h"

#include <stdio.h>

// What a pipe holds before its writer has to wait; as on Linux.
#define PIPE_SIZE 65536
#define NAME_SIZE 96
// The clock that the names are made from goes on all the time.
#define MOST_ATTEMPTS 100

static int
open_read_end(wchar_t *name, HANDLE *ret_read)
{
    HANDLE read_end = INVALID_HANDLE_VALUE;
    LARGE_INTEGER ticks;

    for (int i = 0; i < MOST_ATTEMPTS && read_end == INVALID_HANDLE_VALUE;
         i++) {
        (void) QueryPerformanceCounter(&ticks);
        (void) swprintf(name, NAME_SIZE, L"\\\\.\\pipe\\procset-%lu-%lu-%lld",
                        GetCurrentProcessId(), GetCurrentThreadId(),
                        (long long) ticks.QuadPart);
        read_end =
            CreateNamedPipeW(name,
                             PIPE_ACCESS_INBOUND | FILE_FLAG_OVERLAPPED
                                 | FILE_FLAG_FIRST_PIPE_INSTANCE,
                             PIPE_TYPE_BYTE | PIPE_READMODE_BYTE | PIPE_WAIT
                                 | PIPE_REJECT_REMOTE_CLIENTS,
                             1, 0, PIPE_SIZE, 0, NULL);
        if (read_end == INVALID_HANDLE_VALUE
            && GetLastError() != ERROR_ACCESS_DENIED
            && GetLastError() != ERROR_PIPE_BUSY) {
            break;
        }
    }
    if (read_end == INVALID_HANDLE_VALUE) {
        return procset__error_last(PROCSET__CALL_CREATE_NAMED_PIPE);
    }
    *ret_read = read_end;
    return 0;
}

static int
open_pair(procset__pipe *ret_pipe)
{
    wchar_t name[NAME_SIZE];
    HANDLE read_end = INVALID_HANDLE_VALUE;
    HANDLE write_end;
    int r;

    r = open_read_end(name, &read_end);
    if (r < 0) {
        return r;
    }
    write_end = CreateFileW(name, GENERIC_WRITE | FILE_READ_ATTRIBUTES, 0,
                            NULL, OPEN_EXISTING, 0, NULL);
    if (write_end == INVALID_HANDLE_VALUE) {
        r = procset__error_last(PROCSET__CALL_CREATE_FILE);
        (void) CloseHandle(read_end);
        return r;
    }
    *ret_pipe = (procset__pipe) {
        .read = procset__from_native(read_end),
        .write = procset__from_native(write_end),
    };
    return 0;
}

int
procset__pipe_open(procset__pipe *ret_pipe)
{
    DWORD mode = PIPE_READMODE_BYTE | PIPE_NOWAIT;
    procset__pipe pipe;
    int r;

    r = open_pair(&pipe);
    if (r < 0) {
        return r;
    }
    if (!SetNamedPipeHandleState(procset__to_native(pipe.write), &mode, NULL,
                                 NULL)) {
        r = procset__error_last(PROCSET__CALL_SET_NAMED_PIPE_HANDLE_STATE);
        (void) procset__pipe_close(pipe);
        return r;
    }
    *ret_pipe = pipe;
    return 0;
}

int
procset_report_open(procset_handle *ret_read, procset_handle *ret_write)
{
    procset__pipe pipe;
    int r;

    r = open_pair(&pipe);
    if (r < 0) {
        return r;
    }
    *ret_read = pipe.read;
    *ret_write = pipe.write;
    return 0;
}

procset__pipe
procset__pipe_close(procset__pipe pipe)
{
    (void) procset__handle_close(pipe.read);
    (void) procset__handle_close(pipe.write);
    return PROCSET__PIPE_INVALID;
}

int
procset__pipe_ring(procset_handle write_end)
{
    DWORD count;

    if (!WriteFile(procset__to_native(write_end), "", 1, &count, NULL)) {
        return procset__error_last(PROCSET__CALL_WRITE_FILE);
    }
    return 0;
}

// Reads what is known to be there.
static int
read_now(HANDLE pipe, void *buffer, DWORD size, size_t *ret_count)
{
    OVERLAPPED operation = {0};
    HANDLE event = CreateEventW(NULL, TRUE, FALSE, NULL);
    DWORD count = 0;
    int r = 0;

    if (event == NULL) {
        return procset__error_last(PROCSET__CALL_CREATE_EVENT);
    }
    operation.hEvent = (HANDLE) ((uintptr_t) event | 1);
    if (!ReadFile(pipe, buffer, size, NULL, &operation)
        && GetLastError() != ERROR_IO_PENDING
        && GetLastError() != ERROR_MORE_DATA) {
        r = procset__error_last(PROCSET__CALL_READ_FILE);
    }
    else if (!GetOverlappedResult(pipe, &operation, &count, TRUE)
             && GetLastError() != ERROR_MORE_DATA) {
        r = procset__error_last(PROCSET__CALL_READ_FILE);
    }
    (void) CloseHandle(event);
    if (r == 0) {
        *ret_count = count;
    }
    return r;
}

int
procset__pipe_read(procset_handle read_end, void *buffer, size_t size,
                   size_t *ret_count)
{
    HANDLE pipe = procset__to_native(read_end);
    DWORD available = 0;

    if (!PeekNamedPipe(pipe, NULL, 0, NULL, &available, NULL)) {
        if (GetLastError() != ERROR_BROKEN_PIPE) {
            return procset__error_last(PROCSET__CALL_PEEK_NAMED_PIPE);
        }
        *ret_count = 0;
        return 0;
    }
    if (available == 0) {
        return procset__error_again(PROCSET__CALL_PEEK_NAMED_PIPE);
    }
    return read_now(pipe, buffer, size < available ? (DWORD) size : available,
                    ret_count);
}

int
procset__pipe_drain(procset_handle read_end)
{
    char buffer[256];
    size_t count = 1;
    int r = 0;

    while (r == 0 && count > 0) {
        r = procset__pipe_read(read_end, buffer, sizeof(buffer), &count);
    }
    if (r < 0 && procset_error_kind(r) != PROCSET_KIND_AGAIN) {
        return r;
    }
    return 0;
}
