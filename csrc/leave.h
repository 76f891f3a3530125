// Leaving a process without taking apart what is in it.

#ifndef PROCSET_LEAVE_H
#define PROCSET_LEAVE_H

// Writes out what the C library has buffered and ends the process at once:
// nothing that was registered with atexit(), no destructor of a library.
_Noreturn void
procset_leave(int code);

#endif
