/* The inside of an objective handle. */
#ifndef PGRAD_RL_OBJECTIVE_H
#define PGRAD_RL_OBJECTIVE_H

#include <policygrad/objective.h>

#include "rl/rollout.h"

struct pgrad_objective {
    pgrad_context *context;
    atomic_uint references;
    pgrad_model *model;
    pgrad_objective_params params;
    pgrad__pass *pass;
    pgrad__batch_builder builder;
    uint32_t *chosen; /* the sequences of a call */
    double *weights;  /* w_it of each, the same for all its tokens */
    size_t capacity;
    uint32_t *group_tokens;
    size_t group_capacity;
};

#endif
