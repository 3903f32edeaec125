/* What happens to a sequence when a token comes: arrays, text, ends, events. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "rl/generator.h"

static pgrad_status tell(const pgrad__generation *g, const pgrad_event *event)
{
    if (g->params.event == NULL)
        return PGRAD_OK;
    const int32_t answer = g->params.event(g->params.user, g->rollout, event);
    (void)pgrad__os_float_begin(); /* the host may have left another rounding mode */
    if (answer <= 0)
        return pgrad__fail(PGRAD_E_CALLBACK,
                           "generate: the event function asked to stop at sequence %u",
                           event->sequence);
    return PGRAD_OK;
}

static int is_end(const pgrad__generation *g, pgrad_token token)
{
    for (size_t i = 0; i < g->n_ends; i++)
        if (g->ends[i] == token)
            return 1;
    return 0;
}

static pgrad_status add_text(pgrad__slot *slot, pgrad_token token, const char **piece,
                             size_t *length)
{
    *piece = "";
    *length = 0;
    if (slot->decoder == NULL)
        return PGRAD_OK;
    PGRAD__TRY(pgrad_decoder_push(slot->decoder, token, piece, length));
    pgrad__strbuf_append(&slot->text, *piece, *length);
    return slot->text.status;
}

void pgrad__record_token(pgrad_rollout *rollout, uint32_t i, const pgrad__drawn *drawn, int forced)
{
    pgrad__sequence *sequence = &rollout->sequences[i];
    const uint32_t t = sequence->n_tokens++;
    pgrad__rollout_ids(rollout, i)[t] = drawn->token;
    pgrad__rollout_values(rollout, PGRAD_LOGPROBS, i)[t] = drawn->logprob;
    pgrad__rollout_values(rollout, PGRAD_LOGPROBS_SAMPLED, i)[t] = drawn->logprob_sampled;
    pgrad__rollout_values(rollout, PGRAD_ENTROPY, i)[t] = drawn->entropy;
    pgrad__rollout_values(rollout, PGRAD_MASK, i)[t] = forced ? 0.0f : 1.0f;
    sequence->filled |= 1u << PGRAD_LOGPROBS | 1u << PGRAD_LOGPROBS_SAMPLED | 1u << PGRAD_ENTROPY |
                        1u << PGRAD_MASK;
}

static pgrad_status tell_token(const pgrad__generation *g, const pgrad__slot *slot,
                               pgrad_token token, float logprob, const char *piece, size_t length)
{
    pgrad_event event = {.struct_size = sizeof event,
                         .kind = PGRAD_EVENT_TOKEN,
                         .sequence = slot->sequence,
                         .token = token,
                         .logprob = logprob,
                         .text = piece,
                         .length = length};
    return tell(g, &event);
}

pgrad_status pgrad__slot_push_prefix(pgrad__generation *g, pgrad__slot *slot)
{
    const pgrad_rollout *rollout = g->rollout;
    const uint32_t n = rollout->sequences[slot->sequence].n_tokens;
    const float *logprobs = pgrad__rollout_values(rollout, PGRAD_LOGPROBS, slot->sequence);
    for (uint32_t t = 0; t < n; t++) {
        const pgrad_token token = pgrad__rollout_ids(rollout, slot->sequence)[t];
        const char *piece;
        size_t length;
        PGRAD__TRY(add_text(slot, token, &piece, &length));
        PGRAD__TRY(tell_token(g, slot, token, logprobs[t], piece, length));
        g->n_done++;
    }
    return PGRAD_OK;
}

/* Where a stop string ends and how long it is, in the piece that has just been added; those
 * complete before min_new_tokens do not count. */
static size_t find_stop(const pgrad__generation *g, pgrad__slot *slot, uint32_t n_tokens,
                        const char *piece, size_t length, size_t *end)
{
    size_t at = 0, matched = 0;
    while (at < length) {
        size_t more = 0;
        matched = pgrad__stop_strings_scan(&g->sampler->stops, &slot->stop_state, piece + at,
                                           length - at, &more);
        if (matched == 0)
            return 0;
        at += more;
        if (n_tokens >= g->sampler->params.min_new_tokens)
            break;
        matched = 0;
    }
    *end = slot->text.length - length + at;
    return matched;
}

