#include "train/prompts.h"

#include <string.h>

#include <policygrad/chat.h>
#include <policygrad/tokenizer.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/rng.h"

/* Reads the host's struct by its own size: what an older one lacks is NULL or 0. */
static pgrad_status read_source(const pgrad_prompts *prompts, pgrad_prompts *out)
{
    const size_t least = offsetof(pgrad_prompts, chat), size = prompts->struct_size;
    if (size < least || size > 1u << 16)
        return pgrad__fail(PGRAD_E_INVALID,
                           "prompts.struct_size: expected %zu (call pgrad_prompts_init), found %zu",
                           sizeof *prompts, size);
    for (size_t i = sizeof *prompts; i < size; i++)
        if (((const unsigned char *)prompts)[i] != 0)
            return pgrad__fail(PGRAD_E_UNSUPPORTED,
                               "prompts: a newer program's field at byte %zu is set", i);
    memset(out, 0, sizeof *out);
    memcpy(out, prompts, size < sizeof *out ? size : sizeof *out);
    out->struct_size = sizeof *out;
    return PGRAD_OK;
}

static pgrad_status check_source(const pgrad_prompts *prompts, const pgrad_tokenizer *tokenizer)
{
    if (prompts->n == 0)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.n: expected at least 1, found 0");
    if (prompts->n > UINT32_MAX)
        return pgrad__fail(PGRAD_E_LIMIT, "prompts.n: at most %u, found %zu", UINT32_MAX,
                           prompts->n);
    if ((prompts->texts == NULL) == (prompts->ids == NULL))
        return pgrad__fail(PGRAD_E_INVALID, "prompts: exactly one of texts and ids must be given");
    if (prompts->chat > 1)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.chat: expected 0 or 1, found %u",
                           prompts->chat);
    if (prompts->chat && prompts->ids != NULL)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.chat: needs texts, found ids");
    if (prompts->system != NULL && !prompts->chat)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.system: needs chat = 1, found 0");
    if (prompts->ids != NULL && prompts->n_ids == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.n_ids: needed beside ids");
    if (prompts->texts != NULL && tokenizer == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.texts: needs a tokenizer");
    if (prompts->n_columns > 0 && (prompts->column_names == NULL || prompts->columns == NULL))
        return pgrad__fail(PGRAD_E_INVALID, "prompts.columns: %u announced, none given",
                           prompts->n_columns);
    for (uint32_t i = 0; i < prompts->n_columns; i++)
        if (prompts->column_names[i] == NULL || prompts->columns[i] == NULL)
            return pgrad__fail(PGRAD_E_INVALID, "prompts.%s[%u] is NULL",
                               prompts->column_names[i] == NULL ? "column_names" : "columns", i);
    return PGRAD_OK;
}

/* Encodes text i behind the ids there are; E_BUFFER with *n when there is no room. */
static pgrad_status encode(const pgrad__prompt_set *set, pgrad_tokenizer *tokenizer, size_t i,
                           size_t *n)
{
    const pgrad_prompts *prompts = &set->source;
    const char *text = prompts->texts[i];
    pgrad_token *out = set->ids == NULL ? NULL : set->ids + set->n_ids;
    size_t room = set->capacity - set->n_ids;
    if (!prompts->chat)
        return pgrad_tokenizer_encode(tokenizer, text, strlen(text), PGRAD_ENCODE_ADD, out, room,
                                      n);
    pgrad_message messages[2];
    size_t n_messages = 0;
    if (prompts->system != NULL)
        messages[n_messages++] =
            (pgrad_message){"system", prompts->system, strlen(prompts->system)};
    messages[n_messages++] = (pgrad_message){"user", text, strlen(text)};
    pgrad_status status =
        pgrad_chat_format(tokenizer, messages, n_messages, PGRAD_CHAT_GENERATE, out, room, n);
    return status == PGRAD_E_UNSUPPORTED ? pgrad__fail_in(status, "prompts.chat: ") : status;
}

static pgrad_status append_ids(pgrad__prompt_set *set, const pgrad_model *model, size_t i,
                               size_t *n)
{
    const pgrad_token *ids = set->source.ids[i];
    *n = set->source.n_ids[i];
    if (*n > model->n_context)
        return PGRAD_OK; /* told by the caller */
    if (ids == NULL && *n > 0)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.ids[%zu] is NULL, n_ids says %zu", i, *n);
    PGRAD__TRY(pgrad__reserve(set->context, &set->ids, &set->capacity, set->n_ids + *n,
                              sizeof(pgrad_token)));
    for (size_t k = 0; k < *n; k++) {
        if (ids[k] < 0 || (uint32_t)ids[k] >= model->config.n_vocab)
            return pgrad__fail(PGRAD_E_INVALID,
                               "prompts.ids[%zu][%zu]: expected an id below %u, found %d", i, k,
                               model->config.n_vocab, ids[k]);
        set->ids[set->n_ids + k] = ids[k];
    }
    return PGRAD_OK;
}

static pgrad_status append_text(pgrad__prompt_set *set, pgrad_tokenizer *tokenizer, size_t i,
                                size_t *n)
{
    if (set->source.texts[i] == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "prompts.texts[%zu] is NULL", i);
    pgrad_status status = encode(set, tokenizer, i, n);
    if (status == PGRAD_E_BUFFER) {
        PGRAD__TRY(pgrad__reserve(set->context, &set->ids, &set->capacity, set->n_ids + *n,
                                  sizeof(pgrad_token)));
        status = encode(set, tokenizer, i, n);
    }
    return status == PGRAD_OK ? status : pgrad__fail_in(status, "prompts.texts[%zu]: ", i);
}

static pgrad_status append_prompt(pgrad__prompt_set *set, const pgrad_model *model,
                                  pgrad_tokenizer *tokenizer, size_t i)
{
    const int is_text = set->source.ids == NULL;
    const char *what = is_text ? "texts" : "ids";
    size_t n = 0;
    PGRAD__TRY(is_text ? append_text(set, tokenizer, i, &n) : append_ids(set, model, i, &n));
    if (n == 0)
        return pgrad__fail(PGRAD_E_INVALID,
                           "prompts.%s[%zu] is empty: a model needs at least one token", what, i);
    if (n > model->n_context)
        return pgrad__fail(PGRAD_E_LIMIT, "prompts.%s[%zu]: %zu tokens, the model's context is %u",
                           what, i, n, model->n_context);
    set->n_ids += n;
    set->offsets[i + 1] = set->n_ids;
    if (n > set->max_tokens)
        set->max_tokens = (uint32_t)n;
    return PGRAD_OK;
}

/* Fisher-Yates, a pure function of (seed, epoch). */
static void shuffle(pgrad__prompt_set *set)
{
    for (size_t i = 0; i < set->source.n; i++)
        set->order[i] = (uint32_t)i;
    for (size_t i = set->source.n - 1; i > 0; i--) {
        size_t j = (size_t)pgrad__uniform_below(set->seed, set->epoch, i, i + 1);
        uint32_t swap = set->order[i];
        set->order[i] = set->order[j];
        set->order[j] = swap;
    }
}

pgrad_status pgrad__prompt_set_init(pgrad__prompt_set *set, const pgrad_model *model,
                                    pgrad_tokenizer *tokenizer, const pgrad_prompts *prompts,
                                    uint64_t seed)
{
    pgrad_status status = PGRAD_OK;
    pgrad_context *context = model->context;
    memset(set, 0, sizeof *set);
    set->context = context;
    set->seed = seed;
    PGRAD__GO(read_source(prompts, &set->source));
    PGRAD__GO(check_source(&set->source, tokenizer));
    const size_t n = set->source.n;
    PGRAD__GO(pgrad__calloc(context, n + 1, sizeof(size_t), &set->offsets));
    PGRAD__GO(pgrad__alloc(context, n, sizeof(uint32_t), &set->order));
    for (size_t i = 0; i < n; i++)
        PGRAD__GO(append_prompt(set, model, tokenizer, i));
    shuffle(set);
    return PGRAD_OK;
fail:
    pgrad__prompt_set_free(set);
    return status;
}

void pgrad__prompt_set_free(pgrad__prompt_set *set)
{
    if (set->context == NULL)
        return;
    pgrad__free(set->context, set->ids);
    pgrad__free(set->context, set->offsets);
    pgrad__free(set->context, set->order);
    memset(set, 0, sizeof *set);
}

size_t pgrad__prompt_set_held(const pgrad__prompt_set *set)
{
    return pgrad__held(set->ids) + pgrad__held(set->offsets) + pgrad__held(set->order);
}

pgrad_status pgrad__prompt_set_add(const pgrad__prompt_set *set, size_t i, pgrad_rollout *rollout)
{
    const pgrad_prompts *prompts = &set->source;
    uint32_t group;
    PGRAD__TRY(pgrad_rollout_add_prompt(rollout, set->ids + set->offsets[i],
                                        set->offsets[i + 1] - set->offsets[i], NULL, &group));
    if (prompts->texts != NULL)
        PGRAD__TRY(pgrad_rollout_set_data(rollout, group, "prompt", prompts->texts[i],
                                          strlen(prompts->texts[i])));
    for (uint32_t column = 0; column < prompts->n_columns; column++) {
        const char *text = prompts->columns[column][i];
        if (text != NULL)
            PGRAD__TRY(pgrad_rollout_set_data(rollout, group, prompts->column_names[column], text,
                                              strlen(text)));
    }
    return PGRAD_OK;
}

size_t pgrad__prompt_set_next(pgrad__prompt_set *set)
{
    if (set->cursor == set->source.n) {
        set->epoch++;
        set->cursor = 0;
        shuffle(set);
    }
    return set->order[set->cursor++];
}

void pgrad__prompt_set_seek(pgrad__prompt_set *set, uint64_t epoch, uint64_t cursor)
{
    set->epoch = epoch;
    set->cursor = cursor;
    shuffle(set);
}
