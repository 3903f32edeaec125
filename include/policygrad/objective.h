/* Advantages to a loss and its gradients. The formulas: docs/algorithms.md 3 and 4.
 *
 *     pgrad_objective_create(model, NULL, &objective);              (PPO's clipped ratio)
 *     for each step, after the advantages:
 *         pgrad_model_zero_grad(model);
 *         pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report);
 *         pgrad_optimizer_step(optimizer, &report);
 *     pgrad_objective_free(objective);
 *
 * Gradients add up in the model until zero_grad; a step cut into several calls gives each the whole
 * step's normaliser (pgrad_objective_normalizer). A rollout is computed in micro-batches of whole
 * sequences, without padding, the prompt of a group once. The objective holds the activations, which is
 * most of a step's memory; it keeps its model alive, and serves any rollout of the same vocabulary.
 *
 * Threads: one at a time, and alone with its model. */
#ifndef POLICYGRAD_OBJECTIVE_H
#define POLICYGRAD_OBJECTIVE_H

#include <policygrad/metrics.h>
#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Per-token losses; l is the log-probability, rho = exp(l - old), A the advantage. */
enum {
    PGRAD_LOSS_REINFORCE = 0, /* -A l */
    PGRAD_LOSS_PPO_CLIP = 1,  /* max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)) [1707.06347] */
    PGRAD_LOSS_SUPERVISED = 2 /* -l, tau = 1, advantages not used */
};

/* Weights w_it of the per-token losses; M learned tokens, N+ sequences with one, T_i of sequence i. */
enum {
    PGRAD_AGGREGATE_TOKEN_MEAN = 0,              /* 1 / M [2503.14476] */
    PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN = 1, /* 1 / (N+ T_i): original GRPO */
    PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_SUM = 2, /* 1 / N+: exact sequence policy gradient */
    PGRAD_AGGREGATE_CONSTANT = 3,                /* 1 / (N Lmax): Dr. GRPO */
    PGRAD_AGGREGATE_PROMPT_MEAN = 4,             /* 1 / (B T_g), T_g learned tokens of the whole group in
                                                    the rollout, B = sum of T_i / T_g */
    PGRAD_AGGREGATE_MICRO_TOKEN_MEAN = 5         /* 1 / (M_micro n_micro): depends on the split */
};

/* KL to the reference policy inside the loss; d = l - reference. */
enum {
    PGRAD_KL_NONE = 0,
    PGRAD_KL_K3_RATIO = 1, /* rho (exp(-d) - 1 + d): gradient rho d [2512.02556] */
    PGRAD_KL_K2 = 2        /* d^2 / 2: gradient d */
};

/* What is kept of a layer for the backward pass: all, or with ON its input alone, from which the rest is
 * computed again: less memory, about a tenth more time, the same bits. AUTO: all, unless a plan under a
 * memory limit (plan.h) says otherwise. */
enum { PGRAD_RECOMPUTE_OFF = 0, PGRAD_RECOMPUTE_ON = 1, PGRAD_RECOMPUTE_AUTO = 2 };

typedef struct pgrad_objective_params {
    size_t struct_size;
    uint32_t loss;             /* PGRAD_LOSS_*, default PPO_CLIP */
    uint32_t aggregation;      /* PGRAD_AGGREGATE_*, default TOKEN_MEAN */
    uint32_t kl;               /* PGRAD_KL_*, default K3_RATIO; counts only when kl_beta > 0 */
    uint32_t micro_batch_tokens; /* token rows computed at once; 0: 2048, or fewer where a plan under a
                                  memory limit says so (plan.h). A prompt that completions share
                                  counts for half of them at most, so that a long one is not computed
                                  for each. More makes no difference to speed; memory for activations
                                  grows with it */
    double clip_low;           /* default 0.2 */
    double clip_high;          /* default 0.2 */
    double kl_beta;            /* >= 0, default 0 */
    double entropy_coefficient; /* >= 0, default 0: bonus on the mean entropy per token */
    uint32_t max_new_tokens;   /* Lmax of AGGREGATE_CONSTANT; 0: the rollout's */
    uint32_t share_prefix;     /* 1, the default: completions of one group that are learned in one
                                  micro-batch share one computation of their prompt, forward and
                                  backward; 0: each has its own. Gradients differ by rounding */
    uint32_t recompute;        /* PGRAD_RECOMPUTE_*, default AUTO */
    uint32_t reserved;
} pgrad_objective_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_objective_params_init(pgrad_objective_params *params, size_t size);

