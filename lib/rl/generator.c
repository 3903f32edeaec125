#include "rl/generator.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "model/kv_cache.h"

/* Ids without a token are never sampled. */
static int needs_mask(const pgrad_rollout *rollout)
{
    const uint32_t n_vocab = rollout->model->config.n_vocab;
    uint32_t missing = 0;
    for (uint32_t id = 0; rollout->tokenizer != NULL && id < n_vocab; id++)
        missing += pgrad_tokenizer_has(rollout->tokenizer, (pgrad_token)id) ? 0u : 1u;
    return missing > 0;
}

static void fill_mask(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    for (uint32_t id = 0; g->has_token != NULL && id < rollout->model->config.n_vocab; id++)
        g->has_token[id] = (uint8_t)pgrad_tokenizer_has(rollout->tokenizer, (pgrad_token)id);
}

/* Of a slot's text at first; more is rare, and it grows. */
static size_t text_bytes(const pgrad_rollout *rollout)
{
    return (size_t)rollout->params.max_new_tokens * 8;
}

/* A decoder's buffer grows to the longest token it has seen: let each see it now. */
static pgrad_status warm_decoders(pgrad_rollout *rollout)
{
    const struct pgrad__generator *g = rollout->generator;
    const uint32_t n_ids = pgrad_tokenizer_count(rollout->tokenizer);
    pgrad_token longest = 0;
    size_t most = 0, length;
    const char *text;
    for (uint32_t id = 0; id < n_ids; id++) {
        PGRAD__TRY(pgrad_decoder_push(g->slots[0].decoder, (pgrad_token)id, &text, &length));
        if (length > most) {
            most = length;
            longest = (pgrad_token)id;
        }
    }
    for (uint32_t i = 0; i < g->batch_size; i++) {
        PGRAD__TRY(pgrad_decoder_push(g->slots[i].decoder, longest, &text, &length));
        PGRAD__TRY(pgrad_decoder_finish(g->slots[i].decoder, &text, &length));
    }
    return PGRAD_OK;
}

/* Pages in use at worst: the full ones of each prompt once, every slot's own behind them, and one
 * group whose sequences have not all started. (As many groups are prefilled as fill the free slots,
 * so the others start at once.) */
static pgrad_status plan_cache(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    const pgrad_rollout_params *params = &rollout->params;
    const size_t longest = (size_t)params->max_prompt_tokens + params->max_new_tokens;
    const uint32_t n_context = rollout->model->n_context;
    g->max_pages = (uint32_t)pgrad__kv_pages(longest < n_context ? longest : n_context);
    /* One more than the new tokens fill: they begin within a page, copied for each slot. */
    const uint64_t of_slot = pgrad__kv_pages(params->max_new_tokens) + 1,
                   of_prompt = params->max_prompt_tokens / PGRAD__KEY_TILE,
                   n_prompts = pgrad__min_u32(g->batch_size, params->max_prompts);
    const uint64_t shared = n_prompts * of_prompt + g->batch_size * of_slot,
                   apart = (uint64_t)g->batch_size * g->max_pages;
    const uint64_t pages = (shared < apart ? shared : apart) + g->max_pages +
                           pgrad__kv_pages(params->prefix_cache_tokens);
    if (pages > UINT32_MAX / 2)
        return pgrad__fail(PGRAD_E_LIMIT, "rollout: a cache of %llu pages is too large",
                           (unsigned long long)pages);
    g->n_pages = (uint32_t)pages;
    return PGRAD_OK;
}

pgrad_status pgrad__generator_plan(pgrad_rollout *rollout, uint32_t n_workers)
{
    struct pgrad__generator *g = rollout->generator;
    g->context = rollout->context;
    g->batch_size = pgrad__min_u32(rollout->max_sequences, rollout->params.batch_size != 0
                                                               ? rollout->params.batch_size
                                                               : PGRAD__BATCH_SIZE);
    g->max_prefilled = pgrad__min_u32(rollout->params.max_prompts, g->batch_size + 1);
    g->n_workers = n_workers;
    g->has_mask = needs_mask(rollout);
    return plan_cache(rollout);
}

void pgrad__generator_lay_out(pgrad_rollout *rollout, pgrad__arena *arena)
{
    struct pgrad__generator *g = rollout->generator;
    const size_t n_slots = g->batch_size, n_vocab = rollout->model->config.n_vocab;
    const size_t n_rows = n_slots + PGRAD__MAX_EXTRA_ROWS, of_group = rollout->params.group_size;
    g->slots = pgrad__arena_take(arena, n_slots, sizeof *g->slots);
    g->prefilled = pgrad__arena_take(arena, g->max_prefilled, sizeof *g->prefilled);
    g->page_numbers = pgrad__arena_take(arena, (n_slots + g->max_prefilled) * g->max_pages,
                                        sizeof *g->page_numbers);
    g->spans = pgrad__arena_take(arena, n_slots, sizeof *g->spans);
    g->draw_rows =
        pgrad__arena_take(arena, n_rows > of_group ? n_rows : of_group, sizeof *g->draw_rows);
    g->drawn = pgrad__arena_take(arena, n_rows, sizeof *g->drawn);
    g->first = pgrad__arena_take(arena, rollout->max_sequences, sizeof *g->first);
    g->scratch = pgrad__arena_take(arena, g->n_workers, sizeof *g->scratch);
    g->has_token = pgrad__arena_take(arena, g->has_mask ? n_vocab : 0, sizeof *g->has_token);
    if (!g->has_mask)
        g->has_token = NULL;
    pgrad__prefix_cache_lay_out(&g->prefixes, g->n_pages, arena);
    g->logits = pgrad__arena_take(arena, n_rows * n_vocab, sizeof *g->logits);
}

