#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "procset.h"
#include "shell.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

// Every test runs with the features of this system, and with fewer.
static unsigned features;

static procset_launch *
open_launch(const char *path)
{
    return launch_of(features, path);
}

static int
wait_status(procset_launch *launch, size_t index)
{
    return status_of_shell(features, launch, index);
}

static void
test_calls_out_of_order_are_refused(void)
{
    procset_launch *launch = open_launch(SHELL);
    procset_handle handle = 7;
    int64_t pid = 7;

    CHECK_INT(procset_error_kind(procset_launch_argument(launch, "x")), ==,
              PROCSET_KIND_INVALID);
    CHECK_INT(procset_error_kind(procset_launch_inherit(launch, 1)), ==,
              PROCSET_KIND_INVALID);
    CHECK_INT(procset_error_kind(procset_launch_block(launch, 0)), ==,
              PROCSET_KIND_INVALID);
    CHECK_INT(procset_error_kind(procset_launch_block(launch, 65)), ==,
              PROCSET_KIND_INVALID);
    add_script(launch, "exit 0");
    CHECK_INT(
        procset_error_kind(procset_launch_take(launch, 0, &pid, &handle)), ==,
        PROCSET_KIND_INVALID);
    CHECK_INT(pid, ==, 7);
    CHECK_INT(handle, ==, 7);
    CHECK(procset_launch_close(launch) == NULL);
    CHECK(procset_launch_close(NULL) == NULL);
}

static void
test_an_empty_launch_starts_nothing(void)
{
    procset_launch *launch = open_launch("/nowhere");

    OK(procset_launch_start(launch));
    CHECK(procset_launch_close(launch) == NULL);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), ==, -1);
    CHECK_INT(errno, ==, ECHILD);
}

static void
test_each_has_its_arguments_and_the_environment(void)
{
    procset_launch *launch;
    char script[64];

    CHECK_INT(setenv("PROCSET_TEST", "seven", 1), ==, 0);
    launch = open_launch(SHELL);
    // A change that comes later is not seen.
    CHECK_INT(setenv("PROCSET_TEST", "eight", 1), ==, 0);
    for (int i = 0; i < 20; i++) {
        snprintf(script, sizeof(script),
                 "test $PROCSET_TEST = seven && exit %d", i);
        add_script(launch, script);
    }
    OK(procset_launch_start(launch));
    CHECK_INT(procset_error_kind(procset_launch_start(launch)), ==,
              PROCSET_KIND_INVALID);
    for (int i = 0; i < 20; i++) {
        int status = wait_status(launch, (size_t) i);

        CHECK(WIFEXITED(status));
        CHECK_INT(WEXITSTATUS(status), ==, i);
    }
    CHECK(procset_launch_close(launch) == NULL);
    unsetenv("PROCSET_TEST");
}

static void
test_only_intended_descriptors_are_inherited(void)
{
    procset_launch *launch = open_launch(SHELL);
    int leak = open("/dev/null", O_RDWR);
    int wanted[2];
    char script[256];
    int status;

    open_pair(wanted);
    // A shell knows descriptors of one digit only.
    CHECK_INT(wanted[1], <, 10);
    snprintf(script, sizeof(script),
             "exec 2>/dev/null; (: <&%d) && exit 3; (: >&%d) || exit 4; "
             "(: <&%d) && exit 5; exit 0",
             leak, wanted[1], wanted[0]);
    add_script(launch, script);
    OK(procset_launch_inherit(launch, wanted[1]));
    OK(procset_launch_start(launch));
    status = wait_status(launch, 0);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), ==, 0);
    // Nothing has changed here.
    CHECK_INT(fcntl(leak, F_GETFD), ==, 0);
    CHECK_INT(fcntl(wanted[1], F_GETFD), ==, FD_CLOEXEC);
    CHECK(procset_launch_close(launch) == NULL);
    close(leak);
    close(wanted[0]);
    close(wanted[1]);
}

static void
test_a_descriptor_that_is_not_open_is_an_error(void)
{
    procset_launch *launch = open_launch(SHELL);
    int r;

    add_script(launch, "exit 0");
    OK(procset_launch_inherit(launch, 987));
    r = procset_launch_start(launch);
    CHECK_INT(r, <, 0);
    CHECK_STR(procset_error_call(r), "fcntl");
    CHECK_INT(procset_error_code(r), ==, EBADF);
    CHECK(procset_launch_close(launch) == NULL);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), ==, -1);
}

