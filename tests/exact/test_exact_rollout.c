/* What is sampled does not depend on how it is computed: batch size, threads, kernel set, shared or repeated
 * prompts; and scoring gives the bits of sampling, so the first importance ratio is exactly 1. */
#include "../rl/rl_test.h"

static const char *const configs[] = {LLAMA_CONFIG, GPT2_CONFIG};
#define N_CONFIGS 2
#define N_TRAINABLE 4 /* f32 and bf16 */
#define N_VARIANTS 6  /* and Q8_0 */

/* Sets the storage of the models to come: every config in each. */
static const char *choose(int index)
{
    model_storage = (uint32_t)(index / N_CONFIGS);
    return configs[index % N_CONFIGS];
}

typedef struct setting {
    uint32_t kernel_set, n_threads, batch_size;
} setting;

/* Four prompts of lengths around the pages of 64, groups of five, ends by stop token or length, a prefix. */
static void fill(pgrad_rollout *rollout, uint32_t n_context)
{
    static const size_t lengths[] = {1, 64, 130, 63};
    pgrad_prompt_params params;
    const pgrad_token prefix[] = {'a', 'b', 'c'};
    for (uint64_t i = 0; i < 4; i++)
        (void)add_long_prompt(rollout, i, lengths[i] < n_context ? lengths[i] : n_context - 4);
    pgrad_prompt_params_init(&params, sizeof params);
    params.prefix = prefix;
    params.n_prefix = 3;
    (void)add_text_prompt(rollout, "a prompt with a forced beginning", &params);
}

static record *run_setting(const char *config, setting s, int cuts)
{
    world w = {.context = test_context(s.kernel_set, s.n_threads)};
    pgrad_token stops[24];
    if (w.context == NULL)
        return NULL; /* this machine cannot run the kernel set */
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, config);
    w.tokenizer = make_tokenizer(w.context);
    pgrad_rollout *rollout = make_rollout(&w, 5, 5, 24, s.batch_size);
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.9;
    for (pgrad_token i = 0; i < 24; i++)
        stops[i] = 40 + i;
    params.stop_tokens = stops;
    params.n_stop_tokens = 24;
    if (cuts) {
        params.top_k = 40;
        params.top_p = 0.9;
        params.repetition_penalty = 1.2;
        params.min_new_tokens = 3;
    }
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    fill(rollout, w.model->n_context);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    record *r = take_record(rollout);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
    return r;
}

START_TEST(batch_size_threads_and_kernels_change_nothing)
{
    static const setting settings[] = {
        {PGRAD_KERNELS_AUTO, 1, 1}, {PGRAD_KERNELS_AUTO, 2, 3},    {PGRAD_KERNELS_AUTO, 3, 7},
        {PGRAD_KERNELS_AUTO, 8, 0}, {PGRAD_KERNELS_GENERIC, 2, 5}, {PGRAD_KERNELS_HASWELL, 1, 4},
        {PGRAD_KERNELS_SKX, 2, 16},
    };
    const char *config = choose(_i / 2);
    record *first = run_setting(config, (setting){PGRAD_KERNELS_AUTO, 2, 0}, _i % 2);
    unsigned stopped = 0, by_length = 0, compared = 0;
    ck_assert_uint_eq(first->n, 25);
    for (uint32_t i = 0; i < first->n; i++) {
        ck_assert_uint_eq(first->number[i], i);
        stopped += first->finish[i] == PGRAD_FINISH_STOP;
        by_length += first->finish[i] == PGRAD_FINISH_LENGTH;
    }
    ck_assert_uint_gt(stopped, 2); /* slots were refilled at different times */
    ck_assert_uint_ge(by_length, 1);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        record *other = run_setting(config, settings[i], _i % 2);
        if (other == NULL)
            continue;
        same_record(first, other);
        free(other);
        compared++;
    }
    ck_assert_uint_ge(compared, 5);
    free(first);
}
END_TEST

