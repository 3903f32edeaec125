/* The objective on a tiny model: aggregations, micro-batches, accumulation, KL, entropy, states. */
#include <check.h>
#include <math.h>
#include <policygrad.h>
#include <stdlib.h>
#include <string.h>

#include "../suite.h"

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

static pgrad_step_report backward_of(const pgrad_objective_params *params, const uint32_t *indices,
                                     uint32_t n_indices, float *gradients, size_t *n)
{
    pgrad_step_report report;
    pgrad_objective *objective = make(params);
    pgrad_step_report_init(&report, sizeof report);
    ck_assert_int_eq(pgrad_model_zero_grad(model), PGRAD_OK);
    ck_assert_msg(pgrad_objective_backward(objective, rollout, indices, n_indices, NULL, &report) ==
                      PGRAD_OK,
                  "%s", pgrad_error_message());
    *n = all_gradients(gradients);
    pgrad_objective_free(objective);
    return report;
}

static pgrad_step_report backward(const pgrad_objective_params *params, float *gradients, size_t *n)
{
    return backward_of(params, NULL, 0, gradients, n);
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

static void set_values(uint32_t which, uint32_t i, const float *values)
{
    ck_assert_msg(pgrad_rollout_set_array(rollout, which, i, values, LENGTHS[i]) == PGRAD_OK, "%s",
                  pgrad_error_message());
}

static float mask_of(uint32_t i, uint32_t t)
{
    const float *mask = pgrad_rollout_array(rollout, PGRAD_MASK, i, NULL);
    return mask == NULL ? 1.0f : mask[t];
}

/* T_i, and M. */
static double learned_of(uint32_t i)
{
    double count = 0.0;
    for (uint32_t t = 0; t < LENGTHS[i]; t++)
        count += (double)mask_of(i, t);
    return count;
}

static double learned_in_all(void)
{
    double count = 0.0;
    for (uint32_t i = 0; i < N; i++)
        count += learned_of(i);
    return count;
}

/* The weights of algorithms 4, by hand: sum_it w_it m_it (-A_it l_it). */
static double by_hand(uint32_t aggregation)
{
    double total = 0.0, tokens = learned_in_all(), non_empty = 0.0;
    for (uint32_t i = 0; i < N; i++)
        non_empty += learned_of(i) > 0.0 ? 1.0 : 0.0;
    for (uint32_t i = 0; i < N; i++) {
        const float *l = pgrad_rollout_array(rollout, PGRAD_OLD, i, NULL);
        const float *a = pgrad_rollout_array(rollout, PGRAD_ADVANTAGES, i, NULL);
        double of_group = learned_of(i / 2 * 2) + learned_of(i / 2 * 2 + 1), w = 1.0 / tokens;
        if (aggregation == PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN)
            w = 1.0 / (non_empty * fmax(1.0, learned_of(i)));
        else if (aggregation == PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_SUM)
            w = 1.0 / non_empty;
        else if (aggregation == PGRAD_AGGREGATE_CONSTANT)
            w = 1.0 / ((double)N * LMAX);
        else if (aggregation == PGRAD_AGGREGATE_PROMPT_MEAN)
            w = 1.0 / (GROUPS * of_group);
        for (uint32_t t = 0; t < LENGTHS[i]; t++)
            total += w * (double)mask_of(i, t) * -(double)a[t] * (double)l[t];
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

/* ---- the gradient is that of the reported loss, term by term ---- */

static const char *const NAMES[] = {"model.layers.1.mlp.down_proj.weight",
                                    "model.layers.0.self_attn.v_proj.weight", "model.norm.weight"};
enum { N_NAMES = sizeof NAMES / sizeof NAMES[0], N_WEIGHTS = 24 * 40, N_DIRECTIONS = 8 };

/* A pattern that belongs to numbers alone. */
static float noise(uint32_t i, uint32_t t, uint32_t what)
{
    return (float)((i * 37 + t * 101 + what * 53 + t * t * 7) % 64) / 32.0f - 1.0f;
}

/* Away from the policy: OLD within a factor of 1.35, REFERENCE within one of 1.65. */
static void go_off_policy(int with_advantages)
{
    for (uint32_t i = 0; i < N; i++) {
        float old[LMAX], reference[LMAX], advantage[LMAX];
        ck_assert_int_eq(pgrad_rollout_score(rollout, model, PGRAD_CURRENT), PGRAD_OK);
        const float *l = pgrad_rollout_array(rollout, PGRAD_CURRENT, i, NULL);
        for (uint32_t t = 0; t < LENGTHS[i]; t++) {
            old[t] = l[t] + 0.3f * noise(i, t, 0);
            reference[t] = l[t] + 0.5f * noise(i, t, 1);
            advantage[t] = with_advantages ? 5.0f * noise(i, t, 2) : 0.0f;
        }
        set_values(PGRAD_OLD, i, old);
        set_values(PGRAD_REFERENCE, i, reference);
        set_values(PGRAD_ADVANTAGES, i, advantage);
    }
}

/* Three of four tokens are learned from, and none of the last sequence's only one. */
static void set_masks(void)
{
    for (uint32_t i = 0; i < N; i++) {
        float mask[LMAX];
        for (uint32_t t = 0; t < LENGTHS[i]; t++)
            mask[t] = (i + t) % 4 == 1 ? 0.0f : 1.0f;
        set_values(PGRAD_MASK, i, mask);
    }
}

/* Unit directions: the gradient itself, patterns of signs, single weights. */
static void make_direction(int number, const float *gradient, double norm, size_t n, double *out)
{
    for (size_t i = 0; i < n; i++) {
        if (number == 0)
            out[i] = (double)gradient[i] / norm;
        else if (number < 4)
            out[i] = ((i * (size_t)(2 * number + 1) / 3) % 2 == 0 ? 1.0 : -1.0) / sqrt((double)n);
        else
            out[i] = i == (size_t)number * 211 % n ? 1.0 : 0.0;
    }
}

/* (L(w + step u) - L(w - step u)) / 2 step. */
static double difference_quotient(const pgrad_objective_params *params, const char *name,
                                  const float *weights, const double *direction, size_t n, double step)
{
    static float moved[N_WEIGHTS], unused[MAX_GRAD];
    double losses[2];
    size_t n_gradients;
    for (int side = 0; side < 2; side++) {
        for (size_t i = 0; i < n; i++)
            moved[i] = (float)((double)weights[i] + (side == 0 ? step : -step) * direction[i]);
        ck_assert_int_eq(pgrad_model_tensor_write(model, name, moved, n), PGRAD_OK);
        losses[side] = backward(params, unused, &n_gradients).loss;
    }
    ck_assert_int_eq(pgrad_model_tensor_write(model, name, weights, n), PGRAD_OK);
    return (losses[0] - losses[1]) / (2.0 * step);
}

static const struct {
    const char *term;
    uint32_t kl;
    double kl_beta, entropy;
    int advantages;
} TERMS[] = {{"policy", PGRAD_KL_NONE, 0.0, 0.0, 1},
             {"k3_ratio", PGRAD_KL_K3_RATIO, 5.0, 0.0, 0},
             {"k2", PGRAD_KL_K2, 5.0, 0.0, 0},
             {"entropy", PGRAD_KL_NONE, 0.0, 5.0, 0}};
enum { N_TERMS = sizeof TERMS / sizeof TERMS[0] };

/* Each term alone, so that none hides behind another; with and without a mask. */
START_TEST(gradient_of_the_loss)
{
    static float weights[N_WEIGHTS], gradient[N_WEIGHTS], unused[MAX_GRAD];
    static double direction[N_WEIGHTS];
    const int term = _i / 2;
    pgrad_objective_params params = defaults();
    size_t n, n_read;
    params.clip_low = 0.99; /* so that the loss is smooth everywhere */
    params.clip_high = 10.0;
    params.kl = TERMS[term].kl;
    params.kl_beta = TERMS[term].kl_beta;
    params.entropy_coefficient = TERMS[term].entropy;
    go_off_policy(TERMS[term].advantages);
    if (_i % 2 == 1)
        set_masks();
    for (int name = 0; name < N_NAMES; name++) {
        double norm = 0.0;
        (void)backward(&params, unused, &n);
        ck_assert_int_eq(pgrad_model_grad_read(model, NAMES[name], gradient, N_WEIGHTS, &n), PGRAD_OK);
        ck_assert_int_eq(pgrad_model_tensor_read(model, NAMES[name], weights, N_WEIGHTS, &n_read), PGRAD_OK);
        for (size_t i = 0; i < n; i++)
            norm += (double)gradient[i] * (double)gradient[i];
        norm = sqrt(norm);
        ck_assert_double_gt(norm, 0.02);
        for (int d = 0; d < N_DIRECTIONS; d++) {
            double exact = 0.0, step = 2e-2;
            make_direction(d, gradient, norm, n, direction);
            for (size_t i = 0; i < n; i++)
                exact += direction[i] * (double)gradient[i];
            /* Two steps of central differences leave an error of the fourth order. */
            double narrow = difference_quotient(&params, NAMES[name], weights, direction, n, step),
                   wide = difference_quotient(&params, NAMES[name], weights, direction, n, 2.0 * step),
                   numeric = (4.0 * narrow - wide) / 3.0;
            ck_assert_msg(fabs(numeric - exact) < 1e-3 * norm,
                          "%s, %s, direction %d: difference quotient %g, gradient %g, norm %g",
                          TERMS[term].term, NAMES[name], d, numeric, exact, norm);
        }
    }
}
END_TEST

/* ---- masks ---- */

/* A masked token is as if its weight were 0 and M, N+ and T_i had never counted it. */
START_TEST(mask_by_hand)
{
    static float masked[MAX_GRAD], zeroed[MAX_GRAD];
    size_t n;
    pgrad_objective_params params = defaults();
    params.loss = PGRAD_LOSS_REINFORCE;
    params.aggregation = (uint32_t)_i;
    set_masks();
    pgrad_step_report report = backward(&params, masked, &n);
    ck_assert_double_eq_tol(report.loss, by_hand((uint32_t)_i), 1e-6);
    /* The same with advantages of 0 in the mask's place, where no sequence's own count is in the weight; the
     * last sequence is then in the batch, so rounding differs. */
    if (_i != PGRAD_AGGREGATE_TOKEN_MEAN && _i != PGRAD_AGGREGATE_CONSTANT &&
        _i != PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_SUM)
        return;
    pgrad_objective *objective = make(&params);
    pgrad_backward_params call;
    pgrad_backward_params_init(&call, sizeof call);
    ck_assert_int_eq(pgrad_objective_normalizer(objective, rollout, NULL, 0, &call.normalizer_total), PGRAD_OK);
    ck_assert_double_eq(call.normalizer_total, _i == PGRAD_AGGREGATE_TOKEN_MEAN ? learned_in_all()
                                               : _i == PGRAD_AGGREGATE_CONSTANT ? N
                                                                                : N - 1);
    for (uint32_t i = 0; i < N; i++) {
        float advantage[LMAX], ones[LMAX];
        for (uint32_t t = 0; t < LENGTHS[i]; t++) {
            ones[t] = 1.0f;
            advantage[t] = mask_of(i, t) * pgrad_rollout_array(rollout, PGRAD_ADVANTAGES, i, NULL)[t];
        }
        set_values(PGRAD_ADVANTAGES, i, advantage);
        set_values(PGRAD_MASK, i, ones);
    }
    ck_assert_int_eq(pgrad_model_zero_grad(model), PGRAD_OK);
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, NULL, 0, &call, NULL), PGRAD_OK);
    ck_assert_uint_eq(all_gradients(zeroed), n);
    ck_assert_double_lt(relative_difference(masked, zeroed, n), 1e-6);
    pgrad_objective_free(objective);
}
END_TEST

/* Means of ratio, entropy and KL go over learned tokens; a sequence without one is left out. */
START_TEST(mask_in_the_report)
{
    static float gradients[MAX_GRAD];
    size_t n;
    pgrad_objective_params params = defaults();
    params.kl = PGRAD_KL_K2;
    params.kl_beta = 0.25;
    params.entropy_coefficient = 0.5;
    go_off_policy(1);
    set_masks();
    float none[LMAX] = {0};
    set_values(PGRAD_MASK, 3, none);
    double ratio = 0.0, kl = 0.0, entropy = 0.0, low = INFINITY, high = -INFINITY;
    for (uint32_t i = 0; i < N; i++)
        for (uint32_t t = 0; t < LENGTHS[i]; t++) {
            if (mask_of(i, t) == 0.0f)
                continue;
            double l = (double)pgrad_rollout_array(rollout, PGRAD_CURRENT, i, NULL)[t];
            double r = exp(l - (double)pgrad_rollout_array(rollout, PGRAD_OLD, i, NULL)[t]);
            double d = l - (double)pgrad_rollout_array(rollout, PGRAD_REFERENCE, i, NULL)[t];
            ratio += r / learned_in_all();
            kl += 0.5 * d * d / learned_in_all();
            entropy += (double)pgrad_rollout_array(rollout, PGRAD_ENTROPY, i, NULL)[t] / learned_in_all();
            low = fmin(low, r);
            high = fmax(high, r);
        }
    pgrad_step_report report = backward(&params, gradients, &n);
    ck_assert_double_eq_tol(report.ratio_mean, ratio, 1e-9);
    ck_assert_double_eq_tol(report.ratio_min, low, 1e-12);
    ck_assert_double_eq_tol(report.ratio_max, high, 1e-12);
    ck_assert_double_eq_tol(report.kl, kl, 1e-9);
    ck_assert_double_eq_tol(report.entropy, entropy, 1e-6);
    ck_assert_double_eq_tol(report.loss, report.policy_loss + 0.25 * kl - 0.5 * entropy, 1e-6);
}
END_TEST

/* ---- worked numbers ---- */

/* algorithms.md 12.2, the first six rows as one masked batch: 2 of 6 tokens are clipped. */
START_TEST(clip_ratios)
{
    static const double D[6] = {.1, .3, -.3, .1, .3, -.3}; /* l + 1.5 */
    static const double F[6] = {-2.210341836, -2.4, -1.481636441, 2.210341836, 2.699717615, 1.6};
    const uint32_t sequence = 3; /* of seven tokens; the last is masked */
    float old[LMAX], advantage[LMAX], mask[LMAX];
    pgrad_objective_params params = defaults();
    pgrad_step_report report;
    double ratio = 0.0, approx_kl = 0.0, policy = 0.0;
    const float *l = pgrad_rollout_array(rollout, PGRAD_OLD, sequence, NULL);
    for (uint32_t t = 0; t < 7; t++) {
        old[t] = l[t] - (t < 6 ? (float)D[t] : 3.0f);
        advantage[t] = t < 3 ? 2.0f : -2.0f;
        mask[t] = t < 6 ? 1.0f : 0.0f;
    }
    for (int t = 0; t < 6; t++) {
        ratio += exp(D[t]) / 6.0;
        approx_kl += (exp(D[t]) - 1.0 - D[t]) / 6.0;
        policy += F[t] / 6.0;
    }
    set_values(PGRAD_OLD, sequence, old);
    set_values(PGRAD_ADVANTAGES, sequence, advantage);
    set_values(PGRAD_MASK, sequence, mask);
    pgrad_objective *objective = make(&params);
    pgrad_step_report_init(&report, sizeof report);
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, &sequence, 1, NULL, &report), PGRAD_OK);
    ck_assert_double_eq(report.clip_high_ratio, 1.0 / 6.0);
    ck_assert_double_eq(report.clip_low_ratio, 1.0 / 6.0);
    ck_assert_double_eq_tol(report.ratio_mean, ratio, 1e-6);
    ck_assert_double_eq_tol(report.ratio_min, 0.7408182207, 1e-6);
    ck_assert_double_eq_tol(report.ratio_max, 1.349858808, 1e-6);
    ck_assert_double_eq_tol(report.approx_kl, approx_kl, 1e-6);
    ck_assert_double_eq_tol(report.policy_loss, policy, 1e-5);
    /* One more token clipped above moves the one count only. */
    advantage[3] = 2.0f;
    old[3] = l[3] - 0.3f;
    set_values(PGRAD_OLD, sequence, old);
    set_values(PGRAD_ADVANTAGES, sequence, advantage);
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, &sequence, 1, NULL, &report), PGRAD_OK);
    ck_assert_double_eq(report.clip_high_ratio, 2.0 / 6.0);
    ck_assert_double_eq(report.clip_low_ratio, 1.0 / 6.0);
    pgrad_objective_free(objective);
}
END_TEST

