/* The inside of a rollout: its arrays, read and filled by generate, reward, advantage, objective.
 * Not the public calls, which are in rollout.c. */
#ifndef PGRAD_RL_ROLLOUT_H
#define PGRAD_RL_ROLLOUT_H

#include <policygrad/reward.h>
#include <policygrad/rollout.h>

#include "model/model.h"
#include "text/tokenizer.h"

/* Where the rewards came from: with SET a sequence without one was forgotten, with APPLIED none
 * applied. */
enum { PGRAD__REWARDS_NONE, PGRAD__REWARDS_APPLIED, PGRAD__REWARDS_SET };

#define PGRAD__BATCH_SIZE 64 /* what 0 means without a plan, at most */
#define PGRAD__N_ARRAYS 9
#define PGRAD__MAX_COMPONENTS 16
#define PGRAD__REWARD_NAME 41

typedef struct pgrad__sequence {
    uint32_t group;
    uint32_t finish; /* PGRAD_FINISH_* */
    uint32_t n_tokens;
    uint32_t sampled;
    uint64_t number; /* the sampler's */
    double temperature;
    double reward;                   /* NaN: none */
    uint32_t filled;                 /* bit i: array i has values */
    size_t text_offset, text_length; /* in rollout.text */
} pgrad__sequence;

typedef struct pgrad__group {
    size_t prompt_offset; /* in rollout.prompts */
    uint32_t n_prompt;
    uint64_t tag;
    size_t prefix_offset; /* forced first tokens, in rollout.prompts */
    uint32_t n_prefix;
    uint32_t n_sequences; /* made or added so far; their indices ascend, not always adjacent */
} pgrad__group;

typedef struct pgrad__data_item {
    uint32_t group;
    size_t key_offset, text_offset; /* in rollout.data_text */
    size_t length;
} pgrad__data_item;

/* Lays sequences indices[0..n) out as a batch: prompt and completion tokens without the last one,
 * targets = completion tokens. Neighbours of one group share their prompt's rows unless `whole`.
 * Arrays live in the builder and are reused; offsets[j] is the first target of indices[j]. */
typedef struct pgrad__batch_builder {
    pgrad__arena arena; /* of all arrays */
    pgrad_token *tokens, *targets;
    uint32_t *target_rows;
    float *inverse_tau;
    pgrad__attention_sequence *sequences;
    size_t *offsets;
    float **activations;
    int whole;    /* every sequence gets rows for its prompt */
    int use_kept; /* batch.activations is set where all rows are kept */
    pgrad__batch batch;
} pgrad__batch_builder;

struct pgrad_rollout {
    pgrad_context *context;
    pgrad__arena arena; /* groups, sequences, tokens, arrays, scores, the generator's */
    atomic_uint references;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer; /* NULL: none */
    pgrad_rollout_params params;
    uint32_t max_sequences; /* max_prompts * group_size */
    pgrad__group *groups;
    uint32_t n_groups;
    pgrad_token *prompts; /* ids of all prompts and prefixes */
    size_t n_prompt_ids, prompt_capacity;
    pgrad__sequence *sequences;
    uint32_t n_sequences;
    pgrad_token *tokens;            /* [max_sequences, max_new_tokens] */
    float *arrays[PGRAD__N_ARRAYS]; /* likewise, by PGRAD_LOGPROBS .. */
    char *text;
    size_t text_length, text_capacity;
    pgrad__data_item *data;
    size_t n_data, data_capacity;
    char *data_text; /* keys and texts, each closed by a NUL */
    size_t data_length, data_text_capacity;
    /* filled by pgrad_reward_apply */
    int has_rewards; /* PGRAD__REWARDS_* */
    int has_token_rewards;
    uint32_t n_components;
    char component_names[PGRAD__MAX_COMPONENTS][PGRAD__REWARD_NAME];
    double *component_scores; /* [PGRAD__MAX_COMPONENTS, max_sequences]; NaN: not applicable */
    struct pgrad__score_scratch *score_scratch; /* reward.h */
    struct pgrad__generator *generator;  /* generator.h: cache, pass, logits; made in create */
    pgrad__activation_store activations; /* of n_rows 0 where none are to be kept: kept.c */
    pgrad__pass *pass;                   /* score.c */
    pgrad__batch_builder builder;
    pgrad__workspace scores; /* score.c */
    int generating;          /* a callback is looking at it: no change allowed */
};

/* 1 when array `which` (PGRAD_LOGPROBS ..) of a sequence has values. */
static inline int pgrad__sequence_has(const pgrad__sequence *sequence, uint32_t which)
{
    return (sequence->filled & (1u << which)) != 0;
}

