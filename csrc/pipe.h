// Pipes: the wake-up of a set, and reading reports.

#ifndef PROCSET_PIPE_H
#define PROCSET_PIPE_H

#include "procset.h"

typedef struct {
    procset_handle read;
    procset_handle write;
} procset__pipe;

#define PROCSET__PIPE_INVALID                                                 \
    ((procset__pipe) {PROCSET_HANDLE_INVALID, PROCSET_HANDLE_INVALID})

// A pipe whose ends are non-blocking and not inherited.
int
procset__pipe_open(procset__pipe *ret_pipe);

// The same with ends that block.
int
procset__pipe_open_blocking(procset__pipe *ret_pipe);

// Accepts PROCSET__PIPE_INVALID and returns it.
procset__pipe
procset__pipe_close(procset__pipe pipe);

// Writes one byte. A full pipe is a success: its reader has enough to see.
int
procset__pipe_ring(procset_handle write);

// Reads and drops what the pipe holds.
int
procset__pipe_drain(procset_handle read);

// Reads without blocking, whatever the mode of the descriptor. Zero bytes mean
// end of file, PROCSET_KIND_AGAIN an empty pipe.
int
procset__pipe_read(procset_handle read, void *buffer, size_t size,
                   size_t *ret_count);

#endif
