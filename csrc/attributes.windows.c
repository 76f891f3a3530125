// Facts about the lists of CreateProcessW() that this file relies on:
//
// - A list must not be empty, nor name a handle twice.
// - The jobs of a list are entered in its order (Windows 10): the outer first.

#include "attributes.h"

#include "error.h"
#include "windows_api.h"

#include <assert.h>
#include <stdlib.h>

#define MOST_LISTS 2

int
procset__attributes_open(size_t capacity, procset__attributes *ret_attributes)
{
    procset_handle *handles = calloc(capacity + 1, sizeof(*handles));

    if (handles == NULL) {
        return procset__error_no_memory();
    }
    *ret_attributes = (procset__attributes) {.handles = handles};
    return 0;
}

void
procset__attributes_done(procset__attributes *attributes)
{
    if (attributes->list != NULL) {
        DeleteProcThreadAttributeList(attributes->list);
        free(attributes->list);
    }
    free(attributes->handles);
    *attributes = (procset__attributes) {0};
}

void
procset__attributes_add_handle(procset__attributes *attributes,
                               procset_handle handle)
{
    for (size_t i = 0; i < attributes->handle_count; i++) {
        if (attributes->handles[i] == handle) {
            return;
        }
    }
    attributes->handles[attributes->handle_count++] = handle;
}

void
procset__attributes_add_job(procset__attributes *attributes,
                            procset_handle job)
{
    assert(attributes->job_count < PROCSET__MOST_JOBS
           && "a process has two jobs at most");
    attributes->jobs[attributes->job_count++] = job;
}

static int
update(void *list, DWORD_PTR attribute, procset_handle *items, size_t count)
{
    if (count > 0
        && !UpdateProcThreadAttribute(list, 0, attribute, items,
                                      count * sizeof(*items), NULL, NULL)) {
        return procset__error_last(PROCSET__CALL_UPDATE_ATTRIBUTE);
    }
    return 0;
}

int
procset__attributes_finish(procset__attributes *attributes)
{
    SIZE_T size = 0;
    void *list;
    int r;

    // The first call tells the size.
    (void) InitializeProcThreadAttributeList(NULL, MOST_LISTS, 0, &size);
    list = calloc(1, size);
    if (list == NULL) {
        return procset__error_no_memory();
    }
    if (!InitializeProcThreadAttributeList(list, MOST_LISTS, 0, &size)) {
        r = procset__error_last(PROCSET__CALL_UPDATE_ATTRIBUTE);
        free(list);
        return r;
    }
    attributes->list = list;
    r = update(list, PROC_THREAD_ATTRIBUTE_JOB_LIST, attributes->jobs,
               attributes->job_count);
    if (r == 0) {
        r = update(list, PROC_THREAD_ATTRIBUTE_HANDLE_LIST,
                   attributes->handles, attributes->handle_count);
    }
    return r;
}
