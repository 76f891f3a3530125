// Starting a program with posix_spawn(), as macOS has it.
//
// Facts about it that this file relies on:
//
// - It is one system call: nothing of the launcher is copied, no code of ours
//   runs in the child, and the error is that of becoming the program.
// - POSIX_SPAWN_CLOEXEC_DEFAULT (10.7) keeps all descriptors from the program
//   but those that a file action names. One that is not open is an error.

#define _GNU_SOURCE

#include "launch_system.h"

#include "error.h"

#include <fcntl.h>
#include <signal.h>
#include <spawn.h>
#include <unistd.h>

#define FLAGS                                                                 \
    (POSIX_SPAWN_CLOEXEC_DEFAULT | POSIX_SPAWN_SETSIGDEF                      \
     | POSIX_SPAWN_SETSIGMASK)

unsigned
procset__launch_probe(void)
{
    return 0;
}

int
procset__launcher_open(procset__launcher *ret_launcher)
{
    *ret_launcher = (procset__launcher) {.memory = NULL};
    return 0;
}

void
procset__launcher_close(procset__launcher *launcher)
{
    (void) launcher;
}

// The error value for what a function of <spawn.h> has returned.
static int
check(int code)
{
    return code == 0 ? 0 : procset__error(PROCSET__CALL_POSIX_SPAWN, code);
}

// Lets the program have the standard descriptors, as far as they are open, and
// its own.
static int
choose_descriptors(const procset__launchee *entry,
                   posix_spawn_file_actions_t *actions)
{
    int r = 0;

    for (int fd = STDIN_FILENO; r == 0 && fd <= STDERR_FILENO; fd++) {
        if (fcntl(fd, F_GETFD) >= 0) {
            r = check(posix_spawn_file_actions_addinherit_np(actions, fd));
        }
    }
    for (size_t i = 0; r == 0 && i < entry->inherited_count; i++) {
        if (fcntl((int) entry->inherited[i], F_GETFD) < 0) {
            return procset__error_last(PROCSET__CALL_FCNTL);
        }
        r = check(posix_spawn_file_actions_addinherit_np(
            actions, (int) entry->inherited[i]));
    }
    return r;
}

static int
choose_signals(const procset_launch *launch, posix_spawnattr_t *attributes)
{
    struct sigaction action;
    sigset_t blocked, reset;
    int r;

    (void) sigemptyset(&blocked);
    (void) sigemptyset(&reset);
    for (int signal = 1; signal < NSIG && signal <= 64; signal++) {
        if ((launch->blocked >> (signal - 1) & 1) != 0) {
            (void) sigaddset(&blocked, signal);
        }
        if (sigaction(signal, NULL, &action) == 0
            && !(action.sa_handler == SIG_IGN
                 && procset__launch_keeps_ignored(signal))) {
            (void) sigaddset(&reset, signal);
        }
    }
    r = check(posix_spawnattr_setsigmask(attributes, &blocked));
    if (r == 0) {
        r = check(posix_spawnattr_setsigdefault(attributes, &reset));
    }
    if (r == 0) {
        r = check(posix_spawnattr_setflags(attributes, (short) FLAGS));
    }
    return r;
}

static int
spawn(const procset_launch *launch, const procset__launchee *entry,
      posix_spawn_file_actions_t *actions, posix_spawnattr_t *attributes,
      procset__proc *proc)
{
    pid_t pid;
    int r;

    if (entry->errors != NULL) {
        // No file action moves to a place in a file.
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    r = choose_descriptors(entry, actions);
    if (r < 0) {
        return r;
    }
    r = choose_signals(launch, attributes);
    if (r < 0) {
        return r;
    }
    r = check(posix_spawn(&pid, launch->path, actions, attributes,
                          procset__words_items(&entry->arguments),
                          procset__words_items(&launch->environment)));
    if (r == 0) {
        proc->pid = pid;
    }
    return r;
}

int
procset__launcher_create(const procset__launcher *launcher,
                         const procset_launch *launch,
                         const procset__launchee *entry, procset__proc *proc)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int r;

    (void) launcher;
    r = check(posix_spawn_file_actions_init(&actions));
    if (r < 0) {
        return r;
    }
    r = check(posix_spawnattr_init(&attributes));
    if (r == 0) {
        r = spawn(launch, entry, &actions, &attributes, proc);
        (void) posix_spawnattr_destroy(&attributes);
    }
    (void) posix_spawn_file_actions_destroy(&actions);
    return r;
}
