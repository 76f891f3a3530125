// What the tests ask the system that they run on.

#define _GNU_SOURCE

#include "child.h"

#include "check.h"

#include <fcntl.h>

enum { MOST_DESCRIPTORS = 1024 };

int
count_descriptors(void)
{
    int count = 0;

    for (int fd = 0; fd < MOST_DESCRIPTORS; fd++) {
        count += fcntl(fd, F_GETFD) >= 0;
    }
    return count;
}

#ifdef __APPLE__

#include <mach/mach.h>

int
count_threads(void)
{
    mach_msg_type_number_t count;
    thread_act_array_t threads;

    CHECK_INT(task_threads(mach_task_self(), &threads, &count), ==,
              KERN_SUCCESS);
    for (mach_msg_type_number_t i = 0; i < count; i++) {
        (void) mach_port_deallocate(mach_task_self(), threads[i]);
    }
    (void) vm_deallocate(mach_task_self(), (vm_address_t) threads,
                         count * sizeof(*threads));
    return (int) count;
}

#elif defined(__FreeBSD__)

#include <sys/types.h>

#include <sys/sysctl.h>
#include <sys/user.h>
#include <unistd.h>

int
count_threads(void)
{
    int name[] = {CTL_KERN, KERN_PROC, KERN_PROC_PID, getpid()};
    struct kinfo_proc process;
    size_t size = sizeof(process);

    CHECK_INT(sysctl(name, 4, &process, &size, NULL, 0), ==, 0);
    return process.ki_numthreads;
}

#else

#include <dirent.h>

int
count_threads(void)
{
    DIR *directory = opendir("/proc/self/task");
    int count = 0;

    CHECK(directory != NULL);
    while (readdir(directory) != NULL) {
        count++;
    }
    CHECK_INT(closedir(directory), ==, 0);
    // Two of them are the folder itself and the one above it.
    return count - 2;
}

#endif
