#include "member.windows.h"

#include "check.h"
#include "clock.h"

procset_member
member_of(const test_child *child)
{
    return (procset_member) {
        .pid = child->pid,
        .sentinel = (procset_handle) child->process,
        .report = PROCSET_HANDLE_INVALID,
        .job = PROCSET_HANDLE_INVALID,
    };
}

size_t
wait_for_end(procset *set)
{
    int64_t deadline = procset__now() + LIVENESS_NS;
    procset_event event;
    size_t count = 0;

    do {
        OK(procset_wait(set, deadline, &event, 1, &count));
        CHECK_INT(procset__now(), <, deadline);
    } while (count == 0 || event.type != PROCSET_EVENT_ENDED);
    return event.index;
}

procset *
open_with(const test_child *children, size_t count)
{
    procset *set = NULL;
    size_t index = 99;

    OK(procset_open(procset_probe(), &set));
    for (size_t i = 0; i < count; i++) {
        procset_member member = member_of(&children[i]);

        OK(procset_add(set, &member, &index));
        CHECK_INT(index, ==, i);
    }
    return set;
}

procset_status
status_of(procset *set, size_t index)
{
    procset_status status = {0};

    OK(procset_get_status(set, index, &status));
    return status;
}

size_t
look(procset *set, procset_event *events, size_t capacity)
{
    size_t count = 99;

    OK(procset_wait(set, 0, events, capacity, &count));
    return count;
}

procset_event
next_event(procset *set)
{
    int64_t deadline = procset__now() + LIVENESS_NS;
    procset_event event;
    size_t count = 0;

    OK(procset_wait(set, deadline, &event, 1, &count));
    CHECK_INT(count, ==, 1);
    return event;
}
