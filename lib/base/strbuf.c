#include "base/strbuf.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"

/* Room for `more` bytes and a NUL; 0 when the buffer has failed. */
static int make_room(pgrad__strbuf *buffer, size_t more)
{
    size_t needed;
    if (buffer->status != PGRAD_OK)
        return 0;
    if (!pgrad__add(buffer->length, more, &needed) || !pgrad__add(needed, 1, &needed)) {
        buffer->status = pgrad__fail(PGRAD_E_LIMIT, "a text of more bytes than can be addressed");
        return 0;
    }
    buffer->status = pgrad__reserve(buffer->context, &buffer->data, &buffer->capacity, needed, 1);
    return buffer->status == PGRAD_OK;
}

void pgrad__strbuf_append(pgrad__strbuf *buffer, const char *text, size_t length)
{
    if (!make_room(buffer, length))
        return;
    if (length > 0)
        memcpy(buffer->data + buffer->length, text, length);
    buffer->length += length;
    buffer->data[buffer->length] = '\0';
}

void pgrad__strbuf_text(pgrad__strbuf *buffer, const char *text)
{
    pgrad__strbuf_append(buffer, text, strlen(text));
}

void pgrad__strbuf_format(pgrad__strbuf *buffer, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    int length = vsnprintf(NULL, 0, format, arguments);
    va_end(arguments);
    if (length < 0 || !make_room(buffer, (size_t)length))
        return;
    va_start(arguments, format);
    (void)vsnprintf(buffer->data + buffer->length, (size_t)length + 1, format, arguments);
    va_end(arguments);
    buffer->length += (size_t)length;
}

void pgrad__strbuf_clear(pgrad__strbuf *buffer)
{
    buffer->length = 0;
    buffer->status = PGRAD_OK;
    if (buffer->data != NULL)
        buffer->data[0] = '\0';
}

void pgrad__strbuf_free(pgrad__strbuf *buffer)
{
    if (buffer->context != NULL)
        pgrad__free(buffer->context, buffer->data);
    buffer->data = NULL;
    buffer->length = buffer->capacity = 0;
}
