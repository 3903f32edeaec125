/* Weights in packed panels: their only storage. */
#include <stdatomic.h>
#include <string.h>

#include "base/half.h"
#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum { Q8_BLOCK = PGRAD__Q8_BLOCK };

size_t pgrad__panel_bytes(const pgrad__kernels *kernels, uint32_t storage, uint32_t n_in)
{
    static const size_t bytes[PGRAD__N_STORAGE] = {4, 2, 1};
    size_t scales = storage == PGRAD_STORAGE_Q8_0 ? pgrad__panel_count(n_in, Q8_BLOCK) : 0;
    return (n_in * bytes[storage] + scales * sizeof(uint16_t)) * kernels->wide;
}

size_t pgrad__matrix_bytes(const pgrad__kernels *kernels, uint32_t storage, uint32_t n_out,
                           uint32_t n_in)
{
    return pgrad__panel_count(n_out, kernels->wide) * pgrad__panel_bytes(kernels, storage, n_in) +
           PGRAD__SLACK * sizeof(float);
}

size_t pgrad__matrix_floats(const pgrad__kernels *kernels, uint32_t n_out, uint32_t n_in)
{
    return pgrad__matrix_bytes(kernels, PGRAD_STORAGE_F32, n_out, n_in) / sizeof(float);
}

/* ---- one output ---- */

/* Quantises n <= 32 values as ggml does: d = max |x| / 127 in f16, q = x / (d before it was
 * rounded), halves away from zero. Where a value or d is not finite, nor is any weight. */
static uint16_t quantize(const float *x, size_t n, int8_t *q)
{
    float largest = 0.0f;
    int finite = 1;
    for (size_t i = 0; i < n; i++) {
        float magnitude = x[i] < 0.0f ? -x[i] : x[i];
        finite &= magnitude <= 0x1.fffffep127f;
        largest = magnitude > largest ? magnitude : largest;
    }
    const float d = largest / 127.0f;
    const uint16_t half = finite ? pgrad__f32_to_f16(d) : 0x7e00;
    memset(q, 0, n);
    if (half == 0 || half >= 0x7c00)
        return half >= 0x7c00 ? 0x7e00 : 0;
    const float inverse = 1.0f / d;
    for (size_t i = 0; i < n; i++) {
        double scaled = (double)(x[i] * inverse);
        q[i] = (int8_t)(scaled + (scaled < 0.0 ? -0.5 : 0.5));
    }
    return half;
}

/* Where an output's lane of its panel begins, and the distance between its inputs. */
typedef struct lane {
    unsigned char *panel;
    size_t wide, index;
} lane;

static lane find_lane(const pgrad__kernels *kernels, const pgrad__matrix *matrix, size_t o)
{
    const size_t bytes = pgrad__panel_bytes(kernels, matrix->storage, matrix->n_in);
    return (lane){(unsigned char *)matrix->data + o / kernels->wide * bytes, kernels->wide,
                  o % kernels->wide};
}

static unsigned char *block_of(const lane *l, size_t k)
{
    return l->panel + k / Q8_BLOCK * (Q8_BLOCK + sizeof(uint16_t)) * l->wide;
}

static void put_block(const lane *l, size_t k, size_t n, const float *x)
{
    int8_t q[Q8_BLOCK];
    unsigned char *block = block_of(l, k);
    const uint16_t scale = quantize(x, n, q);
    memcpy(block + sizeof scale * l->index, &scale, sizeof scale);
    for (size_t i = 0; i < n; i++)
        block[(sizeof scale + i) * l->wide + l->index] = (unsigned char)q[i];
}

/* Inputs first .. first + n - 1 of a lane, x[i * stride]. */
static void put_lane(uint32_t storage, const lane *l, size_t first, size_t n, const float *x,
                     size_t stride)
{
    if (storage == PGRAD_STORAGE_F32) {
        float *to = (float *)(void *)l->panel + first * l->wide + l->index;
        for (size_t i = 0; i < n; i++)
            to[i * l->wide] = x[i * stride];
    } else if (storage == PGRAD_STORAGE_BF16) {
        uint16_t *to = (uint16_t *)(void *)l->panel + first * l->wide + l->index;
        for (size_t i = 0; i < n; i++)
            to[i * l->wide] = pgrad__f32_to_bf16(x[i * stride]);
    } else {
        for (size_t i = 0; i < n; i += Q8_BLOCK) {
            float block[Q8_BLOCK];
            const size_t in_block = pgrad__min(Q8_BLOCK, n - i);
            for (size_t j = 0; j < in_block; j++)
                block[j] = x[(i + j) * stride];
            put_block(l, first + i, in_block, block);
        }
    }
}