/* Values of array `which` of sequence i. */
static inline float *pgrad__rollout_values(const pgrad_rollout *rollout, uint32_t which, uint32_t i)
{
    return rollout->arrays[which] + (size_t)i * rollout->params.max_new_tokens;
}

static inline pgrad_token *pgrad__rollout_ids(const pgrad_rollout *rollout, uint32_t i)
{
    return rollout->tokens + (size_t)i * rollout->params.max_new_tokens;
}

/* m_it: 1 when token t of sequence i is learned from; without a mask all are. */
static inline int pgrad__is_learned(const pgrad_rollout *rollout, uint32_t i, uint32_t t)
{
    return !pgrad__sequence_has(&rollout->sequences[i], PGRAD_MASK) ||
           pgrad__rollout_values(rollout, PGRAD_MASK, i)[t] != 0.0f;
}

/* E_BUSY inside a callback of the rollout; `what` names the call. */
pgrad_status pgrad__rollout_check_idle(const pgrad_rollout *rollout, const char *what);

/* 1 when the sequence counts: finished, with at least one token. */
static inline int pgrad__sequence_counts(const pgrad__sequence *sequence)
{
    return sequence->finish != PGRAD_FINISH_NONE && sequence->n_tokens > 0;
}

/* Rewards of a reward function are of the rollout as it was: a sequence more, and they are gone.
 * What the host has set stays with its sequence. */
void pgrad__rollout_drop_rewards(pgrad_rollout *rollout);

/* ---- kept.c ---- */

/* Settles params.keep_activations and the store's size, once all other params are; E_INVALID. */
pgrad_status pgrad__kept_plan(pgrad_rollout *rollout);
/* The store's row of position p of sequence i: the group's as far as the whole group has it. */
size_t pgrad__kept_row(const pgrad_rollout *rollout, uint32_t i, size_t p);
/* The same of position p of a group's prompt or forced prefix. */
size_t pgrad__kept_group_row(const pgrad_rollout *rollout, uint32_t group, size_t p);
/* Lets a group's positions [first, first + n) have the rows of a sequence that begins with the same
 * ids. Both are of one call: what is kept of a call is forgotten at once. */
void pgrad__kept_borrow(pgrad_rollout *rollout, uint32_t group, uint32_t from, size_t first,
                        size_t n);
/* Forgets what is kept of sequences from `first` on, and of their groups. */
void pgrad__kept_forget(pgrad_rollout *rollout, uint32_t first);
/* 1 when what is kept was computed with the weights of this model as they are. */
int pgrad__kept_are_of(const pgrad_rollout *rollout, const pgrad_model *model);
/* Rows that generating full lengths keeps. */
size_t pgrad__kept_rows(const pgrad_rollout *rollout, size_t n_prompt, size_t n_tokens);

/* Fills builder->batch, which is valid until the next build. supervised: tau counts as 1. E_NOMEM,
 * E_LIMIT. */
pgrad_status pgrad__batch_build(pgrad__batch_builder *builder, const pgrad_rollout *rollout,
                                const uint32_t *indices, size_t n, int supervised);
void pgrad__batch_builder_free(pgrad__batch_builder *builder);

/* Checks params (NULL: defaults) against the model and sets all sizes, the generator's too: no
 * memory is taken. */
pgrad_status pgrad__rollout_plan(pgrad_rollout *rollout, pgrad_model *model,
                                 pgrad_tokenizer *tokenizer, const pgrad_rollout_params *params,
                                 struct pgrad__generator *generator, uint32_t n_workers);
/* Count what create would take: for keys and values, and for all else. */
void pgrad__rollout_count(pgrad_rollout *planned, pgrad__arena *kv_cache, pgrad__arena *other);

/* Measures the passes of pgrad_rollout_score for sequences that have lengths but no arrays, and the
 * floats it keeps beside; the builder's arrays grow as in score. */
pgrad_status pgrad__score_measure(pgrad_rollout *rollout, pgrad_model *model, uint32_t n_workers,
                                  pgrad__pass_size *size, size_t *n_floats);

/* Positions of sequence i: its rows when it is whole. */
size_t pgrad__sequence_positions(const pgrad_rollout *rollout, uint32_t i);

/* Rows that indices[j] adds to a batch of indices[0..j). */
size_t pgrad__batch_rows(const pgrad__batch_builder *builder, const pgrad_rollout *rollout,
                         const uint32_t *indices, size_t j);

#endif
