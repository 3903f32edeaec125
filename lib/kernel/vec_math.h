/* Vectors of the set's own width and elementary functions on them. Every lane's bits are those of
 * the same operations done one by one: the width of a vector never shows. */
#ifndef PGRAD_KERNEL_VEC_MATH_H
#define PGRAD_KERNEL_VEC_MATH_H

#include <stdint.h>
#include <string.h>

#include "kernel/vec_functions.h"

#if defined(__AVX512F__)
#define PGRAD__VECTOR_BYTES 64
#elif defined(__AVX2__)
#define PGRAD__VECTOR_BYTES 32
#else
#define PGRAD__VECTOR_BYTES 16
#endif
#define VL (PGRAD__VECTOR_BYTES / 4) /* lanes of a vector */
#define VN (PGRAD__LANES / VL)       /* vectors that make the 16 fixed lanes */

typedef float vec __attribute__((vector_size(PGRAD__VECTOR_BYTES)));
typedef int32_t veci __attribute__((vector_size(PGRAD__VECTOR_BYTES)));
typedef double vecd __attribute__((vector_size(PGRAD__VECTOR_BYTES))); /* VL / 2 lanes */
typedef double vecd_pair __attribute__((vector_size(2 * PGRAD__VECTOR_BYTES)));

#define INLINE static inline __attribute__((always_inline))

INLINE vec vec_load(const float *p)
{
    vec v;
    memcpy(&v, p, sizeof v);
    return v;
}

INLINE void vec_store(float *p, vec v)
{
    memcpy(p, &v, sizeof v);
}

INLINE vec vec_splat(float x)
{
    return x - (vec){0};
}

INLINE vec vec_select(veci mask, vec yes, vec no)
{
    return (vec)(((veci)yes & mask) | ((veci)no & ~mask));
}

INLINE vec vec_max(vec a, vec b) /* b where a is NaN */
{
    return vec_select(a > b, a, b);
}

INLINE int any_lane(veci mask)
{
    uint64_t words[PGRAD__VECTOR_BYTES / 8], any = 0;
    memcpy(words, &mask, sizeof words);
    for (int i = 0; i < PGRAD__VECTOR_BYTES / 8; i++)
        any |= words[i];
    return any != 0;
}

/* Sixteen lanes, to one number: 8 + 8, 4 + 4, 2 + 2, 1 + 1. */
INLINE float tree_sum(const vec lanes[VN])
{
    float x[PGRAD__LANES];
    memcpy(x, lanes, sizeof x);
    for (int half = PGRAD__LANES / 2; half >= 1; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

/* The same in f64. */
INLINE double tree_sum_f64(const vecd lanes[2 * VN])
{
    double x[PGRAD__LANES];
    memcpy(x, lanes, sizeof x);
    for (int half = PGRAD__LANES / 2; half >= 1; half /= 2)
        for (int i = 0; i < half; i++)
            x[i] += x[i + half];
    return x[0];
}

INLINE void lanes_add_f64(vecd sum[2 * VN], const vec x[VN])
{
    for (int v = 0; v < VN; v++) {
        const vecd_pair pair = __builtin_convertvector(x[v], vecd_pair);
        vecd part[2];
        memcpy(part, &pair, sizeof part);
        sum[2 * v] += part[0];
        sum[2 * v + 1] += part[1];
    }
}

INLINE float lanes_max(const vec lanes[VN])
{
    float x[PGRAD__LANES];
    memcpy(x, lanes, sizeof x);
    float out = x[0];
    for (int i = 1; i < PGRAD__LANES; i++)
        out = x[i] > out ? x[i] : out;
    return out;
}

/* e^x, error below 1.5 ulp; 0 below -103.98, infinity above 88.73, NaN through. x = k ln 2 + r,
 * |r| <= ln 2 / 2; the polynomial is the minimax one of degree 6 from Cephes' published
 * coefficients. */
INLINE vec vec_exp(vec x)
{
    const vec magic = vec_splat(12582912.0f); /* 1.5 2^23: adding it rounds to an integer */
    x = vec_select(x < -104.0f, vec_splat(-104.0f), x);
    x = vec_select(x > 89.0f, vec_splat(89.0f), x);
    vec shifted = x * 1.44269504f + magic;
    veci k = (veci)shifted - (veci)magic;
    vec kf = shifted - magic;
    vec r = x - kf * 0.693359375f;
    r = r + kf * 2.12194440e-4f;
    vec p = vec_splat(1.9875691500e-4f);
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    /* In two steps, so that subnormal results are rounded once. */
    veci half = k >> 1;
    vec low = (vec)((half + 127) << 23), high = (vec)((k - half + 127) << 23);
    return p * low * high;
}

/* 1 / (1 + e^-x). */
INLINE vec vec_sigmoid(vec x)
{
    return 1.0f / (1.0f + vec_exp(-x));
}

/* erfc(z), z >= 0, relative error 1.2e-7 and that of z^2 in f32: Chebyshev fit of Press et al.,
 * Numerical Recipes 6.2. */
INLINE vec vec_erfc(vec z)
{
    vec t = 1.0f / (1.0f + 0.5f * z);
    vec p = vec_splat(0.17087277f);
    p = p * t - 0.82215223f;
    p = p * t + 1.48851587f;
    p = p * t - 1.13520398f;
    p = p * t + 0.27886807f;
    p = p * t - 0.18628806f;
    p = p * t + 0.09678418f;
    p = p * t + 0.37409196f;
    p = p * t + 1.00002368f;
    return t * vec_exp(p * t - 1.26551223f - z * z);
}

/* One vector of the last n < VL values of an array, filled up. */
INLINE vec vec_load_part(const float *p, size_t n, float filler)
{
    vec v = vec_splat(filler);
    memcpy(&v, p, n * sizeof(float));
    return v;
}

INLINE void vec_store_part(float *p, size_t n, vec v)
{
    memcpy(p, &v, n * sizeof(float));
}

/* Loads lanes i .. i + 15 of an array of n, filled up beyond its end. */
INLINE void lanes_load(vec out[VN], const float *p, size_t i, size_t n, float filler)
{
    if (i + PGRAD__LANES <= n) {
        for (int v = 0; v < VN; v++)
            out[v] = vec_load(p + i + v * VL);
        return;
    }
    float part[PGRAD__LANES];
    for (size_t j = 0; j < PGRAD__LANES; j++)
        part[j] = i + j < n ? p[i + j] : filler;
    memcpy(out, part, sizeof part);
}

/* Stores them, as far as the array goes. */
INLINE void lanes_store(float *p, size_t i, size_t n, const vec x[VN])
{
    if (i + PGRAD__LANES <= n)
        memcpy(p + i, x, PGRAD__LANES * sizeof *p);
    else
        memcpy(p + i, x, (n - i) * sizeof *p);
}

#endif
