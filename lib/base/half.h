/* The two 16-bit formats, exactly: integer operations and exact products, no rounding
 * but to nearest even where a value is narrowed. */
#ifndef PGRAD_BASE_HALF_H
#define PGRAD_BASE_HALF_H

#include <stdint.h>
#include <string.h>

static inline float pgrad__float_of_bits(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint32_t pgrad__bits_of_float(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Normal numbers: the exponent is rebased by an exact product. Subnormals: the product normalises
 * them. Infinities and NaNs keep their payload. */
static inline float pgrad__f16_to_f32(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, rest = (uint32_t)(half & 0x7fff) << 13;
    if (rest >= 0x7c00u << 13)
        return pgrad__float_of_bits(sign | 0x7f800000u | rest);
    float magnitude = pgrad__float_of_bits(rest) * 0x1p112f; /* 127 - 15 */
    return pgrad__float_of_bits(sign | pgrad__bits_of_float(magnitude));
}

/* To nearest even, too large is infinite; a NaN stays one, quiet, with the upper bits of its
 * payload. */
static inline uint16_t pgrad__f32_to_f16(float value)
{
    const uint32_t bits = pgrad__bits_of_float(value), magnitude = bits & 0x7fffffffu;
    const uint32_t sign = bits >> 16 & 0x8000;
    if (magnitude > 0x7f800000u)
        return (uint16_t)(sign | 0x7e00 | (magnitude >> 13 & 0x3ff));
    if (magnitude >= 0x477ff000u) /* 65520, half way behind the largest */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000u) { /* subnormal: adding 0.5 rounds at the last bit, 2^-24 */
        float shifted = pgrad__float_of_bits(magnitude) + 0.5f;
        return (uint16_t)(sign | (pgrad__bits_of_float(shifted) - 0x3f000000u));
    }
    return (uint16_t)(sign | ((magnitude - 0x38000000u + 0xfffu + (magnitude >> 13 & 1u)) >> 13));
}

static inline float pgrad__bf16_to_f32(uint16_t brain)
{
    return pgrad__float_of_bits((uint32_t)brain << 16);
}

/* To nearest even; a NaN stays one. */
static inline uint16_t pgrad__f32_to_bf16(float value)
{
    const uint32_t bits = pgrad__bits_of_float(value);
    if ((bits & 0x7fffffffu) > 0x7f800000u)
        return (uint16_t)(bits >> 16 | 0x40); /* quiet, so that the cut leaves a NaN */
    return (uint16_t)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

/* The first of n finite values that would become infinite in bf16; n when there is none. */
static inline size_t pgrad__bf16_overflow(const float *x, size_t n)
{
    size_t i = 0;
    while (i < n && x[i] < 0x1.ffp127f && x[i] > -0x1.ffp127f)
        i++;
    return i;
}

#endif
