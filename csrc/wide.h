// Text as Windows takes it: UTF-16, made from UTF-8 and back. Either side may
// hold halves of surrogate pairs, as file names on Windows may; CPython's
// os.fsencode() writes them the same way.

#ifndef PROCSET_WIDE_H
#define PROCSET_WIDE_H

#include "words.h"

#include <wchar.h>

typedef struct {
    wchar_t *items; // NULL while nothing has been added
    size_t count;
    size_t capacity;
} procset__wide;

void
procset__wide_done(procset__wide *wide);

// Appends one unit, which may be zero.
int
procset__wide_push(procset__wide *wide, unsigned unit);

// Appends `text` without its final zero. PROCSET_KIND_INVALID when it is not
// UTF-8.
int
procset__wide_add(procset__wide *wide, const char *text);

// Appends the arguments as one command line, from which the C library of the
// new program makes the same arguments again.
int
procset__wide_add_command_line(procset__wide *wide,
                               const procset__words *arguments);

// Appends `text` to the words, as UTF-8.
int
procset__wide_to_words(const wchar_t *text, procset__words *words);

#endif
