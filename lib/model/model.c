/* The public calls of a model but saving: lib/train/save.c, which also needs the tokenizer. */
#include "model/model.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "io/safetensors.h"
#include "model/weights.h"

#define CONFIG_LIMIT ((size_t)16 << 20) /* bytes of a config.json */

/* ---- making and freeing ---- */

void pgrad__model_retain(pgrad_model *model)
{
    atomic_fetch_add(&model->references, 1);
}

void pgrad_model_free(pgrad_model *model)
{
    if (model == NULL || atomic_fetch_sub(&model->references, 1) != 1)
        return;
    pgrad_context *context = model->context;
    pgrad__free(context, model->rope_sin);
    pgrad__free(context, model->rope_cos);
    pgrad__tensors_free(model);
    pgrad__free(context, model->generation_config_text);
    pgrad__free(context, model->config_text);
    pgrad__free(context, model);
    pgrad_context_free(context);
}

static pgrad_status new_model(pgrad_context *context, pgrad_model **out)
{
    pgrad_model *model;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *model, &model));
    pgrad__context_retain(context);
    model->context = context;
    atomic_init(&model->references, 1);
    model->kernels = pgrad__kernels_of(context);
    *out = model;
    return PGRAD_OK;
}

static pgrad_status make_rope(pgrad_model *model)
{
    const pgrad__config *config = &model->config;
    if (config->learned_positions || model->planned)
        return PGRAD_OK;
    pgrad_status status;
    double *frequency = NULL;
    size_t half = config->head_dim / 2;
    PGRAD__GO(pgrad__alloc(model->context, half, sizeof *frequency, &frequency));
    PGRAD__GO(
        pgrad__alloc(model->context, model->n_context * half, sizeof(float), &model->rope_cos));
    PGRAD__GO(
        pgrad__alloc(model->context, model->n_context * half, sizeof(float), &model->rope_sin));
    pgrad__rope_frequencies(config, frequency);
    pgrad__rope_table(frequency, model->n_context, config->head_dim, model->rope_cos,
                      model->rope_sin);
fail:
    pgrad__free(model->context, frequency);
    return status;
}

/* Takes the params over, once the config is known. */
static pgrad_status apply_params(pgrad_model *model, const pgrad_model_params *params)
{
    model->n_context = model->config.n_context;
    if (params->n_context > model->config.n_context)
        return pgrad__fail(PGRAD_E_INVALID, "n_context: expected at most the model's %u, found %u",
                           model->config.n_context, params->n_context);
    if (params->n_context > 0)
        model->n_context = params->n_context;
    if (params->storage == PGRAD_STORAGE_Q8_0 && !params->frozen)
        return pgrad__fail(PGRAD_E_INVALID, "model.storage: q8_0 is for frozen models; expected "
                                            "f32 or bf16, or frozen = 1");
    model->frozen = params->frozen != 0;
    model->storage = params->storage;
    return pgrad__tensors_plan(model);
}

/* ---- loading ---- */

/* Where the parts of a Hugging Face checkpoint are. */
typedef struct checkpoint_paths {
    char *folder;
    char *config, *generation;
    char *weights, *index; /* weights NULL: read the index */
} checkpoint_paths;

static void free_paths(pgrad_context *context, checkpoint_paths *paths)
{
    pgrad__free(context, paths->index);
    pgrad__free(context, paths->weights);
    pgrad__free(context, paths->generation);
    pgrad__free(context, paths->config);
    pgrad__free(context, paths->folder);
}

/* The folder has neither weights nor an index: says what would help. */
static pgrad_status no_weights(pgrad_context *context, const checkpoint_paths *paths)
{
    char text[PGRAD__PATH_MAX], *pickle = NULL;
    PGRAD__TRY(pgrad__path_join(context, paths->folder, "pytorch_model.bin", &pickle));
    int found = pgrad__path_kind(pickle) == PGRAD__PATH_FILE;
    pgrad__free(context, pickle);
    pgrad__path_text(text, paths->folder);
    if (found)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: pytorch_model.bin is not supported; convert it to safetensors",
                           text);
    return pgrad__fail(PGRAD_E_IO,
                       "%s: expected model.safetensors or model.safetensors.index.json, "
                       "found neither",
                       text);
}

