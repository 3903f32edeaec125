/* Unicode through utf8proc: decoding, categories, NFC. Not regular expressions, nor whether bytes
 * are UTF-8 at all: that is base/utf8.h. */
#ifndef PGRAD_TEXT_UNICODE_H
#define PGRAD_TEXT_UNICODE_H

#include <policygrad/types.h>

/* Decodes the character at text (rest > 0): its bytes, *code its number; a byte that is no UTF-8 is
 * one character, U+FFFD. */
size_t pgrad__utf8_next(const char *text, size_t rest, uint32_t *code);

/* Bytes of the character that ends at text + length (length > 0). */
size_t pgrad__utf8_last(const char *text, size_t length, uint32_t *code);

/* Writes a character, at most 4 bytes; returns how many. */
size_t pgrad__utf8_put(uint32_t code, char out[4]);

/* Length of the whole character a lead byte announces, 0 for a byte that leads none. */
size_t pgrad__utf8_announced(unsigned char lead);

int pgrad__is_white_space(uint32_t code); /* the White_Space property */
int pgrad__is_word(uint32_t code);        /* letters, marks, numbers, connector punctuation: \w */

uint32_t pgrad__to_lower(uint32_t code); /* of one character, without context */

/* NFC of valid UTF-8: *out is NULL when the text is NFC by a quick look (then it stands as it is),
 * else a new text to free with pgrad__free. */
pgrad_status pgrad__nfc(pgrad_context *context, const char *text, size_t length, char **out,
                        size_t *out_length);

#endif
