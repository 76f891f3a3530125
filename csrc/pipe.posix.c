#define _GNU_SOURCE

#include "pipe.h"

#include "error.h"
#include "handle.h"

#include <errno.h>
#include <unistd.h>

int
procset_report_open(procset_handle *ret_read, procset_handle *ret_write)
{
    procset__pipe pipe;
    int r = procset__pipe_open_blocking(&pipe);

    if (r < 0) {
        return r;
    }
    r = procset_handle_move(&pipe.read);
    if (r < 0) {
        goto finish;
    }
    r = procset_handle_move(&pipe.write);
    if (r < 0) {
        goto finish;
    }
    *ret_read = pipe.read;
    *ret_write = pipe.write;
    return 0;

finish:
    (void) procset__pipe_close(pipe);
    return r;
}

procset__pipe
procset__pipe_close(procset__pipe pipe)
{
    (void) procset__handle_close(pipe.read);
    (void) procset__handle_close(pipe.write);
    return PROCSET__PIPE_INVALID;
}

int
procset__pipe_ring(procset_handle write_end)
{
    ssize_t n;

    do {
        n = write((int) write_end, "", 1);
    } while (n < 0 && errno == EINTR);
    if (n < 0 && errno != EAGAIN) {
        return procset__error_last(PROCSET__CALL_WRITE);
    }
    return 0;
}

static int
read_retried(procset_handle read_end, void *buffer, size_t size,
             size_t *ret_count)
{
    ssize_t n;

    do {
        n = read((int) read_end, buffer, size);
    } while (n < 0 && errno == EINTR);
    if (n < 0) {
        return procset__error_last(PROCSET__CALL_READ);
    }
    *ret_count = (size_t) n;
    return 0;
}

int
procset__pipe_drain(procset_handle read_end)
{
    char buffer[256];
    size_t count = sizeof(buffer);
    int r = 0;

    while (r == 0 && count == sizeof(buffer)) {
        r = read_retried(read_end, buffer, sizeof(buffer), &count);
    }
    if (r < 0 && procset_error_kind(r) != PROCSET_KIND_AGAIN) {
        return r;
    }
    return 0;
}

int
procset__pipe_read(procset_handle read_end, void *buffer, size_t size,
                   size_t *ret_count)
{
    bool ready;
    int r;

    // A borrowed pipe is left in its owner's mode, which may be blocking; the
    // set is its only reader, so what poll() saw is still there.
    r = procset__handle_ready(read_end, &ready);
    if (r < 0) {
        return r;
    }
    if (!ready) {
        return procset__error_again(PROCSET__CALL_READ);
    }
    return read_retried(read_end, buffer, size, ret_count);
}
