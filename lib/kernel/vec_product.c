/* The product of a few rows with a wide panel, without packing: the bits of the micro-kernel, at
 * the speed of memory. Rows go in blocks of four, so that sums stay in registers. */
#include "kernel/vec_functions.h"

#define SET_IS_generic 1
#define SET_IS_haswell 2
#define SET_IS_skx 3
#define SET_IS_armv8a 4
#define SET_PASTE(set) SET_IS_##set
#define SET_NUMBER(set) SET_PASTE(set)

#if SET_NUMBER(PGRAD__SET) == 3
#define WIDE 32
#elif SET_NUMBER(PGRAD__SET) == 4
#define WIDE 8
#else
#define WIDE 16
#endif

/* Far enough ahead to hide memory behind the arithmetic of a row or two. */
#define PREFETCH_FLOATS 512

#if SET_NUMBER(PGRAD__SET) == 3
#include <immintrin.h>
typedef __m512 lanes;
#define LANES 16
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define SPLAT(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ADD(a, b) _mm512_add_ps(a, b)
#elif SET_NUMBER(PGRAD__SET) == 2
#include <immintrin.h>
typedef __m256 lanes;
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#define SPLAT(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#elif SET_NUMBER(PGRAD__SET) == 4
#include <arm_neon.h>
typedef float32x4_t lanes;
#define LANES 4
#define LOAD(p) vld1q_f32(p)
#define STORE(p, x) vst1q_f32(p, x)
#define SPLAT(x) vdupq_n_f32(x)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define ADD(a, b) vaddq_f32(a, b)
#else
typedef float lanes;
#define LANES 1
#define LOAD(p) (*(p))
#define STORE(p, x) (*(p) = (x))
#define SPLAT(x) (x)
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#define ADD(a, b) ((a) + (b))
#endif

#define VECTORS (WIDE / LANES)

/* ROWS is a constant where this is inlined: the loops over rows and vectors vanish. */
static inline __attribute__((always_inline)) void block(const size_t rows, size_t depth,
                                                        const float *x, size_t ldx,
                                                        const float *panel, float *c, size_t ldc,
                                                        int accumulate)
{
    lanes sum[4][VECTORS];
    for (size_t i = 0; i < rows; i++)
        for (size_t v = 0; v < VECTORS; v++)
            sum[i][v] = SPLAT(0.0f);
    for (size_t k = 0; k < depth; k++) {
        const float *w = panel + k * WIDE;
        __builtin_prefetch(w + PREFETCH_FLOATS);
#if WIDE == 32
        __builtin_prefetch(w + PREFETCH_FLOATS + 16);
#endif
        for (size_t v = 0; v < VECTORS; v++) {
            lanes of_panel = LOAD(w + v * LANES);
            for (size_t i = 0; i < rows; i++)
                sum[i][v] = FMA(SPLAT(x[i * ldx + k]), of_panel, sum[i][v]);
        }
    }
    for (size_t i = 0; i < rows; i++)
        for (size_t v = 0; v < VECTORS; v++) {
            float *out = c + i * ldc + v * LANES;
            STORE(out, accumulate ? ADD(LOAD(out), sum[i][v]) : sum[i][v]);
        }
}

void PGRAD__VEC(product_rows)(size_t n_rows, size_t depth, const float *x, size_t ldx,
                              const float *wide_panel, float *c, size_t ldc, int accumulate)
{
    for (; n_rows >= 4; n_rows -= 4, x += 4 * ldx, c += 4 * ldc)
        block(4, depth, x, ldx, wide_panel, c, ldc, accumulate);
    if (n_rows == 3)
        block(3, depth, x, ldx, wide_panel, c, ldc, accumulate);
    else if (n_rows == 2)
        block(2, depth, x, ldx, wide_panel, c, ldc, accumulate);
    else if (n_rows == 1)
        block(1, depth, x, ldx, wide_panel, c, ldc, accumulate);
}
