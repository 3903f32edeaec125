/* What happens to a sequence when a token comes: arrays, text, ends, events. */
#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "rl/generator.h"

static pgrad_status tell(const pgrad__generation *g, const pgrad_event *event)
{
    if (g->params.event != NULL && g->params.event(g->params.user, g->rollout, event) <= 0)
        return pgrad__fail(PGRAD_E_CALLBACK, "generate: the event function asked to stop at sequence %u",
                           event->sequence);
    return PGRAD_OK;
}

static int is_end(const struct pgrad__generator *generator, pgrad_token token)
{
    for (size_t i = 0; i < generator->n_ends; i++)
        if (generator->ends[i] == token)
            return 1;
    return 0;
}

/* Where a stop string begins in the slot's text, looking only where the new piece can have completed one;
 * SIZE_MAX when there is none. */
static size_t find_stop_string(const pgrad_sampler *sampler, const pgrad__slot *slot, size_t n_new)
{
    const size_t length = slot->text.length, back = n_new + sampler->longest_stop_string;
    size_t found = SIZE_MAX;
    if (sampler->params.n_stop_strings == 0 || n_new == 0)
        return found;
    for (size_t i = 0; i < sampler->params.n_stop_strings; i++) {
        const char *at = strstr(slot->text.data + (length > back ? length - back : 0),
                                sampler->params.stop_strings[i]);
        if (at != NULL && (size_t)(at - slot->text.data) < found)
            found = (size_t)(at - slot->text.data);
    }
    return found;
}

static pgrad_status add_text(pgrad__slot *slot, pgrad_token token, const char **piece, size_t *length)
{
    *piece = "";
    *length = 0;
    if (slot->decoder == NULL)
        return PGRAD_OK;
    PGRAD__TRY(pgrad_decoder_push(slot->decoder, token, piece, length));
    pgrad__strbuf_append(&slot->text, *piece, *length);
    return slot->text.status;
}

static void record(pgrad_rollout *rollout, uint32_t i, const pgrad__drawn *drawn, int forced)
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

pgrad_status pgrad__slot_push(pgrad__generation *g, pgrad__slot *slot, const pgrad__drawn *drawn,
                              int forced, int *finished)
{
    pgrad_rollout *rollout = g->rollout;
    pgrad__sequence *sequence = &rollout->sequences[slot->sequence];
    const char *piece = "";
    size_t length = 0, cut = SIZE_MAX;
    uint32_t finish = PGRAD_FINISH_NONE;
    record(rollout, slot->sequence, drawn, forced);
    g->n_done++;
    if (!forced && is_end(g->generator, drawn->token)) {
        finish = PGRAD_FINISH_STOP;
    } else {
        PGRAD__TRY(add_text(slot, drawn->token, &piece, &length));
        if (!forced)
            cut = find_stop_string(g->sampler, slot, length);
        if (cut != SIZE_MAX)
            finish = PGRAD_FINISH_STRING;
        else if (sequence->n_tokens >= pgrad__token_limit(g, sequence->group))
            finish = PGRAD_FINISH_LENGTH;
    }
    pgrad_event event = {.struct_size = sizeof event, .kind = PGRAD_EVENT_TOKEN,
                         .sequence = slot->sequence, .token = drawn->token, .logprob = drawn->logprob,
                         .text = piece, .length = length};
    PGRAD__TRY(tell(g, &event));
    *finished = finish != PGRAD_FINISH_NONE;
    if (!*finished)
        return PGRAD_OK;
    if (cut != SIZE_MAX) {
        slot->text.length = cut;
        slot->text.data[cut] = '\0';
    }
    return pgrad__slot_finish(g, slot, finish);
}

/* Moves the slot's text behind the rollout's others. */
static pgrad_status keep_text(pgrad_rollout *rollout, pgrad__slot *slot, pgrad__sequence *sequence)
{
    const size_t needed = rollout->text_length + slot->text.length + 1;
    PGRAD__TRY(pgrad__reserve(rollout->context, &rollout->text, &rollout->text_capacity, needed, 1));
    sequence->text_offset = rollout->text_length;
    sequence->text_length = slot->text.length;
    if (slot->text.length > 0)
        memcpy(rollout->text + rollout->text_length, slot->text.data, slot->text.length);
    rollout->text[rollout->text_length + slot->text.length] = '\0';
    rollout->text_length = needed;
    return PGRAD_OK;
}

pgrad_status pgrad__slot_finish(pgrad__generation *g, pgrad__slot *slot, uint32_t finish)
{
    pgrad__sequence *sequence = &g->rollout->sequences[slot->sequence];
    for (uint32_t i = 0; i < slot->n_pages; i++)
        pgrad__kv_cache_release(g->generator->cache, slot->pages[i]);
    slot->n_pages = 0;
    if (slot->decoder != NULL) {
        const char *rest;
        size_t length;
        PGRAD__TRY(pgrad_decoder_finish(slot->decoder, &rest, &length));
        if (finish != PGRAD_FINISH_STRING)
            pgrad__strbuf_append(&slot->text, rest, length);
        PGRAD__TRY(slot->text.status);
        PGRAD__TRY(keep_text(g->rollout, slot, sequence));
    }
    sequence->finish = finish;
    pgrad_event event = {.struct_size = sizeof event, .kind = PGRAD_EVENT_FINISHED,
                         .sequence = slot->sequence, .token = -1, .logprob = NAN,
                         .text = slot->decoder == NULL ? "" : g->rollout->text + sequence->text_offset,
                         .length = sequence->text_length};
    return tell(g, &event);
}
