/* What a weight file says of its tensors, whatever its format: name, type, shape, where. Filled by
 * safetensors.c and gguf.c, read by lib/model. */
#ifndef PGRAD_IO_TENSOR_FILE_H
#define PGRAD_IO_TENSOR_FILE_H

#include "io/dequant.h"
#include "io/file.h"

#define PGRAD__MAX_DIMS 8

typedef struct pgrad__tensor_view {
    const char *name;
    pgrad__element_type type;
    const char *type_name; /* as the file spells it */
    uint32_t n_dims;
    uint64_t dims[PGRAD__MAX_DIMS]; /* outermost first, row-major */
    uint64_t n_elements;
    uint64_t n_bytes;
    uint64_t offset; /* absolute in the file */
    uint32_t file;   /* index into tensor_set.files */
} pgrad__tensor_view;

/* All tensors of a model: one file, or several shards. */
typedef struct pgrad__tensor_set {
    pgrad_context *context;
    pgrad__file *files;
    uint32_t n_files;
    pgrad__tensor_view *tensors;
    size_t n_tensors;
    void *owned;       /* the block that holds the names, from pgrad__alloc */
    uint32_t *by_name; /* tensors in the order of their names */
} pgrad__tensor_set;

/* Finds a tensor by name in a set that is finished; NULL when there is none. */
const pgrad__tensor_view *pgrad__tensor_find(const pgrad__tensor_set *set, const char *name);

/* Reads elements [first, first + count) as f32; both are multiples of the type's block size.
 * E_UNSUPPORTED (type, naming the tensor), E_FORMAT, E_IO. */
pgrad_status pgrad__tensor_read(const pgrad__tensor_set *set, const pgrad__tensor_view *tensor,
                                uint64_t first, uint64_t count, float *out);

void pgrad__tensor_set_free(pgrad__tensor_set *set); /* safe on a zeroed one */

/* For the formats, when all tensors are in: sorts the names into by_name. E_FORMAT for a name that
 * is there twice. */
pgrad_status pgrad__tensor_set_finish(pgrad__tensor_set *set);

#endif
