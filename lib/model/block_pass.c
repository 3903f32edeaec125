/* The decoder block of both families, forward and backward, in the letters of docs/algorithms.md:
 *     h = norm1(x); q, k, v = W_qkv h (+ b), rotated; x' = x + W_o attention(q, k, v) (+ b)
 *     h' = norm2(x'); y = x' + W_d (act(W_g h') W_u h') (+ b), or y = x' + W_d act(W_u h') (+ b).
 * Residuals are added inside the products: bits do not depend on whether x, x' and y share memory.
 */
#include "model/pass.h"

#include <string.h>

#include "base/fail.h"

pgrad__attention_shape pgrad__layer_attention(const pgrad__config *config, uint32_t layer)
{
    pgrad__attention_shape shape = {.n_heads = config->n_heads,
                                    .n_kv_heads = config->n_kv_heads,
                                    .head_dim = config->head_dim,
                                    .scale = config->attention_scale};
    if (config->scale_by_layer)
        shape.scale = config->attention_scale / (float)(layer + 1);
    return shape;
}

/* ---- norms ---- */

void pgrad__norm_forward(const pgrad_model *model, const pgrad__norm *norm, const float *x,
                         size_t n_rows, float *y, float *mean, float *rstd)
{
    const pgrad__config *config = &model->config;
    if (config->norm == PGRAD__NORM_LAYER)
        pgrad__layernorm_forward(model->context, x, n_rows, config->n_embd, norm->weight->data,
                                 norm->bias->data, config->norm_epsilon, y, mean, rstd);
    else
        pgrad__rmsnorm_forward(model->context, x, n_rows, config->n_embd, norm->weight->data,
                               config->norm_epsilon, y, rstd);
}

void pgrad__norm_backward(const pgrad_model *model, const pgrad__norm *norm, const float *dy,
                          const float *x, size_t n_rows, const float *mean, const float *rstd,
                          float *dx)
{
    const pgrad__config *config = &model->config;
    if (config->norm == PGRAD__NORM_LAYER)
        pgrad__layernorm_backward(model->context, dy, x, n_rows, config->n_embd, norm->weight->data,
                                  mean, rstd, dx, norm->weight->grad, norm->bias->grad);
    else
        pgrad__rmsnorm_backward(model->context, dy, x, n_rows, config->n_embd, norm->weight->data,
                                rstd, dx, norm->weight->grad);
}

/* ---- linear maps that share their input ---- */

/* y_j = W_j x + b_j, or y_j += with `accumulate`; y_j is columns[j] of rows of ldy floats. */
static pgrad_status linears_forward(pgrad__trunk *trunk, const pgrad__linear *linears, size_t n,
                                    const float *x, size_t ldx, float *const *columns, size_t ldy,
                                    int accumulate)
{
    pgrad__product products[PGRAD__MAX_QKV];
    for (size_t i = 0; i < n; i++) {
        products[i].weight = &linears[i].weight->matrix;
        products[i].bias = linears[i].bias == NULL ? NULL : linears[i].bias->data;
        products[i].y = columns[i];
        products[i].ldy = ldy;
        products[i].accumulate = accumulate;
    }
    return pgrad__matmul(trunk->model->context, &trunk->pass->workspace, x, ldx, trunk->n_rows,
                         products, n);
}

/* dW_j += dy_j^T x, db_j += sum dy_j, dx = sum_j W_j^T dy_j. */
static pgrad_status linears_backward(pgrad__trunk *trunk, const pgrad__linear *linears, size_t n,
                                     const float *x, size_t ldx, float *const *columns, size_t ldy,
                                     float *dx, size_t lddx)
{
    pgrad_context *context = trunk->model->context;
    pgrad__workspace *workspace = &trunk->pass->workspace;
    for (size_t i = 0; i < n; i++) {
        const pgrad__linear *linear = &linears[i];
        PGRAD__TRY(pgrad__matmul_grad_weight(context, workspace, columns[i], ldy, x, ldx,
                                             trunk->n_rows, &linear->weight->grad_matrix));
        if (linear->bias != NULL)
            pgrad__bias_grad(context, columns[i], ldy, trunk->n_rows, linear->weight->matrix.n_out,
                             linear->bias->grad);
        PGRAD__TRY(pgrad__matmul_grad_input(context, workspace, columns[i], ldy, trunk->n_rows,
                                            &linear->weight->matrix, dx, lddx, i > 0));
    }
    return PGRAD_OK;
}

