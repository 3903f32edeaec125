/* A rollout in a checkpoint: what it holds is packed into plain numbers, and looked at one by one
 * on the way back. */
#include "rl/checkpoint.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/real.h"
#include "rl/rollout.h"

_Static_assert(__BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__, "files are little-endian");

static pgrad_context *rollout_context(const void *handle)
{
    return ((const pgrad_rollout *)handle)->context;
}

static void rollout_retain(void *handle)
{
    (void)pgrad_rollout_retain(handle);
}

static void rollout_release(void *handle)
{
    pgrad_rollout_free(handle);
}

/* ---- packing ---- */

/* Numbers of a group, a sequence, a piece of data and of the whole, 8 bytes each. */
enum { WORD = sizeof(uint64_t), GROUP = 5, SEQUENCE = 10, DATA = 4, WHOLE = 3 };

static void pack_group(const pgrad__group *group, uint64_t out[GROUP])
{
    const uint64_t values[GROUP] = {group->n_prompt, group->tag, group->n_prefix,
                                    group->n_sequences, group->prompt_offset};
    memcpy(out, values, sizeof values);
}

static void pack_sequence(const pgrad__sequence *s, uint64_t out[SEQUENCE])
{
    const uint64_t values[SEQUENCE] = {s->group,
                                       s->finish,
                                       s->n_tokens,
                                       s->sampled,
                                       s->number,
                                       pgrad__bits_of_real(s->temperature),
                                       pgrad__bits_of_real(s->reward),
                                       s->filled,
                                       s->text_offset,
                                       s->text_length};
    memcpy(out, values, sizeof values);
}

static void pack_data(const pgrad__data_item *item, uint64_t out[DATA])
{
    const uint64_t values[DATA] = {item->group, item->key_offset, item->text_offset, item->length};
    memcpy(out, values, sizeof values);
}

/* Bytes one after another, up to `most` on the way back. */
static pgrad_status add_bytes(pgrad__state *state, const char *name, void *data, size_t bytes,
                              size_t most)
{
    return pgrad__state_array(state, &(pgrad__array){.prefix = "",
                                                     .name = name,
                                                     .element = PGRAD__CANONICAL_BYTE,
                                                     .dims = {bytes, 1},
                                                     .n_in = bytes,
                                                     .variable = 1,
                                                     .most = most,
                                                     .data = data,
                                                     .bytes = bytes,
                                                     .keeps = 1});
}

static pgrad_status add_tables(const pgrad_rollout *rollout, pgrad__state *state)
{
    uint64_t *whole, *groups, *sequences, *data;
    PGRAD__TRY(pgrad__state_own(state, WHOLE, WORD, &whole));
    PGRAD__TRY(pgrad__state_own(state, rollout->n_groups, GROUP * WORD, &groups));
    PGRAD__TRY(pgrad__state_own(state, rollout->n_sequences, SEQUENCE * WORD, &sequences));
    PGRAD__TRY(pgrad__state_own(state, rollout->n_data, DATA * WORD, &data));
    whole[0] = (uint64_t)rollout->has_rewards;
    whole[1] = (uint64_t)rollout->has_token_rewards;
    whole[2] = rollout->n_components;
    for (uint32_t i = 0; i < rollout->n_groups; i++)
        pack_group(&rollout->groups[i], groups + (size_t)i * GROUP);
    for (uint32_t i = 0; i < rollout->n_sequences; i++)
        pack_sequence(&rollout->sequences[i], sequences + (size_t)i * SEQUENCE);
    for (size_t i = 0; i < rollout->n_data; i++)
        pack_data(&rollout->data[i], data + i * DATA);
    PGRAD__TRY(add_bytes(state, "whole", whole, WHOLE * WORD, WHOLE * WORD));
    PGRAD__TRY(add_bytes(state, "groups", groups, (size_t)rollout->n_groups * GROUP * WORD,
                         (size_t)rollout->params.max_prompts * GROUP * WORD));
    PGRAD__TRY(add_bytes(state, "sequences", sequences,
                         (size_t)rollout->n_sequences * SEQUENCE * WORD,
                         (size_t)rollout->max_sequences * SEQUENCE * WORD));
    return add_bytes(state, "data", data, rollout->n_data * DATA * WORD, SIZE_MAX / 2);
}

