/* Norms in canonical order - per output, then a pairwise tree over outputs - whatever the panels'
 * width and whoever sums them. */
#include <string.h>

#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/vec.h"

enum {
    LEVELS = 40,         /* of the tree: 2^40 leaves */
    SLOTS = 64,          /* partial results of one parallel call */
    BLOCK = 256,         /* values of a leaf of a vector's sum */
    VALUES = 256 * BLOCK /* of a task that looks for one that is not finite */
};

/* A pairwise tree fed leaf by leaf: node[k] is a finished sum of 2^k leaves that waits for its
 * partner. */
typedef struct tree {
    double node[LEVELS];
    uint64_t leaves;
} tree;

static void tree_add(tree *t, double leaf)
{
    int level = 0;
    for (uint64_t n = t->leaves++; n & 1; n >>= 1)
        leaf = t->node[level++] + leaf;
    t->node[level] = leaf;
}

static double tree_total(const tree *t)
{
    double total = 0.0;
    int level = 0, first = 1;
    for (uint64_t n = t->leaves; n != 0; n >>= 1, level++)
        if (n & 1) {
            total = first ? t->node[level] : t->node[level] + total;
            first = 0;
        }
    return total;
}

/* ---- matrices: a task gives one number per output ---- */

typedef struct matrix_job {
    const pgrad__kernels *kernels;
    const pgrad__matrix *matrix;
    size_t first_panel;
    double sums[SLOTS][PGRAD__MAX_WIDE];
} matrix_job;

static void matrix_task(void *argument, size_t task, uint32_t worker)
{
    matrix_job *job = argument;
    const size_t wide = job->kernels->wide, n_in = job->matrix->n_in;
    (void)worker;
    job->kernels->vec->panel_sumsq((const float *)job->matrix->data +
                                       (job->first_panel + task) * n_in * wide,
                                   n_in, wide, job->sums[task]);
}

double pgrad__matrix_sumsq(pgrad_context *context, const pgrad__matrix *matrix)
{
    matrix_job job = {.kernels = pgrad__kernels_of(context), .matrix = matrix};
    const size_t wide = job.kernels->wide, panels = pgrad__panel_count(matrix->n_out, wide);
    tree total = {.leaves = 0};
    for (; job.first_panel < panels; job.first_panel += SLOTS) {
        size_t n = pgrad__min(SLOTS, panels - job.first_panel);
        pgrad__parallel(context, n, matrix_task, &job);
        for (size_t panel = 0; panel < n; panel++)
            for (size_t lane = 0; lane < wide; lane++)
                if ((job.first_panel + panel) * wide + lane < matrix->n_out)
                    tree_add(&total, job.sums[panel][lane]);
    }
    return tree_total(&total);
}

/* ---- vectors: leaf by leaf ---- */

double pgrad__vector_sumsq(pgrad_context *context, const float *x, size_t n)
{
    const pgrad__vector_ops *vec = pgrad__kernels_of(context)->vec;
    tree total = {.leaves = 0};
    for (size_t i = 0; i < n; i += BLOCK)
        tree_add(&total, vec->block_sumsq(x + i, pgrad__min(BLOCK, n - i)));
    return tree_total(&total);
}

/* ---- finite values ---- */

typedef struct finite_job {
    const pgrad__vector_ops *vec;
    const float *x;
    size_t n, first;
    int finite[SLOTS];
} finite_job;

static void finite_task(void *argument, size_t task, uint32_t worker)
{
    finite_job *job = argument;
    const size_t at = job->first + task * VALUES;
    (void)worker;
    job->finite[task] = job->vec->all_finite(job->x + at, pgrad__min(VALUES, job->n - at));
}

int pgrad__all_finite(pgrad_context *context, const float *x, size_t n)
{
    finite_job job = {.vec = pgrad__kernels_of(context)->vec, .x = x, .n = n};
    for (; job.first < n; job.first += (size_t)SLOTS * VALUES) {
        size_t tasks = pgrad__min(SLOTS, pgrad__panel_count(n - job.first, VALUES));
        pgrad__parallel(context, tasks, finite_task, &job);
        for (size_t i = 0; i < tasks; i++)
            if (!job.finite[i])
                return 0;
    }
    return 1;
}
