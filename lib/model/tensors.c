/* The registry half of weights.h. */
#include "model/weights.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/pool.h"
#include "model/gradients.h"

/* ---- which tensors there are ---- */

static uint32_t extent_size(const pgrad__config *config, pgrad__extent extent)
{
    uint32_t query = config->n_heads * config->head_dim; /* both products checked with the config */
    uint32_t key = config->n_kv_heads * config->head_dim;
    switch (extent) {
    case PGRAD__EXTENT_VOCAB:
        return config->n_vocab;
    case PGRAD__EXTENT_CONTEXT:
        return config->n_context;
    case PGRAD__EXTENT_EMBD:
        return config->n_embd;
    case PGRAD__EXTENT_QUERY:
        return query;
    case PGRAD__EXTENT_KEY:
        return key;
    case PGRAD__EXTENT_QKV:
        return query + 2 * key;
    case PGRAD__EXTENT_FF:
        return config->n_ff;
    case PGRAD__EXTENT_NONE:
        break;
    }
    return 1;
}

static int wanted(const pgrad__config *config, const pgrad__tensor_rule *rule)
{
    switch (rule->condition) {
    case PGRAD__IF_QKV_BIAS:
        return config->qkv_bias;
    case PGRAD__IF_OUTPUT_BIAS:
        return config->output_bias;
    case PGRAD__IF_MLP_BIAS:
        return config->mlp_bias;
    case PGRAD__IF_UNTIED:
        return !config->tied_head;
    case PGRAD__ALWAYS:
        break;
    }
    return 1;
}

/* Goes through the tensors in their order: the stem's rules in front of the layers' once, then the
 * layers' for each layer, then the rest. */
typedef struct walk {
    const pgrad__config *config;
    size_t rule;
    uint32_t layer;
    size_t first_layer_rule;
} walk;

/* 0 behind the last. */
static int walk_next(walk *at, const pgrad__tensor_rule **rule, uint32_t *layer)
{
    const pgrad__arch *arch = at->config->arch;
    for (;;) {
        if (at->rule == arch->n_rules)
            return 0;
        const pgrad__tensor_rule *now = &arch->rules[at->rule];
        *layer = at->layer;
        *rule = now;
        int last_of_layers = now->per_layer && (at->rule + 1 == arch->n_rules ||
                                                !arch->rules[at->rule + 1].per_layer);
        if (now->per_layer && (at->rule == 0 || !arch->rules[at->rule - 1].per_layer))
            at->first_layer_rule = at->rule;
        at->rule++;
        if (last_of_layers && ++at->layer < at->config->n_layers)
            at->rule = at->first_layer_rule;
        if (wanted(at->config, now))
            return 1;
    }
}

static pgrad_status plan_one(pgrad_model *model, pgrad__tensor *tensor,
                             const pgrad__tensor_rule *rule, uint32_t layer)
{
    const pgrad__config *config = &model->config;
    tensor->rule = rule;
    tensor->layer = layer;
    tensor->kind = rule->kind;
    tensor->n_dims = rule->dims[1] == PGRAD__EXTENT_NONE ? 1 : 2;
    tensor->dims[0] = extent_size(config, rule->dims[0]);
    tensor->dims[1] = extent_size(config, rule->dims[1]);
    size_t slack = PGRAD__SLACK;
    if (pgrad__tensor_is_matrix(tensor)) {
        int transposed = rule->kind == PGRAD__TENSOR_MATRIX_TRANSPOSED;
        tensor->matrix.n_out = (uint32_t)tensor->dims[transposed];
        tensor->matrix.n_in = (uint32_t)tensor->dims[!transposed];
        tensor->floats =
            pgrad__matrix_floats(model->kernels, tensor->matrix.n_out, tensor->matrix.n_in) - slack;
        tensor->grad_matrix = tensor->matrix;
        tensor->matrix.storage = model->storage;
        tensor->bytes = pgrad__matrix_bytes(model->kernels, model->storage, tensor->matrix.n_out,
                                            tensor->matrix.n_in) -
                        slack * sizeof(float);
    } else {
        tensor->floats = (size_t)(tensor->dims[0] * tensor->dims[1]);
        tensor->bytes = tensor->floats * sizeof(float);
    }
    char *owner = rule->per_layer ? (char *)&model->layers[layer] : (char *)model->stem;
    *(pgrad__tensor **)(void *)(owner + rule->place) = tensor;
    int is_head = rule->condition == PGRAD__IF_UNTIED;
    pgrad__strbuf name = {.context = model->context};
    pgrad__arch_name(&name, is_head ? "" : config->arch->prefix, rule->hf, layer);
    tensor->name = name.data; /* freed with the registry, also when it is half done */
    return name.status;
}

