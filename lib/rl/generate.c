/* Continuous batching: prompts are computed once for their group and shared by its completions; a
 * slot whose sequence finished takes the next one at once. Which slot a sequence gets changes
 * nothing of it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "base/params_check.h"
#include "base/pool.h"
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

/* Between passes: progress, cancel, deadline. */
static pgrad_status go_on(const pgrad__generation *g)
{
    PGRAD__TRY(pgrad__progress(g->rollout->context, "generate", g->n_done, g->n_total));
    if (pgrad__os_seconds() - g->started >= g->params.max_seconds)
        return pgrad__fail(PGRAD_E_DEADLINE, "generate: %g seconds are over",
                           g->params.max_seconds);
    return PGRAD_OK;
}

/* ---- drawing the rows of a batch ---- */

typedef struct draw_job {
    const pgrad__generation *g;
    const float *logits;
    size_t stride; /* between the rows of two draws; 0: all draw from one row */
    int by_slot;   /* row i is of the sequence in slot i, else of sequence first_sequence + i */
    uint32_t first_sequence;
    pgrad__drawn *out;
} draw_job;

static uint32_t sequence_of(const draw_job *job, size_t row)
{
    return job->by_slot ? job->g->generator->slots[row].sequence
                        : job->first_sequence + (uint32_t)row;
}

static void draw_task(void *argument, size_t row, uint32_t worker)
{
    const draw_job *job = argument;
    const pgrad_rollout *rollout = job->g->rollout;
    const struct pgrad__generator *generator = job->g->generator;
    const uint32_t i = sequence_of(job, row);
    const pgrad__sequence *sequence = &rollout->sequences[i];
    const pgrad__group *group = &rollout->groups[sequence->group];
    const int barred = sequence->n_tokens < job->g->sampler->params.min_new_tokens;
    pgrad__draw draw = {
        .logits = job->logits + row * job->stride,
        .sequence = sequence->number,
        .position = (uint64_t)group->n_prompt + sequence->n_tokens,
        .has_token = generator->has_token,
        .history = {rollout->prompts + group->prompt_offset, pgrad__rollout_ids(rollout, i)},
        .n_history = {group->n_prompt, sequence->n_tokens},
        .barred = job->g->ends,
        .n_barred = barred ? job->g->n_ends : 0,
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

/* ---- prompts ----
 * A group's prompt and forced prefix are computed once. A prefix goes in token by token, since what
 * the model thinks of each is recorded; all of it is the same for the whole group, so it is written
 * to every sequence. */

static pgrad_status take_pages(pgrad__kv_cache *cache, uint32_t *pages, uint32_t *n_pages,
                               size_t positions)
{
    while ((size_t)*n_pages * PGRAD__KEY_TILE < positions) {
        PGRAD__TRY(pgrad__kv_cache_take(cache, &pages[*n_pages]));
        (*n_pages)++;
    }
    return PGRAD_OK;
}

static uint32_t min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

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

/* What comes after the positions in the cache: a forced token, or the first ones drawn. */
static pgrad_status settle_prompt(pgrad__generation *g, pgrad__prefilled *p, const float *logits)
{
    const pgrad__group *group = &g->rollout->groups[p->group];
    const uint32_t limit = pgrad__token_limit(g, p->group), t = p->n_positions - group->n_prompt;
    if (t < group->n_prefix) {
        record_forced(g, p, t, logits);
        p->ready = t + 1 == limit; /* nothing is left to sample */
        return PGRAD_OK;
    }
    draw_job job = {.g = g,
                    .logits = logits,
                    .first_sequence = p->first_sequence,
                    .out = g->generator->first + p->first_sequence};
    p->ready = 1;
    return draw_rows(&job, p->n_total);
}

/* The next tokens of a prompt, or the next one of a prefix. */
static pgrad_status prompt_span(pgrad__generation *g, pgrad__prefilled *p, uint32_t room,
                                pgrad__decode_span *span)
{
    const pgrad_rollout *rollout = g->rollout;
    const pgrad__group *group = &rollout->groups[p->group];
    const uint32_t at = p->n_positions;
    const int in_prompt = at < group->n_prompt;
    const uint32_t n = in_prompt ? min_u32(group->n_prompt - at, room) : 1;
    PGRAD__TRY(take_pages(g->generator->cache, p->pages, &p->n_pages, (size_t)at + n));
    *span = (pgrad__decode_span){
        .tokens = rollout->prompts + (in_prompt ? group->prompt_offset + at
                                                : group->prefix_offset + (at - group->n_prompt)),
        .n_tokens = n,
        .first_position = at,
        .pages = p->pages,
        .want_logits = at + n >= group->n_prompt};
    p->n_positions += n;
    return PGRAD_OK;
}

/* One pass over prompts from index `first` on that are not ready; *any is 0 when all are. */
static pgrad_status prefill_pass(pgrad__generation *g, uint32_t first, int *any)
{
    struct pgrad__generator *generator = g->generator;
    const size_t n_vocab = g->rollout->model->config.n_vocab;
    uint32_t rows = 0, n = 0, last = first;
    for (; last < generator->n_prefilled && rows < PREFILL_ROWS; last++) {
        if (generator->prefilled[last].ready)
            continue;
        PGRAD__TRY(
            prompt_span(g, &generator->prefilled[last], PREFILL_ROWS - rows, &generator->spans[n]));
        rows += generator->spans[n++].n_tokens;
    }
    *any = n > 0;
    PGRAD__TRY(pgrad__model_decode(g->rollout->model, generator->pass, generator->cache,
                                   generator->spans, n, generator->logits));
    const float *logits = generator->logits;
    for (uint32_t i = first, k = 0; i < last; i++) {
        if (generator->prefilled[i].ready)
            continue;
        if (!generator->spans[k++].want_logits)
            continue;
        PGRAD__TRY(settle_prompt(g, &generator->prefilled[i], logits));
        logits += n_vocab;
    }
    return PGRAD_OK;
}

/* Computes the prompts of as many groups as fill the free slots, several to a pass. */
static pgrad_status prefill(pgrad__generation *g)
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
        PGRAD__TRY(go_on(g));
        PGRAD__TRY(prefill_pass(g, first, &any));
    }
    return PGRAD_OK;
}

