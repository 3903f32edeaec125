#include "model/gradients.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/pool.h"

/* ---- the model's own, for all tensors ---- */

static void zero_tensor(void *argument, size_t index, uint32_t worker)
{
    const pgrad_model *model = argument;
    const pgrad__tensor *tensor = &model->tensors[index];
    (void)worker;
    memset(tensor->grad, 0, (tensor->floats + PGRAD__SLACK) * sizeof(float));
}

void pgrad__gradients_zero(pgrad_model *model)
{
    if (model->has_gradients)
        pgrad__parallel(model->context, model->n_tensors, zero_tensor, model);
}

static void bind(pgrad__tensor *tensor, float *data)
{
    tensor->grad = data;
    tensor->grad_matrix.data = data;
}

void pgrad__gradients_free(pgrad_model *model)
{
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__free(model->context, model->tensors[i].grad);
        bind(&model->tensors[i], NULL);
    }
    model->has_gradients = 0;
}

void pgrad__gradients_count(const pgrad_model *model, pgrad__arena *sum)
{
    for (uint32_t i = 0; i < model->n_tensors; i++)
        pgrad__arena_count_block(sum, model->tensors[i].floats + PGRAD__SLACK, sizeof(float));
}

pgrad_status pgrad__gradients_allocate(pgrad_model *model)
{
    if (model->has_gradients)
        return PGRAD_OK;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__tensor *tensor = &model->tensors[i];
        float *data = NULL;
        pgrad_status status =
            pgrad__alloc(model->context, tensor->floats + PGRAD__SLACK, sizeof(float), &data);
        if (status != PGRAD_OK) {
            pgrad__gradients_free(model);
            return status;
        }
        bind(tensor, data);
    }
    model->has_gradients = 1;
    pgrad__gradients_zero(model);
    return PGRAD_OK;
}

/* ---- one pass that uses them up ----
 * A borrowed block holds, one after another: the embedding, and in the same place the head before
 * it where that is a tensor of its own; the final norm; the positions; one layer. */

static size_t grad_floats(const pgrad__tensor *tensor)
{
    return tensor == NULL ? 0 : (tensor->floats + PGRAD__SLACK + 15) & ~(size_t)15;
}

static int of_layer(const pgrad__tensor *tensor, uint32_t layer)
{
    return tensor->rule->per_layer && tensor->layer == layer;
}

static size_t layer_floats(const pgrad_model *model)
{
    size_t floats = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++)
        floats += of_layer(&model->tensors[i], 0) ? grad_floats(&model->tensors[i]) : 0;
    return floats;
}

/* Of the tensors that are neither the embedding, the head nor a layer's. */
static size_t small_floats(const pgrad__stem *stem)
{
    return grad_floats(stem->norm.weight) + grad_floats(stem->norm.bias) +
           grad_floats(stem->positions);
}

size_t pgrad__gradients_borrowed(const pgrad_model *model)
{
    return grad_floats(model->stem->embedding) + small_floats(model->stem) + layer_floats(model);
}

typedef struct zero_job {
    float *data;
    size_t floats;
} zero_job;

enum { ZERO_RANGE = 1 << 18 };

static void zero_range(void *argument, size_t task, uint32_t worker)
{
    const zero_job *job = argument;
    size_t first = task * ZERO_RANGE, n = job->floats - first;
    (void)worker;
    memset(job->data + first, 0, (n < ZERO_RANGE ? n : ZERO_RANGE) * sizeof(float));
}

static void zero(pgrad_model *model, float *data, size_t floats)
{
    zero_job job = {data, floats};
    pgrad__parallel(model->context, (floats + ZERO_RANGE - 1) / ZERO_RANGE, zero_range, &job);
}

/* Gives a tensor its place in the block, if there is such a tensor. */
static void place(pgrad__tensor *tensor, float **at)
{
    if (tensor == NULL)
        return;
    bind(tensor, *at);
    *at += grad_floats(tensor);
}

static void borrow_layer(pgrad__gradients *gradients, uint32_t layer)
{
    pgrad_model *model = gradients->model;
    float *at = gradients->block + grad_floats(model->stem->embedding) + small_floats(model->stem);
    zero(model, at, layer_floats(model));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        if (of_layer(&model->tensors[i], layer))
            place(&model->tensors[i], &at);
    }
}

void pgrad__gradients_begin(pgrad__gradients *gradients)
{
    pgrad_model *model = gradients->model;
    pgrad__stem *stem = model->stem;
    float *at = gradients->block;
    if (at == NULL)
        return;
    zero(model, at, grad_floats(stem->embedding) + small_floats(stem));
    place(stem->head, &at); /* as large as the embedding, or the embedding itself */
    place(stem->norm.weight, &at);
    place(stem->norm.bias, &at);
    place(stem->positions, &at);
    borrow_layer(gradients, model->config.n_layers - 1);
}

void pgrad__gradients_end(pgrad__gradients *gradients)
{
    pgrad_model *model = gradients->model;
    for (uint32_t i = 0; i < model->n_tensors && gradients->block != NULL; i++)
        bind(&model->tensors[i], NULL);
}

/* Updates one tensor; a gradient that was used is zero, or nowhere. */
static pgrad_status use(pgrad__gradients *gradients, pgrad__tensor *tensor)
{
    pgrad_model *model = gradients->model;
    if (tensor == NULL)
        return PGRAD_OK;
    gradients->begun = 1;
    PGRAD__TRY(gradients->update(gradients->user, (uint32_t)(tensor - model->tensors)));
    if (gradients->block == NULL)
        zero(model, tensor->grad, tensor->floats);
    else
        bind(tensor, NULL);
    return PGRAD_OK;
}

/* The final norm and a head of its own. They wait for the last layer: behind it, the pass asks for
 * no more memory, and it cannot fail for want of it with half of the weights updated. */
static pgrad_status use_head(pgrad__gradients *gradients)
{
    pgrad_model *model = gradients->model;
    pgrad__stem *stem = model->stem;
    PGRAD__TRY(use(gradients, stem->norm.weight));
    PGRAD__TRY(use(gradients, stem->norm.bias));
    if (stem->head == stem->embedding)
        return PGRAD_OK;
    PGRAD__TRY(use(gradients, stem->head));
    if (gradients->block != NULL) {
        zero(model, gradients->block, grad_floats(stem->embedding));
        bind(stem->embedding, gradients->block);
    }
    return PGRAD_OK;
}

pgrad_status pgrad__gradients_layer_done(pgrad__gradients *gradients, uint32_t layer)
{
    pgrad_model *model = gradients->model;
    if (gradients->update == NULL)
        return PGRAD_OK;
    if (layer + 1 == model->config.n_layers)
        PGRAD__TRY(use_head(gradients));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        if (of_layer(&model->tensors[i], layer))
            PGRAD__TRY(use(gradients, &model->tensors[i]));
    }
    if (gradients->block != NULL && layer > 0)
        borrow_layer(gradients, layer - 1);
    return PGRAD_OK;
}

pgrad_status pgrad__gradients_stem_done(pgrad__gradients *gradients)
{
    if (gradients->update == NULL)
        return PGRAD_OK;
    PGRAD__TRY(use(gradients, gradients->model->stem->positions));
    return use(gradients, gradients->model->stem->embedding);
}
