#include "check.h"
#include "program.windows.h"

// Starts one process, whose handle is the write end of a pipe, and returns how
// much it has written.
static size_t
run_and_read(procset_launch *launch, const char *what, const char *const *rest,
             void *buffer, size_t size)
{
    procset_handle pipe = start_with_pipe(launch, what, rest);
    size_t count = read_all(pipe, buffer, size);

    CHECK_INT(procset_handle_close(pipe), ==, PROCSET_HANDLE_INVALID);
    CHECK_INT(wait_code(launch, 0), ==, 0);
    return count;
}

static void
test_calls_out_of_order_are_refused(void)
{
    procset_launch *launch = open_launch(own_path());
    procset_handle handle = 7;
    int64_t pid = 7;
    int r;

    CHECK_INT(procset_launch_argument(launch, "x"), <, 0);
    CHECK_INT(procset_launch_inherit(launch, 1), <, 0);
    CHECK_INT(procset_launch_environment(launch, "=x"), <, 0);
    CHECK_INT(procset_launch_environment(launch, "x"), <, 0);
    add_program(launch, "exit", 0, NULL);
    CHECK_INT(procset_launch_take(launch, 0, &pid, &handle), <, 0);
    CHECK_INT(procset_launch_take_job(launch, 0, &handle), <, 0);
    CHECK_INT(pid, ==, 7);
    CHECK_INT(handle, ==, 7);
    // No signal but Ctrl-C can be kept away.
    OK(procset_launch_block(launch, SIGNAL_INT));
    OK(procset_launch_block(launch, SIGNAL_TERM));
    r = procset_launch_start(launch);
    CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_INVALID);
    CHECK(procset_launch_close(launch) == NULL);
    CHECK(procset_launch_close(NULL) == NULL);
}

static void
test_an_empty_launch_starts_nothing(void)
{
    procset_launch *launch = open_launch("C:\\nowhere.exe");

    OK(procset_launch_start(launch));
    CHECK(procset_launch_close(launch) == NULL);
}

// Every argument arrives as it was given.
static void
test_arguments(void)
{
    const char *const words[] = {"plain",     "",
                                 "two words", "tab\there",
                                 "quo\"te",   "back\\sl",
                                 "end\\",     "end \\",
                                 "\\\"",      "a\\\\\"b c\\\\",
                                 "\xC3\xA4",  "\"",
                                 "\"\" \"",   "\xF0\x9F\x94\xA5",
                                 "-c",        NULL};
    const wchar_t *const expected[] = {L"plain",     L"",
                                       L"two words", L"tab\there",
                                       L"quo\"te",   L"back\\sl",
                                       L"end\\",     L"end \\",
                                       L"\\\"",      L"a\\\\\"b c\\\\",
                                       L"\x00E4",    L"\"",
                                       L"\"\" \"",   L"\xD83D\xDD25",
                                       L"-c"};
    procset_launch *launch = open_launch(own_path());
    wchar_t buffer[1024];
    const wchar_t *at = buffer;
    size_t count = run_and_read(launch, "tell", words, buffer, sizeof(buffer));

    for (size_t i = 0; words[i] != NULL; i++) {
        CHECK_INT(wcscmp(at, expected[i]), ==, 0);
        at += wcslen(at) + 1;
    }
    CHECK_INT((at - buffer) * 2, ==, count);
    CHECK(procset_launch_close(launch) == NULL);
}

static void
test_text_that_is_not_utf8_is_refused(void)
{
    // A byte too many, one too few, more bytes than needed, and no character.
    const char *const words[] = {
        "\x80", "\xC3", "\xC0\x80", "\xE0\x80\x80", "\xF4\x90\x80\x80",
        "\xFF"};

    for (size_t i = 0; i < sizeof(words) / sizeof(*words); i++) {
        procset_launch *launch = open_launch(own_path());
        const char *const rest[] = {words[i], NULL};
        int r;

        add_program(launch, "tell", 0, rest);
        r = procset_launch_start(launch);
        CHECK_INT(procset_error_kind(r), ==, PROCSET_KIND_INVALID);
        CHECK(procset_launch_close(launch) == NULL);
    }
}

