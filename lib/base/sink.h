/* Text into a caller's buffer. Counts what does not fit, so that one pass tells the size needed. */
#ifndef PGRAD_BASE_SINK_H
#define PGRAD_BASE_SINK_H

#include <stddef.h>
#include <string.h>

typedef struct pgrad__sink {
    char *text;
    size_t capacity, length;
} pgrad__sink;

static inline void pgrad__sink_put(pgrad__sink *out, const char *text)
{
    size_t length = strlen(text);
    if (out->length + length < out->capacity)
        memcpy(out->text + out->length, text, length + 1);
    out->length += length;
}

#endif
