/* The inside of an optimizer handle. */
#ifndef PGRAD_RL_OPTIMIZER_H
#define PGRAD_RL_OPTIMIZER_H

#include <policygrad/optimizer.h>

#include "model/model.h"

struct pgrad_optimizer {
    pgrad_context *context;
    atomic_uint references;
    pgrad_model *model;
    pgrad_optimizer_params params;
    uint64_t step;                /* updates done */
    pgrad__stored *first_moment;  /* m, or SGD's b: one per tensor; NULL: not kept */
    pgrad__stored *second_moment; /* v */
    pgrad__reach reach;           /* of the last update, over all tensors */
    uint64_t reach_version;       /* weight_version it speaks of */
    uint64_t dry_runs;            /* updates the bounds did not suffice for */
};

#endif
