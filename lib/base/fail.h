/* Raises errors: every failure sets the thread's message once, where it is known, and is passed up
 * unchanged. Not a log. */
#ifndef PGRAD_BASE_FAIL_H
#define PGRAD_BASE_FAIL_H

#include <stdarg.h>
#include <stddef.h>

#include <policygrad/status.h>

/* Stores the message (at most 511 bytes, control bytes escaped) and returns code. */
pgrad_status pgrad__fail(pgrad_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Puts text in front of the message of the failure that is being passed up; returns code. */
pgrad_status pgrad__fail_in(pgrad_status code, const char *format, ...)
    __attribute__((format(printf, 2, 3), cold));

/* Formats one line of UTF-8, whatever a file put into it: control bytes and broken UTF-8 escaped,
 * no character cut at the end. capacity is at most PGRAD__LINE_MAX. */
enum { PGRAD__LINE_MAX = 1024 };
void pgrad__format_line(char *line, size_t capacity, const char *format, va_list arguments)
    __attribute__((format(printf, 3, 0)));

/* Moves a worker's failure to the calling thread: copy the text out there, set it here. */
void pgrad__message_get(char text[512]);
void pgrad__message_set(const char *text);

/* Shortens a path for a message to its last 120 bytes, control bytes and broken UTF-8 escaped,
 * "..." in front when cut. Returns buffer. */
#define PGRAD__PATH_MAX 128
const char *pgrad__path_text(char buffer[PGRAD__PATH_MAX], const char *path);

/* For "%.*s": how much of a text of this length a message shows. */
static inline int pgrad__shown(size_t length)
{
    return length < 64 ? (int)length : 64;
}

#define PGRAD__TRY(call)                                                                           \
    do {                                                                                           \
        pgrad_status try_status_ = (call);                                                         \
        if (try_status_ != PGRAD_OK)                                                               \
            return try_status_;                                                                    \
    } while (0)

/* The same inside functions with a `fail:` label and a `status` variable. */
#define PGRAD__GO(call)                                                                            \
    do {                                                                                           \
        status = (call);                                                                           \
        if (status != PGRAD_OK)                                                                    \
            goto fail;                                                                             \
    } while (0)

#endif