/* algorithms.md 12.7: l = [-1.2, -.4, -2] against [-1, -.5, -1.7], as OLD and as REFERENCE. */
START_TEST(diagnostics)
{
    static const double D[3] = {-1.2 + 1.0, -0.4 + 0.5, -2.0 + 1.7};
    const uint32_t sequence = 2; /* of three tokens */
    float other[LMAX];
    pgrad_objective_params params = defaults();
    pgrad_step_report report;
    const float *l = pgrad_rollout_array(rollout, PGRAD_OLD, sequence, NULL);
    for (uint32_t t = 0; t < 3; t++)
        other[t] = l[t] - (float)D[t];
    set_values(PGRAD_OLD, sequence, other);
    set_values(PGRAD_REFERENCE, sequence, other);
    params.kl = PGRAD_KL_K2;
    params.kl_beta = 0.1;
    pgrad_objective *objective = make(&params);
    pgrad_step_report_init(&report, sizeof report);
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, &sequence, 1, NULL, &report), PGRAD_OK);
    ck_assert_double_eq_tol(report.approx_kl, 0.02157329728, 2e-7); /* floats near 3 */
    ck_assert_double_eq_tol(report.kl, 0.02333333333, 2e-7);        /* mean(d^2 / 2) */
    pgrad_objective_free(objective);
}
END_TEST

