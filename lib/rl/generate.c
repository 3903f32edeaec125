/* Continuous batching: prompts are computed once for their group and shared by its completions; a slot whose
 * sequence finished takes the next one at once. Which slot a sequence gets changes nothing of it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "kernel/vec.h"
#include "rl/generator.h"

enum { PREFILL_ROWS = 512 }; /* tokens of a pass over a prompt */

uint32_t pgrad__token_limit(const pgrad__generation *g, uint32_t group)
{
    const pgrad_rollout *rollout = g->rollout;
    const uint32_t room = rollout->model->n_context - rollout->groups[group].n_prompt + 1;
    uint32_t limit = rollout->params.max_new_tokens;
    if (g->sampler->params.max_new_tokens != 0 && g->sampler->params.max_new_tokens < limit)
        limit = g->sampler->params.max_new_tokens;
    return limit < room ? limit : room;
}

/* ---- drawing the rows of a batch ---- */

typedef struct draw_job {
    const pgrad__generation *g;
    const float *logits;
    size_t stride; /* between the rows of two draws; 0: all draw from one row */
    int by_slot; /* row i is of the sequence in slot i, else of sequence first_sequence + i */
    uint32_t first_sequence;
    pgrad__drawn *out;
} draw_job;

static uint32_t sequence_of(const draw_job *job, size_t row)
{
    return job->by_slot ? job->g->generator->slots[row].sequence : job->first_sequence + (uint32_t)row;
}

static void draw_task(void *argument, size_t row, uint32_t worker)
{
    const draw_job *job = argument;
    const pgrad_rollout *rollout = job->g->rollout;
    const struct pgrad__generator *generator = job->g->generator;
    const uint32_t i = sequence_of(job, row);
    const pgrad__sequence *sequence = &rollout->sequences[i];
    const pgrad__group *group = &rollout->groups[sequence->group];
    const uint32_t n_sampled = sequence->n_tokens;
    const int barred = n_sampled < job->g->sampler->params.min_new_tokens;
    pgrad__draw draw = {
        .logits = job->logits + row * job->stride,
        .sequence = sequence->number,
        .position = (uint64_t)group->n_prompt + sequence->n_tokens,
        .has_token = generator->has_token,
        .history = {rollout->prompts + group->prompt_offset, pgrad__rollout_ids(rollout, i)},
        .n_history = {group->n_prompt, sequence->n_tokens},
        .barred = generator->ends,
        .n_barred = barred ? generator->n_ends : 0,
    };
    job->out[row] = pgrad__sampler_draw(job->g->sampler, rollout->model->kernels,
                                        &generator->scratch[worker], &draw);
}

static pgrad_status draw_rows(const draw_job *job, size_t n)
{
    char what[80];
    draw_job copy = *job;
    pgrad__parallel(job->g->rollout->context, n, draw_task, &copy);
    for (size_t row = 0; row < n; row++) {
        if (job->out[row].failure == PGRAD__DRAW_OK)
            continue;
        uint32_t i = sequence_of(job, row);
        const pgrad__sequence *sequence = &job->g->rollout->sequences[i];
        (void)snprintf(what, sizeof what, "generate: sequence %u, position %u", i,
                       job->g->rollout->groups[sequence->group].n_prompt + sequence->n_tokens);
        return pgrad__draw_fail(job->out[row].failure, job->logits + row * job->stride,
                                job->g->rollout->model->config.n_vocab, what);
    }
    return PGRAD_OK;
}

/* ---- prompts ---- */

static pgrad_status take_pages(pgrad__kv_cache *cache, uint32_t *pages, uint32_t *n_pages, size_t positions)
{
    while ((size_t)*n_pages * PGRAD__KEY_TILE < positions) {
        PGRAD__TRY(pgrad__kv_cache_take(cache, &pages[*n_pages]));
        (*n_pages)++;
    }
    return PGRAD_OK;
}

static pgrad_status prefill(pgrad__generation *g, pgrad__prefilled *p)
{
    const pgrad_rollout *rollout = g->rollout;
    const pgrad__group *group = &rollout->groups[p->group];
    for (uint32_t at = 0; at < group->n_prompt; at += PREFILL_ROWS) {
        uint32_t n = group->n_prompt - at < PREFILL_ROWS ? group->n_prompt - at : PREFILL_ROWS;
        PGRAD__TRY(take_pages(g->generator->cache, p->pages, &p->n_pages, (size_t)at + n));
        pgrad__decode_span span = {.tokens = rollout->prompts + group->prompt_offset + at, .n_tokens = n,
                                   .first_position = at, .pages = p->pages,
                                   .want_logits = at + n == group->n_prompt};
        PGRAD__TRY(pgrad__model_decode(rollout->model, g->generator->pass, g->generator->cache, &span, 1,
                                       g->generator->logits));
    }
    p->n_positions = group->n_prompt;
    return PGRAD_OK;
}

