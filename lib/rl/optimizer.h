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
    uint64_t step; /* updates done */
    float *
        *first_moment; /* m, or SGD's b: one per tensor, in the tensor's layout; NULL: not kept */
    float **second_moment; /* v */
};

#endif
