// What a job of Windows is for: nothing outlives it.

#include "check.h"
#include "member.windows.h"
#include "program.windows.h"

// Ends a process that would go on for ever.
static void
terminate(procset_launch *launch, size_t index)
{
    procset_handle process;
    int64_t pid;

    OK(procset_launch_take(launch, index, &pid, &process));
    CHECK_INT(WaitForSingleObject((HANDLE) process, 0), ==, WAIT_TIMEOUT);
    CHECK(TerminateProcess((HANDLE) process, 1));
    CHECK_INT(procset_handle_close(process), ==, PROCSET_HANDLE_INVALID);
}

// Starts two processes, one of which goes on and one of which ends, with a
// child of their own each; returns when both children exist.
static procset_launch *
start_trees(procset_handle job, procset_handle *ret_pipe)
{
    procset_launch *launch = open_launch(own_path());
    procset_handle read_end, write_end;

    OK(procset_report_open(&read_end, &write_end));
    add_program(launch, "tree", write_end, NULL);
    OK(procset_launch_inherit(launch, write_end));
    add_program(launch, "orphan", write_end, NULL);
    OK(procset_launch_inherit(launch, write_end));
    OK(procset_launch_job(launch, job));
    OK(procset_launch_start(launch));
    CHECK(CloseHandle((HANDLE) write_end));
    wait_for_byte(read_end);
    wait_for_byte(read_end);
    *ret_pipe = read_end;
    return launch;
}

