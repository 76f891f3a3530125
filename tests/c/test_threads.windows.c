// One thread waits while others signal, wake, read, ask and add.

#include "check.h"
#include "member.windows.h"
#include "program.windows.h"

enum { CHILDREN = 24, HELPERS = 3, ROUNDS = 5 };

typedef struct {
    procset *set;
    size_t first;
    test_child *children;
    procset_handle *write_ends;
} helper;

// Writes to the reports of some members, forgets them and ends them.
static DWORD WINAPI
disturb(void *argument)
{
    const helper *self = argument;
    procset_status status;
    DWORD written;
    int r;

    for (size_t i = self->first; i < CHILDREN / 2; i += HELPERS) {
        OK(procset_wake(self->set));
        OK(procset_get_status(self->set, i, &status));
        CHECK(WriteFile((HANDLE) self->write_ends[i], "x", 1, &written, NULL));
        OK(procset_forget_report(self->set, i));
        r = procset_signal(self->set, i, SIGNAL_TERM);
        CHECK(r == 0 || procset_error_kind(r) == PROCSET_KIND_GONE);
    }
    return 0;
}

static DWORD WINAPI
add_more(void *argument)
{
    const helper *self = argument;

    for (size_t i = CHILDREN / 2; i < CHILDREN; i++) {
        procset_member member = member_of(&self->children[i]);
        size_t index;

        OK(procset_add(self->set, &member, &index));
        OK(procset_signal(self->set, index, SIGNAL_TERM));
    }
    return 0;
}

static void
test_all_at_once(void)
{
    test_child children[CHILDREN];
    procset_handle read_ends[CHILDREN], write_ends[CHILDREN];
    helper helpers[HELPERS + 1];
    HANDLE threads[HELPERS + 1];
    procset *set = NULL;

    OK(procset_open(procset_probe(), &set));
    for (size_t i = 0; i < CHILDREN; i++) {
        children[i] = child_start(0);
        OK(procset_report_open(&read_ends[i], &write_ends[i]));
    }
    for (size_t i = 0; i < CHILDREN / 2; i++) {
        procset_member member = member_of(&children[i]);
        size_t index;

        member.report = read_ends[i];
        OK(procset_add(set, &member, &index));
    }
    for (size_t i = 0; i <= HELPERS; i++) {
        helpers[i] = (helper) {set, i, children, write_ends};
        threads[i] = CreateThread(NULL, 0, i < HELPERS ? disturb : add_more,
                                  &helpers[i], 0, NULL);
        CHECK(threads[i] != NULL);
    }
    for (size_t i = 0; i < CHILDREN; i++) {
        (void) wait_for_end(set);
    }
    for (size_t i = 0; i <= HELPERS; i++) {
        CHECK_INT(WaitForSingleObject(threads[i], INFINITE), ==,
                  WAIT_OBJECT_0);
        CHECK(CloseHandle(threads[i]));
    }
    for (size_t i = 0; i < CHILDREN; i++) {
        child_release(&children[i]);
        child_done(&children[i]);
        CHECK(CloseHandle((HANDLE) read_ends[i]));
        CHECK(CloseHandle((HANDLE) write_ends[i]));
    }
    set = procset_close(set);
}

int
main(int argc, char **argv)
{
    child_main(argc, argv);
    for (int i = 0; i < ROUNDS; i++) {
        RUN(test_all_at_once);
    }
    return 0;
}
