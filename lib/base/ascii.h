/* Characters of ASCII by their bytes, whatever the locale. Not Unicode: that is text/unicode.h. */
#ifndef PGRAD_BASE_ASCII_H
#define PGRAD_BASE_ASCII_H

static inline int pgrad__is_digit(char c)
{
    return c >= '0' && c <= '9';
}

static inline int pgrad__is_letter(char c)
{
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

#endif
