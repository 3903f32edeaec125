#include "text/bpe_byte.h"

#include "text/unicode.h"

/* Bytes 21-7E, A1-AC and AE-FF stand for themselves; the other 68, in order, are U+0100, U+0101 ...
 */
static int stands_for_itself(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7e) || (byte >= 0xa1 && byte <= 0xac) ||
           (byte >= 0xae && byte <= 0xff);
}

static uint32_t character_of(unsigned char byte)
{
    uint32_t others = 0;
    if (stands_for_itself(byte))
        return byte;
    for (uint32_t b = 0; b < byte; b++)
        others += stands_for_itself(b) ? 0u : 1u;
    return 0x100 + others;
}

/* The byte a character stands for, -1 for none. */
static int byte_of(uint32_t code)
{
    if (code < 0x100)
        return stands_for_itself(code) ? (int)code : -1;
    if (code < 0x100 + 33)
        return (int)(code - 0x100); /* 00-20 */
    if (code < 0x100 + 67)
        return (int)(code - 0x100 - 33 + 0x7f); /* 7F-A0 */
    return code == 0x100 + 67 ? 0xad : -1;
}

int pgrad__byte_level_decode(const char *spelled, size_t length, char *bytes, size_t *n)
{
    size_t count = 0;
    for (size_t i = 0; i < length;) {
        uint32_t code;
        i += pgrad__utf8_next(spelled + i, length - i, &code);
        int byte = byte_of(code);
        if (byte < 0)
            return 0;
        bytes[count++] = (char)byte;
    }
    *n = count;
    return 1;
}

size_t pgrad__byte_level_spell(unsigned char byte, char out[4])
{
    return pgrad__utf8_put(character_of(byte), out);
}
