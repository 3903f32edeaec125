#include "model/pass.h"

#include "base/fail.h"

pgrad_status pgrad__trunk_backward(pgrad__trunk *trunk)
{
    pgrad_model *model = trunk->model;
    for (uint32_t i = model->config.n_layers; i > 0; i--) {
        PGRAD__TRY(pgrad__check_cancel(model->context));
        PGRAD__TRY(pgrad__block_backward(trunk, i - 1, &trunk->layers[i - 1]));
    }
    pgrad__tensor *positions = model->stem->positions;
    pgrad__embedding_backward(model->context, &model->stem->embedding->grad_matrix,
                              positions == NULL ? NULL : positions->grad, trunk->tokens,
                              trunk->positions, trunk->n_rows, trunk->d_stream);
    return PGRAD_OK;
}

pgrad_status pgrad__model_backward(pgrad_model *model, pgrad__pass *pass, const pgrad__batch *batch,
                                   pgrad__loss_fn loss, void *user)
{
    pgrad__batch_pass plan;
    int all_zero;
    if (model->frozen)
        return pgrad__fail(PGRAD_E_STATE, "a frozen model has no gradients");
    if (batch->n_targets == 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__batch_pass_plan(&plan, model, pass, batch, 1, 1));
    PGRAD__TRY(pgrad__trunk_forward(&plan.trunk));
    pgrad__head_gather(&plan.head, plan.trunk.output);
    PGRAD__TRY(pgrad__head_backward(&plan.head, loss, user, plan.trunk.d_stream, plan.trunk.n_rows,
                                    &all_zero));
    return all_zero ? PGRAD_OK : pgrad__trunk_backward(&plan.trunk);
}
