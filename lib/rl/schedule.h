/* Learning-rate curves. Not the optimizers themselves. */
#ifndef PGRAD_RL_SCHEDULE_H
#define PGRAD_RL_SCHEDULE_H

#include <policygrad/optimizer.h>

/* The factor on the learning rate for the update numbered step = 0, 1, ... (algorithms.md 5):
 * warm-up (step + 1) / W, then with p = (step - W) / (K - W) clamped to 1: constant 1, linear
 * r + (1 - r)(1 - p), cosine r + (1 - r)(1 + cos(pi p)) / 2. */
double pgrad__schedule_factor(const pgrad_optimizer_params *params, uint64_t step);

#endif
