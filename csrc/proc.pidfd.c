// Processes on Linux: pidfd where it works, the pid alone where it does not.
//
// Facts about pidfds that this file relies on:
//
//   call                      Linux   without it
//   pidfd_send_signal         5.1     ENOSYS
//   pidfd_open                5.3     ENOSYS
//   waitid(P_PIDFD)           5.4     EINVAL
//
// - Container runtimes and sandboxes refuse them one by one with EPERM or
//   ENOSYS, so a version number proves nothing; the probe tries all three.
// - A pidfd opened on an unreaped child is the child, because nobody else can
//   have its pid.
// - The system call waitid() has a fifth parameter, the resource usage, which
//   the C library hides; WNOWAIT leaves the child as it is.

#define _GNU_SOURCE

#include "proc.h"
#include "error.h"
#include "proc_system.h"

#include <errno.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <unistd.h>

#define P_PIDFD_LINUX ((idtype_t) 3)

static int
wait_raw(idtype_t type, int64_t id, int options, siginfo_t *ret_info,
         struct rusage *ret_usage)
{
    siginfo_t info = {0};
    long r;

    do {
        r = syscall(SYS_waitid, type, (id_t) id, &info, options, ret_usage);
    } while (r < 0 && errno == EINTR);
    if (r < 0) {
        return procset__error_last(PROCSET__CALL_WAITID);
    }
    *ret_info = info;
    return 0;
}

static int
wait_for(const procset__proc *proc, int options, siginfo_t *ret_info,
         struct rusage *ret_usage)
{
    if (proc->handle != PROCSET_HANDLE_INVALID) {
        return wait_raw(P_PIDFD_LINUX, proc->handle, options, ret_info,
                        ret_usage);
    }
    return wait_raw(P_PID, proc->pid, options, ret_info, ret_usage);
}

bool
procset__proc_has_handles(void)
{
    procset__proc self = {
        .pid = getpid(),
        .handle = PROCSET_HANDLE_INVALID,
        .sentinel = PROCSET_HANDLE_INVALID,
        .job = PROCSET_HANDLE_INVALID,
    };
    siginfo_t info;
    bool works;
    int r;

    r = procset_handle_open(self.pid, &self.handle);
    if (r < 0) {
        // Out of descriptors says nothing about the kernel; each process
        // falls back on its own if it must.
        return procset_error_kind(r) == PROCSET_KIND_LIMIT;
    }
    r = procset_handle_signal(self.handle, 0);
    works = r == 0;
    // We are not our own child: a kernel that knows P_PIDFD says ECHILD.
    r = wait_for(&self, WEXITED | WNOHANG, &info, NULL);
    works = works && r < 0 && procset_error_kind(r) == PROCSET_KIND_NO_CHILD;
    procset__proc_done(&self);
    return works;
}

static int64_t
to_ns(struct timeval time)
{
    return (int64_t) time.tv_sec * 1000000000 + (int64_t) time.tv_usec * 1000;
}

static procset_status
to_status(const siginfo_t *info, const struct rusage *usage)
{
    return (procset_status) {
        .state =
            info->si_code == CLD_EXITED ? PROCSET_EXITED : PROCSET_SIGNALED,
        .code = info->si_status,
        .core_dumped = info->si_code == CLD_DUMPED,
        .user_ns = to_ns(usage->ru_utime),
        .system_ns = to_ns(usage->ru_stime),
        .max_rss = (int64_t) usage->ru_maxrss * 1024,
    };
}

int
procset__proc_look(const procset__proc *proc)
{
    siginfo_t info;

    return wait_for(proc, WEXITED | WNOHANG | WNOWAIT, &info, NULL);
}

int
procset__proc_reap(const procset__proc *proc, procset_status *status)
{
    struct rusage usage = {0};
    siginfo_t info = {0};
    int r;

    r = wait_for(proc, WEXITED | WNOHANG, &info, &usage);
    if (r == 0 && info.si_pid != 0) {
        *status = to_status(&info, &usage);
    }
    return r;
}

int
procset__proc_block(int64_t pid)
{
    siginfo_t info;
    int r;

    r = wait_raw(P_PID, pid, WEXITED | WNOWAIT, &info, NULL);
    if (r < 0 && procset_error_kind(r) != PROCSET_KIND_NO_CHILD) {
        return r;
    }
    return 0;
}
