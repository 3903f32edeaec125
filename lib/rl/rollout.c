#include "rl/rollout.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "rl/generator.h"
#include "rl/reward.h"

/* ---- life ---- */

static void release(pgrad_rollout *rollout)
{
    pgrad_context *context = rollout->context;
    pgrad_model *model = rollout->model; /* keeps the context alive until the end */
    pgrad__generator_free(rollout);
    pgrad__pass_free(rollout->pass);
    pgrad__batch_builder_free(&rollout->builder);
    pgrad__workspace_free(&rollout->scores);
    if (rollout->score_scratch != NULL)
        pgrad__free(context, rollout->score_scratch->tokens);
    pgrad__free(context, rollout->prompts);
    pgrad__free(context, rollout->text);
    pgrad__free(context, rollout->data);
    pgrad__free(context, rollout->data_text);
    pgrad__activation_store_free(&rollout->activations);
    pgrad__arena_free(&rollout->arena);
    pgrad_tokenizer_free(rollout->tokenizer);
    pgrad__free(context, rollout);
    pgrad_model_free(model);
}

static pgrad_status check_fit(const pgrad_model *model, pgrad_tokenizer *tokenizer,
                              const pgrad_rollout_params *params)
{
    if (tokenizer != NULL && pgrad_tokenizer_count(tokenizer) > model->config.n_vocab)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "rollout: the tokenizer has ids up to %u, the model %u rows",
                           pgrad_tokenizer_count(tokenizer) - 1, model->config.n_vocab);
    if ((uint64_t)params->group_size * params->max_prompts > UINT32_MAX / 2)
        return pgrad__fail(PGRAD_E_LIMIT, "rollout: %u groups of %u sequences are too many",
                           params->max_prompts, params->group_size);
    return PGRAD_OK;
}

/* Values of one array. */
static size_t n_values(const pgrad_rollout *rollout)
{
    return (size_t)rollout->max_sequences * rollout->params.max_new_tokens;
}

/* Ids of the prompts with a forced prefix each. */
static size_t prompt_ids(const pgrad_rollout *rollout)
{
    const pgrad_rollout_params *params = &rollout->params;
    return params->max_prompts * ((size_t)params->max_prompt_tokens + params->max_new_tokens);
}

/* Four bytes a token: more is rare, and it grows. */
static size_t text_bytes(const pgrad_rollout *rollout)
{
    return rollout->tokenizer == NULL ? 0 : 4 * n_values(rollout) + rollout->max_sequences;
}

static void lay_out(pgrad__arena *arena, void *user)
{
    pgrad_rollout *rollout = user;
    const size_t n = rollout->max_sequences, per = rollout->params.max_new_tokens;
    rollout->groups =
        pgrad__arena_take(arena, rollout->params.max_prompts, sizeof *rollout->groups);
    rollout->sequences = pgrad__arena_take(arena, n, sizeof *rollout->sequences);
    rollout->tokens = pgrad__arena_take(arena, n, per * sizeof(pgrad_token));
    for (int i = 0; i < PGRAD__N_ARRAYS; i++)
        rollout->arrays[i] = pgrad__arena_take(arena, n, per * sizeof(float));
    rollout->component_scores = pgrad__arena_take(arena, n * PGRAD__MAX_COMPONENTS, sizeof(double));
    rollout->score_scratch = pgrad__score_scratch_lay_out(n, arena);
    pgrad__activation_store_lay_out(&rollout->activations, rollout->activations.n_rows, arena);
    pgrad__generator_lay_out(rollout, arena);
}

pgrad_status pgrad__rollout_plan(pgrad_rollout *rollout, pgrad_model *model,
                                 pgrad_tokenizer *tokenizer, const pgrad_rollout_params *params,
                                 struct pgrad__generator *generator, uint32_t n_workers)
{
    pgrad_rollout_params read;
    PGRAD__TRY(pgrad__params_read("rollout", params, &read));
    PGRAD__TRY(check_fit(model, tokenizer, &read));
    if (read.max_prompt_tokens > model->n_context)
        read.max_prompt_tokens = model->n_context;
    if (read.max_new_tokens > model->n_context)
        read.max_new_tokens = model->n_context;
    if (read.kv_storage == PGRAD_KV_AUTO)
        read.kv_storage = PGRAD_KV_F32;
    rollout->context = model->context;
    rollout->params = read;
    rollout->max_sequences = read.group_size * read.max_prompts;
    rollout->model = model;
    rollout->tokenizer = tokenizer;
    rollout->generator = generator;
    PGRAD__TRY(pgrad__kept_plan(rollout));
    return pgrad__generator_plan(rollout, n_workers);
}

