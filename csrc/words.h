// A growing list of strings that ends with NULL, as execve() takes it.

#ifndef PROCSET_WORDS_H
#define PROCSET_WORDS_H

#include <stddef.h>

typedef struct {
    char **items; // NULL while nothing has been added
    size_t count;
    size_t capacity;
} procset__words;

// Appends a copy of `word`.
int
procset__words_add(procset__words *words, const char *word);

// The index of the word "NAME=..." with the name of this one, or else the
// number of words.
size_t
procset__words_find(const procset__words *words, const char *variable);

// Appends a copy of the variable "NAME=VALUE", or puts it in the place of the
// one with the same name.
int
procset__words_set(procset__words *words, const char *variable);

// The strings and the NULL, also where none has been added.
char *const *
procset__words_items(const procset__words *words);

// Frees the strings and leaves an empty list.
void
procset__words_done(procset__words *words);

#endif
