/* The objective on a tiny model: aggregations, micro-batches, accumulation, KL, entropy, states. */
#include <check.h>
#include <math.h>
#include <policygrad.h>
#include <stdlib.h>
#include <string.h>

static const char CONFIG[] =
    "{\"model_type\":\"llama\",\"vocab_size\":29,\"hidden_size\":24,\"intermediate_size\":40,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"max_position_embeddings\":64,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,"
    "\"initializer_range\":0.2}";

enum { GROUPS = 3, GROUP_SIZE = 2, N = GROUPS * GROUP_SIZE, LMAX = 12, MAX_GRAD = 1 << 16 };
static const uint32_t LENGTHS[N] = {5, 12, 3, 7, 9, 1};

static pgrad_context *context;
static pgrad_model *model;
static pgrad_rollout *rollout;

static void setup(void)
{
    pgrad_rollout_params params;
    ck_assert_int_eq(pgrad_context_create(NULL, &context), PGRAD_OK);
    ck_assert_msg(pgrad_model_create(context, CONFIG, 11, NULL, &model) == PGRAD_OK, "%s",
                  pgrad_error_message());
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = GROUP_SIZE;
    params.max_prompts = GROUPS;
    params.max_prompt_tokens = 8;
    params.max_new_tokens = LMAX;
    ck_assert_int_eq(pgrad_rollout_create(model, NULL, &params, &rollout), PGRAD_OK);
    for (uint32_t group = 0; group < GROUPS; group++) {
        pgrad_token prompt[4] = {(pgrad_token)group, 3, 7, (pgrad_token)(20 + group)};
        ck_assert_int_eq(pgrad_rollout_add_prompt(rollout, prompt, 2 + group % 3, NULL, NULL),
                         PGRAD_OK);
        for (uint32_t k = 0; k < GROUP_SIZE; k++) {
            pgrad_token ids[LMAX];
            for (uint32_t t = 0; t < LMAX; t++)
                ids[t] = (pgrad_token)((7 * group + 5 * k + 3 * t + t * t) % 29);
            ck_assert_int_eq(pgrad_rollout_add_sequence(rollout, group, ids,
                                                        LENGTHS[group * GROUP_SIZE + k], NULL),
                             PGRAD_OK);
        }
    }
    ck_assert_int_eq(pgrad_rollout_score(rollout, model, PGRAD_OLD), PGRAD_OK);
    for (uint32_t i = 0; i < N; i++) {
        float advantage = (i % 2 == 0 ? 1.0f : -0.5f) * (1.0f + 0.25f * (float)i);
        ck_assert_int_eq(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &advantage, 1),
                         PGRAD_OK);
    }
}

static void teardown(void)
{
    pgrad_rollout_free(rollout);
    pgrad_model_free(model);
    pgrad_context_free(context);
}

static pgrad_objective *make(const pgrad_objective_params *params)
{
    pgrad_objective *objective;
    ck_assert_msg(pgrad_objective_create(model, params, &objective) == PGRAD_OK, "%s",
                  pgrad_error_message());
    return objective;
}

/* All gradients, one tensor behind another. */
static size_t all_gradients(float *out)
{
    size_t at = 0;
    const char *name;
    for (uint32_t i = 0; (name = pgrad_model_tensor_name(model, i, NULL, NULL)) != NULL; i++) {
        size_t n;
        ck_assert_int_eq(pgrad_model_grad_read(model, name, out + at, MAX_GRAD - at, &n), PGRAD_OK);
        at += n;
    }
    return at;
}

static pgrad_step_report backward(const pgrad_objective_params *params, float *gradients, size_t *n)
{
    pgrad_step_report report;
    pgrad_objective *objective = make(params);
    pgrad_step_report_init(&report, sizeof report);
    ck_assert_int_eq(pgrad_model_zero_grad(model), PGRAD_OK);
    ck_assert_msg(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report) == PGRAD_OK,
                  "%s", pgrad_error_message());
    *n = all_gradients(gradients);
    pgrad_objective_free(objective);
    return report;
}

static double relative_difference(const float *a, const float *b, size_t n)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < n; i++) {
        difference += ((double)a[i] - (double)b[i]) * ((double)a[i] - (double)b[i]);
        norm += (double)a[i] * (double)a[i];
    }
    return sqrt(difference / norm);
}

