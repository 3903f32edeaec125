/* What several tests of pgrad_train share: the tiny task, and a run of four steps over its six prompts. */
#ifndef PGRAD_TESTS_TRAIN_TEST_H
#define PGRAD_TESTS_TRAIN_TEST_H

#include <check.h>
#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../suite.h"
#include "tiny_task.h"

enum { PROMPTS = MOST_PROMPTS };

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

#endif
