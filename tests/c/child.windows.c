#include "child.windows.h"

#include "check.h"
#include "leave.h"

#include <shellapi.h>

static HANDLE
to_handle(const char *text)
{
    return (HANDLE) (uintptr_t) strtoull(text, NULL, 10);
}

static void
write_all(HANDLE pipe, const void *data, size_t size)
{
    DWORD count;

    CHECK(WriteFile(pipe, data, (DWORD) size, &count, NULL));
    CHECK_INT(count, ==, size);
}

// ------------------------------------------------------------ in the child

static void
wait_for_release(HANDLE control)
{
    DWORD count;
    char byte;

    (void) !ReadFile(control, &byte, 1, &count, NULL);
}

static void
exit_with(unsigned code)
{
    volatile int *volatile nowhere = NULL;

    if (code == CRASH) {
        // No window asks what to do about it.
        (void) SetErrorMode(SEM_NOGPFAULTERRORBOX);
        *nowhere = 1;
    }
    ExitProcess(code);
}

// Writes the arguments after the first three, each with a zero.
static void
tell_arguments(HANDLE pipe)
{
    int count;
    wchar_t **words = CommandLineToArgvW(GetCommandLineW(), &count);

    for (int i = 3; i < count; i++) {
        write_all(pipe, words[i], (wcslen(words[i]) + 1) * sizeof(wchar_t));
    }
    LocalFree(words);
}

static void
tell_variable(HANDLE pipe, const char *name)
{
    char value[256];
    DWORD size = GetEnvironmentVariableA(name, value, sizeof(value));

    write_all(pipe, value, size);
}

// Starts a process that holds the pipe and does nothing, for ever.
static void
start_sleeper(HANDLE pipe)
{
    STARTUPINFOA startup = {.cb = sizeof(startup)};
    PROCESS_INFORMATION created;
    char line[1024];

    snprintf(line, sizeof(line), "\"%s\" sleep", own_path());
    CHECK(
        SetHandleInformation(pipe, HANDLE_FLAG_INHERIT, HANDLE_FLAG_INHERIT));
    CHECK(CreateProcessA(NULL, line, NULL, NULL, TRUE, 0, NULL, NULL, &startup,
                         &created));
    write_all(pipe, "x", 1);
}

// Is a launcher: starts a process that holds the pipe, and does nothing more.
static void
launch_sleeper(HANDLE pipe)
{
    procset_launch *launch = NULL;
    procset_handle job;

    OK(procset_job_open(&job));
    OK(procset_launch_open(procset_probe(), own_path(), &launch));
    OK(procset_launch_add(launch));
    OK(procset_launch_argument(launch, own_path()));
    OK(procset_launch_argument(launch, "sleep"));
    OK(procset_launch_inherit(launch, (procset_handle) pipe));
    OK(procset_launch_job(launch, job));
    OK(procset_launch_start(launch));
    write_all(pipe, "x", 1);
    Sleep(INFINITE);
}

void
child_main(int argc, char **argv)
{
    const char *what = argc > 1 ? argv[1] : "";
    HANDLE handle = argc > 2 ? to_handle(argv[2]) : NULL;

    if (*what == '\0') {
        return;
    }
    if (strcmp(what, "exit") == 0) {
        wait_for_release(handle);
        exit_with((unsigned) strtoul(argv[3], NULL, 10));
    }
    if (strcmp(what, "leave") == 0) {
        (void) fputs("flushed", stdout);
        procset_leave(atoi(argv[2]));
    }
    if (strcmp(what, "sleep") == 0) {
        Sleep(INFINITE);
    }
    if (strcmp(what, "launcher") == 0) {
        launch_sleeper(handle);
    }
    if (strcmp(what, "tree") == 0) {
        start_sleeper(handle);
        Sleep(INFINITE);
    }
    if (strcmp(what, "orphan") == 0) {
        start_sleeper(handle);
        ExitProcess(3);
    }
    if (strcmp(what, "set") == 0) {
        // Fails for those that were not inherited.
        for (int i = 2; i < argc; i++) {
            (void) SetEvent(to_handle(argv[i]));
        }
        ExitProcess(0);
    }
    if (strcmp(what, "tell") == 0) {
        tell_arguments(handle);
        ExitProcess(0);
    }
    if (strcmp(what, "variable") == 0) {
        tell_variable(handle, argv[3]);
        ExitProcess(0);
    }
    if (strcmp(what, "write") == 0) {
        write_all(handle, argv[3], strlen(argv[3]));
        ExitProcess(0);
    }
    fprintf(stderr, "a child cannot %s\n", what);
    ExitProcess(99);
}

// ------------------------------------------------------------- in the test

const char *
own_path(void)
{
    static char path[512];

    CHECK_INT(GetModuleFileNameA(NULL, path, sizeof(path)), <, sizeof(path));
    return path;
}

test_child
child_start(unsigned code)
{
    SECURITY_ATTRIBUTES inheritable = {.nLength = sizeof(inheritable),
                                       .bInheritHandle = TRUE};
    STARTUPINFOA startup = {.cb = sizeof(startup)};
    PROCESS_INFORMATION created;
    HANDLE read_end, write_end;
    char line[1024];

    CHECK(CreatePipe(&read_end, &write_end, &inheritable, 0));
    CHECK(SetHandleInformation(write_end, HANDLE_FLAG_INHERIT, 0));
    snprintf(line, sizeof(line), "\"%s\" exit %llu %u", own_path(),
             (unsigned long long) (uintptr_t) read_end, code);
    for (int tries = 0; !CreateProcessA(NULL, line, NULL, NULL, TRUE, 0, NULL,
                                        NULL, &startup, &created);
         tries++) {
        // Wine says so now and then where many processes end at once.
        CHECK_INT(GetLastError(), ==, ERROR_INTERNAL_ERROR);
        CHECK_INT(tries, <, 100);
        Sleep(20);
    }
    CHECK(CloseHandle(read_end));
    CHECK(CloseHandle(created.hThread));
    return (test_child) {.pid = created.dwProcessId,
                         .process = created.hProcess,
                         .control = write_end};
}

void
child_release(test_child *child)
{
    CHECK(CloseHandle(child->control));
    child->control = NULL;
}

void
child_done(test_child *child)
{
    CHECK(CloseHandle(child->process));
    child->process = NULL;
}

unsigned
count_handles(void)
{
    DWORD count = 0;

    CHECK(GetProcessHandleCount(GetCurrentProcess(), &count));
    return count;
}

bool
is_wine(void)
{
    return GetProcAddress(GetModuleHandleA("ntdll.dll"), "wine_get_version")
           != NULL;
}
