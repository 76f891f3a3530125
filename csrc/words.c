#include "words.h"

#include "error.h"

#include <stdlib.h>
#include <string.h>

static int
reserve_word(procset__words *words)
{
    size_t capacity = words->capacity == 0 ? 16 : words->capacity * 2;
    char **items;

    // One more for the NULL at the end.
    if (words->count + 1 < words->capacity) {
        return 0;
    }
    items = realloc(words->items, capacity * sizeof(*items));
    if (items == NULL) {
        return procset__error_no_memory();
    }
    words->items = items;
    words->capacity = capacity;
    return 0;
}

int
procset__words_add(procset__words *words, const char *word)
{
    size_t size = strlen(word) + 1;
    char *copy;
    int r;

    r = reserve_word(words);
    if (r < 0) {
        return r;
    }
    copy = malloc(size);
    if (copy == NULL) {
        return procset__error_no_memory();
    }
    memcpy(copy, word, size);
    words->items[words->count++] = copy;
    words->items[words->count] = NULL;
    return 0;
}

size_t
procset__words_find(const procset__words *words, const char *variable)
{
    size_t length = strcspn(variable, "=") + 1;
    size_t i = 0;

    while (i < words->count
           && strncmp(words->items[i], variable, length) != 0) {
        i++;
    }
    return i;
}

int
procset__words_set(procset__words *words, const char *variable)
{
    size_t at = procset__words_find(words, variable);
    size_t last = words->count;
    int r;

    r = procset__words_add(words, variable);
    if (r == 0 && at < last) {
        free(words->items[at]);
        words->items[at] = words->items[last];
        words->items[last] = NULL;
        words->count = last;
    }
    return r;
}

char *const *
procset__words_items(const procset__words *words)
{
    static char *const none[] = {NULL};

    return words->items == NULL ? none : words->items;
}

void
procset__words_done(procset__words *words)
{
    for (size_t i = 0; i < words->count; i++) {
        free(words->items[i]);
    }
    free(words->items);
    *words = (procset__words) {0};
}
