/* The estimators on plain arrays, and the inside of an advantage handle. */
#ifndef PGRAD_RL_ADVANTAGE_H
#define PGRAD_RL_ADVANTAGE_H

#include <policygrad/advantage.h>

#include "base/context.h"

/* R [n], A [n] of one group; a NaN reward is left out and gets 0. epsilon: GRPO only.
 * Algorithms.md 2. */
void pgrad__advantage_group(uint32_t estimator, double epsilon, const double *reward, uint32_t n,
                            double *advantage);

/* A group without spread: max - min <= 1e-8 max(1, max |R|); fewer than two rewards count as such.
 */
int pgrad__zero_spread(const double *reward, uint32_t n);

/* Running baseline: b_k = q b_(k-1) + (1 - q) mean(R_k); its value, corrected for the start, is
 * b_k / (1 - q^k). */
typedef struct pgrad__ema {
    double b;
    uint64_t k;
} pgrad__ema;

struct pgrad_advantage {
    pgrad_context *context;
    atomic_uint references;
    pgrad_advantage_params params;
    pgrad__ema ema;
    double
        *scratch; /* of sequences: rewards; then baselines, or a group's rewards and advantages */
    size_t scratch_count;
};

/* E_INVALID for a group estimator over groups of fewer than two. */
pgrad_status pgrad__advantage_check(const pgrad_advantage *advantage, uint32_t group_size);

#endif