/* Linear maps for q, k and v: three, or one for all. */
static size_t n_qkv(const pgrad__layer *layer)
{
    return layer->qkv[1].weight == NULL ? 1 : PGRAD__MAX_QKV;
}

/* Where q, k and v begin in a row of qkv, and how many linear maps write there. */
static size_t qkv_columns(const pgrad_model *model, const pgrad__layer *layer, float *qkv,
                          float *columns[PGRAD__MAX_QKV])
{
    size_t query = pgrad__query_width(&model->config);
    columns[0] = qkv;
    columns[1] = qkv + query;
    columns[2] = qkv + query + (size_t)model->config.n_kv_heads * model->config.head_dim;
    return n_qkv(layer);
}

/* ---- attention half ---- */

static void rotate(const pgrad__trunk *trunk, float *const *columns, size_t ld, int back)
{
    const pgrad_model *model = trunk->model;
    const pgrad__config *config = &model->config;
    const uint32_t heads[2] = {config->n_heads, config->n_kv_heads};
    if (config->learned_positions)
        return;
    for (size_t i = 0; i < 2; i++) {
        if (back)
            pgrad__rope_backward(model->context, columns[i], ld, trunk->n_rows, heads[i],
                                 config->head_dim, trunk->positions, model->rope_cos,
                                 model->rope_sin);
        else
            pgrad__rope_forward(model->context, columns[i], ld, trunk->n_rows, heads[i],
                                config->head_dim, trunk->positions, model->rope_cos,
                                model->rope_sin);
    }
}

static pgrad_status attention_forward(pgrad__trunk *trunk, uint32_t index, pgrad__activations *kept)
{
    pgrad_model *model = trunk->model;
    const pgrad__layer *layer = &model->layers[index];
    size_t embd = model->config.n_embd, width = pgrad__qkv_width(&model->config);
    size_t query = pgrad__query_width(&model->config);
    float *columns[PGRAD__MAX_QKV];
    size_t n = qkv_columns(model, layer, kept->qkv, columns);
    pgrad__norm_forward(model, &layer->attention_norm, kept->input, trunk->n_rows, trunk->normed,
                        kept->mean[0], kept->rstd[0]);
    PGRAD__TRY(linears_forward(trunk, layer->qkv, n, trunk->normed, embd, columns, width, 0));
    rotate(trunk, columns, width, 0);
    pgrad__attention_shape shape = pgrad__layer_attention(&model->config, index);
    shape.kv_storage = trunk->kv_storage;
    const pgrad__kv_rows fresh = {columns[1], columns[2], width, trunk->runs, trunk->n_runs};
    PGRAD__TRY(pgrad__attention_forward(model->context, &trunk->pass->workspace, &shape, &fresh,
                                        kept->qkv, width, trunk->spans, trunk->n_spans,
                                        kept->attention, query, kept->lse));
    if (kept->middle != kept->input)
        memcpy(kept->middle, kept->input, trunk->n_rows * embd * sizeof(float));
    return linears_forward(trunk, &layer->output, 1, kept->attention, query, &kept->middle, embd,
                           1);
}

