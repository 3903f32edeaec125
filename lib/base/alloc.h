/* Memory of a context: the host's allocator, counted and limited. Blocks are 64-byte aligned. Not
 * for what jansson and utf8proc allocate by themselves. */
#ifndef PGRAD_BASE_ALLOC_H
#define PGRAD_BASE_ALLOC_H

#include <policygrad/context.h>

#define PGRAD__BLOCK_HEADER 64 /* bytes in front of every block */

/* A block of the host's, size a multiple of PGRAD__BLOCK_HEADER: neither counted nor with a header.
 * E_NOMEM; E_INVALID, and the block is given back, where it is not aligned. */
pgrad_status pgrad__alloc_block(const pgrad_allocator *allocator, size_t size, void **out);

/* Allocates count * size bytes, checked; *out (a pointer to any object pointer) is set on success.
 * A count or size of 0 gives a valid block. E_LIMIT (told with needed and allowed), and
 * those of pgrad__alloc_block. */
pgrad_status pgrad__alloc(pgrad_context *context, size_t count, size_t size, void *out);

/* The same, zeroed. */
pgrad_status pgrad__calloc(pgrad_context *context, size_t count, size_t size, void *out);

/* Grows a block (NULL allowed) to count * size bytes keeping its contents; *block changes on
 * success only. */
pgrad_status pgrad__realloc(pgrad_context *context, void *block, size_t count, size_t size);

/* Copies length bytes and puts a NUL behind them. */
pgrad_status pgrad__copy_text(pgrad_context *context, const char *text, size_t length, char **out);

/* Frees a block of pgrad__alloc; NULL allowed. The size is known from the block. */
void pgrad__free(pgrad_context *context, void *block);

/* Bytes that are accounted for a block; 0 for NULL. */
size_t pgrad__held(const void *block);

/* Grows *items, an array of `size`-byte items with room for *capacity, so that needed fit
 * (doubling). */
pgrad_status pgrad__reserve(pgrad_context *context, void *items, size_t *capacity, size_t needed,
                            size_t size);
/* The capacity it gives to an array that had none. */
size_t pgrad__reserve_capacity(size_t needed);

#endif
