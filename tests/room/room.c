/* Eight programs that the interface must have room for: compiled, never run. */
#include "draft.h"

#define TRY(call)                                                                                  \
    do {                                                                                           \
        pgrad_status status_ = (call);                                                             \
        if (status_ != PGRAD_OK)                                                                   \
            return status_;                                                                        \
    } while (0)

typedef struct run {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_reward *reward;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_step_report report;
} run;

pgrad_status ppo_with_value_head(run *r);
pgrad_status direct_preference(run *r, const pgrad_token *good, size_t n_good,
                               const pgrad_token *bad, size_t n_bad);
pgrad_status tool_episode(run *r, const pgrad_token *prompt, size_t n);
pgrad_status kl_by_adapter_off(run *r, const pgrad_token *prompt, size_t n);
pgrad_status gaussian_action(run *r, const float *observation, size_t n);
pgrad_status step_over_ranks(run *r, pgrad_reduce_fn sum, void *ranks);
pgrad_status resumed_run(run *r);
pgrad_status loaded_adapter(run *r);

static pgrad_status update(run *r)
{
    TRY(pgrad_model_zero_grad(r->model));
    TRY(pgrad_objective_backward(r->objective, r->rollout, NULL, 0, NULL, &r->report));
    return pgrad_optimizer_step(r->optimizer, &r->report);
}

pgrad_status ppo_with_value_head(run *r)
{
    pgrad_head_params head;
    pgrad_advantage_params advantage;
    pgrad_head_params_init(&head, sizeof head);
    head.kind = PGRAD_HEAD_VALUE;
    TRY(pgrad_model_add_head(r->model, "value", &head));
    pgrad_advantage_params_init(&advantage, sizeof advantage);
    advantage.estimator = PGRAD_ADVANTAGE_GAE;
    TRY(pgrad_advantage_create(r->context, &advantage, &r->advantage));
    TRY(pgrad_rollout_generate(r->rollout, r->sampler, NULL));
    TRY(pgrad_rollout_values(r->rollout, r->model, "value"));
    TRY(pgrad_reward_apply(r->reward, r->rollout));
    TRY(pgrad_advantage_apply(r->advantage, r->rollout));
    for (int epoch = 0; epoch < 4; epoch++)
        TRY(update(r));
    return pgrad_rollout_array(r->rollout, PGRAD_RETURNS, 0, NULL) == NULL ? PGRAD_E_STATE
                                                                           : PGRAD_OK;
}

pgrad_status direct_preference(run *r, const pgrad_token *good, size_t n_good,
                               const pgrad_token *bad, size_t n_bad)
{
    pgrad_objective_params params;
    TRY(pgrad_rollout_add_sequence(r->rollout, 0, good, n_good, NULL));
    TRY(pgrad_rollout_add_sequence(r->rollout, 0, bad, n_bad, NULL));
    TRY(pgrad_rollout_add_preference(r->rollout, 0, 0, 1, 0.0));
    TRY(pgrad_rollout_score(r->rollout, r->model, PGRAD_REFERENCE));
    pgrad_objective_params_init(&params, sizeof params);
    params.loss = PGRAD_LOSS_DPO;
    TRY(pgrad_objective_create(r->model, &params, &r->objective));
    return update(r);
}

pgrad_status tool_episode(run *r, const pgrad_token *prompt, size_t n)
{
    pgrad_token answer[2] = {1, 2};
    TRY(pgrad_rollout_add_prompt(r->rollout, prompt, n, NULL, NULL));
    TRY(pgrad_rollout_generate(r->rollout, r->sampler, NULL));
    for (uint32_t i = 0; i < pgrad_rollout_count(r->rollout); i++)
        TRY(pgrad_rollout_append(r->rollout, i, answer, 2, PGRAD_OWNER_TOOL));
    TRY(pgrad_rollout_generate(r->rollout, r->sampler, NULL));
    TRY(pgrad_reward_apply(r->reward, r->rollout));
    TRY(pgrad_advantage_apply(r->advantage, r->rollout));
    return update(r);
}

