/* Learning-rate curves against algorithms 12.6, warm-up from one. */
#include <check.h>
#include <math.h>

#include "../suite.h"
#include "rl/schedule.h"

static pgrad_optimizer_params params(uint32_t schedule, double final_factor)
{
    pgrad_optimizer_params p;
    pgrad_optimizer_params_init(&p, sizeof p);
    p.schedule = schedule;
    p.warmup_steps = 10;
    p.total_steps = 100;
    p.final_factor = final_factor;
    return p;
}

START_TEST(warm_up_starts_above_zero)
{
    pgrad_optimizer_params p = params(PGRAD_SCHEDULE_COSINE, 0.0);
    ck_assert_double_eq_tol(pgrad__schedule_factor(&p, 0), 0.1, 1e-15);
    ck_assert_double_eq_tol(pgrad__schedule_factor(&p, 4), 0.5, 1e-15);
    ck_assert_double_eq_tol(pgrad__schedule_factor(&p, 9), 1.0, 1e-15);
}
END_TEST

START_TEST(cosine)
{
    pgrad_optimizer_params p = params(PGRAD_SCHEDULE_COSINE, 0.0);
    const uint64_t at[] = {10, 40, 55, 77, 99, 100, 1000};
    const double expected[] = {1, 0.75, 0.5, 0.1526708148, 0.0003045864905, 0, 0};
    for (int i = 0; i < 7; i++)
        ck_assert_double_eq_tol(pgrad__schedule_factor(&p, at[i]), expected[i], 1e-9);
    p = params(PGRAD_SCHEDULE_COSINE, 0.1);
    ck_assert_double_eq_tol(pgrad__schedule_factor(&p, 55), 0.55, 1e-12);
    ck_assert_double_eq_tol(pgrad__schedule_factor(&p, 77), 0.2374037333, 1e-9);
}
END_TEST

START_TEST(linear_and_constant)
{
    pgrad_optimizer_params p = params(PGRAD_SCHEDULE_LINEAR, 0.0);
    ck_assert_double_eq_tol(pgrad__schedule_factor(&p, 40), 0.6666666667, 1e-9);
    ck_assert_double_eq_tol(pgrad__schedule_factor(&p, 77), 0.2555555556, 1e-9);
    p.schedule = PGRAD_SCHEDULE_CONSTANT;
    ck_assert(pgrad__schedule_factor(&p, 77) == 1.0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("schedule");
    TCase *cases = tcase_create("schedule");
    tcase_add_test(cases, warm_up_starts_above_zero);
    tcase_add_test(cases, cosine);
    tcase_add_test(cases, linear_and_constant);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
