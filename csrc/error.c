#include "error.h"

#include <assert.h>

// Codes take the low 16 bits: errno values are small, and all codes of
// CreateProcess, wait and pipe calls on Windows are below 16,000.
#define CODE_BITS 16
#define CODE_MASK ((1 << CODE_BITS) - 1)

int
procset__error(procset__call call, int code)
{
    assert(code > 0 && code <= CODE_MASK && "a failed call has a code");
    return -(((int) call << CODE_BITS) | code);
}

int
procset_error_code(int error)
{
    return -error & CODE_MASK;
}

const char *
procset_error_call(int error)
{
    switch (-error >> CODE_BITS) {
#define XX(name, text)                                                        \
    case PROCSET__CALL_##name:                                                \
        return text;
        PROCSET__CALL_MAP(XX)
#undef XX
    }
    return "unknown";
}

procset_kind
procset_error_kind(int error)
{
    return procset__kind_of_code(procset_error_code(error));
}