/* A prompt whose first tokens all sequences draw now, from the same row. */
static pgrad_status start_group(pgrad__generation *g)
{
    pgrad_rollout *rollout = g->rollout;
    struct pgrad__generator *generator = g->generator;
    const uint32_t i = rollout->sequences[g->next_sequence].group;
    pgrad__prefilled *p = &generator->prefilled[generator->n_prefilled];
    uint32_t *pages = p->pages;
    *p = (pgrad__prefilled){.group = i, .n_total = rollout->groups[i].n_sequences,
                            .first_sequence = g->next_sequence, .pages = pages};
    generator->n_prefilled++;
    PGRAD__TRY(prefill(g, p));
    draw_job job = {.g = g, .logits = generator->logits, .first_sequence = p->first_sequence,
                    .out = generator->first + p->first_sequence};
    return draw_rows(&job, p->n_total);
}

/* ---- slots ---- */

static pgrad_status release_prefilled(struct pgrad__generator *generator, uint32_t index)
{
    pgrad__prefilled done = generator->prefilled[index];
    for (uint32_t i = 0; i < done.n_pages; i++)
        pgrad__kv_cache_release(generator->cache, done.pages[i]);
    generator->n_prefilled--;
    for (uint32_t i = index; i < generator->n_prefilled; i++)
        generator->prefilled[i] = generator->prefilled[i + 1];
    generator->prefilled[generator->n_prefilled].pages = done.pages; /* room for a later group */
    return PGRAD_OK;
}

/* Full pages of the prompt are shared, the border page is copied: the sequence writes behind the prompt. */
static pgrad_status share_prompt(struct pgrad__generator *generator, const pgrad__prefilled *p,
                                 pgrad__slot *slot)
{
    const uint32_t full = p->n_positions / PGRAD__KEY_TILE;
    for (uint32_t i = 0; i < full; i++) {
        pgrad__kv_cache_share(generator->cache, p->pages[i]);
        slot->pages[slot->n_pages++] = p->pages[i];
    }
    if (full < p->n_pages) {
        PGRAD__TRY(pgrad__kv_cache_copy(generator->cache, p->pages[full], &slot->pages[full]));
        slot->n_pages++;
    }
    slot->n_positions = p->n_positions;
    return PGRAD_OK;
}

static pgrad_status feed(pgrad__generation *g, uint32_t first_slot, uint32_t n);

/* The forced tokens: what the model thinks of each is recorded; the token itself is given. */
static pgrad_status push_prefix(pgrad__generation *g, uint32_t index, int *finished)
{
    pgrad_rollout *rollout = g->rollout;
    struct pgrad__generator *generator = g->generator;
    const uint32_t i = generator->slots[index].sequence;
    const pgrad__group *group = &rollout->groups[rollout->sequences[i].group];
    pgrad__drawn drawn = generator->first[i];
    for (uint32_t t = 0; t < group->n_prefix && !*finished; t++) {
        const float inverse_tau = (float)(1.0 / rollout->sequences[i].temperature);
        const pgrad_token token = rollout->prompts[group->prefix_offset + t];
        float lse, entropy;
        if (t == 0) { /* the prompt's row is gone: compute it for this sequence */
            pgrad__slot *slot = &generator->slots[index];
            pgrad__decode_span span = {
                .tokens = rollout->prompts + group->prompt_offset + group->n_prompt - 1, .n_tokens = 1,
                .first_position = group->n_prompt - 1, .pages = slot->pages, .want_logits = 1};
            PGRAD__TRY(pgrad__model_decode(rollout->model, generator->pass, generator->cache, &span, 1,
                                           generator->logits));
        }
        rollout->model->kernels->vec->softmax_row_stats(generator->logits, rollout->model->config.n_vocab,
                                                        inverse_tau, &lse, &entropy);
        drawn = (pgrad__drawn){.token = token, .entropy = entropy,
                               .logprob = generator->logits[token] * inverse_tau - lse};
        drawn.logprob_sampled = drawn.logprob;
        PGRAD__TRY(pgrad__slot_push(g, &generator->slots[index], &drawn, 1, finished));
        if (!*finished)
            PGRAD__TRY(feed(g, index, 1));
    }
    if (*finished || group->n_prefix == 0)
        return PGRAD_OK;
    draw_job job = {.g = g, .logits = generator->logits, .first_sequence = i, .out = &generator->first[i]};
    return draw_rows(&job, 1);
}

