#define _GNU_SOURCE

#include "board.h"
#include "check.h"
#include "child.h"
#include "hunt.h"
#include "job_name.h"
#include "memfd.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdarg.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define LONG_NS (30 * INT64_C(1000000000))

static unsigned features;

static int64_t
after(int64_t ns)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t) now.tv_sec * 1000000000 + now.tv_nsec + ns;
}

// A text with the name of the job in it; valid until the next call.
static const char *
marked(const char *before, const char *after)
{
    static char text[96];

    snprintf(text, sizeof(text), "%s%s%s", before, job, after);
    return text;
}

// A program that does nothing for as long as this one lives.
static _Noreturn void
become_sleeper(const char *variable)
{
    char *arguments[] = {"sleep", "600", NULL};
    char *environment[] = {"A=b", (char *) variable, NULL};

    execve("/bin/sleep", arguments, environment);
    _exit(127);
}

// Forks; the child is gone with its parent.
static pid_t
fork_bound(void)
{
    pid_t pid = fork();

    CHECK_INT(pid, >=, 0);
    if (pid == 0) {
        CHECK_INT(prctl(PR_SET_PDEATHSIG, SIGKILL), ==, 0);
    }
    return pid;
}

// Waits until the child has become the other program.
static void
wait_for_program(pid_t pid)
{
    char path[64], text[64] = "";

    snprintf(path, sizeof(path), "/proc/%d/comm", (int) pid);
    while (strcmp(text, "sleep\n") != 0) {
        FILE *file = fopen(path, "r");

        CHECK(file != NULL);
        CHECK(fgets(text, sizeof(text), file) != NULL);
        fclose(file);
        poll(NULL, 0, 1);
    }
}

static pid_t
start_sleeper(const char *variable)
{
    pid_t pid = fork_bound();

    if (pid == 0) {
        become_sleeper(variable);
    }
    wait_for_program(pid);
    return pid;
}

// A process that ends in the moment after it was listed, and leaves a child.
static struct {
    char path[64]; // that is opened then
    pid_t pid;
    pid_t child;
    bool is_collected; // at once
    int go[2];
    int told[2];
} passing;

static void
let_it_pass(void)
{
    siginfo_t info;

    passing.path[0] = '\0';
    CHECK_INT(write(passing.go[1], "x", 1), ==, 1);
    CHECK_INT(read(passing.told[0], &passing.child, sizeof(pid_t)), ==,
              sizeof(pid_t));
    CHECK_INT(waitid(P_PID, (id_t) passing.pid, &info,
                     WEXITED | (passing.is_collected ? 0 : WNOWAIT)),
              ==, 0);
}

// A guard that comes to claim its own rank when that has been claimed, and a
// process of the rank is about to be looked at.
static struct {
    char path[64];
    procset__board_entry *board;
} late;

