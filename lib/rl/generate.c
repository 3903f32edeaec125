/* Continuous batching: a slot whose sequence finished takes the next one at once. Which slot a
 * sequence gets, and what else a pass computes, changes nothing of it. */
#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "rl/generator.h"

uint32_t pgrad__token_limit(const pgrad__generation *g, uint32_t group)
{
    const pgrad_rollout *rollout = g->rollout;
    const uint32_t room = rollout->model->n_context - rollout->groups[group].n_prompt + 1;
    uint32_t limit = rollout->params.max_new_tokens;
    if (g->sampler->params.max_new_tokens != 0 && g->sampler->params.max_new_tokens < limit)
        limit = g->sampler->params.max_new_tokens;
    return limit < room ? limit : room;
}

pgrad__token_chain pgrad__chain_of(const pgrad_rollout *rollout, uint32_t i, size_t n_tokens)
{
    const pgrad__group *group = &rollout->groups[rollout->sequences[i].group];
    return (pgrad__token_chain){
        .sequence = i,
        .part = {rollout->prompts + group->prompt_offset, pgrad__rollout_ids(rollout, i)},
        .n = {group->n_prompt, n_tokens}};
}

static pgrad_status time_over(const pgrad__generation *g)
{
    return pgrad__fail(PGRAD_E_DEADLINE, "generate: %g seconds are over", g->params.max_seconds);
}

pgrad_status pgrad__generation_go_on(const pgrad__generation *g)
{
    PGRAD__TRY(pgrad__progress(g->rollout->context, "generate", g->n_done, g->n_total));
    return pgrad__os_seconds() - g->started >= g->params.max_seconds ? time_over(g) : PGRAD_OK;
}

pgrad_status pgrad__take_pages(struct pgrad__generator *generator, uint32_t *pages,
                               uint32_t *n_pages, size_t positions)
{
    while ((size_t)*n_pages * PGRAD__KEY_TILE < positions) {
        PGRAD__TRY(pgrad__prefix_cache_take(&generator->prefixes, &pages[*n_pages]));
        (*n_pages)++;
    }
    return PGRAD_OK;
}

static void stop_keeping(pgrad__generation *g)
{
    g->keeps = 0;
    pgrad__activation_store_free(&g->rollout->activations);
    for (size_t i = 0; i < g->generator->batch_size; i++)
        g->generator->spans[i].activations = NULL;
}

pgrad_status pgrad__generation_keep(pgrad__generation *g, pgrad__decode_span *span, size_t row)
{
    pgrad__activation_store *store = &g->rollout->activations;
    span->activations = NULL;
    if (!g->keeps)
        return PGRAD_OK;
    const pgrad_status status = pgrad__activation_store_take(store, row, span->n_tokens);
    if (status == PGRAD_OK)
        span->activations = store->rows + row;
    else if (g->rollout->params.keep_activations == PGRAD_KEEP_AUTO)
        stop_keeping(g);
    return g->keeps ? status : PGRAD_OK;
}

/* Pages of a pass that failed were kept before it: nobody may take them over. */
pgrad_status pgrad__generation_decode(pgrad__generation *g, size_t n_spans)
{
    struct pgrad__generator *generator = g->generator;
    const pgrad_status status =
        pgrad__model_decode(g->rollout->model, generator->pass, generator->cache, generator->spans,
                            n_spans, generator->logits);
    if (status == PGRAD_OK)
        pgrad__prefix_cache_computed(&generator->prefixes);
    else
        pgrad__prefix_cache_clear(&generator->prefixes);
    return status == PGRAD_E_DEADLINE ? time_over(g) : status;
}

/* ---- draws ---- */

typedef struct draw_job {
    const pgrad__generation *g;
    pgrad__drawn *out;
} draw_job;

static void draw_task(void *argument, size_t index, uint32_t worker)
{
    const draw_job *job = argument;
    const pgrad_rollout *rollout = job->g->rollout;
    const struct pgrad__generator *generator = job->g->generator;
    const pgrad__draw_row *row = &generator->draw_rows[index];
    const pgrad__sequence *sequence = &rollout->sequences[row->sequence];
    const pgrad__group *group = &rollout->groups[sequence->group];
    const uint32_t n_tokens = sequence->n_tokens + row->ahead;
    const int barred = n_tokens < job->g->sampler->params.min_new_tokens;
    pgrad__draw draw = {
        .logits = row->logits,
        .sequence = sequence->number,
        .position = (uint64_t)group->n_prompt + n_tokens,
        .has_token = generator->has_token,
        .history = {rollout->prompts + group->prompt_offset,
                    pgrad__rollout_ids(rollout, row->sequence)},
        .n_history = {group->n_prompt, n_tokens},
        .barred = job->g->ends,
        .n_barred = barred ? job->g->n_ends : 0,
    };
    job->out[index] = pgrad__sampler_draw(job->g->sampler, rollout->model->kernels,
                                          &generator->scratch[worker], &draw);
}

