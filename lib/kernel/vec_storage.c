/* Weights and moments in 16 and 8 bits: widening, and stochastic rounding - up with the probability
 * of the part cut off, so that the mean is the number itself and small changes are not lost.
 *
 * A number of 8 bits is a small float below its block's power of two: four bits of exponent, and
 * three of mantissa with a sign (a first moment) or four without (the root of a second one); the
 * lowest exponent counts linearly down to 0. */
#include <math.h>
#if defined(__SSE2__)
#include <immintrin.h>
#endif

#include "kernel/panels.h"
#include "kernel/vec_math.h"

#define LOWEST 0x38800000u   /* bits of 2^-14, the smallest normal number of 8 bits */
#define ONE 0x00800000u      /* of its exponent */
#define Q8_LIMIT 0x7e800000u /* bits of 2^126 */

INLINE uint32_t bits_of(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits;
}

INLINE float float_of(uint32_t bits)
{
    float x;
    memcpy(&x, &bits, sizeof x);
    return x;
}

/* ---- random words: base/rng.h's Philox, one lane like another ---- */

typedef uint64_t vecu64 __attribute__((vector_size(PGRAD__VECTOR_BYTES)));

/* Products of the low halves of the 64-bit lanes. Compilers make a full 64-bit product of it. */
INLINE vecu64 multiply_low(vecu64 a, uint32_t factor)
{
#if defined(__AVX512F__)
    return (vecu64)_mm512_mul_epu32((__m512i)a, _mm512_set1_epi64(factor));
#elif defined(__AVX2__)
    return (vecu64)_mm256_mul_epu32((__m256i)a, _mm256_set1_epi64x(factor));
#elif defined(__SSE2__)
    return (vecu64)_mm_mul_epu32((__m128i)a, _mm_set1_epi64x(factor));
#else
    return (a & 0xffffffffu) * factor;
#endif
}

