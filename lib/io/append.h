/* A text file that grows line by line: metrics. Not for files that must be whole. */
#ifndef PGRAD_IO_APPEND_H
#define PGRAD_IO_APPEND_H

#include <policygrad/types.h>

/* Opens for appending, creating it if need be; *descriptor is left alone on failure. */
pgrad_status pgrad__append_open(const char *path, int *descriptor);

/* Appends size bytes; lines given whole are seen whole by readers. E_IO: and no part of them stays.
 */
pgrad_status pgrad__append_write(int descriptor, const char *path, const char *data, size_t size);

/* Where a file ends, and a CRC-32 of the last bytes before that: 0 and 0 for what is not a regular
 * file. */
pgrad_status pgrad__append_mark(pgrad_context *context, const char *path, uint64_t *size,
                                uint32_t *crc);
/* Cuts off what was appended behind a mark; 0 when the file is not the one that was marked, and
 * nothing is cut. */
int pgrad__append_rewind(pgrad_context *context, int descriptor, const char *path, uint64_t size,
                         uint32_t crc);

void pgrad__append_close(int descriptor); /* -1 allowed */

#endif