void pgrad__generator_count(const pgrad_rollout *planned, pgrad__arena *kv_cache,
                            pgrad__arena *other)
{
    const struct pgrad__generator *g = planned->generator;
    pgrad__kv_cache cache = {0};
    if (pgrad__kv_cache_plan(&cache, planned->model, g->n_pages, planned->params.kv_storage) !=
        PGRAD_OK)
        kv_cache->overflow = 1;
    pgrad__kv_cache_count(&cache, kv_cache);
    pgrad__arena_count_block(other, 1, sizeof *g);
    for (uint32_t i = 0; i < g->batch_size; i++) {
        pgrad__arena_count_block(other, pgrad__reserve_capacity(text_bytes(planned)), 1);
        if (planned->tokenizer != NULL)
            pgrad__arena_count_block(other, pgrad__decoder_bytes(), 1);
    }
    for (uint32_t i = 0; i < g->n_workers; i++)
        pgrad__draw_scratch_count(planned->model->config.n_vocab, other);
}

static pgrad_status make_slots(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    memset(g->slots, 0, g->batch_size * sizeof *g->slots);
    memset(g->prefilled, 0, g->max_prefilled * sizeof *g->prefilled);
    for (uint32_t i = 0; i < g->batch_size; i++) {
        g->slots[i].pages = g->page_numbers + (size_t)i * g->max_pages;
        g->slots[i].text.context = g->context;
    }
    g->n_slots = g->batch_size;
    for (uint32_t i = 0; i < g->batch_size; i++) {
        PGRAD__TRY(pgrad__reserve(g->context, &g->slots[i].text.data, &g->slots[i].text.capacity,
                                  text_bytes(rollout), 1));
        if (rollout->tokenizer != NULL)
            PGRAD__TRY(pgrad_decoder_create(rollout->tokenizer, 0, &g->slots[i].decoder));
    }
    for (uint32_t i = 0; i < g->max_prefilled; i++)
        g->prefilled[i].pages = g->page_numbers + ((size_t)g->batch_size + i) * g->max_pages;
    return rollout->tokenizer != NULL ? warm_decoders(rollout) : PGRAD_OK;
}

static pgrad_status make_scratch(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    for (; g->n_scratch < g->n_workers; g->n_scratch++)
        PGRAD__TRY(pgrad__draw_scratch_init(&g->scratch[g->n_scratch], g->context,
                                            rollout->model->config.n_vocab));
    return PGRAD_OK;
}

static pgrad_status make_cache(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    PGRAD__TRY(
        pgrad__kv_cache_create(rollout->model, g->n_pages, rollout->params.kv_storage, &g->cache));
    pgrad__prefix_cache_init(&g->prefixes, g->cache);
    return PGRAD_OK;
}

static pgrad_status add_end(struct pgrad__generator *g, pgrad_token token)
{
    if (token < 0)
        return PGRAD_OK;
    PGRAD__TRY(
        pgrad__reserve(g->context, &g->ends, &g->ends_capacity, g->n_own_ends + 1, sizeof token));
    g->ends[g->n_own_ends++] = token;
    return PGRAD_OK;
}

static pgrad_status make_ends(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    const pgrad__config *config = &rollout->model->config;
    for (uint32_t i = 0; i < config->n_eos; i++)
        PGRAD__TRY(add_end(g, config->eos[i]));
    if (rollout->tokenizer == NULL)
        return PGRAD_OK;
    PGRAD__TRY(add_end(g, pgrad_tokenizer_special(rollout->tokenizer, PGRAD_TOKEN_EOS)));
    return add_end(g, pgrad_tokenizer_special(rollout->tokenizer, PGRAD_TOKEN_END_OF_TURN));
}

int pgrad__generator_ends_with(const struct pgrad__generator *generator, pgrad_token token)
{
    for (size_t i = 0; i < generator->n_own_ends; i++)
        if (generator->ends[i] == token)
            return 1;
    return 0;
}

pgrad_status pgrad__generator_create(pgrad_rollout *rollout)
{
    PGRAD__TRY(make_cache(rollout));
    PGRAD__TRY(make_slots(rollout));
    PGRAD__TRY(make_scratch(rollout));
    fill_mask(rollout);
    PGRAD__TRY(make_ends(rollout));
    return pgrad__pass_create(rollout->model, &rollout->generator->pass);
}

void pgrad__generator_free(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    if (g == NULL)
        return;
    for (uint32_t i = 0; i < g->n_slots; i++) {
        pgrad_decoder_free(g->slots[i].decoder);
        pgrad__strbuf_free(&g->slots[i].text);
    }
    for (uint32_t i = 0; i < g->n_scratch; i++)
        pgrad__draw_scratch_free(&g->scratch[i]);
    pgrad__kv_cache_free(g->cache);
    pgrad__pass_free(g->pass);
    pgrad__free(rollout->context, g->ends);
    pgrad__free(rollout->context, g);
    rollout->generator = NULL;
}
