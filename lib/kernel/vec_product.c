/* The product of a few rows with wide panels, without packing: the bits of the micro-kernel, at the
 * speed of memory. Rows go in blocks of four, so that sums stay in registers; a single row goes
 * past several panels at once, so that no sum waits for itself. Narrow weights are widened in
 * registers, exactly: a bf16 is the upper half of a float, and q d of Q8_0 has 18 bits. */
#include "base/half.h"
#include "kernel/vec_functions.h"

#if PGRAD__BUILT_FOR(skx)
#define WIDE 32
#elif PGRAD__BUILT_FOR(armv8a)
#define WIDE 8
#else
#define WIDE 16
#endif

/* Far enough ahead to hide memory behind the arithmetic of a row or two. */
#define PREFETCH_BYTES 2048

/* FROM_BF16 and FROM_Q8 widen LANES weights, FROM_F16 as many scales. */
#if PGRAD__BUILT_FOR(skx)
#include <immintrin.h>
typedef __m512 lanes;
#define LANES 16
#define LOAD(p) _mm512_loadu_ps(p)
#define STORE(p, x) _mm512_storeu_ps(p, x)
#define SPLAT(x) _mm512_set1_ps(x)
#define FMA(a, b, c) _mm512_fmadd_ps(a, b, c)
#define ADD(a, b) _mm512_add_ps(a, b)
#define MUL(a, b) _mm512_mul_ps(a, b)
#define FROM_BF16(p)                                                                               \
    _mm512_castsi512_ps(                                                                           \
        _mm512_slli_epi32(_mm512_cvtepu16_epi32(_mm256_loadu_si256((const void *)(p))), 16))
#define FROM_Q8(p) _mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128((const void *)(p))))
#define FROM_F16(p) _mm512_cvtph_ps(_mm256_loadu_si256((const void *)(p)))
#elif PGRAD__BUILT_FOR(haswell)
#include <immintrin.h>
typedef __m256 lanes;
#define LANES 8
#define LOAD(p) _mm256_loadu_ps(p)
#define STORE(p, x) _mm256_storeu_ps(p, x)
#define SPLAT(x) _mm256_set1_ps(x)
#define FMA(a, b, c) _mm256_fmadd_ps(a, b, c)
#define ADD(a, b) _mm256_add_ps(a, b)
#define MUL(a, b) _mm256_mul_ps(a, b)
#define FROM_BF16(p)                                                                               \
    _mm256_castsi256_ps(                                                                           \
        _mm256_slli_epi32(_mm256_cvtepu16_epi32(_mm_loadu_si128((const void *)(p))), 16))
#define FROM_Q8(p) _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_loadl_epi64((const void *)(p))))
#define FROM_F16(p) _mm256_cvtph_ps(_mm_loadu_si128((const void *)(p)))
#elif PGRAD__BUILT_FOR(armv8a)
#include <arm_neon.h>
typedef float32x4_t lanes;
#define LANES 4
#define LOAD(p) vld1q_f32(p)
#define STORE(p, x) vst1q_f32(p, x)
#define SPLAT(x) vdupq_n_f32(x)
#define FMA(a, b, c) vfmaq_f32(c, a, b)
#define ADD(a, b) vaddq_f32(a, b)
#define MUL(a, b) vmulq_f32(a, b)
#else
typedef float lanes;
#define LANES 1
#define LOAD(p) (*(p))
#define STORE(p, x) (*(p) = (x))
#define SPLAT(x) (x)
#define FMA(a, b, c) __builtin_fmaf(a, b, c)
#define ADD(a, b) ((a) + (b))
#define MUL(a, b) ((a) * (b))
#endif

#ifndef FROM_BF16
static inline lanes from_16(const unsigned char *p, float (*widen)(uint16_t))
{
    float wide[LANES];
    for (size_t i = 0; i < LANES; i++) {
        uint16_t half;
        memcpy(&half, p + 2 * i, sizeof half);
        wide[i] = widen(half);
    }
    return LOAD(wide);
}

