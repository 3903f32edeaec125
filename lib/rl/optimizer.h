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
    double *squares;              /* [n_tensors] of gradients, for updates inside backward */
    pgrad__reach reach;           /* of the last update, over all tensors */
    uint64_t reach_version;       /* weight_version it speaks of */
    uint64_t dry_runs;            /* updates the bounds did not suffice for */
};

/* Counts what create takes; the model may be a planned one, the moments' storage is not AUTO. */
void pgrad__optimizer_count(const pgrad_model *model, const pgrad_optimizer_params *params,
                            pgrad__arena *sum);

/* One update, tensor by tensor, as gradients are complete. The caller holds the model's write lock
 * from begin to end. */
typedef struct pgrad__tensor_updates {
    pgrad_optimizer *optimizer;
    uint64_t t;
    double learning_rate;
    pgrad__reach reach; /* of what was written */
    uint32_t n_done;
} pgrad__tensor_updates;

/* E_INVALID for an optimizer of another model, or one that clips. */
pgrad_status pgrad__tensor_updates_begin(pgrad_optimizer *optimizer, const pgrad_model *model,
                                         pgrad__tensor_updates *updates);
/* A pgrad__update_fn; `user` is the updates. E_NUMERIC: this tensor stays as it was. */
pgrad_status pgrad__tensor_updates_one(void *user, uint32_t index);
/* Counts the step when `status` is OK, and fills the report. */
void pgrad__tensor_updates_end(pgrad__tensor_updates *updates, pgrad_status status,
                               pgrad_step_report *report);

#endif
