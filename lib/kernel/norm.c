/* LayerNorm and RMSNorm over rows; their parameters' gradients over columns. */
#include <string.h>

#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum { ROWS = 16, COLUMNS = 256 };

typedef struct job {
    const pgrad__vector_ops *vec;
    const float *dy, *x, *w, *b, *mean_in, *rstd_in;
    float eps;
    float *y, *mean, *rstd, *dx, *dw, *db;
    size_t n_rows, n;
} job;

static size_t last_row(const job *j, size_t task)
{
    return pgrad__min((task + 1) * ROWS, j->n_rows);
}

static void layernorm_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    (void)worker;
    for (size_t t = task * ROWS; t < last_row(j, task); t++)
        j->vec->layernorm_row(j->x + t * j->n, j->n, j->w, j->b, j->eps, j->y + t * j->n,
                              j->mean + t, j->rstd + t);
}

void pgrad__layernorm_forward(pgrad_context *context, const float *x, size_t n_rows, size_t n,
                              const float *w, const float *b, float eps, float *y, float *mean,
                              float *rstd)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .x = x,
             .w = w,
             .b = b,
             .eps = eps,
             .y = y,
             .mean = mean,
             .rstd = rstd,
             .n_rows = n_rows,
             .n = n};
    pgrad__parallel(context, pgrad__panel_count(n_rows, ROWS), layernorm_task, &j);
}

/* dw and db of a slice of columns: blocks of rows, each summed by itself, added in order. */
static void columns_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t first = task * COLUMNS, n = pgrad__min(COLUMNS, j->n - first);
    (void)worker;
    for (size_t t = 0; t < j->n_rows; t += PGRAD__ROW_BLOCK) {
        float dw[COLUMNS] = {0}, db[COLUMNS] = {0};
        j->vec->norm_columns_backward(j->dy + t * j->n + first, j->n, j->x + t * j->n + first, j->n,
                                      pgrad__min(PGRAD__ROW_BLOCK, j->n_rows - t), n,
                                      j->mean_in == NULL ? NULL : j->mean_in + t, j->rstd_in + t,
                                      dw, j->db == NULL ? NULL : db);
        j->vec->add(dw, n, j->dw + first);
        if (j->db != NULL)
            j->vec->add(db, n, j->db + first);
    }
}

static void layernorm_backward_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    (void)worker;
    for (size_t t = task * ROWS; t < last_row(j, task); t++)
        j->vec->layernorm_row_backward(j->dy + t * j->n, j->x + t * j->n, j->n, j->w, j->mean_in[t],
                                       j->rstd_in[t], j->dx + t * j->n);
}

void pgrad__layernorm_backward(pgrad_context *context, const float *dy, const float *x,
                               size_t n_rows, size_t n, const float *w, const float *mean,
                               const float *rstd, float *dx, float *dw, float *db)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .dy = dy,
             .x = x,
             .w = w,
             .mean_in = mean,
             .rstd_in = rstd,
             .dx = dx,
             .dw = dw,
             .db = db,
             .n_rows = n_rows,
             .n = n};
    pgrad__parallel(context, pgrad__panel_count(n_rows, ROWS), layernorm_backward_task, &j);
    pgrad__parallel(context, pgrad__panel_count(n, COLUMNS), columns_task, &j);
}

static void rmsnorm_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    (void)worker;
    for (size_t t = task * ROWS; t < last_row(j, task); t++)
        j->vec->rmsnorm_row(j->x + t * j->n, j->n, j->w, j->eps, j->y + t * j->n, j->rstd + t);
}

void pgrad__rmsnorm_forward(pgrad_context *context, const float *x, size_t n_rows, size_t n,
                            const float *w, float eps, float *y, float *rstd)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .x = x,
             .w = w,
             .eps = eps,
             .y = y,
             .rstd = rstd,
             .n_rows = n_rows,
             .n = n};
    pgrad__parallel(context, pgrad__panel_count(n_rows, ROWS), rmsnorm_task, &j);
}

static void rmsnorm_backward_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    (void)worker;
    for (size_t t = task * ROWS; t < last_row(j, task); t++)
        j->vec->rmsnorm_row_backward(j->dy + t * j->n, j->x + t * j->n, j->n, j->w, j->rstd_in[t],
                                     j->dx + t * j->n);
}

void pgrad__rmsnorm_backward(pgrad_context *context, const float *dy, const float *x, size_t n_rows,
                             size_t n, const float *w, const float *rstd, float *dx, float *dw)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .dy = dy,
             .x = x,
             .w = w,
             .rstd_in = rstd,
             .dx = dx,
             .dw = dw,
             .n_rows = n_rows,
             .n = n};
    pgrad__parallel(context, pgrad__panel_count(n_rows, ROWS), rmsnorm_backward_task, &j);
    pgrad__parallel(context, pgrad__panel_count(n, COLUMNS), columns_task, &j);
}
