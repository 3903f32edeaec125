/* Greedy evaluation on held-out prompts: its own rollout and sampler, so training's random numbers,
 * baselines and counters are never touched. */
#ifndef PGRAD_TRAIN_EVALUATE_H
#define PGRAD_TRAIN_EVALUATE_H

#include "train/prompts.h"

typedef struct pgrad__evaluation {
    pgrad_context *context;
    pgrad__prompt_set prompts;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_rollout_params params;
    uint32_t batch; /* prompts at once */
} pgrad__evaluation;

/* Encodes the prompts and sets the rollout's params; then `take` takes its memory, and the run's
 * sampler as it is but for the temperature. */
pgrad_status pgrad__evaluation_init(pgrad__evaluation *evaluation, pgrad_model *model,
                                    pgrad_tokenizer *tokenizer, const pgrad_prompts *prompts,
                                    uint32_t max_new_tokens);
pgrad_status pgrad__evaluation_take(pgrad__evaluation *evaluation, pgrad_model *model,
                                    pgrad_tokenizer *tokenizer, const pgrad_sampler *sampler);
void pgrad__evaluation_free(pgrad__evaluation *evaluation);

/* The mean reward over all prompts that could be scored; NaN when none could. */
pgrad_status pgrad__evaluate(pgrad__evaluation *evaluation, pgrad_reward *reward, double *mean);

#endif
