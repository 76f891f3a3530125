#include "wide.h"

#include "error.h"

#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

void
procset__wide_done(procset__wide *wide)
{
    free(wide->items);
    *wide = (procset__wide) {0};
}

int
procset__wide_push(procset__wide *wide, unsigned unit)
{
    size_t capacity = wide->capacity == 0 ? 256 : wide->capacity * 2;
    wchar_t *items;

    if (wide->count == wide->capacity) {
        items = realloc(wide->items, capacity * sizeof(*items));
        if (items == NULL) {
            return procset__error_no_memory();
        }
        wide->items = items;
        wide->capacity = capacity;
    }
    wide->items[wide->count++] = (wchar_t) unit;
    return 0;
}

// ------------------------------------------------------------ from UTF-8

// Takes one character off `*text`; `*ret_character` is its number.
static int
take_character(const char **text, uint32_t *ret_character)
{
    static const uint32_t least[] = {0, 0, 0x80, 0x800, 0x10000};
    const unsigned char *bytes = (const unsigned char *) *text;
    size_t size = bytes[0] < 0x80   ? 1
                  : bytes[0] < 0xC0 ? 0
                  : bytes[0] < 0xE0 ? 2
                  : bytes[0] < 0xF0 ? 3
                  : bytes[0] < 0xF8 ? 4
                                    : 0;
    uint32_t character = size < 2 ? bytes[0] : bytes[0] & (0x7Fu >> size);

    if (size == 0) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    for (size_t i = 1; i < size; i++) {
        // The final zero is no such byte either.
        if ((bytes[i] & 0xC0) != 0x80) {
            return procset__error_invalid(PROCSET__CALL_LAUNCH);
        }
        character = character << 6 | (bytes[i] & 0x3Fu);
    }
    if (character < least[size] || character > 0x10FFFF) {
        return procset__error_invalid(PROCSET__CALL_LAUNCH);
    }
    *text += size;
    *ret_character = character;
    return 0;
}

int
procset__wide_add(procset__wide *wide, const char *text)
{
    uint32_t character = 0;
    int r = 0;

    while (r == 0 && *text != '\0') {
        r = take_character(&text, &character);
        if (r == 0 && character >= 0x10000) {
            r = procset__wide_push(wide,
                                   0xD800 + ((character - 0x10000) >> 10));
            character = 0xDC00 + ((character - 0x10000) & 0x3FF);
        }
        if (r == 0) {
            r = procset__wide_push(wide, character);
        }
    }
    return r;
}

// --------------------------------------------------------- command line

static int
push_backslashes(procset__wide *wide, size_t count)
{
    int r = 0;

    while (r == 0 && count-- > 0) {
        r = procset__wide_push(wide, '\\');
    }
    return r;
}

// Facts about how the C library takes a command line apart: blanks outside of
// quotes separate. Backslashes before a quote count by pairs, and an odd one
// makes the quote a character like any other; elsewhere they mean nothing.
static int
add_quoted(procset__wide *wide, const procset__wide *argument)
{
    bool quoted = argument->count == 0;
    size_t backslashes = 0;
    int r = 0;

    for (size_t i = 0; i < argument->count; i++) {
        quoted =
            quoted || argument->items[i] == ' ' || argument->items[i] == '\t';
    }
    if (quoted) {
        r = procset__wide_push(wide, '"');
    }
    for (size_t i = 0; r == 0 && i < argument->count; i++) {
        if (argument->items[i] == '"') {
            r = push_backslashes(wide, backslashes + 1);
        }
        backslashes = argument->items[i] == '\\' ? backslashes + 1 : 0;
        if (r == 0) {
            r = procset__wide_push(wide, argument->items[i]);
        }
    }
    if (r == 0 && quoted) {
        r = push_backslashes(wide, backslashes);
        if (r == 0) {
            r = procset__wide_push(wide, '"');
        }
    }
    return r;
}

int
procset__wide_add_command_line(procset__wide *wide,
                               const procset__words *arguments)
{
    procset__wide argument = {0};
    int r = 0;

    for (size_t i = 0; r == 0 && i < arguments->count; i++) {
        argument.count = 0;
        r = procset__wide_add(&argument, arguments->items[i]);
        if (r == 0 && i > 0) {
            r = procset__wide_push(wide, ' ');
        }
        if (r == 0) {
            r = add_quoted(wide, &argument);
        }
    }
    procset__wide_done(&argument);
    return r;
}

// -------------------------------------------------------------- to UTF-8

static char *
put_character(char *at, uint32_t character)
{
    if (character < 0x80) {
        *at++ = (char) character;
    }
    else if (character < 0x800) {
        *at++ = (char) (0xC0 | character >> 6);
        *at++ = (char) (0x80 | (character & 0x3F));
    }
    else if (character < 0x10000) {
        *at++ = (char) (0xE0 | character >> 12);
        *at++ = (char) (0x80 | (character >> 6 & 0x3F));
        *at++ = (char) (0x80 | (character & 0x3F));
    }
    else {
        *at++ = (char) (0xF0 | character >> 18);
        *at++ = (char) (0x80 | (character >> 12 & 0x3F));
        *at++ = (char) (0x80 | (character >> 6 & 0x3F));
        *at++ = (char) (0x80 | (character & 0x3F));
    }
    return at;
}

int
procset__wide_to_words(const wchar_t *text, procset__words *words)
{
    // A unit takes up to three bytes, and a pair of them four.
    char *bytes = malloc(wcslen(text) * 3 + 1);
    char *at = bytes;
    int r;

    if (bytes == NULL) {
        return procset__error_no_memory();
    }
    while (*text != 0) {
        uint32_t character = *text++;

        if (character >= 0xD800 && character < 0xDC00 && *text >= 0xDC00
            && *text < 0xE000) {
            character =
                0x10000 + ((character - 0xD800) << 10) + (*text++ - 0xDC00u);
        }
        at = put_character(at, character);
    }
    *at = '\0';
    r = procset__words_add(words, bytes);
    free(bytes);
    return r;
}
