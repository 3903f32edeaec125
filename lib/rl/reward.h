/* The inside of rewards and scores. */
#ifndef PGRAD_RL_REWARD_H
#define PGRAD_RL_REWARD_H

#include <policygrad/reward.h>

#include "rl/rollout.h"

/* A plain reward and its weight in a sum. */
typedef struct pgrad__component {
    pgrad_reward *reward;
    double weight;
} pgrad__component;

struct pgrad_reward {
    pgrad_context *context;
    atomic_uint references;
    char name[PGRAD__REWARD_NAME];
    pgrad_reward_fn fn; /* NULL: a weighted sum */
    void *user;
    void (*destroy)(void *);
    pgrad__component components[PGRAD__MAX_COMPONENTS]; /* a plain one: itself, not counted */
    uint32_t n_components;
};

/* What a callback fills. */
struct pgrad_scores {
    const pgrad_rollout *rollout;
    uint32_t first, count;
    float *data;         /* [count] */
    unsigned char *kind; /* [count] PGRAD__SCORE_* */
    float *tokens;       /* [count, max_new_tokens], where kind is TOKENS */
    uint32_t failed_sequence;
    char failure[201];
};

enum { PGRAD__SCORE_PLAIN, PGRAD__SCORE_SKIPPED, PGRAD__SCORE_TOKENS };

#endif
