/* Gradients to new weights. The formulas: docs/algorithms.md 5.
 *
 *     pgrad_optimizer_params_init(&params, sizeof params);          (AdamW)
 *     params.learning_rate = 1e-5;
 *     pgrad_optimizer_create(model, &params, &optimizer);
 *     for each step, after backward:
 *         pgrad_optimizer_step(optimizer, &report);
 *     pgrad_optimizer_free(optimizer);
 *
 * A step updates every tensor, or none: where a gradient or a result would not be finite it returns
 * E_NUMERIC and leaves weights, moments and counters as they were. Moments are taken by create, 8 bytes
 * a weight with Adam in f32. Given to pgrad_objective_backward (pgrad_backward_params), an optimizer
 * without clipping updates each tensor as its gradient is complete, and gradients take less memory.
 *
 * Threads: one at a time, and alone with its model. */
#ifndef POLICYGRAD_OPTIMIZER_H
#define POLICYGRAD_OPTIMIZER_H

#include <policygrad/metrics.h>
#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

enum { PGRAD_OPTIMIZER_SGD = 0, PGRAD_OPTIMIZER_ADAM = 1, PGRAD_OPTIMIZER_ADAMW = 2 };
/* How moments are stored: 4, 2 or about 1 byte for each. The two short ones are rounded
 * stochastically, so that small changes are kept in the mean; every rule works with each. */
enum {
    PGRAD_MOMENTS_F32 = 0,
    PGRAD_MOMENTS_BF16 = 1,
    PGRAD_MOMENTS_Q8 = 2,
    PGRAD_MOMENTS_AUTO = 3 /* the first of them that fits in a plan under a memory limit (plan.h), else
                              F32 */
};
enum { PGRAD_SCHEDULE_CONSTANT = 0, PGRAD_SCHEDULE_LINEAR = 1, PGRAD_SCHEDULE_COSINE = 2 };

typedef struct pgrad_optimizer_params {
    size_t struct_size;
    uint32_t kind;          /* PGRAD_OPTIMIZER_*, default ADAMW */
    uint32_t schedule;      /* PGRAD_SCHEDULE_*, default CONSTANT */
    double learning_rate;   /* >= 0, default 1e-5 */
    double beta1;           /* in [0, 1), default 0.9 */
    double beta2;           /* in [0, 1), default 0.999 */
    double epsilon;         /* > 0, default 1e-8, outside the root */
    double weight_decay;    /* >= 0, default 0; vectors (norms, biases) are exempt. SGD, ADAM: L2 */
    double momentum;        /* SGD: in [0, 1), default 0 */
    double max_grad_norm;   /* > 0, default 1; infinity: no clipping */
    double final_factor;    /* COSINE and LINEAR end at this share of learning_rate, default 0 */
    uint64_t warmup_steps;  /* linear from 1 / warmup_steps, default 0 */
    uint64_t total_steps;   /* length of the schedule; required unless CONSTANT */
    uint32_t nesterov;      /* SGD: default 0 */
    uint32_t moments;       /* PGRAD_MOMENTS_*, default F32 */
    uint64_t seed;          /* of stochastic rounding: the bits follow from it and the step */
} pgrad_optimizer_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_optimizer_params_init(pgrad_optimizer_params *params, size_t size);

/* Takes the memory of the moments. Errors: E_INVALID; E_STATE (a frozen model); E_LIMIT; E_NOMEM. */
PGRAD_API pgrad_status pgrad_optimizer_create(pgrad_model *model, const pgrad_optimizer_params *params,
                                              pgrad_optimizer **out);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_optimizer_free(pgrad_optimizer *optimizer);

/* Changes the learning rate that the schedule's factor is applied to. Errors: E_INVALID. */
PGRAD_API pgrad_status pgrad_optimizer_set_lr(pgrad_optimizer *optimizer, double learning_rate);

/* Updates the weights from the gradients, which stay as they are. All or nothing: with a gradient, or
 * a result, that is not finite it returns E_NUMERIC and leaves weights, moments and counters
 * untouched. Fills the report's grad_norm (before clipping), learning_rate and step.
 * Errors: E_INVALID, E_NUMERIC, E_BUSY; E_LIMIT and E_NOMEM where no backward pass came before it. */
PGRAD_API pgrad_status pgrad_optimizer_step(pgrad_optimizer *optimizer, pgrad_step_report *report);

#ifdef __cplusplus
}
#endif
#endif
