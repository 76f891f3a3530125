// Nothing is watched by threads here: every process has a handle.

#include "watch.h"

#include "error.h"
#include "windows_api.h"

#include <stdlib.h>

int
procset__watch_new(procset_handle wake, procset__watch **ret_watch)
{
    (void) wake;
    *ret_watch = NULL;
    return 0;
}

procset__watch *
procset__watch_free(procset__watch *watch)
{
    (void) watch;
    return NULL;
}

int
procset__watch_start(procset__watch *watch, int64_t pid, size_t index)
{
    (void) watch;
    (void) pid;
    (void) index;
    return procset__error_missing(PROCSET__CALL_WATCH);
}

bool
procset__watch_next(procset__watch *watch, size_t *ret_index)
{
    (void) watch;
    (void) ret_index;
    return false;
}
