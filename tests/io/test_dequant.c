#include "io/dequant.h"

#include <math.h>

#include "../golden/dequant.inc"
#include "io_test.h"

static float float_of(uint32_t bits)
{
    float value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint32_t bits_of(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Blocks as they lie in a file: at an odd address. */
static void check_table(pgrad__element_type type, const unsigned char *blocks, size_t size,
                        const uint32_t *values, size_t count)
{
    unsigned char odd[1024];
    float out[1024];
    ck_assert_uint_eq(size / pgrad__element_block_bytes(type) * pgrad__element_block(type), count);
    memcpy(odd + 1, blocks, size);
    pgrad__dequantize(type, odd + 1, count, out);
    for (size_t i = 0; i < count; i++)
        ck_assert_msg(bits_of(out[i]) == values[i], "type %d, value %zu: %.9g instead of %.9g",
                      type, i, (double)out[i], (double)float_of(values[i]));
}

#define TABLE(type)                                                                                \
    check_table(PGRAD__ELEMENT_##type, type##_BLOCKS, sizeof type##_BLOCKS, type##_VALUES,         \
                sizeof type##_VALUES / sizeof type##_VALUES[0])

START_TEST(quantised_types_give_the_reference_bits)
{
    TABLE(Q4_0);
    TABLE(Q4_1);
    TABLE(Q8_0);
    TABLE(Q6_K);
    TABLE(Q5_0);
    TABLE(Q5_1);
    TABLE(Q2_K);
    TABLE(Q3_K);
    TABLE(Q4_K);
    TABLE(Q5_K);
}
END_TEST

/* All 65536: value = (-1)^s m 2^(e - 25), infinities and NaNs by their payload. */
START_TEST(f16_all_values)
{
    for (uint32_t h = 0; h < 65536; h++) {
        uint32_t exponent = h >> 10 & 31, mantissa = h & 1023;
        float got = pgrad__f16_to_f32((uint16_t)h);
        if (exponent == 31) {
            ck_assert_uint_eq(bits_of(got), (h & 0x8000) << 16 | 0x7f800000u | mantissa << 13);
            continue;
        }
        double magnitude =
            exponent == 0 ? ldexp(mantissa, -24) : ldexp(1024.0 + mantissa, (int)exponent - 25);
        float expected = (float)(h & 0x8000 ? -magnitude : magnitude);
        ck_assert_uint_eq(bits_of(got), bits_of(expected));
    }
}
END_TEST

START_TEST(bf16_all_values_come_back)
{
    for (uint32_t b = 0; b < 65536; b++) {
        float value = pgrad__bf16_to_f32((uint16_t)b);
        ck_assert_uint_eq(bits_of(value), b << 16);
        if (!isnan(value))
            ck_assert_uint_eq(pgrad__f32_to_bf16(value), b);
    }
}
END_TEST

START_TEST(bf16_rounds_to_nearest_even)
{
    static const struct {
        uint32_t from;
        uint16_t to;
    } CASES[] = {
        {0x3f800000, 0x3f80}, {0x3f807fff, 0x3f80}, {0x3f808000, 0x3f80}, /* tie to even, down */
        {0x3f808001, 0x3f81}, {0x3f818000, 0x3f82},                       /* tie to even, up */
        {0x3fffffff, 0x4000}, /* carries into the exponent */
        {0x7f7fffff, 0x7f80}, /* beyond the largest */
        {0xff7fffff, 0xff80}, {0x00000001, 0x0000}, {0x80008001, 0x8001},
        {0x7f800000, 0x7f80}, {0xff800000, 0xff80},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        ck_assert_uint_eq(pgrad__f32_to_bf16(float_of(CASES[i].from)), CASES[i].to);
    /* a NaN whose payload is in the bits that are cut stays a NaN, sign kept */
    ck_assert_uint_eq(pgrad__f32_to_bf16(float_of(0x7f800001)), 0x7fc0);
    ck_assert_uint_eq(pgrad__f32_to_bf16(float_of(0xffffffff)), 0xffff);
}
END_TEST

START_TEST(plain_types)
{
    static const double WIDE[] = {1.0, -0.1, 1e300, -1e-300, 1.0 + 0x1p-24};
    static const uint16_t HALVES[] = {0x3c00, 0xc000, 0x0001}, BRAINS[] = {0x3f80, 0xc000, 0x7f80};
    static const float FLOATS[] = {1.0f, -0.0f, 3.5f};
    unsigned char odd[64];
    float out[5] = {0};
    memcpy(odd + 1, WIDE, sizeof WIDE);
    pgrad__dequantize(PGRAD__ELEMENT_F64, odd + 1, 5, out);
    ck_assert(out[0] == 1.0f && out[1] == -0.1f && isinf(out[2]) && out[3] == 0.0f &&
              out[4] == 1.0f);
    memcpy(odd + 1, HALVES, sizeof HALVES);
    pgrad__dequantize(PGRAD__ELEMENT_F16, odd + 1, 3, out);
    ck_assert(out[0] == 1.0f && out[1] == -2.0f && out[2] == 0x1p-24f);
    memcpy(odd + 1, BRAINS, sizeof BRAINS);
    pgrad__dequantize(PGRAD__ELEMENT_BF16, odd + 1, 3, out);
    ck_assert(out[0] == 1.0f && out[1] == -2.0f && isinf(out[2]));
    memcpy(odd + 1, FLOATS, sizeof FLOATS);
    pgrad__dequantize(PGRAD__ELEMENT_F32, odd + 1, 3, out);
    ck_assert_mem_eq(out, FLOATS, sizeof FLOATS);
    pgrad__dequantize(PGRAD__ELEMENT_F32, odd, 0, out);
    ck_assert_uint_eq(pgrad__element_block(PGRAD__ELEMENT_OTHER), 0);
}
END_TEST

/* GG19: a scale that is no number comes through here; loading finds it (model/test_bad_files). */
static void check_scale(pgrad__element_type type, size_t place, uint16_t half)
{
    unsigned char block[256];
    float out[256];
    size_t n_bad = 0;
    memset(block, 0x5a, sizeof block); /* no scale of a group is 0 */
    memcpy(block + place, &half, 2);
    pgrad__dequantize(type, block, pgrad__element_block(type), out);
    for (uint32_t i = 0; i < pgrad__element_block(type); i++)
        n_bad += !isfinite(out[i]);
    ck_assert_msg(n_bad > 0, "type %d: scale 0x%04x at %zu is lost", type, half, place);
}

START_TEST(gg19_no_scale_is_lost)
{
    static const struct {
        pgrad__element_type type;
        size_t places[2]; /* of scales; once more where there is one */
    } SCALES[] = {{PGRAD__ELEMENT_Q4_0, {0, 0}},     {PGRAD__ELEMENT_Q4_1, {0, 2}},
                  {PGRAD__ELEMENT_Q5_0, {0, 0}},     {PGRAD__ELEMENT_Q5_1, {0, 2}},
                  {PGRAD__ELEMENT_Q8_0, {0, 0}},     {PGRAD__ELEMENT_Q2_K, {80, 82}},
                  {PGRAD__ELEMENT_Q3_K, {108, 108}}, {PGRAD__ELEMENT_Q4_K, {0, 2}},
                  {PGRAD__ELEMENT_Q5_K, {0, 2}},     {PGRAD__ELEMENT_Q6_K, {208, 208}}};
    static const uint16_t HALVES[] = {0x7c00, 0xfc00, 0x7e00, 0x7c01};
    for (size_t i = 0; i < sizeof SCALES / sizeof SCALES[0]; i++)
        for (size_t k = 0; k < 8; k++)
            check_scale(SCALES[i].type, SCALES[i].places[k % 2], HALVES[k / 2]);
}
END_TEST

START_TEST(gg19_scale_not_finite)
{
    unsigned char block[34] = {0x00, 0x7c, 1, 0xff, 0};
    float out[32];
    pgrad__dequantize(PGRAD__ELEMENT_Q8_0, block, 32, out);
    ck_assert(isinf(out[0]) && out[0] > 0 && isinf(out[1]) && out[1] < 0 && isnan(out[2]));
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, quantised_types_give_the_reference_bits);
    tcase_add_test(tests, f16_all_values);
    tcase_add_test(tests, bf16_all_values_come_back);
    tcase_add_test(tests, bf16_rounds_to_nearest_even);
    tcase_add_test(tests, plain_types);
    tcase_add_test(tests, gg19_scale_not_finite);
    tcase_add_test(tests, gg19_no_scale_is_lost);
}

int main(void)
{
    return run_case("io/dequant", setup, teardown, 60, add);
}
