// Facts about the clocks of Windows that this file relies on:
//
// - QueryPerformanceCounter() counts the same in every process, and since
//   Windows XP neither it nor its frequency can fail to be had.
// - CPython reads it for time.perf_counter_ns(), with the same rounding, and
//   from 3.13 on for time.monotonic_ns(); before, that is GetTickCount64(),
//   which has the same rate but another origin.

#include "clock.h"

#include "windows_api.h"

#include <assert.h>

#define SECOND INT64_C(1000000000)

int64_t
procset__now(void)
{
    LARGE_INTEGER ticks, frequency;
    BOOL works = QueryPerformanceFrequency(&frequency)
                 && QueryPerformanceCounter(&ticks);

    assert(works && "the performance counter can be read");
    (void) works;
    // In two steps, because the product would overflow after half an hour.
    return ticks.QuadPart / frequency.QuadPart * SECOND
           + ticks.QuadPart % frequency.QuadPart * SECOND / frequency.QuadPart;
}
