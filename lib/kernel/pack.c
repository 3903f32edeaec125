/* Weights in packed panels: their only storage. */
#include <string.h>

#include "kernel/kernel.h"
#include "kernel/panels.h"

size_t pgrad__matrix_floats(const pgrad__kernels *kernels, uint32_t n_out, uint32_t n_in)
{
    return pgrad__panel_count(n_out, kernels->wide) * n_in * kernels->wide + PGRAD__SLACK;
}

void pgrad__matrix_set_rows(const pgrad__kernels *kernels, pgrad__matrix *matrix, uint32_t first,
                            uint32_t n_rows, const float *rows)
{
    const size_t wide = kernels->wide, n_in = matrix->n_in;
    for (uint32_t r = 0; r < n_rows; r++) {
        size_t o = (size_t)first + r;
        float *to = matrix->data + (o / wide) * n_in * wide + o % wide;
        for (size_t k = 0; k < n_in; k++)
            to[k * wide] = rows[r * n_in + k];
    }
}

void pgrad__matrix_get_rows(const pgrad__kernels *kernels, const pgrad__matrix *matrix,
                            uint32_t first, uint32_t n_rows, float *rows)
{
    const size_t wide = kernels->wide, n_in = matrix->n_in;
    for (uint32_t r = 0; r < n_rows; r++) {
        size_t o = (size_t)first + r;
        const float *from = matrix->data + (o / wide) * n_in * wide + o % wide;
        for (size_t k = 0; k < n_in; k++)
            rows[r * n_in + k] = from[k * wide];
    }
}

void pgrad__matrix_set_columns(const pgrad__kernels *kernels, pgrad__matrix *matrix, uint32_t first,
                               uint32_t n, const float *columns)
{
    const size_t wide = kernels->wide, n_in = matrix->n_in, n_out = matrix->n_out;
    for (size_t k = 0; k < n; k++)
        for (size_t o = 0; o < n_out; o += wide) {
            size_t lanes = n_out - o < wide ? n_out - o : wide;
            memcpy(matrix->data + (o / wide * n_in + first + k) * wide, columns + k * n_out + o,
                   lanes * sizeof(float));
        }
}

void pgrad__matrix_get_columns(const pgrad__kernels *kernels, const pgrad__matrix *matrix,
                               uint32_t first, uint32_t n, float *columns)
{
    const size_t wide = kernels->wide, n_in = matrix->n_in, n_out = matrix->n_out;
    for (size_t k = 0; k < n; k++)
        for (size_t o = 0; o < n_out; o += wide) {
            size_t lanes = n_out - o < wide ? n_out - o : wide;
            memcpy(columns + k * n_out + o, matrix->data + (o / wide * n_in + first + k) * wide,
                   lanes * sizeof(float));
        }
}
