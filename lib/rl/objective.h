/* The inside of an objective handle. */
#ifndef PGRAD_RL_OBJECTIVE_H
#define PGRAD_RL_OBJECTIVE_H

#include <policygrad/objective.h>

#include "rl/rollout.h"

#define PGRAD__MICRO_BATCH_TOKENS 2048 /* what 0 means without a plan */

struct pgrad_objective {
    pgrad_context *context;
    atomic_uint references;
    pgrad_model *model;
    pgrad_objective_params params;
    uint32_t micro_batch_tokens, recompute; /* in force: those of params, or what was chosen */
    int counted;                            /* among the model's n_keeping */
    pgrad__pass *pass;
    pgrad__batch_builder builder;
    uint32_t *chosen; /* the sequences of a call */
    double *weights;  /* w_it of each, the same for all its tokens */
    size_t capacity;
    uint32_t *group_tokens;
    size_t group_capacity;
};

/* Sets what is in force where params leave it open; 0 and AUTO: as without a plan. Of an objective
 * that is only measured settle alone: the model does not hear of it. */
void pgrad__objective_settle(pgrad_objective *objective, uint32_t micro_batch_tokens,
                             uint32_t recompute);
void pgrad__objective_choose(pgrad_objective *objective, uint32_t micro_batch_tokens,
                             uint32_t recompute);

/* 1 when the loss has a KL term: log-probabilities of a reference are needed. */
int pgrad__objective_uses_reference(const pgrad_objective *objective);

/* What backward takes for all sequences of a rollout. */
typedef struct pgrad__backward_need {
    pgrad__pass_size pass;
    uint64_t rows; /* of all micro-batches */
    uint32_t n_micro_batches;
} pgrad__backward_need;

/* The arrays that grow with a call: what they hold now; gives them back. */
size_t pgrad__objective_held(const pgrad_objective *objective);
void pgrad__objective_room_free(pgrad_objective *objective);

/* Measures a backward pass over a rollout whose sequences have lengths but no arrays, and extends
 * what out->pass says of earlier ones; keeps: it has kept the activations of all. The model may be
 * a planned one. The objective's own arrays and its builder's grow as in backward.
 */
pgrad_status pgrad__objective_measure(pgrad_objective *objective, const pgrad_rollout *rollout,
                                      int keeps, int in_backward, uint32_t n_workers,
                                      pgrad__backward_need *out);

#endif
