/* The kernel sets, and the creation of a context, which chooses one. */
#include <policygrad/context.h>

#include <stdio.h>

#include "base/context.h"
#include "base/fail.h"
#include "base/os.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "kernel/blis.h"
#include "kernel/kernel.h"
#include "kernel/panels.h"
#include "kernel/tile_order.h"
#include "kernel/vec.h"
#include "kernel/vec_functions.h"

enum { GENERIC_WIDE = 16, GENERIC_NARROW = 4, ROWS_MAX = 8 };

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

#define KERNELS(set_, name_, wide_, narrow_, micro_)                                               \
    {                                                                                              \
        .set = set_, .name = #name_, .wide = wide_, .narrow = narrow_, .micro = micro_,            \
        .rows = {[PGRAD_STORAGE_F32] = pgrad__vec_product_rows_f32_##name_,                        \
                 [PGRAD_STORAGE_BF16] = pgrad__vec_product_rows_bf16_##name_,                      \
                 [PGRAD_STORAGE_Q8_0] = pgrad__vec_product_rows_q8_0_##name_},                     \
        .rows_max = ROWS_MAX, .vec = &pgrad__vector_ops_##name_                                    \
    }

static const pgrad__kernels GENERIC =
    KERNELS(PGRAD_KERNELS_GENERIC, generic, GENERIC_WIDE, GENERIC_NARROW, micro_generic);
#if defined(__x86_64__)
static const pgrad__kernels HASWELL =
    KERNELS(PGRAD_KERNELS_HASWELL, haswell, 16, 6, pgrad__micro_haswell);
static const pgrad__kernels SKX = KERNELS(PGRAD_KERNELS_SKX, skx, 32, 12, pgrad__micro_skx);
#elif defined(__aarch64__)
static const pgrad__kernels ARMV8A =
    KERNELS(PGRAD_KERNELS_ARMV8A, armv8a, 8, 12, pgrad__micro_armv8a);
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

enum { WHY_SIZE = 160 };

/* 1 when the set can be used; else 0 and why not. */
static int is_usable(uint32_t set, char *why)
{
    if (!pgrad__os_can_run(set)) {
        (void)snprintf(why, WHY_SIZE, "this CPU cannot run it");
        return 0;
    }
    if (set == PGRAD_KERNELS_GENERIC)
        return 1;
    if (!pgrad__blis_has(set, why, WHY_SIZE))
        return 0;
    const pgrad__kernels *kernels = SETS[set];
    const uint64_t state = pgrad__os_float_begin(); /* no context has done it yet */
    const int keeps_order = pgrad__keeps_order(kernels->micro, kernels->narrow, kernels->wide);
    pgrad__os_float_end(state);
    if (keeps_order)
        return 1;
    (void)snprintf(why, WHY_SIZE, "BLIS's micro-kernel sums in another order");
    return 0;
}

uint32_t pgrad__best_kernel_set(void)
{
    char why[WHY_SIZE];
    uint32_t set = pgrad__os_best_kernel_set();
    while (set > PGRAD_KERNELS_GENERIC && !is_usable(set, why))
        set--;
    return set;
}

static pgrad_status choose_kernel_set(uint32_t asked, uint32_t *set)
{
    char why[WHY_SIZE];
    const uint32_t chosen = asked == PGRAD_KERNELS_AUTO ? pgrad__best_kernel_set() : asked;
    if (asked != PGRAD_KERNELS_AUTO && !is_usable(asked, why))
        return pgrad__fail(
            PGRAD_E_UNSUPPORTED, "context.kernel_set: '%s': %s; the best here is '%s'",
            pgrad__kernel_set_names[asked], why, pgrad__kernel_set_names[pgrad__best_kernel_set()]);
    *set = chosen;
    return PGRAD_OK;
}

/* Here and not in base/context.c, which cannot know whether a kernel set is usable. */
pgrad_status pgrad_context_create(const pgrad_context_params *params, pgrad_context **out)
{
    pgrad_context_params read;
    uint32_t set = PGRAD_KERNELS_GENERIC;
    if (out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "context_create: out is NULL");
    PGRAD__TRY(pgrad__params_read("context", params, &read));
    PGRAD__TRY(choose_kernel_set(read.kernel_set, &set));
    return pgrad__context_create(&read, set, out);
}

/* A host that did not choose hears when its products are slower than its CPU could have them. */
static void log_poor_choice(pgrad_context *context)
{
    char why[WHY_SIZE] = "neither AVX2 nor AVX-512 on this CPU";
    const uint32_t wanted = pgrad__os_best_kernel_set();
    if (context->kernel_set_asked != PGRAD_KERNELS_AUTO)
        return;
    if (context->kernel_set != wanted && !is_usable(wanted, why))
        pgrad__log_line(context, PGRAD_LOG_WARNING,
                        "kernel set: '%s', slower than '%s', which this CPU could run: %s",
                        pgrad__kernel_set_names[context->kernel_set],
                        pgrad__kernel_set_names[wanted], why);
    else if (wanted == PGRAD_KERNELS_GENERIC)
        pgrad__log_line(context, PGRAD_LOG_WARNING, "kernel set: 'generic', plain C and slow: %s",
                        why);
}

/* The first call comes from the host's thread: a model asks when it is made. */
const pgrad__kernels *pgrad__kernels_of(pgrad_context *context)
{
    const pgrad__kernels *kernels = atomic_load_explicit(&context->kernels, memory_order_acquire);
    if (kernels != NULL)
        return kernels;
    if (atomic_compare_exchange_strong(&context->kernels, &kernels, SETS[context->kernel_set]))
        log_poor_choice(context);
    return SETS[context->kernel_set];
}

pgrad__machine pgrad__machine_of(pgrad_context *context)
{
    return (pgrad__machine){pgrad__kernels_of(context), pgrad__n_workers(context)};
}

/* Never run. */
static const pgrad__kernels WIDEST = {
    .name = "widest", .wide = PGRAD__MAX_WIDE, .narrow = PGRAD__MAX_NARROW, .rows_max = ROWS_MAX};

pgrad__machine pgrad__machine_planned(void)
{
    return (pgrad__machine){&WIDEST, PGRAD__PLANNED_THREADS + 1};
}
