/* Numbers to text and back, always in the C locale, whatever the host has set. */
#ifndef PGRAD_BASE_NUMBER_H
#define PGRAD_BASE_NUMBER_H

#include <stddef.h>

/* Writes the shortest decimal text that reads back as the same double: "0.1", "1e-05", "infinity",
 * "-infinity", "nan". At most 32 bytes with the NUL. Returns its length. */
size_t pgrad__format_real(char text[32], double value);

/* Reads a whole text as a decimal number ("infinity" and "nan" too): 1 when it is one. */
int pgrad__parse_real(const char *text, double *value);

#endif
