/* The inside of rewards and scores. Not what is made of them, which is in advantage.h. */
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
    int busy;                                           /* its function is running */
    pgrad__component components[PGRAD__MAX_COMPONENTS]; /* a plain one: itself, not counted */
    uint32_t n_components;
};

/* A rollout's room for the scores of one plain reward, in its arena: [max_sequences] each. */
typedef struct pgrad__score_scratch {
    float *data;
    double *sum;         /* of token scores */
    double *whole;       /* weighted, given for the sequence, of all rewards so far */
    unsigned char *kind; /* PGRAD__SCORE_* */
    float *tokens; /* [max_sequences, max_new_tokens], a block of its own, made when a reward first
                      scores tokens */
} pgrad__score_scratch;

pgrad__score_scratch *pgrad__score_scratch_lay_out(size_t max_sequences, pgrad__arena *arena);

enum { PGRAD__SCORE_PLAIN, PGRAD__SCORE_SKIPPED, PGRAD__SCORE_TOKENS };

/* What a callback fills: sequences first .. first + count - 1, its arrays those of the scratch. */
struct pgrad_scores {
    const pgrad_rollout *rollout;
    pgrad__score_scratch *scratch;
    uint32_t first, count;
    uint32_t failed_sequence;
    pgrad_status status; /* the library's own failure inside the callback */
    char failure[201];
};

#endif
