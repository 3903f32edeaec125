/* Rotary embedding: tables, and rows over threads. */
#include "base/pool.h"
#include "base/real.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum { ROWS = 32 };

void pgrad__rope_table(const double *frequency, uint32_t n_positions, uint32_t head_dim, float *cos,
                       float *sin)
{
    const uint32_t half = head_dim / 2;
    for (uint32_t position = 0; position < n_positions; position++)
        for (uint32_t j = 0; j < half; j++) {
            float angle = (float)position * (float)frequency[j];
            cos[(size_t)position * half + j] = (float)pgrad__cos((double)angle);
            sin[(size_t)position * half + j] = (float)pgrad__sin((double)angle);
        }
}

typedef struct job {
    const pgrad__vector_ops *vec;
    float *x;
    size_t ldx, n_rows;
    uint32_t n_heads, head_dim;
    const uint32_t *positions;
    const float *cos, *sin;
    float sign;
} job;

static void rope_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t end = pgrad__min((task + 1) * ROWS, j->n_rows), half = j->head_dim / 2;
    (void)worker;
    for (size_t t = task * ROWS; t < end; t++)
        for (uint32_t head = 0; head < j->n_heads; head++)
            j->vec->rope_head(j->x + t * j->ldx + (size_t)head * j->head_dim, j->head_dim,
                              j->cos + j->positions[t] * half, j->sin + j->positions[t] * half,
                              j->sign);
}

static void rotate(pgrad_context *context, job *j)
{
    j->vec = pgrad__kernels_of(context)->vec;
    pgrad__parallel(context, pgrad__panel_count(j->n_rows, ROWS), rope_task, j);
}

void pgrad__rope_forward(pgrad_context *context, float *x, size_t ldx, size_t n_rows,
                         uint32_t n_heads, uint32_t head_dim, const uint32_t *positions,
                         const float *cos, const float *sin)
{
    job j = {NULL, x, ldx, n_rows, n_heads, head_dim, positions, cos, sin, 1.0f};
    rotate(context, &j);
}

void pgrad__rope_backward(pgrad_context *context, float *dx, size_t ldx, size_t n_rows,
                          uint32_t n_heads, uint32_t head_dim, const uint32_t *positions,
                          const float *cos, const float *sin)
{
    job j = {NULL, dx, ldx, n_rows, n_heads, head_dim, positions, cos, sin, -1.0f};
    rotate(context, &j);
}
