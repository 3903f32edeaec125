/* Narrowing to f16 and bf16 and widening again, by every kernel set: each value of 16 bits, and in f32 each of
 * them, each place half way between two and its neighbours. */
#include "kernel_test.h"

#include "base/half.h"
#include "kernel/vec.h"

typedef struct format {
    const char *name;
    int mantissa_bits, bias;
    uint16_t infinity;
} format;

static const format formats[] = {{"f16", 10, 15, 0x7c00}, {"bf16", 7, 127, 0x7f80}};

static void narrow(const format *f, const float *x, size_t n, uint16_t *y)
{
    (f == formats ? kernels->vec->f16_narrow : kernels->vec->bf16_narrow)(x, n, y);
}

static void widen(const format *f, const uint16_t *x, size_t n, float *y)
{
    (f == formats ? kernels->vec->f16_widen : kernels->vec->bf16_widen)(x, n, y);
}

/* The definition; infinity stands where the next power of two would be. */
static double value_of(const format *f, uint16_t bits)
{
    const int exponent = (bits & 0x7fff) >> f->mantissa_bits;
    const double mantissa = ldexp(bits & ((1 << f->mantissa_bits) - 1), -f->mantissa_bits);
    const double value = exponent == 0 ? ldexp(mantissa, 1 - f->bias) : ldexp(1.0 + mantissa, exponent - f->bias);
    return bits & 0x8000 ? -value : value;
}

START_TEST(every_value_widens)
{
    const format *f = &formats[_i % 2];
    if (!begin(_i / 2, 1))
        return;
    uint16_t *all = array(65536, sizeof *all);
    float *wide = zeros(65536);
    for (unsigned i = 0; i < 65536; i++)
        all[i] = (uint16_t)i;
    widen(f, all, 65536, wide);
    for (unsigned i = 0; i < 65536; i++) {
        const uint32_t bits = pgrad__bits_of_float(wide[i]);
        if ((i & 0x7fff) < f->infinity) {
            ck_assert_msg(wide[i] == value_of(f, (uint16_t)i) && bits >> 31 == i >> 15,
                          "%s, %s %#x: %.9g", kernels->name, f->name, i, wide[i]);
            continue;
        }
        /* Infinity, and quiet NaNs with their payload; narrowing makes no others. */
        const uint32_t mantissa = i & ((1u << f->mantissa_bits) - 1);
        const uint32_t wanted = (i & 0x8000) << 16 | 0x7f800000u | mantissa << (23 - f->mantissa_bits);
        ck_assert_msg(bits == wanted || (mantissa > 0 && mantissa < 1u << (f->mantissa_bits - 1)),
                      "%s, %s %#x: %#x, not %#x", kernels->name, f->name, i, bits, wanted);
    }
    end();
}
END_TEST

static void check_narrow(const format *f, float x, unsigned wanted)
{
    float four[19];
    uint16_t found[19];
    for (int i = 0; i < 19; i++)
        four[i] = x;
    narrow(f, four, 19, found); /* vectors and the rest behind them */
    for (int i = 0; i < 19; i++)
        if (found[i] != wanted)
            ck_abort_msg("%s, %s of %.9g (%#x), place %d: %#x, not %#x", kernels->name, f->name, x,
                         pgrad__bits_of_float(x), i, found[i], wanted);
}

START_TEST(narrowing_is_to_nearest_even)
{
    const format *f = &formats[_i % 2];
    if (!begin(_i / 2, 1))
        return;
    for (unsigned sign = 0; sign < 0x10000; sign += 0x8000) {
        for (unsigned i = 0; i < f->infinity; i++) {
            const double low = value_of(f, (uint16_t)i), high = value_of(f, (uint16_t)(i + 1));
            const float middle = (float)(low + (high - low) / 2), s = sign ? -1.0f : 1.0f;
            if (f == formats || i > 0) /* the least bf16 has no half in f32 */
                ck_assert(middle == low + (high - low) / 2);
            check_narrow(f, s * (float)low, sign | i);
            check_narrow(f, s * middle, sign | (i + (i & 1)));
            check_narrow(f, s * nextafterf(middle, 0.0f), sign | i);
            check_narrow(f, s * nextafterf(middle, INFINITY), sign | (i + 1));
        }
        const uint32_t top = sign << 16;
        check_narrow(f, pgrad__float_of_bits(top | 0x7f7fffffu), sign | f->infinity);
        check_narrow(f, pgrad__float_of_bits(top | 0x7f800000u), sign | f->infinity);
        check_narrow(f, pgrad__float_of_bits(top), sign);
        check_narrow(f, pgrad__float_of_bits(top | 1), sign);
        /* NaNs stay NaNs, with the upper bits of their payload, whether quiet or not. */
        for (uint32_t nan = 0x7f800001u; nan < 0x80000000u; nan += 4099) {
            const unsigned cut = nan >> (23 - f->mantissa_bits) & ((1u << f->mantissa_bits) - 1);
            check_narrow(f, pgrad__float_of_bits(top | nan),
                         sign | f->infinity | 1u << (f->mantissa_bits - 1) | cut);
        }
    }
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, every_value_widens, 0, N_SETS * 2);
    tcase_add_loop_test(tests, narrowing_is_to_nearest_even, 0, N_SETS * 2);
}

int main(void)
{
    return run_case("kernel/half", NULL, NULL, 60, add);
}
