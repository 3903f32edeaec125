/* What both weight formats promise of the tensors they let through. */
#ifndef PGRAD_TESTS_FUZZ_TENSORS_H
#define PGRAD_TESTS_FUZZ_TENSORS_H

#include "fuzz.h"

#include "io/tensor_file.h"

static inline void read_tensors(const pgrad__tensor_set *set)
{
    enum { MOST = 1 << 16 };
    static float out[MOST];
    for (size_t i = 0; i < set->n_tensors; i++) {
        const pgrad__tensor_view *view = &set->tensors[i];
        const uint64_t file_size = set->files[view->file].size;
        PROMISE(view->n_bytes <= file_size && view->offset <= file_size - view->n_bytes);
        PROMISE(view->n_dims <= PGRAD__MAX_DIMS);
        PROMISE(pgrad__tensor_find(set, view->name) == view);
        uint64_t elements = 1; /* no overflow: it was counted before */
        for (uint32_t d = 0; d < view->n_dims; d++)
            elements *= view->dims[d];
        PROMISE(elements == view->n_elements);
        const uint64_t block = pgrad__element_block(view->type);
        if (block == 0) {
            PROMISE(pgrad__tensor_read(set, view, 0, 0, out) == PGRAD_E_UNSUPPORTED);
            continue;
        }
        PROMISE(view->n_elements / block * pgrad__element_block_bytes(view->type) == view->n_bytes);
        const uint64_t count = view->n_elements < MOST ? view->n_elements : MOST;
        PROMISE(pgrad__tensor_read(set, view, 0, count, out) == PGRAD_OK);
        if (view->n_elements > 0)
            PROMISE(pgrad__tensor_read(set, view, view->n_elements - block, block, out) == PGRAD_OK);
    }
}

#endif
