// The Windows API, as of Windows 10. For files with a Windows suffix only.

#ifndef PROCSET_WINDOWS_API_H
#define PROCSET_WINDOWS_API_H

#define WIN32_LEAN_AND_MEAN
#ifndef _WIN32_WINNT
#define _WIN32_WINNT 0x0A00
#endif

#include <windows.h>

#include "procset.h"

static inline HANDLE
procset__to_native(procset_handle handle)
{
    return (HANDLE) handle;
}

static inline procset_handle
procset__from_native(HANDLE handle)
{
    return (procset_handle) handle;
}

#endif