// The environment is that of the time of the opening, with what was added.
static void
test_environment(void)
{
    const char *const names[][2] = {
        {"FS_KEPT", "kept"}, {"FS_SET", "seven"}, {"FS_NEW", "n=w"}};

    CHECK(SetEnvironmentVariableA("FS_KEPT", "kept"));
    CHECK(SetEnvironmentVariableA("FS_SET", "six"));
    for (size_t i = 0; i < 3; i++) {
        const char *const rest[] = {names[i][0], NULL};
        procset_launch *launch = open_launch(own_path());
        char buffer[64] = "";

        CHECK(SetEnvironmentVariableA("FS_KEPT", "later"));
        OK(procset_launch_environment(launch, "FS_SET=seven"));
        OK(procset_launch_environment(launch, "FS_NEW=old"));
        OK(procset_launch_environment(launch, "FS_NEW=n=w"));
        (void) run_and_read(launch, "variable", rest, buffer, sizeof(buffer));
        CHECK_STR(buffer, names[i][1]);
        CHECK(procset_launch_close(launch) == NULL);
        CHECK(SetEnvironmentVariableA("FS_KEPT", "kept"));
    }
}

// Each process may have a variable of its own.
static void
test_variables(void)
{
    procset_launch *launch = open_launch(own_path());
    const char *const rest[] = {"FS_OWN", NULL};
    const char *const values[] = {"FS_OWN=0", "FS_OWN=1", NULL};
    procset_handle read_ends[3], write_ends[3];
    char buffer[16];

    OK(procset_launch_environment(launch, "FS_OWN=all"));
    for (size_t i = 0; i < 3; i++) {
        OK(procset_report_open(&read_ends[i], &write_ends[i]));
        add_program(launch, "variable", write_ends[i], rest);
        OK(procset_launch_inherit(launch, write_ends[i]));
        if (values[i] != NULL) {
            OK(procset_launch_variable(launch, values[i]));
        }
    }
    OK(procset_launch_start(launch));
    for (size_t i = 0; i < 3; i++) {
        CHECK(CloseHandle((HANDLE) write_ends[i]));
        memset(buffer, 0, sizeof(buffer));
        (void) read_all(read_ends[i], buffer, sizeof(buffer));
        CHECK_STR(buffer, i == 0 ? "0" : i == 1 ? "1" : "all");
        CHECK(CloseHandle((HANDLE) read_ends[i]));
        CHECK_INT(wait_code(launch, i), ==, 0);
    }
    CHECK(procset_launch_close(launch) == NULL);
}

// A process has the handles that it was to have, and no others, even if these
// are inheritable.
static void
test_only_intended_handles_are_inherited(void)
{
    SECURITY_ATTRIBUTES inheritable = {.nLength = sizeof(inheritable),
                                       .bInheritHandle = TRUE};
    HANDLE wanted = CreateEventW(NULL, TRUE, FALSE, NULL);
    HANDLE leak = CreateEventW(&inheritable, TRUE, FALSE, NULL);
    procset_launch *launch = open_launch(own_path());
    char number[32];
    const char *const rest[] = {number, NULL};
    DWORD flags;

    snprintf(number, sizeof(number), "%llu",
             (unsigned long long) (uintptr_t) leak);
    add_program(launch, "set", (procset_handle) wanted, rest);
    add_program(launch, "set", (procset_handle) leak, NULL);
    OK(procset_launch_inherit(launch, (procset_handle) wanted));
    // Twice is as good as once.
    OK(procset_launch_inherit(launch, (procset_handle) wanted));
    OK(procset_launch_start(launch));
    CHECK_INT(wait_code(launch, 0), ==, 0);
    CHECK_INT(wait_code(launch, 1), ==, 0);
    CHECK(procset_launch_close(launch) == NULL);
    // Only the second process was given it.
    CHECK_INT(WaitForSingleObject(leak, 0), ==, WAIT_TIMEOUT);
    CHECK(GetHandleInformation(wanted, &flags));
    CHECK_INT(flags & HANDLE_FLAG_INHERIT, ==, 0);
    CHECK(GetHandleInformation(leak, &flags));
    CHECK_INT(flags & HANDLE_FLAG_INHERIT, !=, 0);
    CHECK(CloseHandle(wanted));
    CHECK(CloseHandle(leak));
}

static void
test_a_handle_that_is_not_open_is_an_error(void)
{
    procset_launch *launch = open_launch(own_path());
    int r;

    add_program(launch, "set", 0, NULL);
    OK(procset_launch_inherit(launch, 0x7770));
    r = procset_launch_start(launch);
    CHECK_STR(procset_error_call(r), "SetHandleInformation");
    CHECK_INT(procset_error_code(r), ==, ERROR_INVALID_HANDLE);
    CHECK(procset_launch_close(launch) == NULL);
}