pgrad_status kl_by_adapter_off(run *r, const pgrad_token *prompt, size_t n)
{
    pgrad_adapter *adapter = NULL;
    TRY(pgrad_adapter_create(r->model, NULL, &adapter));
    TRY(pgrad_rollout_add_prompt(r->rollout, prompt, n, NULL, NULL));
    TRY(pgrad_rollout_generate(r->rollout, r->sampler, NULL));
    TRY(pgrad_model_set_adapter(r->model, NULL));
    TRY(pgrad_rollout_score(r->rollout, r->model, PGRAD_REFERENCE));
    TRY(pgrad_model_set_adapter(r->model, adapter));
    TRY(pgrad_reward_apply(r->reward, r->rollout));
    TRY(pgrad_advantage_apply(r->advantage, r->rollout));
    TRY(update(r));
    pgrad_adapter_free(adapter);
    return PGRAD_OK;
}

pgrad_status gaussian_action(run *r, const float *observation, size_t n)
{
    pgrad_head_params head;
    uint32_t group;
    size_t n_action;
    pgrad_head_params_init(&head, sizeof head);
    head.kind = PGRAD_HEAD_GAUSSIAN;
    head.n_outputs = 2;
    TRY(pgrad_model_add_head(r->model, "action", &head));
    TRY(pgrad_rollout_add_observation(r->rollout, observation, n, &group));
    TRY(pgrad_rollout_generate(r->rollout, r->sampler, NULL));
    if (pgrad_rollout_action(r->rollout, 0, &n_action) == NULL)
        return PGRAD_E_STATE;
    TRY(pgrad_reward_apply(r->reward, r->rollout));
    TRY(pgrad_advantage_apply(r->advantage, r->rollout));
    return update(r);
}

pgrad_status step_over_ranks(run *r, pgrad_reduce_fn sum, void *ranks)
{
    pgrad_checkpoint *checkpoint = NULL;
    pgrad_backward_params params;
    TRY(pgrad_context_set_reduce(r->context, sum, ranks));
    pgrad_backward_params_init(&params, sizeof params);
    TRY(pgrad_objective_normalizer(r->objective, r->rollout, NULL, 0, &params.normalizer_total));
    if (sum(ranks, 0, &params.normalizer_total, 1) <= 0)
        return PGRAD_E_CALLBACK;
    TRY(pgrad_model_zero_grad(r->model));
    TRY(pgrad_objective_backward(r->objective, r->rollout, NULL, 0, &params, &r->report));
    TRY(pgrad_optimizer_step(r->optimizer, &r->report));
    TRY(pgrad_checkpoint_create(r->context, &checkpoint));
    TRY(pgrad_checkpoint_add(checkpoint, "policy", PGRAD_KIND_MODEL, r->model));
    TRY(pgrad_checkpoint_write(checkpoint, "run.pgrad", NULL));
    pgrad_checkpoint_free(checkpoint);
    return PGRAD_OK;
}

pgrad_status resumed_run(run *r)
{
    pgrad_checkpoint *checkpoint = NULL;
    pgrad_reward *format = NULL;
    TRY(pgrad_reward_builtin(r->context, "regex", "{\"pattern\": \"^<think>\"}", &format));
    TRY(pgrad_checkpoint_open(r->context, "run.pgrad", &checkpoint));
    TRY(pgrad_checkpoint_restore(checkpoint, "policy", PGRAD_KIND_MODEL, r->model));
    TRY(pgrad_checkpoint_restore(checkpoint, "optimizer", PGRAD_KIND_OPTIMIZER, r->optimizer));
    TRY(pgrad_checkpoint_restore(checkpoint, "sampler", PGRAD_KIND_SAMPLER, r->sampler));
    pgrad_checkpoint_free(checkpoint);
    TRY(pgrad_rollout_generate(r->rollout, r->sampler, NULL));
    TRY(pgrad_reward_apply(format, r->rollout));
    TRY(pgrad_advantage_apply(r->advantage, r->rollout));
    pgrad_reward_free(format);
    return update(r);
}

pgrad_status loaded_adapter(run *r)
{
    pgrad_adapter *adapter = NULL;
    TRY(pgrad_adapter_load(r->model, "adapter", &adapter));
    TRY(pgrad_model_set_adapter(r->model, adapter));
    TRY(update(r));
    TRY(pgrad_adapter_save(adapter, "adapter", NULL));
    TRY(pgrad_adapter_merge(adapter, r->model));
    pgrad_adapter_free(adapter);
    return PGRAD_OK;
}
