#define _GNU_SOURCE

#include "check.h"
#include "child.h"
#include "procset.h"
#include "shell.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

// Every test runs with the features of this system, and with fewer.
static unsigned features;

static procset_launch *
open_launch(const char *path)
{
    return launch_of(features, path);
}

static int
wait_status(procset_launch *launch, size_t index)
{
    return status_of_shell(features, launch, index);
}

static void
test_each_has_its_part_of_a_file_for_errors(void)
{
    char path[] = "/tmp/test_launch_XXXXXX";
    int file = mkstemp(path);
    procset_launch *launch = open_launch(SHELL);
    char content[9] = "";

    CHECK(file >= 0);
    CHECK_INT(procset_error_kind(procset_launch_errors(launch, path, 0)), ==,
              PROCSET_KIND_INVALID);
    add_script(launch, "echo abc >&2");
    OK(procset_launch_errors(launch, path, 4));
    add_script(launch, "printf x >&2; printf yz >&2");
    CHECK_INT(procset_error_kind(procset_launch_errors(launch, path, -1)), ==,
              PROCSET_KIND_INVALID);
    OK(procset_launch_errors(launch, "/nowhere", 1));
    OK(procset_launch_errors(launch, path, 1));
    OK(procset_launch_start(launch));
    CHECK_INT(wait_status(launch, 0), ==, 0);
    CHECK_INT(wait_status(launch, 1), ==, 0);
    CHECK(procset_launch_close(launch) == NULL);
    CHECK_INT(pread(file, content, sizeof(content), 0), ==, 8);
    CHECK(memcmp(content, "\0xyzabc\n", 8) == 0);
    CHECK_INT(close(file), ==, 0);
    CHECK_INT(unlink(path), ==, 0);
}

static void
test_a_file_for_errors_that_is_not_there(void)
{
    procset_launch *launch = open_launch(SHELL);
    int r;

    add_script(launch, "exit 0");
    OK(procset_launch_errors(launch, "/nowhere/at/all", 0));
    r = procset_launch_start(launch);
    CHECK_INT(procset_error_code(r), ==, ENOENT);
    CHECK(strcmp(procset_error_call(r), "open") == 0);
    CHECK(procset_launch_close(launch) == NULL);
}

static void
run_all(unsigned mask)
{
    features = mask;
    RUN(test_each_has_its_part_of_a_file_for_errors);
    RUN(test_a_file_for_errors_that_is_not_there);
}

int
main(void)
{
    run_with_fewer_launches(run_all);
    return 0;
}
