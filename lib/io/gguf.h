/* GGUF version 2 and 3: key-values and tensor views. */
#ifndef PGRAD_IO_GGUF_H
#define PGRAD_IO_GGUF_H

#include "io/tensor_file.h"

typedef struct pgrad__gguf pgrad__gguf;

/* Opens a file; checks every count against the bytes that remain, every offset against the file.
 * E_FORMAT, E_UNSUPPORTED (version, split file), E_IO, E_LIMIT, E_NOMEM. */
pgrad_status pgrad__gguf_open(pgrad_context *context, const char *path, pgrad__gguf **out);
void pgrad__gguf_free(pgrad__gguf *gguf);

/* The tensors, borrowed. Names as in the file ("blk.0.attn_q.weight"), dims outermost first. */
const pgrad__tensor_set *pgrad__gguf_tensors(const pgrad__gguf *gguf);
const char *pgrad__gguf_path(const pgrad__gguf *gguf); /* whole, not shortened */

/* Key-values by type. has: 1 when the key is there. The getters fail with E_FORMAT on a wrong type,
 * or a missing key, naming file and key. Any integer type is taken for u32 when its value fits. */
int pgrad__gguf_has(const pgrad__gguf *gguf, const char *key);
pgrad_status pgrad__gguf_u32(const pgrad__gguf *gguf, const char *key, uint32_t *out);
pgrad_status pgrad__gguf_f32(const pgrad__gguf *gguf, const char *key, float *out);
pgrad_status pgrad__gguf_bool(const pgrad__gguf *gguf, const char *key, int *out);
pgrad_status pgrad__gguf_string(const pgrad__gguf *gguf, const char *key, const char **text,
                                size_t *length);
/* Arrays: the count, then the elements. Strings are borrowed; numbers of any integer type. */
pgrad_status pgrad__gguf_array_count(const pgrad__gguf *gguf, const char *key, size_t *count);
pgrad_status pgrad__gguf_array_string(const pgrad__gguf *gguf, const char *key, size_t index,
                                      const char **text, size_t *length); /* O(1) */
pgrad_status pgrad__gguf_array_i32(const pgrad__gguf *gguf, const char *key, size_t index,
                                   int32_t *out);
pgrad_status pgrad__gguf_array_f32(const pgrad__gguf *gguf, const char *key, size_t index,
                                   float *out);

#endif
