#include "error.h"
#include "hunt.h"
#include "procset.h"

#include <stdlib.h>
#include <string.h>

struct procset_tree {
    procset__hunt hunt;
    char *job;
};

int
procset_tree_open(unsigned features, const char *job, procset_tree **ret_tree)
{
    procset_tree *tree;
    size_t size = strlen(job) + 1;
    int r;

    if (!(features & PROCSET_FEATURE_TREE)) {
        return procset__error_invalid(PROCSET__CALL_TREE);
    }
    tree = calloc(1, sizeof(*tree));
    if (tree == NULL) {
        return procset__error_no_memory();
    }
    tree->job = malloc(size);
    if (tree->job == NULL) {
        r = procset__error_no_memory();
        goto finish;
    }
    memcpy(tree->job, job, size);
    tree->hunt.has_handles = (features & PROCSET_FEATURE_PIDFD) != 0;
    tree->hunt.job = tree->job;
    r = procset__hunt_open(&tree->hunt);
    if (r < 0) {
        goto finish;
    }
    *ret_tree = tree;
    return 0;

finish:
    (void) procset_tree_close(tree);
    return r;
}

procset_tree *
procset_tree_close(procset_tree *tree)
{
    if (tree != NULL) {
        procset__hunt_done(&tree->hunt);
        free(tree->job);
        free(tree);
    }
    return NULL;
}

int
procset_tree_mark(const char *job, size_t rank)
{
    return procset__hunt_mark(job, rank);
}

int
procset_tree_look(procset_tree *tree, const int64_t *pids, const size_t *ranks,
                  size_t count)
{
    int r = procset__hunt_snapshot(&tree->hunt);

    for (size_t i = 0; r == 0 && i < count; i++) {
        procset__hunt_follow(&tree->hunt, pids[i], ranks[i]);
    }
    return r;
}

int
procset_tree_end(procset_tree *tree, const size_t *ranks, size_t count,
                 int64_t deadline, size_t *ret_left, int64_t *ret_pid)
{
    int64_t pid = 0;
    int r;

    tree->hunt.ranks = ranks;
    tree->hunt.rank_count = count;
    r = procset__hunt_down(&tree->hunt, deadline);
    if (r == 0) {
        *ret_left = procset__hunt_left(&tree->hunt, &pid);
        *ret_pid = pid;
    }
    tree->hunt.ranks = NULL;
    tree->hunt.rank_count = 0;
    return r;
}
