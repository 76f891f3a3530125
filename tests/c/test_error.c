#include "check.h"
#include "error.h"

#include <errno.h>

// An error value gives back the call and the code that it was made from.
static void
test_error_carries_call_and_code(void)
{
    int r = procset__error(PROCSET__CALL_PIDFD_OPEN, EMFILE);

    CHECK_INT(r, <, 0);
    CHECK_INT(procset_error_code(r), ==, EMFILE);
    CHECK_STR(procset_error_call(r), "pidfd_open");
}

static void
test_error_last_takes_errno(void)
{
    errno = ENOSYS;
    CHECK_INT(procset_error_code(procset__error_last(PROCSET__CALL_WAITID)),
              ==, ENOSYS);
}

// Each kind that portable code looks at comes from the codes that mean it.
static void
test_error_kind(void)
{
    const struct {
        int code;
        procset_kind kind;
    } expected[] = {
        {EINVAL, PROCSET_KIND_INVALID}, {EINTR, PROCSET_KIND_INTERRUPTED},
        {EAGAIN, PROCSET_KIND_AGAIN},   {ECHILD, PROCSET_KIND_NO_CHILD},
        {ESRCH, PROCSET_KIND_GONE},     {EMFILE, PROCSET_KIND_LIMIT},
        {ENFILE, PROCSET_KIND_LIMIT},   {ENOMEM, PROCSET_KIND_LIMIT},
        {EPERM, PROCSET_KIND_REFUSED},  {ENOSYS, PROCSET_KIND_REFUSED},
        {EPIPE, PROCSET_KIND_OTHER},
    };

    for (size_t i = 0; i < sizeof(expected) / sizeof(expected[0]); i++) {
        int r = procset__error(PROCSET__CALL_READ, expected[i].code);

        CHECK_INT(procset_error_kind(r), ==, expected[i].kind);
    }
}

// A number that is no error value of ours still has a name.
static void
test_error_call_of_anything(void)
{
    CHECK_STR(procset_error_call(-(4000 << 16)), "unknown");
}

int
main(void)
{
    RUN(test_error_carries_call_and_code);
    RUN(test_error_last_takes_errno);
    RUN(test_error_kind);
    RUN(test_error_call_of_anything);
    return 0;
}