/* Gives the next sequence a slot and its first token; *finished when it ended with that. */
static pgrad_status start_sequence(pgrad__generation *g, int *finished)
{
    struct pgrad__generator *generator = g->generator;
    const uint32_t i = g->next_sequence;
    uint32_t index = 0;
    while (index < generator->n_prefilled &&
           generator->prefilled[index].group != g->rollout->sequences[i].group)
        index++;
    if (index == generator->n_prefilled)
        PGRAD__TRY(start_group(g));
    pgrad__prefilled *p = &generator->prefilled[index];
    pgrad__slot *slot = &generator->slots[generator->n_active++];
    slot->sequence = i;
    slot->n_pages = 0;
    pgrad__strbuf_clear(&slot->text);
    PGRAD__TRY(share_prompt(generator, p, slot));
    g->next_sequence++;
    if (++p->n_started == p->n_total)
        PGRAD__TRY(release_prefilled(generator, index));
    *finished = 0;
    PGRAD__TRY(push_prefix(g, generator->n_active - 1, finished));
    if (!*finished)
        PGRAD__TRY(pgrad__slot_push(g, slot, &generator->first[i], 0, finished));
    return PGRAD_OK;
}

static pgrad_status fill_slots(pgrad__generation *g)
{
    while (g->generator->n_active < g->generator->batch_size &&
           g->next_sequence < g->rollout->n_sequences) {
        int finished;
        PGRAD__TRY(start_sequence(g, &finished));
        if (finished)
            g->generator->n_active--;
        PGRAD__TRY(pgrad__check_cancel(g->rollout->context));
    }
    return PGRAD_OK;
}

/* Feeds the last token of n slots and leaves the logits of what comes next. */
static pgrad_status feed(pgrad__generation *g, uint32_t first_slot, uint32_t n)
{
    const pgrad_rollout *rollout = g->rollout;
    struct pgrad__generator *generator = g->generator;
    for (uint32_t k = 0; k < n; k++) {
        pgrad__slot *slot = &generator->slots[first_slot + k];
        const pgrad__sequence *sequence = &rollout->sequences[slot->sequence];
        PGRAD__TRY(take_pages(generator->cache, slot->pages, &slot->n_pages,
                              (size_t)slot->n_positions + 1));
        generator->spans[k] = (pgrad__decode_span){
            .tokens = pgrad__rollout_ids(rollout, slot->sequence) + sequence->n_tokens - 1,
            .n_tokens = 1, .first_position = slot->n_positions, .pages = slot->pages,
            .group = sequence->group + 1,
            .n_shared_pages = rollout->groups[sequence->group].n_prompt / PGRAD__KEY_TILE,
            .want_logits = 1};
        slot->n_positions++;
    }
    return pgrad__model_decode(rollout->model, generator->pass, generator->cache, generator->spans, n,
                               generator->logits);
}

/* One token for every active slot; those that finish make room, the others keep their order. */
static pgrad_status decode_step(pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    const uint32_t n = generator->n_active;
    PGRAD__TRY(feed(g, 0, n));
    draw_job job = {.g = g, .logits = generator->logits, .stride = g->rollout->model->config.n_vocab,
                    .by_slot = 1, .out = generator->drawn};
    PGRAD__TRY(draw_rows(&job, n));
    uint32_t kept = 0;
    for (uint32_t k = 0; k < n; k++) {
        int finished;
        PGRAD__TRY(pgrad__slot_push(g, &generator->slots[k], &generator->drawn[k], 0, &finished));
        if (finished)
            continue;
        if (kept != k) {
            pgrad__slot swap = generator->slots[kept];
            generator->slots[kept] = generator->slots[k];
            generator->slots[k] = swap;
        }
        kept++;
    }
    generator->n_active = kept;
    return PGRAD_OK;
}

/* ---- the call ---- */

static pgrad_status add_end(struct pgrad__generator *g, pgrad_token token)
{
    if (token < 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__reserve(g->context, &g->ends, &g->ends_capacity, g->n_ends + 1, sizeof token));
    g->ends[g->n_ends++] = token;
    return PGRAD_OK;
}