static void get_lane(uint32_t storage, const lane *l, size_t first, size_t n, float *x,
                     size_t stride)
{
    if (storage == PGRAD_STORAGE_F32) {
        const float *from = (const float *)(const void *)l->panel + first * l->wide + l->index;
        for (size_t i = 0; i < n; i++)
            x[i * stride] = from[i * l->wide];
    } else if (storage == PGRAD_STORAGE_BF16) {
        const uint16_t *from =
            (const uint16_t *)(const void *)l->panel + first * l->wide + l->index;
        for (size_t i = 0; i < n; i++)
            x[i * stride] = pgrad__bf16_to_f32(from[i * l->wide]);
    } else {
        for (size_t i = 0; i < n; i++) {
            uint16_t scale;
            const size_t k = first + i;
            const unsigned char *block = block_of(l, k);
            memcpy(&scale, block + sizeof scale * l->index, sizeof scale);
            int8_t q = (int8_t)block[(sizeof scale + k % Q8_BLOCK) * l->wide + l->index];
            x[i * stride] = (float)q * pgrad__f16_to_f32(scale);
        }
    }
}

/* ---- rows and columns ---- */

void pgrad__matrix_set_rows(const pgrad__kernels *kernels, pgrad__matrix *matrix, uint32_t first,
                            uint32_t n_rows, const float *rows)
{
    for (size_t r = 0; r < n_rows; r++) {
        const lane l = find_lane(kernels, matrix, first + r);
        put_lane(matrix->storage, &l, 0, matrix->n_in, rows + r * matrix->n_in, 1);
    }
}

void pgrad__matrix_get_rows(const pgrad__kernels *kernels, const pgrad__matrix *matrix,
                            uint32_t first, uint32_t n_rows, float *rows)
{
    for (size_t r = 0; r < n_rows; r++) {
        const lane l = find_lane(kernels, matrix, first + r);
        get_lane(matrix->storage, &l, 0, matrix->n_in, rows + r * matrix->n_in, 1);
    }
}

void pgrad__matrix_set_columns(const pgrad__kernels *kernels, pgrad__matrix *matrix, uint32_t first,
                               uint32_t n, const float *columns)
{
    const size_t wide = kernels->wide, n_in = matrix->n_in, n_out = matrix->n_out;
    if (matrix->storage != PGRAD_STORAGE_F32) {
        for (size_t o = 0; o < n_out; o++) {
            const lane l = find_lane(kernels, matrix, o);
            put_lane(matrix->storage, &l, first, n, columns + o, n_out);
        }
        return;
    }
    for (size_t k = 0; k < n; k++)
        for (size_t o = 0; o < n_out; o += wide)
            memcpy((float *)matrix->data + (o / wide * n_in + first + k) * wide,
                   columns + k * n_out + o, pgrad__min(wide, n_out - o) * sizeof(float));
}

void pgrad__matrix_get_columns(const pgrad__kernels *kernels, const pgrad__matrix *matrix,
                               uint32_t first, uint32_t n, float *columns)
{
    const size_t wide = kernels->wide, n_in = matrix->n_in, n_out = matrix->n_out;
    if (matrix->storage != PGRAD_STORAGE_F32) {
        for (size_t o = 0; o < n_out; o++) {
            const lane l = find_lane(kernels, matrix, o);
            get_lane(matrix->storage, &l, first, n, columns + o, n_out);
        }
        return;
    }
    for (size_t k = 0; k < n; k++)
        for (size_t o = 0; o < n_out; o += wide)
            memcpy(columns + k * n_out + o,
                   (const float *)matrix->data + (o / wide * n_in + first + k) * wide,
                   pgrad__min(wide, n_out - o) * sizeof(float));
}

/* ---- widening ---- */

void pgrad__widen(const pgrad__kernels *kernels, const pgrad__matrix *matrix, size_t panel,
                  size_t first, size_t n, float *out)
{
    const unsigned char *data = (const unsigned char *)matrix->data +
                                panel * pgrad__panel_bytes(kernels, matrix->storage, matrix->n_in);
    if (matrix->storage == PGRAD_STORAGE_BF16)
        kernels->vec->bf16_widen((const uint16_t *)(const void *)data + first * kernels->wide,
                                 n * kernels->wide, out);
    else
        kernels->vec->widen_q8_0(data, first, n, out);
}

typedef struct finite_job {
    const pgrad__kernels *kernels;
    const pgrad__matrix *matrix;
    atomic_int found;
} finite_job;

static void finite_task(void *argument, size_t panel, uint32_t worker)
{
    enum { ROWS = 32 };
    finite_job *job = argument;
    const size_t n_in = job->matrix->n_in, wide = job->kernels->wide;
    (void)worker;
    for (size_t k = 0; k < n_in; k += ROWS) {
        float floats[ROWS * PGRAD__MAX_WIDE];
        const size_t n = pgrad__min(ROWS, n_in - k);
        pgrad__widen(job->kernels, job->matrix, panel, k, n, floats);
        if (!job->kernels->vec->all_finite(floats, n * wide))
            atomic_store_explicit(&job->found, 1, memory_order_relaxed);
    }
}

int pgrad__matrix_all_finite(pgrad_context *context, const pgrad__matrix *matrix)
{
    const pgrad__kernels *kernels = pgrad__kernels_of(context);
    if (matrix->storage == PGRAD_STORAGE_F32)
        return pgrad__all_finite(context, matrix->data,
                                 pgrad__matrix_floats(kernels, matrix->n_out, matrix->n_in) -
                                     PGRAD__SLACK);
    finite_job job = {kernels, matrix, 0};
    pgrad__parallel(context, pgrad__panel_count(matrix->n_out, kernels->wide), finite_task, &job);
    return !atomic_load(&job.found);
}
