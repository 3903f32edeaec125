/* The arithmetic of predictions, on steps made up. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include "../suite.h"
#include "train/predict.h"

/* A machine: seconds per prompt token, per sampled token, per trained token, and the rest. */
static pgrad__step_times step_of(double prompt, double completion, double updates)
{
    return (pgrad__step_times){.prompt_tokens = prompt,
                               .completion_tokens = completion,
                               .n_updates = updates,
                               .generate = 0.0005 * prompt + 0.001 * completion,
                               .train = 0.003 * (prompt + completion) * updates,
                               .other = 0.25};
}

static double seconds_of(const pgrad__step_times *s)
{
    return s->generate + s->train + s->other;
}

static int close_to(double a, double b)
{
    return fabs(a - b) <= 1e-12 * fabs(b);
}

START_TEST(nothing_is_told_before_three_steps)
{
    pgrad__predictor p = {.n = 0};
    const pgrad__step_times s = step_of(100.0, 200.0, 1.0);
    for (int i = 0; i < 3; i++) {
        ck_assert(isnan(pgrad__predictor_seconds(&p, 100.0, 1.0)));
        pgrad__predictor_add(&p, &s);
    }
    ck_assert(close_to(pgrad__predictor_seconds(&p, 100.0, 1.0), seconds_of(&s)));
}
END_TEST

START_TEST(prompts_and_updates_count)
{
    pgrad__predictor p = {.n = 0};
    for (int i = 0; i < 5; i++) {
        const pgrad__step_times s = step_of(100.0 + 50.0 * i, 400.0, 1.0);
        pgrad__predictor_add(&p, &s);
    }
    const pgrad__step_times next = step_of(900.0, 400.0, 3.0);
    ck_assert(close_to(pgrad__predictor_seconds(&p, 900.0, 3.0), seconds_of(&next)));
}
END_TEST

/* A slow step among others is left out; completions are as long as on average. */
START_TEST(one_slow_step_does_not_count)
{
    pgrad__predictor p = {.n = 0};
    for (int i = 0; i < 5; i++) {
        pgrad__step_times s = step_of(64.0, 100.0 * (i + 1), 1.0);
        if (i == 1) {
            s.generate *= 50.0;
            s.train *= 50.0;
            s.other *= 50.0;
        }
        pgrad__predictor_add(&p, &s);
    }
    const pgrad__step_times next = step_of(64.0, 300.0, 1.0);
    ck_assert(close_to(pgrad__predictor_seconds(&p, 64.0, 1.0), seconds_of(&next)));
}
END_TEST

/* Steps that lie back are forgotten: completions grow, the machine gets faster. */
START_TEST(the_last_steps_count)
{
    pgrad__predictor p = {.n = 0};
    for (int i = 0; i < 40; i++) {
        pgrad__step_times s = step_of(64.0, i < 32 ? 100.0 : 700.0, 1.0);
        if (i < 32)
            s.train *= 3.0;
        pgrad__predictor_add(&p, &s);
    }
    const pgrad__step_times next = step_of(64.0, 700.0, 1.0);
    ck_assert(close_to(pgrad__predictor_seconds(&p, 64.0, 1.0), seconds_of(&next)));
}
END_TEST

START_TEST(steps_without_work)
{
    pgrad__predictor p = {.n = 0};
    const pgrad__step_times s = {.other = 0.5};
    for (int i = 0; i < 4; i++)
        pgrad__predictor_add(&p, &s);
    ck_assert(pgrad__predictor_seconds(&p, 0.0, 0.0) == 0.5);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("predict");
    TCase *tcase = tcase_create("predict");
    tcase_add_test(tcase, nothing_is_told_before_three_steps);
    tcase_add_test(tcase, prompts_and_updates_count);
    tcase_add_test(tcase, one_slow_step_does_not_count);
    tcase_add_test(tcase, the_last_steps_count);
    tcase_add_test(tcase, steps_without_work);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
