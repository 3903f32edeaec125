/* Narrowing to f16 and bf16, to nearest even, and widening again: the bits of base/half.h, by
 * instructions where the set has them. (These make a signalling NaN quiet, which narrowing has
 * done.) */
#include "base/half.h"
#include "kernel/vec_functions.h"

#if PGRAD__BUILT_FOR(skx)
#include <immintrin.h>
enum { LANES = 16 };

static void narrow_lanes(const float *x, uint16_t *y)
{
    _mm256_storeu_si256((void *)y, _mm512_cvtps_ph(_mm512_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT));
}

static void widen_lanes(const uint16_t *x, float *y)
{
    _mm512_storeu_ps(y, _mm512_cvtph_ps(_mm256_loadu_si256((const void *)x)));
}
#elif PGRAD__BUILT_FOR(haswell)
#include <immintrin.h>
enum { LANES = 8 };

static void narrow_lanes(const float *x, uint16_t *y)
{
    _mm_storeu_si128((void *)y, _mm256_cvtps_ph(_mm256_loadu_ps(x), _MM_FROUND_TO_NEAREST_INT));
}

static void widen_lanes(const uint16_t *x, float *y)
{
    _mm256_storeu_ps(y, _mm256_cvtph_ps(_mm_loadu_si128((const void *)x)));
}
#else
enum { LANES = 1 };

static void narrow_lanes(const float *x, uint16_t *y)
{
    *y = pgrad__f32_to_f16(*x);
}

static void widen_lanes(const uint16_t *x, float *y)
{
    *y = pgrad__f16_to_f32(*x);
}
#endif

void PGRAD__VEC(f16_narrow)(const float *x, size_t n, uint16_t *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        narrow_lanes(x + i, y + i);
    for (; i < n; i++)
        y[i] = pgrad__f32_to_f16(x[i]);
}

void PGRAD__VEC(f16_widen)(const uint16_t *x, size_t n, float *y)
{
    size_t i = 0;
    for (; i + LANES <= n; i += LANES)
        widen_lanes(x + i, y + i);
    for (; i < n; i++)
        y[i] = pgrad__f16_to_f32(x[i]);
}

void PGRAD__VEC(bf16_narrow)(const float *x, size_t n, uint16_t *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = pgrad__f32_to_bf16(x[i]);
}
