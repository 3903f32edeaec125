/* Splits elementwise work into ranges for the threads. */
#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum { RANGE = 16384 }; /* floats of a task: a multiple of every vector's width */

typedef struct job {
    const pgrad__vector_ops *vec;
    pgrad__activation kind;
    const float *a, *b, *c;
    float *out, *out2;
    size_t n;
} job;

static void split(pgrad_context *context, job *j, pgrad__task_fn fn)
{
    j->vec = pgrad__kernels_of(context)->vec;
    pgrad__parallel(context, pgrad__panel_count(j->n, RANGE), fn, j);
}

static size_t range_of(const job *j, size_t task)
{
    return pgrad__min(RANGE, j->n - task * RANGE);
}

static void activation_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t at = task * RANGE;
    (void)worker;
    j->vec->activation(j->kind, j->a + at, range_of(j, task), j->out + at);
}

void pgrad__activation_forward(pgrad_context *context, pgrad__activation kind, const float *x,
                               size_t n, float *y)
{
    job j = {.kind = kind, .a = x, .out = y, .n = n};
    split(context, &j, activation_task);
}

static void activation_backward_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t at = task * RANGE;
    (void)worker;
    j->vec->activation_backward(j->kind, j->a + at, j->b + at, range_of(j, task), j->out + at);
}

void pgrad__activation_backward(pgrad_context *context, pgrad__activation kind, const float *dy,
                                const float *x, size_t n, float *dx)
{
    job j = {.kind = kind, .a = dy, .b = x, .out = dx, .n = n};
    split(context, &j, activation_backward_task);
}

static void gated_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t at = task * RANGE;
    (void)worker;
    j->vec->gated(j->kind, j->a + at, j->b + at, range_of(j, task), j->out + at);
}

void pgrad__gated_forward(pgrad_context *context, pgrad__activation kind, const float *gate,
                          const float *up, size_t n, float *y)
{
    job j = {.kind = kind, .a = gate, .b = up, .out = y, .n = n};
    split(context, &j, gated_task);
}

static void gated_backward_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t at = task * RANGE;
    (void)worker;
    j->vec->gated_backward(j->kind, j->a + at, j->b + at, j->c + at, range_of(j, task), j->out + at,
                           j->out2 + at);
}

void pgrad__gated_backward(pgrad_context *context, pgrad__activation kind, const float *dy,
                           const float *gate, const float *up, size_t n, float *dgate, float *dup)
{
    job j = {.kind = kind, .a = dy, .b = gate, .c = up, .out = dgate, .out2 = dup, .n = n};
    split(context, &j, gated_backward_task);
}

static void add_task(void *argument, size_t task, uint32_t worker)
{
    const job *j = argument;
    const size_t at = task * RANGE;
    (void)worker;
    j->vec->add(j->a + at, range_of(j, task), j->out + at);
}

void pgrad__add_to(pgrad_context *context, const float *x, size_t n, float *y)
{
    job j = {.a = x, .out = y, .n = n};
    split(context, &j, add_task);
}