pgrad_status pgrad__tensors_plan(pgrad_model *model)
{
    const pgrad__tensor_rule *rule;
    uint32_t layer, n = 0;
    walk count = {.config = &model->config};
    while (walk_next(&count, &rule, &layer))
        n++;
    PGRAD__TRY(pgrad__calloc(model->context, n, sizeof *model->tensors, &model->tensors));
    model->n_tensors = n;
    PGRAD__TRY(pgrad__calloc(model->context, model->config.n_layers, sizeof *model->layers,
                             &model->layers));
    PGRAD__TRY(pgrad__calloc(model->context, 1, sizeof *model->stem, &model->stem));
    walk at = {.config = &model->config};
    for (uint32_t i = 0; walk_next(&at, &rule, &layer); i++)
        PGRAD__TRY(plan_one(model, &model->tensors[i], rule, layer));
    if (model->config.tied_head)
        model->stem->head = model->stem->embedding;
    return PGRAD_OK;
}

/* ---- memory ---- */

/* What must be zero: lanes behind the last output of a matrix, slack. The rest of the weights is
 * written before it is read. */
static void zero_tensor(void *argument, size_t index, uint32_t worker)
{
    const pgrad_model *model = argument;
    const pgrad__tensor *tensor = &model->tensors[index];
    const size_t slack = PGRAD__SLACK * sizeof(float);
    size_t panel = pgrad__panel_bytes(model->kernels, tensor->matrix.storage, tensor->matrix.n_in);
    (void)worker;
    memset((unsigned char *)tensor->data + (tensor->bytes - panel), 0, panel + slack);
}

static size_t data_bytes(const pgrad__tensor *tensor)
{
    return tensor->bytes + PGRAD__SLACK * sizeof(float);
}

void pgrad__weights_count(const pgrad_model *model, pgrad__arena *sum)
{
    for (uint32_t i = 0; i < model->n_tensors; i++)
        pgrad__arena_count_block(sum, data_bytes(&model->tensors[i]), 1);
}

void pgrad__registry_count(const pgrad_model *model, pgrad__arena *sum)
{
    const void *blocks[] = {model,       model->tensors,     model->layers,
                            model->stem, model->config_text, model->generation_config_text};
    for (size_t i = 0; i < sizeof blocks / sizeof blocks[0]; i++)
        (void)pgrad__arena_take(sum, pgrad__held(blocks[i]), 1);
    for (uint32_t i = 0; i < model->n_tensors; i++)
        (void)pgrad__arena_take(sum, pgrad__held(model->tensors[i].name), 1);
    for (size_t i = 0; i < 2 && !model->config.learned_positions; i++)
        pgrad__arena_count_block(sum, model->n_context * (size_t)(model->config.head_dim / 2),
                                 sizeof(float));
}

pgrad_status pgrad__tensors_allocate(pgrad_model *model)
{
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__tensor *tensor = &model->tensors[i];
        pgrad_status status = pgrad__alloc(model->context, data_bytes(tensor), 1, &tensor->data);
        if (status != PGRAD_OK)
            return pgrad__fail_in(status, "tensor %s: ", tensor->name);
        tensor->matrix.data = tensor->data;
    }
    pgrad__parallel(model->context, model->n_tensors, zero_tensor, model);
    return PGRAD_OK;
}

void pgrad__tensors_free(pgrad_model *model)
{
    pgrad__gradients_free(model);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__free(model->context, model->tensors[i].data);
        pgrad__free(model->context, model->tensors[i].name);
    }
    pgrad__free(model->context, model->stem);
    pgrad__free(model->context, model->layers);
    pgrad__free(model->context, model->tensors);
}

const char *pgrad__tensor_file_name(const pgrad_model *model, const pgrad__tensor *tensor)
{
    const char *prefix = model->config.arch->prefix;
    const size_t skip = strlen(prefix);
    return model->bare_names && strncmp(tensor->name, prefix, skip) == 0 ? tensor->name + skip
                                                                         : tensor->name;
}

pgrad__tensor *pgrad__tensor_by_name(const pgrad_model *model, const char *name)
{
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        if (strcmp(model->tensors[i].name, name) == 0)
            return &model->tensors[i];
    }
    return NULL;
}

uint64_t pgrad__tensor_elements(const pgrad__tensor *tensor)
{
    return tensor->dims[0] * tensor->dims[1]; /* dims[1] is 1 for a vector */
}

/* ---- rows out ---- */

uint64_t pgrad__tensor_rows(const pgrad__tensor *tensor)
{
    return tensor->n_dims == 1 ? 1 : tensor->dims[0];
}

size_t pgrad__tensor_row_floats(const pgrad__tensor *tensor)
{
    return (size_t)(tensor->n_dims == 1 ? tensor->dims[0] : tensor->dims[1]);
}

void pgrad__tensor_get_rows(const pgrad_model *model, const pgrad__tensor *tensor, int gradient,
                            uint64_t first, uint64_t n, float *out)
{
    const pgrad__matrix *matrix = gradient ? &tensor->grad_matrix : &tensor->matrix;
    const float *data = gradient ? tensor->grad : tensor->data;
    size_t row = pgrad__tensor_row_floats(tensor);
    switch (tensor->kind) {
    case PGRAD__TENSOR_MATRIX:
        pgrad__matrix_get_rows(model->kernels, matrix, (uint32_t)first, (uint32_t)n, out);
        break;
    case PGRAD__TENSOR_MATRIX_TRANSPOSED:
        pgrad__matrix_get_columns(model->kernels, matrix, (uint32_t)first, (uint32_t)n, out);
        break;
    case PGRAD__TENSOR_TABLE:
    case PGRAD__TENSOR_VECTOR:
        memcpy(out, data + (size_t)first * row, (size_t)n * row * sizeof(float));
        break;
    }
}

