// A test is a function that is run by RUN(); a failed check prints both sides
// and ends the program.

#ifndef CHECK_H
#define CHECK_H

#include <inttypes.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define CHECK_INT(left, op, right)                                            \
    do {                                                                      \
        int64_t left_ = (int64_t) (left), right_ = (int64_t) (right);         \
        if (!(left_ op right_)) {                                             \
            fprintf(stderr, "%s:%d: %s %s %s: %" PRId64 " and %" PRId64 "\n", \
                    __FILE__, __LINE__, #left, #op, #right, left_, right_);   \
            exit(1);                                                          \
        }                                                                     \
    } while (0)

#define CHECK(condition) CHECK_INT(!!(condition), ==, 1)

#define CHECK_STR(left, right)                                                \
    do {                                                                      \
        const char *left_ = (left), *right_ = (right);                        \
        if (strcmp(left_, right_) != 0) {                                     \
            fprintf(stderr, "%s:%d: %s: \"%s\" is not \"%s\"\n", __FILE__,    \
                    __LINE__, #left, left_, right_);                          \
            exit(1);                                                          \
        }                                                                     \
    } while (0)

// A call of the library that must succeed.
#define OK(call)                                                              \
    do {                                                                      \
        int r_ = (call);                                                      \
        if (r_ < 0) {                                                         \
            fprintf(stderr, "%s:%d: %s: %s failed with code %d\n", __FILE__,  \
                    __LINE__, #call, procset_error_call(r_),                  \
                    procset_error_code(r_));                                  \
            exit(1);                                                          \
        }                                                                     \
    } while (0)

#define RUN(test)                                                             \
    do {                                                                      \
        test();                                                               \
        printf("ok %s\n", #test);                                             \
        fflush(stdout);                                                       \
    } while (0)

#endif
