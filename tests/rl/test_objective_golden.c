/* The whole objective against PyTorch's autograd: clipped ratios, KL to the reference, entropy bonus and a
 * mask, off policy, at tau = 0.8, every gradient tensor: tests/golden/make_models.py. */
#include "../model/model_test.h"

#include <policygrad.h>

enum { GROUPS = 2, GROUP_SIZE = 2, N = GROUPS * GROUP_SIZE };

static const struct {
    const char *name;
    uint32_t kl, aggregation;
} CASES[] = {{"tiny_gpt2", PGRAD_KL_K3_RATIO, PGRAD_AGGREGATE_TOKEN_MEAN},
             {"tiny_llama", PGRAD_KL_K2, PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN}};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

static size_t read_tokens(const pgrad__tensor_set *set, const char *kind, uint32_t i, pgrad_token *out)
{
    char key[32];
    size_t n;
    snprintf(key, sizeof key, "%s.%u", kind, i);
    float *values = golden_read(set, key, &n);
    ck_assert_uint_le(n, 64);
    for (size_t t = 0; t < n; t++)
        out[t] = (pgrad_token)values[t];
    free(values);
    return n;
}

static void set_golden_array(pgrad_rollout *rollout, const pgrad__tensor_set *set, uint32_t which,
                             const char *kind, uint32_t i)
{
    char key[32];
    size_t n;
    snprintf(key, sizeof key, "%s.%u", kind, i);
    float *values = golden_read(set, key, &n);
    OK(pgrad_rollout_set_array(rollout, which, i, values, n));
    free(values);
}

static pgrad_rollout *golden_rollout(pgrad_model *model, const pgrad__tensor_set *set)
{
    pgrad_rollout_params params;
    pgrad_sequence_params sequence;
    pgrad_rollout *rollout = NULL;
    pgrad_token ids[64];
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = GROUP_SIZE;
    params.max_prompts = GROUPS;
    params.max_prompt_tokens = 16;
    params.max_new_tokens = 16;
    OK(pgrad_rollout_create(model, NULL, &params, &rollout));
    pgrad_sequence_params_init(&sequence, sizeof sequence);
    sequence.temperature = 0.8;
    for (uint32_t i = 0; i < N; i++) {
        if (i % GROUP_SIZE == 0)
            OK(pgrad_rollout_add_prompt(rollout, ids, read_tokens(set, "prompt", i / GROUP_SIZE, ids), NULL,
                                        NULL));
        OK(pgrad_rollout_add_sequence(rollout, i / GROUP_SIZE, ids, read_tokens(set, "tokens", i, ids),
                                      &sequence));
        set_golden_array(rollout, set, PGRAD_ADVANTAGES, "advantages", i);
        set_golden_array(rollout, set, PGRAD_OLD, "old", i);
        set_golden_array(rollout, set, PGRAD_REFERENCE, "reference", i);
        set_golden_array(rollout, set, PGRAD_MASK, "mask", i);
    }
    return rollout;
}

static void check_report(const pgrad__tensor_set *set, const pgrad_step_report *report)
{
    const struct {
        const char *what;
        double found;
    } rows[] = {{"loss", report->loss},
                {"policy_loss", report->policy_loss},
                {"kl", report->kl},
                {"entropy", report->entropy},
                {"ratio_mean", report->ratio_mean},
                {"ratio_min", report->ratio_min},
                {"ratio_max", report->ratio_max},
                {"approx_kl", report->approx_kl},
                {"clip_low_ratio", report->clip_low_ratio},
                {"clip_high_ratio", report->clip_high_ratio}};
    size_t n;
    float *expected = golden_read(set, "report", &n);
    ck_assert_uint_eq(n, sizeof rows / sizeof rows[0]);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(fabs(rows[i].found - (double)expected[i]) < 3e-6, "%s: %.8g instead of %.8g",
                      rows[i].what, rows[i].found, (double)expected[i]);
    ck_assert(report->clip_low_ratio > 0.0 && report->clip_high_ratio > 0.0);
    free(expected);
}

/* |found - golden| of every tensor, relative to the golden one's norm. */
static void check_gradients(pgrad_model *model, const pgrad__tensor_set *set)
{
    const char *name;
    for (uint32_t i = 0; (name = pgrad_model_tensor_name(model, i, NULL, NULL)) != NULL; i++) {
        char key[256];
        size_t n, n_found;
        snprintf(key, sizeof key, "grad.%s", name);
        float *expected = golden_read(set, key, &n), *found = malloc(n * sizeof *found);
        double difference = 0.0, norm = 0.0;
        OK(pgrad_model_grad_read(model, name, found, n, &n_found));
        ck_assert_uint_eq(n, n_found);
        for (size_t k = 0; k < n; k++) {
            difference += pow((double)found[k] - (double)expected[k], 2.0);
            norm += pow((double)expected[k], 2.0);
        }
        /* f32 here, f64 there: sums of some thousand products of size one. */
        ck_assert_msg(sqrt(difference) <= 2e-5 * sqrt(norm), "%s: differs by %g, norm %g", name,
                      sqrt(difference), sqrt(norm));
        ck_assert_double_gt(norm, 1e-8);
        free(found);
        free(expected);
    }
    ck_assert_uint_gt(model->n_tensors, 10);
}

static void compare(int which, uint32_t micro_batch_tokens, uint32_t share_prefix)
{
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 2);
    pgrad_model *model = golden_model(context, CASES[which].name);
    pgrad_objective *objective = NULL;
    pgrad_objective_params params;
    pgrad_step_report report;
    pgrad__tensor_set set = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s/objective.safetensors", PGRAD_TEST_DATA, CASES[which].name);
    OK(pgrad__safetensors_open(context, path, &set));
    pgrad_rollout *rollout = golden_rollout(model, &set);
    pgrad_objective_params_init(&params, sizeof params);
    params.clip_high = 0.28;
    params.kl = CASES[which].kl;
    params.kl_beta = 0.5;
    params.entropy_coefficient = 0.3;
    params.aggregation = CASES[which].aggregation;
    params.micro_batch_tokens = micro_batch_tokens;
    params.share_prefix = share_prefix;
    OK(pgrad_objective_create(model, &params, &objective));
    OK(pgrad_model_zero_grad(model));
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report));
    check_report(&set, &report);
    check_gradients(model, &set);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad__tensor_set_free(&set);
    pgrad_model_free(model);
    pgrad_context_free(context);
}

START_TEST(objective_equals_autograd)
{
    compare(_i, 0, 1);
    compare(_i, 0, 0);
    compare(_i, 20, 1);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("objective_golden");
    TCase *tests = tcase_create("objective_golden");
    tcase_add_loop_test(tests, objective_equals_autograd, 0, N_CASES);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