/* algorithms.md 12.2: f = [[1, 2, 3], [4]], N = 2, Lmax = 4. */
START_TEST(aggregation_row)
{
    static const double WANTED[] = {2.5, 3.0, 5.0, 1.25, 3.0, 3.0};
    static const float F[2][3] = {{1, 2, 3}, {4}};
    const uint32_t chosen[2] = {2, 5}; /* of three tokens, and of one */
    const float none[LMAX] = {0};
    pgrad_objective_params params = defaults();
    pgrad_step_report report;
    params.loss = PGRAD_LOSS_REINFORCE;
    params.aggregation = (uint32_t)_i;
    params.max_new_tokens = 4;
    params.micro_batch_tokens = 1; /* one sequence each */
    set_values(PGRAD_MASK, 3, none); /* each is all that its group learns from */
    set_values(PGRAD_MASK, 4, none);
    for (int k = 0; k < 2; k++) {
        float advantage[3];
        const float *l = pgrad_rollout_array(rollout, PGRAD_OLD, chosen[k], NULL);
        for (uint32_t t = 0; t < LENGTHS[chosen[k]]; t++)
            advantage[t] = -F[k][t] / l[t];
        set_values(PGRAD_ADVANTAGES, chosen[k], advantage);
    }
    pgrad_objective *objective = make(&params);
    pgrad_step_report_init(&report, sizeof report);
    ck_assert_int_eq(pgrad_objective_backward(objective, rollout, chosen, 2, NULL, &report), PGRAD_OK);
    ck_assert_double_eq(report.n_micro_batches, 2.0);
    ck_assert_double_eq_tol(report.policy_loss, WANTED[_i], 5e-6 * WANTED[_i]);
    pgrad_objective_free(objective);
}
END_TEST

