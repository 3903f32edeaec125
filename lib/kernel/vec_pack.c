/* Packing of activations into panels. Copies only: no arithmetic, the same bits whatever the set.
 */
#include <string.h>

#include "kernel/vec_functions.h"

/* Blocks of 16 along depth are read row by row and written transposed: both sides stay in cache
 * lines. */
void PGRAD__VEC(pack_transposed)(const float *x, size_t ldx, size_t n_rows, size_t depth,
                                 size_t width, float *panel)
{
    enum { BLOCK = 16 };
    if (n_rows < width)
        memset(panel, 0, depth * width * sizeof *panel);
    size_t k = 0;
    for (; k + BLOCK <= depth; k += BLOCK)
        for (size_t i = 0; i < n_rows; i++) {
            const float *from = x + i * ldx + k;
            float *to = panel + k * width + i;
            for (size_t j = 0; j < BLOCK; j++)
                to[j * width] = from[j];
        }
    for (; k < depth; k++)
        for (size_t i = 0; i < n_rows; i++)
            panel[k * width + i] = x[i * ldx + k];
}

void PGRAD__VEC(pack_straight)(const float *x, size_t ldx, size_t n, size_t depth, size_t width,
                               float *panel)
{
    if (n < width)
        memset(panel, 0, depth * width * sizeof *panel);
    if (n == width && width == 32) {
        for (size_t k = 0; k < depth; k++)
            memcpy(panel + k * 32, x + k * ldx, 32 * sizeof *panel);
    } else if (n == width && width == 16) {
        for (size_t k = 0; k < depth; k++)
            memcpy(panel + k * 16, x + k * ldx, 16 * sizeof *panel);
    } else if (n == width && width == 12) {
        for (size_t k = 0; k < depth; k++)
            memcpy(panel + k * 12, x + k * ldx, 12 * sizeof *panel);
    } else if (n == width && width == 6) {
        for (size_t k = 0; k < depth; k++)
            memcpy(panel + k * 6, x + k * ldx, 6 * sizeof *panel);
    } else {
        for (size_t k = 0; k < depth; k++)
            memcpy(panel + k * width, x + k * ldx, n * sizeof *panel);
    }
}
