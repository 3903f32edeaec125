/* Rows gathered from packed panels, and their gradients scattered back. */
#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"

enum { ROWS = 16, COLUMNS = 64 };

typedef struct job {
    const pgrad__kernels *kernels;
    size_t wide, n_in, n_rows;
    const pgrad__matrix *e;
    const float *p;
    float *d_e, *d_p;
    const pgrad_token *tokens;
    const uint32_t *positions;
    float *out;
    const float *dout;
} job;

static size_t row_offset(const job *j, size_t t)
{
    size_t token = (size_t)j->tokens[t];
    return token / j->wide * j->n_in * j->wide + token % j->wide;
}

static void gather_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t end = pgrad__min((task + 1) * ROWS, j->n_rows);
    (void)worker;
    for (size_t t = task * ROWS; t < end; t++) {
        float *out = j->out + t * j->n_in;
        pgrad__matrix_get_rows(j->kernels, j->e, (uint32_t)j->tokens[t], 1, out);
        if (j->p != NULL) {
            const float *place = j->p + j->positions[t] * j->n_in;
            for (size_t i = 0; i < j->n_in; i++)
                out[i] += place[i];
        }
    }
}

void pgrad__embedding_forward(pgrad_context *context, const pgrad__matrix *e, const float *p,
                              const pgrad_token *tokens, const uint32_t *positions, size_t n_rows,
                              float *out)
{
    job j = {.kernels = pgrad__kernels_of(context),
             .n_in = e->n_in,
             .n_rows = n_rows,
             .e = e,
             .p = p,
             .tokens = tokens,
             .positions = positions,
             .out = out};
    pgrad__parallel(context, pgrad__panel_count(n_rows, ROWS), gather_task, &j);
}

/* A slice of columns over all rows in order: a token that comes twice is added in one order. */
static void scatter_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t first = task * COLUMNS, end = pgrad__min(first + COLUMNS, j->n_in);
    (void)worker;
    for (size_t t = 0; t < j->n_rows; t++) {
        float *row = j->d_e + row_offset(j, t);
        const float *dout = j->dout + t * j->n_in;
        for (size_t i = first; i < end; i++)
            row[i * j->wide] += dout[i];
        if (j->d_p != NULL)
            for (size_t i = first; i < end; i++)
                j->d_p[j->positions[t] * j->n_in + i] += dout[i];
    }
}

void pgrad__embedding_backward(pgrad_context *context, pgrad__matrix *d_e, float *d_p,
                               const pgrad_token *tokens, const uint32_t *positions, size_t n_rows,
                               const float *dout)
{
    job j = {.wide = pgrad__kernels_of(context)->wide,
             .n_in = d_e->n_in,
             .n_rows = n_rows,
             .d_e = d_e->data,
             .d_p = d_p,
             .tokens = tokens,
             .positions = positions,
             .dout = dout};
    pgrad__parallel(context, pgrad__panel_count(d_e->n_in, COLUMNS), scatter_task, &j);
}
