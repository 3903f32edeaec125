/* Passes over a key-value cache: new tokens of many sequences, and forgetting positions. */
#include "model/kv_cache.h"
#include "model/pass.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"

/* The trunk over the spans' new tokens, and the head over the wanted rows. */
typedef struct decode_plan {
    pgrad__trunk trunk;
    pgrad__head_pass head;
    pgrad__batch batch; /* of the head: the rows whose logits are wanted */
    pgrad_token *tokens;
    uint32_t *wanted;
    size_t n_wanted;
} decode_plan;

static void lay_out_decode(pgrad__arena *arena, void *user)
{
    decode_plan *plan = user;
    plan->tokens = pgrad__arena_take(arena, plan->trunk.n_rows, sizeof *plan->tokens);
    plan->wanted = pgrad__arena_take(arena, plan->n_wanted, sizeof *plan->wanted);
    pgrad__trunk_lay_out(&plan->trunk, arena);
    pgrad__head_lay_out(&plan->head, arena, 0, 0);
}

static size_t span_pages(const pgrad__decode_span *span)
{
    return pgrad__kv_pages((size_t)span->first_position + span->n_tokens);
}

static pgrad_status check_span(const pgrad_model *model, const pgrad__kv_cache *cache,
                               const pgrad__decode_span *span, size_t index)
{
    if (span->n_tokens == 0 || span->first_position > model->n_context ||
        span->n_tokens > model->n_context - span->first_position)
        return pgrad__fail(PGRAD_E_LIMIT, "span %zu: %u tokens at position %u, context %u", index,
                           span->n_tokens, span->first_position, model->n_context);
    for (size_t i = 0; i < span_pages(span); i++) {
        if (span->pages[i] >= cache->n_pages)
            return pgrad__fail(PGRAD_E_INTERNAL, "span %zu: page %u of %u", index, span->pages[i],
                               cache->n_pages);
    }
    if (span->n_logits > span->n_tokens)
        return pgrad__fail(PGRAD_E_INTERNAL, "span %zu: logits of %u tokens of %u", index,
                           span->n_logits, span->n_tokens);
    if ((size_t)span->n_shared_pages * PGRAD__KEY_TILE > span->first_position)
        return pgrad__fail(PGRAD_E_INTERNAL, "span %zu: %u shared pages in front of position %u",
                           index, span->n_shared_pages, span->first_position);
    return pgrad__check_tokens(model, span->tokens, span->n_tokens);
}

static pgrad__attention_span attention_span(const pgrad__decode_span *span, size_t first_row)
{
    return (pgrad__attention_span){.first_row = first_row,
                                   .n_rows = span->n_tokens,
                                   .first_position = span->first_position,
                                   .group = span->group,
                                   .n_shared_pages = span->n_shared_pages};
}

/* Lays the spans' tokens out as rows, with the pages of the first layer. */
static void fill_plan(decode_plan *plan, const pgrad__kv_cache *cache,
                      const pgrad__decode_span *spans)
{
    pgrad__trunk *trunk = &plan->trunk;
    size_t row = 0, page = 0, wanted = 0;
    for (size_t i = 0; i < trunk->n_spans; i++) {
        const pgrad__decode_span *span = &spans[i];
        trunk->spans[i] = attention_span(span, row);
        trunk->first_page[i] = page;
        for (size_t j = 0; j < span_pages(span); j++)
            trunk->pages[page++] = pgrad__kv_cache_page(cache, span->pages[j]);
        for (uint32_t j = 0; j < span->n_tokens; j++, row++) {
            plan->tokens[row] = span->tokens[j];
            trunk->positions[row] = span->first_position + j;
            if (trunk->stores)
                trunk->store[row] = span->activations[j];
        }
        for (uint32_t j = span->n_logits; j > 0; j--)
            plan->wanted[wanted++] = (uint32_t)(row - j);
    }
    pgrad__trunk_set_pages(trunk);
    trunk->tokens = plan->tokens;
    plan->batch.target_rows = plan->wanted;
}

static decode_plan plan_of(pgrad_model *model, uint32_t kv_storage, int with_activations,
                           const pgrad__decode_span *spans, size_t n_spans)
{
    decode_plan plan = {.trunk = {.model = model,
                                  .n_spans = n_spans,
                                  .n_runs = n_spans,
                                  .kv_storage = kv_storage,
                                  .stores = with_activations},
                        .head = {.model = model}};
    for (size_t i = 0; i < n_spans; i++) {
        plan.trunk.n_rows += spans[i].n_tokens;
        plan.trunk.n_pages += span_pages(&spans[i]);
        plan.n_wanted += spans[i].n_logits;
    }
    plan.batch.n_targets = plan.n_wanted;
    return plan;
}

