/* The estimators against the worked numbers of docs/algorithms.md 2. */
#include <check.h>
#include <math.h>
#include <stdlib.h>

#include <policygrad.h>

#include "../suite.h"
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

/* RW04: all rewards of a group equal. */
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

/* One batch of four sequences in two groups through the public calls. */
static const uint32_t FOURS[4] = {4, 4, 4, 4};

typedef struct batch {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_rollout *rollout;
} batch;

static batch make_batch(const uint32_t *lengths)
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
        for (uint32_t k = 0; k < 2; k++)
            ck_assert_int_eq(pgrad_rollout_add_sequence(b.rollout, group, ids, lengths[2 * group + k], NULL),
                             PGRAD_OK);
    }
    return b;
}

static void drop_batch(batch *b)
{
    pgrad_rollout_free(b->rollout);
    pgrad_model_free(b->model);
    pgrad_context_free(b->context);
}

static pgrad_advantage *make_estimator(const batch *b, uint32_t estimator, double kl_beta)
{
    pgrad_advantage *advantage;
    pgrad_advantage_params params;
    pgrad_advantage_params_init(&params, sizeof params);
    params.estimator = estimator;
    params.kl_beta = kl_beta;
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
    batch b = make_batch(FOURS);
    pgrad_advantage *advantage = make_estimator(&b, PGRAD_ADVANTAGE_EMA, 0.0);
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
    batch b = make_batch(FOURS);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(pgrad_rollout_set_array(b.rollout, PGRAD_REWARDS, i, rewards, 4), PGRAD_OK);
    pgrad_advantage *advantage = make_estimator(&b, PGRAD_ADVANTAGE_NONE, 0.0);
    ck_assert_int_eq(pgrad_advantage_apply(advantage, b.rollout), PGRAD_OK);
    for (int t = 0; t < 4; t++)
        ck_assert_double_eq_tol((double)pgrad_rollout_array(b.rollout, PGRAD_ADVANTAGES, 3, NULL)[t], expected[t],
                                1e-6);
    pgrad_advantage_free(advantage);
    drop_batch(&b);
}
END_TEST

/* algorithms.md 12.1: the whole batch's mean, whatever the groups. */
START_TEST(batch_mean)
{
    batch b = make_batch(FOURS);
    pgrad_advantage *advantage = make_estimator(&b, PGRAD_ADVANTAGE_BATCH_MEAN, 0.0);
    for (uint32_t i = 0; i < 4; i++) {
        const float reward = (float)GROUP[i];
        ck_assert_int_eq(pgrad_rollout_set_array(b.rollout, PGRAD_REWARDS, i, &reward, 1), PGRAD_OK);
    }
    ck_assert_int_eq(pgrad_advantage_apply(advantage, b.rollout), PGRAD_OK);
    for (uint32_t i = 0; i < 4; i++)
        for (int t = 0; t < 4; t++)
            ck_assert_double_eq((double)pgrad_rollout_array(b.rollout, PGRAD_ADVANTAGES, i, NULL)[t],
                                GROUP[i] - 0.875);
    pgrad_advantage_free(advantage);
    drop_batch(&b);
}
END_TEST

/* ---- KL in the reward ---- */

static const float OLD[4][4] = {
    {-1.0f, -2.0f, -0.5f, -3.0f}, {-0.25f, -1.5f, -4.0f, -1.0f}, {-2.5f, -0.75f, -1.25f, -0.5f}, {-3, -1, -2, -1.5f}};
static const float REFERENCE[4][4] = {
    {-1.5f, -1.0f, -0.25f, -5.0f}, {-2.0f, -1.0f, -4.5f, -0.5f}, {-2.0f, -2.0f, -1.0f, -1.0f}, {-1, -1.5f, -2.5f, -4}};
static const float MASK[4][4] = {{1, 0, 1, 1}, {1, 1, 1, 1}, {0, 0, 1, 1}, {1, 1, 1, 0}};
static const float TOKEN_REWARDS[4][4] = {{.5f, 0, -1, 2}, {0, .25f, .5f, 0}, {1, 1, -.5f, 0}, {0, 0, 0, -1}};