/* Philox of the low halves of 64-bit lanes; what is in the upper halves does not matter. */
INLINE void philox(vecu64 c[4], uint32_t k0, uint32_t k1)
{
    for (int round = 0; round < 10; round++) {
        const vecu64 product0 = multiply_low(c[0], 0xD2511F53u);
        const vecu64 product1 = multiply_low(c[2], 0xCD9E8D57u);
        c[0] = product1 >> 32 ^ c[1] ^ k0;
        c[1] = product1;
        c[2] = product0 >> 32 ^ c[3] ^ k1;
        c[3] = product0;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

INLINE void philox_at(const pgrad__strip_random *r, vecu64 block, vecu64 c[4])
{
    c[0] = block;
    c[1] = block >> 32 ^ r->draw << 24;
    c[2] = r->array - (vecu64){0};
    c[3] = r->update - (vecu64){0};
    philox(c, (uint32_t)r->seed, (uint32_t)(r->seed >> 32));
}

void PGRAD__VEC(random_bits)(const pgrad__strip_random *random, size_t depth, size_t wide,
                             uint32_t *bits)
{
    const pgrad__strip_random r = *random;
    for (size_t first = 0; first < wide; first += VL) {
        const size_t lanes = wide - first < VL ? wide - first : VL;
        vecu64 block; /* of the even lanes */
        for (size_t l = 0; l < VL / 2; l++)
            block[l] = (r.first_output + first + 2 * l) * r.quads + r.first_quad;
        for (size_t quad = 0; 4 * quad < depth; quad++) {
            vecu64 even[4], odd[4];
            philox_at(&r, block + quad, even);
            philox_at(&r, block + quad + r.quads, odd);
            for (size_t k = 0; k < 4 && 4 * quad + k < depth; k++) {
                vecu64 words = (even[k] & 0xffffffffu) | odd[k] << 32;
                memcpy(bits + (4 * quad + k) * wide + first, &words, lanes * sizeof bits[0]);
            }
        }
    }
}

/* ---- bf16 ---- */

void PGRAD__VEC(bf16_widen)(const uint16_t *restrict x, size_t n, float *restrict y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = float_of((uint32_t)x[i] << 16);
}

void PGRAD__VEC(bf16_round)(const float *restrict x, const uint32_t *restrict bits, uint32_t shift,
                            size_t n, uint16_t *restrict y, uint32_t *max)
{
    uint32_t largest = *max;
    for (size_t i = 0; i < n; i++) {
        uint32_t rounded = bits_of(x[i]) + (bits[i] >> shift & 0xffffu);
        uint32_t magnitude = rounded & 0x7fff0000u;
        largest = magnitude > largest ? magnitude : largest;
        y[i] = (uint16_t)(rounded >> 16);
    }
    *max = largest;
}

/* ---- 8 bits ---- */

INLINE float q8_value(uint32_t code, const int root)
{
    const int cut = root ? 19 : 20;
    uint32_t b = (root ? code : code & 0x7fu) << cut;
    float low = float_of(LOWEST + b) - float_of(LOWEST), high = float_of(LOWEST + b - ONE);
    return b < ONE ? low : high;
}

INLINE void widen(const uint8_t *restrict codes, const uint8_t *restrict exponents, size_t depth,
                  size_t wide, const int root, float *restrict y)
{
    float scale[PGRAD__MAX_WIDE];
    for (size_t l = 0; l < wide; l++)
        scale[l] = float_of((uint32_t)exponents[l] << 23);
    for (size_t k = 0; k < depth; k++)
        for (size_t l = 0; l < wide; l++) {
            uint32_t code = codes[k * wide + l];
            float x = q8_value(code, root) * scale[l];
            y[k * wide + l] = root ? x * x : float_of(bits_of(x) | (code & 0x80u) << 24);
        }
}

void PGRAD__VEC(q8_widen)(const uint8_t *codes, const uint8_t *exponents, size_t depth, size_t wide,
                          int root, float *y)
{
    if (root)
        widen(codes, exponents, depth, wide, 1, y);
    else
        widen(codes, exponents, depth, wide, 0, y);
}

/* The power of two of a lane's block: the largest value stays below the largest code when rounded
 * up. */
INLINE void block_exponents(const uint32_t *largest, size_t wide, const int root,
                            uint8_t *exponents, float *inverse)
{
    for (size_t l = 0; l < wide; l++) {
        uint32_t e = (largest[l] + (root ? ONE >> 4 : ONE >> 3)) >> 23;
        e = e < 27 ? 27 : e; /* 2^-100: the inverse is a normal number */
        e = e > 253 ? 253 : e;
        exponents[l] = (uint8_t)e;
        inverse[l] = float_of((254 - e) << 23);
    }
}

INLINE void round_block(float *restrict x, const uint32_t *restrict bits, uint32_t shift,
                        size_t depth, size_t wide, const int root, uint8_t *restrict codes,
                        uint8_t *restrict exponents, uint32_t *max)
{
    const int cut = root ? 19 : 20;
    uint32_t largest[PGRAD__MAX_WIDE] = {0};
    float inverse[PGRAD__MAX_WIDE];
    for (size_t k = 0; k < depth; k++)
        for (size_t l = 0; l < wide; l++) {
            if (root)
                x[k * wide + l] = sqrtf(x[k * wide + l]);
            uint32_t magnitude = bits_of(x[k * wide + l]) & 0x7fffffffu;
            largest[l] = magnitude > largest[l] ? magnitude : largest[l];
        }
    block_exponents(largest, wide, root, exponents, inverse);
    for (size_t k = 0; k < depth; k++)
        for (size_t l = 0; l < wide; l++) {
            uint32_t all = bits_of(x[k * wide + l]);
            float y = float_of(all & 0x7fffffffu) * inverse[l];
            uint32_t low = bits_of(y + float_of(LOWEST)) - LOWEST, high = bits_of(y) - LOWEST + ONE;
            uint32_t b = y < float_of(LOWEST) ? low : high;
            uint32_t cut_off = (bits[k * wide + l] >> shift & 0xffffu) << (cut - 16);
            uint32_t code = (b + cut_off + (1u << (cut - 17))) >> cut;
            if (root)
                code = code == 0 && all != 0 ? 1 : code;
            else
                code |= all >> 24 & 0x80u;
            codes[k * wide + l] = (uint8_t)code;
        }
    for (size_t l = 0; l < wide; l++)
        if (largest[l] >= Q8_LIMIT)
            *max = 0x7f800000u > *max ? 0x7f800000u : *max;
}

void PGRAD__VEC(q8_round)(float *x, const uint32_t *bits, uint32_t shift, size_t depth, size_t wide,
                          int root, uint8_t *codes, uint8_t *exponents, uint32_t *max)
{
    if (root)
        round_block(x, bits, shift, depth, wide, 1, codes, exponents, max);
    else
        round_block(x, bits, shift, depth, wide, 0, codes, exponents, max);
}
