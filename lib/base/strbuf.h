/* A growing byte string in a context's memory. Zero-initialise with the context set; the first
 * failure sticks in `status`, so that a chain of appends needs one check. */
#ifndef PGRAD_BASE_STRBUF_H
#define PGRAD_BASE_STRBUF_H

#include <policygrad/types.h>

typedef struct pgrad__strbuf {
    pgrad_context *context;
    char *data; /* closed by a NUL once anything was appended */
    size_t length, capacity;
    pgrad_status status;
} pgrad__strbuf;

void pgrad__strbuf_append(pgrad__strbuf *buffer, const char *text, size_t length);
void pgrad__strbuf_text(pgrad__strbuf *buffer, const char *text); /* NUL-terminated */
void pgrad__strbuf_format(pgrad__strbuf *buffer, const char *format, ...)
    __attribute__((format(printf, 2, 3)));
void pgrad__strbuf_clear(pgrad__strbuf *buffer); /* keeps the memory */
void pgrad__strbuf_free(pgrad__strbuf *buffer);

#endif
