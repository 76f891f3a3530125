// What becomes of the launcher's signal mask and dispositions.

#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "procset.h"
#include "shell.h"

#include <pthread.h>
#include <signal.h>
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
handler(int signal)
{
    (void) signal;
}

// The wait status of a shell that sends this signal to itself, and exits with
// 5 if that does not end it.
static int
kill_itself(int signal)
{
    procset_launch *launch = open_launch(SHELL);
    char script[64];
    int status;

    snprintf(script, sizeof(script), "kill -%d $$; exit 5", signal);
    add_script(launch, script);
    OK(procset_launch_start(launch));
    status = wait_status(launch, 0);
    CHECK(procset_launch_close(launch) == NULL);
    return status;
}

static void
test_signal_mask_and_dispositions_are_reset(void)
{
    const int reset[] = {SIGUSR1, SIGUSR2, SIGPIPE, SIGALRM, SIGTERM};
    sigset_t all, before;
    int status;

    sigfillset(&all);
    CHECK_INT(pthread_sigmask(SIG_BLOCK, &all, &before), ==, 0);
    signal(SIGUSR1, handler);
    signal(SIGUSR2, SIG_IGN);
    signal(SIGPIPE, SIG_IGN);
    for (size_t i = 0; i < sizeof(reset) / sizeof(*reset); i++) {
        status = kill_itself(reset[i]);
        CHECK(WIFSIGNALED(status));
        CHECK_INT(WTERMSIG(status), ==, reset[i]);
    }
    // What nohup does for a whole job stays.
    signal(SIGHUP, SIG_IGN);
    status = kill_itself(SIGHUP);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), ==, 5);
    signal(SIGHUP, SIG_DFL);
    signal(SIGUSR1, SIG_DFL);
    signal(SIGUSR2, SIG_DFL);
    signal(SIGPIPE, SIG_DFL);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, NULL, &all), ==, 0);
    CHECK_INT(sigismember(&all, SIGUSR1), ==, 1);
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &before, NULL), ==, 0);
}

#ifdef __linux__
// The exit code of one shell that runs `script`.
static int
run_script(const char *script)
{
    procset_launch *launch = open_launch(SHELL);
    int status;

    add_script(launch, script);
    OK(procset_launch_start(launch));
    status = wait_status(launch, 0);
    CHECK(procset_launch_close(launch) == NULL);
    CHECK(WIFEXITED(status));
    return WEXITSTATUS(status);
}

// Compares the signals 1 to 28 in the line `name` of the /proc/self/status of
// a shell; zero if they are `expected`. Whoever uses posix_spawn() of glibc,
// as make does, has started us with its two internal signals ignored.
static int
compare_status(const char *name, const char *expected,
               int (*run)(const char *script))
{
    char script[256];

    snprintf(script, sizeof(script),
             "while read key value; do if test $key = %s:; then "
             "case $value in *%s) exit 0;; esac; exit 1; fi; done "
             "</proc/self/status; exit 9",
             name, expected);
    return run(script);
}

static void
test_every_signal_is_reset(void)
{
    const int job[] = {SIGQUIT, SIGTSTP, SIGTTIN, SIGTTOU};
    sigset_t all, before;
    bool shows_ignored;

    for (size_t i = 0; i < sizeof(job) / sizeof(*job); i++) {
        signal(job[i], SIG_IGN);
    }
    shows_ignored = compare_status("SigIgn", "0380004", system) == 0;
    sigfillset(&all);
    CHECK_INT(pthread_sigmask(SIG_BLOCK, &all, &before), ==, 0);
    for (int number = 1; number < NSIG; number++) {
        // It fails for those that cannot be ignored.
        (void) signal(number, SIG_IGN);
    }
    signal(SIGHUP, handler);
    signal(SIGINT, handler);
    // Ignored, it would leave nobody to wait for.
    signal(SIGCHLD, handler);
    CHECK_INT(compare_status("SigBlk", "0000000", run_script), ==, 0);
    // Those of a job are left: QUIT, TSTP, TTIN and TTOU. In what qemu shows
    // of a program they cannot be seen: it handles some of them itself.
    if (shows_ignored) {
        CHECK_INT(compare_status("SigIgn", "0380004", run_script), ==, 0);
    }
    for (int number = 1; number < NSIG; number++) {
        (void) signal(number, SIG_DFL);
    }
    CHECK_INT(pthread_sigmask(SIG_SETMASK, &before, NULL), ==, 0);
}
#endif

static void
test_a_signal_can_stay_blocked(void)
{
    procset_launch *launch = open_launch(SHELL);
    int status;

    add_script(launch, "kill -INT $$; exit 5");
    OK(procset_launch_block(launch, SIGINT));
    OK(procset_launch_start(launch));
    status = wait_status(launch, 0);
    CHECK(WIFEXITED(status));
    CHECK_INT(WEXITSTATUS(status), ==, 5);
    CHECK(procset_launch_close(launch) == NULL);
}

static void
run_all(unsigned mask)
{
    features = mask;
    RUN(test_signal_mask_and_dispositions_are_reset);
#ifdef __linux__
    RUN(test_every_signal_is_reset);
#endif
    RUN(test_a_signal_can_stay_blocked);
}

int
main(void)
{
    run_with_fewer_launches(run_all);
    return 0;
}
