// One thread waits while others signal, wake, read, ask and add. Meant to be
// run under a thread sanitizer, and useful without.

#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "clock.h"
#include "procset.h"

#include <pthread.h>
#include <signal.h>

enum { CHILDREN = 24, HELPERS = 3 };

static procset *set;
static test_child children[CHILDREN];

static void *
disturb(void *argument)
{
    size_t first = *(size_t *) argument;
    procset_status status;
    int r;

    for (size_t i = first; i < CHILDREN / 2; i += HELPERS) {
        OK(procset_wake(set));
        OK(procset_get_status(set, i, &status));
        r = procset_signal(set, i, SIGKILL);
        CHECK(r == 0 || procset_error_kind(r) == PROCSET_KIND_GONE);
        OK(procset_forget_report(set, i));
    }
    return NULL;
}

static void *
add_more(void *argument)
{
    (void) argument;
    for (size_t i = CHILDREN / 2; i < CHILDREN; i++) {
        procset_member member = {.pid = children[i].pid,
                                 .sentinel = PROCSET_HANDLE_INVALID,
                                 .report = PROCSET_HANDLE_INVALID,
                                 .job = PROCSET_HANDLE_INVALID};
        size_t index;

        OK(procset_add(set, &member, &index));
        OK(procset_signal(set, index, SIGKILL));
    }
    return NULL;
}

static void
run_all(unsigned features)
{
    pthread_t threads[HELPERS + 1];
    size_t numbers[HELPERS];
    size_t index;

    OK(procset_open(features, &set));
    for (size_t i = 0; i < CHILDREN; i++) {
        children[i] = child_start(CHILD_EXITS, 0);
    }
    for (size_t i = 0; i < CHILDREN / 2; i++) {
        procset_member member = {.pid = children[i].pid,
                                 .sentinel = PROCSET_HANDLE_INVALID,
                                 .report = PROCSET_HANDLE_INVALID,
                                 .job = PROCSET_HANDLE_INVALID};

        OK(procset_add(set, &member, &index));
    }
    for (size_t i = 0; i < HELPERS; i++) {
        numbers[i] = i;
        CHECK_INT(pthread_create(&threads[i], NULL, disturb, &numbers[i]), ==,
                  0);
    }
    CHECK_INT(pthread_create(&threads[HELPERS], NULL, add_more, NULL), ==, 0);
    for (size_t i = 0; i < CHILDREN; i++) {
        (void) wait_for_end(set);
    }
    for (size_t i = 0; i <= HELPERS; i++) {
        CHECK_INT(pthread_join(threads[i], NULL), ==, 0);
    }
    for (size_t i = 0; i < CHILDREN; i++) {
        child_release(&children[i]);
    }
    set = procset_close(set);
}

static void
test_with_handles(void)
{
    run_all(procset_probe());
}

static void
test_without_handles(void)
{
    run_all(0);
}

int
main(void)
{
    for (int i = 0; i < 5; i++) {
        RUN(test_with_handles);
        RUN(test_without_handles);
    }
    return 0;
}
