// Starting a program with fork(), and a pipe that closes on execve().
//
// fork() runs what was registered with pthread_atfork().

#define _GNU_SOURCE

#include "launch_child.h"

#include "error.h"
#include "handle.h"
#include "pipe.h"

#include <errno.h>
#include <unistd.h>

procset__child_plan
procset__child_plan_of(const procset_launch *launch,
                       const procset__launchee *entry)
{
    return (procset__child_plan) {
        .path = launch->path,
        .arguments = procset__words_items(&entry->arguments),
        .environment = procset__words_items(&launch->environment),
        .blocked = launch->blocked,
        .errors = entry->errors,
        .errors_offset = entry->errors_offset,
        .inherited = entry->inherited,
        .inherited_count = entry->inherited_count,
        .has_close_range = launch->features & PROCSET_FEATURE_CLOSE_RANGE,
    };
}

// Returns the error that a forked child has written to `read_end`, or zero
// when the pipe was closed by the start of the program.
static int
read_error(procset_handle read_end)
{
    int error = 0;
    ssize_t n;

    do {
        n = read((int) read_end, &error, sizeof(error));
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return procset__error_last(PROCSET__CALL_READ);
    }
    return n == (ssize_t) sizeof(error) ? error : 0;
}

int
procset__child_fork(const procset__child_plan *plan, procset__proc *proc)
{
    procset__pipe pipe;
    pid_t pid;
    int r;

    r = procset__pipe_open_blocking(&pipe);
    if (r < 0) {
        return r;
    }
    pid = fork();
    if (pid == 0) {
        r = procset__child_become(plan);
        // The launcher reads, or is gone; either way there is nobody to tell.
        (void) !write((int) pipe.write, &r, sizeof(r));
        procset__child_give_up();
    }
    r = pid < 0 ? procset__error_last(PROCSET__CALL_FORK) : 0;
    pipe.write = procset__handle_close(pipe.write);
    if (r == 0) {
        proc->pid = pid;
        r = read_error(pipe.read);
    }
    (void) procset__pipe_close(pipe);
    return r;
}
