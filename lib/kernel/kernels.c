/* The kernel sets and which one a context uses. */
#include <policygrad/context.h>

#include "base/context.h"
#include "kernel/blis.h"
#include "kernel/kernel.h"
#include "kernel/vec.h"
#include "kernel/vec_functions.h"

enum { GENERIC_WIDE = 16, GENERIC_NARROW = 4, ROWS_MAX = 8 };

#define ROWS_OF(set)                                                                               \
    {                                                                                              \
        pgrad__vec_product_rows_f32_##set, pgrad__vec_product_rows_bf16_##set,                     \
            pgrad__vec_product_rows_q8_0_##set                                                     \
    }

/* The definition of the bits, as the micro-kernel of machines without AVX2: the rows of a narrow
 * panel one by one. */
static void micro_generic(size_t depth, const float *narrow, const float *wide, float *c,
                          size_t ldc, int accumulate)
{
    for (size_t i = 0; i < GENERIC_NARROW; i++) {
        float sum[GENERIC_WIDE] = {0};
        for (size_t k = 0; k < depth; k++)
            for (size_t j = 0; j < GENERIC_WIDE; j++)
                sum[j] = __builtin_fmaf(narrow[k * GENERIC_NARROW + i], wide[k * GENERIC_WIDE + j],
                                        sum[j]);
        for (size_t j = 0; j < GENERIC_WIDE; j++)
            c[i * ldc + j] = accumulate ? c[i * ldc + j] + sum[j] : sum[j];
    }
}

static const pgrad__kernels GENERIC = {
    PGRAD_KERNELS_GENERIC, "generic",        GENERIC_WIDE, GENERIC_NARROW,
    micro_generic,         ROWS_OF(generic), ROWS_MAX,     &pgrad__vector_ops_generic};
#if defined(__x86_64__)
static const pgrad__kernels HASWELL = {
    PGRAD_KERNELS_HASWELL, "haswell",        16,       6,
    pgrad__micro_haswell,  ROWS_OF(haswell), ROWS_MAX, &pgrad__vector_ops_haswell};
static const pgrad__kernels SKX = {
    PGRAD_KERNELS_SKX, "skx",        32,       12,
    pgrad__micro_skx,  ROWS_OF(skx), ROWS_MAX, &pgrad__vector_ops_skx};
#elif defined(__aarch64__)
static const pgrad__kernels ARMV8A = {
    PGRAD_KERNELS_ARMV8A, "armv8a",        8,        12,
    pgrad__micro_armv8a,  ROWS_OF(armv8a), ROWS_MAX, &pgrad__vector_ops_armv8a};
#endif

static const pgrad__kernels *const SETS[] = {
    [PGRAD_KERNELS_AUTO] = NULL,
    [PGRAD_KERNELS_GENERIC] = &GENERIC,
#if defined(__x86_64__)
    [PGRAD_KERNELS_HASWELL] = &HASWELL,
    [PGRAD_KERNELS_SKX] = &SKX,
#elif defined(__aarch64__)
    [PGRAD_KERNELS_ARMV8A] = &ARMV8A,
#endif
};

const pgrad__kernels *pgrad__kernels_of(pgrad_context *context)
{
    const pgrad__kernels *kernels = atomic_load_explicit(&context->kernels, memory_order_acquire);
    if (kernels == NULL) {
        kernels = SETS[context->kernel_set];
        atomic_store_explicit(&context->kernels, kernels, memory_order_release);
    }
    return kernels;
}
