// For tests on Linux: what the library uses of <spawn.h> on macOS. spawn.c has
// the functions.

#ifndef KQUEUE_SPAWN_H
#define KQUEUE_SPAWN_H

#include <signal.h>
#include <stdbool.h>
#include <sys/types.h>

#define POSIX_SPAWN_SETSIGDEF 0x0004
#define POSIX_SPAWN_SETSIGMASK 0x0008
#define POSIX_SPAWN_CLOEXEC_DEFAULT 0x4000

enum { MOST_INHERITED = 64 };

typedef struct {
    int inherited[MOST_INHERITED];
    int count;
} spawn_actions;

typedef struct {
    sigset_t blocked;
    sigset_t reset;
    short flags;
} spawn_attributes;

// Pointers, as the system's own are.
typedef spawn_actions *posix_spawn_file_actions_t;
typedef spawn_attributes *posix_spawnattr_t;

int
posix_spawn_file_actions_init(posix_spawn_file_actions_t *actions);

int
posix_spawn_file_actions_destroy(posix_spawn_file_actions_t *actions);

int
posix_spawn_file_actions_addinherit_np(posix_spawn_file_actions_t *actions,
                                       int fd);

int
posix_spawnattr_init(posix_spawnattr_t *attributes);

int
posix_spawnattr_destroy(posix_spawnattr_t *attributes);

int
posix_spawnattr_setsigmask(posix_spawnattr_t *attributes,
                           const sigset_t *mask);

int
posix_spawnattr_setsigdefault(posix_spawnattr_t *attributes,
                              const sigset_t *reset);

int
posix_spawnattr_setflags(posix_spawnattr_t *attributes, short flags);

int
posix_spawn(pid_t *ret_pid, const char *path,
            const posix_spawn_file_actions_t *actions,
            const posix_spawnattr_t *attributes, char *const *arguments,
            char *const *environment);

#endif
