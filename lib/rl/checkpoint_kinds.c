/* What each kind of handle keeps in a checkpoint. */
#include "rl/checkpoint.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "io/zstream.h"
#include "model/arch.h"
#include "rl/advantage.h"
#include "rl/objective.h"
#include "rl/optimizer.h"
#include "rl/sampler.h"

/* ---- models ---- */

static pgrad_context *model_context(const void *handle)
{
    return ((const pgrad_model *)handle)->context;
}

static void model_retain(void *handle)
{
    pgrad__model_retain(handle);
}

static void model_release(void *handle)
{
    pgrad_model_free(handle);
}

static pgrad_model *model_itself(void *handle)
{
    return handle;
}

/* What shapes do not tell, and results depend on. */
static pgrad_status match_config(const pgrad__config *config, pgrad__state *state)
{
    const struct {
        const char *name;
        uint64_t value;
    } WHOLE[] = {{"n_layers", config->n_layers},
                 {"n_heads", config->n_heads},
                 {"n_kv_heads", config->n_kv_heads},
                 {"head_dim", config->head_dim},
                 {"activation", config->activation},
                 {"scale_by_layer", config->scale_by_layer != 0},
                 {"rope_scaling", config->rope_scaling.type},
                 {"rope_original_context", config->rope_scaling.original_context}};
    for (size_t i = 0; i < sizeof WHOLE / sizeof WHOLE[0]; i++)
        PGRAD__TRY(pgrad__state_match(state, WHOLE[i].name, WHOLE[i].value));
    PGRAD__TRY(pgrad__state_match_real(state, "norm_epsilon", (double)config->norm_epsilon));
    PGRAD__TRY(pgrad__state_match_real(state, "attention_scale", (double)config->attention_scale));
    PGRAD__TRY(pgrad__state_match_real(state, "rope_factor", config->rope_scaling.factor));
    PGRAD__TRY(pgrad__state_match_real(state, "rope_low_factor", config->rope_scaling.low_factor));
    PGRAD__TRY(
        pgrad__state_match_real(state, "rope_high_factor", config->rope_scaling.high_factor));
    return pgrad__state_match_real(state, "rope_theta", config->rope_theta);
}

static pgrad_status model_describe(void *handle, pgrad__state *state)
{
    static const pgrad__canonical ELEMENTS[] = {PGRAD__CANONICAL_F32, PGRAD__CANONICAL_BF16,
                                                PGRAD__CANONICAL_Q8_0};
    pgrad_model *model = handle;
    PGRAD__TRY(match_config(&model->config, state));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__tensor *tensor = &model->tensors[i];
        pgrad__array array = {.prefix = "",
                              .name = tensor->name,
                              .element = ELEMENTS[tensor->matrix.storage],
                              .dims = {tensor->dims[0], tensor->dims[1]},
                              .n_out = tensor->matrix.n_out,
                              .n_in = tensor->floats,
                              .check = PGRAD__FINITE,
                              .data = tensor->data,
                              .bytes = tensor->bytes + PGRAD__SLACK * sizeof(float),
                              .slots = {&tensor->data, &tensor->matrix.data}};
        if (array.n_out > 0)
            array.n_in = tensor->matrix.n_in;
        PGRAD__TRY(pgrad__state_array(state, &array));
    }
    return PGRAD_OK;
}

static void model_restored(void *handle, pgrad__state *state)
{
    (void)state;
    ((pgrad_model *)handle)->weight_version++;
}

static const pgrad__kind MODEL = {.number = PGRAD_KIND_MODEL,
                                  .name = "model",
                                  .context = model_context,
                                  .retain = model_retain,
                                  .release = model_release,
                                  .model = model_itself,
                                  .describe = model_describe,
                                  .restored = model_restored};

pgrad_status pgrad__weights_crc(pgrad_model *model, uint32_t *crc)
{
    pgrad__state state;
    unsigned char *rows = NULL;
    pgrad_status status;
    *crc = 0;
    pgrad__state_init(&state, model->context);
    PGRAD__GO(model_describe(model, &state));
    PGRAD__GO(pgrad__alloc(model->context, pgrad__state_scratch(&state), 1, &rows));
    for (size_t i = 0; i < state.n_arrays; i++) {
        const pgrad__array *array = &state.arrays[i];
        const size_t wide = model->kernels->wide;
        const size_t row_bytes = pgrad__canonical_bytes(array->element, array->n_in);
        if (array->n_out == 0)
            *crc = pgrad__crc32(*crc, array->data, row_bytes);
        for (size_t first = 0; first < array->n_out; first += wide) {
            const size_t n = array->n_out - first < wide ? array->n_out - first : wide;
            pgrad__canonical_get(model->kernels, array->element, array->n_in, array->data, first, n,
                                 rows);
            *crc = pgrad__crc32(*crc, rows, n * row_bytes);
        }
    }
fail:
    pgrad__free(model->context, rows);
    pgrad__state_free(&state);
    return status;
}

/* ---- optimizers ---- */