void pgrad__draw_all(pgrad__generation *g, size_t n, pgrad__drawn *out)
{
    draw_job job = {g, out};
    pgrad__parallel(g->rollout->context, n, draw_task, &job);
}

pgrad_status pgrad__check_drawn(const pgrad__generation *g, const pgrad__draw_row *row,
                                const pgrad__drawn *drawn)
{
    const pgrad__sequence *sequence = &g->rollout->sequences[row->sequence];
    char what[80];
    if (drawn->failure == PGRAD__DRAW_OK)
        return PGRAD_OK;
    (void)snprintf(what, sizeof what, "generate: sequence %u, position %u", row->sequence,
                   g->rollout->groups[sequence->group].n_prompt + sequence->n_tokens);
    return pgrad__draw_fail(drawn->failure, row->logits, g->rollout->model->config.n_vocab, what);
}

/* ---- slots ---- */

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
        PGRAD__TRY(
            pgrad__prefix_cache_copy(&generator->prefixes, p->pages[full], &slot->pages[full]));
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
        PGRAD__TRY(pgrad__prefill(g));
    pgrad__prefilled *p = &generator->prefilled[0];
    pgrad__slot *slot = &generator->slots[generator->n_active++];
    const uint32_t i = g->next_sequence++, group = p->group;
    slot->sequence = i;
    slot->n_pages = 0;
    slot->stop_state = 0;
    pgrad__strbuf_clear(&slot->text);
    pgrad__draft_reset(slot);
    PGRAD__TRY(share_prompt(generator, p, slot));
    if (++p->n_started == p->n_total)
        pgrad__release_prefilled(generator);
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

/* ---- attention over common pages ---- */

/* Slots one after another whose attention to their first pages is one product. */
typedef struct shared_run {
    uint32_t first, n;
    uint32_t n_pages; /* the same ones in all of them */
} shared_run;

static uint32_t common_pages(const struct pgrad__generator *generator, const shared_run *a,
                             const shared_run *b)
{
    const uint32_t *in_a = generator->slots[a->first].pages,
                   *in_b = generator->slots[b->first].pages;
    uint32_t n = 0;
    while (n < a->n_pages && n < b->n_pages && in_a[n] == in_b[n])
        n++;
    return n;
}

/* Pages that are read for one slot only because of the run. */
static uint64_t saved_pages(const shared_run *run)
{
    return (uint64_t)(run->n - 1) * run->n_pages;
}

static void set_run(struct pgrad__generator *generator, const shared_run *run)
{
    for (uint32_t k = run->first; k < run->first + run->n; k++) {
        generator->spans[k].group = run->first + 1;
        generator->spans[k].n_shared_pages = run->n_pages;
    }
}

/* The slots of a group share its prompt; groups are joined over what their prompts have in common
 * where that saves more. */
static void share_attention(const pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    const pgrad__sequence *sequences = g->rollout->sequences;
    const pgrad__slot *slots = generator->slots;
    shared_run run = {0, 0, 0};
    for (uint32_t k = 0; k < generator->n_active;) {
        shared_run next = {.first = k, .n_pages = slots[k].n_shared_pages};
        while (k < generator->n_active &&
               sequences[slots[k].sequence].group == sequences[slots[next.first].sequence].group)
            k++;
        next.n = k - next.first;
        if (run.n > 0) {
            const shared_run both = {run.first, run.n + next.n,
                                     common_pages(generator, &run, &next)};
            if (both.n_pages > 0 && saved_pages(&both) >= saved_pages(&run) + saved_pages(&next)) {
                run = both;
                continue;
            }
            set_run(generator, &run);
        }
        run = next;
    }
    set_run(generator, &run);
}

/* ---- a step ---- */

/* Feeds the last token of every slot and what is drafted behind it, and leaves the logits of all
 * these rows; *n_rows of them. */
