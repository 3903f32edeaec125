#include "io/dequant.h"

#include <string.h>

#include "io/little_endian.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weight files are read as they lie");

/* ---- plain types ---- */

static void widen_f32(const unsigned char *data, size_t count, float *out)
{
    if (count > 0)
        memcpy(out, data, count * sizeof *out);
}

static void widen_f16(const unsigned char *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = pgrad__f16_to_f32(pgrad__get_u16(data + 2 * i));
}

static void widen_bf16(const unsigned char *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++)
        out[i] = pgrad__bf16_to_f32(pgrad__get_u16(data + 2 * i));
}

static void widen_f64(const unsigned char *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, data + 8 * i, sizeof value);
        out[i] = (float)value;
    }
}

/* ---- blocks of 32 ---- */

/* Q4_0, 18 bytes: d f16, q 16 bytes. y[j] = (q[j] & 15 - 8) d, y[j + 16] = (q[j] >> 4 - 8) d. */
static void widen_q4_0(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 18, out += 32) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data));
        for (size_t j = 0; j < 16; j++) {
            out[j] = (float)((data[2 + j] & 15) - 8) * d;
            out[j + 16] = (float)((data[2 + j] >> 4) - 8) * d;
        }
    }
}

/* Q4_1, 20 bytes: d f16, m f16, q 16 bytes. y = q d + m, nibbles as in Q4_0. */
static void widen_q4_1(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 20, out += 32) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data)),
              m = pgrad__f16_to_f32(pgrad__get_u16(data + 2));
        for (size_t j = 0; j < 16; j++) {
            out[j] = (float)(data[4 + j] & 15) * d + m;
            out[j + 16] = (float)(data[4 + j] >> 4) * d + m;
        }
    }
}

/* The 32 numbers of Q5_0 and Q5_1: bit j of h above the nibble of element j. */
static void unpack_5(uint32_t h, const unsigned char *q, int *out)
{
    for (size_t j = 0; j < 16; j++) {
        out[j] = (int)((q[j] & 15u) | (h >> j & 1) << 4);
        out[j + 16] = (int)(q[j] >> 4 | (h >> (j + 16) & 1) << 4);
    }
}

/* Q5_0, 22 bytes: d f16, h u32, q 16 bytes. y = (q - 16) d. */
static void widen_q5_0(const unsigned char *data, size_t n_blocks, float *out)
{
    int q[32];
    for (size_t b = 0; b < n_blocks; b++, data += 22, out += 32) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data));
        unpack_5(pgrad__get_u32(data + 2), data + 6, q);
        for (size_t j = 0; j < 32; j++)
            out[j] = (float)(q[j] - 16) * d;
    }
}

/* Q5_1, 24 bytes: d f16, m f16, h u32, q 16 bytes. y = q d + m. */
static void widen_q5_1(const unsigned char *data, size_t n_blocks, float *out)
{
    int q[32];
    for (size_t b = 0; b < n_blocks; b++, data += 24, out += 32) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data)),
              m = pgrad__f16_to_f32(pgrad__get_u16(data + 2));
        unpack_5(pgrad__get_u32(data + 4), data + 8, q);
        for (size_t j = 0; j < 32; j++)
            out[j] = (float)q[j] * d + m;
    }
}

/* Q8_0, 34 bytes: d f16, q 32 signed bytes. y = q d. */
static void widen_q8_0(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 34, out += 32) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data));
        for (size_t j = 0; j < 32; j++)
            out[j] = (float)(int8_t)data[2 + j] * d;
    }
}

/* ---- blocks of 256: eight or sixteen groups, each with a scale that is itself quantised ---- */

/* Q2_K, 84 bytes: 16 groups' scale and minimum in a nibble each, q 64 bytes, d f16, m f16.
 * Element 128 h + 32 c + l has bits 2 c .. 2 c + 1 of q[32 h + l]. y = (d s) q - m t. */
static void widen_q2_k(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 84) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data + 80)),
              m = pgrad__f16_to_f32(pgrad__get_u16(data + 82));
        for (size_t group = 0; group < 16; group++) {
            const unsigned char *q = data + 16 + 32 * (group / 8) + 16 * (group % 2);
            const unsigned shift = 2 * (unsigned)(group / 2 % 4);
            float scale = d * (float)(data[group] & 15), least = m * (float)(data[group] >> 4);
            for (size_t l = 0; l < 16; l++)
                *out++ = scale * (float)(q[l] >> shift & 3) - least;
        }
    }
}

/* Q3_K, 110 bytes: high bits 32, q 64 bytes as in Q2_K, 16 scales of 6 bits in 12 bytes, d f16.
 * The high bit of element 32 c + l is bit c of byte l; without it 4 is taken off.
 * y = (d (s - 32)) q. */
static void widen_q3_k(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 110) {
        const unsigned char *scales = data + 96;
        float d = pgrad__f16_to_f32(pgrad__get_u16(data + 108));
        for (size_t group = 0; group < 16; group++) {
            const unsigned char *high = data + 16 * (group % 2);
            const unsigned char *q = data + 32 + 32 * (group / 8) + 16 * (group % 2);
            const unsigned shift = 2 * (unsigned)(group / 2 % 4), bit = (unsigned)group / 2;
            int low = group < 8 ? scales[group] & 15 : scales[group - 8] >> 4;
            int top = scales[8 + group % 4] >> 2 * (group / 4) & 3;
            float scale = d * (float)((low | top << 4) - 32);
            for (size_t l = 0; l < 16; l++)
                *out++ = scale * (float)((q[l] >> shift & 3) - (high[l] >> bit & 1 ? 0 : 4));
        }
    }
}

