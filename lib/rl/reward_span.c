/* Looking at bytes that may be no UTF-8. */
#include <string.h>

#include "base/ascii.h"
#include "rl/reward_builtin.h"
#include "text/unicode.h"

size_t pgrad__span_character(pgrad__span text, size_t at, uint32_t *code)
{
    return pgrad__utf8_next(text.data + at, text.length - at, code);
}

int pgrad__span_is_digit(pgrad__span text, size_t at)
{
    return at < text.length && pgrad__is_digit(text.data[at]);
}

size_t pgrad__span_find(pgrad__span text, pgrad__span what, size_t start)
{
    while (what.length <= text.length && start <= text.length - what.length) {
        const char *found = what.length == 0 ? text.data + start
                                             : memchr(text.data + start, what.data[0],
                                                      text.length - what.length - start + 1);
        if (found == NULL)
            break;
        start = (size_t)(found - text.data);
        if (what.length == 0 || memcmp(found, what.data, what.length) == 0)
            return start;
        start++;
    }
    return SIZE_MAX;
}

size_t pgrad__span_find_last(pgrad__span text, pgrad__span what)
{
    if (what.length > text.length)
        return SIZE_MAX;
    for (size_t at = text.length - what.length + 1; at-- > 0;)
        if (what.length == 0 || memcmp(text.data + at, what.data, what.length) == 0)
            return at;
    return SIZE_MAX;
}

pgrad__span pgrad__span_from(pgrad__span text, size_t start)
{
    return (pgrad__span){text.data + start, text.length - start};
}

pgrad__span pgrad__span_strip(pgrad__span text)
{
    uint32_t code;
    while (text.length > 0) {
        size_t n = pgrad__span_character(text, 0, &code);
        if (!pgrad__is_white_space(code))
            break;
        text = pgrad__span_from(text, n);
    }
    while (text.length > 0) {
        size_t n = pgrad__utf8_last(text.data, text.length, &code);
        if (!pgrad__is_white_space(code))
            break;
        text.length -= n;
    }
    return text;
}

pgrad__span pgrad__span_word(pgrad__span text, size_t *at)
{
    uint32_t code;
    size_t i = *at, n = 0, start;
    while (i < text.length &&
           (n = pgrad__span_character(text, i, &code), pgrad__is_white_space(code)))
        i += n;
    start = i;
    while (i < text.length &&
           (n = pgrad__span_character(text, i, &code), !pgrad__is_white_space(code)))
        i += n;
    *at = i;
    return (pgrad__span){text.data + start, i - start};
}

int pgrad__span_equal(pgrad__span a, pgrad__span b, int ignore_case)
{
    if (!ignore_case)
        return a.length == b.length && (a.length == 0 || memcmp(a.data, b.data, a.length) == 0);
    return a.length > 0 || b.length > 0 ? pgrad__span_begins(a, b, 1) == a.length : 1;
}

size_t pgrad__span_begins(pgrad__span text, pgrad__span what, int ignore_case)
{
    size_t i = 0, k = 0;
    if (!ignore_case)
        return what.length <= text.length && memcmp(text.data, what.data, what.length) == 0
                   ? what.length
                   : SIZE_MAX;
    while (k < what.length) {
        uint32_t a, b;
        if (i >= text.length)
            return SIZE_MAX;
        const size_t n = pgrad__span_character(text, i, &a), m = pgrad__span_character(what, k, &b);
        if (a != b && pgrad__to_lower(a) != pgrad__to_lower(b))
            return SIZE_MAX;
        i += n;
        k += m;
    }
    return i;
}

/* A boundary is where word characters are not on both sides. */
static int is_boundary(pgrad__span text, size_t at)
{
    uint32_t before, after;
    if (at == 0 || at >= text.length)
        return 1;
    (void)pgrad__utf8_last(text.data, at, &before);
    (void)pgrad__span_character(text, at, &after);
    return !pgrad__is_word(before) || !pgrad__is_word(after);
}

size_t pgrad__span_find_word(pgrad__span text, pgrad__span word, size_t start, int ignore_case,
                             size_t *end)
{
    uint32_t code;
    for (size_t at = start; at < text.length; at += pgrad__span_character(text, at, &code)) {
        const size_t length = pgrad__span_begins(pgrad__span_from(text, at), word, ignore_case);
        if (length == SIZE_MAX || !is_boundary(text, at) || !is_boundary(text, at + length))
            continue;
        *end = at + length;
        return at;
    }
    return SIZE_MAX;
}
