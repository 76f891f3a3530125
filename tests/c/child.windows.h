// Real processes for the tests on Windows: the test program itself, which does
// one thing when it is started with arguments.

#ifndef CHILD_WINDOWS_H
#define CHILD_WINDOWS_H

#include "procset.h"

#include "windows_api.h"

typedef struct {
    int64_t pid;
    HANDLE process;
    // Closing it, or the test's own end, lets the child go on.
    HANDLE control;
} test_child;

// To be called first: does what a child is asked to, and does not return then.
void
child_main(int argc, char **argv);

// In place of an exit code: the child writes to memory that it does not have.
#define CRASH 0x7FFFFFFFu

// Starts a child that waits for child_release() before it exits with `code`.
// It runs as long as its control pipe is open, so it never outlives the test.
test_child
child_start(unsigned code);

void
child_release(test_child *child);

// Closes the handles; the child must have been released.
void
child_done(test_child *child);

// The path of this program.
const char *
own_path(void);

// Number of open handles of this process. The thread pool of the system has
// some of its own, as soon as a set was used.
unsigned
count_handles(void);

// Whether this is Wine, and not Windows.
bool
is_wine(void);

// Names a test that cannot be run here, and why.
#define SKIP(test, reason) printf("skipped %s: %s\n", #test, reason)

#endif
