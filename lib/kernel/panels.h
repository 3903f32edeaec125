/* What the products share: counting panels, tiles at the edges. Not for other layers. */
#ifndef PGRAD_KERNEL_PANELS_H
#define PGRAD_KERNEL_PANELS_H

#include "kernel/kernel.h"

enum { PGRAD__MAX_NARROW = 12, PGRAD__MAX_WIDE = 32 };

static inline size_t pgrad__panel_count(size_t n, size_t width)
{
    return (n + width - 1) / width;
}

/* n rounded up to whole panels, or to what else has a width. */
static inline size_t pgrad__round_up(size_t n, size_t width)
{
    return pgrad__panel_count(n, width) * width;
}

static inline size_t pgrad__min(size_t a, size_t b)
{
    return a < b ? a : b;
}

/* One tile of a product: rows <= narrow of cols <= wide; at an edge through a tile of full size. */
static inline void pgrad__tile(const pgrad__kernels *kernels, size_t depth,
                               const float *narrow_panel, const float *wide_panel, float *c,
                               size_t ldc, size_t rows, size_t cols, int accumulate)
{
    if (rows == kernels->narrow && cols == kernels->wide) {
        kernels->micro(depth, narrow_panel, wide_panel, c, ldc, accumulate);
        return;
    }
    _Alignas(64) float tile[PGRAD__MAX_NARROW * PGRAD__MAX_WIDE];
    const size_t wide = kernels->wide;
    kernels->micro(depth, narrow_panel, wide_panel, tile, wide, 0);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < cols; j++)
            c[i * ldc + j] = accumulate ? c[i * ldc + j] + tile[i * wide + j] : tile[i * wide + j];
}

/* Inputs first .. first + n - 1 of a panel of a narrow matrix as floats, [n][wide]. */
void pgrad__widen(const pgrad__kernels *kernels, const pgrad__matrix *matrix, size_t panel,
                  size_t first, size_t n, float *out);

/* The packed left operand of a product: panel i holds rows i*narrow ..; [panel][depth][narrow].
 * Packed by all threads. */
void pgrad__pack_rows(pgrad_context *context, const float *x, size_t ldx, size_t n_rows,
                      size_t depth, float *packed);

#endif