static pgrad_status find_configs(pgrad_context *context, const char *path, int is_folder,
                                 checkpoint_paths *paths)
{
    const char *slash = strrchr(path, '/');
    if (is_folder)
        PGRAD__TRY(pgrad__copy_text(context, path, strlen(path), &paths->folder));
    else if (slash == NULL)
        PGRAD__TRY(pgrad__copy_text(context, ".", 1, &paths->folder));
    else
        PGRAD__TRY(pgrad__copy_text(context, path, slash == path ? 1 : (size_t)(slash - path),
                                    &paths->folder));
    PGRAD__TRY(pgrad__path_join(context, paths->folder, "config.json", &paths->config));
    return pgrad__path_join(context, paths->folder, "generation_config.json", &paths->generation);
}

/* A single file before an index, as transformers does. */
static pgrad_status find_weights(pgrad_context *context, const char *path, int is_folder,
                                 checkpoint_paths *paths)
{
    char text[PGRAD__PATH_MAX];
    if (!is_folder)
        return pgrad__copy_text(context, path, strlen(path), &paths->weights);
    PGRAD__TRY(pgrad__path_join(context, paths->folder, "model.safetensors", &paths->weights));
    PGRAD__TRY(
        pgrad__path_join(context, paths->folder, "model.safetensors.index.json", &paths->index));
    int has_index = pgrad__path_kind(paths->index) != PGRAD__PATH_NONE;
    if (pgrad__path_kind(paths->weights) != PGRAD__PATH_NONE) {
        if (has_index)
            pgrad__log_line(context, PGRAD_LOG_WARNING,
                            "%s: model.safetensors is read, the index beside it is not",
                            pgrad__path_text(text, paths->folder));
        return PGRAD_OK;
    }
    if (!has_index)
        return no_weights(context, paths);
    pgrad__free(context, paths->weights);
    paths->weights = NULL;
    return PGRAD_OK;
}

static pgrad_status read_config_text(pgrad_model *model, const char *text, size_t length,
                                     const char *origin)
{
    pgrad__json *json = NULL;
    PGRAD__TRY(pgrad__json_parse(model->context, text, length, origin, &json));
    pgrad_status status = pgrad__config_read_json(model->context, json, origin, &model->config);
    pgrad__json_free(json);
    return status;
}

static pgrad_status read_configs(pgrad_model *model, const checkpoint_paths *paths)
{
    char origin[PGRAD__PATH_MAX];
    PGRAD__TRY(pgrad__file_load(model->context, paths->config, CONFIG_LIMIT, &model->config_text,
                                &model->config_length));
    PGRAD__TRY(read_config_text(model, model->config_text, model->config_length,
                                pgrad__path_text(origin, paths->config)));
    if (pgrad__path_kind(paths->generation) == PGRAD__PATH_NONE)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__file_load(model->context, paths->generation, CONFIG_LIMIT,
                                &model->generation_config_text, &model->generation_config_length));
    pgrad__json *json = NULL;
    pgrad__path_text(origin, paths->generation);
    PGRAD__TRY(pgrad__json_parse(model->context, model->generation_config_text,
                                 model->generation_config_length, origin, &json));
    pgrad_status status = pgrad__config_read_generation(&model->config, json, origin);
    pgrad__json_free(json);
    return status;
}

static pgrad_status load_weights(pgrad_model *model, const checkpoint_paths *paths)
{
    pgrad_status status;
    pgrad__tensor_set set = {0};
    if (paths->weights != NULL)
        PGRAD__GO(pgrad__safetensors_open(model->context, paths->weights, &set));
    else
        PGRAD__GO(pgrad__safetensors_open_index(model->context, paths->folder, paths->index, &set));
    PGRAD__GO(pgrad__weights_load(model, &set, 0));
fail:
    pgrad__tensor_set_free(&set);
    return status;
}

