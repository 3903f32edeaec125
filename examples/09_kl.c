/* KL to the model as it was: the same short training twice, free and held by a KL term, and how far
 * each went from the snapshot it began with.
 *
 * usage: 09_kl [MODEL] */
#include "common.h"

#include <string.h>

static const char *const PROMPTS[] = {"paint it red:", "paint it blue:"};

/* Mean over sampled tokens of log pi - log pi_reference: an estimate of the KL divergence, in nats.
 */
static double distance(pgrad_context *context, pgrad_model *model, pgrad_model *reference,
                       pgrad_tokenizer *tokenizer)
{
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_token ids[64];
    size_t n;
    double sum = 0.0, count = 0.0;
    CHECK(pgrad_rollout_create(model, tokenizer, NULL, &rollout));
    CHECK(pgrad_sampler_create(context, NULL, &sampler));
    for (int i = 0; i < 2; i++) {
        CHECK(pgrad_tokenizer_encode(tokenizer, PROMPTS[i], strlen(PROMPTS[i]), PGRAD_ENCODE_ADD,
                                     ids, 64, &n));
        CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
    }
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    CHECK(pgrad_rollout_score(rollout, reference, PGRAD_REFERENCE));
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        const float *sampled = pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, &n),
                    *before = pgrad_rollout_array(rollout, PGRAD_REFERENCE, i, &n);
        for (size_t t = 0; t < n; t++, count++)
            sum += (double)(sampled[t] - before[t]);
    }
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    return sum / count;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL;
    pgrad_context *context;
    pgrad_tokenizer *tokenizer;
    pgrad_reward *reward;
    pgrad_prompts prompts;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_reward_builtin(context, "length", "{\"target\": 6}", &reward));
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = 2;
    prompts.texts = PROMPTS;
    for (int kl_beta = 0; kl_beta <= 1; kl_beta++) {
        pgrad_model *model, *reference;
        pgrad_objective *objective;
        pgrad_objective_params objective_params;
        pgrad_train_params params;
        pgrad_train_report report = {.struct_size = sizeof report};
        CHECK(pgrad_model_load(context, path, NULL, &model));
        CHECK(pgrad_model_snapshot(model, &reference)); /* before the first step */
        pgrad_objective_params_init(&objective_params, sizeof objective_params);
        objective_params.kl_beta = kl_beta;
        CHECK(pgrad_objective_create(model, &objective_params, &objective));
        pgrad_train_params_init(&params, sizeof params);
        params.steps = 15;
        params.prompts_per_step = 2;
        params.max_new_tokens = 24;
        params.learning_rate = 1e-3;
        params.objective = objective;
        params.reference = kl_beta > 0 ? reference : NULL;
        CHECK(pgrad_train(model, tokenizer, reward, &prompts, &params, &report));
        printf("kl_beta %d: reward %.3f -> %.3f, KL to the snapshot %.3f\n", kl_beta,
               report.first_reward, report.last_reward,
               distance(context, model, reference, tokenizer));
        pgrad_objective_free(objective);
        pgrad_model_free(reference);
        pgrad_model_free(model);
    }
    pgrad_reward_free(reward);
    pgrad_tokenizer_free(tokenizer);
    pgrad_context_free(context);
    return 0;
}