static pgrad_status attention_backward(pgrad__trunk *trunk, uint32_t index,
                                       pgrad__activations *kept)
{
    pgrad_model *model = trunk->model;
    const pgrad__layer *layer = &model->layers[index];
    size_t embd = model->config.n_embd, width = pgrad__qkv_width(&model->config);
    size_t query = pgrad__query_width(&model->config);
    float *columns[PGRAD__MAX_QKV], *d_columns[PGRAD__MAX_QKV];
    (void)qkv_columns(model, layer, kept->qkv, columns);
    size_t n = qkv_columns(model, layer, trunk->d_qkv, d_columns);
    float *d_attention = trunk->d_hidden;
    PGRAD__TRY(linears_backward(trunk, &layer->output, 1, kept->attention, query, &trunk->d_stream,
                                embd, d_attention, query));
    pgrad__attention_shape shape = pgrad__layer_attention(&model->config, index);
    pgrad__attention_grads grads = {.q = columns[0],
                                    .k = columns[1],
                                    .v = columns[2],
                                    .o = kept->attention,
                                    .d_o = d_attention,
                                    .lse = kept->lse,
                                    .dq = d_columns[0],
                                    .dk = d_columns[1],
                                    .dv = d_columns[2],
                                    .ldq = width,
                                    .ldkv = width,
                                    .ldo = query,
                                    .lddq = width,
                                    .lddkv = width};
    PGRAD__TRY(pgrad__attention_backward(model->context, &trunk->pass->workspace, &shape,
                                         trunk->sequences, trunk->n_sequences, &grads));
    rotate(trunk, d_columns, width, 1);
    pgrad__norm_forward(model, &layer->attention_norm, kept->input, trunk->n_rows, trunk->normed,
                        kept->mean[0], kept->rstd[0]);
    PGRAD__TRY(linears_backward(trunk, layer->qkv, n, trunk->normed, embd, d_columns, width,
                                trunk->d_normed, embd));
    pgrad__norm_backward(model, &layer->attention_norm, trunk->d_normed, kept->input, trunk->n_rows,
                         kept->mean[0], kept->rstd[0], trunk->d_stream);
    return PGRAD_OK;
}

/* ---- MLP half ---- */

static size_t n_expand(const pgrad_model *model)
{
    return model->config.gated ? 2 : 1;
}

static void activate(const pgrad__trunk *trunk, const pgrad__activations *kept)
{
    const pgrad__config *config = &trunk->model->config;
    size_t n = trunk->n_rows * config->n_ff;
    if (config->gated)
        pgrad__gated_forward(trunk->model->context, config->activation, kept->expand[0],
                             kept->expand[1], n, trunk->hidden);
    else
        pgrad__activation_forward(trunk->model->context, config->activation, kept->expand[0], n,
                                  trunk->hidden);
}

static pgrad_status mlp_expand(pgrad__trunk *trunk, uint32_t index, pgrad__activations *kept)
{
    pgrad_model *model = trunk->model;
    const pgrad__layer *layer = &model->layers[index];
    pgrad__norm_forward(model, &layer->mlp_norm, kept->middle, trunk->n_rows, trunk->normed,
                        kept->mean[1], kept->rstd[1]);
    return linears_forward(trunk, layer->expand, n_expand(model), trunk->normed,
                           model->config.n_embd, kept->expand, model->config.n_ff, 0);
}

static pgrad_status mlp_forward(pgrad__trunk *trunk, uint32_t index, pgrad__activations *kept,
                                float *output)
{
    const pgrad__layer *layer = &trunk->model->layers[index];
    size_t embd = trunk->model->config.n_embd, ff = trunk->model->config.n_ff;
    PGRAD__TRY(mlp_expand(trunk, index, kept));
    activate(trunk, kept);
    if (output != kept->middle)
        memcpy(output, kept->middle, trunk->n_rows * embd * sizeof(float));
    return linears_forward(trunk, &layer->contract, 1, trunk->hidden, ff, &output, embd, 1);
}

