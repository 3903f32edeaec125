/* The estimators against the worked numbers of docs/algorithms.md 2. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include <policygrad.h>

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

/* One batch of four scored sequences of four tokens through the public calls. */
typedef struct batch {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_rollout *rollout;
} batch;

static batch make_batch(void)
{
    static const char CONFIG[] =
        "{\"model_type\":\"gpt2\",\"vocab_size\":8,\"n_positions\":16,\"n_embd\":4,\"n_layer\":1,"
        "\"n_head\":1,\"activation_function\":\"gelu_new\"}";
    const pgrad_token ids[4] = {1, 2, 3, 4};
    batch b;
    pgrad_rollout_params params;
    ck_assert_int_eq(pgrad_context_create(NULL, &b.context), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_create(b.context, CONFIG, 1, NULL, &b.model), PGRAD_OK);
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = 2;
    params.max_prompts = 2;
    ck_assert_int_eq(pgrad_rollout_create(b.model, NULL, &params, &b.rollout), PGRAD_OK);
    for (uint32_t group = 0; group < 2; group++) {
        ck_assert_int_eq(pgrad_rollout_add_prompt(b.rollout, ids, 1, NULL, NULL), PGRAD_OK);
        for (int k = 0; k < 2; k++)
            ck_assert_int_eq(pgrad_rollout_add_sequence(b.rollout, group, ids, 4, NULL), PGRAD_OK);
    }
    return b;
}

static void drop_batch(batch *b)
{
    pgrad_rollout_free(b->rollout);
    pgrad_model_free(b->model);
    pgrad_context_free(b->context);
}

static pgrad_advantage *make_estimator(const batch *b, uint32_t estimator)
{
    pgrad_advantage *advantage;
    pgrad_advantage_params params;
    pgrad_advantage_params_init(&params, sizeof params);
    params.estimator = estimator;
    ck_assert_int_eq(pgrad_advantage_create(b->context, &params, &advantage), PGRAD_OK);
    return advantage;
}

static void reward_all(const batch *b, float reward)
{
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(pgrad_rollout_set_array(b->rollout, PGRAD_REWARDS, i, &reward, 1), PGRAD_OK);
}

/* The running baseline: batches of mean 1, 0.5, 2 leave 1, 0.7368..., 1.2029...; each is used by the next
 * batch, not by its own. */
START_TEST(running_mean)
{
    const float means[3] = {1.0f, 0.5f, 2.0f};
    const double baselines[3] = {1.0, 1.0, 0.7368421053}; /* the first: the mean of the others */
    batch b = make_batch();
    pgrad_advantage *advantage = make_estimator(&b, PGRAD_ADVANTAGE_EMA);
    for (int step = 0; step < 3; step++) {
        reward_all(&b, means[step]);
        ck_assert_int_eq(pgrad_advantage_apply(advantage, b.rollout), PGRAD_OK);
        ck_assert_double_eq_tol((double)pgrad_rollout_array(b.rollout, PGRAD_ADVANTAGES, 2, NULL)[1],
                                (double)means[step] - baselines[step], 1e-6);
    }
    ck_assert_double_eq_tol(advantage->ema.b, 0.326, 1e-9);
    ck_assert_uint_eq(advantage->ema.k, 3);
    pgrad_advantage_free(advantage);
    drop_batch(&b);
}
END_TEST

/* Rewards per token: what is still to come, without discount. */
START_TEST(reward_to_go)
{
    const float rewards[4] = {0.0f, -0.1f, 0.2f, 1.0f};
    const double expected[4] = {1.1, 1.1, 1.2, 1.0};
    batch b = make_batch();
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(pgrad_rollout_set_array(b.rollout, PGRAD_REWARDS, i, rewards, 4), PGRAD_OK);
    pgrad_advantage *advantage = make_estimator(&b, PGRAD_ADVANTAGE_NONE);
    ck_assert_int_eq(pgrad_advantage_apply(advantage, b.rollout), PGRAD_OK);
    for (int t = 0; t < 4; t++)
        ck_assert_double_eq_tol((double)pgrad_rollout_array(b.rollout, PGRAD_ADVANTAGES, 3, NULL)[t], expected[t],
                                1e-6);
    pgrad_advantage_free(advantage);
    drop_batch(&b);
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
    tcase_add_test(cases, running_mean);
    tcase_add_test(cases, reward_to_go);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
