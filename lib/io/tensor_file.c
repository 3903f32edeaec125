#include "io/tensor_file.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"

enum { CHUNK_BYTES = 256 * 1024 };

static int compare_names(const void *a, const void *b, void *tensors)
{
    const pgrad__tensor_view *views = tensors;
    const uint32_t *left = a, *right = b;
    return strcmp(views[*left].name, views[*right].name);
}

pgrad_status pgrad__tensor_set_finish(pgrad__tensor_set *set)
{
    char path[PGRAD__PATH_MAX], other[PGRAD__PATH_MAX];
    PGRAD__TRY(pgrad__alloc(set->context, set->n_tensors, sizeof *set->by_name, &set->by_name));
    for (size_t i = 0; i < set->n_tensors; i++)
        set->by_name[i] = (uint32_t)i;
    if (set->n_tensors > 0)
        qsort_r(set->by_name, set->n_tensors, sizeof *set->by_name, compare_names, set->tensors);
    for (size_t i = 1; i < set->n_tensors; i++) {
        const pgrad__tensor_view *a = &set->tensors[set->by_name[i - 1]];
        const pgrad__tensor_view *b = &set->tensors[set->by_name[i]];
        if (strcmp(a->name, b->name) != 0)
            continue;
        (void)pgrad__path_text(path, set->files[a->file].path);
        if (a->file == b->file)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: tensor '%.120s' is there twice", path, a->name);
        return pgrad__fail(PGRAD_E_FORMAT, "tensor '%.120s' is in two files, %s and %s", a->name,
                           path, pgrad__path_text(other, set->files[b->file].path));
    }
    return PGRAD_OK;
}

const pgrad__tensor_view *pgrad__tensor_find(const pgrad__tensor_set *set, const char *name)
{
    size_t low = 0, high = set->n_tensors;
    while (low < high) {
        size_t middle = low + (high - low) / 2;
        const pgrad__tensor_view *tensor = &set->tensors[set->by_name[middle]];
        int order = strcmp(name, tensor->name);
        if (order == 0)
            return tensor;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return NULL;
}

/* Reads in chunks of whole blocks and widens each. */
static pgrad_status read_widened(pgrad__file *file, const pgrad__tensor_view *tensor,
                                 uint64_t first, uint64_t count, float *out)
{
    uint32_t block = pgrad__element_block(tensor->type);
    uint32_t block_bytes = pgrad__element_block_bytes(tensor->type);
    uint64_t n_blocks = count / block, per_chunk = CHUNK_BYTES / block_bytes;
    uint64_t at = tensor->offset + first / block * block_bytes;
    pgrad_status status = PGRAD_OK;
    unsigned char *chunk;
    if (per_chunk > n_blocks)
        per_chunk = n_blocks;
    PGRAD__TRY(pgrad__alloc(file->context, (size_t)per_chunk, block_bytes, &chunk));
    while (n_blocks > 0) {
        size_t n = (size_t)(n_blocks < per_chunk ? n_blocks : per_chunk);
        status = pgrad__file_read(file, at, chunk, n * block_bytes);
        if (status != PGRAD_OK)
            break;
        pgrad__dequantize(tensor->type, chunk, n * block, out);
        out += n * block;
        at += n * block_bytes;
        n_blocks -= n;
    }
    pgrad__free(file->context, chunk);
    return status;
}

pgrad_status pgrad__tensor_read(const pgrad__tensor_set *set, const pgrad__tensor_view *tensor,
                                uint64_t first, uint64_t count, float *out)
{
    char path[PGRAD__PATH_MAX];
    pgrad__file *file = &set->files[tensor->file];
    uint32_t block = pgrad__element_block(tensor->type);
    if (block == 0)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: tensor '%.120s': type %.40s cannot be read as weights",
                           pgrad__path_text(path, file->path), tensor->name, tensor->type_name);
    if (first > tensor->n_elements || count > tensor->n_elements - first || first % block != 0 ||
        count % block != 0)
        return pgrad__fail(PGRAD_E_INTERNAL,
                           "tensor '%.120s': elements %llu and %llu more of %llu, in blocks of %u",
                           tensor->name, (unsigned long long)first, (unsigned long long)count,
                           (unsigned long long)tensor->n_elements, block);
    pgrad_status status;
    if (tensor->type == PGRAD__ELEMENT_F32)
        status = pgrad__file_read(file, tensor->offset + 4 * first, out, (size_t)count * 4);
    else
        status = read_widened(file, tensor, first, count, out);
    if (status == PGRAD_E_FORMAT || status == PGRAD_E_IO)
        return pgrad__fail_in(status, "tensor '%.120s': ", tensor->name);
    return status;
}

void pgrad__tensor_set_free(pgrad__tensor_set *set)
{
    for (uint32_t i = 0; i < set->n_files; i++)
        pgrad__file_close(&set->files[i]);
    if (set->context != NULL) {
        pgrad__free(set->context, set->by_name);
        pgrad__free(set->context, set->owned);
        pgrad__free(set->context, set->tensors);
        pgrad__free(set->context, set->files);
    }
    memset(set, 0, sizeof *set);
}
