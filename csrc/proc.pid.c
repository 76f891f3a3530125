// Processes on systems without handles for them: the pid alone.
//
// Facts about waiting on macOS and FreeBSD that this file relies on:
//
// - waitid() with WNOWAIT leaves the child as it is, and fails with ECHILD
//   where there is none.
// - Only wait4() tells the resource usage. macOS counts the largest resident
//   set in bytes, FreeBSD in units of 1024 bytes.

#define _GNU_SOURCE

#include "proc.h"
#include "error.h"
#include "proc_system.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/time.h>
#include <sys/types.h>
#include <sys/wait.h>

#ifdef __APPLE__
#define RSS_UNIT 1
#else
#define RSS_UNIT 1024
#endif

bool
procset__proc_has_handles(void)
{
    return false;
}

static int
peek(int64_t pid, int options)
{
    siginfo_t info;
    int r;

    do {
        r = waitid(P_PID, (id_t) pid, &info, WEXITED | WNOWAIT | options);
    } while (r < 0 && errno == EINTR);
    return r < 0 ? procset__error_last(PROCSET__CALL_WAITID) : 0;
}

int
procset__proc_look(const procset__proc *proc)
{
    return peek(proc->pid, WNOHANG);
}

static int64_t
to_ns(struct timeval time)
{
    return (int64_t) time.tv_sec * 1000000000 + (int64_t) time.tv_usec * 1000;
}

static procset_status
to_status(int status, const struct rusage *usage)
{
    bool exited = WIFEXITED(status);

    return (procset_status) {
        .state = exited ? PROCSET_EXITED : PROCSET_SIGNALED,
        .code = exited ? WEXITSTATUS(status) : WTERMSIG(status),
        .core_dumped = !exited && WCOREDUMP(status),
        .user_ns = to_ns(usage->ru_utime),
        .system_ns = to_ns(usage->ru_stime),
        .max_rss = (int64_t) usage->ru_maxrss * RSS_UNIT,
    };
}

int
procset__proc_reap(const procset__proc *proc, procset_status *status)
{
    struct rusage usage;
    int native;
    pid_t pid;

    do {
        pid = wait4((pid_t) proc->pid, &native, WNOHANG, &usage);
    } while (pid < 0 && errno == EINTR);
    if (pid < 0) {
        return procset__error_last(PROCSET__CALL_WAIT4);
    }
    if (pid > 0) {
        *status = to_status(native, &usage);
    }
    return 0;
}

int
procset__proc_block(int64_t pid)
{
    int r;

    r = peek(pid, 0);
    if (r < 0 && procset_error_kind(r) != PROCSET_KIND_NO_CHILD) {
        return r;
    }
    return 0;
}
