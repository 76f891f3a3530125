#include "handle.h"

#include "error.h"
#include "windows_api.h"

procset_handle
procset__handle_close(procset_handle handle)
{
    if (handle != PROCSET_HANDLE_INVALID) {
        (void) CloseHandle(procset__to_native(handle));
    }
    return PROCSET_HANDLE_INVALID;
}

procset_handle
procset_handle_close(procset_handle handle)
{
    return procset__handle_close(handle);
}

int
procset_handle_move(procset_handle *handle)
{
    // The standard streams are no numbers of handles.
    (void) handle;
    return 0;
}

int
procset__handle_dup(procset_handle handle, procset_handle *ret_handle)
{
    HANDLE self = GetCurrentProcess();
    HANDLE copy;

    if (!DuplicateHandle(self, procset__to_native(handle), self, &copy, 0,
                         FALSE, DUPLICATE_SAME_ACCESS)) {
        return procset__error_last(PROCSET__CALL_DUPLICATE_HANDLE);
    }
    *ret_handle = procset__from_native(copy);
    return 0;
}

int
procset__handle_ready(procset_handle handle, bool *ret_ready)
{
    DWORD answer = WaitForSingleObject(procset__to_native(handle), 0);

    if (answer == WAIT_FAILED) {
        return procset__error_last(PROCSET__CALL_WAIT_FOR_SINGLE_OBJECT);
    }
    *ret_ready = answer == WAIT_OBJECT_0;
    return 0;
}
