/* Calls BLIS's micro-kernels. -Dblis=kernels has them inside the library, under the private names
 * extract_blis.sh gives them; they take no context of BLIS and look at two pointers of auxinfo_t
 * only: where to prefetch from. -Dblis=shared (PGRAD__BLIS_SHARED) takes the one that BLIS's shared
 * library chose for this CPU. BLIS remembers what it chose; nothing of that is kept here. */
#include "kernel/blis.h"

#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <policygrad/context.h>

/* As BLIS 0.9 lays it out; zeroed but for the prefetch addresses. */
typedef struct auxinfo {
    int32_t schema_a, schema_b;
    const void *a_next, *b_next;
    int64_t is_a, is_b, ps_a, ps_b;
    void (*ukr)(void);
    void *params;
} auxinfo;

typedef void sgemm_micro_kernel(int64_t m, int64_t n, int64_t k, const float *alpha, const float *a,
                                const float *b, const float *beta, float *c, int64_t rs_c,
                                int64_t cs_c, const auxinfo *data, const void *cntx);

typedef struct micro_kernel {
    sgemm_micro_kernel *run;
    const void *cntx;
} micro_kernel;

#ifdef PGRAD__BLIS_SHARED
#include <blis.h>

_Static_assert(sizeof(dim_t) == sizeof(int64_t) && sizeof(inc_t) == sizeof(int64_t),
               "BLIS was built with other integers");
_Static_assert(sizeof(auxinfo) == sizeof(auxinfo_t) &&
                   offsetof(auxinfo, a_next) == offsetof(auxinfo_t, a_next) &&
                   offsetof(auxinfo, b_next) == offsetof(auxinfo_t, b_next),
               "auxinfo_t of BLIS 0.9");

#define MICRO_KERNEL(set) chosen_kernel()

static micro_kernel chosen_kernel(void)
{
    cntx_t *cntx = bli_gks_query_cntx();
    micro_kernel kernel = {NULL, cntx};
    void *function = bli_cntx_get_l3_nat_ukr_dt(BLIS_FLOAT, BLIS_GEMM_UKR, cntx);
    _Static_assert(sizeof function == sizeof kernel.run, "pointers to functions are pointers");
    memcpy(&kernel.run, &function, sizeof function);
    return kernel;
}

/* The wide side of a set is m where the kernel stores columns, n where it stores rows. */
static const struct {
    int64_t m, n;
    int stores_rows;
} SHAPES[] = {[PGRAD_KERNELS_HASWELL] = {6, 16, 1},
              [PGRAD_KERNELS_SKX] = {32, 12, 0},
              [PGRAD_KERNELS_ARMV8A] = {8, 12, 0}};

int pgrad__blis_has(uint32_t set, char *why, size_t size)
{
    cntx_t *cntx = bli_gks_query_cntx();
    const int64_t m = bli_cntx_get_blksz_def_dt(BLIS_FLOAT, BLIS_MR, cntx);
    const int64_t n = bli_cntx_get_blksz_def_dt(BLIS_FLOAT, BLIS_NR, cntx);
    const int stores_rows = bli_cntx_l3_nat_ukr_prefers_rows_dt(BLIS_FLOAT, BLIS_GEMM_UKR, cntx);
    if (m == SHAPES[set].m && n == SHAPES[set].n && stores_rows == SHAPES[set].stores_rows)
        return 1;
    (void)snprintf(why, size, "BLIS chose its '%s' micro-kernel, %lld x %lld by %s",
                   bli_arch_string(bli_arch_query_id()), (long long)m, (long long)n,
                   stores_rows ? "rows" : "columns");
    return 0;
}
#else
#define MICRO_KERNEL(set)                                                                          \
    (micro_kernel)                                                                                 \
    {                                                                                              \
        pgrad__blis_sgemm_##set, NULL                                                              \
    }

#if defined(__x86_64__)
extern sgemm_micro_kernel pgrad__blis_sgemm_skx, pgrad__blis_sgemm_haswell;
#elif defined(__aarch64__)
extern sgemm_micro_kernel pgrad__blis_sgemm_armv8a;
#endif

int pgrad__blis_has(uint32_t set, char *why, size_t size)
{
    (void)set;
    (void)why;
    (void)size;
    return 1;
}
#endif

static const float ONE = 1.0f, ZERO = 0.0f;

#if defined(__x86_64__)
/* Stores along rows (m): the wide side is A. */
void pgrad__micro_skx(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc,
                      int accumulate)
{
    const micro_kernel kernel = MICRO_KERNEL(skx);
    const auxinfo data = {.a_next = wide, .b_next = narrow};
    kernel.run(32, 12, (int64_t)depth, &ONE, wide, narrow, accumulate ? &ONE : &ZERO, c, 1,
               (int64_t)ldc, &data, kernel.cntx);
}

/* Stores along columns (n): the wide side is B. */
void pgrad__micro_haswell(size_t depth, const float *narrow, const float *wide, float *c,
                          size_t ldc, int accumulate)
{
    const micro_kernel kernel = MICRO_KERNEL(haswell);
    const auxinfo data = {.a_next = narrow, .b_next = wide};
    kernel.run(6, 16, (int64_t)depth, &ONE, narrow, wide, accumulate ? &ONE : &ZERO, c,
               (int64_t)ldc, 1, &data, kernel.cntx);
}
#elif defined(__aarch64__)
/* Stores along rows (m): the wide side is A. */
void pgrad__micro_armv8a(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc,
                         int accumulate)
{
    const micro_kernel kernel = MICRO_KERNEL(armv8a);
    const auxinfo data = {.a_next = wide, .b_next = narrow};
    kernel.run(8, 12, (int64_t)depth, &ONE, wide, narrow, accumulate ? &ONE : &ZERO, c, 1,
               (int64_t)ldc, &data, kernel.cntx);
}
#endif