void pgrad__rollout_count(pgrad_rollout *planned, pgrad__arena *kv_cache, pgrad__arena *other)
{
    pgrad__arena_count_block(other, 1, sizeof *planned);
    pgrad__arena_count_block(other, prompt_ids(planned), sizeof(pgrad_token));
    if (planned->tokenizer != NULL)
        pgrad__arena_count_block(other, pgrad__reserve_capacity(text_bytes(planned)), 1);
    lay_out(other, planned);
    pgrad__arena_count_block(other, 0, 0); /* of the arena itself */
    pgrad__generator_count(planned, kv_cache, other);
}

static pgrad_status take_memory(pgrad_rollout *rollout)
{
    pgrad_context *context = rollout->context;
    PGRAD__TRY(pgrad__arena_plan(&rollout->arena, lay_out, rollout));
    pgrad__activation_store_init(&rollout->activations, rollout->model);
    for (int i = 0; i < PGRAD__N_ARRAYS; i++)
        memset(rollout->arrays[i], 0, n_values(rollout) * sizeof(float));
    PGRAD__TRY(pgrad__alloc(context, prompt_ids(rollout), sizeof(pgrad_token), &rollout->prompts));
    rollout->prompt_capacity = prompt_ids(rollout);
    PGRAD__TRY(
        pgrad__reserve(context, &rollout->text, &rollout->text_capacity, text_bytes(rollout), 1));
    return pgrad__generator_create(rollout);
}

static pgrad_status create(pgrad_model *model, pgrad_tokenizer *tokenizer,
                           const pgrad_rollout_params *params, pgrad_rollout **out)
{
    pgrad_context *context = model->context;
    struct pgrad__generator *generator;
    pgrad_rollout *rollout;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *rollout, &rollout));
    pgrad_status status = pgrad__calloc(context, 1, sizeof *generator, &generator);
    if (status == PGRAD_OK) {
        status = pgrad__rollout_plan(rollout, model, tokenizer, params, generator,
                                     pgrad__n_workers(context));
        if (status != PGRAD_OK)
            pgrad__free(context, generator);
    }
    if (status != PGRAD_OK) {
        pgrad__free(context, rollout);
        return status;
    }
    rollout->arena.context = rollout->builder.arena.context = rollout->scores.context = context;
    atomic_init(&rollout->references, 1);
    pgrad__model_retain(model);
    if (tokenizer != NULL)
        pgrad__tokenizer_retain(tokenizer);
    status = take_memory(rollout);
    if (status != PGRAD_OK) {
        release(rollout);
        return status;
    }
    *out = rollout;
    return PGRAD_OK;
}

pgrad_status pgrad_rollout_create(pgrad_model *model, pgrad_tokenizer *tokenizer,
                                  const pgrad_rollout_params *params, pgrad_rollout **out)
{
    pgrad__scope scope;
    if (model == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_create: %s is NULL",
                           model == NULL ? "model" : "out");
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = create(model, tokenizer, params, out);
    pgrad__leave(&scope);
    return status;
}

pgrad_rollout *pgrad_rollout_retain(const pgrad_rollout *rollout)
{
    pgrad_rollout *own = (pgrad_rollout *)rollout; /* const says what may be seen to change */
    if (own != NULL)
        atomic_fetch_add(&own->references, 1);
    return own;
}

void pgrad_rollout_free(pgrad_rollout *rollout)
{
    if (rollout != NULL && atomic_fetch_sub(&rollout->references, 1) == 1)
        release(rollout);
}

void pgrad_rollout_clear(pgrad_rollout *rollout)
{
    if (rollout == NULL || rollout->generating)
        return;
    pgrad__kept_forget(rollout, 0);
    rollout->n_data = rollout->data_length = 0;
    rollout->n_groups = rollout->n_sequences = 0;
    rollout->n_prompt_ids = rollout->text_length = 0;
    pgrad__rollout_drop_rewards(rollout);
}

void pgrad__rollout_drop_rewards(pgrad_rollout *rollout)
{
    rollout->has_rewards = PGRAD__REWARDS_NONE;
    rollout->has_token_rewards = 0;
    rollout->n_components = 0;
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        rollout->sequences[i].reward = NAN;
        rollout->sequences[i].filled &= ~(1u << PGRAD_REWARDS);
    }
}

