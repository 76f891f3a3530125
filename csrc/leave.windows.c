// Facts about ending a process that this file relies on:
//
// - exit(), _exit() and ExitProcess() all have every DLL take itself apart.
//   TerminateProcess() of the own process does not, and does not return.
// - fflush(NULL) waits for every stream that another thread is busy with, and
//   one that reads from a console or a pipe may be busy for ever.

#include "leave.h"

#include "windows_api.h"

#include <stdio.h>

// How long a stream may take that another thread is busy with.
#define FLUSH_MS 1000

static DWORD WINAPI
flush_all(void *argument)
{
    (void) argument;
    (void) fflush(NULL);
    return 0;
}

_Noreturn void
procset_leave(int code)
{
    HANDLE thread = CreateThread(NULL, 0, flush_all, NULL, 0, NULL);

    if (thread != NULL) {
        (void) WaitForSingleObject(thread, FLUSH_MS);
    }
    for (;;) {
        (void) TerminateProcess(GetCurrentProcess(), (UINT) code);
    }
}