/* ---- rows in ---- */

void pgrad__tensor_set_rows(const pgrad_model *model, pgrad__tensor *tensor, int by_outputs,
                            uint64_t first, uint64_t n, const float *rows)
{
    size_t row = pgrad__tensor_row_floats(tensor);
    switch (tensor->kind) {
    case PGRAD__TENSOR_MATRIX_TRANSPOSED:
        if (!by_outputs) {
            pgrad__matrix_set_columns(model->kernels, &tensor->matrix, (uint32_t)first, (uint32_t)n,
                                      rows);
            return;
        }
        /* fall through */
    case PGRAD__TENSOR_MATRIX:
        pgrad__matrix_set_rows(model->kernels, &tensor->matrix, (uint32_t)first, (uint32_t)n, rows);
        return;
    case PGRAD__TENSOR_TABLE:
    case PGRAD__TENSOR_VECTOR:
        memcpy((float *)tensor->data + (size_t)first * row, rows, (size_t)n * row * sizeof(float));
    }
}

#define CHUNK_FLOATS ((size_t)1 << 18) /* 1 MiB of rows a worker holds at a time */

typedef struct fill_task {
    pgrad_model *model;
    uint32_t index;
    int by_outputs;
    pgrad__rows_fn rows;
    void *user;
    uint64_t n_rows;
    size_t row_floats;
    uint64_t chunk_rows;
    float **buffers; /* one a worker, made by it */
    atomic_int failed;
    pgrad_status status;
    char message[512];
} fill_task;

static void fill_chunk(void *argument, size_t chunk, uint32_t worker)
{
    fill_task *task = argument;
    if (atomic_load(&task->failed))
        return;
    uint64_t first = (uint64_t)chunk * task->chunk_rows;
    uint64_t n = task->n_rows - first < task->chunk_rows ? task->n_rows - first : task->chunk_rows;
    pgrad_status status = PGRAD_OK;
    if (task->buffers[worker] == NULL)
        status = pgrad__alloc(task->model->context, (size_t)task->chunk_rows * task->row_floats,
                              sizeof(float), &task->buffers[worker]);
    if (status == PGRAD_OK)
        status = task->rows(task->user, task->index, first, n, task->buffers[worker]);
    if (status == PGRAD_OK) {
        pgrad__tensor_set_rows(task->model, &task->model->tensors[task->index], task->by_outputs,
                               first, n, task->buffers[worker]);
    } else if (atomic_exchange(&task->failed, 1) == 0) {
        task->status = status;
        pgrad__message_get(task->message);
    }
}

static pgrad_status fill_tensor(pgrad_model *model, uint32_t index, int by_outputs,
                                pgrad__rows_fn rows, void *user)
{
    const pgrad__tensor *tensor = &model->tensors[index];
    fill_task task = {.model = model,
                      .index = index,
                      .by_outputs = by_outputs,
                      .rows = rows,
                      .user = user,
                      .n_rows = pgrad__tensor_rows(tensor),
                      .row_floats = pgrad__tensor_row_floats(tensor)};
    if (by_outputs && tensor->kind == PGRAD__TENSOR_MATRIX_TRANSPOSED) {
        task.n_rows = tensor->matrix.n_out;
        task.row_floats = tensor->matrix.n_in;
    }
    /* Whole panels of any kernel set, and whole blocks of Q8_0 where rows are inputs. */
    task.chunk_rows = CHUNK_FLOATS / task.row_floats / 32 * 32;
    if (task.chunk_rows == 0)
        task.chunk_rows = 32;
    if (task.chunk_rows > task.n_rows)
        task.chunk_rows = task.n_rows;
    uint32_t n_workers = pgrad__n_workers(model->context);
    PGRAD__TRY(pgrad__calloc(model->context, n_workers, sizeof *task.buffers, &task.buffers));
    size_t n_chunks = (size_t)((task.n_rows + task.chunk_rows - 1) / task.chunk_rows);
    pgrad__parallel(model->context, n_chunks, fill_chunk, &task);
    for (uint32_t i = 0; i < n_workers; i++)
        pgrad__free(model->context, task.buffers[i]);
    pgrad__free(model->context, task.buffers);
    if (atomic_load(&task.failed)) {
        pgrad__message_set(task.message);
        return task.status;
    }
    return PGRAD_OK;
}

pgrad_status pgrad__tensors_fill(pgrad_model *model, int by_outputs, pgrad__rows_fn rows,
                                 void *user)
{
    uint64_t done = 0, total = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++)
        total += pgrad__tensor_elements(&model->tensors[i]);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        PGRAD__TRY(fill_tensor(model, i, by_outputs, rows, user));
        done += pgrad__tensor_elements(&model->tensors[i]);
        PGRAD__TRY(pgrad__progress(model->context, "load", done, total));
    }
    return PGRAD_OK;
}