/* A group of one among others is what it is alone: its number is set to the same. */
START_TEST(a_sequence_alone_is_the_same)
{
    world w = begin_world(choose(_i));
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *many = make_rollout(&w, 4, 3, 16, 0), *one = make_rollout(&w, 1, 1, 16, 0);
    static const size_t lengths[] = {70, 3, 40};
    for (uint64_t i = 0; i < 3; i++)
        (void)add_long_prompt(many, i, lengths[i]);
    OK(pgrad_rollout_generate(many, sampler, NULL));
    record *all = take_record(many);
    for (uint32_t i = 0; i < 12; i++) {
        pgrad_rollout_clear(one);
        (void)add_long_prompt(one, i / 4, lengths[i / 4]);
        OK(pgrad_sampler_set_next_sequence(sampler, i));
        OK(pgrad_rollout_generate(one, sampler, NULL));
        record *alone = take_record(one);
        ck_assert_uint_eq(alone->n_tokens[0], all->n_tokens[i]);
        for (uint32_t t = 0; t < alone->n_tokens[0]; t++) {
            ck_assert_int_eq(alone->tokens[0][t], all->tokens[i][t]);
            ck_assert(memcmp(&alone->logprobs[0][t], &all->logprobs[i][t], sizeof(float)) == 0);
        }
        free(alone);
    }
    free(all);
    pgrad_rollout_free(one);
    pgrad_rollout_free(many);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

static void same_values(const pgrad_rollout *rollout, uint32_t i, uint32_t which, uint32_t as)
{
    size_t n, m;
    const float *a = pgrad_rollout_array(rollout, which, i, &n), *b = pgrad_rollout_array(rollout, as, i, &m);
    ck_assert(a != NULL && b != NULL && n == m && n > 0);
    for (size_t t = 0; t < n; t++)
        ck_assert_msg(memcmp(&a[t], &b[t], sizeof *a) == 0, "sequence %u, token %zu: %.9g and %.9g", i, t,
                      (double)a[t], (double)b[t]);
}

START_TEST(scoring_has_the_bits_of_sampling)
{
    world w = begin_world(choose(_i));
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.8;
    params.top_k = 60; /* LOGPROBS are untruncated all the same */
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 5, 5, 24, 3);
    pgrad_model *snapshot = NULL;
    fill(rollout, w.model->n_context);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    record *before = take_record(rollout);
    ck_assert_ptr_null(pgrad_rollout_array(rollout, PGRAD_CURRENT, 0, NULL));
    OK(pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT));
    OK(pgrad_model_snapshot(w.model, &snapshot));
    OK(pgrad_rollout_score(rollout, snapshot, PGRAD_REFERENCE));
    OK(pgrad_rollout_score(rollout, w.model, PGRAD_OLD));
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        same_values(rollout, i, PGRAD_CURRENT, PGRAD_LOGPROBS);
        same_values(rollout, i, PGRAD_REFERENCE, PGRAD_LOGPROBS);
        same_values(rollout, i, PGRAD_OLD, PGRAD_LOGPROBS);
    }
    record *after = take_record(rollout); /* the entropy was scored anew */
    same_record(before, after);
    free(before);
    free(after);
    pgrad_model_free(snapshot);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* Whatever the temperature, and although the sampler cuts: LOGPROBS are those of the whole distribution. */
START_TEST(the_first_ratio_is_exactly_one)
{
    world w = begin_world(choose(_i / 3));
    pgrad_sampler_params params = sampler_defaults();
    if (_i % 3 > 0)
        params.temperature = 0.9;
    if (_i % 3 > 1) {
        params.top_k = 40;
        params.top_p = 0.8;
        params.min_p = 0.01;
        params.repetition_penalty = 1.3;
    }
    pgrad_objective_params objective_params;
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 5, 5, 24, 4);
    pgrad_objective *objective = NULL;
    pgrad_step_report report;
    fill(rollout, w.model->n_context);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        const float advantage = i % 2 ? 1.0f : -0.5f;
        OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
    }
    pgrad_objective_params_init(&objective_params, sizeof objective_params);
    objective_params.micro_batch_tokens = 200;
    OK(pgrad_objective_create(w.model, &objective_params, &objective));
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report));
    ck_assert(report.ratio_min == 1.0 && report.ratio_max == 1.0 && report.ratio_mean == 1.0);
    ck_assert(report.approx_kl == 0.0);
    ck_assert(report.clip_low_ratio == 0.0 && report.clip_high_ratio == 0.0);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_rollout");
    TCase *tcase = tcase_create("exact_rollout");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, batch_size_threads_and_kernels_change_nothing, 0, 2 * N_VARIANTS);
    tcase_add_loop_test(tcase, a_sequence_alone_is_the_same, 0, N_VARIANTS);
    tcase_add_loop_test(tcase, scoring_has_the_bits_of_sampling, 0, N_VARIANTS);
    tcase_add_loop_test(tcase, the_first_ratio_is_exactly_one, 0, 3 * N_TRAINABLE);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
