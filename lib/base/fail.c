#include "base/fail.h"

#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/utf8.h"

enum { MESSAGE_SIZE = 512 };

/* Initial-exec and of fixed size: the first touch of dynamic thread storage may allocate, and out
 * of memory must be tellable. */
static _Thread_local char message[MESSAGE_SIZE] __attribute__((tls_model("initial-exec")));

static const struct {
    pgrad_status code;
    const char *name;
} NAMES[] = {
    {PGRAD_OK, "OK"},
    {PGRAD_E_INVALID, "E_INVALID"},
    {PGRAD_E_STATE, "E_STATE"},
    {PGRAD_E_BUSY, "E_BUSY"},
    {PGRAD_E_BUFFER, "E_BUFFER"},
    {PGRAD_E_FORMAT, "E_FORMAT"},
    {PGRAD_E_UNSUPPORTED, "E_UNSUPPORTED"},
    {PGRAD_E_MISMATCH, "E_MISMATCH"},
    {PGRAD_E_NUMERIC, "E_NUMERIC"},
    {PGRAD_E_NOMEM, "E_NOMEM"},
    {PGRAD_E_LIMIT, "E_LIMIT"},
    {PGRAD_E_IO, "E_IO"},
    {PGRAD_E_CANCELLED, "E_CANCELLED"},
    {PGRAD_E_CALLBACK, "E_CALLBACK"},
    {PGRAD_E_DEADLINE, "E_DEADLINE"},
    {PGRAD_E_INTERNAL, "E_INTERNAL"},
};

const char *pgrad_status_name(pgrad_status code)
{
    for (size_t i = 0; i < sizeof NAMES / sizeof NAMES[0]; i++)
        if (NAMES[i].code == code)
            return NAMES[i].name;
    return "E_UNKNOWN";
}

const char *pgrad_error_message(void)
{
    return message;
}

/* Drops the bytes of a character that was cut at the end of text. */
static void trim_cut_character(char *text)
{
    size_t length = strlen(text), back = 0;
    while (back < length && back < 4 && ((unsigned char)text[length - 1 - back] & 0xc0) == 0x80)
        back++;
    if (back == length)
        return;
    unsigned char lead = (unsigned char)text[length - 1 - back];
    size_t needed = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : lead >= 0xc0 ? 1 : 0;
    if (back < needed)
        text[length - 1 - back] = '\0';
}

/* Bytes of the character at p, 0 when it is a control byte or none of UTF-8. */
static size_t character_size(const char *p)
{
    const unsigned char c = (unsigned char)*p;
    return c < 0x20 || c == 0x7f ? 0 : pgrad__utf8_size(p, strnlen(p, 4));
}

/* Copies text with control bytes and broken UTF-8 escaped, as much of it as fits; a message is one
 * line whatever a file put into it. Returns the bytes of text that went in. */
static size_t escape(char *out, size_t capacity, const char *text)
{
    static const char HEX[] = "0123456789abcdef";
    const char *p = text;
    size_t n = 0;
    while (*p != '\0') {
        const size_t size = character_size(p);
        const unsigned char c = (unsigned char)*p;
        if (n + (size == 0 ? 4 : size) >= capacity)
            break;
        if (size == 0) {
            out[n++] = '\\';
            out[n++] = 'x';
            out[n++] = HEX[c >> 4];
            out[n++] = HEX[c & 15];
        }
        memmove(out + n, p, size);
        n += size;
        p += size == 0 ? 1 : size;
    }
    out[n] = '\0';
    return (size_t)(p - text);
}

static void store(const char *text)
{
    (void)escape(message, MESSAGE_SIZE, text);
}

/* As vsnprintf, but what does not fit is left out by whole characters. */
static void format_whole(char *text, size_t capacity, const char *format, va_list arguments)
{
    const int length = vsnprintf(text, capacity, format, arguments);
    if (length < 0)
        text[0] = '\0';
    else if ((size_t)length >= capacity)
        trim_cut_character(text);
}

void pgrad__format_line(char *line, size_t capacity, const char *format, va_list arguments)
{
    char text[PGRAD__LINE_MAX]; /* apart: arguments may point into line */
    format_whole(text, capacity < sizeof text ? capacity : sizeof text, format, arguments);
    (void)escape(line, capacity, text);
}

pgrad_status pgrad__fail(pgrad_status code, const char *format, ...)
{
    va_list arguments;
    va_start(arguments, format);
    pgrad__format_line(message, MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    return code;
}

pgrad_status pgrad__fail_in(pgrad_status code, const char *format, ...)
{
    char text[2 * MESSAGE_SIZE];
    va_list arguments;
    va_start(arguments, format);
    format_whole(text, MESSAGE_SIZE, format, arguments);
    va_end(arguments);
    const size_t at = strlen(text);
    memcpy(text + at, message, strlen(message) + 1);
    store(text);
    return code;
}

void pgrad__message_get(char text[512])
{
    memcpy(text, message, MESSAGE_SIZE);
}

void pgrad__message_set(const char *text)
{
    store(text);
}

const char *pgrad__path_text(char buffer[PGRAD__PATH_MAX], const char *path)
{
    enum { KEPT = 121 };
    const char *tail = path;
    if (escape(buffer, KEPT, path) == strlen(path))
        return buffer;
    memcpy(buffer, "...", 3);
    do { /* the longest end that fits when it is escaped, not from inside a character */
        const size_t size = character_size(tail);
        tail += size == 0 ? 1 : size;
    } while (escape(buffer + 3, KEPT, tail) != strlen(tail));
    return buffer;
}
