// Launches of the test program itself; see child.windows.h.

#ifndef PROGRAM_WINDOWS_H
#define PROGRAM_WINDOWS_H

#include "child.windows.h"

// The numbers that the C library of Windows has for them.
#define SIGNAL_INT 2
#define SIGNAL_TERM 15
#define SIGNAL_BREAK 21

// The main function of a test: whatever is run, no handle is lost.
int
run_program(int argc, char **argv, void (*run_all)(void));

procset_launch *
open_launch(const char *path);

// Adds a process that is given these words: what to do, the handle, the rest,
// which ends with NULL or is NULL.
void
add_program(procset_launch *launch, const char *what, procset_handle handle,
            const char *const *rest);

// Starts a process that is given the write end of a pipe, and returns the
// other end.
procset_handle
start_with_pipe(procset_launch *launch, const char *what,
                const char *const *rest);

// Waits for the end of a process that was started, and returns its exit code.
unsigned
wait_code(procset_launch *launch, size_t index);

// Reads all that is written to a pipe until nobody holds its other end.
size_t
read_all(procset_handle pipe, void *buffer, size_t size);

void
wait_for_byte(procset_handle pipe);

#endif