/* Tokens, arrays and scores of the sequences that there are. */
static pgrad_status add_arrays(pgrad_rollout *rollout, pgrad__state *state)
{
    const size_t per = (size_t)rollout->params.max_new_tokens;
    const size_t n = rollout->n_sequences * per, most = rollout->max_sequences * per;
    static const char *const NAMES[PGRAD__N_ARRAYS] = {"logprobs", "logprobs_sampled", "current",
                                                       "old",      "reference",        "entropy",
                                                       "rewards",  "advantages",       "mask"};
    PGRAD__TRY(add_bytes(state, "tokens", rollout->tokens, n * sizeof *rollout->tokens,
                         most * sizeof *rollout->tokens));
    for (int i = 0; i < PGRAD__N_ARRAYS; i++)
        PGRAD__TRY(add_bytes(state, NAMES[i], rollout->arrays[i], n * sizeof(float),
                             most * sizeof(float)));
    PGRAD__TRY(add_bytes(state, "component_names", rollout->component_names,
                         rollout->n_components * sizeof rollout->component_names[0],
                         sizeof rollout->component_names));
    return add_bytes(state, "component_scores", rollout->component_scores,
                     (size_t)rollout->n_components * rollout->max_sequences * sizeof(double),
                     (size_t)PGRAD__MAX_COMPONENTS * rollout->max_sequences * sizeof(double));
}

static pgrad_status describe(void *handle, pgrad__state *state)
{
    pgrad_rollout *rollout = handle;
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "checkpoint"));
    PGRAD__TRY(pgrad__state_match(state, "group_size", rollout->params.group_size));
    PGRAD__TRY(pgrad__state_match(state, "max_prompts", rollout->params.max_prompts));
    PGRAD__TRY(pgrad__state_match(state, "max_new_tokens", rollout->params.max_new_tokens));
    PGRAD__TRY(pgrad__state_match(state, "max_prompt_tokens", rollout->params.max_prompt_tokens));
    PGRAD__TRY(pgrad__state_match(state, "has_tokenizer", rollout->tokenizer != NULL));
    PGRAD__TRY(add_tables(rollout, state));
    PGRAD__TRY(add_bytes(state, "prompts", rollout->prompts,
                         rollout->n_prompt_ids * sizeof *rollout->prompts, SIZE_MAX / 2));
    PGRAD__TRY(add_bytes(state, "text", rollout->text, rollout->text_length, SIZE_MAX / 2));
    PGRAD__TRY(
        add_bytes(state, "data_text", rollout->data_text, rollout->data_length, SIZE_MAX / 2));
    return add_arrays(rollout, state);
}

/* ---- looking at what comes back ---- */

/* What was staged, as it is named. Behind `tokens` come the arrays, as add_arrays has them. */
typedef struct staged {
    const pgrad_rollout *rollout;
    const pgrad__array *whole, *groups, *sequences, *data, *prompts, *text, *data_text, *tokens;
    const pgrad__array *component_names, *component_scores;
    size_t n_groups, n_sequences, n_data, n_prompt_ids;
    uint64_t n_components;
} staged;

static uint64_t word_of(const pgrad__array *array, size_t i)
{
    return ((const uint64_t *)array->staged)[i];
}

static int find_staged(const pgrad_rollout *rollout, const pgrad__state *state, staged *out)
{
    *out = (staged){.rollout = rollout,
                    .whole = pgrad__state_find(state, "whole"),
                    .groups = pgrad__state_find(state, "groups"),
                    .sequences = pgrad__state_find(state, "sequences"),
                    .data = pgrad__state_find(state, "data"),
                    .prompts = pgrad__state_find(state, "prompts"),
                    .text = pgrad__state_find(state, "text"),
                    .data_text = pgrad__state_find(state, "data_text"),
                    .tokens = pgrad__state_find(state, "tokens"),
                    .component_names = pgrad__state_find(state, "component_names"),
                    .component_scores = pgrad__state_find(state, "component_scores")};
    out->n_groups = out->groups->n_staged / (GROUP * WORD);
    out->n_sequences = out->sequences->n_staged / (SEQUENCE * WORD);
    out->n_data = out->data->n_staged / (DATA * WORD);
    out->n_prompt_ids = out->prompts->n_staged / sizeof(pgrad_token);
    if (out->whole->n_staged != WHOLE * WORD)
        return 0;
    out->n_components = word_of(out->whole, 2);
    return out->groups->n_staged % (GROUP * WORD) == 0 &&
           out->sequences->n_staged % (SEQUENCE * WORD) == 0 &&
           out->data->n_staged % (DATA * WORD) == 0 &&
           out->prompts->n_staged % sizeof(pgrad_token) == 0;
}