static pgrad_status mlp_backward(pgrad__trunk *trunk, uint32_t index, pgrad__activations *kept)
{
    pgrad_model *model = trunk->model;
    const pgrad__config *config = &model->config;
    const pgrad__layer *layer = &model->layers[index];
    size_t embd = config->n_embd, ff = config->n_ff, n = trunk->n_rows * ff;
    activate(trunk, kept);
    PGRAD__TRY(linears_backward(trunk, &layer->contract, 1, trunk->hidden, ff, &trunk->d_stream,
                                embd, trunk->d_hidden, ff));
    /* The gradients take the place of what they are of. */
    if (config->gated)
        pgrad__gated_backward(model->context, config->activation, trunk->d_hidden, kept->expand[0],
                              kept->expand[1], n, kept->expand[0], kept->expand[1]);
    else
        pgrad__activation_backward(model->context, config->activation, trunk->d_hidden,
                                   kept->expand[0], n, trunk->d_hidden);
    float *const plain[1] = {trunk->d_hidden};
    pgrad__norm_forward(model, &layer->mlp_norm, kept->middle, trunk->n_rows, trunk->normed,
                        kept->mean[1], kept->rstd[1]);
    PGRAD__TRY(linears_backward(trunk, layer->expand, n_expand(model), trunk->normed, embd,
                                config->gated ? kept->expand : plain, ff, trunk->d_normed, embd));
    pgrad__norm_backward(model, &layer->mlp_norm, trunk->d_normed, kept->middle, trunk->n_rows,
                         kept->mean[1], kept->rstd[1], trunk->d_stream);
    return PGRAD_OK;
}

/* ---- the block ---- */

pgrad_status pgrad__block_forward(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *kept,
                                  float *output)
{
    PGRAD__TRY(attention_forward(trunk, layer, kept));
    return mlp_forward(trunk, layer, kept, output);
}

pgrad_status pgrad__block_recompute(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *kept)
{
    PGRAD__TRY(attention_forward(trunk, layer, kept));
    return mlp_expand(trunk, layer, kept);
}

pgrad_status pgrad__block_backward(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *kept)
{
    PGRAD__TRY(mlp_backward(trunk, layer, kept));
    return attention_backward(trunk, layer, kept);
}

/* ---- what the kernels above ask for ---- */

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static size_t linears_scratch(const pgrad__trunk *trunk, const pgrad__machine *machine,
                              const pgrad__linear *linears, size_t n)
{
    pgrad__product products[PGRAD__MAX_QKV] = {{0}};
    size_t most = 0;
    for (size_t i = 0; i < n; i++) {
        const pgrad__tensor *weight = linears[i].weight;
        products[i].weight = &weight->matrix;
        if (!trunk->keep)
            continue;
        most = larger(
            most, pgrad__matmul_grad_weight_scratch(machine, trunk->n_rows, &weight->grad_matrix));
        most =
            larger(most, pgrad__matmul_grad_input_scratch(machine, trunk->n_rows, &weight->matrix));
    }
    return larger(most, pgrad__matmul_scratch(machine, trunk->n_rows, products, n));
}

size_t pgrad__trunk_scratch(const pgrad__trunk *trunk, const pgrad__machine *machine)
{
    const pgrad_model *model = trunk->model;
    const pgrad__layer *layer = &model->layers[0];
    pgrad__attention_shape shape = pgrad__layer_attention(&model->config, 0);
    shape.kv_storage = trunk->kv_storage;
    size_t most = pgrad__attention_forward_scratch(machine, &shape, trunk->spans, trunk->n_spans);
    if (trunk->keep)
        most = larger(most, pgrad__attention_backward_scratch(machine, &shape, trunk->sequences,
                                                              trunk->n_sequences));
    most = larger(most, linears_scratch(trunk, machine, layer->qkv, n_qkv(layer)));
    most = larger(most, linears_scratch(trunk, machine, &layer->output, 1));
    most = larger(most, linears_scratch(trunk, machine, layer->expand, n_expand(model)));
    return larger(most, linears_scratch(trunk, machine, &layer->contract, 1));
}
