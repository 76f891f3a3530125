#define _GNU_SOURCE

#include "shell.h"

#include "check.h"

#include <fcntl.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

void
add_script(procset_launch *launch, const char *script)
{
    OK(procset_launch_add(launch));
    OK(procset_launch_argument(launch, "sh"));
    OK(procset_launch_argument(launch, "-c"));
    OK(procset_launch_argument(launch, script));
}

procset_launch *
launch_of(unsigned features, const char *path)
{
    procset_launch *launch = NULL;

    OK(procset_launch_open(features, path, &launch));
    return launch;
}

int
status_of_shell(unsigned features, procset_launch *launch, size_t index)
{
    int64_t pid = 0;
    procset_handle handle = PROCSET_HANDLE_INVALID;
    int status = 0;

    OK(procset_launch_take(launch, index, &pid, &handle));
    CHECK_INT((handle != PROCSET_HANDLE_INVALID), ==,
              ((features & PROCSET_FEATURE_PIDFD) != 0));
    CHECK_INT(waitpid((pid_t) pid, &status, 0), ==, pid);
    if (handle != PROCSET_HANDLE_INVALID) {
        CHECK_INT(fcntl((int) handle, F_GETFD), ==, FD_CLOEXEC);
        CHECK_INT(close((int) handle), ==, 0);
    }
    return status;
}

void
run_with_fewer_launches(void (*run_all)(unsigned features))
{
    unsigned all = procset_probe();
    // Each falls back alone.
    const unsigned without[] = {
        0,
        PROCSET_FEATURE_VFORK | PROCSET_FEATURE_CLONE_PIDFD,
        PROCSET_FEATURE_CLONE_PIDFD,
        PROCSET_FEATURE_CLOSE_RANGE,
        all,
    };

    // Whoever runs this may have had them ignored.
    signal(SIGHUP, SIG_DFL);
    signal(SIGINT, SIG_DFL);
    signal(SIGQUIT, SIG_DFL);
    signal(SIGTSTP, SIG_DFL);
    signal(SIGTTIN, SIG_DFL);
    signal(SIGTTOU, SIG_DFL);
    for (size_t i = 0; i < sizeof(without) / sizeof(*without); i++) {
        if (i > 0 && (all & without[i]) == 0) {
            continue;
        }
        printf("# features %u\n", all & ~without[i]);
        run_all(all & ~without[i]);
    }
}
