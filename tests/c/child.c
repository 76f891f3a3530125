#define _GNU_SOURCE

#include "child.h"

#include "check.h"
#include "clock.h"
#include "pipe.h"

#include <pthread.h>
#include <signal.h>
#include <sys/wait.h>
#include <unistd.h>

#define LIVENESS_NS (20 * (int64_t) 1000000000)

void
open_pair(int ends[2])
{
    procset__pipe pipe;

    OK(procset__pipe_open_blocking(&pipe));
    ends[0] = (int) pipe.read;
    ends[1] = (int) pipe.write;
}

test_child
child_start(child_kind kind, int value)
{
    int control[2], ready[2];
    test_child child;
    char byte;

    open_pair(control);
    open_pair(ready);
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

procset_member
member_of(const test_child *child)
{
    return (procset_member) {
        .pid = child->pid,
        .sentinel = PROCSET_HANDLE_INVALID,
        .report = PROCSET_HANDLE_INVALID,
        .job = PROCSET_HANDLE_INVALID,
    };
}

procset *
set_of(unsigned features, const test_child *children, size_t count)
{
    procset *set = NULL;
    size_t index = 99;

    OK(procset_open(features, &set));
    for (size_t i = 0; i < count; i++) {
        procset_member member = member_of(&children[i]);

        OK(procset_add(set, &member, &index));
        CHECK_INT(index, ==, i);
    }
    return set;
}

procset_status
status_of(procset *set, size_t index)
{
    procset_status status = {0};

    OK(procset_get_status(set, index, &status));
    return status;
}

// Blocks until the threads of a fall-back have ended: each is gone a moment
// after the child that it waited for.
static void
check_nothing_left(int descriptors, int threads)
{
    int64_t deadline = procset__now() + 10 * (int64_t) 1000000000;

    while (count_threads() > threads && procset__now() < deadline) {
        // The kernel does not tell when a detached thread is gone.
        (void) usleep(1000);
    }
    // Fewer where the thread of run_with_fewer() was still about to end.
    CHECK_INT(count_threads(), <=, threads);
    CHECK_INT(count_descriptors(), ==, descriptors);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), ==, -1);
}

static void *
do_nothing(void *argument)
{
    return argument;
}

void
run_with_fewer(void (*run_all)(unsigned features))
{
    unsigned offered = procset_probe();
    unsigned flavours[] = {offered, offered & ~WAITABLE, 0};
    pthread_t thread;

    // A sanitizer may start a thread of its own together with the first one.
    CHECK_INT(pthread_create(&thread, NULL, do_nothing, NULL), ==, 0);
    CHECK_INT(pthread_join(thread, NULL), ==, 0);

    for (size_t i = 0; i < 3; i++) {
        int before = count_descriptors(), threads = count_threads();

        printf("# features %u\n", flavours[i]);
        run_all(flavours[i]);
        check_nothing_left(before, threads);
    }
}
