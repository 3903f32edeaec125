/* What a layer leaves for its backward pass, row by row: the fields, and rows kept from the pass
 * that generated them until the backward pass that learns from them. A kept row has for each layer
 *     its fields, its output (the next layer's input; the first one's is computed again);
 * rows lie in blocks, layer by layer, so that rows stored by one pass lie together. */
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "base/pool.h"
#include "model/pass.h"

/* ---- fields ---- */

size_t pgrad__activation_fields(const pgrad__config *config, pgrad__activations *of,
                                pgrad__activation_field *fields)
{
    size_t n = 0;
    fields[n++] = (pgrad__activation_field){&of->middle, config->n_embd};
    for (size_t i = 0; i < 2; i++) {
        fields[n++] = (pgrad__activation_field){&of->mean[i], 1};
        fields[n++] = (pgrad__activation_field){&of->rstd[i], 1};
    }
    fields[n++] = (pgrad__activation_field){&of->qkv, pgrad__qkv_width(config)};
    fields[n++] = (pgrad__activation_field){&of->attention, pgrad__query_width(config)};
    fields[n++] = (pgrad__activation_field){&of->lse, config->n_heads};
    fields[n++] = (pgrad__activation_field){&of->expand[0], config->n_ff};
    if (config->gated)
        fields[n++] = (pgrad__activation_field){&of->expand[1], config->n_ff};
    return n;
}

enum { ROWS_OF_BLOCK = 16 };

/* Floats of a layer of a row. */
static size_t layer_floats(const pgrad__config *config)
{
    pgrad__activations none;
    pgrad__activation_field fields[PGRAD__MAX_FIELDS];
    size_t floats = config->n_embd;
    const size_t n = pgrad__activation_fields(config, &none, fields);
    for (size_t i = 0; i < n; i++)
        floats += fields[i].width;
    return floats;
}

/* ---- between a pass and its rows ---- */

typedef struct copy_job {
    float *const *rows;
    size_t offset; /* of the first field, in floats from where a row begins */
    pgrad__activation_field fields[PGRAD__MAX_FIELDS + 1];
    size_t n_fields;
    int gather;
} copy_job;

static void copy_row(void *argument, size_t index, uint32_t worker)
{
    const copy_job *job = argument;
    float *row = job->rows[index] + job->offset;
    (void)worker;
    for (size_t i = 0; i < job->n_fields; i++) {
        const size_t width = job->fields[i].width;
        float *field = *job->fields[i].at + index * width;
        memcpy(job->gather ? field : row, job->gather ? row : field, width * sizeof(float));
        row += width;
    }
}

static size_t offset_of(const pgrad__trunk *trunk, uint32_t layer)
{
    return layer * ROWS_OF_BLOCK * layer_floats(&trunk->model->config);
}

void pgrad__store_layer(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *of, float *output)
{
    const pgrad__config *config = &trunk->model->config;
    copy_job job = {.rows = trunk->store, .offset = offset_of(trunk, layer)};
    job.n_fields = pgrad__activation_fields(config, of, job.fields);
    job.fields[job.n_fields++] = (pgrad__activation_field){&output, config->n_embd};
    pgrad__parallel(trunk->model->context, trunk->n_rows, copy_row, &job);
}

void pgrad__gather_output(pgrad__trunk *trunk, uint32_t layer, float *output)
{
    const pgrad__config *config = &trunk->model->config;
    const copy_job job = {.rows = trunk->stored,
                          .offset = offset_of(trunk, layer) + layer_floats(config) - config->n_embd,
                          .fields = {{&output, config->n_embd}},
                          .n_fields = 1,
                          .gather = 1};
    pgrad__parallel(trunk->model->context, trunk->n_rows, copy_row, (void *)&job);
}

void pgrad__gather_layer(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *to)
{
    copy_job job = {.rows = trunk->stored, .offset = offset_of(trunk, layer), .gather = 1};
    job.n_fields = pgrad__activation_fields(&trunk->model->config, to, job.fields);
    pgrad__parallel(trunk->model->context, trunk->n_rows, copy_row, &job);
    if (layer == 0)
        pgrad__trunk_embed(trunk, to->input);
    else
        pgrad__gather_output(trunk, layer - 1, to->input);
}

/* ---- the store ---- */

static size_t row_floats(const pgrad_model *model)
{
    return model->config.n_layers * layer_floats(&model->config);
}