static inline lanes from_q8(const unsigned char *p)
{
    float wide[LANES];
    for (size_t i = 0; i < LANES; i++)
        wide[i] = (float)(int8_t)p[i];
    return LOAD(wide);
}
#define FROM_BF16(p) from_16(p, pgrad__bf16_to_f32)
#define FROM_Q8(p) from_q8(p)
#define FROM_F16(p) from_16(p, pgrad__f16_to_f32)
#endif

#define VECTORS (WIDE / LANES)
#define INLINE static inline __attribute__((always_inline))

enum { BLOCK_ROWS = 4, BLOCK_PANELS = 4, Q8_BLOCK = PGRAD__Q8_BLOCK };

/* The storage, the numbers of rows and panels are constants where these are inlined: branches on
 * them and loops over them vanish. */

/* LANES weights of vector v, input k of a block whose weights begin at data. */
INLINE lanes load_weights(const uint32_t storage, const unsigned char *data, size_t k, size_t v,
                          lanes scale)
{
    const size_t at = k * WIDE + v * LANES;
    if (storage == PGRAD_STORAGE_F32)
        return LOAD((const float *)(const void *)data + at);
    if (storage == PGRAD_STORAGE_BF16)
        return FROM_BF16(data + 2 * at);
    return MUL(FROM_Q8(data + at), scale);
}

/* Bytes of n inputs of a panel, n a multiple of Q8_BLOCK. */
INLINE size_t span_bytes(const uint32_t storage, size_t n)
{
    static const size_t bytes[] = {4 * WIDE, 2 * WIDE, WIDE};
    return n * bytes[storage] + (storage == PGRAD_STORAGE_Q8_0 ? n / Q8_BLOCK * 2 * WIDE : 0);
}

INLINE void prefetch(const uint32_t storage, const unsigned char *data, size_t k)
{
    const unsigned char *ahead = data + span_bytes(storage, Q8_BLOCK) / Q8_BLOCK * k;
    for (size_t line = 0; line < span_bytes(storage, Q8_BLOCK) / Q8_BLOCK; line += 64)
        __builtin_prefetch(ahead + PREFETCH_BYTES + line);
}

INLINE void block(const uint32_t storage, const size_t rows, const size_t panels, size_t depth,
                  const float *x, size_t ldx, const unsigned char *data, size_t panel_bytes,
                  float *c, size_t ldc, int accumulate)
{
    lanes sum[BLOCK_PANELS][BLOCK_ROWS][VECTORS], scale[BLOCK_PANELS][VECTORS];
    for (size_t p = 0; p < panels; p++)
        for (size_t v = 0; v < VECTORS; v++) {
            scale[p][v] = SPLAT(0.0f);
            for (size_t i = 0; i < rows; i++)
                sum[p][i][v] = SPLAT(0.0f);
        }
    for (size_t first = 0; first < depth; first += Q8_BLOCK, x += Q8_BLOCK) {
        const size_t n = depth - first < Q8_BLOCK ? depth - first : Q8_BLOCK;
        const unsigned char *weights = data;
        if (storage == PGRAD_STORAGE_Q8_0) {
            for (size_t p = 0; p < panels; p++)
                for (size_t v = 0; v < VECTORS; v++)
                    scale[p][v] = FROM_F16(data + p * panel_bytes + 2 * v * LANES);
            weights += 2 * WIDE;
        }
        for (size_t k = 0; k < n; k++)
            for (size_t p = 0; p < panels; p++) {
                const unsigned char *panel = weights + p * panel_bytes;
                prefetch(storage, panel, k);
                for (size_t v = 0; v < VECTORS; v++) {
                    lanes w = load_weights(storage, panel, k, v, scale[p][v]);
                    for (size_t i = 0; i < rows; i++)
                        sum[p][i][v] = FMA(SPLAT(x[i * ldx + k]), w, sum[p][i][v]);
                }
            }
        data += span_bytes(storage, Q8_BLOCK);
    }
    for (size_t p = 0; p < panels; p++)
        for (size_t i = 0; i < rows; i++)
            for (size_t v = 0; v < VECTORS; v++) {
                float *out = c + i * ldc + p * WIDE + v * LANES;
                STORE(out, accumulate ? ADD(LOAD(out), sum[p][i][v]) : sum[p][i][v]);
            }
}