static size_t decode_scratch(const decode_plan *plan, const pgrad__machine *machine)
{
    const size_t trunk = pgrad__trunk_scratch(&plan->trunk, machine);
    const size_t head = pgrad__head_scratch(&plan->head, machine, 0);
    return trunk > head ? trunk : head;
}

pgrad_status pgrad__decode_size(pgrad_model *model, uint32_t kv_storage, int with_activations,
                                const pgrad__decode_span *spans, size_t n_spans, uint32_t n_workers,
                                pgrad__pass_size *size)
{
    const pgrad__machine machine = {model->kernels, n_workers};
    decode_plan plan = plan_of(model, kv_storage, with_activations, spans, n_spans);
    pgrad__pass_size own = {0};
    plan.head.batch = &plan.batch;
    PGRAD__TRY(pgrad__arena_measure(lay_out_decode, &plan, &own.arena));
    PGRAD__TRY(pgrad__calloc(model->context, n_spans, sizeof *plan.trunk.spans, &plan.trunk.spans));
    for (size_t i = 0; i < n_spans; i++)
        plan.trunk.spans[i] = attention_span(&spans[i], 0);
    own.scratch = decode_scratch(&plan, &machine);
    pgrad__pass_size_extend(size, &own);
    pgrad__free(model->context, plan.trunk.spans);
    return PGRAD_OK;
}

pgrad_status pgrad__model_decode(pgrad_model *model, pgrad__pass *pass, pgrad__kv_cache *cache,
                                 const pgrad__decode_span *spans, size_t n_spans, float *logits)
{
    if (n_spans == 0)
        return PGRAD_OK;
    for (size_t i = 0; i < n_spans; i++)
        PGRAD__TRY(check_span(model, cache, &spans[i], i));
    decode_plan plan = plan_of(model, cache->storage, spans[0].activations != NULL, spans, n_spans);
    const pgrad__machine machine = pgrad__machine_of(model->context);
    plan.trunk.pass = plan.head.pass = pass;
    plan.trunk.page_layer_stride = cache->layer_bytes;
    plan.head.batch = &plan.batch;
    PGRAD__TRY(pgrad__arena_plan(&pass->arena, lay_out_decode, &plan));
    fill_plan(&plan, cache, spans);
    PGRAD__TRY(pgrad__pass_reserve(pass, decode_scratch(&plan, &machine)));
    PGRAD__TRY(pgrad__trunk_forward(&plan.trunk));
    if (plan.n_wanted == 0)
        return PGRAD_OK;
    pgrad__head_gather(&plan.head, plan.trunk.output);
    return pgrad__head_logits(&plan.head, 0, plan.n_wanted, logits);
}

/* ---- forgetting ---- */

typedef struct forget_plan {
    size_t n_pages, width;
    unsigned char **pages;
    float *zero; /* a row of keys or values */
} forget_plan;

static void lay_out_forget(pgrad__arena *arena, void *user)
{
    forget_plan *plan = user;
    plan->pages = pgrad__arena_take(arena, plan->n_pages, sizeof *plan->pages);
    plan->zero = pgrad__arena_take(arena, plan->width, sizeof *plan->zero);
}

pgrad_status pgrad__model_forget(pgrad_model *model, pgrad__pass *pass, pgrad__kv_cache *cache,
                                 const uint32_t *pages, uint32_t first, uint32_t n)
{
    const pgrad__config *config = &model->config;
    forget_plan plan = {.n_pages = pgrad__kv_pages((size_t)first + n),
                        .width = (size_t)config->n_kv_heads * config->head_dim};
    PGRAD__TRY(pgrad__arena_plan(&pass->arena, lay_out_forget, &plan));
    memset(plan.zero, 0, plan.width * sizeof *plan.zero);
    for (size_t i = 0; i < plan.n_pages; i++)
        plan.pages[i] = pgrad__kv_cache_page(cache, pages[i]);
    const pgrad__kv_run run = {.n_rows = n, .first_position = first, .pages = plan.pages};
    for (uint32_t layer = 0; layer < config->n_layers; layer++) {
        pgrad__attention_shape shape = pgrad__layer_attention(config, layer);
        shape.kv_storage = cache->storage;
        pgrad__kv_store(model->context, &shape,
                        &(pgrad__kv_rows){plan.zero, plan.zero, 0, &run, 1});
        for (size_t i = 0; i < plan.n_pages; i++)
            plan.pages[i] += cache->layer_bytes;
    }
    return PGRAD_OK;
}