static void set_all(const batch *b, uint32_t which, const float values[4][4])
{
    for (uint32_t i = 0; i < 4; i++)
        ck_assert_int_eq(pgrad_rollout_set_array(b->rollout, which, i, values[i], 4), PGRAD_OK);
}

/* sum_{s >= t} r_s - beta m_s (old - reference)_s. */
static double to_go(uint32_t i, uint32_t first, double beta, int masked)
{
    double sum = 0.0;
    for (uint32_t t = first; t < 4; t++)
        sum += (double)TOKEN_REWARDS[i][t] - beta * (masked ? (double)MASK[i][t] : 1.0) *
                                                 ((double)OLD[i][t] - (double)REFERENCE[i][t]);
    return sum;
}

/* What an estimator makes of these four rewards. */
static void expect(uint32_t estimator, const double *reward, double *out)
{
    double sum = reward[0] + reward[1] + reward[2] + reward[3];
    for (uint32_t i = 0; i < 4; i++)
        out[i] = estimator == PGRAD_ADVANTAGE_NONE         ? reward[i]
                 : estimator == PGRAD_ADVANTAGE_BATCH_MEAN ? reward[i] - sum / 4.0
                 : estimator == PGRAD_ADVANTAGE_EMA        ? reward[i] - (sum - reward[i]) / 3.0
                 : estimator == PGRAD_ADVANTAGE_RLOO       ? reward[i] - reward[i ^ 1]
                                                           : (reward[i] - reward[i ^ 1]) / 2.0;
    for (uint32_t i = 0; estimator == PGRAD_ADVANTAGE_GRPO && i < 4; i++) /* the deviation of two */
        out[i] /= fabs(reward[i] - reward[i ^ 1]) / sqrt(2.0) + 1e-4;
}

/* R_i - beta sum_t m_t (old - reference), then the estimator: one reward a sequence. */
START_TEST(k1_in_the_reward)
{
    const uint32_t estimator = (uint32_t)_i / 2;
    const int masked = _i % 2;
    double reward[4], expected[4];
    batch b = make_batch(FOURS);
    pgrad_advantage *advantage = make_estimator(&b, estimator, 0.3);
    set_all(&b, PGRAD_OLD, OLD);
    set_all(&b, PGRAD_REFERENCE, REFERENCE);
    if (masked)
        set_all(&b, PGRAD_MASK, MASK);
    for (uint32_t i = 0; i < 4; i++) {
        const float total = (float)to_go(i, 0, 0.0, 0);
        reward[i] = to_go(i, 0, 0.3, masked);
        ck_assert_int_eq(pgrad_rollout_set_array(b.rollout, PGRAD_REWARDS, i, &total, 1), PGRAD_OK);
    }
    expect(estimator, reward, expected);
    ck_assert_int_eq(pgrad_advantage_apply(advantage, b.rollout), PGRAD_OK);
    for (uint32_t i = 0; i < 4; i++)
        for (int t = 0; t < 4; t++)
            ck_assert_double_eq_tol((double)pgrad_rollout_array(b.rollout, PGRAD_ADVANTAGES, i, NULL)[t],
                                    expected[i], 1e-6);
    pgrad_advantage_free(advantage);
    drop_batch(&b);
}
END_TEST

