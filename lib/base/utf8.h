/* Whether bytes are well-formed UTF-8. Not what characters mean: that is text/unicode.h. */
#ifndef PGRAD_BASE_UTF8_H
#define PGRAD_BASE_UTF8_H

#include <stddef.h>

/* Bytes of the well-formed character at text (1 to 4), or 0: overlong forms, surrogates, code
 * points above U+10FFFF and cut characters are not well formed. */
static inline size_t pgrad__utf8_size(const char *text, size_t length)
{
    const unsigned char *s = (const unsigned char *)text;
    if (length == 0)
        return 0;
    if (s[0] < 0x80)
        return 1;
    size_t size = s[0] >= 0xf0 ? 4 : s[0] >= 0xe0 ? 3 : 2;
    if (s[0] < 0xc2 || s[0] > 0xf4 || length < size)
        return 0;
    for (size_t i = 1; i < size; i++)
        if ((s[i] & 0xc0) != 0x80)
            return 0;
    if ((s[0] == 0xe0 && s[1] < 0xa0) || (s[0] == 0xed && s[1] > 0x9f) ||
        (s[0] == 0xf0 && s[1] < 0x90) || (s[0] == 0xf4 && s[1] > 0x8f))
        return 0;
    return size;
}

/* Bytes in front of the first that are not well formed; length when all are. */
static inline size_t pgrad__utf8_good_bytes(const char *text, size_t length)
{
    size_t at = 0, size = 1;
    for (; at < length && size > 0; at += size)
        size = pgrad__utf8_size(text + at, length - at);
    return at;
}

static inline int pgrad__utf8_is_valid(const char *text, size_t length)
{
    return pgrad__utf8_good_bytes(text, length) == length;
}

/* What a name may be: UTF-8 without control characters of ASCII, not empty. */
static inline int pgrad__utf8_is_name(const char *text, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if ((unsigned char)text[i] < 0x20 || text[i] == 0x7f)
            return 0;
    return length > 0 && pgrad__utf8_is_valid(text, length);
}

#endif
