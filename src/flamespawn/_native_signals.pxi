# Calls that signal handlers do not cut short; a part of `_native.pyx`.
#
# They are compiled because CPython runs signal handlers between any two calls of Python code, but
# not inside of compiled code. A `with` statement in Python would not do: from 3.14 on a handler may
# run between the end of `__enter__` and the body. What is taken here is given back whatever a
# handler raises.


cdef class Turn:
    """The right to wait for a set; at most one thread has it. See `flamespawn._turn`."""

    cdef readonly object holder
    cdef list _batons

    def __cinit__(self):
        self.holder = None
        self._batons = []

    def add_baton(self, baton):
        """Have a lock released when the turn becomes free, once."""
        self._batons.append(baton)

    def call(self, function, *args):
        """Call `function(*args)` in this turn; return False at once if somebody else has it."""
        if self.holder is not None:
            return False
        self.holder = threading.get_ident()
        try:
            function(*args)
        finally:
            batons = self._batons
            self._batons = []
            self.holder = None
            for baton in batons:
                baton.release()
        return True


def call_locked(lock, function, *args):
    """Return `function(*args)`, called while this thread holds *lock*."""
    lock.acquire()
    try:
        return function(*args)
    finally:
        lock.release()


cdef enum:
    UNDO_TRIES = 5


def call_or_undo(function, undo):
    """
    Return `function()`. When it raises, call `undo(at_once)` before that passes.

    What undoes is Python code, which an exception of a signal handler may cut short: then it is
    called again, with true. Of two interrupts the first passes.
    """
    try:
        return function()
    except BaseException as error:
        passes = error
        for attempt in range(UNDO_TRIES):
            try:
                undo(attempt > 0)
                break
            except BaseException as again:
                if not (isinstance(again, KeyboardInterrupt)
                        and isinstance(error, KeyboardInterrupt)):
                    passes = again
        if passes is not error:
            raise passes
        raise


cdef object set_wakeup_fd = signal.set_wakeup_fd


def call_while_signals_wake(ProcSet process_set not None, function, *args):
    """Return `function(*args)`; meanwhile signals wake the set. See `flamespawn._wakeup`."""
    previous = set_wakeup_fd(process_set.wake_fileno())
    if previous != -1:
        set_wakeup_fd(previous)
        return function(*args)
    try:
        return function(*args)
    finally:
        set_wakeup_fd(-1)


cdef extern from "Python.h":
    int Py_AddPendingCall(int (*function)(void *) except -1, void *argument)


cdef int call_pending(void *argument) except -1:
    function = <object> argument
    Py_DECREF(function)
    function()
    return 0


def call_in_main_thread(function):
    """Have the main thread call *function* between two bytecodes of its own; False if it is busy."""
    Py_INCREF(function)
    if Py_AddPendingCall(call_pending, <void *> function) < 0:
        Py_DECREF(function)
        return False
    return True


# How long a handler is held back if the signal comes again: what is called may be stuck.
cdef int64_t HOLD_NS = 10_000_000_000

cdef object get_handler = _signal.getsignal
cdef object set_handler = _signal.signal
cdef tuple SIGNALS = tuple(sorted(map(int, signal.valid_signals())))


cdef class HeldSignals:
    """
    Keeps the handlers of signals from being called for a while; see `flamespawn._undisturbed`.

    It is the handler itself in the meantime. All of this is compiled, so that no handler is called
    between two steps of it.
    """

    cdef object __weakref__
    cdef dict _handlers
    cdef dict _seen

    def __cinit__(self):
        self._handlers = {}
        self._seen = {}

    def __call__(self, signum, frame):
        now = now_ns()
        if signum not in self._seen:
            self._seen[signum] = now
        elif now - self._seen[signum] > HOLD_NS:
            return self._handlers[signum](signum, frame)

    def call(self, function):
        """Return `function()`; handlers of signals that came meanwhile are called after it."""
        # A `return` before the end would lose the result for ever if a handler raises.
        result = None
        try:
            for signum in SIGNALS:
                handler = get_handler(signum)
                if callable(handler) and handler is not self:
                    self._handlers[signum] = handler
                    set_handler(signum, self)
            result = function()
        finally:
            error = self._release()
            for signum in self._seen:
                try:
                    signal.raise_signal(signum)
                except BaseException as raised:
                    error = raised
            if error is not None:
                raise error
        return result

    def release_in_fork(self):
        """Give a forked process the handlers of its parent, but not the signals."""
        self._release()
        self._seen.clear()

    cdef object _release(self):
        """Put the handlers back; return what one has raised that was called by that."""
        error = None
        while self._handlers:
            signum, handler = self._handlers.popitem()
            try:
                # It first calls the handlers of signals that have come before.
                set_handler(signum, handler)
            except BaseException as raised:
                error = raised
                self._handlers[signum] = handler
        return error