static pgrad_status feed(pgrad__generation *g, uint32_t *n_rows)
{
    const pgrad_rollout *rollout = g->rollout;
    struct pgrad__generator *generator = g->generator;
    const size_t n_vocab = rollout->model->config.n_vocab;
    const uint32_t most = pgrad__drafts_pay(g) ? pgrad__draft_share(generator->n_active) : 0;
    uint32_t n = 0, extra = PGRAD__MAX_EXTRA_ROWS;
    for (uint32_t k = 0; k < generator->n_active; k++) {
        pgrad__slot *slot = &generator->slots[k];
        const pgrad__sequence *sequence = &rollout->sequences[slot->sequence];
        const uint32_t n_draft = pgrad__draft(g, slot, most < extra ? most : extra);
        PGRAD__TRY(pgrad__take_pages(generator, slot->pages, &slot->n_pages,
                                     (size_t)slot->n_positions + 1 + n_draft));
        generator->spans[k] = (pgrad__decode_span){
            .tokens = pgrad__rollout_ids(rollout, slot->sequence) + sequence->n_tokens - 1,
            .n_tokens = 1 + n_draft,
            .first_position = slot->n_positions,
            .pages = slot->pages,
            .n_logits = 1 + n_draft};
        PGRAD__TRY(pgrad__generation_keep(
            g, &generator->spans[k], pgrad__kept_row(rollout, slot->sequence, slot->n_positions)));
        for (uint32_t j = 0; j <= n_draft; j++, n++)
            generator->draw_rows[n] =
                (pgrad__draw_row){slot->sequence, j, generator->logits + n * n_vocab};
        extra -= n_draft;
        generator->info.drafted_tokens += n_draft;
    }
    share_attention(g);
    *n_rows = n;
    return pgrad__generation_decode(g, generator->n_active);
}

void pgrad__decode_shape(const pgrad_rollout *planned, uint32_t n_prompt, uint32_t n_tokens,
                         pgrad__decode_span *spans)
{
    const uint32_t n = planned->generator->batch_size;
    const uint32_t most = pgrad__draft_share(n), share = most < n_tokens ? most : n_tokens - 1;
    uint32_t extra = PGRAD__MAX_EXTRA_ROWS;
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t n_draft = share < extra ? share : extra;
        spans[k] = (pgrad__decode_span){.n_tokens = 1 + n_draft,
                                        .first_position = n_prompt + n_tokens - 1 - n_draft,
                                        .group = 1 + k / planned->params.group_size,
                                        .n_shared_pages = n_prompt / PGRAD__KEY_TILE,
                                        .n_logits = 1 + n_draft};
        extra -= n_draft;
    }
}

/* What a draft left in the slot's pages is not finite: a probability of zero does not hide that
 * from the positions in front. It is taken away, and the sequence goes on without drafts. */
static pgrad_status take_draft_back(pgrad__generation *g, pgrad__slot *slot, uint32_t n_rows)
{
    slot->draft_end = 0;
    slot->without_drafts = 1;
    return pgrad__model_forget(g->rollout->model, g->generator->pass, g->generator->cache,
                               slot->pages, slot->n_positions, n_rows);
}

/* Pushes what was drawn from a slot's rows, n from `first` on, as long as the next row was computed
 * from it. A failure among drafted rows counts when it comes without them. */
static pgrad_status push_drawn(pgrad__generation *g, pgrad__slot *slot, uint32_t first, uint32_t n,
                               int *finished)
{
    struct pgrad__generator *generator = g->generator;
    const uint32_t end = first + n;
    int goes_on = 1;
    *finished = 0;
    for (uint32_t row = first; row < end && !*finished; row++) {
        const pgrad__drawn *drawn = &generator->drawn[row];
        if (drawn->failure != PGRAD__DRAW_OK && n > 1)
            return take_draft_back(g, slot, end - row);
        if (!goes_on)
            continue;
        PGRAD__TRY(pgrad__check_drawn(g, &generator->draw_rows[row], drawn));
        goes_on = pgrad__draft_came_true(g, slot, drawn->token);
        generator->info.accepted_tokens += goes_on && row + 1 < end;
        slot->n_positions++;
        PGRAD__TRY(pgrad__slot_push(g, slot, drawn, finished));
    }
    return PGRAD_OK;
}

/* At least one token for every active slot; those that finish make room, the others keep their
 * order. */
