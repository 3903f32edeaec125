/* Per-token losses and KL terms on plain numbers: value and derivative by the log-probability. Not
 * the weights that sum them up. Letters: algorithms.md 3 and 5. */
#ifndef PGRAD_RL_LOSS_H
#define PGRAD_RL_LOSS_H

#include <policygrad/objective.h>

typedef struct pgrad__token_loss {
    double value;      /* f */
    double derivative; /* df/dl */
    double log_ratio;  /* clamp(l - lold, -20, 20) */
    double ratio;      /* rho = exp(log_ratio) */
    int clipped;       /* -1: below with A < 0, +1: above with A > 0, 0: not */
} pgrad__token_loss;

/* REINFORCE: f = -A l. PPO_CLIP: f = max(-A rho, -A clip(rho, 1 - clip_low, 1 + clip_high)); its
 * derivative is -A rho, or 0 where strictly outside on the clipped side. SUPERVISED: f = -l. */
pgrad__token_loss pgrad__loss_token(uint32_t loss, double l, double l_old, double advantage,
                                    double clip_low, double clip_high);

typedef struct pgrad__kl_term {
    double value, derivative;
} pgrad__kl_term;

/* d = clamp(l - lref, -20, 20). K3_RATIO: rho (e^-d - 1 + d), derivative rho d, since k3 + k3' = d.
 * K2: d^2 / 2, derivative d. NONE: 0. Outside the clamp the derivative stays at its border's value,
 * so that a policy far away is still pulled back. */
pgrad__kl_term pgrad__kl_token(uint32_t kl, double l, double l_reference, double ratio);

#endif