static pgrad_context *optimizer_context(const void *handle)
{
    return ((const pgrad_optimizer *)handle)->context;
}

static void optimizer_retain(void *handle)
{
    atomic_fetch_add(&((pgrad_optimizer *)handle)->references, 1);
}

static void optimizer_release(void *handle)
{
    pgrad_optimizer_free(handle);
}

static pgrad_model *optimizer_model(void *handle)
{
    return ((pgrad_optimizer *)handle)->model;
}

/* The values of a moment, and the exponents of 8-bit ones. */
static pgrad_status add_moment(pgrad__state *state, const pgrad__tensor *tensor,
                               pgrad__stored *stored, const char *const prefixes[2], int check)
{
    static const pgrad__canonical ELEMENTS[] = {PGRAD__CANONICAL_F32, PGRAD__CANONICAL_BF16,
                                                PGRAD__CANONICAL_BYTE};
    const uint32_t n_out = tensor->matrix.n_out;
    const size_t n_in = n_out > 0 ? tensor->matrix.n_in : tensor->floats;
    size_t n_exponents;
    const size_t bytes =
        pgrad__stored_bytes(state->kernels, n_out, n_in, stored->storage, &n_exponents);
    const int is_q8 = stored->storage == PGRAD__STORAGE_Q8;
    PGRAD__TRY(pgrad__state_array(state, &(pgrad__array){.prefix = prefixes[0],
                                                         .name = tensor->name,
                                                         .element = ELEMENTS[stored->storage],
                                                         .dims = {tensor->dims[0], tensor->dims[1]},
                                                         .n_out = n_out,
                                                         .n_in = n_in,
                                                         .check = is_q8 ? PGRAD__ANY_VALUES : check,
                                                         .data = stored->data,
                                                         .bytes = bytes,
                                                         .slots = {&stored->data}}));
    if (!is_q8)
        return PGRAD_OK;
    const size_t blocks =
        n_out > 0 ? (n_in + PGRAD__MOMENT_BLOCK - 1) / PGRAD__MOMENT_BLOCK : n_exponents;
    return pgrad__state_array(state, &(pgrad__array){.prefix = prefixes[1],
                                                     .name = tensor->name,
                                                     .element = PGRAD__CANONICAL_BYTE,
                                                     .dims = {n_out > 0 ? n_out : 1, blocks},
                                                     .n_out = n_out,
                                                     .n_in = blocks,
                                                     .check = PGRAD__EXPONENTS,
                                                     .data = stored->exponents,
                                                     .bytes = n_exponents,
                                                     .slots = {&stored->exponents}});
}

static pgrad_status optimizer_describe(void *handle, pgrad__state *state)
{
    static const char *const M[] = {"m ", "m exponents "}, *const V[] = {"v ", "v exponents "};
    pgrad_optimizer *optimizer = handle;
    pgrad_model *model = optimizer->model;
    PGRAD__TRY(pgrad__state_params(state, "optimizer", &optimizer->params, "learning_rate"));
    PGRAD__TRY(pgrad__state_u64(state, "step", &optimizer->step, PGRAD__COUNTER));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        if (optimizer->first_moment != NULL)
            PGRAD__TRY(add_moment(state, &model->tensors[i], &optimizer->first_moment[i], M,
                                  PGRAD__FINITE));
        if (optimizer->second_moment != NULL)
            PGRAD__TRY(add_moment(state, &model->tensors[i], &optimizer->second_moment[i], V,
                                  PGRAD__NOT_NEGATIVE));
    }
    return PGRAD_OK;
}

static pgrad_status optimizer_accept(void *handle, const pgrad__state *state)
{
    double rate;
    (void)handle;
    memcpy(&rate, &pgrad__state_record(state, "learning_rate")->restored, sizeof rate);
    if (!(rate >= 0.0))
        return pgrad__fail(PGRAD_E_FORMAT,
                           "optimizer.learning_rate: expected a number >= 0, the checkpoint has %g",
                           rate);
    return PGRAD_OK;
}

/* The bounds of the last update are not kept: the next one finds out by a dry run. */
static void optimizer_restored(void *handle, pgrad__state *state)
{
    (void)state;
    ((pgrad_optimizer *)handle)->reach_version = UINT64_MAX;
}

static const pgrad__kind OPTIMIZER = {.number = PGRAD_KIND_OPTIMIZER,
                                      .name = "optimizer",
                                      .context = optimizer_context,
                                      .retain = optimizer_retain,
                                      .release = optimizer_release,
                                      .model = optimizer_model,
                                      .describe = optimizer_describe,
                                      .accept = optimizer_accept,
                                      .restored = optimizer_restored};

/* ---- samplers ---- */

static pgrad_context *sampler_context(const void *handle)
{
    return ((const pgrad_sampler *)handle)->context;
}

static void sampler_retain(void *handle)
{
    atomic_fetch_add(&((pgrad_sampler *)handle)->references, 1);
}

static void sampler_release(void *handle)
{
    pgrad_sampler_free(handle);
}

