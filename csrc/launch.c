#include "launch.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

int
procset_launch_open(unsigned features, const char *path,
                    procset_launch **ret_launch)
{
    procset_launch *launch = calloc(1, sizeof(*launch));
    size_t size = strlen(path) + 1;
    int r;

    if (launch == NULL) {
        return procset__error_no_memory();
    }
    launch->features = features;
    launch->job = PROCSET_HANDLE_INVALID;
    launch->path = malloc(size);
    if (launch->path == NULL) {
        r = procset__error_no_memory();
        goto finish;
    }
    memcpy(launch->path, path, size);
    r = procset__launch_copy_environment(&launch->environment);
    if (r < 0) {
        goto finish;
    }
    *ret_launch = launch;
    return 0;

finish:
    (void) procset_launch_close(launch);
    return r;
}

procset_launch *
procset_launch_close(procset_launch *launch)
{
    if (launch == NULL) {
        return NULL;
    }
    for (size_t i = 0; i < launch->count; i++) {
        procset__proc_done(&launch->entries[i].proc);
        procset__words_done(&launch->entries[i].arguments);
        free(launch->entries[i].variable);
        free(launch->entries[i].errors);
        free(launch->entries[i].inherited);
    }
    procset__words_done(&launch->environment);
    free(launch->entries);
    free(launch->path);
    free(launch);
    return NULL;
}

int
procset_launch_block(procset_launch *launch, int signal)
{
    if (signal < 1 || signal > 64) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    launch->blocked |= (uint64_t) 1 << (signal - 1);
    return 0;
}

int
procset_launch_add(procset_launch *launch)
{
    size_t capacity = launch->capacity == 0 ? 8 : launch->capacity * 2;
    procset__launchee *entries;

    if (launch->count == launch->capacity) {
        entries = realloc(launch->entries, capacity * sizeof(*entries));
        if (entries == NULL) {
            return procset__error_no_memory();
        }
        launch->entries = entries;
        launch->capacity = capacity;
    }
    launch->entries[launch->count++] = (procset__launchee) {
        .proc.handle = PROCSET_HANDLE_INVALID,
        .proc.sentinel = PROCSET_HANDLE_INVALID,
        .proc.job = PROCSET_HANDLE_INVALID,
    };
    return 0;
}

int
procset_launch_argument(procset_launch *launch, const char *argument)
{
    if (launch->count == 0) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    return procset__words_add(&launch->entries[launch->count - 1].arguments,
                              argument);
}

int
procset_launch_inherit(procset_launch *launch, procset_handle handle)
{
    procset__launchee *last;
    size_t capacity;
    procset_handle *inherited;

    if (launch->count == 0) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    last = &launch->entries[launch->count - 1];
    if (last->inherited_count == last->inherited_capacity) {
        capacity =
            last->inherited_capacity == 0 ? 4 : last->inherited_capacity * 2;
        inherited = realloc(last->inherited, capacity * sizeof(*inherited));
        if (inherited == NULL) {
            return procset__error_no_memory();
        }
        last->inherited = inherited;
        last->inherited_capacity = capacity;
    }
    last->inherited[last->inherited_count++] = handle;
    return 0;
}

// Finds the variable with the name of this one, and adds it if there is none.
static int
place_variable(procset_launch *launch, const char *variable)
{
    procset__words *environment = &launch->environment;

    launch->variable_index = procset__words_find(environment, variable);
    return launch->variable_index < environment->count
               ? 0
               : procset__words_add(environment, variable);
}

int
procset_launch_variable(procset_launch *launch, const char *variable)
{
    procset__launchee *last;
    size_t size = strlen(variable) + 1;
    int r;

    if (launch->count == 0 || strchr(variable, '=') == NULL) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    last = &launch->entries[launch->count - 1];
    r = place_variable(launch, variable);
    if (r < 0) {
        return r;
    }
    free(last->variable);
    last->variable = malloc(size);
    if (last->variable == NULL) {
        return procset__error_no_memory();
    }
    memcpy(last->variable, variable, size);
    return 0;
}

int
procset_launch_errors(procset_launch *launch, const char *path, int64_t offset)
{
    size_t size = strlen(path) + 1;
    procset__launchee *last;

    if (launch->count == 0 || offset < 0) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    last = &launch->entries[launch->count - 1];
    free(last->errors);
    last->errors = malloc(size);
    if (last->errors == NULL) {
        return procset__error_no_memory();
    }
    memcpy(last->errors, path, size);
    last->errors_offset = offset;
    return 0;
}

void
procset__launch_swap_variable(procset_launch *launch, procset__launchee *entry)
{
    char *other;

    if (entry->variable != NULL) {
        other = launch->environment.items[launch->variable_index];
        launch->environment.items[launch->variable_index] = entry->variable;
        entry->variable = other;
    }
}

int
procset_launch_take(procset_launch *launch, size_t index, int64_t *ret_pid,
                    procset_handle *ret_handle)
{
    procset__proc *proc;

    if (index >= launch->count || launch->entries[index].proc.pid == 0) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    proc = &launch->entries[index].proc;
    *ret_pid = proc->pid;
    *ret_handle = proc->handle;
    proc->handle = PROCSET_HANDLE_INVALID;
    return 0;
}

int
procset_launch_environment(procset_launch *launch, const char *variable)
{
    if (variable[0] == '=' || strchr(variable, '=') == NULL) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    return procset__words_set(&launch->environment, variable);
}

int
procset_launch_job(procset_launch *launch, procset_handle job)
{
    launch->job = job;
    return 0;
}

int
procset_launch_take_job(procset_launch *launch, size_t index,
                        procset_handle *ret_job)
{
    procset__proc *proc;

    if (index >= launch->count || launch->entries[index].proc.pid == 0) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    proc = &launch->entries[index].proc;
    *ret_job = proc->job;
    proc->job = PROCSET_HANDLE_INVALID;
    return 0;
}
