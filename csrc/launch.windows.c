// Starting programs on Windows: all or none of them.
//
// Facts about CreateProcessW() that this file relies on:
//
// - A handle is inherited if it is marked as such and is in the list of the
//   process, and it has the same value there. The mark is the handle's own:
//   while it is set, the handle also goes to what other threads start without
//   such a list.
// - A list must not be empty, nor name a handle twice.
// - The jobs of a list are entered in its order (Windows 10): the outer first.
// - A process is in its jobs before it runs, so it starts nothing outside.
// - CREATE_NEW_PROCESS_GROUP turns Ctrl-C off in the process, and in what it
//   starts.
// - A console program that is started without a console gets a new one, with
//   a window unless CREATE_NO_WINDOW is set.

#include "launch.h"

#include "clock.h"
#include "error.h"
#include "handle.h"
#include "job.h"
#include "wide.h"
#include "windows_api.h"

#include <stdlib.h>

#define SIGNAL_INT 2
#define STANDARD 3
#define MOST_JOBS 2

// How long an undone start waits for a process that was ended.
#define UNDO_NS (2 * INT64_C(1000000000))

unsigned
procset__launch_probe(void)
{
    return 0;
}

// ----------------------------------------------------------------- prepare

int
procset__launch_copy_environment(procset__words *environment)
{
    wchar_t *block = GetEnvironmentStringsW();
    int r = 0;

    if (block == NULL) {
        return procset__error_last(PROCSET__CALL_GET_ENVIRONMENT_STRINGS);
    }
    for (const wchar_t *each = block; r == 0 && *each != 0;
         each += wcslen(each) + 1) {
        r = procset__wide_to_words(each, environment);
    }
    (void) FreeEnvironmentStringsW(block);
    return r;
}

// What the processes of one start have in common.
typedef struct {
    procset__wide path;
    procset__wide environment;
    // Inheritable copies; NULL where this process has none.
    HANDLE standard[STANDARD];
    // Those that were marked as inheritable for this start.
    HANDLE *marked;
    size_t marked_count;
    DWORD flags;
} preparation;

static int
prepare_text(const procset_launch *launch, preparation *prepared)
{
    const procset__words *environment = &launch->environment;
    int r;

    r = procset__wide_add(&prepared->path, launch->path);
    if (r == 0) {
        r = procset__wide_push(&prepared->path, 0);
    }
    for (size_t i = 0; r == 0 && i < environment->count; i++) {
        r = procset__wide_add(&prepared->environment, environment->items[i]);
        if (r == 0) {
            r = procset__wide_push(&prepared->environment, 0);
        }
    }
    // Another zero ends the block; an empty one has two as well.
    for (int i = 0; r == 0 && i < 2; i++) {
        r = procset__wide_push(&prepared->environment, 0);
    }
    return r;
}

static void
copy_standard(preparation *prepared)
{
    static const DWORD names[STANDARD] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
                                          STD_ERROR_HANDLE};
    HANDLE self = GetCurrentProcess();

    for (size_t i = 0; i < STANDARD; i++) {
        HANDLE handle = GetStdHandle(names[i]);

        // A program without standard streams, or one that has closed them,
        // starts programs without.
        if (handle == NULL || handle == INVALID_HANDLE_VALUE
            || !DuplicateHandle(self, handle, self, &prepared->standard[i], 0,
                                TRUE, DUPLICATE_SAME_ACCESS)) {
            prepared->standard[i] = NULL;
        }
    }
}

// Marks a handle as inheritable, and notes it if it was not.
static int
mark(preparation *prepared, HANDLE handle)
{
    DWORD flags;

    if (!GetHandleInformation(handle, &flags)
        || !SetHandleInformation(handle, HANDLE_FLAG_INHERIT,
                                 HANDLE_FLAG_INHERIT)) {
        return procset__error_last(PROCSET__CALL_SET_HANDLE_INFORMATION);
    }
    if ((flags & HANDLE_FLAG_INHERIT) == 0) {
        prepared->marked[prepared->marked_count++] = handle;
    }
    return 0;
}