/* Rewards per token: the same sum for the group estimators, reward-to-go with its own k1 for the others. */
START_TEST(k1_in_token_rewards)
{
    const uint32_t estimator = (uint32_t)_i / 2;
    const int masked = _i % 2, grouped = estimator >= PGRAD_ADVANTAGE_RLOO;
    double reward[4], expected[4];
    batch b = make_batch(FOURS);
    pgrad_advantage *advantage = make_estimator(&b, estimator, 0.3);
    set_all(&b, PGRAD_OLD, OLD);
    set_all(&b, PGRAD_REFERENCE, REFERENCE);
    set_all(&b, PGRAD_REWARDS, TOKEN_REWARDS);
    if (masked)
        set_all(&b, PGRAD_MASK, MASK);
    for (uint32_t i = 0; i < 4; i++)
        reward[i] = to_go(i, 0, 0.3, masked);
    expect(estimator, reward, expected);
    ck_assert_int_eq(pgrad_advantage_apply(advantage, b.rollout), PGRAD_OK);
    for (uint32_t i = 0; i < 4; i++)
        for (uint32_t t = 0; t < 4; t++)
            ck_assert_double_eq_tol((double)pgrad_rollout_array(b.rollout, PGRAD_ADVANTAGES, i, NULL)[t],
                                    expected[i] + (grouped ? 0.0 : to_go(i, t, 0.3, masked) - reward[i]), 1e-6);
    pgrad_advantage_free(advantage);
    drop_batch(&b);
}
END_TEST

/* algorithms.md 12.1, the returns of reinforce_pp, and 12.7, the rewards of PPO: three sequences of their
 * own lengths, k1 against each token. */
START_TEST(k1_worked_numbers)
{
    static const uint32_t LENGTHS[4] = {2, 3, 3, 1};
    static const float ZERO[3] = {0, 0, 0}, K1[2][3] = {{.1f, -.2f}, {.3f, 0, .5f}};
    static const float PPO_OLD[3] = {-1, -2, -.5f}, PPO_REFERENCE[3] = {-1.2f, -1.5f, -.7f};
    static const float LAST[3][3] = {{0, 1}, {0, 0, 0}, {0, 0, 1}};
    static const double RETURNS[3][3] = {{1.01, 1.02}, {-.08, -.05, -.05}, {1.01, 1.03, .98}};
    batch b = make_batch(LENGTHS);
    pgrad_advantage *advantage = make_estimator(&b, PGRAD_ADVANTAGE_NONE, 0.1);
    for (uint32_t i = 0; i < 4; i++) {
        size_t n = LENGTHS[i];
        ck_assert_int_eq(pgrad_rollout_set_array(b.rollout, PGRAD_OLD, i, i < 2   ? K1[i]
                                                                          : i < 3 ? PPO_OLD
                                                                                  : ZERO,
                                                 n),
                         PGRAD_OK);
        ck_assert_int_eq(
            pgrad_rollout_set_array(b.rollout, PGRAD_REFERENCE, i, i == 2 ? PPO_REFERENCE : ZERO, n), PGRAD_OK);
        ck_assert_int_eq(pgrad_rollout_set_array(b.rollout, PGRAD_REWARDS, i, i < 3 ? LAST[i] : ZERO, n),
                         PGRAD_OK);
    }
    ck_assert_int_eq(pgrad_advantage_apply(advantage, b.rollout), PGRAD_OK);
    for (uint32_t i = 0; i < 3; i++)
        for (uint32_t t = 0; t < LENGTHS[i]; t++)
            ck_assert_double_eq_tol((double)pgrad_rollout_array(b.rollout, PGRAD_ADVANTAGES, i, NULL)[t],
                                    RETURNS[i][t], 1e-6);
    static const double D[9] = {.1, -.2, .3, 0, .5, .2, -.5, .2, 0}; /* of all tokens */
    double k3 = 0.0;
    pgrad_step_report report;
    for (int t = 0; t < 9; t++)
        k3 += (exp(-D[t]) - 1.0 + D[t]) / 9.0;
    pgrad_step_report_init(&report, sizeof report);
    ck_assert_int_eq(pgrad_rollout_report(b.rollout, &report), PGRAD_OK);
    ck_assert_double_eq_tol(report.kl, k3, 1e-7);
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
    tcase_add_test(cases, batch_mean);
    tcase_add_loop_test(cases, k1_in_the_reward, 0, 2 * (PGRAD_ADVANTAGE_DR_GRPO + 1));
    tcase_add_loop_test(cases, k1_in_token_rewards, 0, 2 * (PGRAD_ADVANTAGE_DR_GRPO + 1));
    tcase_add_test(cases, k1_worked_numbers);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
