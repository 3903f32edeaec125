/* The public calls that look into a model or change single tensors, and those that run it. */
#include "model/weights.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/half.h"
#include "base/params_check.h"

pgrad_status pgrad_model_get_info(pgrad_model *model, pgrad_model_info *out)
{
    if (model == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "model_get_info: model or out is NULL");
    const pgrad__config *config = &model->config;
    pgrad_model_info info = {
        .struct_size = sizeof info,
        .architecture = config->arch->name,
        .n_layers = config->n_layers,
        .n_heads = config->n_heads,
        .n_kv_heads = config->n_kv_heads,
        .head_dim = config->head_dim,
        .n_embd = config->n_embd,
        .n_ff = config->n_ff,
        .n_vocab = config->n_vocab,
        .n_context = model->n_context,
        .tied_head = config->tied_head != 0,
        .n_tensors = model->n_tensors,
        .weight_version = model->weight_version,
        .eos_token = config->n_eos > 0 ? config->eos[0] : -1,
        .bos_token = config->bos,
        .storage = model->storage,
    };
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        info.n_parameters += pgrad__tensor_elements(&model->tensors[i]);
        info.weight_bytes += model->tensors[i].bytes + PGRAD__SLACK * sizeof(float);
    }
    return pgrad__struct_write("model_info", &info, sizeof info, out);
}

const char *pgrad_model_tensor_name(pgrad_model *model, uint32_t index, uint32_t *n_dims,
                                    uint64_t dims[4])
{
    if (model == NULL || index >= model->n_tensors)
        return NULL;
    const pgrad__tensor *tensor = &model->tensors[index];
    if (n_dims != NULL)
        *n_dims = tensor->n_dims;
    for (uint32_t i = 0; i < tensor->n_dims && dims != NULL; i++)
        dims[i] = tensor->dims[i];
    return tensor->name;
}

static pgrad_status find_tensor(const pgrad_model *model, const char *name, pgrad__tensor **out)
{
    *out = pgrad__tensor_by_name(model, name);
    if (*out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "the model has no tensor '%.200s'", name);
    return PGRAD_OK;
}

static pgrad_status read_tensor(pgrad_model *model, const char *name, int gradient, float *out,
                                size_t capacity, size_t *n)
{
    if (model == NULL || name == NULL || n == NULL || (out == NULL && capacity > 0))
        return pgrad__fail(PGRAD_E_INVALID, "%s: an argument is NULL",
                           gradient ? "grad_read" : "tensor_read");
    if (gradient && model->frozen)
        return pgrad__fail(PGRAD_E_STATE, "a frozen model has no gradients");
    pgrad__tensor *tensor;
    PGRAD__TRY(find_tensor(model, name, &tensor));
    uint64_t elements = pgrad__tensor_elements(tensor);
    if (capacity < elements) {
        *n = (size_t)elements;
        return pgrad__fail(PGRAD_E_BUFFER, "tensor '%s': expected room for %llu floats, found %zu",
                           name, (unsigned long long)elements, capacity);
    }
    PGRAD__TRY(pgrad__lock_read(&model->lock, "model"));
    if (gradient && !model->has_gradients)
        memset(out, 0, (size_t)elements * sizeof *out);
    else
        pgrad__tensor_get_rows(model, tensor, gradient, 0, pgrad__tensor_rows(tensor), out);
    pgrad__unlock_read(&model->lock);
    *n = (size_t)elements;
    return PGRAD_OK;
}

pgrad_status pgrad_model_tensor_read(pgrad_model *model, const char *name, float *out,
                                     size_t capacity, size_t *n)
{
    return read_tensor(model, name, 0, out, capacity, n);
}

pgrad_status pgrad_model_grad_read(pgrad_model *model, const char *name, float *out,
                                   size_t capacity, size_t *n)
{
    return read_tensor(model, name, 1, out, capacity, n);
}