static pgrad_objective_params defaults(void)
{
    pgrad_objective_params params;
    pgrad_objective_params_init(&params, sizeof params);
    return params;
}

/* The weights of algorithms 4, by hand: sum_it w_it (-A_i l_it). */
static double by_hand(uint32_t aggregation)
{
    double total = 0.0, tokens = 0.0;
    for (uint32_t i = 0; i < N; i++)
        tokens += LENGTHS[i];
    for (uint32_t i = 0; i < N; i++) {
        const float *l = pgrad_rollout_array(rollout, PGRAD_OLD, i, NULL);
        const float *a = pgrad_rollout_array(rollout, PGRAD_ADVANTAGES, i, NULL);
        double of_group = LENGTHS[i / 2 * 2] + LENGTHS[i / 2 * 2 + 1], w = 1.0 / tokens;
        if (aggregation == PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN)
            w = 1.0 / (N * (double)LENGTHS[i]);
        else if (aggregation == PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_SUM)
            w = 1.0 / N;
        else if (aggregation == PGRAD_AGGREGATE_CONSTANT)
            w = 1.0 / ((double)N * LMAX);
        else if (aggregation == PGRAD_AGGREGATE_PROMPT_MEAN)
            w = 1.0 / (GROUPS * of_group);
        for (uint32_t t = 0; t < LENGTHS[i]; t++)
            total += w * -(double)a[t] * (double)l[t];
    }
    return total;
}

START_TEST(aggregations)
{
    static float gradients[MAX_GRAD];
    size_t n;
    pgrad_objective_params params = defaults();
    params.loss = PGRAD_LOSS_REINFORCE;
    params.aggregation = (uint32_t)_i;
    pgrad_step_report report = backward(&params, gradients, &n);
    ck_assert_double_eq_tol(report.loss, by_hand((uint32_t)_i), 1e-6);
    ck_assert(report.ratio_min == 1.0 && report.ratio_max == 1.0);
    ck_assert(report.clip_low_ratio == 0.0 && report.clip_high_ratio == 0.0);
}
END_TEST

/* Any split into micro-batches changes rounding only, but for MICRO_TOKEN_MEAN, which it must
 * change. */
START_TEST(micro_batches)
{
    static float whole[MAX_GRAD], split[MAX_GRAD];
    size_t n;
    pgrad_objective_params params = defaults();
    params.aggregation = (uint32_t)_i;
    params.entropy_coefficient = 0.01;
    pgrad_step_report one = backward(&params, whole, &n);
    params.micro_batch_tokens = 14;
    pgrad_step_report many = backward(&params, split, &n);
    ck_assert_double_eq(one.n_micro_batches, 1.0);
    ck_assert_double_gt(many.n_micro_batches, 2.0);
    double difference = relative_difference(whole, split, n);
    if (_i == PGRAD_AGGREGATE_MICRO_TOKEN_MEAN)
        ck_assert_double_gt(difference, 1e-3);
    else
        ck_assert_msg(difference < 1e-6, "gradients differ by %g", difference);
}
END_TEST

/* Several calls with the whole step's denominators are one call. */
START_TEST(accumulation)
{
    static float whole[MAX_GRAD], parts[MAX_GRAD];
    size_t n;
    pgrad_objective_params params = defaults();
    params.aggregation = (uint32_t)_i;
    params.entropy_coefficient = 0.02;
    (void)backward(&params, whole, &n);
    const uint32_t halves[2][4] = {{0, 2, 3, 5}, {1, 4}} /* groups are cut */, counts[2] = {4, 2};
    pgrad_objective *objective = make(&params);
    pgrad_backward_params call;
    pgrad_backward_params_init(&call, sizeof call);
    for (int half = 0; half < 2; half++) {
        double part;
        ck_assert_int_eq(
            pgrad_objective_normalizer(objective, rollout, halves[half], counts[half], &part),
            PGRAD_OK);
        call.normalizer_total += part;
        for (uint32_t k = 0; k < counts[half]; k++)
            call.n_tokens_total += LENGTHS[halves[half][k]];
    }
    ck_assert_int_eq(pgrad_model_zero_grad(model), PGRAD_OK);
    for (int half = 0; half < 2; half++)
        ck_assert_msg(pgrad_objective_backward(objective, rollout, halves[half], counts[half],
                                               &call, NULL) == PGRAD_OK,
                      "%s", pgrad_error_message());
    (void)all_gradients(parts);
    ck_assert_double_lt(relative_difference(whole, parts, n), 1e-6);
    pgrad_objective_free(objective);
}
END_TEST

