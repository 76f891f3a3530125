#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "job_name.h"
#include "memfd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

static unsigned features;

// What a rank does when it has its guard, and has started a child.
typedef void (*rank_body)(void);

// Each rank has a number of its own: what ended the last one may still look
// for its descendants.
static size_t rank_number;

static int told[2]; // ranks and their children write their pids here

static void
tell_pid(void)
{
    pid_t pid = getpid();

    CHECK_INT(write(told[1], &pid, sizeof(pid)), ==, sizeof(pid));
}

static pid_t
hear_pid(void)
{
    pid_t pid;

    CHECK_INT(read(told[0], &pid, sizeof(pid)), ==, sizeof(pid));
    return pid;
}

static void
sleep_on(void)
{
    for (;;) {
        pause();
    }
}

static void
close_everything(void)
{
    for (int fd = 0; fd < 256; fd++) {
        close(fd);
    }
    sleep_on();
}

static void
block_everything(void)
{
    sigset_t all;

    sigfillset(&all);
    sigprocmask(SIG_SETMASK, &all, NULL);
    sleep_on();
}

static void
stop_itself(void)
{
    raise(SIGSTOP);
    sleep_on();
}

static void
spin(void)
{
    for (volatile int i = 0;; i++) {
    }
}

// A rank of a launcher that holds the other end of `life`.
static _Noreturn void
be_rank(int life, bool by_handle, rank_body body)
{
    procset_guard guard = {
        .features = features,
        .pipe = life,
        .launcher = PROCSET_HANDLE_INVALID,
        .job = job,
        .rank = rank_number,
        .board = PROCSET_HANDLE_INVALID,
    };
    bool has_own_table;
    char name[96];
    int fd;

    snprintf(name, sizeof(name), "flamespawn-%s.%zu", job, rank_number);
    fd = make_memfd(name);
    CHECK(mmap(NULL, 1, PROT_NONE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
    close(fd);
    if (by_handle) {
        guard.launcher = syscall(SYS_pidfd_open, getppid(), 0);
    }
    OK(procset_guard_start(&guard, &has_own_table));
    if (fork() == 0) {
        // An orphan of its own making.
        if (fork() == 0) {
            tell_pid();
            sleep_on();
        }
        _exit(0);
    }
    CHECK_INT(wait(NULL), >, 0);
    tell_pid();
    body();
    _exit(0);
}

// Starts a launcher with one rank, kills it in one of several ways, and waits
// until the rank and its descendant are gone.
static void
check_end(rank_body body, bool by_handle, bool leaks_pipe, bool execs)
{
    int life[2], end[2];
    pid_t launcher, rank, one, other;
    char byte;

    rank_number++;
    CHECK_INT(pipe2(life, O_CLOEXEC), ==, 0);
    CHECK_INT(pipe2(end, O_CLOEXEC), ==, 0);
    launcher = fork();
    if (launcher == 0) {
        close(end[1]);
        rank = fork();
        if (rank == 0) {
            close(life[1]);
            be_rank(life[0], by_handle, body);
        }
        if (body == stop_itself) {
            CHECK_INT(waitpid(rank, NULL, WUNTRACED), ==, rank);
        }
        if (!leaks_pipe) {
            close(life[0]);
        }
        // Until the test says so.
        CHECK_INT(read(end[0], &byte, 1), ==, 1);
        if (execs) {
            char *arguments[] = {"sleep", "0", NULL};

            execv("/bin/sleep", arguments);
        }
        kill(getpid(), SIGKILL);
    }
    close(life[0]);
    if (!leaks_pipe) {
        close(life[1]);
    }
    close(end[0]);
    one = hear_pid();
    other = hear_pid();
    CHECK_INT(write(end[1], "x", 1), ==, 1);
    close(end[1]);
    CHECK_INT(waitpid(launcher, NULL, 0), ==, launcher);
    // Both become children of this process, wherever their parents were.
    CHECK_INT(waitpid(one, NULL, 0), ==, one);
    CHECK_INT(waitpid(other, NULL, 0), ==, other);
    if (leaks_pipe) {
        close(life[1]);
    }
}

static bool
has_pidfd(void)
{
    return (features & PROCSET_FEATURE_PIDFD) != 0;
}

static void
test_rank_that_sleeps(void)
{
    check_end(sleep_on, has_pidfd(), false, false);
}

static void
test_rank_that_has_blocked_all_signals(void)
{
    check_end(block_everything, has_pidfd(), false, false);
}

static void
test_rank_that_has_closed_all_descriptors(void)
{
    check_end(close_everything, has_pidfd(), false, false);
}

static void
test_rank_that_is_stopped(void)
{
    check_end(stop_itself, has_pidfd(), false, false);
}

static void
test_rank_that_computes(void)
{
    check_end(spin, has_pidfd(), false, false);
}

// Somebody else holds the launcher's end of the pipe, such as a fork of it.
static void
test_pipe_that_lives_on(void)
{
    if (has_pidfd()) {
        check_end(sleep_on, true, true, false);
    }
}

static void
test_launcher_that_becomes_another_program(void)
{
    check_end(sleep_on, has_pidfd(), false, true);
}

// Starts a rank of three that share a board. It starts a child in a session of
// its own, tells the pid of that, and ends by itself unless it is the last.
static void
start_rank_with_board(size_t rank, const int *life, int board)
{
    procset_guard guard = {
        .features = features,
        .pipe = life[0],
        .launcher = PROCSET_HANDLE_INVALID,
        .job = job,
        .rank = rank,
        .board = board,
        .world_size = 3,
    };
    bool has_own_table;
    pid_t pid = fork();

    if (pid == 0) {
        close(life[1]);
        OK(procset_tree_mark(job, rank));
        OK(procset_guard_start(&guard, &has_own_table));
        if (rank == 2) {
            tell_pid();
            sleep_on();
        }
        if (fork() == 0) {
            setsid();
            tell_pid();
            sleep_on();
        }
        if (rank == 1) {
            procset_guard_ended_well();
        }
        _exit(1);
    }
    if (rank != 2) {
        CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
    }
}

// What a rank has left that failed is ended by the guard of another, and what
// one has left that ended well is not.
static void
test_ranks_that_are_dead_already(void)
{
    int board = make_memfd("board");
    pid_t left[3];
    int life[2];

    CHECK_INT(ftruncate(board, 3 * (off_t) PROCSET_BOARD_ENTRY_SIZE), ==, 0);
    CHECK_INT(pipe2(life, O_CLOEXEC), ==, 0);
    for (size_t rank = 0; rank < 3; rank++) {
        start_rank_with_board(rank, life, board);
        left[rank] = hear_pid();
    }
    close(life[0]);
    close(life[1]);
    close(board);
    CHECK_INT(waitpid(left[2], NULL, 0), ==, left[2]);
    CHECK_INT(waitpid(left[0], NULL, 0), ==, left[0]);
    CHECK_INT(waitpid(left[1], NULL, WNOHANG), ==, 0);
    CHECK_INT(kill(left[1], SIGKILL), ==, 0);
    CHECK_INT(waitpid(left[1], NULL, 0), ==, left[1]);
}

// A rank whose launcher has died before does not come to its function.
static void
test_launcher_that_is_gone_already(void)
{
    procset_guard guard = {
        .features = features,
        .launcher = PROCSET_HANDLE_INVALID,
        .job = job,
        .rank = ++rank_number,
        .board = PROCSET_HANDLE_INVALID,
    };
    bool has_own_table;
    int life[2], status;
    pid_t pid;

    CHECK_INT(pipe2(life, O_CLOEXEC), ==, 0);
    close(life[1]);
    guard.pipe = life[0];
    pid = fork();
    if (pid == 0) {
        OK(procset_guard_start(&guard, &has_own_table));
        _exit(0);
    }
    CHECK_INT(waitpid(pid, &status, 0), ==, pid);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    close(life[0]);
}

static void
test_all(unsigned mask)
{
    features = procset_probe() & mask;
    RUN(test_rank_that_sleeps);
    RUN(test_rank_that_has_blocked_all_signals);
    RUN(test_rank_that_has_closed_all_descriptors);
    RUN(test_rank_that_is_stopped);
    RUN(test_rank_that_computes);
    RUN(test_pipe_that_lives_on);
    RUN(test_launcher_that_becomes_another_program);
    RUN(test_ranks_that_are_dead_already);
    RUN(test_launcher_that_is_gone_already);
}

int
main(void)
{
    alarm(240);
    name_job();
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), ==, 0);
    CHECK_INT(pipe2(told, O_CLOEXEC), ==, 0);
    test_all(~0u);
    test_all(~PROCSET_FEATURE_PIDFD);
    test_all(~PROCSET_FEATURE_VFORK);
    return 0;
}
