/* The way back of a batch, from the head to the embedding. */
#include "model/pass.h"

#include "base/fail.h"

/* From d_stream, the gradient at the last layer's output, down to the embedding. */
static pgrad_status trunk_backward(pgrad__trunk *trunk, pgrad__gradients *gradients)
{
    pgrad_model *model = trunk->model;
    for (uint32_t i = model->config.n_layers; i > 0; i--) {
        pgrad__activations *kept = pgrad__trunk_layer(trunk, i - 1);
        if (!gradients->begun)
            PGRAD__TRY(pgrad__check_cancel(model->context));
        if (trunk->stored != NULL)
            pgrad__gather_layer(trunk, i - 1, kept);
        else if (trunk->recompute && i < model->config.n_layers) /* the last one is still there */
            PGRAD__TRY(pgrad__block_recompute(trunk, i - 1, kept));
        PGRAD__TRY(pgrad__block_backward(trunk, i - 1, kept));
        PGRAD__TRY(pgrad__gradients_layer_done(gradients, i - 1));
    }
    pgrad__tensor *positions = model->stem->positions;
    pgrad__embedding_backward(model->context, &model->stem->embedding->grad_matrix,
                              positions == NULL ? NULL : positions->grad, trunk->tokens,
                              trunk->positions, trunk->n_rows, trunk->d_stream);
    return pgrad__gradients_stem_done(gradients);
}

/* Nothing to go back for: gradients stay as they are, and are used all the same. */
static pgrad_status use_gradients(pgrad__gradients *gradients)
{
    for (uint32_t i = gradients->model->config.n_layers; i > 0; i--)
        PGRAD__TRY(pgrad__gradients_layer_done(gradients, i - 1));
    return pgrad__gradients_stem_done(gradients);
}

static pgrad_status go_back(pgrad__batch_pass *plan, const pgrad__backward *how)
{
    pgrad__trunk *trunk = &plan->trunk;
    PGRAD__TRY(
        pgrad__head_backward(&plan->head, how->loss, how->user, trunk->d_stream, trunk->n_rows));
    if (plan->head.n_kept == 0)
        return use_gradients(&plan->gradients);
    pgrad__trunk_drop(trunk, &plan->head);
    return trunk_backward(trunk, &plan->gradients);
}

/* The last layer's output, computed or gathered. */
static pgrad_status trunk_output(pgrad__trunk *trunk)
{
    if (trunk->stored == NULL)
        return pgrad__trunk_forward(trunk);
    PGRAD__TRY(pgrad__check_cancel(trunk->model->context));
    pgrad__gather_output(trunk, trunk->model->config.n_layers - 1, trunk->output);
    return PGRAD_OK;
}

static pgrad__batch_pass plan_of(const pgrad__backward *how, int has_gradients)
{
    return (pgrad__batch_pass){.trunk = {.keep = 1, .recompute = how->recompute},
                               .gradients = {.update = how->update, .user = how->update_user},
                               .with_logits = 1,
                               .borrow = how->update != NULL && !has_gradients};
}

pgrad_status pgrad__backward_size(pgrad_model *model, const pgrad__batch *batch,
                                  const pgrad__backward *how, int has_gradients, uint32_t n_workers,
                                  pgrad__pass_size *size)
{
    pgrad__batch_pass plan = plan_of(how, has_gradients);
    return pgrad__batch_pass_measure(&plan, model, batch, n_workers, size);
}

pgrad_status pgrad__model_backward(pgrad_model *model, pgrad__pass *pass, const pgrad__batch *batch,
                                   const pgrad__backward *how)
{
    if (model->frozen)
        return pgrad__fail(PGRAD_E_STATE, "a frozen model has no gradients");
    if (batch->n_targets == 0)
        return PGRAD_OK;
    pgrad__batch_pass plan = plan_of(how, model->has_gradients);
    plan.gradients.model = model;
    if (!plan.borrow)
        PGRAD__TRY(pgrad__gradients_allocate(model));
    PGRAD__TRY(pgrad__batch_pass_plan(&plan, model, pass, batch));
    PGRAD__TRY(trunk_output(&plan.trunk));
    pgrad__head_gather(&plan.head, plan.trunk.output);
    pgrad__gradients_begin(&plan.gradients);
    pgrad_status status = go_back(&plan, how);
    pgrad__gradients_end(&plan.gradients);
    return status;
}
