/* How much memory a run takes: sums over what the handles' own code says. Which of several ways to
 * take is plan.c's. */
#ifndef PGRAD_RL_ESTIMATE_H
#define PGRAD_RL_ESTIMATE_H

#include <policygrad/plan.h>

#include "rl/objective.h"

/* What is planned: params read and checked. */
typedef struct pgrad__plan {
    pgrad_context *context;
    pgrad_plan_params params;
    pgrad_rollout_params rollout, evaluation;
    pgrad_objective_params objective;
    pgrad_optimizer_params optimizer;
    int has_rollout, has_evaluation, has_objective, has_optimizer;
    uint32_t prompt_tokens, completion_tokens;
    uint64_t memory_limit, room; /* room: of it, what a plan may take */
} pgrad__plan;

/* E_INVALID, E_STATE. The pointers of `params` are not used later, but for the tokenizer. */
pgrad_status pgrad__plan_read(const pgrad_model *model, const pgrad_plan_params *params,
                              pgrad__plan *out);

/* What params may leave open. */
typedef struct pgrad__choice {
    uint32_t batch_size, micro_batch_tokens, recompute, kv_storage, moments;
} pgrad__choice;

/* Bytes of a part of a plan by name, as pgrad_memory_report has them. */
enum {
    PGRAD__NEED_WEIGHTS,
    PGRAD__NEED_GRADIENTS,
    PGRAD__NEED_MOMENTS,
    PGRAD__NEED_ACTIVATIONS,
    PGRAD__NEED_KV_CACHE,
    PGRAD__NEED_SCRATCH,
    PGRAD__NEED_ROLLOUT,
    PGRAD__NEED_REFERENCE,
    PGRAD__NEED_OTHER,
    PGRAD__NEED_CHECKPOINT,
    PGRAD__N_NEEDS
};
typedef struct pgrad__need {
    pgrad__arena of[PGRAD__N_NEEDS]; /* sums */
} pgrad__need;

/* The parts add up. Each depends on few fields of the choice; `model` is a planned one for the
 * machine, which has n_workers. */
void pgrad__need_model(const pgrad__plan *plan, const pgrad_model *model, pgrad__need *need);
/* batch_size, kv_storage, and whether recompute leaves activations to be kept. */
pgrad_status pgrad__need_rollouts(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                                  const pgrad__choice *choice, pgrad__need *need);
/* moments: of the optimizer, and of a checkpoint's copy. */
void pgrad__need_moments(const pgrad__plan *plan, const pgrad_model *model,
                         const pgrad__choice *choice, pgrad__need *need);
/* micro_batch_tokens, recompute; *how (may be NULL): rows and micro-batches. */
pgrad_status pgrad__need_backward(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                                  const pgrad__choice *choice, pgrad__need *need,
                                  pgrad__backward_need *how);

/* What a rollout's keep_activations comes to. */
pgrad_status pgrad__need_keep(const pgrad__plan *plan, pgrad_model *model,
                              const pgrad__choice *choice, uint32_t *keep);

/* The sum of all names; UINT64_MAX when it cannot be counted. */
uint64_t pgrad__need_total(const pgrad__need *need);
void pgrad__need_add(pgrad__need *to, const pgrad__need *need);

/* PGRAD_MOMENTS_* and PGRAD_KV_* as messages say them; not AUTO. */
const char *pgrad__moments_name(uint32_t moments);
const char *pgrad__kv_name(uint32_t kv_storage);

/* Chooses, measures for the context's machine and writes *out: see pgrad_model_estimate. `model`
 * may be a planned one. E_LIMIT fills *out too. */
pgrad_status pgrad__plan_make(const pgrad__plan *plan, pgrad_model *model,
                              pgrad_memory_report *out);

#endif
