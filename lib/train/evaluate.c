#include "train/evaluate.h"

#include <math.h>
#include <string.h>

#include <policygrad/reward.h>

#include "base/context.h"
#include "base/fail.h"
#include "model/model.h"
#include "rl/sampler.h"

enum { MAX_BATCH = 64 };

pgrad_status pgrad__evaluation_init(pgrad__evaluation *evaluation, pgrad_model *model,
                                    pgrad_tokenizer *tokenizer, const pgrad_prompts *prompts,
                                    uint32_t max_new_tokens)
{
    memset(evaluation, 0, sizeof *evaluation);
    evaluation->context = model->context;
    const pgrad_status status =
        pgrad__prompt_set_init(&evaluation->prompts, model, tokenizer, prompts, 0);
    if (status != PGRAD_OK)
        return pgrad__fail_in(status, "eval_prompts: ");
    const size_t n = evaluation->prompts.source.n;
    evaluation->batch = n < MAX_BATCH ? (uint32_t)n : MAX_BATCH;
    pgrad_rollout_params *rollout = &evaluation->params;
    pgrad_rollout_params_init(rollout, sizeof *rollout);
    rollout->group_size = 1;
    rollout->max_prompts = evaluation->batch;
    rollout->max_prompt_tokens = evaluation->prompts.max_tokens;
    rollout->max_new_tokens = max_new_tokens;
    return PGRAD_OK;
}

pgrad_status pgrad__evaluation_take(pgrad__evaluation *evaluation, pgrad_model *model,
                                    pgrad_tokenizer *tokenizer, const pgrad_sampler *sampler)
{
    pgrad_sampler_params params = sampler->params; /* the task is the run's: its stops and bans */
    params.temperature = 0.0;
    PGRAD__TRY(pgrad_rollout_create(model, tokenizer, &evaluation->params, &evaluation->rollout));
    return pgrad_sampler_create(model->context, &params, &evaluation->sampler);
}

void pgrad__evaluation_free(pgrad__evaluation *evaluation)
{
    pgrad_sampler_free(evaluation->sampler);
    pgrad_rollout_free(evaluation->rollout);
    pgrad__prompt_set_free(&evaluation->prompts);
    memset(evaluation, 0, sizeof *evaluation);
}

pgrad_status pgrad__evaluate(pgrad__evaluation *evaluation, pgrad_reward *reward, double *mean)
{
    size_t n = evaluation->prompts.source.n;
    double sum = 0.0, scored = 0.0;
    for (size_t first = 0; first < n; first += evaluation->batch) {
        size_t end = first + evaluation->batch < n ? first + evaluation->batch : n;
        pgrad_rollout_clear(evaluation->rollout);
        for (size_t i = first; i < end; i++)
            PGRAD__TRY(pgrad__prompt_set_add(&evaluation->prompts, i, evaluation->rollout));
        PGRAD__TRY(pgrad_rollout_generate(evaluation->rollout, evaluation->sampler, NULL));
        PGRAD__TRY(pgrad_reward_apply(reward, evaluation->rollout));
        for (uint32_t i = 0; i < pgrad_rollout_count(evaluation->rollout); i++) {
            pgrad_sequence_info info = {.struct_size = sizeof info};
            PGRAD__TRY(pgrad_rollout_sequence(evaluation->rollout, i, &info));
            if (isnan(info.reward))
                continue;
            sum += info.reward;
            scored += 1.0;
        }
    }
    *mean = scored > 0.0 ? sum / scored : NAN;
    return PGRAD_OK;
}