pgrad_status pgrad_model_tensor_write(pgrad_model *model, const char *name, const float *in,
                                      size_t n)
{
    pgrad__scope scope;
    pgrad__tensor *tensor;
    if (model == NULL || name == NULL || in == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "tensor_write: an argument is NULL");
    PGRAD__TRY(find_tensor(model, name, &tensor));
    if (n != pgrad__tensor_elements(tensor))
        return pgrad__fail(PGRAD_E_MISMATCH, "tensor '%s': expected %llu values, found %zu", name,
                           (unsigned long long)pgrad__tensor_elements(tensor), n);
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = PGRAD_OK;
    if (!pgrad__all_finite(model->context, in, n)) {
        size_t i = 0;
        while (isfinite(in[i]))
            i++;
        status =
            pgrad__fail(PGRAD_E_NUMERIC, "tensor '%s': value %zu is %g", name, i, (double)in[i]);
    } else if (tensor->matrix.storage == PGRAD_STORAGE_BF16) {
        const size_t i = pgrad__bf16_overflow(in, n);
        if (i < n)
            status = pgrad__fail(PGRAD_E_NUMERIC, "tensor '%s': value %zu is %g, beyond bf16", name,
                                 i, (double)in[i]);
    }
    if (status == PGRAD_OK)
        status = pgrad__lock_write(&model->lock, "model");
    if (status == PGRAD_OK) {
        pgrad__tensor_set_rows(model, tensor, 0, 0, pgrad__tensor_rows(tensor), in);
        model->weight_version++;
        pgrad__unlock_write(&model->lock);
    }
    pgrad__leave(&scope);
    return status;
}

pgrad_status pgrad_model_zero_grad(pgrad_model *model)
{
    if (model == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "zero_grad: model is NULL");
    if (model->frozen)
        return pgrad__fail(PGRAD_E_STATE, "a frozen model has no gradients");
    pgrad__scope scope;
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = pgrad__lock_write(&model->lock, "model");
    if (status == PGRAD_OK) {
        pgrad__gradients_zero(model);
        pgrad__unlock_write(&model->lock);
    }
    pgrad__leave(&scope);
    return status;
}

/* ---- logits ---- */

static pgrad_status run_logits(pgrad_model *model, const pgrad_token *tokens, size_t n,
                               size_t n_targets, float *out)
{
    pgrad_context *context = model->context;
    pgrad__pass *pass = NULL;
    uint32_t *rows = NULL;
    pgrad_status status;
    PGRAD__GO(pgrad__alloc(context, n_targets, sizeof *rows, &rows));
    for (size_t i = 0; i < n_targets; i++)
        rows[i] = (uint32_t)(n - n_targets + i);
    pgrad__attention_sequence sequence = {.n_rows = (uint32_t)n};
    pgrad__batch batch = {.tokens = tokens,
                          .n_rows = n,
                          .sequences = &sequence,
                          .n_sequences = 1,
                          .target_rows = rows,
                          .n_targets = n_targets};
    PGRAD__GO(pgrad__pass_create(model, &pass));
    PGRAD__GO(pgrad__lock_read(&model->lock, "model"));
    status = pgrad__model_forward_logits(model, pass, &batch, out);
    pgrad__unlock_read(&model->lock);
fail:
    pgrad__pass_free(pass);
    pgrad__free(context, rows);
    return status;
}

pgrad_status pgrad_model_logits(pgrad_model *model, const pgrad_token *tokens, size_t n,
                                uint32_t flags, float *out, size_t capacity)
{
    pgrad__scope scope;
    if (model == NULL || tokens == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "model_logits: an argument is NULL");
    if (n == 0 || flags > PGRAD_LOGITS_LAST)
        return pgrad__fail(PGRAD_E_INVALID,
                           "model_logits: n %zu, flags %u: expected tokens and a flag "
                           "of at most %d",
                           n, flags, PGRAD_LOGITS_LAST);
    if (n > model->n_context)
        return pgrad__fail(PGRAD_E_LIMIT, "model_logits: %zu tokens, more than the context of %u",
                           n, model->n_context);
    size_t n_targets = flags == PGRAD_LOGITS_LAST ? 1 : n;
    size_t needed = n_targets * model->config.n_vocab; /* 2^24 times 2^22 at most */
    if (capacity < needed)
        return pgrad__fail(PGRAD_E_BUFFER, "model_logits: expected room for %zu floats, found %zu",
                           needed, capacity);
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = run_logits(model, tokens, n, n_targets, out);
    pgrad__leave(&scope);
    return status;
}
