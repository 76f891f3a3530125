// Shells that tests start.

#ifndef SHELL_H
#define SHELL_H

#include "procset.h"

#define SHELL "/bin/sh"

procset_launch *
launch_of(unsigned features, const char *path);

// Adds a shell that runs `script`.
void
add_script(procset_launch *launch, const char *script);

// Waits for the shell with this index, and returns its wait status.
int
status_of_shell(unsigned features, procset_launch *launch, size_t index);

// Runs tests of launches with the features of this system and with fewer.
void
run_with_fewer_launches(void (*run_all)(unsigned features));

#endif
