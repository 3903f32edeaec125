#include "model/weights.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/half.h"
#include "base/rng.h"

/* ---- from a file ---- */

/* A tensor's view in the file, and how its rows go in. */
typedef struct source {
    const pgrad__tensor_view *view;
    uint32_t head_dim; /* rows of each head are interleaved; 0: they are not */
} source;

typedef struct load {
    pgrad_model *model;
    const pgrad__tensor_set *set;
    int is_gguf;
    source *sources;     /* [n_tensors] */
    unsigned char *used; /* [set->n_tensors] */
} load;

/* Row r of a checkpoint is row `interleaved(r)` of a GGUF file: within a head, row s hd/2 + j is at
 * 2 j + s. */
static uint64_t interleaved(uint64_t row, uint32_t head_dim)
{
    uint64_t in_head = row % head_dim, half = head_dim / 2;
    return row - in_head + 2 * (in_head % half) + in_head / half;
}

static pgrad_status read_plain(const load *state, uint32_t index, uint64_t first, uint64_t n,
                               float *out)
{
    const source *from = &state->sources[index];
    const pgrad__tensor_view *view = from->view;
    uint64_t row = view->n_dims == 1 ? view->dims[0] : view->dims[1];
    if (from->head_dim == 0)
        return pgrad__tensor_read(state->set, view, first * row, n * row, out);
    if (view->n_dims == 1) { /* a bias: its elements are the rows */
        for (uint64_t i = 0; i < row; i++)
            PGRAD__TRY(
                pgrad__tensor_read(state->set, view, interleaved(i, from->head_dim), 1, out + i));
        return PGRAD_OK;
    }
    for (uint64_t i = 0; i < n; i++)
        PGRAD__TRY(pgrad__tensor_read(
            state->set, view, interleaved(first + i, from->head_dim) * row, row, out + i * row));
    return PGRAD_OK;
}

/* Puts the file a tensor is in, one of several shards perhaps, in front of a message. */
static pgrad_status fail_in_file(const load *state, const pgrad__tensor_view *view,
                                 pgrad_status status)
{
    char path[PGRAD__PATH_MAX];
    return pgrad__fail_in(status,
                          "%s: ", pgrad__path_text(path, state->set->files[view->file].path));
}

static pgrad_status read_rows(void *user, uint32_t index, uint64_t first, uint64_t n, float *out)
{
    const load *state = user;
    const pgrad__tensor_view *view = state->sources[index].view;
    const size_t row = (size_t)(view->n_dims == 1 ? view->dims[0] : view->dims[1]);
    pgrad_status status = read_plain(state, index, first, n, out);
    if (status == PGRAD_OK && !pgrad__all_finite(state->model->context, out, (size_t)n * row)) {
        size_t i = 0;
        while (isfinite(out[i]))
            i++;
        status =
            pgrad__fail(PGRAD_E_NUMERIC, "tensor '%.120s': row %llu, column %zu is %g", view->name,
                        (unsigned long long)(first + i / row), i % row, (double)out[i]);
    }
    if (status == PGRAD_OK && state->model->tensors[index].matrix.storage == PGRAD_STORAGE_BF16) {
        const size_t i = pgrad__bf16_overflow(out, (size_t)n * row);
        if (i < (size_t)n * row)
            status = pgrad__fail(
                PGRAD_E_NUMERIC, "tensor '%.120s': row %llu, column %zu is %g, beyond bf16",
                view->name, (unsigned long long)(first + i / row), i % row, (double)out[i]);
    }
    return status == PGRAD_OK ? status : fail_in_file(state, view, status);
}

/* "[64, 32]" */
static const char *shape_text(char buffer[96], uint32_t n_dims, const uint64_t *dims)
{
    size_t used = 0;
    for (uint32_t i = 0; i < n_dims && used < 70; i++) /* 22 bytes a dimension at most */
        used += (size_t)snprintf(buffer + used, 96 - used, "%s%llu", i == 0 ? "[" : ", ",
                                 (unsigned long long)dims[i]);
    (void)snprintf(buffer + used, 96 - used, "%s]", used == 0 ? "[" : "");
    return buffer;
}

