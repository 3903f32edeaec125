/* Calls BLIS's micro-kernels by the private names extract_blis.sh gives them. They take no context
 * of BLIS and look at two pointers of auxinfo_t only: where to prefetch from. */
#include "kernel/blis.h"

#include <stdint.h>

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

static const float ONE = 1.0f, ZERO = 0.0f;

#if defined(__x86_64__)
extern sgemm_micro_kernel pgrad__blis_sgemm_skx, pgrad__blis_sgemm_haswell;

/* Stores along rows (m): the wide side is A. */
void pgrad__micro_skx(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc,
                      int accumulate)
{
    const auxinfo data = {.a_next = wide, .b_next = narrow};
    pgrad__blis_sgemm_skx(32, 12, (int64_t)depth, &ONE, wide, narrow, accumulate ? &ONE : &ZERO, c,
                          1, (int64_t)ldc, &data, NULL);
}

/* Stores along columns (n): the wide side is B. */
void pgrad__micro_haswell(size_t depth, const float *narrow, const float *wide, float *c,
                          size_t ldc, int accumulate)
{
    const auxinfo data = {.a_next = narrow, .b_next = wide};
    pgrad__blis_sgemm_haswell(6, 16, (int64_t)depth, &ONE, narrow, wide, accumulate ? &ONE : &ZERO,
                              c, (int64_t)ldc, 1, &data, NULL);
}
#elif defined(__aarch64__)
extern sgemm_micro_kernel pgrad__blis_sgemm_armv8a;

/* Stores along rows (m): the wide side is A. */
void pgrad__micro_armv8a(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc,
                         int accumulate)
{
    const auxinfo data = {.a_next = wide, .b_next = narrow};
    pgrad__blis_sgemm_armv8a(8, 12, (int64_t)depth, &ONE, wide, narrow, accumulate ? &ONE : &ZERO,
                             c, 1, (int64_t)ldc, &data, NULL);
}
#endif
