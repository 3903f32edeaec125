/* The only door to zlib: checksums, and blocks packed one by one. */
#ifndef PGRAD_IO_ZSTREAM_H
#define PGRAD_IO_ZSTREAM_H

#include <stddef.h>

#include <policygrad/types.h>

/* CRC-32 as gzip's, carried on from `crc`; 0 at first. */
uint32_t pgrad__crc32(uint32_t crc, const void *data, size_t size);

/* Streams for one direction or the other, reused from block to block. Only create and free touch
 * memory. */
struct pgrad__zstream;
pgrad_status pgrad__deflater_create(pgrad_context *context, struct pgrad__zstream **out);
pgrad_status pgrad__inflater_create(pgrad_context *context, struct pgrad__zstream **out);
void pgrad__zstream_free(struct pgrad__zstream *stream); /* NULL allowed */

/* Packs a block, fast: its size, or 0 when it would take more than `capacity` bytes. */
size_t pgrad__deflate(struct pgrad__zstream *stream, const void *data, size_t size, void *out,
                      size_t capacity);
/* Unpacks a block: 1 when it was whole and of exactly `size` bytes. */
int pgrad__inflate(struct pgrad__zstream *stream, const void *packed, size_t packed_size, void *out,
                   size_t size);

#endif
