#include "text/unicode.h"

#include <stdlib.h>
#include <string.h>
#include <utf8proc.h>

#include "base/alloc.h"
#include "base/fail.h"

size_t pgrad__utf8_announced(unsigned char lead)
{
    if (lead < 0x80)
        return 1;
    if (lead >= 0xc2 && lead < 0xe0)
        return 2;
    if (lead >= 0xe0 && lead < 0xf0)
        return 3;
    return lead >= 0xf0 && lead < 0xf5 ? 4 : 0;
}

size_t pgrad__utf8_next(const char *text, size_t rest, uint32_t *code)
{
    utf8proc_int32_t read;
    utf8proc_ssize_t n = utf8proc_iterate((const utf8proc_uint8_t *)text,
                                          (utf8proc_ssize_t)(rest < 4 ? rest : 4), &read);
    *code = n > 0 ? (uint32_t)read : 0xfffd;
    return n > 0 ? (size_t)n : 1;
}

size_t pgrad__utf8_last(const char *text, size_t length, uint32_t *code)
{
    size_t back = 1;
    while (back < 4 && back < length && ((unsigned char)text[length - back] & 0xc0) == 0x80)
        back++;
    (void)pgrad__utf8_next(text + length - back, back, code);
    return back;
}

size_t pgrad__utf8_put(uint32_t code, char out[4])
{
    return (size_t)utf8proc_encode_char((utf8proc_int32_t)code, (utf8proc_uint8_t *)out);
}

int pgrad__is_white_space(uint32_t c)
{
    return (c >= 0x9 && c <= 0xd) || c == 0x20 || c == 0x85 || c == 0xa0 || c == 0x1680 ||
           (c >= 0x2000 && c <= 0x200a) || c == 0x2028 || c == 0x2029 || c == 0x202f ||
           c == 0x205f || c == 0x3000;
}

int pgrad__is_word(uint32_t code)
{
    switch (utf8proc_category((utf8proc_int32_t)code)) {
    case UTF8PROC_CATEGORY_LU:
    case UTF8PROC_CATEGORY_LL:
    case UTF8PROC_CATEGORY_LT:
    case UTF8PROC_CATEGORY_LM:
    case UTF8PROC_CATEGORY_LO:
    case UTF8PROC_CATEGORY_MN:
    case UTF8PROC_CATEGORY_MC:
    case UTF8PROC_CATEGORY_ME:
    case UTF8PROC_CATEGORY_ND:
    case UTF8PROC_CATEGORY_NL:
    case UTF8PROC_CATEGORY_PC:
        return 1;
    default:
        return 0;
    }
}

uint32_t pgrad__to_lower(uint32_t code)
{
    return (uint32_t)utf8proc_tolower((utf8proc_int32_t)code);
}

pgrad_status pgrad__nfc(pgrad_context *context, const char *text, size_t length, char **out,
                        size_t *out_length)
{
    size_t i = 0;
    *out = NULL;
    *out_length = length;
    while (i < length && (unsigned char)text[i] < 0xcc) /* all below U+0300 is NFC */
        i++;
    if (i == length)
        return PGRAD_OK;
    utf8proc_uint8_t *composed = NULL;
    utf8proc_ssize_t n = utf8proc_map((const utf8proc_uint8_t *)text, (utf8proc_ssize_t)length,
                                      &composed, UTF8PROC_STABLE | UTF8PROC_COMPOSE);
    if (n < 0)
        return pgrad__fail(n == UTF8PROC_ERROR_NOMEM ? PGRAD_E_NOMEM : PGRAD_E_FORMAT, "NFC: %s",
                           utf8proc_errmsg(n));
    pgrad_status status = pgrad__copy_text(context, (const char *)composed, (size_t)n, out);
    free(composed);
    *out_length = (size_t)n;
    return status;
}