/* 1 when each array is as long as the counts say. */
static int sizes_are_good(const staged *s, const pgrad__state *state)
{
    const size_t values = s->n_sequences * s->rollout->params.max_new_tokens;
    const size_t components = (size_t)s->n_components;
    int good = word_of(s->whole, 0) <= PGRAD__REWARDS_SET && word_of(s->whole, 1) <= 1 &&
               s->n_components <= PGRAD__MAX_COMPONENTS;
    for (size_t i = 0; i < state->n_arrays; i++)
        if (&state->arrays[i] >= s->tokens && &state->arrays[i] < s->component_names)
            good &= state->arrays[i].n_staged == values * sizeof(float);
    return good && s->component_names->n_staged == components * PGRAD__REWARD_NAME &&
           s->component_scores->n_staged == components * s->rollout->max_sequences * sizeof(double);
}

static int ids_are_good(const pgrad_rollout *rollout, const pgrad_token *ids, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (ids[i] < 0 || (uint32_t)ids[i] >= rollout->model->config.n_vocab)
            return 0;
    return 1;
}

static int group_is_good(const staged *s, size_t i)
{
    const uint64_t *g = (const uint64_t *)s->groups->staged + i * GROUP;
    const uint64_t n_prompt = g[0], n_prefix = g[2], n_sequences = g[3], offset = g[4];
    const pgrad_rollout_params *params = &s->rollout->params;
    uint64_t members = 0;
    for (size_t k = 0; k < s->n_sequences; k++)
        members += word_of(s->sequences, k * SEQUENCE) == i;
    return n_prompt > 0 && n_prompt <= params->max_prompt_tokens &&
           n_prefix <= params->max_new_tokens && n_sequences <= params->group_size &&
           members == n_sequences && offset <= s->n_prompt_ids &&
           n_prompt + n_prefix <= s->n_prompt_ids - offset;
}

/* A text of `length` bytes with a NUL behind it. */
static int text_is_good(const pgrad__array *array, uint64_t offset, uint64_t length)
{
    const char *text = array->staged;
    return offset < array->n_staged && length < array->n_staged - offset &&
           text[offset + length] == '\0';
}

static int sequence_is_good(const staged *s, size_t i)
{
    const uint64_t *q = (const uint64_t *)s->sequences->staged + i * SEQUENCE;
    const pgrad_rollout *rollout = s->rollout;
    const size_t per = rollout->params.max_new_tokens;
    const double temperature = pgrad__real_of_bits(q[5]), reward = pgrad__real_of_bits(q[6]);
    if (q[0] >= s->n_groups || q[1] > PGRAD_FINISH_LENGTH || q[2] > per || q[3] > 1 ||
        !(temperature > 0.0) || !isfinite((float)(1.0 / temperature)) || isinf(reward) ||
        q[7] >> PGRAD__N_ARRAYS != 0)
        return 0;
    if (q[9] > 0 && !text_is_good(s->text, q[8], q[9]))
        return 0;
    const uint64_t n_prompt = word_of(s->groups, (size_t)q[0] * GROUP);
    const size_t n = (size_t)q[2];
    if (n > 0 && n_prompt + n - 1 > rollout->model->n_context)
        return 0;
    for (size_t which = 0; which < PGRAD__N_ARRAYS; which++) {
        const float *values = (const float *)s->tokens[1 + which].staged + i * per;
        for (size_t t = 0; (q[7] >> which & 1) != 0 && t < n; t++)
            if (isnan(values[t]))
                return 0;
    }
    return ids_are_good(rollout, (const pgrad_token *)s->tokens->staged + i * per, n);
}

static int data_is_good(const staged *s, size_t i)
{
    const uint64_t *d = (const uint64_t *)s->data->staged + i * DATA;
    return d[0] < s->n_groups && d[1] < s->data_text->n_staged &&
           memchr((const char *)s->data_text->staged + d[1], '\0',
                  s->data_text->n_staged - (size_t)d[1]) != NULL &&
           text_is_good(s->data_text, d[2], d[3]);
}

static int all_is_good(const staged *s, const pgrad__state *state)
{
    int good =
        sizes_are_good(s, state) && ids_are_good(s->rollout, s->prompts->staged, s->n_prompt_ids);
    for (size_t i = 0; good && i < s->n_groups; i++)
        good = group_is_good(s, i);
    for (size_t i = 0; good && i < s->n_sequences; i++)
        good = sequence_is_good(s, i);
    for (size_t i = 0; good && i < s->n_data; i++)
        good = data_is_good(s, i);
    for (size_t i = 0; good && i < s->n_components; i++)
        good = memchr((const char *)s->component_names->staged + i * PGRAD__REWARD_NAME, '\0',
                      PGRAD__REWARD_NAME) != NULL;
    return good;
}

