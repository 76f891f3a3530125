// Leaving a process without taking apart what is in it.

#ifndef PROCSET_LEAVE_H
#define PROCSET_LEAVE_H

// Writes out what the C library has buffered and ends the process: nothing
// that was registered with atexit() runs, and no destructor of a library. A
// stream that another thread is busy with is given up after a second.
_Noreturn void
procset_leave(int code);

#endif