// The one of the C library, which the tree calls, too.
int
open(const char *path, int flags, ...)
{
    mode_t mode = 0;
    va_list arguments;

    va_start(arguments, flags);
    if (flags & O_CREAT) {
        mode = va_arg(arguments, mode_t);
    }
    va_end(arguments);
    if (passing.path[0] != '\0' && strcmp(path, passing.path) == 0) {
        let_it_pass();
    }
    if (late.path[0] != '\0' && strcmp(path, late.path) == 0) {
        late.path[0] = '\0';
        CHECK(!procset__board_claim(late.board, 1, 1));
        procset__board_end_well(late.board, 1);
    }
    return (int) syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

static bool
is_running(pid_t pid)
{
    siginfo_t info = {0};

    CHECK_INT(waitid(P_PID, (id_t) pid, &info, WEXITED | WNOHANG | WNOWAIT),
              ==, 0);
    return info.si_pid == 0;
}

static void
end(pid_t pid)
{
    kill(pid, SIGKILL);
    CHECK_INT(waitpid(pid, NULL, 0), ==, pid);
}

static procset_tree *
open_tree(void)
{
    procset_tree *tree;

    OK(procset_tree_open(features, job, &tree));
    return tree;
}

// Ends one rank's descendants, all of which must be gone after that.
static void
end_rank(procset_tree *tree, size_t rank)
{
    size_t left = 99;
    int64_t pid;

    OK(procset_tree_end(tree, &rank, 1, after(LONG_NS), &left, &pid));
    CHECK_INT(left, ==, 0);
}

static void
test_without_the_feature(void)
{
    procset_tree *tree = NULL;

    CHECK_INT(procset_tree_open(features & ~PROCSET_FEATURE_TREE, job, &tree),
              <, 0);
    CHECK(procset_tree_close(NULL) == NULL);
}

// The mark of a rank finds what carries it, and nothing else: not what another
// rank has started, whose number only begins in the same way.
static void
test_marks(void)
{
    procset_tree *tree = open_tree();
    int descriptors = count_descriptors();
    pid_t own = start_sleeper(marked("FLAMESPAWN_JOB=", ".1"));
    pid_t nested = start_sleeper(marked("FLAMESPAWN_JOB=", ".1:ffff.0"));
    pid_t other = start_sleeper(marked("FLAMESPAWN_JOB=", ".12"));
    pid_t none = start_sleeper(marked("FLAMESPAWN_JOB=", ""));

    end_rank(tree, 1);
    CHECK(!is_running(own));
    CHECK(!is_running(nested));
    CHECK(is_running(other));
    CHECK(is_running(none));
    CHECK_INT(count_descriptors(), ==, descriptors);
    end(own);
    end(nested);
    end(other);
    end(none);
    tree = procset_tree_close(tree);
}

// A mark is found wherever it is in a large environment.
static void
test_mark_in_a_large_environment(void)
{
    procset_tree *tree = open_tree();

    for (size_t size = 8150; size < 8200; size += 7) {
        char *variable = calloc(1, size + 64);
        pid_t pid;

        memset(variable, 'x', size);
        memcpy(variable, "X=", 2);
        strcpy(variable + size, marked("", ".1"));
        pid = start_sleeper(variable);
        end_rank(tree, 12);
        CHECK(is_running(pid));
        end_rank(tree, 1);
        CHECK(!is_running(pid));
        end(pid);
        free(variable);
    }
    tree = procset_tree_close(tree);
}

// A fork carries the mark in its mappings, whatever descriptors it has closed
// and however dead its parent is.
static void
test_marks_of_forks(void)
{
    procset_tree *tree = open_tree();
    int ends[2];
    pid_t rank, orphan = 0;

    CHECK_INT(pipe(ends), ==, 0);
    rank = fork_bound();
    if (rank == 0) {
        int fd = make_memfd(marked("flamespawn-", ".3"));

        CHECK(mmap(NULL, 1, PROT_NONE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
        close(fd);
        orphan = fork();
        if (orphan == 0) {
            pause();
        }
        CHECK_INT(write(ends[1], &orphan, sizeof(orphan)), ==, sizeof(orphan));
        _exit(0);
    }
    CHECK_INT(read(ends[0], &orphan, sizeof(orphan)), ==, sizeof(orphan));
    CHECK_INT(waitpid(rank, NULL, 0), ==, rank);
    CHECK(is_running(orphan));
    end_rank(tree, 2);
    CHECK(is_running(orphan));
    end_rank(tree, 3);
    CHECK(!is_running(orphan));
    end(orphan);
    close(ends[0]);
    close(ends[1]);
    tree = procset_tree_close(tree);
}

// What was seen below a living rank is remembered when it is dead, also where
// nothing is left of the environment.
static void
test_look(void)
{
    procset_tree *tree = open_tree();
    size_t ranks[] = {5};
    int64_t pids[1];
    int ends[2];
    pid_t rank, orphan = 0;

    CHECK_INT(pipe(ends), ==, 0);
    rank = fork_bound();
    if (rank == 0) {
        orphan = fork();
        if (orphan == 0) {
            become_sleeper("B=c");
        }
        CHECK_INT(write(ends[1], &orphan, sizeof(orphan)), ==, sizeof(orphan));
        pause();
    }
    CHECK_INT(read(ends[0], &orphan, sizeof(orphan)), ==, sizeof(orphan));
    pids[0] = rank;
    OK(procset_tree_look(tree, pids, ranks, 1));
    end(rank);
    CHECK(is_running(orphan));
    end_rank(tree, 4);
    CHECK(is_running(orphan));
    end_rank(tree, 5);
    CHECK(!is_running(orphan));
    end(orphan);
    close(ends[0]);
    close(ends[1]);
    tree = procset_tree_close(tree);
}

// Nothing escapes by starting others as fast as it can.
static void
test_what_multiplies(void)
{
    procset_tree *tree = open_tree();
    int ends[2];
    char byte;
    pid_t rank;

    CHECK_INT(pipe(ends), ==, 0);
    rank = fork_bound();
    if (rank == 0) {
        int fd = make_memfd(marked("flamespawn-", ".6"));

        close(ends[0]);
        CHECK(mmap(NULL, 1, PROT_NONE, MAP_PRIVATE, fd, 0) != MAP_FAILED);
        CHECK_INT(write(ends[1], "x", 1), ==, 1);
        // Each child is the only one to fork again; should the test fail, they
        // end by themselves.
        for (int i = 0; i < 1000 && fork() == 0; i++) {
        }
        poll(NULL, 0, 2);
        _exit(0);
    }
    close(ends[1]);
    CHECK_INT(read(ends[0], &byte, 1), ==, 1);
    end_rank(tree, 6);
    // All of them have held the other end.
    CHECK_INT(read(ends[0], &byte, 1), ==, 0);
    close(ends[0]);
    tree = procset_tree_close(tree);
}

static void
check_passing(bool is_collected)
{
    procset_tree *tree = open_tree();
    char byte;

    CHECK_INT(pipe2(passing.go, O_CLOEXEC), ==, 0);
    CHECK_INT(pipe2(passing.told, O_CLOEXEC), ==, 0);
    passing.is_collected = is_collected;
    passing.pid = fork();
    if (passing.pid == 0) {
        close(passing.go[1]);
        OK(procset_tree_mark(job, 7));
        CHECK_INT(read(passing.go[0], &byte, 1), ==, 1);
        if (fork() == 0) {
            pid_t self = getpid();

            setsid();
            CHECK_INT(write(passing.told[1], &self, sizeof(self)), ==,
                      sizeof(self));
            // Until the test ends, whatever becomes of it.
            (void) !read(passing.go[0], &byte, 1);
        }
        _exit(0);
    }
    snprintf(passing.path, sizeof(passing.path), "/proc/%d/stat",
             (int) passing.pid);
    end_rank(tree, 7);
    CHECK(passing.path[0] == '\0');
    CHECK_INT(waitpid(passing.child, NULL, WNOHANG), ==, passing.child);
    if (!is_collected) {
        CHECK_INT(waitpid(passing.pid, NULL, 0), ==, passing.pid);
    }
    for (size_t i = 0; i < 2; i++) {
        close(passing.go[i]);
        close(passing.told[i]);
    }
    CHECK(procset_tree_close(tree) == NULL);
}

// What a process leaves that ends while all are looked at is found, although
// it was not there when they were listed.
static void
test_one_that_passes_while_others_are_looked_at(void)
{
    check_passing(false);
    check_passing(true);
}

// What is claimed once is ended, also when the guard of that rank comes late:
// it may itself be among what is ended.
static void
test_claims_are_final(void)
{
    procset__board_entry board[3] = {0};
    procset__hunt hunt = {
        .has_handles = (features & PROCSET_FEATURE_PIDFD) != 0,
        .job = job,
        .ranks = (const size_t[]) {0},
        .rank_count = 1,
        .board = board,
        .world_size = 3,
        .self = getpid(),
    };
    pid_t claimed = start_sleeper(marked("FLAMESPAWN_JOB=", ".1"));
    pid_t other = start_sleeper(marked("FLAMESPAWN_JOB=", ".2"));

    late.board = board;
    snprintf(late.path, sizeof(late.path), "/proc/%d/environ", (int) claimed);
    CHECK(procset__board_claim(board, 1, 0));
    procset__board_end_well(board, 2);
    CHECK(!procset__board_claim(board, 2, 0));
    OK(procset__hunt_open(&hunt));
    OK(procset__hunt_down(&hunt, after(LONG_NS)));
    procset__hunt_done(&hunt);
    CHECK(late.path[0] == '\0');
    CHECK(procset__board_has(board, 1, 0));
    CHECK(!is_running(claimed));
    CHECK(is_running(other));
    end(claimed);
    end(other);
}

static void
test_all(unsigned mask)
{
    features = procset_probe() & mask;
    RUN(test_without_the_feature);
    RUN(test_marks);
    RUN(test_mark_in_a_large_environment);
    RUN(test_marks_of_forks);
    RUN(test_look);
    RUN(test_what_multiplies);
    RUN(test_one_that_passes_while_others_are_looked_at);
    RUN(test_claims_are_final);
}

static void
collect_all(void)
{
    while (waitpid(-1, NULL, WNOHANG) > 0) {
    }
}

int
main(void)
{
    alarm(240);
    name_job();
    // Orphans become children of this process, which can wait for them.
    CHECK_INT(prctl(PR_SET_CHILD_SUBREAPER, 1), ==, 0);
    test_all(~0u);
    test_all(~PROCSET_FEATURE_PIDFD);
    collect_all();
    return 0;
}