/* The gradient is that of the reported loss: central differences on single weights, KL and entropy
 * in it. */
START_TEST(gradient_of_the_loss)
{
    static float gradients[MAX_GRAD];
    float old_weight;
    size_t n, n_weights;
    const float step = 2e-2f;
    const char *const NAME = "model.layers.1.mlp.down_proj.weight";
    pgrad_model *reference;
    pgrad_objective_params params = defaults();
    params.loss = PGRAD_LOSS_PPO_CLIP;
    params.clip_low = 0.99;
    params.clip_high = 10.0;
    params.kl = (uint32_t)_i;
    params.kl_beta = 0.3;
    params.entropy_coefficient = 0.05;
    ck_assert_int_eq(pgrad_model_create(context, CONFIG, 12, NULL, &reference), PGRAD_OK);
    ck_assert_int_eq(pgrad_rollout_score(rollout, reference, PGRAD_REFERENCE), PGRAD_OK);
    static float w[24 * 40], gradient[24 * 40];
    (void)backward(&params, gradients, &n);
    ck_assert_int_eq(pgrad_model_grad_read(model, NAME, gradient, 24 * 40, &n_weights), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_tensor_read(model, NAME, w, 24 * 40, &n_weights), PGRAD_OK);
    for (size_t i = 17; i < n_weights; i += 211) {
        double losses[2];
        old_weight = w[i];
        for (int side = 0; side < 2; side++) {
            w[i] = old_weight + (side == 0 ? step : -step);
            ck_assert_int_eq(pgrad_model_tensor_write(model, NAME, w, n_weights), PGRAD_OK);
            losses[side] = backward(&params, gradients, &n).loss;
        }
        w[i] = old_weight;
        ck_assert_int_eq(pgrad_model_tensor_write(model, NAME, w, n_weights), PGRAD_OK);
        double numeric = (losses[0] - losses[1]) / (2.0 * (double)step);
        /* f32 forward: the difference quotient is good to some 1e-4. */
        ck_assert_msg(fabs(numeric - (double)gradient[i]) < 3e-4 + 2e-2 * fabs(numeric),
                      "weight %zu: difference quotient %g, gradient %g", i, numeric,
                      (double)gradient[i]);
    }
    pgrad_model_free(reference);
}
END_TEST

START_TEST(states_and_bad_input)
{
    pgrad_objective_params params = defaults();
    params.kl_beta = 0.1;
    pgrad_objective *objective = make(&params);
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, NULL),
                     PGRAD_E_STATE);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "REFERENCE"));
    pgrad_objective_free(objective);
    objective = make(NULL);
    uint32_t wrong = N;
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, &wrong, 1, NULL, NULL),
                     PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "indices[0]"));
    pgrad_rollout_clear(rollout);
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, NULL),
                     PGRAD_E_STATE);
    pgrad_objective_free(objective);
    params.clip_low = 1.5;
    ck_assert_int_eq(pgrad_objective_create(model, &params, &objective), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "objective.clip_low"));
    pgrad_model *frozen;
    ck_assert_int_eq(pgrad_model_snapshot(model, &frozen), PGRAD_OK);
    ck_assert_int_eq(pgrad_objective_create(frozen, NULL, &objective), PGRAD_E_STATE);
    pgrad_model_free(frozen);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("objective");
    TCase *cases = tcase_create("objective");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, aggregations, 0, PGRAD_AGGREGATE_PROMPT_MEAN + 1);
    tcase_add_loop_test(cases, micro_batches, 0, PGRAD_AGGREGATE_MICRO_TOKEN_MEAN + 1);
    tcase_add_loop_test(cases, accumulation, 0, PGRAD_AGGREGATE_PROMPT_MEAN + 1);
    tcase_add_loop_test(cases, gradient_of_the_loss, PGRAD_KL_NONE, PGRAD_KL_K2 + 1);
    tcase_add_test(cases, states_and_bad_input);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