pgrad_status pgrad__slot_push(pgrad__generation *g, pgrad__slot *slot, const pgrad__drawn *drawn,
                              int *finished)
{
    pgrad_rollout *rollout = g->rollout;
    pgrad__sequence *sequence = &rollout->sequences[slot->sequence];
    const char *piece = "";
    size_t length = 0, end = 0, matched = 0;
    uint32_t finish = PGRAD_FINISH_NONE;
    pgrad__record_token(rollout, slot->sequence, drawn, 0);
    g->n_done++;
    if (is_end(g, drawn->token)) {
        finish = PGRAD_FINISH_STOP;
    } else {
        PGRAD__TRY(add_text(slot, drawn->token, &piece, &length));
        matched = find_stop(g, slot, sequence->n_tokens, piece, length, &end);
        if (matched > 0)
            finish = PGRAD_FINISH_STRING;
        else if (sequence->n_tokens >= pgrad__token_limit(g, sequence->group))
            finish = PGRAD_FINISH_LENGTH;
    }
    PGRAD__TRY(tell_token(g, slot, drawn->token, drawn->logprob, piece, length));
    *finished = finish != PGRAD_FINISH_NONE;
    if (!*finished)
        return PGRAD_OK;
    if (matched > 0) {
        slot->text.length = end - matched;
        slot->text.data[slot->text.length] = '\0';
    }
    return pgrad__slot_finish(g, slot, finish);
}

/* Moves the slot's text behind the rollout's others. */
static pgrad_status keep_text(pgrad_rollout *rollout, pgrad__slot *slot, pgrad__sequence *sequence)
{
    const size_t needed = rollout->text_length + slot->text.length + 1;
    PGRAD__TRY(
        pgrad__reserve(rollout->context, &rollout->text, &rollout->text_capacity, needed, 1));
    sequence->text_offset = rollout->text_length;
    sequence->text_length = slot->text.length;
    if (slot->text.length > 0)
        memcpy(rollout->text + rollout->text_length, slot->text.data, slot->text.length);
    rollout->text[rollout->text_length + slot->text.length] = '\0';
    rollout->text_length = needed;
    return PGRAD_OK;
}

/* The text of what the slot holds; a cut character at its end becomes U+FFFD, unless a stop string
 * cut it away. */
static pgrad_status settle_text(pgrad__generation *g, pgrad__slot *slot, int with_rest)
{
    const char *rest;
    size_t length;
    if (slot->decoder == NULL)
        return PGRAD_OK;
    PGRAD__TRY(pgrad_decoder_finish(slot->decoder, &rest, &length));
    if (with_rest)
        pgrad__strbuf_append(&slot->text, rest, length);
    PGRAD__TRY(slot->text.status);
    return keep_text(g->rollout, slot, &g->rollout->sequences[slot->sequence]);
}

static void release_pages(const pgrad__generation *g, pgrad__slot *slot)
{
    for (uint32_t i = 0; i < slot->n_pages; i++)
        pgrad__kv_cache_release(g->generator->cache, slot->pages[i]);
    slot->n_pages = 0;
}

/* The beginning of a later turn of the conversation. */
static void keep_pages(const pgrad__generation *g, pgrad__slot *slot)
{
    const pgrad__token_chain chain =
        pgrad__chain_of(g->rollout, slot->sequence, g->rollout->sequences[slot->sequence].n_tokens);
    pgrad__prefix_cache_keep(&g->generator->prefixes, &chain, slot->pages,
                             slot->n_positions / PGRAD__KEY_TILE);
    pgrad__prefix_cache_computed(&g->generator->prefixes);
}

pgrad_status pgrad__slot_finish(pgrad__generation *g, pgrad__slot *slot, uint32_t finish)
{
    pgrad__sequence *sequence = &g->rollout->sequences[slot->sequence];
    keep_pages(g, slot);
    release_pages(g, slot);
    PGRAD__TRY(settle_text(g, slot, finish != PGRAD_FINISH_STRING));
    sequence->finish = finish;
    pgrad_event event = {.struct_size = sizeof event,
                         .kind = PGRAD_EVENT_FINISHED,
                         .sequence = slot->sequence,
                         .token = -1,
                         .logprob = NAN,
                         .text =
                             slot->decoder == NULL ? "" : g->rollout->text + sequence->text_offset,
                         .length = sequence->text_length};
    return tell(g, &event);
}

pgrad_status pgrad__slot_stop(pgrad__generation *g, pgrad__slot *slot)
{
    release_pages(g, slot);
    if (g->rollout->sequences[slot->sequence].finish != PGRAD_FINISH_NONE)
        return PGRAD_OK;
    return settle_text(g, slot, 1);
}