/* algorithms.md 12.11: with equal T, token_mean = sequence_mean_token_mean = sequence_mean_token_sum / T =
 * constant with Lmax = T; and prompt_mean is the same with equal groups. */
START_TEST(equal_lengths)
{
    enum { T = 3, USED = 4 };
    static const struct {
        uint32_t aggregation;
        double scale;
    } SAME[] = {{PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN, 1.0},
                {PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_SUM, T},
                {PGRAD_AGGREGATE_CONSTANT, 1.0},
                {PGRAD_AGGREGATE_PROMPT_MEAN, 1.0}};
    static float first[MAX_GRAD], other[MAX_GRAD];
    const uint32_t chosen[USED] = {0, 1, 2, 3}; /* two groups */
    size_t n;
    for (uint32_t i = 0; i < USED; i++) {
        float mask[LMAX] = {1, 1, 1};
        set_values(PGRAD_MASK, i, mask);
    }
    pgrad_objective_params params = defaults();
    params.loss = PGRAD_LOSS_REINFORCE;
    params.max_new_tokens = T;
    double loss = backward_of(&params, chosen, USED, first, &n).loss;
    for (size_t k = 0; k < sizeof SAME / sizeof SAME[0]; k++) {
        params.aggregation = SAME[k].aggregation;
        double found = backward_of(&params, chosen, USED, other, &n).loss / SAME[k].scale;
        ck_assert_double_eq_tol(found, loss, 1e-12 * fabs(loss));
        for (size_t i = 0; i < n; i++)
            other[i] = (float)((double)other[i] / SAME[k].scale);
        ck_assert_double_lt(relative_difference(first, other, n), 1e-6);
    }
}
END_TEST