/* ---- prompts, data, added sequences ---- */

static pgrad_status check_ids(const pgrad_rollout *rollout, const pgrad_token *ids, size_t n,
                              const char *what)
{
    const uint32_t n_vocab = rollout->model->config.n_vocab;
    if (n > 0 && ids == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "%s: %zu ids announced, NULL given", what, n);
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= n_vocab)
            return pgrad__fail(PGRAD_E_INVALID, "%s: token %zu: expected an id below %u, found %d",
                               what, i, n_vocab, ids[i]);
    return PGRAD_OK;
}

pgrad_status pgrad__rollout_check_idle(const pgrad_rollout *rollout, const char *what)
{
    if (rollout->generating)
        return pgrad__fail(PGRAD_E_BUSY, "%s: called from inside a callback of the rollout", what);
    return PGRAD_OK;
}

static pgrad_status check_prompt(const pgrad_rollout *rollout, const pgrad_token *ids, size_t n,
                                 const pgrad_prompt_params *params)
{
    if (n == 0)
        return pgrad__fail(PGRAD_E_INVALID,
                           "add_prompt: an empty prompt: at least one token is needed");
    if (n > rollout->params.max_prompt_tokens)
        return pgrad__fail(
            PGRAD_E_LIMIT,
            "add_prompt: the prompt has %zu tokens, max_prompt_tokens is %u (the model's "
            "context %u)",
            n, rollout->params.max_prompt_tokens, rollout->model->n_context);
    if (rollout->n_groups == rollout->params.max_prompts)
        return pgrad__fail(PGRAD_E_LIMIT, "add_prompt: the rollout holds max_prompts = %u already",
                           rollout->params.max_prompts);
    const size_t room = rollout->model->n_context - n + 1; /* the last token needs no position */
    if (params->n_prefix > rollout->params.max_new_tokens || params->n_prefix > room)
        return pgrad__fail(
            PGRAD_E_LIMIT,
            "prompt.n_prefix: %zu tokens: max_new_tokens is %u, the context has room for %zu",
            params->n_prefix, rollout->params.max_new_tokens, room);
    PGRAD__TRY(check_ids(rollout, ids, n, "add_prompt"));
    return check_ids(rollout, params->prefix, params->n_prefix, "prompt.prefix");
}

pgrad_status pgrad_rollout_add_prompt(pgrad_rollout *rollout, const pgrad_token *ids, size_t n,
                                      const pgrad_prompt_params *params, uint32_t *group)
{
    pgrad_prompt_params read;
    if (rollout == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "add_prompt: rollout is NULL");
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "add_prompt"));
    PGRAD__TRY(pgrad__params_read("prompt", params, &read));
    PGRAD__TRY(check_prompt(rollout, ids, n, &read));
    PGRAD__TRY(pgrad__reserve(rollout->context, &rollout->prompts, &rollout->prompt_capacity,
                              rollout->n_prompt_ids + n + read.n_prefix, sizeof *ids));
    pgrad__group *made = &rollout->groups[rollout->n_groups];
    *made = (pgrad__group){.prompt_offset = rollout->n_prompt_ids,
                           .n_prompt = (uint32_t)n,
                           .tag = read.tag,
                           .prefix_offset = rollout->n_prompt_ids + n,
                           .n_prefix = (uint32_t)read.n_prefix};
    memcpy(rollout->prompts + made->prompt_offset, ids, n * sizeof *ids);
    if (read.n_prefix > 0)
        memcpy(rollout->prompts + made->prefix_offset, read.prefix, read.n_prefix * sizeof *ids);
    rollout->n_prompt_ids += n + read.n_prefix;
    if (group != NULL)
        *group = rollout->n_groups;
    rollout->n_groups++;
    return PGRAD_OK;
}

