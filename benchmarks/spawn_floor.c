// The least that starting N Python processes can cost: start all of them at
// once with posix_spawn(3), which has vfork(2) inside, and wait for all.
//
// It is the floor of start.py, and its output is that of a launcher: one line
// of JSON with the milliseconds from just before the first start until all
// processes have been reaped.
//
// usage: spawn_floor COUNT PROGRAM [ARGUMENT ...]

#define _GNU_SOURCE
#include <errno.h>
#include <spawn.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

static _Noreturn void
die(const char *what)
{
    perror(what);
    exit(1);
}

static double
now_ms(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    return (double) ts.tv_sec * 1e3 + (double) ts.tv_nsec / 1e6;
}

int
main(int argc, char **argv)
{
    if (argc < 3) {
        (void) fputs("usage: spawn_floor COUNT PROGRAM [ARGUMENT ...]\n",
                     stderr);
        return 2;
    }
    long count = strtol(argv[1], NULL, 10);

    double started = now_ms();
    for (long i = 0; i < count; i++) {
        pid_t pid;
        errno = posix_spawn(&pid, argv[2], NULL, NULL, argv + 2, environ);
        if (errno != 0) {
            die("posix_spawn");
        }
    }
    for (long i = 0; i < count; i++) {
        siginfo_t info;
        if (waitid(P_ALL, 0, &info, WEXITED) < 0) {
            die("waitid");
        }
        if (info.si_code != CLD_EXITED || info.si_status != 0) {
            (void) fprintf(stderr, "process %d failed\n", (int) info.si_pid);
            return 1;
        }
    }
    printf("{\"ms\": %.6f}\n", now_ms() - started);
    return 0;
}
