"""
The C library's set of processes, for Python.

Thin on purpose: convert, release the GIL, call, check. What a call promises is
in csrc/procset.h; what to do about it is decided in `flamespawn._context`.
"""

import _signal
import os
import signal
import threading
import time

from cpython.bytearray cimport PyByteArray_AsString, PyByteArray_Resize
from cpython.exc cimport PyErr_CheckSignals, PyErr_WarnEx
from cpython.ref cimport Py_DECREF, Py_INCREF
from libc.stdint cimport int64_t
from libc.stdlib cimport free, malloc

from flamespawn._procset cimport (
    PROCSET_EVENT_ENDED,
    PROCSET_EVENT_READABLE,
    PROCSET_EVENT_WOKEN,
    PROCSET_EXITED,
    PROCSET_FEATURE_CLONE_PIDFD,
    PROCSET_FEATURE_CLOSE_RANGE,
    PROCSET_FEATURE_GUARD,
    PROCSET_FEATURE_PIDFD,
    PROCSET_FEATURE_PID_EVENTS,
    PROCSET_FEATURE_PWAIT2,
    PROCSET_BOARD_ENTRY_SIZE,
    PROCSET_FEATURE_TREE,
    PROCSET_FEATURE_VFORK,
    PROCSET_HANDLE_INVALID,
    PROCSET_KIND_AGAIN,
    PROCSET_KIND_GONE,
    PROCSET_KIND_INTERRUPTED,
    PROCSET_NEVER,
    PROCSET_RUNNING,
    PROCSET_SIGNALED,
    procset,
    procset_abandon,
    procset_add,
    procset_close,
    procset_error_call,
    procset_error_code,
    procset_error_kind,
    procset_event,
    procset_forget_report,
    procset_get_status,
    procset_handle,
    procset_handle_close,
    procset_handle_move,
    procset_handle_open,
    procset_handle_signal,
    procset_job_clear,
    procset_job_open,
    procset_launch,
    procset_launch_add,
    procset_launch_argument,
    procset_launch_block,
    procset_launch_close,
    procset_launch_environment,
    procset_launch_errors,
    procset_launch_inherit,
    procset_launch_job,
    procset_launch_open,
    procset_launch_start,
    procset_launch_take,
    procset_launch_take_job,
    procset_launch_variable,
    procset_member,
    procset_memory_open,
    procset_open,
    procset_peek,
    procset_probe,
    procset_read,
    procset_report_open,
    procset_signal,
    procset_state,
    procset_status,
    procset_tree,
    procset_tree_close,
    procset_tree_end,
    procset_tree_look,
    procset_tree_open,
    procset_wait,
    procset_wait_handle,
    procset_wake,
    procset_wake_handle,
)

FEATURE_PIDFD = PROCSET_FEATURE_PIDFD
FEATURE_PWAIT2 = PROCSET_FEATURE_PWAIT2
FEATURE_VFORK = PROCSET_FEATURE_VFORK
FEATURE_CLONE_PIDFD = PROCSET_FEATURE_CLONE_PIDFD
FEATURE_CLOSE_RANGE = PROCSET_FEATURE_CLOSE_RANGE
FEATURE_TREE = PROCSET_FEATURE_TREE
BOARD_ENTRY_SIZE = PROCSET_BOARD_ENTRY_SIZE
FEATURE_GUARD = PROCSET_FEATURE_GUARD
FEATURE_PID_EVENTS = PROCSET_FEATURE_PID_EVENTS

ENDED = PROCSET_EVENT_ENDED
READABLE = PROCSET_EVENT_READABLE
WOKEN = PROCSET_EVENT_WOKEN

# Events taken from one wait; what does not fit comes with the next.
cdef enum:
    BATCH = 64


# How long a process that was killed is waited for when its set is collected.
cdef int64_t END_NS = 2_000_000_000

# Here for the time when modules are taken apart.
cdef object now_ns = time.perf_counter_ns


cdef int check(int r) except -1:
    """Turn an error value into the OSError that names the failed call."""
    if r >= 0:
        return r
    from flamespawn._platform import os_error
    raise os_error(procset_error_code(r), procset_error_call(r).decode("ascii"))


cdef object exit_code_of(procset_state state, int code):
    """Return an exit code as multiprocessing writes it: negative for signals, None if unknown."""
    if state == PROCSET_EXITED:
        # Its bits are all that a C library has of a number without a sign.
        return <unsigned> code
    return -code if state == PROCSET_SIGNALED else None


def probe():
    """Return the features that this system offers, as a mask of `FEATURE_...`."""
    return procset_probe()


