// Starting programs on Windows: all or none of them.
//
// Facts about CreateProcessW() that this file relies on:
//
// - A handle is inherited if it is marked as such and is in the list of the
//   process, and it has the same value there. The mark is the handle's own:
//   while it is set, the handle also goes to what other threads start without
//   such a list.
// - A process is in its jobs before it runs, so it starts nothing outside.
// - CREATE_NEW_PROCESS_GROUP turns Ctrl-C off in the process, and in what it
//   starts.
// - A console program that is started without a console gets a new one, with
//   a window unless CREATE_NO_WINDOW is set.

#include "launch.h"

#include "attributes.h"
#include "clock.h"
#include "error.h"
#include "handle.h"
#include "job.h"
#include "wide.h"
#include "windows_api.h"

#include <stdlib.h>

#define SIGNAL_INT 2
#define STANDARD 3

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

// Appends the environment as the block that a process is given.
static int
add_environment(procset__wide *block, const procset__words *environment)
{
    int r = 0;

    for (size_t i = 0; r == 0 && i < environment->count; i++) {
        r = procset__wide_add(block, environment->items[i]);
        if (r == 0) {
            r = procset__wide_push(block, 0);
        }
    }
    // Another zero ends the block; an empty one has two as well.
    for (int i = 0; r == 0 && i < 2; i++) {
        r = procset__wide_push(block, 0);
    }
    return r;
}

static int
prepare_text(const procset_launch *launch, preparation *prepared)
{
    int r;

    r = procset__wide_add(&prepared->path, launch->path);
    if (r == 0) {
        r = procset__wide_push(&prepared->path, 0);
    }
    if (r == 0) {
        r = add_environment(&prepared->environment, &launch->environment);
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

static int
list(const procset_launch *launch, const preparation *prepared,
     const procset__launchee *entry, procset__attributes *ret_attributes)
{
    procset__attributes attributes;
    int r;

    r = procset__attributes_open(entry->inherited_count + STANDARD,
                                 &attributes);
    if (r < 0) {
        return r;
    }
    for (size_t i = 0; i < STANDARD; i++) {
        if (prepared->standard[i] != NULL) {
            procset__attributes_add_handle(
                &attributes, procset__from_native(prepared->standard[i]));
        }
    }
    for (size_t i = 0; i < entry->inherited_count; i++) {
        procset__attributes_add_handle(&attributes, entry->inherited[i]);
    }
    if (launch->job != PROCSET_HANDLE_INVALID) {
        procset__attributes_add_job(&attributes, launch->job);
    }
    procset__attributes_add_job(&attributes, entry->proc.job);
    *ret_attributes = attributes;
    return 0;
}

// The texts of one process.
typedef struct {
    procset__wide command_line;
    // Empty where it is that of all.
    procset__wide environment;
} texts;

static void
texts_done(texts *own)
{
    procset__wide_done(&own->command_line);
    procset__wide_done(&own->environment);
}

static int
texts_open(procset_launch *launch, procset__launchee *entry, texts *ret_own)
{
    texts own = {.command_line = {0}};
    int r;

    r = procset__wide_add_command_line(&own.command_line, &entry->arguments);
    if (r == 0) {
        r = procset__wide_push(&own.command_line, 0);
    }
    if (r == 0 && entry->variable != NULL) {
        procset__launch_swap_variable(launch, entry);
        r = add_environment(&own.environment, &launch->environment);
        procset__launch_swap_variable(launch, entry);
    }
    if (r < 0) {
        texts_done(&own);
        return r;
    }
    *ret_own = own;
    return 0;
}

static int
create_listed(const preparation *prepared,
              const procset__attributes *attributes, const texts *own,
              procset__proc *proc)
{
    STARTUPINFOEXW startup = {
        .StartupInfo = {.cb = sizeof(startup),
                        .dwFlags = STARTF_USESTDHANDLES,
                        .hStdInput = prepared->standard[0],
                        .hStdOutput = prepared->standard[1],
                        .hStdError = prepared->standard[2]},
        .lpAttributeList = attributes->list,
    };
    PROCESS_INFORMATION created;
    wchar_t *environment = own->environment.items != NULL
                               ? own->environment.items
                               : prepared->environment.items;

    if (!CreateProcessW(prepared->path.items, own->command_line.items, NULL,
                        NULL, attributes->handle_count > 0, prepared->flags,
                        environment, NULL, &startup.StartupInfo, &created)) {
        return procset__error_last(PROCSET__CALL_CREATE_PROCESS);
    }
    (void) CloseHandle(created.hThread);
    proc->handle = procset__from_native(created.hProcess);
    proc->pid = created.dwProcessId;
    return 0;
}

static int
create(procset_launch *launch, const preparation *prepared,
       procset__launchee *entry)
{
    procset__attributes attributes;
    texts own;
    int r;

    r = procset__job_open_plain(&entry->proc.job);
    if (r < 0) {
        return r;
    }
    r = texts_open(launch, entry, &own);
    if (r < 0) {
        return r;
    }
    r = list(launch, prepared, entry, &attributes);
    if (r == 0) {
        r = procset__attributes_finish(&attributes);
        if (r == 0) {
            r = create_listed(prepared, &attributes, &own, &entry->proc);
        }
        procset__attributes_done(&attributes);
    }
    texts_done(&own);
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
