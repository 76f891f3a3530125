// What systems do in different ways to start a program; launch.posix.c does
// the rest.

#ifndef PROCSET_LAUNCH_SYSTEM_H
#define PROCSET_LAUNCH_SYSTEM_H

#include "launch.h"

// What the processes of one start are made with, made ready once for all.
typedef struct {
    void *memory;
} procset__launcher;

int
procset__launcher_open(procset__launcher *ret_launcher);

void
procset__launcher_close(procset__launcher *launcher);

// Makes one process, and returns when it has become the program. All signals
// are blocked. `proc` has its pid, and its handle if that came with it. After
// an error too, if there is a child to be reaped.
int
procset__launcher_create(const procset__launcher *launcher,
                         const procset_launch *launch,
                         const procset__launchee *entry, procset__proc *proc);

// Whether a program goes on ignoring this signal where the launcher does.
// Async-signal-safe.
bool
procset__launch_keeps_ignored(int signal);

#endif
