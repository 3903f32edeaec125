/* Optimizer updates over ranges of a flat array. */
#include <stdatomic.h>

#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum { RANGE = 65536 };

typedef struct job {
    const pgrad__vector_ops *vec;
    const pgrad__adam *adam;
    const pgrad__sgd *sgd;
    size_t n;
    float *theta, *m, *v;
    const float *g;
    int write;
    atomic_int bad;
} job;

static void adam_task(void *argument, size_t task, uint32_t worker)
{
    job *j = argument;
    const size_t at = task * RANGE, n = pgrad__min(RANGE, j->n - at);
    (void)worker;
    if (!j->vec->adam(j->adam, n, j->theta + at, j->g + at, j->m + at, j->v + at, j->write))
        atomic_store_explicit(&j->bad, 1, memory_order_relaxed);
}

int pgrad__adam_update(pgrad_context *context, const pgrad__adam *adam, size_t n, float *theta,
                       const float *g, float *m, float *v, int write)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .adam = adam,
             .n = n,
             .theta = theta,
             .m = m,
             .v = v,
             .g = g,
             .write = write};
    pgrad__parallel(context, pgrad__panel_count(n, RANGE), adam_task, &j);
    return !atomic_load(&j.bad);
}

static void sgd_task(void *argument, size_t task, uint32_t worker)
{
    job *j = argument;
    const size_t at = task * RANGE, n = pgrad__min(RANGE, j->n - at);
    (void)worker;
    if (!j->vec->sgd(j->sgd, n, j->theta + at, j->g + at, j->m == NULL ? NULL : j->m + at,
                     j->write))
        atomic_store_explicit(&j->bad, 1, memory_order_relaxed);
}

int pgrad__sgd_update(pgrad_context *context, const pgrad__sgd *sgd, size_t n, float *theta,
                      const float *g, float *b, int write)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .sgd = sgd,
             .n = n,
             .theta = theta,
             .m = b,
             .g = g,
             .write = write};
    pgrad__parallel(context, pgrad__panel_count(n, RANGE), sgd_task, &j);
    return !atomic_load(&j.bad);
}
