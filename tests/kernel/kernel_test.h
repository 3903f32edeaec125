/* What the tests of lib/kernel share: every kernel set this machine can run, arrays that free
 * themselves, comparison with the reference in double. */
#ifndef PGRAD_TESTS_KERNEL_TEST_H
#define PGRAD_TESTS_KERNEL_TEST_H

#include "../base/base_test.h"

#include <math.h>

#include "../reference/reference.h"
#include "base/alloc.h"
#include "base/context.h"
#include "base/pool.h"
#include "base/rng.h"
#include "kernel/kernel.h"

enum { N_SETS = 4, MAX_ARRAYS = 512 };

/* Rounding error of one operation in f32. */
#define U 0x1p-24

static pgrad_context *context;
static pgrad__workspace workspace;
static const pgrad__kernels *kernels;
static void *arrays[MAX_ARRAYS];
static size_t n_arrays;
static uint64_t next_stream;

/* Begins a test with kernel set number index + 1: 0 when this machine lacks it. */
static inline int begin(int index, uint32_t n_threads)
{
    const uint32_t set = (uint32_t)index + 1;
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = n_threads;
    params.kernel_set = set;
    pgrad_status status = pgrad_context_create(&params, &context);
    if (status == PGRAD_E_UNSUPPORTED) {
        fprintf(stderr, "skipped: %s\n", pgrad_error_message());
        return 0;
    }
    OK(status);
    workspace = (pgrad__workspace){.context = context};
    kernels = pgrad__kernels_of(context);
    ck_assert_uint_eq(kernels->set, set);
    next_stream = 0;
    return 1;
}

/* Every test gives all memory back. */
static inline void end(void)
{
    for (size_t i = 0; i < n_arrays; i++)
        free(arrays[i]);
    n_arrays = 0;
    pgrad__workspace_free(&workspace);
    pgrad_context *fresh = make_context(pgrad__n_workers(context) - 1, context->kernel_set);
    ck_assert_uint_eq(context->memory_now, fresh->memory_now);
    pgrad_context_free(fresh);
    pgrad_context_free(context);
}

static inline void *array(size_t n, size_t size)
{
    ck_assert_uint_lt(n_arrays, MAX_ARRAYS);
    void *data = calloc(n == 0 ? 1 : n, size);
    ck_assert_ptr_nonnull(data);
    arrays[n_arrays++] = data;
    return data;
}

static inline float *zeros(size_t n)
{
    return array(n, sizeof(float));
}

/* Normal numbers, other ones at every call. */
static inline float *random_floats(size_t n)
{
    float *x = zeros(n);
    const uint64_t stream = next_stream++;
    for (size_t i = 0; i < n; i++)
        x[i] = (float)pgrad__normal(42, stream, i);
    return x;
}

static inline float *copy_of(const float *x, size_t n)
{
    return memcpy(zeros(n), x, n * sizeof *x);
}

static inline double *doubles(size_t n)
{
    return array(n, sizeof(double));
}

static inline double *to_double(const float *x, size_t n)
{
    double *out = doubles(n);
    for (size_t i = 0; i < n; i++)
        out[i] = x[i];
    return out;
}

static inline double *magnitudes(const double *x, size_t n)
{
    double *out = doubles(n);
    for (size_t i = 0; i < n; i++)
        out[i] = fabs(x[i]);
    return out;
}

/* Millions of elements are compared without ck_assert: Check tells each assertion to its parent process. */

/* |found - wanted| <= absolute + relative |wanted|, each. */
static inline void check_near(const char *what, const float *found, const double *wanted, size_t n,
                              double absolute, double relative)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs(found[i] - wanted[i]) <= absolute + relative * fabs(wanted[i])))
            ck_abort_msg("%s, %s[%zu]: %.9g, not %.9g", kernels->name, what, i, found[i], wanted[i]);
}

/* |found - wanted| <= factor bound, each. */
static inline void check_bound(const char *what, const float *found, const double *wanted, const double *bound,
                               size_t n, double factor)
{
    for (size_t i = 0; i < n; i++)
        if (!(fabs(found[i] - wanted[i]) <= factor * bound[i] + 1e-30))
            ck_abort_msg("%s, %s[%zu]: %.9g, not %.9g (allowed %.3g)", kernels->name, what, i, found[i], wanted[i],
                         factor * bound[i]);
}

static inline void check_same(const char *what, const float *found, const float *wanted, size_t n)
{
    if (memcmp(found, wanted, n * sizeof *found) == 0)
        return;
    for (size_t i = 0; i < n; i++)
        if (memcmp(&found[i], &wanted[i], sizeof *found) != 0)
            ck_abort_msg("%s, %s[%zu]: %.9g, not %.9g", kernels->name, what, i, found[i], wanted[i]);
}

/* A matrix of these rows; its memory is the context's: free it with free_matrix. */
static inline pgrad__matrix make_matrix_in(uint32_t storage, uint32_t n_out, uint32_t n_in, const float *rows)
{
    pgrad__matrix matrix = {.n_out = n_out, .n_in = n_in, .storage = storage};
    OK(pgrad__calloc(context, pgrad__matrix_bytes(kernels, storage, n_out, n_in), 1, &matrix.data));
    if (rows != NULL)
        pgrad__matrix_set_rows(kernels, &matrix, 0, n_out, rows);
    return matrix;
}

static inline pgrad__matrix make_matrix(uint32_t n_out, uint32_t n_in, const float *rows)
{
    return make_matrix_in(PGRAD_STORAGE_F32, n_out, n_in, rows);
}

static inline float *rows_of(const pgrad__matrix *matrix)
{
    float *rows = zeros((size_t)matrix->n_out * matrix->n_in);
    pgrad__matrix_get_rows(kernels, matrix, 0, matrix->n_out, rows);
    return rows;
}

static inline void free_matrix(pgrad__matrix *matrix)
{
    pgrad__free(context, matrix->data);
    matrix->data = NULL;
}

/* The floats behind the last panel's rows: lanes beyond n_out stay zero whatever is computed. */
static inline void check_padding(const pgrad__matrix *matrix)
{
    const size_t wide = kernels->wide, used = matrix->n_out % wide;
    if (used == 0)
        return;
    const float *panel = (const float *)matrix->data + matrix->n_out / wide * matrix->n_in * wide;
    for (size_t k = 0; k < matrix->n_in; k++)
        for (size_t lane = used; lane < wide; lane++)
            ck_assert(panel[k * wide + lane] == 0.0f);
}

#endif
