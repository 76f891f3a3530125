// The floor of join.py for forked Python processes, called from Python.
//
// The time stamp is taken here, right after waitid(2) has returned: what it
// costs to get back to Python does not count.

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <sys/wait.h>
#include <time.h>

#define NS_PER_S 1000000000LL

// Blocks until process `pid` has ended, reaps it, and returns the time of
// CLOCK_MONOTONIC in nanoseconds, or a negative errno.
int64_t
waitid_stamp(pid_t pid)
{
    siginfo_t info;
    struct timespec ts;

    if (waitid(P_PID, (id_t) pid, &info, WEXITED) < 0) {
        return -(int64_t) errno;
    }
    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t) ts.tv_sec * NS_PER_S + ts.tv_nsec;
}
