/* The prompts of a run as ids, and the order in which steps take them. Not the host's view, which
 * is pgrad_prompts. */
#ifndef PGRAD_TRAIN_PROMPTS_H
#define PGRAD_TRAIN_PROMPTS_H

#include <policygrad/rollout.h>
#include <policygrad/trainer.h>

#include "model/model.h"

typedef struct pgrad__prompt_set {
    pgrad_context *context;
    pgrad_prompts source; /* the host's view, read by its own size */
    pgrad_token *ids;     /* one prompt after another */
    size_t n_ids, capacity;
    size_t *offsets;     /* [n + 1] */
    uint32_t max_tokens; /* of the longest */
    uint32_t *order;     /* a permutation of 0 .. n - 1, made anew for every epoch */
    uint64_t seed, epoch, cursor;
} pgrad__prompt_set;

/* Encodes all prompts and checks them against the model's vocabulary and context. E_INVALID and
 * E_LIMIT name the prompt. The set is zeroed first. */
pgrad_status pgrad__prompt_set_init(pgrad__prompt_set *set, const pgrad_model *model,
                                    pgrad_tokenizer *tokenizer, const pgrad_prompts *prompts,
                                    uint64_t seed);
void pgrad__prompt_set_free(pgrad__prompt_set *set);
/* Its memory, as it is accounted. */
size_t pgrad__prompt_set_held(const pgrad__prompt_set *set);

/* Adds prompt i with its columns to a rollout. */
pgrad_status pgrad__prompt_set_add(const pgrad__prompt_set *set, size_t i, pgrad_rollout *rollout);

/* The next prompt: every one once per epoch, in an order that is a function of (seed, epoch). */
size_t pgrad__prompt_set_next(pgrad__prompt_set *set);

/* Goes to a place in that order: epochs done, and prompts of the one under way. */
void pgrad__prompt_set_seek(pgrad__prompt_set *set, uint64_t epoch, uint64_t cursor);

#endif