static pgrad_status accept(void *handle, const pgrad__state *state)
{
    staged s;
    if (!find_staged(handle, state, &s) || !all_is_good(&s, state))
        return pgrad__fail(PGRAD_E_FORMAT,
                           "checkpoint: the parts of the rollout contradict one another, or this "
                           "model");
    return PGRAD_OK;
}

/* ---- unpacking ---- */

/* The handle's block becomes the staged one. */
static void *take(pgrad_context *context, void *old, const pgrad__array *array)
{
    pgrad__array *from = (pgrad__array *)(uintptr_t)array;
    void *block = from->staged;
    pgrad__free(context, old);
    from->staged = NULL;
    return block;
}

static void unpack_tables(pgrad_rollout *rollout, const staged *s)
{
    for (size_t i = 0; i < s->n_groups; i++) {
        const uint64_t *g = (const uint64_t *)s->groups->staged + i * GROUP;
        rollout->groups[i] = (pgrad__group){.n_prompt = (uint32_t)g[0],
                                            .tag = g[1],
                                            .n_prefix = (uint32_t)g[2],
                                            .n_sequences = (uint32_t)g[3],
                                            .prompt_offset = (size_t)g[4],
                                            .prefix_offset = (size_t)(g[4] + g[0])};
    }
    for (size_t i = 0; i < s->n_sequences; i++) {
        const uint64_t *q = (const uint64_t *)s->sequences->staged + i * SEQUENCE;
        rollout->sequences[i] = (pgrad__sequence){.group = (uint32_t)q[0],
                                                  .finish = (uint32_t)q[1],
                                                  .n_tokens = (uint32_t)q[2],
                                                  .sampled = (uint32_t)q[3],
                                                  .number = q[4],
                                                  .temperature = pgrad__real_of_bits(q[5]),
                                                  .reward = pgrad__real_of_bits(q[6]),
                                                  .filled = (uint32_t)q[7],
                                                  .text_offset = (size_t)q[8],
                                                  .text_length = (size_t)q[9]};
    }
    _Static_assert(sizeof(pgrad__data_item) <= DATA * WORD,
                   "unpacked in place, in front of itself");
    for (size_t i = 0; i < s->n_data; i++) {
        uint64_t d[DATA];
        memcpy(d, (const uint64_t *)s->data->staged + i * DATA, sizeof d);
        ((pgrad__data_item *)s->data->staged)[i] =
            (pgrad__data_item){(uint32_t)d[0], (size_t)d[1], (size_t)d[2], (size_t)d[3]};
    }
}

static void restored(void *handle, pgrad__state *state)
{
    pgrad_rollout *rollout = handle;
    pgrad_context *context = rollout->context;
    staged s;
    (void)find_staged(rollout, state, &s);
    pgrad__kept_forget(rollout, 0);
    unpack_tables(rollout, &s);
    rollout->n_groups = (uint32_t)s.n_groups;
    rollout->n_sequences = (uint32_t)s.n_sequences;
    memcpy(rollout->tokens, s.tokens->staged, s.tokens->n_staged);
    for (size_t i = 0; i < PGRAD__N_ARRAYS; i++)
        memcpy(rollout->arrays[i], s.tokens[1 + i].staged, s.tokens[1 + i].n_staged);
    memcpy(rollout->component_names, s.component_names->staged, s.component_names->n_staged);
    memcpy(rollout->component_scores, s.component_scores->staged, s.component_scores->n_staged);
    rollout->has_rewards = (int)word_of(s.whole, 0);
    rollout->has_token_rewards = (int)word_of(s.whole, 1);
    rollout->n_components = (uint32_t)s.n_components;
    rollout->n_prompt_ids = rollout->prompt_capacity = s.n_prompt_ids;
    rollout->text_length = rollout->text_capacity = s.text->n_staged;
    rollout->data_length = rollout->data_text_capacity = s.data_text->n_staged;
    rollout->n_data = rollout->data_capacity = s.n_data;
    rollout->prompts = take(context, rollout->prompts, s.prompts);
    rollout->text = take(context, rollout->text, s.text);
    rollout->data_text = take(context, rollout->data_text, s.data_text);
    rollout->data = take(context, rollout->data, s.data);
}

const pgrad__kind pgrad__kind_rollout = {.number = PGRAD_KIND_ROLLOUT,
                                         .name = "rollout",
                                         .context = rollout_context,
                                         .retain = rollout_retain,
                                         .release = rollout_release,
                                         .describe = describe,
                                         .accept = accept,
                                         .restored = restored};
