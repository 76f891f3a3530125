// Owning a descriptor or HANDLE.

#ifndef PROCSET_HANDLE_H
#define PROCSET_HANDLE_H

#include "procset.h"

// Closes a handle; accepts PROCSET_HANDLE_INVALID; returns it. There is no
// error to act on: the handle is gone whatever the system answers.
procset_handle
procset__handle_close(procset_handle handle);

// A second handle of the same thing, which is not inherited.
int
procset__handle_dup(procset_handle handle, procset_handle *ret_handle);

// Whether `handle` can be read, or its other side is gone, right now.
int
procset__handle_ready(procset_handle handle, bool *ret_ready);

#endif
