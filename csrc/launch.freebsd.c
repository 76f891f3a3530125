// Starting a program on FreeBSD. vfork() would spare the copy of the page
// tables; it is not for C that does more than to call execve() at once.

#define _GNU_SOURCE

#include "launch_system.h"

#include "launch_child.h"

int
procset__launcher_open(procset__launcher *ret_launcher)
{
    *ret_launcher = (procset__launcher) {.memory = NULL};
    return 0;
}

void
procset__launcher_close(procset__launcher *launcher)
{
    (void) launcher;
}

unsigned
procset__launch_probe(void)
{
    return procset__child_has_close_range() ? PROCSET_FEATURE_CLOSE_RANGE : 0;
}

int
procset__launcher_create(const procset__launcher *launcher,
                         const procset_launch *launch,
                         const procset__launchee *entry, procset__proc *proc)
{
    procset__child_plan plan = procset__child_plan_of(launch, entry);

    (void) launcher;
    return procset__child_fork(&plan, proc);
}
