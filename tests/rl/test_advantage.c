/* The estimators against the worked numbers of docs/algorithms.md 2. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "rl/advantage.h"

static void near(const double *found, const double *expected, uint32_t n)
{
    for (uint32_t i = 0; i < n; i++)
        ck_assert_msg(fabs(found[i] - expected[i]) <= 1e-8 * fmax(1.0, fabs(expected[i])),
                      "value %u: expected %.10g, found %.10g", i, expected[i], found[i]);
}

static const double GROUP[4] = {1.0, 0.0, 0.5, 2.0};

START_TEST(worked_numbers)
{
    double a[4];
    pgrad__advantage_group(PGRAD_ADVANTAGE_RLOO, 0.0, GROUP, 4, a);
    near(a, (double[]){0.16666666666666666, -1.1666666666666667, -0.5, 1.5}, 4);
    pgrad__advantage_group(PGRAD_ADVANTAGE_DR_GRPO, 0.0, GROUP, 4, a);
    near(a, (double[]){0.125, -0.875, -0.375, 1.125}, 4);
    pgrad__advantage_group(PGRAD_ADVANTAGE_GRPO, 1e-4, GROUP, 4, a);
    near(a, (double[]){0.1463678701, -1.024575091, -0.4391036103, 1.317310831}, 4);
    pgrad__advantage_group(PGRAD_ADVANTAGE_GRPO, 1e-6, GROUP, 4, a);
    near(a, (double[]){0.1463848395, -1.024693877, -0.4391545185, 1.317463556}, 4);
}
END_TEST

START_TEST(no_spread_is_exactly_zero)
{
    const float third = 0.11f;
    double reward[3] = {(double)third, (double)third, (double)third}, a[3] = {1, 1, 1};
    for (uint32_t estimator = PGRAD_ADVANTAGE_RLOO; estimator <= PGRAD_ADVANTAGE_DR_GRPO;
         estimator++) {
        pgrad__advantage_group(estimator, 0.0, reward, 3, a);
        for (int i = 0; i < 3; i++)
            ck_assert(a[i] == 0.0);
    }
    ck_assert(pgrad__zero_spread(reward, 3));
    ck_assert(!pgrad__zero_spread(GROUP, 4));
}
END_TEST

START_TEST(one_correct_of_eight)
{
    double reward[8] = {1.0}, a[8];
    pgrad__advantage_group(PGRAD_ADVANTAGE_GRPO, 0.0, reward, 8, a);
    ck_assert_double_eq_tol(a[0], 2.474873734, 1e-8);
    for (int i = 1; i < 8; i++)
        ck_assert_double_eq_tol(a[i], -0.3535533906, 1e-8);
}
END_TEST

/* RW03: rewards that do not apply are left out of mean and deviation, and get 0. */
START_TEST(missing_rewards)
{
    double reward[4] = {2.0, 0.0, NAN, 2.0}, a[4];
    pgrad__advantage_group(PGRAD_ADVANTAGE_RLOO, 0.0, reward, 4, a);
    near(a, (double[]){1.0, -2.0, 0.0, 1.0}, 4);
    pgrad__advantage_group(PGRAD_ADVANTAGE_GRPO, 1e-4, reward, 4, a);
    near(a, (double[]){0.5773002735, -1.154600547, 0.0, 0.5773002735}, 4);
    double alone[3] = {NAN, 5.0, NAN};
    pgrad__advantage_group(PGRAD_ADVANTAGE_RLOO, 0.0, alone, 3, a);
    near(a, (double[]){0.0, 0.0, 0.0}, 3);
}
END_TEST

START_TEST(invariances)
{
    double shifted[4], scaled[4], a[4], b[4];
    for (int i = 0; i < 4; i++) {
        shifted[i] = GROUP[i] + 10.0;
        scaled[i] = 3.0 * GROUP[i];
    }
    for (uint32_t estimator = PGRAD_ADVANTAGE_RLOO; estimator <= PGRAD_ADVANTAGE_DR_GRPO;
         estimator++) {
        pgrad__advantage_group(estimator, 1e-4, GROUP, 4, a);
        pgrad__advantage_group(estimator, 1e-4, shifted, 4, b);
        for (int i = 0; i < 4; i++)
            ck_assert_double_eq_tol(a[i], b[i], 1e-6);
    }
    pgrad__advantage_group(PGRAD_ADVANTAGE_GRPO, 0.0, GROUP, 4, a);
    pgrad__advantage_group(PGRAD_ADVANTAGE_GRPO, 0.0, scaled, 4, b);
    for (int i = 0; i < 4; i++)
        ck_assert_double_eq_tol(a[i], b[i], 1e-9);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("advantage");
    TCase *cases = tcase_create("advantage");
    tcase_add_test(cases, worked_numbers);
    tcase_add_test(cases, no_spread_is_exactly_zero);
    tcase_add_test(cases, one_correct_of_eight);
    tcase_add_test(cases, missing_rewards);
    tcase_add_test(cases, invariances);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
