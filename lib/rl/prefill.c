/* Prompts: what is kept of them is taken over, the rest computed once for their group. */
#include "base/checked.h"
#include "base/fail.h"
#include "rl/generator.h"

enum { TILE = PGRAD__KEY_TILE, PREFILL_ROWS = 512 }; /* tokens of a pass over prompts */

static pgrad__token_chain prompt_of(const pgrad__generation *g, const pgrad__prefilled *p)
{
    return pgrad__chain_of(g->rollout, p->first_sequence, 0);
}

/* ---- forced tokens ----
 * They go in token by token, since what the model thinks of each is recorded; all of it is the same
 * for the whole group, so it is written to every sequence. */

/* Forced token t of a group, from the logits of the position before it. */
static void record_forced(pgrad__generation *g, const pgrad__prefilled *p, uint32_t t,
                          const float *logits)
{
    pgrad_rollout *rollout = g->rollout;
    const uint32_t n_vocab = rollout->model->config.n_vocab;
    const float inverse_tau = (float)(1.0 / rollout->sequences[p->first_sequence].temperature);
    pgrad__drawn drawn = {.token = rollout->prompts[rollout->groups[p->group].prefix_offset + t]};
    pgrad__softmax_stats(rollout->context, logits, n_vocab, 1, n_vocab, &inverse_tau, &drawn.token,
                         &drawn.logprob, NULL, &drawn.entropy);
    drawn.logprob_sampled = drawn.logprob;
    for (uint32_t k = 0; k < p->n_total; k++)
        pgrad__record_token(rollout, p->first_sequence + k, &drawn, 1);
}

/* The first tokens of all sequences of a group, from one row of logits. */
static pgrad_status draw_first(pgrad__generation *g, const pgrad__prefilled *p, const float *logits)
{
    struct pgrad__generator *generator = g->generator;
    pgrad__drawn *first = generator->first + p->first_sequence;
    for (uint32_t k = 0; k < p->n_total; k++)
        generator->draw_rows[k] =
            (pgrad__draw_row){.sequence = p->first_sequence + k, .logits = logits};
    pgrad__draw_all(g, p->n_total, first);
    for (uint32_t k = 0; k < p->n_total; k++)
        PGRAD__TRY(pgrad__check_drawn(g, &generator->draw_rows[k], &first[k]));
    return PGRAD_OK;
}

/* What comes after the positions in the cache: a forced token, or the first ones drawn. */
static pgrad_status settle_prompt(pgrad__generation *g, pgrad__prefilled *p, const float *logits)
{
    const pgrad__group *group = &g->rollout->groups[p->group];
    const uint32_t limit = pgrad__token_limit(g, p->group), t = p->n_positions - group->n_prompt;
    if (t == 0) {
        const pgrad__token_chain prompt = prompt_of(g, p);
        pgrad__prefix_cache_keep(&g->generator->prefixes, &prompt, p->pages,
                                 group->n_prompt / TILE);
    }
    if (t < group->n_prefix) {
        record_forced(g, p, t, logits);
        p->ready = t + 1 == limit; /* nothing is left to sample */
        return PGRAD_OK;
    }
    p->ready = 1;
    return draw_first(g, p, logits);
}

/* ---- spans ---- */

/* Takes kept pages over from a page's beginning on: all of the prompt but its last token, whose
 * logits are wanted. Where the last page is kept too, it is copied, if its keys are there. */
static pgrad_status take_kept(pgrad__generation *g, pgrad__prefilled *p)
{
    struct pgrad__generator *generator = g->generator;
    const pgrad__token_chain prompt = prompt_of(g, p);
    const uint32_t n_prompt = g->rollout->groups[p->group].n_prompt, from = p->n_positions;
    while (p->n_positions % TILE == 0 && n_prompt - p->n_positions >= TILE) {
        const uint32_t parent = p->n_pages == 0 ? PGRAD__NO_PAGE : p->pages[p->n_pages - 1];
        const uint32_t page =
            pgrad__prefix_cache_find(&generator->prefixes, parent, &prompt, p->n_pages);
        const int last = n_prompt - p->n_positions == TILE;
        if (page == PGRAD__NO_PAGE ||
            (last && !pgrad__prefix_cache_has(&generator->prefixes, page)))
            break;
        pgrad__kv_cache_share(generator->cache, page);
        p->pages[p->n_pages++] = page;
        if (last) {
            const pgrad_status status =
                pgrad__prefix_cache_copy(&generator->prefixes, page, &p->pages[p->n_pages - 1]);
            pgrad__kv_cache_release(generator->cache, page);
            p->n_pages -= status != PGRAD_OK;
            PGRAD__TRY(status);
        }
        const uint32_t n = last ? TILE - 1 : TILE;
        if (g->keeps)
            pgrad__kept_borrow(g->rollout, p->group,
                               pgrad__prefix_cache_origin(&generator->prefixes, page),
                               p->n_positions, n);
        p->n_positions += n;
    }
    generator->info.prompt_tokens_reused += p->n_positions - from;
    return PGRAD_OK;
}

/* Tokens of the `left` that go into a pass with so much room. */
static uint32_t pass_tokens(uint32_t at, uint32_t left, uint32_t room)
{
    return left <= room ? left : room - (at + room) % TILE;
}

/* Groups that are computed together where n slots are free. */
static uint32_t planned_groups(const pgrad_rollout *rollout, uint32_t n_slots)
{
    const uint32_t of_group = rollout->params.group_size;
    return pgrad__min_u32(rollout->params.max_prompts, (n_slots + of_group - 1) / of_group);
}