static pgrad_status decode_step(pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    const uint32_t n = generator->n_active;
    uint32_t n_rows, kept = 0, row = 0;
    PGRAD__TRY(feed(g, &n_rows));
    pgrad__draw_all(g, n_rows, generator->drawn);
    for (uint32_t k = 0; k < n; k++) {
        const uint32_t of_slot = generator->spans[k].n_tokens;
        int finished;
        PGRAD__TRY(push_drawn(g, &generator->slots[k], row, of_slot, &finished));
        row += of_slot;
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
    g->n_ends = generator->n_ends - ignored;
    g->ends = g->n_ends > 0 ? generator->ends + ignored : NULL;
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
    pgrad__kept_forget(rollout, g->first_sequence);
    for (uint32_t i = g->first_sequence; i < rollout->n_sequences; i++)
        rollout->groups[rollout->sequences[i].group].n_sequences = 0;
    sampler->next_sequence -= rollout->n_sequences - g->first_sequence;
    rollout->n_sequences = g->first_sequence;
    rollout->text_length = text_length;
}

/* Pages go back. Texts of the sequences that were under way, empty where there is no memory for
 * one; decoders hold nothing back into the next call. */
static void stop_slots(pgrad__generation *g)
{
    for (uint32_t i = 0; i < g->generator->n_active; i++)
        (void)pgrad__slot_stop(g, &g->generator->slots[i]);
    g->generator->n_active = 0;
    while (g->generator->n_prefilled > 0)
        pgrad__release_prefilled(g->generator);
}

static pgrad_status run(pgrad__generation *g)
{
    for (;;) {
        PGRAD__TRY(pgrad__generation_go_on(g));
        PGRAD__TRY(fill_slots(g));
        if (g->generator->n_active == 0)
            return pgrad__progress(g->rollout->context, "generate", g->n_total, g->n_total);
        PGRAD__TRY(decode_step(g));
    }
}

/* What AUTO waits for: somebody who will use them. */
static int keeps(const pgrad_rollout *rollout)
{
    return rollout->params.keep_activations == PGRAD_KEEP_ON ||
           (rollout->params.keep_activations == PGRAD_KEEP_AUTO &&
            atomic_load(&rollout->model->n_keeping) > 0);
}

/* What is kept was computed with the weights of the call before. Who keeps activations takes pages
 * over together with theirs: those of this call are there, of an earlier one they may be gone, and
 * where that was refused memory the keys are not there either. */
static void begin(pgrad__generation *g)
{
    struct pgrad__generator *generator = g->generator;
    pgrad__activation_store *store = &g->rollout->activations;
    const uint64_t version = g->rollout->model->weight_version;
    generator->info = (pgrad_rollout_info){0};
    pgrad__pass_set_deadline(generator->pass, g->started + g->params.max_seconds);
    g->keeps = keeps(g->rollout);
    if (g->keeps || generator->prefixes.weight_version != version)
        pgrad__prefix_cache_clear(&generator->prefixes);
    generator->prefixes.weight_version = version;
    pgrad__kept_forget(g->rollout, store->weight_version == version ? g->first_sequence : 0);
    store->weight_version = version;
    if (!g->keeps && store->n_taken == 0)
        pgrad__activation_store_free(store);
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
    begin(&g);
    rollout->generating = 1;
    pgrad_status status = run(&g);
    char message[512];
    pgrad__message_get(message);
    stop_slots(&g);
    g.generator->info.kept_tokens = (uint64_t)g.generator->prefixes.n_kept * PGRAD__KEY_TILE;
    rollout->generating = 0;
    const int stopped =
        status == PGRAD_E_CANCELLED || status == PGRAD_E_CALLBACK || status == PGRAD_E_DEADLINE;
    if (status != PGRAD_OK)
        pgrad__message_set(message);
    if (status != PGRAD_OK && !stopped)
        take_back(&g, sampler, text_length);
    else if (rollout->n_sequences > g.first_sequence &&
             rollout->has_rewards == PGRAD__REWARDS_APPLIED)
        pgrad__rollout_drop_rewards(rollout);
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
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "rollout_generate"));
    PGRAD__TRY(pgrad__enter(rollout->context, &scope));
    pgrad_status status = pgrad__lock_read(&rollout->model->lock, "rollout_generate: the model");
    if (status == PGRAD_OK) {
        (void)pgrad_rollout_retain(rollout);
        atomic_fetch_add(&sampler->references, 1);
        status = generate(rollout, sampler, params);
        pgrad__unlock_read(&rollout->model->lock);
        pgrad_sampler_free(sampler);
        pgrad_rollout_free(rollout);
    }
    pgrad__leave(&scope);
    return status;
}

pgrad_status pgrad_rollout_get_info(const pgrad_rollout *rollout, pgrad_rollout_info *out)
{
    if (rollout == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_get_info: %s is NULL",
                           rollout == NULL ? "rollout" : "out");
    pgrad_rollout_info info = rollout->generator->info;
    info.activation_bytes = pgrad__activation_store_held(&rollout->activations);
    info.cache_bytes = pgrad__kv_cache_bytes(rollout->generator->cache);
    return pgrad__struct_write("rollout_info", &info, sizeof info, out);
}