static pgrad_status check_view(const pgrad__tensor *tensor, const pgrad__tensor_view *view,
                               int is_gguf)
{
    char expected[96], found[96];
    uint64_t dims[2] = {tensor->dims[0], tensor->dims[1]};
    if (is_gguf && tensor->kind == PGRAD__TENSOR_MATRIX_TRANSPOSED) {
        dims[0] = tensor->dims[1];
        dims[1] = tensor->dims[0];
    }
    int same = view->n_dims == tensor->n_dims && view->dims[0] == dims[0] &&
               (tensor->n_dims == 1 || view->dims[1] == dims[1]);
    if (!same)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "tensor '%s': expected shape %s from the config, found %s", view->name,
                           shape_text(expected, tensor->n_dims, dims),
                           shape_text(found, view->n_dims, view->dims));
    uint32_t block = pgrad__element_block(view->type);
    if (block == 0)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "tensor '%s': element type %s is not supported",
                           view->name, view->type_name);
    if (view->dims[view->n_dims - 1] % block != 0)
        return pgrad__fail(PGRAD_E_FORMAT, "tensor '%s': rows of %llu are not whole blocks of %u",
                           view->name, (unsigned long long)view->dims[view->n_dims - 1], block);
    return PGRAD_OK;
}

/* A bare base model's names lack the family's prefix; the embedding, which all have, tells. */
static int has_bare_names(const load *state)
{
    const char *name = state->model->stem->embedding->name;
    const size_t skip = strlen(state->model->config.arch->prefix);
    return !state->is_gguf && pgrad__tensor_find(state->set, name) == NULL &&
           pgrad__tensor_find(state->set, name + skip) != NULL;
}

/* Finds tensor `index` in the file under its name there. */
static pgrad_status find_view(const load *state, uint32_t index, const pgrad__tensor_view **out)
{
    const pgrad__tensor *tensor = &state->model->tensors[index];
    if (!state->is_gguf) {
        *out = pgrad__tensor_find(state->set, pgrad__tensor_file_name(state->model, tensor));
        return PGRAD_OK;
    }
    pgrad__strbuf text = {.context = state->model->context};
    pgrad__arch_name(&text, "", tensor->rule->gguf, tensor->layer);
    if (text.status == PGRAD_OK)
        *out = pgrad__tensor_find(state->set, text.data);
    pgrad__strbuf_free(&text);
    return text.status;
}

static pgrad_status match_tensors(load *state)
{
    pgrad_model *model = state->model;
    pgrad__strbuf missing = {.context = model->context};
    pgrad_status status = PGRAD_OK;
    char path[PGRAD__PATH_MAX] = "";
    uint32_t n_missing = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor_view *view = NULL;
        PGRAD__GO(find_view(state, i, &view));
        if (view == NULL) {
            if (n_missing++ < 8)
                pgrad__strbuf_format(&missing, "%s'%s'", n_missing > 1 ? ", " : "",
                                     model->tensors[i].name);
            continue;
        }
        status = check_view(&model->tensors[i], view, state->is_gguf);
        if (status != PGRAD_OK) {
            (void)fail_in_file(state, view, status);
            goto fail;
        }
        state->sources[i].view = view;
        state->used[view - state->set->tensors] = 1;
        if (state->is_gguf && model->tensors[i].rule->gguf_rows == PGRAD__ROWS_INTERLEAVED)
            state->sources[i].head_dim = model->config.head_dim;
        if (state->sources[i].head_dim > 0 && view->n_dims == 1 &&
            pgrad__element_block(view->type) > 1)
            PGRAD__GO(pgrad__fail(PGRAD_E_UNSUPPORTED,
                                  "tensor '%s': a bias of type %s is not supported", view->name,
                                  view->type_name));
    }
    PGRAD__GO(missing.status);
    if (n_missing > 0 && state->set->n_files > 0)
        pgrad__path_text(path, state->set->files[0].path);
    if (n_missing == 1 && !model->config.tied_head &&
        state->sources[model->stem->head - model->tensors].view == NULL)
        status = pgrad__fail(PGRAD_E_MISMATCH,
                             "%s: tensor '%s' is missing; set tie_word_embeddings in the config if "
                             "the head is the token embedding",
                             path, model->stem->head->name);
    else if (n_missing > 0)
        status =
            pgrad__fail(PGRAD_E_MISMATCH, "%s: %u of %u tensors are missing: %s%s", path, n_missing,
                        model->n_tensors, missing.data, n_missing > 8 ? ", ..." : "");
