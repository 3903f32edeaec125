/* One draw from a row of logits, as generate needs it; and the inside of a sampler. Not the loop
 * over tokens, which is generate.c. */
#ifndef PGRAD_RL_SAMPLER_H
#define PGRAD_RL_SAMPLER_H

#include <policygrad/sampler.h>

#include "base/arena.h"
#include "base/context.h"
#include "kernel/kernel.h"
#include "rl/stop_strings.h"

struct pgrad_sampler {
    pgrad_context *context;
    atomic_uint references;
    pgrad_sampler_params params; /* its arrays are copies owned by the sampler */
    pgrad__stop_strings stops;
    uint64_t next_sequence;
    struct pgrad__draw_scratch *pick_scratch; /* of pgrad_sampler_pick */
};

/* A worker's room for a draw over n_vocab tokens. */
typedef struct pgrad__draw_scratch {
    float *weight;  /* [n_vocab] changed logits, then exp(u - max) where a tail is cut */
    double *sums;   /* [n_vocab / PGRAD__SOFTMAX_BLOCK + 1] of blocks of weights */
    float *largest; /* of each block */
    uint32_t *ids;  /* [n_vocab] of the tokens that top_k and top_p choose among */
    uint32_t *seen; /* [n_vocab] marks tokens the repetition penalty was applied to */
    uint32_t mark;
    uint32_t n_vocab;
    pgrad__arena arena; /* of all arrays */
} pgrad__draw_scratch;

/* Zero after a failure and after free. */
pgrad_status pgrad__draw_scratch_init(pgrad__draw_scratch *scratch, pgrad_context *context,
                                      uint32_t n_vocab);
void pgrad__draw_scratch_free(pgrad__draw_scratch *scratch);
void pgrad__draw_scratch_count(uint32_t n_vocab, pgrad__arena *sum);

/* What a draw looks at. */
typedef struct pgrad__draw {
    const float *logits;
    uint64_t sequence, position;
    const uint8_t *has_token;      /* [n_vocab] 0: never sampled; NULL: all have one */
    const pgrad_token *history[2]; /* prompt and completion, for the repetition penalty */
    size_t n_history[2];
    const pgrad_token *barred; /* not now: end tokens before min_new_tokens */
    size_t n_barred;
} pgrad__draw;

typedef enum pgrad__draw_failure {
    PGRAD__DRAW_OK,
    PGRAD__DRAW_NOT_FINITE, /* a NaN or +infinity among the logits */
    PGRAD__DRAW_OVERFLOW,   /* divided by the temperature, or with its bias, a logit is too large */
    PGRAD__DRAW_NO_TOKEN    /* everything is forbidden */
} pgrad__draw_failure;

typedef struct pgrad__drawn {
    pgrad_token token;
    float logprob, logprob_sampled, entropy;
    pgrad__draw_failure failure;
} pgrad__drawn;

/* A pure function of sampler, draw and kernels; safe from tasks. */
pgrad__drawn pgrad__sampler_draw(const pgrad_sampler *sampler, const pgrad__kernels *kernels,
                                 pgrad__draw_scratch *scratch, const pgrad__draw *draw);

/* Cuts scratch->weight, which are exp(u - max) and add up to mass, by top_k, then top_p of what is
 * left, then min_p: 0 is the weight of what is cut, or the sum of a block where nothing is left.
 * scratch->sums become those of what is left; returns their sum. */
double pgrad__cut_tail(const pgrad_sampler_params *params, const pgrad__kernels *kernels,
                       pgrad__draw_scratch *scratch, double mass);

/* E_INVALID for a stop, forbidden or bias token that a vocabulary of n_vocab does not have. */
pgrad_status pgrad__sampler_check(const pgrad_sampler *sampler, uint32_t n_vocab);

/* The message of a failed draw; `what` says where. */
pgrad_status pgrad__draw_fail(pgrad__draw_failure failure, const float *logits, uint32_t n_vocab,
                              const char *what);

#endif