def peek(int64_t pid, *, bint block):
    """
    Look whether a child has ended, and leave it to be collected.

    Returns:
        Its exit code, and whether it dumped core; None while it runs.

    Raises:
        ChildProcessError: there is no such child.
    """
    cdef procset_status status
    cdef int r = 0
    while True:
        with nogil:
            r = procset_peek(pid, block, &status)
        if r >= 0 or procset_error_kind(r) != PROCSET_KIND_INTERRUPTED:
            break
        PyErr_CheckSignals()
    check(r)
    if status.state == PROCSET_RUNNING:
        return None
    return exit_code_of(status.state, status.code), bool(status.core_dumped)


def launch(unsigned features, bytes path, list programs, list blocked, list started not None, *,
           list environment=[], Fd job=None, bytes errors=None, int64_t errors_size=0):
    """
    Start all programs, or none.

    Each program is given by its arguments, the descriptors that it inherits, and a variable of its
    own, as NAME=VALUE, or None; either all have one of that name, or none has.

    With the path *errors*, that file is their standard error: the first writes at its beginning,
    the second *errors_size* bytes later, and so on.

    What was started is appended to *started*, as its pid, its handle and its job, each an `Fd`, or
    None where the system has no such thing, because a signal handler may raise before the caller
    has stored a result.
    """
    cdef procset_launch *prepared = NULL
    cdef int64_t pid = 0
    cdef procset_handle handle = PROCSET_HANDLE_INVALID
    cdef int r
    check(procset_launch_open(features, path, &prepared))
    try:
        for signum in blocked:
            check(procset_launch_block(prepared, signum))
        for variable in environment:
            check(procset_launch_environment(prepared, variable))
        if job is not None:
            check(procset_launch_job(prepared, job._fd))
        for index, (arguments, inherited, variable) in enumerate(programs):
            check(procset_launch_add(prepared))
            if variable is not None:
                check(procset_launch_variable(prepared, variable))
            if errors is not None:
                check(procset_launch_errors(prepared, errors, index * errors_size))
            for argument in arguments:
                check(procset_launch_argument(prepared, argument))
            for fd in inherited:
                check(procset_launch_inherit(prepared, fd))
        with nogil:
            r = procset_launch_start(prepared)
        check(r)
        for index in range(len(programs)):
            check(procset_launch_take(prepared, index, &pid, &handle))
            owner = owner_of(handle)
            check(procset_launch_take_job(prepared, index, &handle))
            started.append((pid, owner, owner_of(handle)))
    finally:
        procset_launch_close(prepared)


cdef class Fd:
    """
    The owner of a handle: it is closed with `close`, or when its owner is collected.

    A handle is a descriptor, or a HANDLE on Windows. Compiled, so that no exception of a signal
    handler can fall between the call that opens it and its owner.
    """

    cdef procset_handle _fd

    def __cinit__(self, function=None, *args):
        """Own what `function(*args)` returns, moved away from the three standard streams."""
        self._fd = PROCSET_HANDLE_INVALID
        if function is not None:
            self._fd = function(*args)
            check(procset_handle_move(&self._fd))

    def __dealloc__(self):
        self.close()

    def fileno(self):
        if self._fd == PROCSET_HANDLE_INVALID:
            raise ValueError("the descriptor is closed")
        return self._fd

    def detach(self):
        """Return the handle, which is the caller's from now on."""
        cdef procset_handle fd = self.fileno()
        self._fd = PROCSET_HANDLE_INVALID
        return fd

    def close(self):
        self._fd = procset_handle_close(self._fd)


cdef Fd owner_of(procset_handle handle):
    """Return the owner of a handle, None if there is none."""
    cdef Fd owner = None
    if handle != PROCSET_HANDLE_INVALID:
        owner = Fd()
        owner._fd = handle
    return owner


def open_handle(int64_t pid):
    """
    Return the owner of the handle of a process. Linux only.

    Not `os.pidfd_open`, which Python lacks when it was built for older systems than it runs on.

    Raises:
        ProcessLookupError: there is no such process.
        OSError: the system has no handles.
    """
    cdef Fd owner = Fd()
    check(procset_handle_open(pid, &owner._fd))
    check(procset_handle_move(&owner._fd))
    return owner


def signal_handle(procset_handle handle, int signum):
    """
    Send a signal to the process of a handle. Linux only.

    Raises:
        ProcessLookupError: it has been collected.
    """
    check(procset_handle_signal(handle, signum))


def open_memory(bytes name not None):
    """
    Return the owner of a new, empty file in memory that can be sealed.

    Not `os.memfd_create`, for the same reason.

    Raises:
        OSError: the system has none, or refuses it.
    """
    cdef Fd owner = Fd()
    check(procset_memory_open(name, &owner._fd))
    check(procset_handle_move(&owner._fd))
    return owner


