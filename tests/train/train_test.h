/* What several tests of pgrad_train share: a tiny model, six prompts, a reward, a run of four steps. */
#ifndef PGRAD_TESTS_TRAIN_TEST_H
#define PGRAD_TESTS_TRAIN_TEST_H

#include <check.h>
#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char CONFIG[] = "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":32,\"n_embd\":16,\"n_layer\":2,"
                             "\"n_head\":2,\"activation_function\":\"gelu_new\",\"eos_token_id\":23}";

enum { PROMPTS = 6 };
static pgrad_token ids[PROMPTS][3];
static const pgrad_token *pointers[PROMPTS];
static size_t lengths[PROMPTS];

static inline pgrad_prompts make_prompts(size_t n)
{
    pgrad_prompts prompts;
    for (int i = 0; i < PROMPTS; i++) {
        for (int k = 0; k < 3; k++)
            ids[i][k] = (pgrad_token)((5 * i + k) % 22);
        pointers[i] = ids[i];
        lengths[i] = 1 + (size_t)i % 3;
    }
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = n;
    prompts.ids = pointers;
    prompts.n_ids = lengths;
    return prompts;
}

static size_t n_scored; /* calls of the reward function */

static inline int32_t low_ids(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                              pgrad_scores *scores)
{
    (void)user;
    n_scored++;
    for (uint32_t i = 0; i < count; i++) {
        size_t n;
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, first + i, &n);
        double low = 0.0;
        for (size_t t = 0; t < n; t++)
            low += tokens[t] < 11 ? 1.0 : 0.0;
        pgrad_scores_data(scores)[i] = (float)(low / (double)n);
    }
    return (int32_t)count;
}

typedef struct setting {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_reward *reward;
    pgrad_train_params params;
} setting;

static inline setting make(uint32_t n_threads)
{
    setting s;
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = n_threads;
    ck_assert_int_eq(pgrad_context_create(&params, &s.context), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_create(s.context, CONFIG, 5, NULL, &s.model), PGRAD_OK);
    ck_assert_int_eq(pgrad_reward_create(s.context, "low", low_ids, NULL, NULL, &s.reward),
                     PGRAD_OK);
    pgrad_train_params_init(&s.params, sizeof s.params);
    s.params.steps = 4;
    s.params.prompts_per_step = 3;
    s.params.group_size = 4;
    s.params.max_new_tokens = 6;
    s.params.learning_rate = 1e-3;
    return s;
}

static inline void drop(setting *s)
{
    pgrad_reward_free(s->reward);
    pgrad_model_free(s->model);
    pgrad_context_free(s->context);
}

static inline pgrad_train_report run(setting *s, pgrad_status expected)
{
    pgrad_prompts prompts = make_prompts(PROMPTS);
    pgrad_train_report report = {.struct_size = sizeof report};
    pgrad_status status = pgrad_train(s->model, NULL, s->reward, &prompts, &s->params, &report);
    ck_assert_msg(status == expected, "%s: %s", pgrad_status_name(status), pgrad_error_message());
    return report;
}

static inline int run_suite(const char *name, void (*add)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *cases = tcase_create(name);
    tcase_set_timeout(cases, 120);
    add(cases);
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}

#endif