static void
test_a_program_that_is_not_there_is_an_error(void)
{
    procset_launch *launch = open_launch("/nowhere/at/all");
    int before = count_descriptors();
    int r;

    for (int i = 0; i < 3; i++) {
        add_script(launch, "exit 0");
    }
    r = procset_launch_start(launch);
    CHECK_INT(r, <, 0);
    // The one system call of macOS is both fork() and execve().
    CHECK(strcmp(procset_error_call(r), "execve") == 0
          || strcmp(procset_error_call(r), "posix_spawn") == 0);
    CHECK_INT(procset_error_code(r), ==, ENOENT);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), ==, -1);
    CHECK_INT(errno, ==, ECHILD);
    CHECK_INT(count_descriptors(), ==, before);
    CHECK(procset_launch_close(launch) == NULL);
}

// The last of three cannot have its descriptor.
static void
test_all_or_nothing(void)
{
    procset_launch *launch = open_launch(SHELL);
    int before = count_descriptors();

    add_script(launch, "exec sleep 600");
    add_script(launch, "exec sleep 600");
    add_script(launch, "exit 0");
    OK(procset_launch_inherit(launch, 987));
    CHECK_INT(procset_launch_start(launch), <, 0);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), ==, -1);
    CHECK_INT(errno, ==, ECHILD);
    CHECK_INT(count_descriptors(), ==, before);
    CHECK(procset_launch_close(launch) == NULL);
}

typedef struct {
    procset_launch *launch;
} start_argument;

static void *
start_in_thread(void *argument)
{
    start_argument *start = argument;

    OK(procset_launch_start(start->launch));
    return NULL;
}

static void
test_the_end_of_the_starting_thread_ends_nobody(void)
{
    start_argument start = {.launch = open_launch(SHELL)};
    pthread_t thread;
    int ends[2], status;
    char script[64];

    open_pair(ends);
    CHECK_INT(ends[0], <, 10);
    snprintf(script, sizeof(script), "read line <&%d; exit 6", ends[0]);
    add_script(start.launch, script);
    OK(procset_launch_inherit(start.launch, ends[0]));
    CHECK_INT(pthread_create(&thread, NULL, start_in_thread, &start), ==, 0);
    CHECK_INT(pthread_join(thread, NULL), ==, 0);
    CHECK_INT(waitpid(-1, NULL, WNOHANG), ==, 0);
    CHECK_INT(write(ends[1], "\n", 1), ==, 1);
    status = wait_status(start.launch, 0);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), ==, 6);
    CHECK(procset_launch_close(start.launch) == NULL);
    close(ends[0]);
    close(ends[1]);
}

static void
test_out_of_descriptors(void)
{
    procset_launch *launch = open_launch(SHELL);
    struct rlimit limit, low;
    int r;

    for (int i = 0; i < 30; i++) {
        add_script(launch, "exec sleep 600");
    }
    CHECK_INT(getrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    low = limit;
    low.rlim_cur = 20;
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &low), ==, 0);
    r = procset_launch_start(launch);
    CHECK_INT(setrlimit(RLIMIT_NOFILE, &limit), ==, 0);
    if (features & PROCSET_FEATURE_PIDFD) {
        // Handles are wanted, and there are not enough.
        CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_LIMIT);
        CHECK_INT(waitpid(-1, NULL, WNOHANG), ==, -1);
    }
    else {
        OK(r);
    }
    if (r >= 0) {
        for (size_t i = 0; i < 30; i++) {
            int64_t pid;
            procset_handle handle;

            OK(procset_launch_take(launch, i, &pid, &handle));
            kill((pid_t) pid, SIGKILL);
            CHECK_INT(waitpid((pid_t) pid, NULL, 0), ==, pid);
            if (handle != PROCSET_HANDLE_INVALID) {
                close((int) handle);
            }
        }
    }
    CHECK(procset_launch_close(launch) == NULL);
}

static void
run_all(unsigned mask)
{
    features = mask;
    RUN(test_calls_out_of_order_are_refused);
    RUN(test_an_empty_launch_starts_nothing);
    RUN(test_each_has_its_arguments_and_the_environment);
    RUN(test_only_intended_descriptors_are_inherited);
    RUN(test_a_descriptor_that_is_not_open_is_an_error);
    RUN(test_a_program_that_is_not_there_is_an_error);
    RUN(test_all_or_nothing);
    RUN(test_the_end_of_the_starting_thread_ends_nobody);
    RUN(test_out_of_descriptors);
}

int
main(void)
{
    run_with_fewer_launches(run_all);
    return 0;
}