uint32_t pgrad__prefill_shape(const pgrad_rollout *planned, uint32_t n_prompt,
                              pgrad__decode_span *spans)
{
    const uint32_t n_groups = planned_groups(planned, planned->generator->batch_size);
    uint32_t rows = 0, n = 0;
    for (uint32_t tokens; n < n_groups && rows < PREFILL_ROWS; n++, rows += tokens) {
        tokens = pass_tokens(0, n_prompt, PREFILL_ROWS - rows);
        if (tokens == 0)
            break;
        spans[n] = (pgrad__decode_span){.n_tokens = tokens,
                                        .first_position = n_prompt - tokens, /* its last pass */
                                        .n_logits = 1};
    }
    return n;
}

/* The next tokens of a prompt: `room`, or as many as end a page, or none. */
static pgrad_status prompt_span(pgrad__generation *g, pgrad__prefilled *p, uint32_t room,
                                pgrad__decode_span *span)
{
    struct pgrad__generator *generator = g->generator;
    const pgrad__group *group = &g->rollout->groups[p->group];
    PGRAD__TRY(take_kept(g, p));
    const uint32_t at = p->n_positions, left = group->n_prompt - at;
    const uint32_t n = pass_tokens(at, left, room);
    PGRAD__TRY(pgrad__take_pages(generator, p->pages, &p->n_pages, (size_t)at + n));
    *span = (pgrad__decode_span){.tokens = g->rollout->prompts + group->prompt_offset + at,
                                 .n_tokens = n,
                                 .first_position = at,
                                 .pages = p->pages,
                                 .n_logits = n == left};
    p->n_positions += n;
    generator->info.prompt_tokens_computed += n;
    /* Prompts of the same pass share them already: keys are stored before any are read. */
    const pgrad__token_chain prompt = prompt_of(g, p);
    pgrad__prefix_cache_keep(&generator->prefixes, &prompt, p->pages,
                             pgrad__min_u32(p->n_positions, group->n_prompt - 1) / TILE);
    return PGRAD_OK;
}

/* The next token of a prefix. */
static pgrad_status prefix_span(pgrad__generation *g, pgrad__prefilled *p, pgrad__decode_span *span)
{
    const pgrad__group *group = &g->rollout->groups[p->group];
    const uint32_t at = p->n_positions;
    PGRAD__TRY(pgrad__take_pages(g->generator, p->pages, &p->n_pages, (size_t)at + 1));
    *span = (pgrad__decode_span){.tokens = g->rollout->prompts + group->prefix_offset +
                                           (at - group->n_prompt),
                                 .n_tokens = 1,
                                 .first_position = at,
                                 .pages = p->pages,
                                 .n_logits = 1};
    p->n_positions++;
    return PGRAD_OK;
}

/* ---- passes ---- */

/* One pass over prompts from index `first` on that are not ready; *any is 0 when all are. */
static pgrad_status prefill_pass(pgrad__generation *g, uint32_t first, int *any)
{
    struct pgrad__generator *generator = g->generator;
    const size_t n_vocab = g->rollout->model->config.n_vocab;
    uint32_t rows = 0, n = 0, last = first;
    for (; last < generator->n_prefilled && rows < PREFILL_ROWS; last++) {
        pgrad__prefilled *p = &generator->prefilled[last];
        pgrad__decode_span *span = &generator->spans[n];
        if (p->ready)
            continue;
        if (p->n_positions < g->rollout->groups[p->group].n_prompt)
            PGRAD__TRY(prompt_span(g, p, PREFILL_ROWS - rows, span));
        else
            PGRAD__TRY(prefix_span(g, p, span));
        if (span->n_tokens == 0)
            break; /* what room is left does not reach the end of a page */
        PGRAD__TRY(pgrad__generation_keep(
            g, span, pgrad__kept_group_row(g->rollout, p->group, span->first_position)));
        rows += span->n_tokens;
        n++;
    }
    *any = n > 0;
    PGRAD__TRY(pgrad__generation_decode(g, n));
    const float *logits = generator->logits;
    for (uint32_t i = first, k = 0; i < last; i++) {
        if (generator->prefilled[i].ready)
            continue;
        if (generator->spans[k++].n_logits == 0)
            continue;
        PGRAD__TRY(settle_prompt(g, &generator->prefilled[i], logits));
        logits += n_vocab;
    }
    return PGRAD_OK;
}

pgrad_status pgrad__prefill(pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    const pgrad_rollout *rollout = g->rollout;
    const uint32_t n_free = generator->batch_size - generator->n_active,
                   first = generator->n_prefilled;
    for (uint32_t planned = 0; planned < n_free && g->next_prefill < rollout->n_sequences;) {
        pgrad__prefilled *p = &generator->prefilled[generator->n_prefilled++];
        const uint32_t group = rollout->sequences[g->next_prefill].group;
        *p = (pgrad__prefilled){.group = group,
                                .n_total = rollout->groups[group].n_sequences,
                                .first_sequence = g->next_prefill,
                                .pages = p->pages};
        g->next_prefill += p->n_total;
        planned += p->n_total;
    }
    for (int any = 1; any;) {
        PGRAD__TRY(pgrad__generation_go_on(g));
        PGRAD__TRY(prefill_pass(g, first, &any));
    }
    return PGRAD_OK;
}

void pgrad__release_prefilled(struct pgrad__generator *generator)
{
    pgrad__prefilled done = generator->prefilled[0];
    for (uint32_t i = 0; i < done.n_pages; i++)
        pgrad__kv_cache_release(generator->cache, done.pages[i]);
    generator->n_prefilled--;
    for (uint32_t i = 0; i < generator->n_prefilled; i++)
        generator->prefilled[i] = generator->prefilled[i + 1];
    generator->prefilled[generator->n_prefilled].pages = done.pages; /* room for a later group */
}