fail:
    pgrad__strbuf_free(&missing);
    return status;
}

/* Tells of tensors that the model has no place for: at most 8 by name. */
static void tell_unknown(const load *state)
{
    const pgrad_model *model = state->model;
    size_t n_unknown = 0;
    for (size_t i = 0; i < state->set->n_tensors; i++) {
        const pgrad__tensor_view *view = &state->set->tensors[i];
        if (state->used[i] || pgrad__arch_ignores(model->config.arch, view->name))
            continue;
        if (n_unknown++ >= 8)
            continue;
        if (model->config.tied_head && strcmp(view->name, "lm_head.weight") == 0)
            pgrad__log_line(model->context, PGRAD_LOG_WARNING,
                            "tensor 'lm_head.weight' is ignored: tie_word_embeddings is set");
        else
            pgrad__log_line(model->context, PGRAD_LOG_WARNING,
                            "tensor '%.200s' is unknown; ignored", view->name);
    }
    if (n_unknown > 8)
        pgrad__log_line(model->context, PGRAD_LOG_WARNING, "%zu unknown tensors are ignored",
                        n_unknown);
}

pgrad_status pgrad__weights_load(pgrad_model *model, const pgrad__tensor_set *set, int is_gguf)
{
    load state = {.model = model, .set = set, .is_gguf = is_gguf};
    pgrad_status status;
    PGRAD__GO(
        pgrad__calloc(model->context, model->n_tensors, sizeof *state.sources, &state.sources));
    PGRAD__GO(pgrad__calloc(model->context, set->n_tensors, 1, &state.used));
    model->bare_names = has_bare_names(&state);
    PGRAD__GO(match_tensors(&state));
    tell_unknown(&state);
    PGRAD__GO(pgrad__tensors_allocate(model));
    PGRAD__GO(pgrad__tensors_fill(model, is_gguf, read_rows, &state));
fail:
    pgrad__free(model->context, state.used);
    pgrad__free(model->context, state.sources);
    return status;
}

/* ---- from random numbers ---- */

typedef struct random_source {
    pgrad_model *model;
    uint64_t seed;
} random_source;

/* Element e of tensor i is a function of (seed, i, e), e counting as the checkpoint does. */
static pgrad_status random_rows(void *user, uint32_t index, uint64_t first, uint64_t n, float *out)
{
    const random_source *from = user;
    const pgrad__config *config = &from->model->config;
    pgrad__initial initial = from->model->tensors[index].rule->initial;
    uint64_t row = pgrad__tensor_row_floats(&from->model->tensors[index]);
    double deviation = (double)config->initializer_range;
    if (initial == PGRAD__INITIAL_RESIDUAL)
        deviation /= sqrt(2.0 * (double)config->n_layers);
    for (uint64_t i = 0; i < n * row; i++) {
        if (initial == PGRAD__INITIAL_ONE || initial == PGRAD__INITIAL_ZERO)
            out[i] = initial == PGRAD__INITIAL_ONE ? 1.0f : 0.0f;
        else
            out[i] = (float)(deviation * pgrad__normal(from->seed, index, first * row + i));
    }
    return PGRAD_OK;
}

pgrad_status pgrad__weights_create(pgrad_model *model, uint64_t seed)
{
    random_source from = {model, seed};
    PGRAD__TRY(pgrad__tensors_allocate(model));
    return pgrad__tensors_fill(model, 0, random_rows, &from);
}