static pgrad_status load_checkpoint(pgrad_model *model, const char *path, int is_folder,
                                    const pgrad_model_params *params)
{
    pgrad_status status;
    checkpoint_paths paths = {0};
    PGRAD__GO(find_configs(model->context, path, is_folder, &paths));
    PGRAD__GO(read_configs(model, &paths));
    PGRAD__GO(find_weights(model->context, path, is_folder, &paths));
    PGRAD__GO(apply_params(model, params));
    if (!model->planned)
        PGRAD__GO(load_weights(model, &paths));
fail:
    free_paths(model->context, &paths);
    return status;
}

static pgrad_status load_gguf(pgrad_model *model, const char *path,
                              const pgrad_model_params *params)
{
    pgrad__gguf *gguf = NULL;
    PGRAD__TRY(pgrad__gguf_open(model->context, path, &gguf));
    pgrad_status status;
    PGRAD__GO(pgrad__config_read_gguf(model->context, gguf, &model->config));
    PGRAD__GO(pgrad__config_write(model->context, &model->config, &model->config_text,
                                  &model->config_length));
    PGRAD__GO(apply_params(model, params));
    if (!model->planned)
        PGRAD__GO(pgrad__weights_load(model, pgrad__gguf_tensors(gguf), 1));
fail:
    pgrad__gguf_free(gguf);
    return status;
}

static int ends_with(const char *text, const char *end)
{
    size_t n = strlen(text), m = strlen(end);
    return n >= m && memcmp(text + n - m, end, m) == 0;
}

static pgrad_status load_model(pgrad_context *context, const char *path,
                               const pgrad_model_params *params, int planned, pgrad_model **out)
{
    pgrad_model *model;
    PGRAD__TRY(new_model(context, &model));
    model->planned = planned;
    pgrad_status status;
    int is_folder = pgrad__path_kind(path) == PGRAD__PATH_FOLDER;
    if (is_folder || ends_with(path, ".safetensors"))
        PGRAD__GO(load_checkpoint(model, path, is_folder, params));
    else
        PGRAD__GO(load_gguf(model, path, params));
    PGRAD__GO(make_rope(model));
    *out = model;
    return PGRAD_OK;
fail:
    pgrad_model_free(model);
    return status;
}

pgrad_status pgrad_model_load(pgrad_context *context, const char *path,
                              const pgrad_model_params *params, pgrad_model **out)
{
    pgrad__scope scope;
    pgrad_model_params options;
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status;
    if (path == NULL || out == NULL)
        status = pgrad__fail(PGRAD_E_INVALID, "model_load: path or out is NULL");
    else if (path[0] == '\0')
        status =
            pgrad__fail(PGRAD_E_INVALID, "model_load: path: expected a file or folder, found \"\"");
    else
        status = pgrad__params_read("model", params, &options);
    if (status == PGRAD_OK)
        status = load_model(context, path, &options, 0, out);
    pgrad__leave(&scope);
    return status;
}

/* ---- creating ---- */

static pgrad_status create_model(pgrad_context *context, const char *config_json, uint64_t seed,
                                 const pgrad_model_params *params, int planned, pgrad_model **out)
{
    pgrad_model *model;
    PGRAD__TRY(new_model(context, &model));
    model->planned = planned;
    pgrad_status status;
    size_t length = strlen(config_json);
    PGRAD__GO(read_config_text(model, config_json, length, "config"));
    PGRAD__GO(pgrad__copy_text(context, config_json, length, &model->config_text));
    model->config_length = length;
    PGRAD__GO(apply_params(model, params));
    if (!planned)
        PGRAD__GO(pgrad__weights_create(model, seed));
    PGRAD__GO(make_rope(model));
    *out = model;
    return PGRAD_OK;
fail:
    pgrad_model_free(model);
    return status;
}

