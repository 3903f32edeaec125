#include "base_test.h"

#include <math.h>

#include "base/rng.h"

/* The known answers of Random123 for philox4x32-10. */
START_TEST(philox_known_answers)
{
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } cases[] = {
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < 3; i++) {
        uint32_t out[4];
        pgrad__philox(cases[i].key, cases[i].counter, out);
        for (int j = 0; j < 4; j++)
            ck_assert_uint_eq(out[j], cases[i].out[j]);
    }
}
END_TEST

START_TEST(uniform_is_a_function_of_all_arguments)
{
    const double u = pgrad__uniform(1, 2, 3, 0);
    ck_assert(u == pgrad__uniform(1, 2, 3, 0));
    ck_assert(u != pgrad__uniform(2, 2, 3, 0));
    ck_assert(u != pgrad__uniform((uint64_t)1 << 32 | 1, 2, 3, 0));
    ck_assert(u != pgrad__uniform(1, 3, 3, 0));
    ck_assert(u != pgrad__uniform(1, (uint64_t)1 << 32 | 2, 3, 0));
    ck_assert(u != pgrad__uniform(1, 2, 4, 0));
    ck_assert(u != pgrad__uniform(1, 2, (uint64_t)1 << 32 | 3, 0));
    ck_assert(u != pgrad__uniform(1, 2, 3, 1));
}
END_TEST

/* Mean, variance and a chi-square over 64 cells: seeds are fixed, so the bounds (6 standard deviations)
 * hold or do not. */
START_TEST(uniform_is_even)
{
    enum { N = 200000, CELLS = 64 };
    double sum = 0, square = 0, chi = 0;
    int cells[CELLS] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double u = pgrad__uniform(5, 9, i, 0);
        ck_assert(u >= 0.0 && u < 1.0);
        sum += u;
        square += u * u;
        cells[(int)(u * CELLS)]++;
    }
    ck_assert_double_eq_tol(sum / N, 0.5, 6 * sqrt(1.0 / 12 / N));
    ck_assert_double_eq_tol(square / N, 1.0 / 3, 6 * sqrt(4.0 / 45 / N));
    for (int i = 0; i < CELLS; i++)
        chi += pow(cells[i] - (double)N / CELLS, 2) / ((double)N / CELLS);
    ck_assert_double_eq_tol(chi, CELLS - 1, 6 * sqrt(2.0 * (CELLS - 1)));
}
END_TEST

START_TEST(normal_has_its_moments)
{
    enum { N = 200000 };
    double moments[5] = {0};
    for (uint64_t i = 0; i < N; i++) {
        double z = pgrad__normal(5, 9, i), power = 1;
        ck_assert(isfinite(z));
        for (int k = 1; k < 5; k++)
            moments[k] += power *= z;
    }
    ck_assert_double_eq_tol(moments[1] / N, 0, 6 * sqrt(1.0 / N));
    ck_assert_double_eq_tol(moments[2] / N, 1, 6 * sqrt(2.0 / N));
    ck_assert_double_eq_tol(moments[3] / N, 0, 6 * sqrt(15.0 / N));
    ck_assert_double_eq_tol(moments[4] / N, 3, 6 * sqrt(96.0 / N));
}
END_TEST

START_TEST(below_stays_below)
{
    static const uint64_t limits[] = {1, 2, 3, 7, 1000, 0xffffffff, (uint64_t)1 << 32, (uint64_t)1 << 63,
                                      ((uint64_t)1 << 63) + 1, UINT64_MAX};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        uint64_t largest = 0;
        for (uint64_t i = 0; i < 2000; i++) {
            uint64_t x = pgrad__uniform_below(3, 4, i, limits[l]);
            ck_assert_uint_lt(x, limits[l]);
            largest = x > largest ? x : largest;
        }
        ck_assert_uint_ge(largest, limits[l] / 100 * 99);
    }
    int counts[3] = {0};
    for (uint64_t i = 0; i < 30000; i++)
        counts[pgrad__uniform_below(3, 4, i, 3)]++;
    for (int i = 0; i < 3; i++)
        ck_assert_int_le(abs(counts[i] - 10000), 490); /* 6 standard deviations */
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, philox_known_answers);
    tcase_add_test(tests, uniform_is_a_function_of_all_arguments);
    tcase_add_test(tests, uniform_is_even);
    tcase_add_test(tests, normal_has_its_moments);
    tcase_add_test(tests, below_stays_below);
}

int main(void)
{
    return run_case("base/rng", NULL, NULL, 60, add);
}