INLINE void product_rows(const uint32_t storage, size_t n_rows, size_t depth, const float *x,
                         size_t ldx, const unsigned char *data, size_t panel_bytes, size_t n_panels,
                         float *c, size_t ldc, int accumulate)
{
    if (n_rows == 1)
        for (; n_panels >= BLOCK_PANELS; n_panels -= BLOCK_PANELS) {
            block(storage, 1, BLOCK_PANELS, depth, x, ldx, data, panel_bytes, c, ldc, accumulate);
            data += BLOCK_PANELS * panel_bytes;
            c += BLOCK_PANELS * WIDE;
        }
    for (; n_panels > 0; n_panels--, data += panel_bytes, c += WIDE) {
        size_t row = 0;
        for (; row + 4 <= n_rows; row += 4)
            block(storage, 4, 1, depth, x + row * ldx, ldx, data, 0, c + row * ldc, ldc,
                  accumulate);
        const float *rest = x + row * ldx;
        if (n_rows - row == 3)
            block(storage, 3, 1, depth, rest, ldx, data, 0, c + row * ldc, ldc, accumulate);
        else if (n_rows - row == 2)
            block(storage, 2, 1, depth, rest, ldx, data, 0, c + row * ldc, ldc, accumulate);
        else if (n_rows - row == 1)
            block(storage, 1, 1, depth, rest, ldx, data, 0, c + row * ldc, ldc, accumulate);
    }
}

void PGRAD__VEC(product_rows_f32)(size_t n_rows, size_t depth, const float *x, size_t ldx,
                                  const void *panels, size_t panel_bytes, size_t n_panels, float *c,
                                  size_t ldc, int accumulate)
{
    product_rows(PGRAD_STORAGE_F32, n_rows, depth, x, ldx, panels, panel_bytes, n_panels, c, ldc,
                 accumulate);
}

void PGRAD__VEC(product_rows_bf16)(size_t n_rows, size_t depth, const float *x, size_t ldx,
                                   const void *panels, size_t panel_bytes, size_t n_panels,
                                   float *c, size_t ldc, int accumulate)
{
    product_rows(PGRAD_STORAGE_BF16, n_rows, depth, x, ldx, panels, panel_bytes, n_panels, c, ldc,
                 accumulate);
}

void PGRAD__VEC(product_rows_q8_0)(size_t n_rows, size_t depth, const float *x, size_t ldx,
                                   const void *panels, size_t panel_bytes, size_t n_panels,
                                   float *c, size_t ldc, int accumulate)
{
    product_rows(PGRAD_STORAGE_Q8_0, n_rows, depth, x, ldx, panels, panel_bytes, n_panels, c, ldc,
                 accumulate);
}

/* ---- widening in front of the micro-kernel ---- */

void PGRAD__VEC(widen_q8_0)(const void *panel, size_t first, size_t n, float *out)
{
    const unsigned char *data = panel;
    const size_t end = first + n;
    while (first < end) {
        const size_t block = first / Q8_BLOCK, stop = (block + 1) * Q8_BLOCK;
        const unsigned char *scales = data + span_bytes(PGRAD_STORAGE_Q8_0, block * Q8_BLOCK);
        for (; first < stop && first < end; first++, out += WIDE)
            for (size_t v = 0; v < VECTORS; v++)
                STORE(out + v * LANES,
                      load_weights(PGRAD_STORAGE_Q8_0, scales + 2 * WIDE, first % Q8_BLOCK, v,
                                   FROM_F16(scales + 2 * v * LANES)));
    }
}
