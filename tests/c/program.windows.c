#include "program.windows.h"

#include "check.h"

int
run_program(int argc, char **argv, void (*run_all)(void))
{
    unsigned before;

    child_main(argc, argv);
    before = count_handles();
    run_all();
    CHECK_INT(count_handles(), ==, before);
    return 0;
}

void
add_program(procset_launch *launch, const char *what, procset_handle handle,
            const char *const *rest)
{
    char number[32];

    snprintf(number, sizeof(number), "%llu", (unsigned long long) handle);
    OK(procset_launch_add(launch));
    OK(procset_launch_argument(launch, own_path()));
    OK(procset_launch_argument(launch, what));
    OK(procset_launch_argument(launch, number));
    for (; rest != NULL && *rest != NULL; rest++) {
        OK(procset_launch_argument(launch, *rest));
    }
}

procset_launch *
open_launch(const char *path)
{
    procset_launch *launch = NULL;

    OK(procset_launch_open(procset_probe(), path, &launch));
    return launch;
}

unsigned
wait_code(procset_launch *launch, size_t index)
{
    procset_handle process = PROCSET_HANDLE_INVALID;
    DWORD code, flags;
    int64_t pid = 0;

    OK(procset_launch_take(launch, index, &pid, &process));
    CHECK_INT(GetProcessId((HANDLE) process), ==, pid);
    CHECK(GetHandleInformation((HANDLE) process, &flags));
    CHECK_INT(flags & HANDLE_FLAG_INHERIT, ==, 0);
    CHECK_INT(WaitForSingleObject((HANDLE) process, INFINITE), ==,
              WAIT_OBJECT_0);
    CHECK(GetExitCodeProcess((HANDLE) process, &code));
    CHECK_INT(procset_handle_close(process), ==, PROCSET_HANDLE_INVALID);
    return code;
}

size_t
read_all(procset_handle pipe, void *buffer, size_t size)
{
    OVERLAPPED operation = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
    size_t total = 0;
    DWORD count;

    for (;;) {
        count = 0;
        if (!ReadFile((HANDLE) pipe, (char *) buffer + total,
                      (DWORD) (size - total), NULL, &operation)
            && GetLastError() != ERROR_IO_PENDING) {
            break;
        }
        if (!GetOverlappedResult((HANDLE) pipe, &operation, &count, TRUE)) {
            break;
        }
        total += count;
        CHECK_INT(total, <, size);
    }
    CHECK_INT(GetLastError(), ==, ERROR_BROKEN_PIPE);
    CHECK(CloseHandle(operation.hEvent));
    return total;
}

procset_handle
start_with_pipe(procset_launch *launch, const char *what,
                const char *const *rest)
{
    procset_handle read_end, write_end;

    OK(procset_report_open(&read_end, &write_end));
    add_program(launch, what, write_end, rest);
    OK(procset_launch_inherit(launch, write_end));
    OK(procset_launch_start(launch));
    CHECK(CloseHandle((HANDLE) write_end));
    return read_end;
}

void
wait_for_byte(procset_handle pipe)
{
    OVERLAPPED operation = {.hEvent = CreateEventW(NULL, TRUE, FALSE, NULL)};
    DWORD count;
    char byte;

    (void) !ReadFile((HANDLE) pipe, &byte, 1, NULL, &operation);
    CHECK(GetOverlappedResult((HANDLE) pipe, &operation, &count, TRUE));
    CHECK_INT(count, ==, 1);
    CHECK(CloseHandle(operation.hEvent));
}