int pgrad__activation_store_bytes(const pgrad_model *model, size_t n_rows, uint64_t *bytes)
{
    size_t total;
    if (!pgrad__mul(row_floats(model) * sizeof(float), n_rows, &total))
        return 0;
    *bytes = total;
    return 1;
}

void pgrad__activation_store_lay_out(pgrad__activation_store *store, size_t n_rows,
                                     pgrad__arena *arena)
{
    store->n_rows = n_rows;
    store->rows = pgrad__arena_take(arena, n_rows, sizeof *store->rows);
    store->borrowed = pgrad__arena_take(arena, n_rows, sizeof *store->borrowed);
    store->given_back = pgrad__arena_take(arena, n_rows, sizeof *store->given_back);
    store->blocks = pgrad__arena_take(arena, n_rows, sizeof *store->blocks);
}

static void forget_rows(pgrad__activation_store *store)
{
    memset(store->rows, 0, store->n_rows * sizeof *store->rows);
    memset(store->borrowed, 0, store->n_rows);
    store->n_given_back = store->n_taken = 0;
}

void pgrad__activation_store_init(pgrad__activation_store *store, const pgrad_model *model)
{
    store->context = model->context;
    store->layer_floats = layer_floats(&model->config);
    store->block_floats = ROWS_OF_BLOCK * row_floats(model);
    store->n_blocks = 0;
    forget_rows(store);
}

void pgrad__activation_store_count(const pgrad_model *model, size_t n_rows, pgrad__arena *sum)
{
    const size_t n_blocks = n_rows / ROWS_OF_BLOCK + (n_rows % ROWS_OF_BLOCK > 0);
    pgrad__arena block = {0};
    pgrad__arena_count_block(&block, ROWS_OF_BLOCK * row_floats(model), sizeof(float));
    (void)pgrad__arena_take(sum, n_blocks, block.used);
    sum->overflow |= block.overflow;
}

uint64_t pgrad__activation_store_held(const pgrad__activation_store *store)
{
    return (uint64_t)store->n_blocks * store->block_floats * sizeof(float);
}

void pgrad__activation_store_free(pgrad__activation_store *store)
{
    while (store->n_blocks > 0)
        pgrad__free(store->context, store->blocks[--store->n_blocks]);
    if (store->rows != NULL)
        forget_rows(store);
}

/* Puts the rows of a block among those in no use, the first one last, to be taken first. There are
 * never more than numbers: the last block may have more than are left to number. */
static void give_block(pgrad__activation_store *store, size_t index)
{
    const size_t numbered = index * ROWS_OF_BLOCK, left = store->n_rows - numbered;
    for (size_t i = left < ROWS_OF_BLOCK ? left : ROWS_OF_BLOCK; i > 0; i--)
        store->given_back[store->n_given_back++] =
            store->blocks[index] + (i - 1) * store->layer_floats;
}

static pgrad_status take_block(pgrad__activation_store *store)
{
    PGRAD__TRY(pgrad__alloc(store->context, store->block_floats, sizeof(float),
                            &store->blocks[store->n_blocks]));
    give_block(store, store->n_blocks++);
    return PGRAD_OK;
}

pgrad_status pgrad__activation_store_take(pgrad__activation_store *store, size_t first, size_t n)
{
    for (size_t i = first; i < first + n; i++) {
        if (store->rows[i] != NULL)
            continue;
        if (store->n_given_back == 0)
            PGRAD__TRY(take_block(store));
        store->rows[i] = store->given_back[--store->n_given_back];
        store->n_taken++;
    }
    return PGRAD_OK;
}

void pgrad__activation_store_borrow(pgrad__activation_store *store, size_t to, size_t from)
{
    store->rows[to] = store->rows[from];
    store->borrowed[to] = 1;
}

void pgrad__activation_store_give_back(pgrad__activation_store *store, size_t first, size_t n)
{
    const size_t before = store->n_taken;
    for (size_t i = first; i < first + n; i++) {
        if (store->rows[i] == NULL)
            continue;
        if (!store->borrowed[i]) {
            store->given_back[store->n_given_back++] = store->rows[i];
            store->n_taken--;
        }
        store->rows[i] = NULL;
        store->borrowed[i] = 0;
    }
    if (before == 0 || store->n_taken > 0)
        return;
    store->n_given_back = 0; /* all are: in the order of memory again */
    for (size_t i = store->n_blocks; i > 0; i--)
        give_block(store, i - 1);
}
