/* Training on a group whose prompt is computed once: the same log-probabilities bit for bit, gradients equal
 * to those of separate computation to rounding, and the same bits for any number of threads and kernel set. */
#include "../rl/rl_test.h"

#include <math.h>
#include <string.h>

static const char *const configs[] = {LLAMA_CONFIG, GPT2_CONFIG};
#define N_CONFIGS 2

/* Prompts before, at, and behind the border of a page of 64; GPT-2's context has 96 positions. */
static const size_t lengths[2][4] = {{5, 64, 130, 63}, {5, 64, 70, 63}};

typedef struct gradients {
    size_t n;
    float *values; /* of all tensors, one after another */
    pgrad_step_report report;
} gradients;

static void generate_groups(world *w, int config, pgrad_rollout *rollout)
{
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.9;
    pgrad_token stops[16];
    for (pgrad_token i = 0; i < 16; i++)
        stops[i] = 40 + i;
    params.stop_tokens = stops; /* so that lengths differ, one token among them */
    params.n_stop_tokens = 16;
    pgrad_sampler *sampler = make_sampler(w->context, &params);
    for (uint64_t i = 0; i < 4; i++)
        (void)add_long_prompt(rollout, i, lengths[config][i]);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    pgrad_sampler_free(sampler);
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        const float advantage = (float)((int)(i * 7 % 11) - 5) / 3.0f;
        OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
    }
}

static gradients run(int config, uint32_t kernel_set, uint32_t n_threads, uint32_t share, uint32_t micro)
{
    gradients g = {0};
    world w = {.context = test_context(kernel_set, n_threads)};
    if (w.context == NULL)
        return g; /* this machine cannot run the kernel set */
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, configs[config]);
    w.tokenizer = make_tokenizer(w.context);
    pgrad_rollout *rollout = make_rollout(&w, 4, 5, 24, 0);
    generate_groups(&w, config, rollout);
    pgrad_objective_params params;
    pgrad_objective *objective = NULL;
    pgrad_objective_params_init(&params, sizeof params);
    ck_assert_uint_eq(params.share_prefix, 1);
    params.share_prefix = share;
    params.micro_batch_tokens = micro;
    params.entropy_coefficient = 0.01;
    OK(pgrad_objective_create(w.model, &params, &objective));
    OK(pgrad_model_zero_grad(w.model));
    pgrad_step_report_init(&g.report, sizeof g.report);
    OK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &g.report));
    g.values = all_values(w.model, 1, &g.n);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    end_world(&w);
    return g;
}

/* |a - b| against |b|: the sums over tokens are in another order, everything else has the same bits. */
static void check_near_gradient(const gradients *a, const gradients *b)
{
    double difference = 0.0, norm = 0.0, worst = 0.0, largest = 0.0;
    ck_assert_uint_eq(a->n, b->n);
    for (size_t i = 0; i < a->n; i++) {
        const double d = (double)a->values[i] - (double)b->values[i];
        difference += d * d;
        norm += (double)b->values[i] * (double)b->values[i];
        worst = fmax(worst, fabs(d));
        largest = fmax(largest, fabs((double)b->values[i]));
    }
    ck_assert_double_gt(norm, 0.0);
    ck_assert_msg(sqrt(difference / norm) < 1e-6 && worst < 2e-6 * largest, "%g of the norm, %g of the largest",
                  sqrt(difference / norm), worst / largest);
}

START_TEST(shared_and_separate_gradients_agree)
{
    gradients separate = run(_i, PGRAD_KERNELS_AUTO, 2, 0, 0), shared = run(_i, PGRAD_KERNELS_AUTO, 2, 1, 0);
    check_near_gradient(&shared, &separate);
    ck_assert_double_eq(shared.report.ratio_min, 1.0);
    ck_assert_double_eq(shared.report.ratio_max, 1.0);
    ck_assert_double_eq(shared.report.loss, separate.report.loss);
    ck_assert_double_eq(shared.report.entropy, separate.report.entropy);
    free(separate.values);
    free(shared.values);
}
END_TEST

/* Groups cut by the border of a micro-batch compute their prompt once in each. */
START_TEST(cut_groups_agree)
{
    gradients whole = run(_i, PGRAD_KERNELS_AUTO, 2, 1, 0);
    static const uint32_t cuts[] = {1, 90, 200};
    for (int i = 0; i < 3; i++) {
        gradients cut = run(_i, PGRAD_KERNELS_AUTO, 2, 1, cuts[i]);
        ck_assert_uint_gt(cut.report.n_micro_batches, 1);
        check_near_gradient(&cut, &whole);
        ck_assert_double_eq(cut.report.ratio_min, 1.0);
        ck_assert_double_eq(cut.report.ratio_max, 1.0);
        free(cut.values);
    }
    free(whole.values);
}
END_TEST

START_TEST(threads_and_kernels_change_nothing)
{
    static const struct {
        uint32_t kernel_set, n_threads;
    } settings[] = {{PGRAD_KERNELS_AUTO, 1},    {PGRAD_KERNELS_AUTO, 3},    {PGRAD_KERNELS_AUTO, 8},
                    {PGRAD_KERNELS_GENERIC, 2}, {PGRAD_KERNELS_HASWELL, 1}, {PGRAD_KERNELS_SKX, 2}};
    gradients first = run(_i, PGRAD_KERNELS_AUTO, 2, 1, 0);
    unsigned compared = 0;
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        gradients other = run(_i, settings[i].kernel_set, settings[i].n_threads, 1, 0);
        if (other.n == 0)
            continue;
        ck_assert_uint_eq(other.n, first.n);
        ck_assert(memcmp(other.values, first.values, first.n * sizeof *first.values) == 0);
        ck_assert_double_eq(other.report.loss, first.report.loss);
        free(other.values);
        compared++;
    }
    ck_assert_uint_ge(compared, 4);
    free(first.values);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_prefix");
    TCase *tests = tcase_create("prefix");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, shared_and_separate_gradients_agree, 0, N_CONFIGS);
    tcase_add_loop_test(tests, cut_groups_agree, 0, N_CONFIGS);
    tcase_add_loop_test(tests, threads_and_kernels_change_nothing, 0, N_CONFIGS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
