// The least that a launcher can do: start children, block in waitid(2).
//
// It speaks the same line protocol as _launcher.py, which describes it, and
// starts the same programs in the same way. Its figures are the floor that the
// contenders of join.py are compared with where the children are C programs.
//
// usage: waitid_floor CHILD pid|all
//
//   pid  wait for the one child that is about to exit: the cheapest wait that
//        the kernel has, and one that needs to know the answer beforehand
//   all  wait for any child: the kernel searches the list of all children

#define _GNU_SOURCE
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <spawn.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define NS_PER_S 1000000000LL
#define US_PER_S 1000000LL

extern char **environ;

// What the children of one batch do. The first `own_pipes` of them are
// released one by one, the others share one pipe; there is at least one other.
struct plan {
    size_t count;
    size_t own_pipes;
    int64_t first_ns; // delay of the first child after its release
    int64_t step_ns;  // each further child takes this much longer
};

struct batch {
    struct plan plan;
    pid_t *pids;
    int *releases; // own_pipes + 1 write ends; the last one is the shared one
    volatile int64_t *slots;
};

static _Noreturn void
die(const char *what)
{
    perror(what);
    exit(1);
}

static int64_t
now_ns(void)
{
    struct timespec ts;

    (void) clock_gettime(CLOCK_MONOTONIC, &ts);
    return (int64_t) ts.tv_sec * NS_PER_S + ts.tv_nsec;
}

static int64_t
as_us(struct timeval tv)
{
    return (int64_t) tv.tv_sec * US_PER_S + tv.tv_usec;
}

static void *
allocate(size_t count, size_t size)
{
    void *memory = calloc(count, size);

    if (memory == NULL) {
        die("calloc");
    }
    return memory;
}

// The descriptors that a child inherits.
struct ends {
    int input;
    int slots;
    int ready;
};

static pid_t
start_child(const char *path, size_t slot, int64_t delay, struct ends ends)
{
    char slots_arg[16], slot_arg[24], ready_arg[16], delay_arg[24];
    char *argv[] = {"child", slots_arg, slot_arg, ready_arg, delay_arg, NULL};
    posix_spawn_file_actions_t actions;
    pid_t pid;

    (void) snprintf(slots_arg, sizeof(slots_arg), "%d", ends.slots);
    (void) snprintf(slot_arg, sizeof(slot_arg), "%zu", slot);
    (void) snprintf(ready_arg, sizeof(ready_arg), "%d", ends.ready);
    (void) snprintf(delay_arg, sizeof(delay_arg), "%" PRId64, delay);
    errno = posix_spawn_file_actions_init(&actions);
    if (errno == 0) {
        errno = posix_spawn_file_actions_adddup2(&actions, ends.input, 0);
    }
    if (errno == 0) {
        errno = posix_spawn(&pid, path, &actions, NULL, argv, environ);
    }
    if (errno != 0) {
        die("posix_spawn");
    }
    (void) posix_spawn_file_actions_destroy(&actions);
    return pid;
}

static void
start_children(struct batch *batch, const char *path, struct ends ends)
{
    const struct plan *plan = &batch->plan;
    int pipe_ends[2] = {-1, -1};

    for (size_t i = 0; i < plan->count; i++) {
        if (i <= plan->own_pipes) {
            if (i > 0) {
                (void) close(pipe_ends[0]);
            }
            if (pipe2(pipe_ends, O_CLOEXEC) < 0) {
                die("pipe2");
            }
            batch->releases[i] = pipe_ends[1];
        }
        ends.input = pipe_ends[0];
        int64_t delay = plan->first_ns + (int64_t) i * plan->step_ns;
        batch->pids[i] = start_child(path, i, delay, ends);
    }
    (void) close(pipe_ends[0]);
}

// Starts the children and returns when all of them wait for their release.
static struct batch
start_batch(const char *path, struct plan plan)
{
    struct batch batch = {.plan = plan};
    size_t size = plan.count * sizeof(int64_t);
    struct ends ends = {.input = -1};
    int ready[2];
    char byte;

    batch.pids = allocate(plan.count, sizeof(*batch.pids));
    batch.releases = allocate(plan.own_pipes + 1, sizeof(*batch.releases));
    ends.slots = memfd_create("slots", 0);
    if (ends.slots < 0 || ftruncate(ends.slots, (off_t) size) < 0) {
        die("memfd_create");
    }
    batch.slots = mmap(NULL, size, PROT_READ, MAP_SHARED, ends.slots, 0);
    if (batch.slots == MAP_FAILED) {
        die("mmap");
    }
    // The children hold the write end of the ready pipe until they are ready.
    if (pipe2(ready, O_CLOEXEC) < 0 || fcntl(ready[1], F_SETFD, 0) < 0) {
        die("pipe2");
    }
    ends.ready = ready[1];
    start_children(&batch, path, ends);
    (void) close(ready[1]);
    (void) close(ends.slots);
    if (read(ready[0], &byte, 1) != 0) {
        die("read of the ready pipe");
    }
    (void) close(ready[0]);
    return batch;
}

