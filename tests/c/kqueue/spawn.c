// The posix_spawn() of macOS for tests on Linux, made of fork(). It takes the
// three flags that csrc/launch.spawn.c sets, and no others.

#define _GNU_SOURCE

#include "spawn.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

enum {
    FLAGS = POSIX_SPAWN_CLOEXEC_DEFAULT | POSIX_SPAWN_SETSIGDEF
            | POSIX_SPAWN_SETSIGMASK,
};

int
posix_spawn_file_actions_init(posix_spawn_file_actions_t *actions)
{
    *actions = calloc(1, sizeof(**actions));
    return *actions == NULL ? ENOMEM : 0;
}

int
posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions)
{
    free(*actions);
    return 0;
}

int
posix_spawn_file_actions_addinherit_np(posix_spawn_file_actions_t *actions,
                                       int fd)
{
    if ((*actions)->count == MOST_INHERITED) {
        return ENOMEM;
    }
    (*actions)->inherited[(*actions)->count++] = fd;
    return 0;
}

int
posix_spawnattr_init(posix_spawnattr_t *attributes)
{
    *attributes = calloc(1, sizeof(**attributes));
    return *attributes == NULL ? ENOMEM : 0;
}

int
posix_spawnattr_destroy(posix_spawnattr_t *attributes)
{
    free(*attributes);
    return 0;
}

int
posix_spawnattr_setsigmask(posix_spawnattr_t *attributes, const sigset_t *mask)
{
    (*attributes)->blocked = *mask;
    return 0;
}

int
posix_spawnattr_setsigdefault(posix_spawnattr_t *attributes,
                              const sigset_t *reset)
{
    (*attributes)->reset = *reset;
    return 0;
}

int
posix_spawnattr_setflags(posix_spawnattr_t *attributes, short flags)
{
    (*attributes)->flags = flags;
    return 0;
}

// Returns the code of what has failed.
static int
become(const char *path, const spawn_actions *actions,
       const spawn_attributes *attributes, char *const *arguments,
       char *const *environment)
{
    if (close_range(0, ~0u, CLOSE_RANGE_CLOEXEC) < 0) {
        return errno;
    }
    for (int i = 0; i < actions->count; i++) {
        if (fcntl(actions->inherited[i], F_SETFD, 0) < 0) {
            return errno;
        }
    }
    for (int signal = 1; signal < NSIG; signal++) {
        struct sigaction action = {.sa_handler = SIG_DFL};

        if (sigismember(&attributes->reset, signal) == 1) {
            (void) sigaction(signal, &action, NULL);
        }
    }
    (void) sigprocmask(SIG_SETMASK, &attributes->blocked, NULL);
    (void) execve(path, arguments, environment);
    return errno;
}

int
posix_spawn(pid_t *ret_pid, const char *path,
            const posix_spawn_file_actions_t *actions,
            const posix_spawnattr_t *attributes, char *const *arguments,
            char *const *environment)
{
    int ends[2];
    int code = 0;
    pid_t pid;

    if ((*attributes)->flags != FLAGS) {
        return EINVAL;
    }
    if (pipe2(ends, O_CLOEXEC) < 0) {
        return errno;
    }
    pid = fork();
    if (pid == 0) {
        code = become(path, *actions, *attributes, arguments, environment);
        (void) !write(ends[1], &code, sizeof(code));
        _exit(127);
    }
    (void) close(ends[1]);
    if (pid < 0) {
        code = EAGAIN;
    }
    else if (read(ends[0], &code, sizeof(code)) == (ssize_t) sizeof(code)) {
        // The system itself has no such child to reap.
        (void) waitpid(pid, NULL, 0);
    }
    else {
        code = 0;
        *ret_pid = pid;
    }
    (void) close(ends[0]);
    return code;
}
