/* safetensors: header and tensor views, single files and shards; a writer. */
#ifndef PGRAD_IO_SAFETENSORS_H
#define PGRAD_IO_SAFETENSORS_H

#include "io/atomic_file.h"
#include "io/tensor_file.h"

#define PGRAD__MAX_SHARDS 10000

/* Opens one file, or every shard an index names; the set is zeroed first. All rules of the format
 * are checked before anything else is read. E_FORMAT, E_IO, E_LIMIT, E_NOMEM. */
pgrad_status pgrad__safetensors_open(pgrad_context *context, const char *path,
                                     pgrad__tensor_set *set);
pgrad_status pgrad__safetensors_open_index(pgrad_context *context, const char *folder,
                                           const char *index_path, pgrad__tensor_set *set);

/* One tensor to write. */
typedef struct pgrad__safetensors_entry {
    const char *name;
    uint32_t n_dims;
    uint64_t dims[4];
} pgrad__safetensors_entry;

/* Gives rows [first, first + count) of entry i as f32 (a row: the last dimension). */
typedef pgrad_status (*pgrad__safetensors_rows_fn)(void *user, size_t i, uint64_t first,
                                                   uint64_t count, float *out);

/* Writes all entries (sorted by name inside) as f32 or bf16 (as_bf16), row by row through rows_fn.
 */
pgrad_status pgrad__safetensors_write(pgrad__writer *writer,
                                      const pgrad__safetensors_entry *entries, size_t n,
                                      int as_bf16, pgrad__safetensors_rows_fn rows, void *user);

#endif