pgrad_status pgrad_rollout_set_data(pgrad_rollout *rollout, uint32_t group, const char *key,
                                    const char *text, size_t length)
{
    size_t needed;
    if (rollout == NULL || key == NULL || (text == NULL && length > 0))
        return pgrad__fail(PGRAD_E_INVALID, "set_data: an argument is NULL");
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "set_data"));
    if (group >= rollout->n_groups)
        return pgrad__fail(PGRAD_E_INVALID, "set_data: group: expected below %u, found %u",
                           rollout->n_groups, group);
    const size_t key_size = strlen(key) + 1;
    if (!pgrad__add(rollout->data_length, key_size + 1, &needed) ||
        !pgrad__add(needed, length, &needed))
        return pgrad__fail(PGRAD_E_LIMIT, "set_data: a text of %zu bytes is too long", length);
    PGRAD__TRY(pgrad__reserve(rollout->context, &rollout->data_text, &rollout->data_text_capacity,
                              needed, 1));
    PGRAD__TRY(pgrad__reserve(rollout->context, &rollout->data, &rollout->data_capacity,
                              rollout->n_data + 1, sizeof *rollout->data));
    pgrad__data_item item = {.group = group,
                             .key_offset = rollout->data_length,
                             .text_offset = rollout->data_length + key_size,
                             .length = length};
    memcpy(rollout->data_text + item.key_offset, key, key_size);
    if (length > 0)
        memcpy(rollout->data_text + item.text_offset, text, length);
    rollout->data_text[item.text_offset + length] = '\0';
    rollout->data_length = needed;
    rollout->data[rollout->n_data++] = item;
    return PGRAD_OK;
}

/* Decodes the ids of an added sequence, a last end token left out. */
static pgrad_status add_text(pgrad_rollout *rollout, pgrad__sequence *sequence,
                             const pgrad_token *ids, size_t n)
{
    size_t length;
    if (rollout->tokenizer == NULL)
        return PGRAD_OK;
    if (n > 0 && sequence->finish == PGRAD_FINISH_STOP &&
        pgrad__generator_ends_with(rollout->generator, ids[n - 1]))
        n--;
    pgrad_status status = pgrad_tokenizer_decode(rollout->tokenizer, ids, n, 0, NULL, 0, &length);
    if (status != PGRAD_OK && status != PGRAD_E_BUFFER)
        return status;
    PGRAD__TRY(pgrad__reserve(rollout->context, &rollout->text, &rollout->text_capacity,
                              rollout->text_length + length + 1, 1));
    PGRAD__TRY(pgrad_tokenizer_decode(rollout->tokenizer, ids, n, 0,
                                      rollout->text + rollout->text_length, length + 1, &length));
    sequence->text_offset = rollout->text_length;
    sequence->text_length = length;
    rollout->text_length += length + 1;
    return PGRAD_OK;
}

static pgrad_status check_sequence(const pgrad_rollout *rollout, uint32_t group,
                                   const pgrad_token *ids, size_t n)
{
    if (group >= rollout->n_groups)
        return pgrad__fail(PGRAD_E_INVALID, "add_sequence: group: expected below %u, found %u",
                           rollout->n_groups, group);
    const uint32_t room = rollout->model->n_context - rollout->groups[group].n_prompt + 1;
    if (n == 0)
        return pgrad__fail(PGRAD_E_INVALID, "add_sequence: at least one token is needed");
    if (n > rollout->params.max_new_tokens || n > room)
        return pgrad__fail(
            PGRAD_E_LIMIT,
            "add_sequence: %zu tokens: max_new_tokens is %u, the context has room for %u", n,
            rollout->params.max_new_tokens, room);
    if (rollout->groups[group].n_sequences == rollout->params.group_size)
        return pgrad__fail(PGRAD_E_LIMIT,
                           "add_sequence: group %u has its group_size = %u sequences already",
                           group, rollout->params.group_size);
    return check_ids(rollout, ids, n, "add_sequence");
}

