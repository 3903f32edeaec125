/* The textbook program of this field in C: policy_gradient(model, tokenizer, reward_function,
 * learning_rate, epochs), a step written out call by call. usage: policy_gradient [MODEL [EPOCHS]]
 */
#include <string.h>
#include "common.h"

static const char *const PROMPTS[] = {"paint it red:",   "paint it blue:",  "paint it green:",
                                      "paint it white:", "paint it black:", "paint it gold:"};
enum { N_PROMPTS = 6, GROUP_SIZE = 16, MAX_NEW = 24 };

/* The share of two colours that are the one the prompt asks for. */
static int32_t obedience(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                         pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        CHECK(pgrad_rollout_sequence(rollout, first + i, &info));
        char asked[32];
        int found = 0;
        const char *colour = PROMPTS[info.group] + strlen("paint it ");
        snprintf(asked, sizeof asked, " %.*s ", (int)strcspn(colour, ":"), colour);
        const char *at = pgrad_rollout_text(rollout, first + i, NULL);
        for (; found < 2 && (at = strstr(at, asked)) != NULL; at++)
            found++;
        pgrad_scores_data(scores)[i] = info.finish == PGRAD_FINISH_STOP ? (float)found / 2 : 0;
    }
    return (int32_t)count;
}

static void policy_gradient(pgrad_context *context, pgrad_model *model, pgrad_tokenizer *tokenizer,
                            pgrad_reward *reward, double learning_rate, int epochs)
{
    pgrad_rollout_params rollout_params;
    pgrad_optimizer_params optimizer_params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = GROUP_SIZE;
    rollout_params.max_new_tokens = MAX_NEW;
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.learning_rate = learning_rate;
    CHECK(pgrad_rollout_create(model, tokenizer, &rollout_params, &rollout));
    CHECK(pgrad_sampler_create(context, NULL, &sampler));
    CHECK(pgrad_advantage_create(context, NULL, &advantage));
    CHECK(pgrad_objective_create(model, NULL, &objective));
    CHECK(pgrad_optimizer_create(model, &optimizer_params, &optimizer));
    for (int epoch = 1; epoch <= epochs; epoch++) {
        pgrad_step_report report;
        pgrad_step_report_init(&report, sizeof report);
        pgrad_rollout_clear(rollout);
        for (int i = 0; i < N_PROMPTS; i++) {
            size_t n;
            pgrad_token ids[64];
            CHECK(pgrad_tokenizer_encode(tokenizer, PROMPTS[i], strlen(PROMPTS[i]),
                                         PGRAD_ENCODE_ADD, ids, 64, &n));
            CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
        }
        CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
        CHECK(pgrad_reward_apply(reward, rollout));
        CHECK(pgrad_advantage_apply(advantage, rollout));
        CHECK(pgrad_model_zero_grad(model));
        CHECK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report));
        CHECK(pgrad_optimizer_step(optimizer, &report));
        CHECK(pgrad_rollout_report(rollout, &report));
        if (epoch % 10 == 0)
            printf("epoch %3d  reward %.3f  %s%s\n", epoch, report.reward, PROMPTS[0],
                   pgrad_rollout_text(rollout, 0, NULL));
    }
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_advantage_free(advantage);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_reward *reward;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_reward_create(context, "obedience", obedience, NULL, NULL, &reward));
    policy_gradient(context, model, tokenizer, reward, 1.5e-4, argc > 2 ? atoi(argv[2]) : 60);
    pgrad_reward_free(reward);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