pgrad_status pgrad_model_create(pgrad_context *context, const char *config_json, uint64_t seed,
                                const pgrad_model_params *params, pgrad_model **out)
{
    pgrad__scope scope;
    pgrad_model_params options;
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status;
    if (config_json == NULL || out == NULL)
        status = pgrad__fail(PGRAD_E_INVALID, "model_create: config_json or out is NULL");
    else
        status = pgrad__params_read("model", params, &options);
    if (status == PGRAD_OK)
        status = create_model(context, config_json, seed, &options, 0, out);
    pgrad__leave(&scope);
    return status;
}

typedef struct weight_copy {
    const pgrad_model *from;
    pgrad_model *to;
} weight_copy;

static void copy_tensor(void *argument, size_t index, uint32_t worker)
{
    const weight_copy *copy = argument;
    const pgrad__tensor *from = &copy->from->tensors[index];
    (void)worker;
    memcpy(copy->to->tensors[index].data, from->data, from->bytes);
}

/* Everything but the weights; the storage is set. */
static pgrad_status copy_shape(const pgrad_model *from, pgrad_model *to)
{
    to->config = from->config;
    to->bare_names = from->bare_names;
    to->n_context = from->n_context;
    to->weight_version = from->weight_version;
    PGRAD__TRY(
        pgrad__copy_text(to->context, from->config_text, from->config_length, &to->config_text));
    to->config_length = from->config_length;
    if (from->generation_config_text != NULL) {
        PGRAD__TRY(pgrad__copy_text(to->context, from->generation_config_text,
                                    from->generation_config_length, &to->generation_config_text));
        to->generation_config_length = from->generation_config_length;
    }
    return pgrad__tensors_plan(to);
}

static pgrad_status copy_model(const pgrad_model *from, pgrad_model *to)
{
    to->frozen = 1;
    to->storage = from->storage;
    PGRAD__TRY(copy_shape(from, to));
    PGRAD__TRY(pgrad__tensors_allocate(to));
    weight_copy copy = {from, to};
    pgrad__parallel(to->context, to->n_tensors, copy_tensor, &copy);
    return make_rope(to);
}

pgrad_status pgrad_model_snapshot(pgrad_model *model, pgrad_model **out)
{
    pgrad__scope scope;
    pgrad_model *copy = NULL;
    if (model == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "model_snapshot: model or out is NULL");
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = pgrad__lock_read(&model->lock, "model");
    if (status == PGRAD_OK) {
        status = new_model(model->context, &copy);
        if (status == PGRAD_OK)
            status = copy_model(model, copy);
        pgrad__unlock_read(&model->lock);
    }
    if (status == PGRAD_OK)
        *out = copy;
    else
        pgrad_model_free(copy);
    pgrad__leave(&scope);
    return status;
}

/* ---- models for their sizes ---- */

pgrad_status pgrad__model_plan_load(pgrad_context *context, const char *path,
                                    const pgrad_model_params *params, pgrad_model **out)
{
    return load_model(context, path, params, 1, out);
}

pgrad_status pgrad__model_plan_create(pgrad_context *context, const char *config_json,
                                      const pgrad_model_params *params, pgrad_model **out)
{
    return create_model(context, config_json, 0, params, 1, out);
}

pgrad_status pgrad__model_plan_copy(const pgrad_model *from, const pgrad__kernels *kernels,
                                    uint32_t storage, pgrad_model **out)
{
    pgrad_model *copy;
    PGRAD__TRY(new_model(from->context, &copy));
    copy->planned = 1;
    copy->kernels = kernels;
    copy->frozen = from->frozen;
    copy->storage = storage;
    const pgrad_status status = copy_shape(from, copy);
    if (status == PGRAD_OK)
        *out = copy;
    else
        pgrad_model_free(copy);
    return status;
}