/* Scale s and minimum t of group i of Q4_K and Q5_K: 6 bits each. 0-3 have bytes of their own, the
 * upper two bits of which belong to 4-7. */
static void unpack_scale(const unsigned char *packed, size_t i, float *s, float *t)
{
    if (i < 4) {
        *s = (float)(packed[i] & 63);
        *t = (float)(packed[i + 4] & 63);
    } else {
        *s = (float)((packed[i + 4] & 15) | packed[i - 4] >> 6 << 4);
        *t = (float)(packed[i + 4] >> 4 | packed[i] >> 6 << 4);
    }
}

/* Q4_K, 144 bytes: d f16, m f16, 8 groups' s and t in 12 bytes, q 128 bytes: low nibbles of 32 are
 * a group, high ones the next. Q5_K, 176 bytes: 32 bytes of high bits before q, bit i for group i.
 * y = (d s) q - m t. */
static void widen_k_pair(const unsigned char *data, size_t n_blocks, int has_high, float *out)
{
    const size_t q_at = has_high ? 48 : 16, size = q_at + 128;
    for (size_t b = 0; b < n_blocks; b++, data += size) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data)),
              m = pgrad__f16_to_f32(pgrad__get_u16(data + 2));
        for (size_t group = 0; group < 8; group++) {
            const unsigned char *q = data + q_at + 32 * (group / 2), *high = data + 16;
            float s, t;
            unpack_scale(data + 4, group, &s, &t);
            float scale = d * s, least = m * t;
            for (size_t l = 0; l < 32; l++) {
                int low = group % 2 == 0 ? q[l] & 15 : q[l] >> 4;
                int top = has_high ? high[l] >> group & 1 : 0;
                *out++ = scale * (float)(low | top << 4) - least;
            }
        }
    }
}

static void widen_q4_k(const unsigned char *data, size_t n_blocks, float *out)
{
    widen_k_pair(data, n_blocks, 0, out);
}

static void widen_q5_k(const unsigned char *data, size_t n_blocks, float *out)
{
    widen_k_pair(data, n_blocks, 1, out);
}

/* Q6_K, 210 bytes: low nibbles 128, high pairs 64, s 16 signed bytes, d f16. y = (d s) (q - 32). */
static void widen_q6_k(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 210) {
        float d = pgrad__f16_to_f32(pgrad__get_u16(data + 208));
        for (size_t half = 0; half < 2; half++, out += 128) {
            const unsigned char *low = data + 64 * half, *high = data + 128 + 32 * half;
            const unsigned char *scales = data + 192 + 8 * half;
            float s[8];
            for (size_t i = 0; i < 8; i++)
                s[i] = d * (float)(int8_t)scales[i];
            for (size_t j = 0; j < 32; j++) {
                size_t i = j / 16;
                out[j] = s[i] * (float)(((low[j] & 15) | (high[j] & 3) << 4) - 32);
                out[j + 32] =
                    s[i + 2] * (float)(((low[j + 32] & 15) | (high[j] >> 2 & 3) << 4) - 32);
                out[j + 64] = s[i + 4] * (float)((low[j] >> 4 | (high[j] >> 4 & 3) << 4) - 32);
                out[j + 96] = s[i + 6] * (float)((low[j + 32] >> 4 | high[j] >> 6 << 4) - 32);
            }
        }
    }
}

/* ---- all of them ---- */

static const struct {
    uint32_t elements, bytes; /* of a block */
    void (*widen)(const unsigned char *data, size_t n_blocks, float *out);
} BLOCKS[] = {
    [PGRAD__ELEMENT_F32] = {1, 4, widen_f32},       [PGRAD__ELEMENT_F16] = {1, 2, widen_f16},
    [PGRAD__ELEMENT_BF16] = {1, 2, widen_bf16},     [PGRAD__ELEMENT_F64] = {1, 8, widen_f64},
    [PGRAD__ELEMENT_Q4_0] = {32, 18, widen_q4_0},   [PGRAD__ELEMENT_Q4_1] = {32, 20, widen_q4_1},
    [PGRAD__ELEMENT_Q5_0] = {32, 22, widen_q5_0},   [PGRAD__ELEMENT_Q5_1] = {32, 24, widen_q5_1},
    [PGRAD__ELEMENT_Q8_0] = {32, 34, widen_q8_0},   [PGRAD__ELEMENT_Q2_K] = {256, 84, widen_q2_k},
    [PGRAD__ELEMENT_Q3_K] = {256, 110, widen_q3_k}, [PGRAD__ELEMENT_Q4_K] = {256, 144, widen_q4_k},
    [PGRAD__ELEMENT_Q5_K] = {256, 176, widen_q5_k}, [PGRAD__ELEMENT_Q6_K] = {256, 210, widen_q6_k},
    [PGRAD__ELEMENT_OTHER] = {0, 0, NULL},
};

uint32_t pgrad__element_block(pgrad__element_type type)
{
    return BLOCKS[type].elements;
}

uint32_t pgrad__element_block_bytes(pgrad__element_type type)
{
    return BLOCKS[type].bytes;
}

void pgrad__dequantize(pgrad__element_type type, const void *data, size_t count, float *out)
{
    if (BLOCKS[type].widen != NULL)
        BLOCKS[type].widen(data, count / BLOCKS[type].elements, out);
}