def open_job():
    """Return the owner of a job that ends what is in it when it is closed; None without jobs."""
    cdef procset_handle handle = PROCSET_HANDLE_INVALID
    check(procset_job_open(&handle))
    return owner_of(handle)


def clear_jobs(list jobs not None, deadline=None):
    """End what is in jobs; return how many were left at the deadline, and the pid of one of them."""
    cdef int64_t until = PROCSET_NEVER if deadline is None else deadline
    cdef procset_handle job
    cdef size_t left = 0
    cdef size_t left_in_all = 0
    cdef int64_t pid = 0
    cdef int r = 0
    for job in jobs:
        with nogil:
            r = procset_job_clear(job, until, &left, &pid)
        check(r)
        left_in_all += left
    return left_in_all, pid


def open_pipe():
    """Return the owners of the read end and the write end of a new pipe for reports."""
    cdef Fd read_end = Fd()
    cdef Fd write_end = Fd()
    check(procset_report_open(&read_end._fd, &write_end._fd))
    return read_end, write_end


cdef class ProcSet:
    """
    A set of processes to wait for.

    One thread at a time may be in `wait`; everything else may be called from
    any thread. Using a closed set raises ValueError.
    """

    cdef procset *_set
    cdef bint _waiting
    cdef object _owner
    cdef size_t _count
    cdef object _wakeup
    cdef int _kill

    def __cinit__(self, unsigned features):
        self._set = NULL
        self._waiting = False
        self._owner = os.getpid()
        self._count = 0
        check(procset_open(features, &self._set))
        # Its names are found by Python code, and `from ... import` makes an ImportError of a
        # KeyboardInterrupt that comes there.
        from flamespawn import _platform
        self._kill = _platform.KILL
        self._wakeup = _platform.Wakeup(procset_wake_handle(self._set))

    def __dealloc__(self):
        cdef procset *unclosed = self._set
        if unclosed != NULL and os.getpid() != self._owner:
            # In a fork, where a thread that is not here may have held a lock.
            self._set = procset_abandon(self._set)
            return
        self._set = procset_close(self._set)
        if unclosed != NULL:
            PyErr_WarnEx(ResourceWarning, "unclosed flamespawn._native.ProcSet", 1)

    cdef procset *_open(self) except NULL:
        if self._set == NULL:
            raise ValueError("the set is closed")
        return self._set

    @property
    def closed(self):
        return self._set == NULL

    def close(self):
        if self._waiting:
            raise RuntimeError("the set cannot be closed while it is waited for")
        self._set = procset_close(self._set)
        self._wakeup.close()

    def abandon(self):
        self._set = procset_abandon(self._set)

    def add(self, int64_t pid, *, procset_handle sentinel=PROCSET_HANDLE_INVALID,
            procset_handle report=PROCSET_HANDLE_INVALID,
            procset_handle job=PROCSET_HANDLE_INVALID, bint over=False):
        cdef procset_member member
        cdef size_t index = 0
        member.pid = pid
        member.sentinel = sentinel
        member.report = report
        member.job = job
        member.over = over
        check(procset_add(self._open(), &member, &index))
        self._count = index + 1
        return index

    def wait(self, deadline=None):
        cdef procset *handle = self._open()
        cdef int64_t until = PROCSET_NEVER if deadline is None else deadline
        cdef procset_event events[BATCH]
        cdef size_t count = 0
        cdef int r = 0
        if self._waiting:
            raise RuntimeError("another thread is waiting for this set")
        self._waiting = True
        try:
            while True:
                # A handler that ran before the system call is seen here; one
                # that runs during it interrupts the call or rings the set.
                PyErr_CheckSignals()
                with nogil:
                    r = procset_wait(handle, until, events, BATCH, &count)
                if r >= 0 or procset_error_kind(r) != PROCSET_KIND_INTERRUPTED:
                    break
        finally:
            self._waiting = False
        check(r)
        return [
            (events[i].type, events[i].index, exit_code_of(events[i].state, events[i].code))
            for i in range(count)
        ]

    def end(self):
        """
        Kill all members, and wait until they have ended, but for a bounded time.

        For the time when an object is collected, which may be any: it runs no Python code, so that
        nothing can cut it short. What members have not reported yet is lost.

        Returns:
            False, and nothing was done, in a forked process and when the set is closed.
        """
        cdef procset_event events[BATCH]
        cdef procset_status status
        cdef size_t left = 0
        cdef size_t count = 0
        cdef int64_t until
        cdef int r
        if self._set == NULL or self._waiting or os.getpid() != self._owner:
            return False
        for index in range(self._count):
            procset_signal(self._set, index, self._kill)
        for index in range(self._count):
            # A report that nobody reads would keep the set awake.
            procset_forget_report(self._set, index)
        until = now_ns() + END_NS
        while now_ns() < until:
            left = 0
            for index in range(self._count):
                if procset_get_status(self._set, index, &status) == 0:
                    left += status.state == PROCSET_RUNNING
            if left == 0:
                break
            with nogil:
                r = procset_wait(self._set, until, events, BATCH, &count)
            if r < 0 and procset_error_kind(r) != PROCSET_KIND_INTERRUPTED:
                break
        return True

    def ended(self, size_t index):
        cdef procset_status status
        check(procset_get_status(self._open(), index, &status))
        return status.state != PROCSET_RUNNING

    def exit_code(self, size_t index):
        cdef procset_status status
        check(procset_get_status(self._open(), index, &status))
        return exit_code_of(status.state, status.code)

    def usage(self, size_t index):
        cdef procset_status status
        check(procset_get_status(self._open(), index, &status))
        return (bool(status.core_dumped), status.user_ns, status.system_ns, status.max_rss)

    def signal(self, size_t index, int signum):
        cdef int r = procset_signal(self._open(), index, signum)
        if r < 0 and procset_error_kind(r) == PROCSET_KIND_GONE:
            return False
        check(r)
        return True

    def read(self, size_t index, bytearray buffer not None, Py_ssize_t size):
        # Read and append in one step, so that an exception from a signal
        # handler cannot fall between the two and lose what was read.
        cdef Py_ssize_t length = len(buffer)
        cdef size_t count = 0
        cdef int r
        PyByteArray_Resize(buffer, length + size)
        r = procset_read(self._open(), index, PyByteArray_AsString(buffer) + length,
                         size, &count)
        PyByteArray_Resize(buffer, length + <Py_ssize_t> count)
        if r < 0 and procset_error_kind(r) == PROCSET_KIND_AGAIN:
            return None
        check(r)
        return count

    def forget_report(self, size_t index):
        check(procset_forget_report(self._open(), index))

    def wake(self):
        check(procset_wake(self._open()))

    def wake_fileno(self):
        self._open()
        return self._wakeup.fd

    def fileno(self):
        return procset_wait_handle(self._open())


