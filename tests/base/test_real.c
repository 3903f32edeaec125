/* Elementary functions against the long double ones of libm. */
#include "base_test.h"

#include <math.h>

#include "base/real.h"
#include "base/rng.h"

/* Distance in units of the last place of the wanted value. */
static double ulps(double found, long double wanted)
{
    if (isinf((double)wanted) || wanted == 0)
        return found == (double)wanted ? 0 : INFINITY;
    int exponent;
    (void)frexpl(wanted, &exponent);
    if (exponent < -1021)
        exponent = -1021;
    return (double)(fabsl((long double)found - wanted) / ldexpl(1, exponent - 53));
}

static double between(double low, double high, uint64_t i)
{
    return low + (high - low) * pgrad__uniform(8, 1, i, 0);
}

START_TEST(errors_stay_below_2_ulp)
{
    double worst[5] = {0};
    for (uint64_t i = 0; i < 200000; i++) {
        double e = between(-700, 700, i), near_zero = ldexp(between(-1, 1, i), -(int)(i % 60));
        double positive = i % 2 ? ldexp(between(1, 2, i), (int)(i % 2000) - 1000) : between(0.5, 2, i);
        double angle = i % 2 ? between(-8, 8, i) : between(-1e6, 1e6, i);
        worst[0] = fmax(worst[0], ulps(pgrad__exp(e), expl(e)));
        worst[1] = fmax(worst[1], ulps(pgrad__log(positive), logl(positive)));
        worst[2] = fmax(worst[2], ulps(pgrad__expm1(near_zero), expm1l(near_zero)));
        worst[3] = fmax(worst[3], (double)fabsl((long double)pgrad__sin(angle) - sinl(angle)) / 0x1p-52);
        worst[4] = fmax(worst[4], (double)fabsl((long double)pgrad__cos(angle) - cosl(angle)) / 0x1p-52);
        worst[2] = fmax(worst[2], ulps(pgrad__expm1(e / 20), expm1l(e / 20)));
    }
    for (int i = 0; i < 5; i++)
        ck_assert_msg(worst[i] < 2.0, "function %d is off by %g ulp", i, worst[i]);
}
END_TEST

START_TEST(pow_is_close_enough_for_rope)
{
    for (uint64_t i = 0; i < 20000; i++) {
        double x = between(1, 1e6, i), y = between(-2, 2, i + 1);
        ck_assert_double_eq_tol(pgrad__pow(x, y) / (double)powl(x, y), 1.0, 1e-13);
    }
    ck_assert(pgrad__pow(10000.0, 0.0) == 1.0);
}
END_TEST

START_TEST(special_values)
{
    ck_assert(pgrad__exp(0.0) == 1.0);
    ck_assert(pgrad__exp(-INFINITY) == 0.0);
    ck_assert(pgrad__exp(INFINITY) == INFINITY);
    ck_assert(pgrad__exp(800.0) == INFINITY);
    ck_assert(pgrad__exp(-800.0) == 0.0);
    ck_assert(isnan(pgrad__exp(NAN)));
    ck_assert(pgrad__log(1.0) == 0.0);
    ck_assert(pgrad__log(0.0) == -INFINITY);
    ck_assert(pgrad__log(INFINITY) == INFINITY);
    ck_assert(isnan(pgrad__log(-1.0)));
    ck_assert(isnan(pgrad__log(NAN)));
    ck_assert(ulps(pgrad__log(0x1p-1074), logl(0x1p-1074)) < 2);
    ck_assert(pgrad__expm1(0.0) == 0.0);
    ck_assert(pgrad__expm1(-INFINITY) == -1.0);
    ck_assert(isnan(pgrad__expm1(NAN)));
    ck_assert(pgrad__sin(0.0) == 0.0);
    ck_assert(pgrad__cos(0.0) == 1.0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, errors_stay_below_2_ulp);
    tcase_add_test(tests, pow_is_close_enough_for_rope);
    tcase_add_test(tests, special_values);
}

int main(void)
{
    return run_case("base/real", NULL, NULL, 60, add);
}
