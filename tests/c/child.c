#define _GNU_SOURCE

#include "child.h"

#include "check.h"
#include "clock.h"

#include <dirent.h>
#include <fcntl.h>
#include <signal.h>
#include <unistd.h>

#define LIVENESS_NS (20 * (int64_t) 1000000000)

test_child
child_start(child_kind kind, int value)
{
    int control[2], ready[2];
    test_child child;
    char byte;

    CHECK_INT(pipe2(control, O_CLOEXEC), ==, 0);
    CHECK_INT(pipe2(ready, O_CLOEXEC), ==, 0);
    child.pid = fork();
    CHECK_INT(child.pid, >=, 0);
    if (child.pid == 0) {
        (void) close(control[1]);
        if (kind == CHILD_IGNORES) {
            (void) signal(value, SIG_IGN);
        }
        (void) close(ready[1]);
        (void) !read(control[0], &byte, 1);
        if (kind == CHILD_DIES) {
            (void) raise(value);
        }
        _exit(kind == CHILD_EXITS ? value : 0);
    }
    (void) close(control[0]);
    (void) close(ready[1]);
    CHECK_INT(read(ready[0], &byte, 1), ==, 0);
    (void) close(ready[0]);
    child.control = control[1];
    return child;
}

void
child_release(test_child *child)
{
    // A byte and not just the end of the file: later children hold copies of
    // this end. Nobody reads it when the child was killed.
    (void) signal(SIGPIPE, SIG_IGN);
    (void) !write(child->control, "x", 1);
    CHECK_INT(close(child->control), ==, 0);
    child->control = -1;
}

static int
count_entries(const char *path)
{
    DIR *directory = opendir(path);
    int count = 0;

    CHECK(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    CHECK_INT(closedir(directory), ==, 0);
    return count;
}

int
count_descriptors(void)
{
    return count_entries("/proc/self/fd");
}

int
count_threads(void)
{
    return count_entries("/proc/self/task");
}

size_t
wait_for_end(procset *set)
{
    int64_t deadline = procset__now() + LIVENESS_NS;
    procset_event event;
    size_t count = 0;

    do {
        OK(procset_wait(set, deadline, &event, 1, &count));
        CHECK_INT(procset__now(), <, deadline);
    } while (count == 0 || event.type != PROCSET_EVENT_ENDED);
    return event.index;
}