typedef struct pgrad_backward_params {
    size_t struct_size;
    double normalizer_total; /* 0: this call is the whole optimizer step, the default; else the
                                denominator of the whole step: M, N+, N or B over all its calls */
    double n_tokens_total;   /* 0: this call's, the default; else M over all calls of the step, for
                                the entropy bonus, which is a mean over tokens always */
    pgrad_optimizer *optimizer; /* NULL, the default: gradients stay for pgrad_optimizer_step; else
                                this call is the step too: see pgrad_objective_backward */
} pgrad_backward_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_backward_params_init(pgrad_backward_params *params, size_t size);

/* Creates an objective for a model. The memory of its passes is taken by the first backward.
 * Errors: E_INVALID; E_STATE (a frozen model); E_LIMIT; E_NOMEM. */
PGRAD_API pgrad_status pgrad_objective_create(pgrad_model *model,
                                              const pgrad_objective_params *params,
                                              pgrad_objective **out);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_objective_free(pgrad_objective *objective);

/* Gives the denominator that backward would use for these completions: M, N+, N or B by the
 * aggregation. Sum it over the calls of a step and give it to each as normalizer_total.
 * Errors: E_INVALID; E_STATE and E_MISMATCH as backward; E_NOMEM. */
PGRAD_API pgrad_status pgrad_objective_normalizer(pgrad_objective *objective,
                                                  const pgrad_rollout *rollout,
                                                  const uint32_t *indices, uint32_t n, double *out);

/* Adds the gradients of the loss over completions indices[0..n) (NULL: all finished ones, n ignored)
 * to the model's, and fills the report's loss part. Cut inside into micro-batches of whole sequences;
 * the normaliser is the whole call's, so the split changes rounding only. Reports progress as
 * "backward" in tokens.
 * Errors: E_STATE (no advantages; KL without PGRAD_REFERENCE; no finished completion); E_INVALID;
 * E_MISMATCH (another vocabulary; a sequence longer than the model's context); E_NUMERIC (a loss or
 * log-probability is not finite, naming the sequence); E_BUSY; E_LIMIT; E_NOMEM; E_CANCELLED,
 * E_CALLBACK. After any failure the gradients are undefined until pgrad_model_zero_grad.
 *
 * Sequences and tokens whose loss has no derivative, such as those of a group without spread, are
 * left out of the backward pass; the report counts them all the same.
 *
 * With params->optimizer each tensor is updated in the last micro-batch, as soon as its gradient is
 * complete, and its gradient is zero afterwards: the weights, and the report's grad_norm,
 * learning_rate and step, are those of backward and pgrad_optimizer_step, bit for bit. The optimizer
 * must be this model's, with max_grad_norm infinity (E_INVALID). When no gradients are there and one
 * micro-batch is all, the model takes no memory for them. The exception to all or nothing: when a
 * gradient or an update is not finite, the tensors of the layers above it are updated already, as
 * the message says; the step is not counted. E_CANCELLED and E_NOMEM come before anything is
 * updated. */
PGRAD_API pgrad_status pgrad_objective_backward(pgrad_objective *objective,
                                                const pgrad_rollout *rollout, const uint32_t *indices,
                                                uint32_t n, const pgrad_backward_params *params,
                                                pgrad_step_report *report);

#ifdef __cplusplus
}
#endif
#endif
