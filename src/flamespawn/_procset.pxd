# The C library as Cython sees it; csrc/procset.h holds the contracts.

from libc.stdint cimport int64_t, intptr_t


cdef extern from "procset.h" nogil:
    ctypedef intptr_t procset_handle
    const procset_handle PROCSET_HANDLE_INVALID

    ctypedef enum procset_kind:
        PROCSET_KIND_INTERRUPTED
        PROCSET_KIND_AGAIN
        PROCSET_KIND_GONE

    procset_kind procset_error_kind(int error)
    int procset_error_code(int error)
    const char *procset_error_call(int error)

    procset_handle procset_handle_close(procset_handle handle)
    int procset_handle_move(procset_handle *handle)
    int procset_handle_open(int64_t pid, procset_handle *ret_handle)
    int procset_handle_signal(procset_handle handle, int signal)
    int procset_memory_open(const char *name, procset_handle *ret_handle)
    int procset_report_open(procset_handle *ret_read, procset_handle *ret_write)

    int procset_job_open(procset_handle *ret_job)
    int procset_job_clear(procset_handle job, int64_t deadline,
                          size_t *ret_left, int64_t *ret_pid)

    const unsigned PROCSET_FEATURE_PIDFD
    const unsigned PROCSET_FEATURE_PWAIT2
    const unsigned PROCSET_FEATURE_VFORK
    const unsigned PROCSET_FEATURE_CLONE_PIDFD
    const unsigned PROCSET_FEATURE_CLOSE_RANGE
    const unsigned PROCSET_FEATURE_TREE
    const size_t PROCSET_BOARD_ENTRY_SIZE
    const unsigned PROCSET_FEATURE_GUARD
    const unsigned PROCSET_FEATURE_PID_EVENTS
    unsigned procset_probe()

    ctypedef struct procset_launch:
        pass

    int procset_launch_open(unsigned features, const char *path,
                            procset_launch **ret_launch)
    procset_launch *procset_launch_close(procset_launch *launch)
    int procset_launch_block(procset_launch *launch, int signal)
    int procset_launch_add(procset_launch *launch)
    int procset_launch_argument(procset_launch *launch, const char *argument)
    int procset_launch_inherit(procset_launch *launch, procset_handle handle)
    int procset_launch_environment(procset_launch *launch, const char *variable)
    int procset_launch_job(procset_launch *launch, procset_handle job)
    int procset_launch_take_job(procset_launch *launch, size_t index,
                                procset_handle *ret_job)
    int procset_launch_variable(procset_launch *launch, const char *variable)
    int procset_launch_errors(procset_launch *launch, const char *path,
                              int64_t offset)
    int procset_launch_start(procset_launch *launch)
    int procset_launch_take(procset_launch *launch, size_t index,
                            int64_t *ret_pid, procset_handle *ret_handle)

    ctypedef struct procset_tree:
        pass

    int procset_tree_open(unsigned features, const char *job,
                          procset_tree **ret_tree)
    procset_tree *procset_tree_close(procset_tree *tree)
    int procset_tree_look(procset_tree *tree, const int64_t *pids,
                          const size_t *ranks, size_t count)
    int procset_tree_end(procset_tree *tree, const size_t *ranks, size_t count,
                         int64_t deadline, size_t *ret_left, int64_t *ret_pid)

    ctypedef struct procset:
        pass

    int procset_open(unsigned features, procset **ret_set)
    procset *procset_close(procset *set)
    procset *procset_abandon(procset *set)

    ctypedef struct procset_member:
        int64_t pid
        procset_handle sentinel
        procset_handle report
        procset_handle job
        bint over

    int procset_add(procset *set, const procset_member *member, size_t *ret_index)

    ctypedef enum procset_state:
        PROCSET_RUNNING
        PROCSET_EXITED
        PROCSET_SIGNALED

    ctypedef struct procset_status:
        procset_state state
        int code
        bint core_dumped
        int64_t user_ns
        int64_t system_ns
        int64_t max_rss

    int procset_peek(int64_t pid, bint block, procset_status *ret_status)
    int procset_get_status(procset *set, size_t index, procset_status *ret_status)

    ctypedef enum procset_event_type:
        PROCSET_EVENT_ENDED
        PROCSET_EVENT_READABLE
        PROCSET_EVENT_WOKEN

    ctypedef struct procset_event:
        procset_event_type type
        size_t index
        procset_state state
        int code

    const int64_t PROCSET_NEVER

    int procset_wait(procset *set, int64_t deadline, procset_event *events,
                     size_t capacity, size_t *ret_count)
    int procset_wake(procset *set)
    procset_handle procset_wake_handle(const procset *set)
    procset_handle procset_wait_handle(const procset *set)

    int procset_signal(procset *set, size_t index, int signal)
    int procset_read(procset *set, size_t index, void *buffer, size_t size,
                     size_t *ret_count)
    int procset_forget_report(procset *set, size_t index)