static int
mark_all(const procset_launch *launch, preparation *prepared)
{
    size_t count = 0;
    int r = 0;

    for (size_t i = 0; i < launch->count; i++) {
        count += launch->entries[i].inherited_count;
    }
    prepared->marked = calloc(count + 1, sizeof(*prepared->marked));
    if (prepared->marked == NULL) {
        return procset__error_no_memory();
    }
    for (size_t i = 0; i < launch->count; i++) {
        const procset__launchee *entry = &launch->entries[i];

        for (size_t k = 0; r == 0 && k < entry->inherited_count; k++) {
            r = mark(prepared, procset__to_native(entry->inherited[k]));
        }
    }
    return r;
}

static void
preparation_done(preparation *prepared)
{
    for (size_t i = 0; i < prepared->marked_count; i++) {
        (void) SetHandleInformation(prepared->marked[i], HANDLE_FLAG_INHERIT,
                                    0);
    }
    for (size_t i = 0; i < STANDARD; i++) {
        if (prepared->standard[i] != NULL) {
            (void) CloseHandle(prepared->standard[i]);
        }
    }
    free(prepared->marked);
    procset__wide_done(&prepared->path);
    procset__wide_done(&prepared->environment);
}

static int
prepare(const procset_launch *launch, preparation *ret_prepared)
{
    preparation prepared = {
        .flags = EXTENDED_STARTUPINFO_PRESENT | CREATE_UNICODE_ENVIRONMENT
                 | CREATE_NEW_PROCESS_GROUP,
    };
    DWORD pid;
    int r;

    if (GetConsoleProcessList(&pid, 1) == 0) {
        prepared.flags |= CREATE_NO_WINDOW;
    }
    r = prepare_text(launch, &prepared);
    if (r == 0) {
        copy_standard(&prepared);
        r = mark_all(launch, &prepared);
    }
    if (r < 0) {
        preparation_done(&prepared);
        return r;
    }
    *ret_prepared = prepared;
    return 0;
}

// ------------------------------------------------------------------ create

// The lists of one process. They must stay where they are until it has been
// created.
typedef struct {
    LPPROC_THREAD_ATTRIBUTE_LIST attributes;
    HANDLE *handles;
    size_t handle_count;
    HANDLE jobs[MOST_JOBS];
    size_t job_count;
} start_lists;

static void
add_handle(start_lists *lists, HANDLE handle)
{
    for (size_t i = 0; i < lists->handle_count; i++) {
        if (lists->handles[i] == handle) {
            return;
        }
    }
    lists->handles[lists->handle_count++] = handle;
}

static void
lists_done(start_lists *lists)
{
    if (lists->attributes != NULL) {
        DeleteProcThreadAttributeList(lists->attributes);
        free(lists->attributes);
    }
    free(lists->handles);
}

static int
fill_attributes(start_lists *lists)
{
    SIZE_T size = 0;

    // The first call tells the size.
    (void) InitializeProcThreadAttributeList(NULL, 2, 0, &size);
    lists->attributes = calloc(1, size);
    if (lists->attributes == NULL) {
        return procset__error_no_memory();
    }
    if (!InitializeProcThreadAttributeList(lists->attributes, 2, 0, &size)) {
        int r = procset__error_last(PROCSET__CALL_UPDATE_ATTRIBUTE);

        free(lists->attributes);
        lists->attributes = NULL;
        return r;
    }
    if (!UpdateProcThreadAttribute(
            lists->attributes, 0, PROC_THREAD_ATTRIBUTE_JOB_LIST, lists->jobs,
            lists->job_count * sizeof(*lists->jobs), NULL, NULL)
        || (lists->handle_count > 0
            && !UpdateProcThreadAttribute(
                lists->attributes, 0, PROC_THREAD_ATTRIBUTE_HANDLE_LIST,
                lists->handles, lists->handle_count * sizeof(*lists->handles),
                NULL, NULL))) {
        return procset__error_last(PROCSET__CALL_UPDATE_ATTRIBUTE);
    }
    return 0;
}

