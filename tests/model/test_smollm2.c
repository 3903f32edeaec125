/* SmolLM2-135M-Instruct, a real model, against what transformers computes with the same dequantised weights
 * (golden/make_smollm2.py): token ids, logits at every position, greedy tokens through the public calls. Skips without
 * the file (sh tests/fetch_models.sh); compare_smollm2.py does the same live, over all logits. */
#include "model_test.h"

#include <stdlib.h>
#include <unistd.h>

#include <policygrad.h>

#include "../golden/smollm2.inc"

#define LOGITS_ERROR 5e-4 /* 30 layers in f32 by two implementations: see compare_smollm2.py */
#define TIE 1e-3f         /* a lead below this is no lead */
#define MAX_TOKENS 256

static pgrad_context *context;
static pgrad_model *model;
static pgrad_tokenizer *tokenizer;
static int n_prompts = SMOLLM2_PROMPTS;

static size_t prompt_length(int i)
{
    return SMOLLM2_OFFSETS[i + 1] - SMOLLM2_OFFSETS[i];
}

START_TEST(ids_are_equal)
{
    pgrad_token ids[MAX_TOKENS];
    for (int i = 0; i < SMOLLM2_PROMPTS; i++) {
        size_t n;
        OK(pgrad_tokenizer_encode(tokenizer, SMOLLM2_TEXTS[i], strlen(SMOLLM2_TEXTS[i]), PGRAD_ENCODE_SPECIAL, ids,
                                  MAX_TOKENS, &n));
        ck_assert_uint_eq(n, prompt_length(i));
        ck_assert_mem_eq(ids, SMOLLM2_IDS + SMOLLM2_OFFSETS[i], n * sizeof *ids);
    }
}
END_TEST

START_TEST(logits_are_near)
{
    const size_t vocab = model->config.n_vocab;
    double worst = 0.0;
    size_t at = 0;
    float *logits = malloc(MAX_TOKENS * vocab * sizeof *logits);
    ck_assert_ptr_nonnull(logits);
    for (int i = 0; i < n_prompts; i++) {
        pgrad_token ids[MAX_TOKENS];
        const size_t n_prompt = prompt_length(i), n = n_prompt + SMOLLM2_NEW - 1;
        ck_assert_uint_le(n, MAX_TOKENS);
        memcpy(ids, SMOLLM2_IDS + SMOLLM2_OFFSETS[i], n_prompt * sizeof *ids);
        memcpy(ids + n_prompt, SMOLLM2_GREEDY + i * SMOLLM2_NEW, (SMOLLM2_NEW - 1) * sizeof *ids);
        OK(pgrad_model_logits(model, ids, n, PGRAD_LOGITS_ALL, logits, n * vocab));
        for (size_t t = 0; t < n; t++)
            for (int probe = 0; probe < SMOLLM2_PROBES; probe++, at++) {
                double error = fabs((double)logits[t * vocab + (size_t)SMOLLM2_PROBE_IDS[at]] -
                                    (double)SMOLLM2_PROBE_LOGITS[at]);
                ck_assert_msg(error <= LOGITS_ERROR, "prompt %d, position %zu, token %d: %g apart", i, t,
                              SMOLLM2_PROBE_IDS[at], error);
                worst = fmax(worst, error);
            }
    }
    free(logits);
    printf("logits: at most %.2e apart over %zu probes\n", worst, at);
}
END_TEST

START_TEST(greedy_tokens_are_equal)
{
    pgrad_rollout_params rollout_params;
    pgrad_sampler_params sampler_params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    int compared = 0;
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 1;
    rollout_params.max_prompts = SMOLLM2_PROMPTS;
    rollout_params.max_new_tokens = SMOLLM2_NEW;
    OK(pgrad_rollout_create(model, tokenizer, &rollout_params, &rollout));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.temperature = 0.0;
    sampler_params.ignore_eos = 1;
    OK(pgrad_sampler_create(context, &sampler_params, &sampler));
    for (int i = 0; i < n_prompts; i++)
        OK(pgrad_rollout_add_prompt(rollout, SMOLLM2_IDS + SMOLLM2_OFFSETS[i], prompt_length(i), NULL, NULL));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (int i = 0; i < n_prompts; i++) {
        size_t n;
        const pgrad_token *ids = pgrad_rollout_tokens(rollout, (uint32_t)i, &n);
        ck_assert_uint_eq(n, SMOLLM2_NEW);
        for (size_t t = 0; t < n; t++) {
            const size_t at = (size_t)i * SMOLLM2_NEW + t;
            if (ids[t] != SMOLLM2_GREEDY[at]) {
                ck_assert_msg(SMOLLM2_LEADS[at] <= TIE, "prompt %d, token %zu: %d, transformers has %d, %g ahead", i, t,
                              ids[t], SMOLLM2_GREEDY[at], (double)SMOLLM2_LEADS[at]);
                break; /* at a tie: what follows has another beginning */
            }
            compared++;
        }
    }
    ck_assert_int_ge(compared, n_prompts * SMOLLM2_NEW * 3 / 4);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
}
END_TEST

int main(void)
{
    char path[1024];
    const char *folder = getenv("PGRAD_TEST_MODELS");
    snprintf(path, sizeof path, "%s/smollm2.gguf", folder == NULL ? "" : folder);
    if (access(path, R_OK) != 0) {
        printf("skipped: no smollm2.gguf in PGRAD_TEST_MODELS (sh tests/fetch_models.sh)\n");
        return 77;
    }
    if (getenv("PGRAD_TEST_SHORT") != NULL)
        n_prompts = 2;
    pgrad_model_params params;
    pgrad_model_params_init(&params, sizeof params);
    params.frozen = 1;
    if (pgrad_context_create(NULL, &context) || pgrad_model_load(context, path, &params, &model) ||
        pgrad_tokenizer_load(context, path, &tokenizer)) {
        printf("%s\n", pgrad_error_message());
        return 1;
    }
    Suite *suite = suite_create("smollm2");
    TCase *tests = tcase_create("smollm2");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, ids_are_equal);
    tcase_add_test(tests, logits_are_near);
    tcase_add_test(tests, greedy_tokens_are_equal);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_set_fork_status(runner, CK_NOFORK); /* a context does not survive a fork */
    srunner_run_all(runner, CK_ENV);
    const int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return failed != 0;
}
