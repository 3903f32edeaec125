/* The alphabet of byte-level BPE: files spell bytes as printable characters. */
#ifndef PGRAD_TEXT_BPE_BYTE_H
#define PGRAD_TEXT_BPE_BYTE_H

#include <policygrad/types.h>

/* Turns a token as files spell it into its bytes, which are never longer; 0 when a character of it
 * is not in the alphabet. */
int pgrad__byte_level_decode(const char *spelled, size_t length, char *bytes, size_t *n);

/* Spells a byte: 1 or 2 bytes of UTF-8. */
size_t pgrad__byte_level_spell(unsigned char byte, char out[4]);

#endif
