/* Rewards to advantages: how much better a completion was than was to be expected. The formulas:
 * docs/algorithms.md 2.
 *
 *     pgrad_advantage_create(context, NULL, &advantage);            (GRPO)
 *     for each step, after the rewards:
 *         pgrad_advantage_apply(advantage, rollout);
 *         ... pgrad_objective_backward reads ADVANTAGES of the rollout ...
 *     pgrad_advantage_free(advantage);
 *
 * The handle is needed for the running mean of EMA alone; with any other estimator it keeps nothing
 * from step to step. A host with estimates of its own leaves it out and writes them:
 * pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, values, n).
 *
 * Threads: one at a time. */
#ifndef POLICYGRAD_ADVANTAGE_H
#define POLICYGRAD_ADVANTAGE_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The estimators. A group whose rewards are all equal gets exactly 0 from the group estimators. */
enum {
    PGRAD_ADVANTAGE_NONE = 0,       /* A = R */
    PGRAD_ADVANTAGE_EMA = 1,        /* A = R - running mean of earlier batches */
    PGRAD_ADVANTAGE_BATCH_MEAN = 2, /* A = R - mean over the batch */
    PGRAD_ADVANTAGE_RLOO = 3,       /* A = R - mean of the others in the group [2402.14740] */
    PGRAD_ADVANTAGE_GRPO = 4,       /* A = (R - group mean) / (group std + eps) [2402.03300] */
    PGRAD_ADVANTAGE_DR_GRPO = 5     /* A = R - group mean [2503.20783] */
};

typedef struct pgrad_advantage_params {
    size_t struct_size;
    uint32_t estimator;  /* PGRAD_ADVANTAGE_*, default GRPO */
    uint32_t reserved;
    double epsilon;      /* GRPO: added to the standard deviation (ddof 1), default 1e-4 */
    double ema_decay;    /* EMA: q in [0, 1), default 0.9 */
    double kl_beta;      /* >= 0: R_i -= beta sum_t (old - reference), k1 in the reward. Default 0 */
} pgrad_advantage_params;

/* Writes the size and the defaults, no more than size bytes. A profile (params.h) then sets what
 * another system has as its defaults. */
PGRAD_API void pgrad_advantage_params_init(pgrad_advantage_params *params, size_t size);

/* Creates an estimator with an empty baseline. Errors: E_INVALID, E_NOMEM. */
PGRAD_API pgrad_status pgrad_advantage_create(pgrad_context *context,
                                              const pgrad_advantage_params *params,
                                              pgrad_advantage **out);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_advantage_free(pgrad_advantage *advantage);

/* Fills PGRAD_ADVANTAGES of every finished completion. Rewards given per token make reward-to-go
 * advantages with the estimators NONE, EMA and BATCH_MEAN, sums with the others.
 * Errors: E_STATE (no rewards; kl_beta without PGRAD_REFERENCE); E_INVALID (a group estimator with
 * groups of one). The running baseline changes only on success. */
PGRAD_API pgrad_status pgrad_advantage_apply(pgrad_advantage *advantage, pgrad_rollout *rollout);

#ifdef __cplusplus
}
#endif
#endif