// The end of a job is the end of all that was ever started in it.
static void
test_nothing_outlives_its_job(void)
{
    procset_handle job, pipe;
    procset_launch *launch;
    char buffer[4];

    OK(procset_job_open(&job));
    launch = start_trees(job, &pipe);
    CHECK_INT(wait_code(launch, 1), ==, 3);
    CHECK_INT(procset_handle_close(job), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(read_all(pipe, buffer, sizeof(buffer)), ==, 0);
    CHECK_INT(procset_handle_close(pipe), ==, PROCSET_HANDLE_INVALID);
    CHECK(procset_launch_close(launch) == NULL);
}

// However a launcher ends, nothing of what it has started is left.
static void
test_nothing_outlives_its_launcher(void)
{
    procset_launch *launch = open_launch(own_path());
    procset_handle pipe = start_with_pipe(launch, "launcher", NULL);
    char buffer[4];

    wait_for_byte(pipe);
    terminate(launch, 0);
    CHECK_INT(read_all(pipe, buffer, sizeof(buffer)), ==, 0);
    CHECK_INT(procset_handle_close(pipe), ==, PROCSET_HANDLE_INVALID);
    CHECK(procset_launch_close(launch) == NULL);
}

// A rank's own job holds what it has left behind, and nothing of the others.
static void
test_each_has_a_job_of_its_own(void)
{
    procset_handle job, jobs[2], pipe;
    procset_launch *launch;
    char buffer[4];
    procset_handle process;
    int64_t pid;

    OK(procset_job_open(&job));
    launch = start_trees(job, &pipe);
    CHECK_INT(wait_code(launch, 1), ==, 3);
    for (size_t i = 0; i < 2; i++) {
        OK(procset_launch_take_job(launch, i, &jobs[i]));
    }
    OK(procset_job_end(jobs[1]));
    OK(procset_launch_take(launch, 0, &pid, &process));
    CHECK_INT(WaitForSingleObject((HANDLE) process, 0), ==, WAIT_TIMEOUT);
    OK(procset_job_end(jobs[0]));
    CHECK_INT(read_all(pipe, buffer, sizeof(buffer)), ==, 0);
    CHECK_INT(WaitForSingleObject((HANDLE) process, INFINITE), ==,
              WAIT_OBJECT_0);
    OK(procset_job_end(jobs[0]));
    for (size_t i = 0; i < 2; i++) {
        CHECK_INT(procset_handle_close(jobs[i]), ==, PROCSET_HANDLE_INVALID);
    }
    CHECK_INT(procset_handle_close(process), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(procset_handle_close(pipe), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(procset_handle_close(job), ==, PROCSET_HANDLE_INVALID);
    CHECK(procset_launch_close(launch) == NULL);
}

// A job that is cleared has no process left, and one without any is cleared.
static void
test_clearing(void)
{
    procset_handle job, jobs[2], pipe;
    procset_launch *launch;
    size_t left = 9;
    int64_t pid = 0;
    char buffer[4];

    OK(procset_job_open(&job));
    launch = start_trees(job, &pipe);
    CHECK_INT(wait_code(launch, 1), ==, 3);
    for (size_t i = 0; i < 2; i++) {
        OK(procset_launch_take_job(launch, i, &jobs[i]));
    }
    OK(procset_job_clear(jobs[0], 0, &left, &pid));
    CHECK_INT(left, >, 0);
    CHECK_INT(pid, >, 0);
    for (size_t i = 0; i < 4; i++) {
        left = 9;
        OK(procset_job_clear(jobs[i % 2], PROCSET_NEVER, &left, &pid));
        CHECK_INT(left, ==, 0);
    }
    CHECK_INT(read_all(pipe, buffer, sizeof(buffer)), ==, 0);
    for (size_t i = 0; i < 2; i++) {
        CHECK_INT(procset_handle_close(jobs[i]), ==, PROCSET_HANDLE_INVALID);
    }
    CHECK_INT(procset_handle_close(pipe), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(procset_handle_close(job), ==, PROCSET_HANDLE_INVALID);
    CHECK(procset_launch_close(launch) == NULL);
}

// Without an outer job, processes outlive the launch: a job of their own does
// not end them when its last handle is closed.
static void
test_a_closed_launch_ends_nobody(void)
{
    procset_launch *launch = open_launch(own_path());
    procset_handle pipe = start_with_pipe(launch, "sleep", NULL);
    procset_handle process;
    char buffer[4];
    int64_t pid;

    OK(procset_launch_take(launch, 0, &pid, &process));
    CHECK(procset_launch_close(launch) == NULL);
    CHECK_INT(WaitForSingleObject((HANDLE) process, 0), ==, WAIT_TIMEOUT);
    CHECK(TerminateProcess((HANDLE) process, 1));
    CHECK_INT(read_all(pipe, buffer, sizeof(buffer)), ==, 0);
    CHECK_INT(procset_handle_close(process), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(procset_handle_close(pipe), ==, PROCSET_HANDLE_INVALID);
}

// A set whose only member is the first process of start_trees().
typedef struct {
    procset *set;
    procset_handle job;
    procset_handle pipe;
    procset_launch *launch;
} tree_set;

static tree_set
open_tree_set(void)
{
    procset_member member = {.report = PROCSET_HANDLE_INVALID};
    tree_set made = {.set = NULL};
    size_t index;

    OK(procset_job_open(&made.job));
    made.launch = start_trees(made.job, &made.pipe);
    OK(procset_launch_take(made.launch, 0, &member.pid, &member.sentinel));
    OK(procset_launch_take_job(made.launch, 0, &member.job));
    OK(procset_open(procset_probe(), &made.set));
    OK(procset_add(made.set, &member, &index));
    CHECK_INT(procset_handle_close(member.job), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(procset_handle_close(member.sentinel), ==,
              PROCSET_HANDLE_INVALID);
    return made;
}

static procset_status
close_tree_set(tree_set *made)
{
    procset_status status;
    char buffer[4];

    CHECK_INT(wait_for_end(made->set), ==, 0);
    OK(procset_get_status(made->set, 0, &status));
    made->set = procset_close(made->set);
    // What is left holds the pipe: the child of the other process.
    CHECK_INT(procset_handle_close(made->job), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(read_all(made->pipe, buffer, sizeof(buffer)), ==, 0);
    CHECK_INT(procset_handle_close(made->pipe), ==, PROCSET_HANDLE_INVALID);
    CHECK(procset_launch_close(made->launch) == NULL);
    return status;
}

// A member with a job is ended with all that it has started.
static void
test_signal_of_a_member_with_a_job(void)
{
    tree_set made = open_tree_set();
    procset_status status;

    OK(procset_signal(made.set, 0, SIGNAL_TERM));
    status = close_tree_set(&made);
    CHECK_INT(status.state, ==, PROCSET_SIGNALED);
    CHECK_INT(status.code, ==, SIGNAL_TERM);
}

// A rank can be asked to stop, and only that one hears it.
static void
test_asked_to_stop(void)
{
    tree_set made = open_tree_set();
    int r = procset_signal(made.set, 0, SIGNAL_BREAK);

    if (r < 0 && is_wine()) {
        CHECK_STR(procset_error_call(r), "GenerateConsoleCtrlEvent");
        SKIP(test_asked_to_stop, "Wine sends CTRL_BREAK to no process group");
        OK(procset_signal(made.set, 0, SIGNAL_TERM));
        (void) close_tree_set(&made);
        return;
    }
    OK(r);
    CHECK_INT((unsigned) close_tree_set(&made).code, ==,
              STATUS_CONTROL_C_EXIT);
}

static void
run_all(void)
{
    RUN(test_nothing_outlives_its_job);
    RUN(test_nothing_outlives_its_launcher);
    RUN(test_each_has_a_job_of_its_own);
    RUN(test_clearing);
    RUN(test_a_closed_launch_ends_nobody);
    RUN(test_signal_of_a_member_with_a_job);
    RUN(test_asked_to_stop);
}

int
main(int argc, char **argv)
{
    return run_program(argc, argv, run_all);
}