cdef size_t *copy_of(list numbers) except NULL:
    """Return an array of at least one, which the caller frees."""
    cdef size_t *copy = <size_t *> malloc((len(numbers) + 1) * sizeof(size_t))
    if copy == NULL:
        raise MemoryError
    try:
        for i, number in enumerate(numbers):
            copy[i] = number
    except BaseException:
        free(copy)
        raise
    return copy


cdef class Tree:
    """The descendants of the ranks of a job. Used by one thread at a time."""

    cdef procset_tree *_tree

    def __cinit__(self, unsigned features, bytes job not None):
        self._tree = NULL
        check(procset_tree_open(features, job, &self._tree))

    def __dealloc__(self):
        self.close()

    def close(self):
        self._tree = procset_tree_close(self._tree)

    cdef procset_tree *_open(self) except NULL:
        if self._tree == NULL:
            raise ValueError("the tree is closed")
        return self._tree

    def look(self, list pids not None, list ranks not None):
        """Remember the descendants that processes have now, on behalf of the ranks."""
        cdef procset_tree *tree = self._open()
        cdef size_t count = min(len(pids), len(ranks))
        cdef size_t *all_ranks = copy_of(ranks)
        cdef int64_t *all_pids = NULL
        cdef int r = 0
        try:
            # Of the same size on all systems with pids and pointers of 64 bits.
            all_pids = <int64_t *> copy_of(pids)
            with nogil:
                r = procset_tree_look(tree, all_pids, all_ranks, count)
        finally:
            free(all_ranks)
            free(all_pids)
        check(r)

    def end(self, list ranks not None, deadline=None):
        """Return how many could not be ended until the deadline, and the pid of one of them."""
        cdef procset_tree *tree = self._open()
        cdef int64_t until = PROCSET_NEVER if deadline is None else deadline
        cdef size_t count = len(ranks)
        cdef size_t left = 0
        cdef int64_t pid = 0
        cdef size_t *all_ranks = copy_of(ranks)
        cdef int r = 0
        try:
            while True:
                PyErr_CheckSignals()
                with nogil:
                    r = procset_tree_end(tree, all_ranks, count, until, &left, &pid)
                if r >= 0 or procset_error_kind(r) != PROCSET_KIND_INTERRUPTED:
                    break
        finally:
            free(all_ranks)
        check(r)
        return left, pid


include "_native_signals.pxi"