/* Of what the lists hold, so that another list of the same length is told. */
static uint32_t lists_crc(const pgrad_sampler_params *params)
{
    const size_t id = sizeof(pgrad_token);
    uint32_t crc = pgrad__crc32(0, params->stop_tokens, params->n_stop_tokens * id);
    crc = pgrad__crc32(crc, params->forbidden_tokens, params->n_forbidden_tokens * id);
    crc = pgrad__crc32(crc, params->bias_tokens, params->n_bias_tokens * id);
    crc = pgrad__crc32(crc, params->logit_bias, params->n_bias_tokens * sizeof(float));
    for (size_t i = 0; i < params->n_stop_strings; i++)
        crc = pgrad__crc32(crc, params->stop_strings[i], strlen(params->stop_strings[i]) + 1);
    return crc;
}

static pgrad_status sampler_describe(void *handle, pgrad__state *state)
{
    pgrad_sampler *sampler = handle;
    PGRAD__TRY(pgrad__state_params(state, "sampler", &sampler->params, NULL));
    PGRAD__TRY(pgrad__state_match(state, "lists", lists_crc(&sampler->params)));
    return pgrad__state_u64(state, "next_sequence", &sampler->next_sequence, 0);
}

static const pgrad__kind SAMPLER = {.number = PGRAD_KIND_SAMPLER,
                                    .name = "sampler",
                                    .context = sampler_context,
                                    .retain = sampler_retain,
                                    .release = sampler_release,
                                    .describe = sampler_describe};

/* ---- estimators ---- */

static pgrad_context *advantage_context(const void *handle)
{
    return ((const pgrad_advantage *)handle)->context;
}

static void advantage_retain(void *handle)
{
    atomic_fetch_add(&((pgrad_advantage *)handle)->references, 1);
}

static void advantage_release(void *handle)
{
    pgrad_advantage_free(handle);
}

static pgrad_status advantage_describe(void *handle, pgrad__state *state)
{
    pgrad_advantage *advantage = handle;
    PGRAD__TRY(pgrad__state_params(state, "advantage", &advantage->params, NULL));
    PGRAD__TRY(pgrad__state_f64(state, "ema", &advantage->ema.b, 0));
    return pgrad__state_u64(state, "ema_batches", &advantage->ema.k, PGRAD__COUNTER);
}

static const pgrad__kind ADVANTAGE = {.number = PGRAD_KIND_ADVANTAGE,
                                      .name = "advantage",
                                      .context = advantage_context,
                                      .retain = advantage_retain,
                                      .release = advantage_release,
                                      .describe = advantage_describe};

/* ---- objectives ---- */

static pgrad_context *objective_context(const void *handle)
{
    return ((const pgrad_objective *)handle)->context;
}

static void objective_retain(void *handle)
{
    atomic_fetch_add(&((pgrad_objective *)handle)->references, 1);
}

static void objective_release(void *handle)
{
    pgrad_objective_free(handle);
}

static pgrad_status objective_describe(void *handle, pgrad__state *state)
{
    return pgrad__state_params(state, "objective", &((pgrad_objective *)handle)->params, NULL);
}

static const pgrad__kind OBJECTIVE = {.number = PGRAD_KIND_OBJECTIVE,
                                      .name = "objective",
                                      .context = objective_context,
                                      .retain = objective_retain,
                                      .release = objective_release,
                                      .describe = objective_describe};

/* ---- texts ---- */

static pgrad_context *text_context(const void *handle)
{
    return ((const pgrad__text *)handle)->context;
}

static void text_retain(void *handle)
{
    (void)handle; /* the checkpoint's own */
}

static void text_release(void *handle)
{
    pgrad__text *text = handle;
    pgrad_context *context = text->context;
    pgrad__free(context, text->data);
    pgrad__free(context, text);
}

static pgrad_status text_describe(void *handle, pgrad__state *state)
{
    const pgrad__text *text = handle;
    return pgrad__state_array(state, &(pgrad__array){.prefix = "",
                                                     .name = "text",
                                                     .element = PGRAD__CANONICAL_BYTE,
                                                     .dims = {text->length, 1},
                                                     .n_in = text->length,
                                                     .variable = 1,
                                                     .most = SIZE_MAX / 2,
                                                     .data = text->data,
                                                     .bytes = text->length,
                                                     .keeps = 1});
}

const pgrad__kind pgrad__kind_text = {.number = PGRAD_KIND_TEXT,
                                      .name = "text",
                                      .context = text_context,
                                      .retain = text_retain,
                                      .release = text_release,
                                      .describe = text_describe};

const pgrad__kind *pgrad__kind_find(int32_t number)
{
    static const pgrad__kind *const KINDS[] = {&MODEL,     &OPTIMIZER,           &SAMPLER,
                                               &ADVANTAGE, &pgrad__kind_rollout, &OBJECTIVE};
    const int32_t n = (int32_t)(sizeof KINDS / sizeof KINDS[0]);
    return number < 0 || number >= n ? NULL : KINDS[number];
}
