// Where nothing lists all processes with what they have inherited.

#include "hunt.h"

#include "error.h"

bool
procset__hunt_works(void)
{
    return false;
}

int
procset__hunt_mark(const char *job, size_t rank)
{
    (void) job;
    (void) rank;
    return procset__error_invalid(PROCSET__CALL_TREE);
}

int
procset__hunt_open(procset__hunt *hunt)
{
    (void) hunt;
    return procset__error_invalid(PROCSET__CALL_TREE);
}

void
procset__hunt_done(procset__hunt *hunt)
{
    (void) hunt;
}

int
procset__hunt_snapshot(procset__hunt *hunt)
{
    (void) hunt;
    return procset__error_invalid(PROCSET__CALL_TREE);
}

void
procset__hunt_add(procset__hunt *hunt, int64_t pid, size_t rank)
{
    (void) hunt;
    (void) pid;
    (void) rank;
}

void
procset__hunt_follow(procset__hunt *hunt, int64_t pid, size_t rank)
{
    (void) hunt;
    (void) pid;
    (void) rank;
}

void
procset__hunt_extend(procset__hunt *hunt)
{
    (void) hunt;
}

int
procset__hunt_kill(procset__hunt *hunt, int64_t deadline)
{
    (void) hunt;
    (void) deadline;
    return procset__error_invalid(PROCSET__CALL_TREE);
}

size_t
procset__hunt_left(const procset__hunt *hunt, int64_t *ret_pid)
{
    (void) hunt;
    (void) ret_pid;
    return 0;
}

int
procset__hunt_down(procset__hunt *hunt, int64_t deadline)
{
    (void) hunt;
    (void) deadline;
    return procset__error_invalid(PROCSET__CALL_TREE);
}
