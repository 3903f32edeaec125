/* A training step, call by call. There are eight, and no hidden ones.
 *
 * usage: 05_step [MODEL [STEPS]] */
#include "common.h"

#include <string.h>

static const char *const PROMPTS[] = {"paint it red:", "paint it blue:"};

/* 1 when the completion tells of a cat. */
static int32_t has_cat(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                       pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++)
        pgrad_scores_data(scores)[i] =
            strstr(pgrad_rollout_text(rollout, first + i, NULL), " cat ") != NULL;
    return (int32_t)count;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL;
    int steps = argc > 2 ? atoi(argv[2]) : 20;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_reward *reward;
    pgrad_rollout_params rollout_params;
    pgrad_optimizer_params optimizer_params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_reward_create(context, "has_cat", has_cat, NULL, NULL, &reward));
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 16;
    rollout_params.max_new_tokens = 24;
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.learning_rate = 3e-4;
    CHECK(pgrad_rollout_create(model, tokenizer, &rollout_params, &rollout));
    CHECK(pgrad_sampler_create(context, NULL, &sampler));
    CHECK(pgrad_advantage_create(context, NULL, &advantage)); /* GRPO */
    CHECK(pgrad_objective_create(model, NULL, &objective));   /* PPO clip, mean over tokens */
    CHECK(pgrad_optimizer_create(model, &optimizer_params, &optimizer)); /* AdamW */

    for (int step = 1; step <= steps; step++) {
        pgrad_step_report report;
        pgrad_step_report_init(&report, sizeof report);
        pgrad_rollout_clear(rollout); /* 1 */
        for (int i = 0; i < 2; i++) {
            pgrad_token ids[64];
            size_t n;
            CHECK(pgrad_tokenizer_encode(tokenizer, PROMPTS[i], strlen(PROMPTS[i]),
                                         PGRAD_ENCODE_ADD, ids, 64, &n));
            CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL)); /* 2, once per prompt */
        }
        CHECK(pgrad_rollout_generate(rollout, sampler, NULL));                       /* 3 */
        CHECK(pgrad_reward_apply(reward, rollout));                                  /* 4 */
        CHECK(pgrad_advantage_apply(advantage, rollout));                            /* 5 */
        CHECK(pgrad_model_zero_grad(model));                                         /* 6 */
        CHECK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report)); /* 7 */
        CHECK(pgrad_optimizer_step(optimizer, &report));                             /* 8 */
        CHECK(pgrad_rollout_report(rollout, &report)); /* numbers for people; changes nothing */
        printf("step %2d  reward %.3f  grad_norm %.3f\n", step, report.reward, report.grad_norm);
    }

    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_advantage_free(advantage);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    pgrad_reward_free(reward);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