/* ---- slots ---- */

static void release_prefilled(struct pgrad__generator *generator)
{
    pgrad__prefilled done = generator->prefilled[0];
    for (uint32_t i = 0; i < done.n_pages; i++)
        pgrad__kv_cache_release(generator->cache, done.pages[i]);
    generator->n_prefilled--;
    for (uint32_t i = 0; i < generator->n_prefilled; i++)
        generator->prefilled[i] = generator->prefilled[i + 1];
    generator->prefilled[generator->n_prefilled].pages = done.pages; /* room for a later group */
}

/* Full pages of the prompt are shared, the border page is copied: the sequence writes behind the
 * prompt. */
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
    slot->n_shared_pages = full;
    slot->n_positions = p->n_positions;
    return PGRAD_OK;
}

/* Gives the next sequence a slot and its first token; *finished when it ended with that. */
static pgrad_status start_sequence(pgrad__generation *g, int *finished)
{
    struct pgrad__generator *generator = g->generator;
    if (generator->n_prefilled == 0)
        PGRAD__TRY(prefill(g));
    pgrad__prefilled *p = &generator->prefilled[0];
    pgrad__slot *slot = &generator->slots[generator->n_active++];
    const uint32_t i = g->next_sequence++, group = p->group;
    slot->sequence = i;
    slot->n_pages = 0;
    slot->stop_state = 0;
    pgrad__strbuf_clear(&slot->text);
    PGRAD__TRY(share_prompt(generator, p, slot));
    if (++p->n_started == p->n_total)
        release_prefilled(generator);
    PGRAD__TRY(pgrad__slot_push_prefix(g, slot));
    if (g->rollout->sequences[i].n_tokens == pgrad__token_limit(g, group)) {
        *finished = 1;
        return pgrad__slot_finish(g, slot, PGRAD_FINISH_LENGTH);
    }
    return pgrad__slot_push(g, slot, &generator->first[i], finished);
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

/* Feeds the last token of every slot and leaves the logits of what comes next. */
static pgrad_status feed(pgrad__generation *g)
{
    const pgrad_rollout *rollout = g->rollout;
    struct pgrad__generator *generator = g->generator;
    for (uint32_t k = 0; k < generator->n_active; k++) {
        pgrad__slot *slot = &generator->slots[k];
        const pgrad__sequence *sequence = &rollout->sequences[slot->sequence];
        PGRAD__TRY(take_pages(generator->cache, slot->pages, &slot->n_pages,
                              (size_t)slot->n_positions + 1));
        generator->spans[k] = (pgrad__decode_span){
            .tokens = pgrad__rollout_ids(rollout, slot->sequence) + sequence->n_tokens - 1,
            .n_tokens = 1,
            .first_position = slot->n_positions,
            .pages = slot->pages,
            .group = sequence->group + 1,
            .n_shared_pages = slot->n_shared_pages,
            .want_logits = 1};
        slot->n_positions++;
    }
    return pgrad__model_decode(rollout->model, generator->pass, generator->cache, generator->spans,
                               generator->n_active, generator->logits);
}

/* One token for every active slot; those that finish make room, the others keep their order. */
static pgrad_status decode_step(pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    const uint32_t n = generator->n_active;
    PGRAD__TRY(feed(g));
    draw_job job = {.g = g,
                    .logits = generator->logits,
                    .stride = g->rollout->model->config.n_vocab,
                    .by_slot = 1,
                    .out = generator->drawn};
    PGRAD__TRY(draw_rows(&job, n));
    uint32_t kept = 0;
    for (uint32_t k = 0; k < n; k++) {
        int finished;
        PGRAD__TRY(pgrad__slot_push(g, &generator->slots[k], &generator->drawn[k], &finished));
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

/* End tokens of tokenizer and model unless ignored, and the sampler's own. */
static pgrad_status collect_ends(pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    const pgrad_sampler_params *params = &g->sampler->params;
    const size_t ignored = params->ignore_eos ? generator->n_own_ends : 0;
    generator->n_ends = generator->n_own_ends + params->n_stop_tokens;
    PGRAD__TRY(pgrad__reserve(generator->context, &generator->ends, &generator->ends_capacity,
                              generator->n_ends, sizeof(pgrad_token)));
    if (params->n_stop_tokens > 0)
        memcpy(generator->ends + generator->n_own_ends, params->stop_tokens,
               params->n_stop_tokens * sizeof(pgrad_token));
    g->ends = generator->ends + ignored;
    g->n_ends = generator->n_ends - ignored;
    return PGRAD_OK;
}

static pgrad_status check_room(const pgrad_rollout *rollout)
{
    uint64_t needed = 0;
    if (rollout->n_groups == 0)
        return pgrad__fail(PGRAD_E_STATE, "generate: the rollout has no prompts");
    for (uint32_t group = 0; group < rollout->n_groups; group++)
        needed += rollout->groups[group].n_sequences == 0 ? rollout->params.group_size : 0;
    if (needed > rollout->max_sequences - rollout->n_sequences)
        return pgrad__fail(PGRAD_E_LIMIT, "generate: %llu sequences are needed, %u of %u are left",
                           (unsigned long long)needed,
                           rollout->max_sequences - rollout->n_sequences, rollout->max_sequences);
    return PGRAD_OK;
}

/* Makes the sequences of all groups that have none, numbered in their order. */
static void make_sequences(pgrad__generation *g, pgrad_sampler *sampler)
{
    pgrad_rollout *rollout = g->rollout;
    const double tau = sampler->params.temperature;
    g->first_sequence = g->next_sequence = g->next_prefill = rollout->n_sequences;
    for (uint32_t group = 0; group < rollout->n_groups; group++) {
        if (rollout->groups[group].n_sequences > 0)
            continue;
        for (uint32_t k = 0; k < rollout->params.group_size; k++) {
            rollout->sequences[rollout->n_sequences++] =
                (pgrad__sequence){.group = group,
                                  .sampled = 1,
                                  .reward = NAN,
                                  .number = sampler->next_sequence++,
                                  .temperature = tau == 0.0 ? 1.0 : tau};
            g->n_total += pgrad__token_limit(g, group);
        }
        rollout->groups[group].n_sequences = rollout->params.group_size;
    }
}

/* After a failure that is not a stop: as if the call had not been made. */
static void take_back(const pgrad__generation *g, pgrad_sampler *sampler, size_t text_length)
{
    pgrad_rollout *rollout = g->rollout;
    for (uint32_t i = g->first_sequence; i < rollout->n_sequences; i++)
        rollout->groups[rollout->sequences[i].group].n_sequences = 0;
    sampler->next_sequence -= rollout->n_sequences - g->first_sequence;
    rollout->n_sequences = g->first_sequence;
    rollout->text_length = text_length;
}

/* Texts of the sequences that were under way, empty where there is no memory for one; decoders hold
 * nothing back into the next call. */
static void stop_slots(pgrad__generation *g)
{
    for (uint32_t i = 0; i < g->generator->n_active; i++) {
        pgrad__slot *slot = &g->generator->slots[i];
        if (g->rollout->sequences[slot->sequence].finish == PGRAD_FINISH_NONE)
            (void)pgrad__slot_stop(g, slot);
    }
    g->generator->n_active = 0;
}

static pgrad_status run(pgrad__generation *g)
{
    for (;;) {
        PGRAD__TRY(go_on(g));
        PGRAD__TRY(fill_slots(g));
        if (g->generator->n_active == 0)
            return pgrad__progress(g->rollout->context, "generate", g->n_total, g->n_total);
        PGRAD__TRY(decode_step(g));
    }
}

static pgrad_status generate(pgrad_rollout *rollout, pgrad_sampler *sampler,
                             const pgrad_generate_params *params)
{
    pgrad__generation g = {.rollout = rollout,
                           .generator = rollout->generator,
                           .sampler = sampler,
                           .started = pgrad__os_seconds()};
    const size_t text_length = rollout->text_length;
    PGRAD__TRY(pgrad__params_read("generate", params, &g.params));
    if (sampler->params.n_stop_strings > 0 && rollout->tokenizer == NULL)
        return pgrad__fail(PGRAD_E_INVALID,
                           "sampler.stop_strings: the rollout has no tokenizer, so no text");
    PGRAD__TRY(pgrad__sampler_check(sampler, rollout->model->config.n_vocab));
    PGRAD__TRY(check_room(rollout));
    PGRAD__TRY(collect_ends(&g));
    make_sequences(&g, sampler);
    pgrad__kv_cache_reset(g.generator->cache);
    g.generator->n_active = g.generator->n_prefilled = 0;
    rollout->generating = 1;
    pgrad_status status = run(&g);
    char message[512];
    pgrad__message_get(message);
    stop_slots(&g);
    rollout->generating = 0;
    const int stopped =
        status == PGRAD_E_CANCELLED || status == PGRAD_E_CALLBACK || status == PGRAD_E_DEADLINE;
    if (status != PGRAD_OK)
        pgrad__message_set(message);
    if (status != PGRAD_OK && !stopped)
        take_back(&g, sampler, text_length);
    else if (rollout->n_sequences > g.first_sequence)
        rollout->has_rewards = rollout->has_token_rewards = rollout->has_advantages = 0;
    return status;
}

/* The callback may drop the host's references. */
pgrad_status pgrad_rollout_generate(pgrad_rollout *rollout, pgrad_sampler *sampler,
                                    const pgrad_generate_params *params)
{
    pgrad__scope scope;
    if (rollout == NULL || sampler == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_generate: %s is NULL",
                           rollout == NULL ? "rollout" : "sampler");
    if (rollout->generating)
        return pgrad__fail(PGRAD_E_BUSY,
                           "rollout_generate: called from inside a callback of the rollout");
    PGRAD__TRY(pgrad__enter(rollout->context, &scope));
    pgrad_status status = pgrad__lock_read(&rollout->model->lock, "rollout_generate: the model");
    if (status == PGRAD_OK) {
        atomic_fetch_add(&rollout->references, 1);
        atomic_fetch_add(&sampler->references, 1);
        status = generate(rollout, sampler, params);
        pgrad__unlock_read(&rollout->model->lock);
        pgrad_sampler_free(sampler);
        pgrad_rollout_free(rollout);
    }
    pgrad__leave(&scope);
    return status;
}
