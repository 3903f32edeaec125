/* What forward and backward of attention share: the layout of pages, and small products of packed
 * tiles. */
#ifndef PGRAD_KERNEL_ATTENTION_H
#define PGRAD_KERNEL_ATTENTION_H

#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

/* head_dim rounded up to whole wide panels. */
static inline size_t pgrad__padded_dim(const pgrad__kernels *kernels, size_t head_dim)
{
    return pgrad__round_up(head_dim, kernels->wide);
}

/* C [rows, cols] (+)= N W over `depth`: N in narrow panels [ceil(rows / narrow)][stride][narrow], W
 * in wide panels [ceil(cols / wide)][stride][wide], stride >= depth their allotted length. */
static inline void pgrad__tile_product(const pgrad__kernels *kernels, size_t rows, size_t cols,
                                       size_t depth, const float *narrow_panels,
                                       size_t narrow_stride, const float *wide_panels,
                                       size_t wide_stride, float *c, size_t ldc, int accumulate)
{
    const size_t narrow = kernels->narrow, wide = kernels->wide;
    for (size_t k = 0; k < depth; k += PGRAD__KC)
        for (size_t j = 0; j < cols; j += wide)
            for (size_t i = 0; i < rows; i += narrow)
                pgrad__tile(kernels, pgrad__min(PGRAD__KC, depth - k),
                            narrow_panels + i * narrow_stride + k * narrow,
                            wide_panels + j * wide_stride + k * wide, c + i * ldc + j, ldc,
                            pgrad__min(narrow, rows - i), pgrad__min(wide, cols - j),
                            k > 0 || accumulate);
}

/* Rows [n, depth] of ldx floats into narrow panels over depth. */
static inline void pgrad__pack_narrow(const pgrad__kernels *kernels, const float *x, size_t ldx,
                                      size_t n, size_t depth, float *panels)
{
    for (size_t i = 0; i < n; i += kernels->narrow)
        kernels->vec->pack_transposed(x + i * ldx, ldx, pgrad__min(kernels->narrow, n - i), depth,
                                      kernels->narrow, panels + i * depth);
}

#endif
