/* Generation over a cache in f16 and bf16: what is sampled is another thing than with f32, but it depends as
 * little on how it is computed. */
#include "../rl/rl_test.h"

static const char *const configs[] = {LLAMA_CONFIG, GPT2_CONFIG};
#define N_CONFIGS 2

typedef struct setting {
    uint32_t kernel_set, n_threads, batch_size;
} setting;

/* Three prompts of lengths around the pages of 64, two of which begin alike. */
static void fill(pgrad_rollout *rollout, uint32_t n_context)
{
    static const size_t lengths[] = {130, 1, 64};
    static const uint64_t seeds[] = {1, 2, 1};
    for (int i = 0; i < 3; i++)
        (void)add_long_prompt(rollout, seeds[i], lengths[i] < n_context ? lengths[i] : n_context - 8);
}

static record *generate(pgrad_rollout *rollout, pgrad_sampler *sampler, uint32_t n_context, uint32_t speculate)
{
    pgrad_generate_params params;
    pgrad_generate_params_init(&params, sizeof params);
    params.speculate = speculate;
    pgrad_rollout_clear(rollout);
    fill(rollout, n_context);
    OK(pgrad_sampler_set_next_sequence(sampler, 0));
    OK(pgrad_rollout_generate(rollout, sampler, &params));
    return take_record(rollout);
}

/* What a rollout generates that has seen nothing; then again from the pages it has kept, with drafts. */
static record *run_setting(const char *config, setting s, uint32_t storage)
{
    world w = {.context = test_context(s.kernel_set, s.n_threads)};
    if (w.context == NULL)
        return NULL;
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, config);
    w.tokenizer = make_tokenizer(w.context);
    pgrad_rollout *rollout = make_rollout_over(&w, 5, 3, 24, s.batch_size, storage);
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.3; /* repeats itself: drafts */
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    record *fresh = generate(rollout, sampler, w.model->n_context, PGRAD_SPECULATE_OFF);
    record *again = generate(rollout, sampler, w.model->n_context, PGRAD_SPECULATE_ON);
    pgrad_rollout_info info = {.struct_size = sizeof info};
    OK(pgrad_rollout_get_info(rollout, &info));
    ck_assert_uint_ge(info.prompt_tokens_reused, 64);
    ck_assert_uint_gt(info.drafted_tokens, 0);
    same_record(fresh, again);
    free(again);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
    return fresh;
}

START_TEST(how_it_is_computed_changes_nothing)
{
    static const setting settings[] = {{PGRAD_KERNELS_AUTO, 1, 1},    {PGRAD_KERNELS_AUTO, 3, 7},
                                       {PGRAD_KERNELS_AUTO, 8, 0},    {PGRAD_KERNELS_GENERIC, 2, 5},
                                       {PGRAD_KERNELS_HASWELL, 1, 4}, {PGRAD_KERNELS_SKX, 2, 16}};
    const char *config = configs[_i / 2];
    const uint32_t storage = _i % 2 == 0 ? PGRAD_KV_F16 : PGRAD_KV_BF16;
    record *first = run_setting(config, (setting){PGRAD_KERNELS_AUTO, 2, 0}, storage);
    record *f32 = run_setting(config, (setting){PGRAD_KERNELS_AUTO, 2, 0}, PGRAD_KV_F32);
    unsigned compared = 0;
    ck_assert_uint_eq(first->n, 15);
    ck_assert(memcmp(first->logprobs, f32->logprobs, sizeof f32->logprobs) != 0);
    free(f32);
    for (size_t i = 0; i < sizeof settings / sizeof settings[0]; i++) {
        record *other = run_setting(config, settings[i], storage);
        if (other == NULL)
            continue;
        same_record(first, other);
        free(other);
        compared++;
    }
    ck_assert_uint_ge(compared, 4);
    free(first);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_kv");
    TCase *tcase = tcase_create("exact_kv");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, how_it_is_computed_changes_nothing, 0, N_CONFIGS * 2);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
