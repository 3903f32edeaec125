/* A task of no size: a tiny model, prompts of ids, a reward that likes low ones. */
#ifndef PGRAD_TESTS_TINY_TASK_H
#define PGRAD_TESTS_TINY_TASK_H

#include <check.h>
#include <policygrad.h>

static const char CONFIG[] = "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":32,\"n_embd\":16,\"n_layer\":2,"
                             "\"n_head\":2,\"activation_function\":\"gelu_new\",\"eos_token_id\":23}";

enum { MOST_PROMPTS = 6 };
static pgrad_token ids[MOST_PROMPTS][3];
static const pgrad_token *pointers[MOST_PROMPTS];
static size_t lengths[MOST_PROMPTS];

/* The first n of them. */
static inline pgrad_prompts make_prompts(size_t n)
{
    pgrad_prompts prompts;
    for (int i = 0; i < MOST_PROMPTS; i++) {
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

#endif