pgrad_status pgrad_rollout_add_sequence(pgrad_rollout *rollout, uint32_t group,
                                        const pgrad_token *ids, size_t n,
                                        const pgrad_sequence_params *params)
{
    pgrad_sequence_params read;
    if (rollout == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "add_sequence: rollout is NULL");
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "add_sequence"));
    PGRAD__TRY(pgrad__params_read("sequence", params, &read));
    PGRAD__TRY(check_sequence(rollout, group, ids, n));
    if (!isfinite((float)(1.0 / read.temperature)))
        return pgrad__fail(PGRAD_E_INVALID, "sequence.temperature: %g is too small to divide by",
                           read.temperature);
    if (read.finish == PGRAD_FINISH_NONE)
        return pgrad__fail(PGRAD_E_INVALID, "sequence.finish: an added sequence must have ended");
    const uint32_t i = rollout->n_sequences;
    pgrad__sequence made = {.group = group,
                            .finish = read.finish,
                            .n_tokens = (uint32_t)n,
                            .temperature = read.temperature,
                            .reward = NAN,
                            .filled = 1u << PGRAD_MASK};
    PGRAD__TRY(add_text(rollout, &made, ids, n));
    rollout->sequences[i] = made;
    memcpy(pgrad__rollout_ids(rollout, i), ids, n * sizeof *ids);
    for (size_t t = 0; t < n; t++)
        pgrad__rollout_values(rollout, PGRAD_MASK, i)[t] = 1.0f;
    rollout->n_sequences++;
    rollout->groups[group].n_sequences++;
    if (rollout->has_rewards == PGRAD__REWARDS_APPLIED)
        pgrad__rollout_drop_rewards(rollout);
    return PGRAD_OK;
}

/* ---- reading ---- */

uint32_t pgrad_rollout_count(const pgrad_rollout *rollout)
{
    return rollout == NULL ? 0 : rollout->n_sequences;
}

uint32_t pgrad_rollout_count_groups(const pgrad_rollout *rollout)
{
    return rollout == NULL ? 0 : rollout->n_groups;
}

pgrad_status pgrad_rollout_sequence(const pgrad_rollout *rollout, uint32_t i,
                                    pgrad_sequence_info *out)
{
    if (rollout == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_sequence: %s is NULL",
                           rollout == NULL ? "rollout" : "out");
    if (i >= rollout->n_sequences)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_sequence: index: expected below %u, found %u",
                           rollout->n_sequences, i);
    const pgrad__sequence *sequence = &rollout->sequences[i];
    const pgrad__group *group = &rollout->groups[sequence->group];
    pgrad_sequence_info info = {.group = sequence->group,
                                .finish = sequence->finish,
                                .n_prompt = group->n_prompt,
                                .n_tokens = sequence->n_tokens,
                                .tag = group->tag,
                                .sequence = sequence->number,
                                .temperature = sequence->temperature,
                                .reward = sequence->reward,
                                .sampled = sequence->sampled};
    return pgrad__struct_write("sequence_info", &info, sizeof info, out);
}

const pgrad_token *pgrad_rollout_tokens(const pgrad_rollout *rollout, uint32_t i, size_t *n)
{
    int there = rollout != NULL && i < rollout->n_sequences;
    if (n != NULL)
        *n = there ? rollout->sequences[i].n_tokens : 0;
    return there ? pgrad__rollout_ids(rollout, i) : NULL;
}

const pgrad_token *pgrad_rollout_prompt(const pgrad_rollout *rollout, uint32_t group, size_t *n)
{
    int there = rollout != NULL && group < rollout->n_groups;
    if (n != NULL)
        *n = there ? rollout->groups[group].n_prompt : 0;
    return there ? rollout->prompts + rollout->groups[group].prompt_offset : NULL;
}

/* The slot that sequence i is being decoded in. */
static const pgrad__slot *slot_of(const pgrad_rollout *rollout, uint32_t i)
{
    const struct pgrad__generator *generator = rollout->generator;
    for (uint32_t k = 0;
         rollout->sequences[i].finish == PGRAD_FINISH_NONE && k < generator->n_active; k++)
        if (generator->slots[k].sequence == i)
            return &generator->slots[k];
    return NULL;
}

const char *pgrad_rollout_text(const pgrad_rollout *rollout, uint32_t i, size_t *length)
{
    if (length != NULL)
        *length = 0;
    if (rollout == NULL || rollout->tokenizer == NULL || i >= rollout->n_sequences)
        return NULL;
    const pgrad__slot *slot = slot_of(rollout, i);
    const size_t n = slot != NULL ? slot->text.length : rollout->sequences[i].text_length;
    if (length != NULL)
        *length = n;
    if (n == 0)
        return "";
    return slot != NULL ? slot->text.data : rollout->text + rollout->sequences[i].text_offset;
}

const char *pgrad_rollout_data(const pgrad_rollout *rollout, uint32_t group, const char *key,
                               size_t *length)
{
    if (length != NULL)
        *length = 0;
    if (rollout == NULL || key == NULL)
        return NULL;
    for (size_t i = rollout->n_data; i-- > 0;) { /* a key set twice: the later text */
        const pgrad__data_item *item = &rollout->data[i];
        if (item->group != group || strcmp(rollout->data_text + item->key_offset, key) != 0)
            continue;
        if (length != NULL)
            *length = item->length;
        return rollout->data_text + item->text_offset;
    }
    return NULL;
}

