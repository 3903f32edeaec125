#include "io/dequant.h"

#include <string.h>

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "weight files are read as they lie");

static const struct {
    uint32_t elements, bytes;
} BLOCKS[] = {
    [PGRAD__ELEMENT_F32] = {1, 4},    [PGRAD__ELEMENT_F16] = {1, 2},
    [PGRAD__ELEMENT_BF16] = {1, 2},   [PGRAD__ELEMENT_F64] = {1, 8},
    [PGRAD__ELEMENT_Q4_0] = {32, 18}, [PGRAD__ELEMENT_Q4_1] = {32, 20},
    [PGRAD__ELEMENT_Q8_0] = {32, 34}, [PGRAD__ELEMENT_Q6_K] = {256, 210},
    [PGRAD__ELEMENT_OTHER] = {0, 0},
};

uint32_t pgrad__element_block(pgrad__element_type type)
{
    return BLOCKS[type].elements;
}

uint32_t pgrad__element_block_bytes(pgrad__element_type type)
{
    return BLOCKS[type].bytes;
}

static uint16_t load_u16(const unsigned char *data)
{
    return (uint16_t)(data[0] | data[1] << 8);
}

/* Q4_0, 18 bytes: d f16, q 16 bytes. y[j] = (q[j] & 15 - 8) d, y[j + 16] = (q[j] >> 4 - 8) d. */
static void widen_q4_0(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 18, out += 32) {
        float d = pgrad__f16_to_f32(load_u16(data));
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
        float d = pgrad__f16_to_f32(load_u16(data)), m = pgrad__f16_to_f32(load_u16(data + 2));
        for (size_t j = 0; j < 16; j++) {
            out[j] = (float)(data[4 + j] & 15) * d + m;
            out[j + 16] = (float)(data[4 + j] >> 4) * d + m;
        }
    }
}

/* Q8_0, 34 bytes: d f16, q 32 signed bytes. y = q d. */
static void widen_q8_0(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 34, out += 32) {
        float d = pgrad__f16_to_f32(load_u16(data));
        for (size_t j = 0; j < 32; j++)
            out[j] = (float)(int8_t)data[2 + j] * d;
    }
}

/* Q6_K, 210 bytes: low nibbles 128, high pairs 64, s 16 signed bytes, d f16. y = (d s) (q - 32). */
static void widen_q6_k(const unsigned char *data, size_t n_blocks, float *out)
{
    for (size_t b = 0; b < n_blocks; b++, data += 210) {
        float d = pgrad__f16_to_f32(load_u16(data + 208));
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

static void widen_f64(const unsigned char *data, size_t count, float *out)
{
    for (size_t i = 0; i < count; i++) {
        double value;
        memcpy(&value, data + 8 * i, sizeof value);
        out[i] = (float)value;
    }
}

void pgrad__dequantize(pgrad__element_type type, const void *data, size_t count, float *out)
{
    const unsigned char *bytes = data;
    switch (type) {
    case PGRAD__ELEMENT_F32:
        if (count > 0)
            memcpy(out, data, count * sizeof *out);
        break;
    case PGRAD__ELEMENT_F16:
        for (size_t i = 0; i < count; i++)
            out[i] = pgrad__f16_to_f32(load_u16(bytes + 2 * i));
        break;
    case PGRAD__ELEMENT_BF16:
        for (size_t i = 0; i < count; i++)
            out[i] = pgrad__bf16_to_f32(load_u16(bytes + 2 * i));
        break;
    case PGRAD__ELEMENT_F64:
        widen_f64(bytes, count, out);
        break;
    case PGRAD__ELEMENT_Q4_0:
        widen_q4_0(bytes, count / 32, out);
        break;
    case PGRAD__ELEMENT_Q4_1:
        widen_q4_1(bytes, count / 32, out);
        break;
    case PGRAD__ELEMENT_Q8_0:
        widen_q8_0(bytes, count / 32, out);
        break;
    case PGRAD__ELEMENT_Q6_K:
        widen_q6_k(bytes, count / 256, out);
        break;
    case PGRAD__ELEMENT_OTHER:
        break;
    }
}