/* Supervised learning is of the model's own distribution, whatever tau its sequences were drawn at. */
START_TEST(supervised_at_any_temperature)
{
    static float gradients[2][MAX_GRAD];
    static const pgrad_token prompt[3] = {1, 2, 3}, ids[4] = {7, 8, 9, 10};
    double loss[2];
    size_t n;
    pgrad_objective_params params = defaults();
    params.loss = PGRAD_LOSS_SUPERVISED;
    for (int half = 0; half < 2; half++) {
        pgrad_sequence_params sequence;
        pgrad_sequence_params_init(&sequence, sizeof sequence);
        sequence.temperature = half ? 0.5 : 1.0;
        pgrad_rollout_clear(rollout);
        ck_assert_int_eq(pgrad_rollout_add_prompt(rollout, prompt, 3, NULL, NULL), PGRAD_OK);
        ck_assert_int_eq(pgrad_rollout_add_sequence(rollout, 0, ids, 4, &sequence), PGRAD_OK);
        loss[half] = backward(&params, gradients[half], &n).loss;
    }
    ck_assert_double_gt(loss[0], 0.0);
    ck_assert(loss[0] == loss[1]);
    ck_assert_mem_eq(gradients[0], gradients[1], n * sizeof(float));
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
    /* A model that has no room for what another one sampled. */
    pgrad_model *narrow;
    pgrad_objective *of_narrow;
    char config[sizeof CONFIG];
    memcpy(config, CONFIG, sizeof CONFIG);
    char *positions = strstr(config, "\"max_position_embeddings\":");
    ck_assert_ptr_nonnull(positions);
    for (positions += strlen("\"max_position_embeddings\":"); positions[1] >= '0' && positions[1] <= '9'; positions++)
        *positions = ' ';
    *positions = '2';
    ck_assert_int_eq(pgrad_model_create(context, config, 1, NULL, &narrow), PGRAD_OK);
    for (int supervised = 0; supervised < 2; supervised++) {
        pgrad_objective_params narrow_params = defaults();
        narrow_params.loss = supervised ? PGRAD_LOSS_SUPERVISED : PGRAD_LOSS_REINFORCE;
        ck_assert_int_eq(pgrad_objective_create(narrow, &narrow_params, &of_narrow), PGRAD_OK);
        ck_assert_int_eq(pgrad_objective_backward(of_narrow, rollout, NULL, 0, NULL, NULL), PGRAD_E_MISMATCH);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "sequence 0 takes"));
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "the model's context is 2"));
        pgrad_objective_free(of_narrow);
    }
    pgrad_model_free(narrow);
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
    tcase_add_loop_test(cases, gradient_of_the_loss, 0, 2 * N_TERMS);
    tcase_add_loop_test(cases, mask_by_hand, 0, PGRAD_AGGREGATE_PROMPT_MEAN + 1);
    tcase_add_test(cases, mask_in_the_report);
    tcase_add_test(cases, clip_ratios);
    tcase_add_test(cases, diagnostics);
    tcase_add_loop_test(cases, aggregation_row, 0, PGRAD_AGGREGATE_MICRO_TOKEN_MEAN + 1);
    tcase_add_test(cases, equal_lengths);
    tcase_add_test(cases, supervised_at_any_temperature);
    tcase_add_test(cases, states_and_bad_input);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
