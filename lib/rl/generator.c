#include "rl/generator.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/pool.h"

static uint32_t pages_for(size_t positions)
{
    return (uint32_t)((positions + PGRAD__KEY_TILE - 1) / PGRAD__KEY_TILE);
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

/* Ids without a token are never sampled. */
static pgrad_status make_mask(pgrad_rollout *rollout)
{
    const uint32_t n_vocab = rollout->model->config.n_vocab;
    uint32_t missing = 0;
    if (rollout->tokenizer == NULL)
        return PGRAD_OK;
    for (uint32_t id = 0; id < n_vocab; id++)
        missing += pgrad_tokenizer_has(rollout->tokenizer, (pgrad_token)id) ? 0u : 1u;
    if (missing == 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__alloc(rollout->context, n_vocab, 1, &rollout->generator->has_token));
    for (uint32_t id = 0; id < n_vocab; id++)
        rollout->generator->has_token[id] =
            (uint8_t)pgrad_tokenizer_has(rollout->tokenizer, (pgrad_token)id);
    return PGRAD_OK;
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

static pgrad_status make_slots(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    const uint32_t n_groups = g->max_prefilled =
        min_u32(rollout->params.max_prompts, g->batch_size + 1);
    const size_t text = (size_t)rollout->params.max_new_tokens * 8; /* more is rare; it grows */
    PGRAD__TRY(pgrad__calloc(g->context, g->batch_size, sizeof *g->slots, &g->slots));
    PGRAD__TRY(pgrad__calloc(g->context, n_groups, sizeof *g->prefilled, &g->prefilled));
    PGRAD__TRY(pgrad__calloc(g->context, ((size_t)g->batch_size + n_groups) * g->max_pages,
                             sizeof(uint32_t), &g->page_numbers));
    for (uint32_t i = 0; i < g->batch_size; i++) {
        g->slots[i].pages = g->page_numbers + (size_t)i * g->max_pages;
        g->slots[i].text.context = g->context;
        PGRAD__TRY(pgrad__reserve(g->context, &g->slots[i].text.data, &g->slots[i].text.capacity,
                                  text, 1));
        if (rollout->tokenizer != NULL)
            PGRAD__TRY(pgrad_decoder_create(rollout->tokenizer, 0, &g->slots[i].decoder));
    }
    for (uint32_t i = 0; i < n_groups; i++)
        g->prefilled[i].pages = g->page_numbers + ((size_t)g->batch_size + i) * g->max_pages;
    return rollout->tokenizer != NULL ? warm_decoders(rollout) : PGRAD_OK;
}

static pgrad_status make_scratch(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    const uint32_t n_vocab = rollout->model->config.n_vocab;
    PGRAD__TRY(pgrad__calloc(g->context, g->batch_size, sizeof *g->spans, &g->spans));
    const size_t n_rows = (size_t)g->batch_size + PGRAD__MAX_EXTRA_ROWS;
    const size_t n_draws =
        n_rows > rollout->params.group_size ? n_rows : rollout->params.group_size;
    PGRAD__TRY(pgrad__alloc(g->context, n_rows * n_vocab, sizeof(float), &g->logits));
    PGRAD__TRY(pgrad__alloc(g->context, n_draws, sizeof *g->draw_rows, &g->draw_rows));
    PGRAD__TRY(pgrad__alloc(g->context, n_rows, sizeof *g->drawn, &g->drawn));
    PGRAD__TRY(pgrad__alloc(g->context, rollout->max_sequences, sizeof *g->first, &g->first));
    const uint32_t n_workers = pgrad__n_workers(g->context);
    PGRAD__TRY(pgrad__calloc(g->context, n_workers, sizeof *g->scratch, &g->scratch));
    for (uint32_t i = 0; i < n_workers; i++, g->n_scratch++)
        PGRAD__TRY(pgrad__draw_scratch_init(&g->scratch[i], g->context, n_vocab));
    return PGRAD_OK;
}

/* Pages in use at worst: every slot its own, and one group whose sequences have not all started.
 * (As many groups are prefilled as fill the free slots, so the others start at once.) */
static pgrad_status make_cache(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    const pgrad_rollout_params *params = &rollout->params;
    const size_t longest = (size_t)params->max_prompt_tokens + params->max_new_tokens;
    const uint32_t n_context = rollout->model->n_context;
    g->max_pages = pages_for(longest < n_context ? longest : n_context);
    const uint64_t pages =
        ((uint64_t)g->batch_size + 1) * g->max_pages + pages_for(params->prefix_cache_tokens);
    if (pages > UINT32_MAX / 2)
        return pgrad__fail(PGRAD_E_LIMIT, "rollout: a cache of %llu pages is too large",
                           (unsigned long long)pages);
    PGRAD__TRY(
        pgrad__kv_cache_create(rollout->model, (uint32_t)pages, params->kv_storage, &g->cache));
    return pgrad__prefix_cache_init(&g->prefixes, g->context, g->cache, (uint32_t)pages);
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
    pgrad_token of_model[8];
    const uint32_t n = pgrad__model_eos(rollout->model, of_model);
    for (uint32_t i = 0; i < n; i++)
        PGRAD__TRY(add_end(g, of_model[i]));
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
    PGRAD__TRY(pgrad__calloc(rollout->context, 1, sizeof *rollout->generator, &rollout->generator));
    struct pgrad__generator *g = rollout->generator;
    g->context = rollout->context;
    g->batch_size = min_u32(rollout->max_sequences,
                            rollout->params.batch_size != 0 ? rollout->params.batch_size : 64);
    PGRAD__TRY(make_cache(rollout));
    PGRAD__TRY(make_slots(rollout));
    PGRAD__TRY(make_scratch(rollout));
    PGRAD__TRY(make_mask(rollout));
    PGRAD__TRY(make_ends(rollout));
    return pgrad__pass_create(rollout->model, &g->pass);
}

void pgrad__generator_free(pgrad_rollout *rollout)
{
    struct pgrad__generator *g = rollout->generator;
    if (g == NULL)
        return;
    for (uint32_t i = 0; g->slots != NULL && i < g->batch_size; i++) {
        pgrad_decoder_free(g->slots[i].decoder);
        pgrad__strbuf_free(&g->slots[i].text);
    }
    for (uint32_t i = 0; i < g->n_scratch; i++)
        pgrad__draw_scratch_free(&g->scratch[i], g->context);
    pgrad__prefix_cache_free(&g->prefixes);
    pgrad__kv_cache_free(g->cache);
    pgrad__pass_free(g->pass);
    pgrad__free(g->context, g->slots);
    pgrad__free(g->context, g->prefilled);
    pgrad__free(g->context, g->page_numbers);
    pgrad__free(g->context, g->spans);
    pgrad__free(g->context, g->logits);
    pgrad__free(g->context, g->draw_rows);
    pgrad__free(g->context, g->drawn);
    pgrad__free(g->context, g->first);
    pgrad__free(g->context, g->scratch);
    pgrad__free(g->context, g->has_token);
    pgrad__free(g->context, g->ends);
    pgrad__free(g->context, g);
    rollout->generator = NULL;
}