const float *pgrad_rollout_array(const pgrad_rollout *rollout, uint32_t which, uint32_t i,
                                 size_t *n)
{
    if (n != NULL)
        *n = 0;
    if (rollout == NULL || which >= PGRAD__N_ARRAYS || i >= rollout->n_sequences)
        return NULL;
    const pgrad__sequence *sequence = &rollout->sequences[i];
    if (which == PGRAD_OLD && !pgrad__sequence_has(sequence, PGRAD_OLD))
        which = PGRAD_LOGPROBS; /* what it was sampled with */
    if (!pgrad__sequence_has(sequence, which))
        return NULL;
    if (n != NULL)
        *n = sequence->n_tokens;
    return pgrad__rollout_values(rollout, which, i);
}

/* ---- setting arrays ---- */

static int may_be_set(uint32_t which)
{
    return which == PGRAD_REWARDS || which == PGRAD_ADVANTAGES || which == PGRAD_OLD ||
           which == PGRAD_REFERENCE || which == PGRAD_MASK;
}

static pgrad_status check_values(const pgrad_rollout *rollout, uint32_t which, uint32_t i,
                                 const float *values, size_t n)
{
    if (!may_be_set(which))
        return pgrad__fail(
            PGRAD_E_INVALID,
            "set_array: which: expected REWARDS, ADVANTAGES, OLD, REFERENCE or MASK, found %u",
            which);
    if (i >= rollout->n_sequences)
        return pgrad__fail(PGRAD_E_INVALID, "set_array: index: expected below %u, found %u",
                           rollout->n_sequences, i);
    if (n != 1 && n != rollout->sequences[i].n_tokens)
        return pgrad__fail(
            PGRAD_E_MISMATCH,
            "set_array: sequence %u has %u tokens: expected as many values, or 1, found %zu", i,
            rollout->sequences[i].n_tokens, n);
    for (size_t t = 0; t < n; t++)
        if (!isfinite(values[t]))
            return pgrad__fail(PGRAD_E_NUMERIC, "set_array: sequence %u, value %zu is %g", i, t,
                               (double)values[t]);
    for (size_t t = 0; which == PGRAD_MASK && t < n; t++)
        if (values[t] != 0.0f && values[t] != 1.0f)
            return pgrad__fail(PGRAD_E_INVALID,
                               "set_array: sequence %u, mask %zu: expected 0 or 1, found %g", i, t,
                               (double)values[t]);
    return PGRAD_OK;
}

/* One reward for the sequence stands on its last token; several are summed for its total. */
static void set_rewards(pgrad_rollout *rollout, uint32_t i, const float *values, size_t n)
{
    pgrad__sequence *sequence = &rollout->sequences[i];
    float *to = pgrad__rollout_values(rollout, PGRAD_REWARDS, i);
    double total = 0.0;
    memset(to, 0, sequence->n_tokens * sizeof *to);
    for (size_t t = 0; t < n; t++) {
        total += (double)values[t];
        to[n == 1 ? sequence->n_tokens - 1 : t] = values[t];
    }
    sequence->reward = total;
    if (rollout->has_rewards == PGRAD__REWARDS_NONE)
        rollout->has_rewards = PGRAD__REWARDS_SET;
    if (n > 1)
        rollout->has_token_rewards = 1;
}

pgrad_status pgrad_rollout_set_array(pgrad_rollout *rollout, uint32_t which, uint32_t i,
                                     const float *values, size_t n)
{
    if (rollout == NULL || values == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "set_array: %s is NULL",
                           rollout == NULL ? "rollout" : "values");
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "set_array"));
    PGRAD__TRY(check_values(rollout, which, i, values, n));
    pgrad__sequence *sequence = &rollout->sequences[i];
    if (sequence->n_tokens == 0)
        return PGRAD_OK;
    if (which == PGRAD_REWARDS) {
        set_rewards(rollout, i, values, n);
    } else {
        float *to = pgrad__rollout_values(rollout, which, i);
        for (uint32_t t = 0; t < sequence->n_tokens; t++)
            to[t] = values[n == 1 ? 0 : t];
    }
    sequence->filled |= 1u << which;
    return PGRAD_OK;
}