static void
free_batch(struct batch *batch)
{
    free(batch->pids);
    free(batch->releases);
    (void) munmap((void *) batch->slots,
                  batch->plan.count * sizeof(*batch->slots));
}

static void
wait_any(void)
{
    siginfo_t info;

    if (waitid(P_ALL, 0, &info, WEXITED) < 0) {
        die("waitid");
    }
}

static void
run_round(const struct batch *batch, size_t victim, bool any)
{
    siginfo_t info;
    id_t pid = (id_t) batch->pids[victim];

    if (write(batch->releases[victim], "x", 1) != 1) {
        die("write");
    }
    if (waitid(any ? P_ALL : P_PID, pid, &info, WEXITED) < 0) {
        die("waitid");
    }
    int64_t returned = now_ns();
    (void) close(batch->releases[victim]);
    printf("%" PRId64 "\n", returned - batch->slots[victim]);
}

static void
read_command(const char *expected)
{
    char line[80];

    if (fgets(line, sizeof(line), stdin) == NULL) {
        exit(0);
    }
    if (strncmp(line, expected, strlen(expected)) != 0) {
        (void) fprintf(stderr, "expected %s, not %s", expected, line);
        exit(2);
    }
}

static void
run_latency(const char *path, struct plan plan, bool any)
{
    struct batch batch = start_batch(path, plan);

    puts("started");
    for (size_t i = 0; i < plan.own_pipes; i++) {
        read_command("round");
        run_round(&batch, i, any);
    }
    read_command("finish");
    (void) close(batch.releases[plan.own_pipes]);
    for (size_t i = plan.own_pipes; i < plan.count; i++) {
        wait_any();
    }
    free_batch(&batch);
    puts("done");
}

static void
run_drain(const char *path, struct plan plan)
{
    struct batch batch = start_batch(path, plan);
    struct rusage before, after;

    for (size_t i = 0; i < plan.count; i++) {
        if (write(batch.releases[0], "x", 1) != 1) {
            die("write");
        }
    }
    puts("started");
    (void) getrusage(RUSAGE_SELF, &before);
    for (size_t i = 0; i < plan.count; i++) {
        wait_any();
    }
    (void) getrusage(RUSAGE_SELF, &after);
    (void) close(batch.releases[0]);
    free_batch(&batch);
    printf("%" PRId64 " %" PRId64 "\n",
           as_us(after.ru_utime) - as_us(before.ru_utime),
           as_us(after.ru_stime) - as_us(before.ru_stime));
}

int
main(int argc, char **argv)
{
    char line[160];
    size_t others, victims, count;
    int64_t first, step;
    struct rlimit limit;

    if (argc != 3) {
        (void) fputs("usage: waitid_floor CHILD pid|all\n", stderr);
        return 2;
    }
    bool any = strcmp(argv[2], "all") == 0;
    (void) getrlimit(RLIMIT_NOFILE, &limit);
    limit.rlim_cur = limit.rlim_max;
    (void) setrlimit(RLIMIT_NOFILE, &limit);
    (void) setvbuf(stdout, NULL, _IOLBF, BUFSIZ);
    puts("hello C");
    while (fgets(line, sizeof(line), stdin) != NULL) {
        if (sscanf(line, "latency %zu %zu %" SCNd64, &others, &victims, &first)
            == 3) {
            struct plan plan = {.count = others + victims,
                                .own_pipes = victims,
                                .first_ns = first};
            run_latency(argv[1], plan, any);
        }
        else if (sscanf(line, "drain %zu %" SCNd64 " %" SCNd64, &count, &first,
                        &step)
                 == 3) {
            struct plan plan = {
                .count = count, .first_ns = first, .step_ns = step};
            run_drain(argv[1], plan);
        }
        else {
            (void) fprintf(stderr, "unknown command: %s", line);
            return 2;
        }
    }
    return 0;
}
