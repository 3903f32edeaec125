/* Calls that are planned and not built: declared here, used by the programs beside it, compiled and
 * never linked, so that their shapes are tried against the public headers before anything is
 * promised. Not installed. */
#ifndef PGRAD_TESTS_ROOM_DRAFT_H
#define PGRAD_TESTS_ROOM_DRAFT_H

#include <policygrad.h>

typedef struct pgrad_adapter pgrad_adapter;

/* Heads beside the language head: named tensors of the model, optimised and saved with it. */
enum {
    PGRAD_HEAD_VALUE = 0,
    PGRAD_HEAD_REWARD = 1,
    PGRAD_HEAD_GAUSSIAN = 2,
    PGRAD_HEAD_CANDIDATES = 3
};
typedef struct pgrad_head_params {
    size_t struct_size;
    uint32_t kind;
    uint32_t n_outputs;
    uint32_t detached; /* 1: no gradient into the trunk */
    uint32_t reserved;
} pgrad_head_params;
void pgrad_head_params_init(pgrad_head_params *params, size_t size);
pgrad_status pgrad_model_add_head(pgrad_model *model, const char *name,
                                  const pgrad_head_params *params);
pgrad_status pgrad_rollout_values(pgrad_rollout *rollout, pgrad_model *model, const char *head);
enum { PGRAD_VALUES = 9, PGRAD_RETURNS = 10, PGRAD_OWNER = 11 };
enum { PGRAD_ADVANTAGE_GAE = 6 };

/* Preferences: two sequences of a group, the better first. */
enum { PGRAD_LOSS_DPO = 3 };
pgrad_status pgrad_rollout_add_preference(pgrad_rollout *rollout, uint32_t group, uint32_t chosen,
                                          uint32_t rejected, double margin);

/* Turns: tokens that the policy did not write, learned from only where the owner is the policy. */
enum { PGRAD_OWNER_POLICY = 0, PGRAD_OWNER_USER = 1, PGRAD_OWNER_TOOL = 2 };
pgrad_status pgrad_rollout_append(pgrad_rollout *rollout, uint32_t i, const pgrad_token *ids,
                                  size_t n, int32_t owner);

/* LoRA. */
typedef struct pgrad_adapter_params {
    size_t struct_size;
    uint32_t rank;
    uint32_t reserved;
    double alpha;
} pgrad_adapter_params;
void pgrad_adapter_params_init(pgrad_adapter_params *params, size_t size);
pgrad_status pgrad_adapter_create(pgrad_model *model, const pgrad_adapter_params *params,
                                  pgrad_adapter **out);
pgrad_status pgrad_model_set_adapter(pgrad_model *model, pgrad_adapter *adapter_or_null);
pgrad_status pgrad_adapter_load(pgrad_model *model, const char *path, pgrad_adapter **out);
pgrad_status pgrad_adapter_save(pgrad_adapter *adapter, const char *path,
                                const pgrad_save_params *params);
pgrad_status pgrad_adapter_merge(pgrad_adapter *adapter, pgrad_model *model);
void pgrad_adapter_free(pgrad_adapter *adapter);

/* Continuous and many-valued actions: the host feeds vectors, the head gives a distribution. */
pgrad_status pgrad_rollout_add_observation(pgrad_rollout *rollout, const float *vector, size_t n,
                                           uint32_t *group);
const float *pgrad_rollout_action(const pgrad_rollout *rollout, uint32_t i, size_t *n);

/* Ranks: the host sums buffers over them. `kind` names what is summed, for a host that treats token
 * counts and gradients differently. */
typedef int32_t (*pgrad_reduce_fn)(void *user, int32_t kind, void *data, size_t n);
pgrad_status pgrad_context_set_reduce(pgrad_context *context, pgrad_reduce_fn fn, void *user);


#endif