/* End tokens of tokenizer and model, and the sampler's own. */
static pgrad_status collect_ends(pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    const pgrad_sampler_params *params = &g->sampler->params;
    pgrad_token of_model[8];
    generator->n_ends = 0;
    if (!params->ignore_eos) {
        uint32_t n = pgrad__model_eos(g->rollout->model, of_model);
        for (uint32_t i = 0; i < n; i++)
            PGRAD__TRY(add_end(generator, of_model[i]));
        if (g->rollout->tokenizer != NULL) {
            PGRAD__TRY(add_end(generator, pgrad_tokenizer_special(g->rollout->tokenizer, PGRAD_TOKEN_EOS)));
            PGRAD__TRY(add_end(generator,
                               pgrad_tokenizer_special(g->rollout->tokenizer, PGRAD_TOKEN_END_OF_TURN)));
        }
    }
    for (size_t i = 0; i < params->n_stop_tokens; i++)
        PGRAD__TRY(add_end(generator, params->stop_tokens[i]));
    return PGRAD_OK;
}

/* Makes the sequences of all groups that have none, numbered in their order. */
static pgrad_status make_sequences(pgrad__generation *g, pgrad_sampler *sampler)
{
    pgrad_rollout *rollout = g->rollout;
    if (rollout->n_groups == 0)
        return pgrad__fail(PGRAD_E_STATE, "generate: the rollout has no prompts");
    g->next_sequence = rollout->n_sequences;
    for (uint32_t group = 0; group < rollout->n_groups; group++) {
        if (rollout->groups[group].n_sequences > 0)
            continue;
        if (rollout->max_sequences - rollout->n_sequences < rollout->params.group_size)
            return pgrad__fail(PGRAD_E_LIMIT,
                               "generate: group %u needs %u sequences, %u of %u are left", group,
                               rollout->params.group_size, rollout->max_sequences - rollout->n_sequences,
                               rollout->max_sequences);
        for (uint32_t k = 0; k < rollout->params.group_size; k++) {
            pgrad__sequence *sequence = &rollout->sequences[rollout->n_sequences++];
            const double tau = sampler->params.temperature;
            *sequence = (pgrad__sequence){.group = group, .sampled = 1, .reward = NAN,
                                          .number = sampler->next_sequence++,
                                          .temperature = tau == 0.0 ? 1.0 : tau};
            g->n_total += pgrad__token_limit(g, group);
        }
        rollout->groups[group].n_sequences = rollout->params.group_size;
    }
    return PGRAD_OK;
}

static pgrad_status run(pgrad__generation *g)
{
    pgrad_context *context = g->rollout->context;
    for (;;) {
        PGRAD__TRY(pgrad__progress(context, "generate", g->n_done, g->n_total));
        if (pgrad__os_seconds() - g->started >= g->params.max_seconds)
            return pgrad__fail(PGRAD_E_DEADLINE, "generate: %g seconds are over", g->params.max_seconds);
        PGRAD__TRY(fill_slots(g));
        if (g->generator->n_active == 0)
            return pgrad__progress(context, "generate", g->n_total, g->n_total);
        PGRAD__TRY(decode_step(g));
    }
}

static pgrad_status generate(pgrad_rollout *rollout, pgrad_sampler *sampler,
                             const pgrad_generate_params *params)
{
    pgrad__generation g = {.rollout = rollout, .generator = rollout->generator, .sampler = sampler,
                           .started = pgrad__os_seconds()};
    PGRAD__TRY(pgrad__params_read("generate", params, &g.params));
    PGRAD__TRY(collect_ends(&g));
    PGRAD__TRY(make_sequences(&g, sampler));
    pgrad__kv_cache_reset(g.generator->cache);
    g.generator->n_active = g.generator->n_prefilled = 0;
    rollout->has_rewards = rollout->has_advantages = 0;
    rollout->generating = 1;
    pgrad_status status = run(&g);
    rollout->generating = 0;
    for (uint32_t i = 0; i < g.generator->n_active; i++)
        if (g.generator->slots[i].decoder != NULL) { /* nothing held back into the next call */
            const char *rest;
            (void)pgrad_decoder_finish(g.generator->slots[i].decoder, &rest, NULL);
        }
    return status;
}

pgrad_status pgrad_rollout_generate(pgrad_rollout *rollout, pgrad_sampler *sampler,
                                    const pgrad_generate_params *params)
{
    pgrad__scope scope;
    if (rollout == NULL || sampler == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_generate: %s is NULL",
                           rollout == NULL ? "rollout" : "sampler");
    if (rollout->generating)
        return pgrad__fail(PGRAD_E_BUSY, "rollout_generate: called from inside a callback of the rollout");
    PGRAD__TRY(pgrad__enter(rollout->context, &scope));
    pgrad_status status = pgrad__lock_read(&rollout->model->lock, "rollout_generate: the model");
    if (status == PGRAD_OK) {
        status = generate(rollout, sampler, params);
        pgrad__unlock_read(&rollout->model->lock);
    }
    pgrad__leave(&scope);
    return status;
}