static int
lists_open(const procset_launch *launch, const preparation *prepared,
           const procset__launchee *entry, start_lists *ret_lists)
{
    start_lists made = {.attributes = NULL};
    int r;

    made.handles =
        calloc(entry->inherited_count + STANDARD, sizeof(*made.handles));
    if (made.handles == NULL) {
        return procset__error_no_memory();
    }
    for (size_t i = 0; i < STANDARD; i++) {
        if (prepared->standard[i] != NULL) {
            add_handle(&made, prepared->standard[i]);
        }
    }
    for (size_t i = 0; i < entry->inherited_count; i++) {
        add_handle(&made, procset__to_native(entry->inherited[i]));
    }
    if (launch->job != PROCSET_HANDLE_INVALID) {
        made.jobs[made.job_count++] = procset__to_native(launch->job);
    }
    made.jobs[made.job_count++] = procset__to_native(entry->proc.job);
    *ret_lists = made;
    r = fill_attributes(ret_lists);
    if (r < 0) {
        lists_done(ret_lists);
    }
    return r;
}

static int
create_listed(const preparation *prepared, const start_lists *lists,
              procset__wide *command_line, procset__proc *proc)
{
    STARTUPINFOEXW startup = {
        .StartupInfo = {.cb = sizeof(startup),
                        .dwFlags = STARTF_USESTDHANDLES,
                        .hStdInput = prepared->standard[0],
                        .hStdOutput = prepared->standard[1],
                        .hStdError = prepared->standard[2]},
        .lpAttributeList = lists->attributes,
    };
    PROCESS_INFORMATION created;

    if (!CreateProcessW(prepared->path.items, command_line->items, NULL, NULL,
                        lists->handle_count > 0, prepared->flags,
                        prepared->environment.items, NULL,
                        &startup.StartupInfo, &created)) {
        return procset__error_last(PROCSET__CALL_CREATE_PROCESS);
    }
    (void) CloseHandle(created.hThread);
    proc->handle = procset__from_native(created.hProcess);
    proc->pid = created.dwProcessId;
    return 0;
}

static int
create(const procset_launch *launch, const preparation *prepared,
       procset__launchee *entry)
{
    procset__wide command_line = {0};
    start_lists lists;
    int r;

    r = procset__job_open_plain(&entry->proc.job);
    if (r < 0) {
        return r;
    }
    r = procset__wide_add_command_line(&command_line, &entry->arguments);
    if (r == 0) {
        r = procset__wide_push(&command_line, 0);
    }
    if (r == 0) {
        r = lists_open(launch, prepared, entry, &lists);
    }
    if (r == 0) {
        r = create_listed(prepared, &lists, &command_line, &entry->proc);
        lists_done(&lists);
    }
    procset__wide_done(&command_line);
    return r;
}

// ----------------------------------------------------------------- confirm

static void
wait_for_end(const procset__proc *proc, int64_t deadline)
{
    int64_t left = procset__remaining(deadline);

    (void) WaitForSingleObject(procset__to_native(proc->handle),
                               (DWORD) (left / 1000000) + 1);
}

static void
undo(procset_launch *launch)
{
    int64_t deadline = procset__now() + UNDO_NS;

    for (size_t i = 0; i < launch->count; i++) {
        if (launch->entries[i].proc.job != PROCSET_HANDLE_INVALID) {
            (void) procset_job_end(launch->entries[i].proc.job);
        }
    }
    for (size_t i = 0; i < launch->count; i++) {
        procset__proc *proc = &launch->entries[i].proc;

        if (proc->handle != PROCSET_HANDLE_INVALID) {
            wait_for_end(proc, deadline);
        }
        procset__proc_done(proc);
        proc->pid = 0;
    }
}

int
procset_launch_start(procset_launch *launch)
{
    preparation prepared;
    int r;

    if ((launch->blocked & ~((uint64_t) 1 << (SIGNAL_INT - 1))) != 0) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    for (size_t i = 0; i < launch->count; i++) {
        if (launch->entries[i].proc.pid != 0) {
            return procset__error_invalid(PROCSET__CALL_LAUNCH);
        }
    }
    r = prepare(launch, &prepared);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; r == 0 && i < launch->count; i++) {
        r = create(launch, &prepared, &launch->entries[i]);
    }
    if (r < 0) {
        undo(launch);
    }
    preparation_done(&prepared);
    return r;
}