static void
test_a_program_that_is_not_there_is_an_error(void)
{
    procset_launch *launch = open_launch("C:\\nowhere.exe");
    int r;

    add_program(launch, "set", 0, NULL);
    r = procset_launch_start(launch);
    CHECK_STR(procset_error_call(r), "CreateProcessW");
    CHECK_INT(procset_error_code(r), ==, ERROR_FILE_NOT_FOUND);
    CHECK(procset_launch_close(launch) == NULL);
}

// When the last of three cannot be started, the others and what they have
// started are gone: nobody holds the pipe.
static void
test_all_or_nothing(void)
{
    procset_launch *launch = open_launch(own_path());
    procset_handle read_end, write_end;
    char buffer[16];
    int64_t pid;
    int r;

    OK(procset_report_open(&read_end, &write_end));
    for (int i = 0; i < 2; i++) {
        add_program(launch, "tree", write_end, NULL);
        OK(procset_launch_inherit(launch, write_end));
    }
    add_program(launch, "set", 0, (const char *const[]) {"\xFF", NULL});
    r = procset_launch_start(launch);
    CHECK_INT(procset_error_code(r), ==, ERROR_INVALID_PARAMETER);
    CHECK(CloseHandle((HANDLE) write_end));
    CHECK_INT(read_all(read_end, buffer, sizeof(buffer)), <=, 2);
    CHECK(CloseHandle((HANDLE) read_end));
    CHECK_INT(procset_launch_take(launch, 0, &pid, &read_end), <, 0);
    CHECK(procset_launch_close(launch) == NULL);
}

// Processes have the standard streams of the launcher, as they are at the time
// of the start; leaving writes out what a stream still holds.
static void
test_standard_streams_and_leave(void)
{
    procset_launch *launch = open_launch(own_path());
    HANDLE output = GetStdHandle(STD_OUTPUT_HANDLE);
    procset_handle read_end, write_end;
    char buffer[64] = "";

    OK(procset_report_open(&read_end, &write_end));
    CHECK(SetStdHandle(STD_OUTPUT_HANDLE, (HANDLE) write_end));
    add_program(launch, "leave", 0x12345, NULL);
    OK(procset_launch_start(launch));
    CHECK(SetStdHandle(STD_OUTPUT_HANDLE, output));
    CHECK(CloseHandle((HANDLE) write_end));
    CHECK_INT(read_all(read_end, buffer, sizeof(buffer)), ==, 7);
    CHECK_STR(buffer, "flushed");
    CHECK_INT(wait_code(launch, 0), ==, 0x12345);
    CHECK_INT(procset_handle_close(read_end), ==, PROCSET_HANDLE_INVALID);
    CHECK(procset_launch_close(launch) == NULL);
}

// A launcher without standard streams, such as a service, starts programs
// without.
static void
test_without_standard_streams(void)
{
    const DWORD names[] = {STD_INPUT_HANDLE, STD_OUTPUT_HANDLE,
                           STD_ERROR_HANDLE};
    const char *const rest[] = {"told", NULL};
    procset_launch *launch = open_launch(own_path());
    HANDLE before[3];
    wchar_t buffer[8] = L"";

    for (size_t i = 0; i < 3; i++) {
        before[i] = GetStdHandle(names[i]);
        CHECK(SetStdHandle(names[i], i == 0 ? NULL : INVALID_HANDLE_VALUE));
    }
    (void) run_and_read(launch, "tell", rest, buffer, sizeof(buffer));
    for (size_t i = 0; i < 3; i++) {
        CHECK(SetStdHandle(names[i], before[i]));
    }
    CHECK_INT(wcscmp(buffer, L"told"), ==, 0);
    CHECK(procset_launch_close(launch) == NULL);
}

static void
run_all(void)
{
    RUN(test_calls_out_of_order_are_refused);
    RUN(test_an_empty_launch_starts_nothing);
    RUN(test_arguments);
    RUN(test_text_that_is_not_utf8_is_refused);
    RUN(test_environment);
    RUN(test_variables);
    RUN(test_only_intended_handles_are_inherited);
    RUN(test_a_handle_that_is_not_open_is_an_error);
    RUN(test_a_program_that_is_not_there_is_an_error);
    RUN(test_all_or_nothing);
    RUN(test_standard_streams_and_leave);
    RUN(test_without_standard_streams);
}

int
main(int argc, char **argv)
{
    return run_program(argc, argv, run_all);
}
