#include "check.h"
#include "child.windows.h"
#include "error.h"

// An error value gives back the call and the code that it was made from.
static void
test_error_carries_call_and_code(void)
{
    int r = procset__error(PROCSET__CALL_OPEN_PROCESS, ERROR_ACCESS_DENIED);

    CHECK_INT(r, <, 0);
    CHECK_INT(procset_error_code(r), ==, ERROR_ACCESS_DENIED);
    CHECK_STR(procset_error_call(r), "OpenProcess");
}

// Codes that say nothing or do not fit become a failure without a name.
static void
test_error_last(void)
{
    const DWORD given[] = {ERROR_BROKEN_PIPE, 0, 0xC0000005};
    const int taken[] = {ERROR_BROKEN_PIPE, ERROR_GEN_FAILURE,
                         ERROR_GEN_FAILURE};

    for (size_t i = 0; i < 3; i++) {
        SetLastError(given[i]);
        CHECK_INT(
            procset_error_code(procset__error_last(PROCSET__CALL_READ_FILE)),
            ==, taken[i]);
    }
}

// Each kind that portable code looks at comes from the codes that mean it.
static void
test_error_kind(void)
{
    CHECK_INT(procset_error_kind(procset__error_invalid(PROCSET__CALL_ADD)),
              ==, PROCSET_KIND_INVALID);
    CHECK_INT(procset_error_kind(procset__error_no_memory()), ==,
              PROCSET_KIND_LIMIT);
    CHECK_INT(procset_error_kind(procset__error_gone(PROCSET__CALL_ADD)), ==,
              PROCSET_KIND_GONE);
    CHECK_INT(procset_error_kind(procset__error_again(PROCSET__CALL_ADD)), ==,
              PROCSET_KIND_AGAIN);
    CHECK_INT(procset__kind_of_code(ERROR_NO_SYSTEM_RESOURCES), ==,
              PROCSET_KIND_LIMIT);
    CHECK_INT(procset__kind_of_code(ERROR_ACCESS_DENIED), ==,
              PROCSET_KIND_REFUSED);
    CHECK_INT(procset__kind_of_code(ERROR_FILE_NOT_FOUND), ==,
              PROCSET_KIND_OTHER);
}

int
main(void)
{
    RUN(test_error_carries_call_and_code);
    RUN(test_error_last);
    RUN(test_error_kind);
    return 0;
}
