/* Which rows of a rollout's activation store are whose. What is stored there is the model's. */
#include "base/fail.h"
#include "rl/rollout.h"

#define AUTO_BYTES ((uint64_t)2 << 30) /* at most, where it is not asked for */

/* Rows of each group, and behind them of each sequence. */
static size_t rows_of_group(const pgrad_rollout *rollout)
{
    return (size_t)rollout->params.max_prompt_tokens + rollout->params.max_new_tokens;
}

static size_t n_rows(const pgrad_rollout *rollout)
{
    return rollout->params.max_prompts * rows_of_group(rollout) +
           (size_t)rollout->max_sequences * rollout->params.max_new_tokens;
}

size_t pgrad__kept_rows(const pgrad_rollout *rollout, size_t n_prompt, size_t n_tokens)
{
    return rollout->params.max_prompts * n_prompt + rollout->max_sequences * (n_tokens - 1);
}

/* Without a word of the host's: where it is not too much, and nobody has to save. */
static int is_modest(const pgrad_rollout *rollout)
{
    const pgrad_rollout_params *params = &rollout->params;
    uint64_t bytes;
    const size_t n = pgrad__kept_rows(rollout, params->max_prompt_tokens, params->max_new_tokens);
    return rollout->context->memory_limit == 0 && params->prefix_cache_tokens == 0 &&
           pgrad__activation_store_bytes(rollout->model, n, &bytes) && bytes <= AUTO_BYTES;
}

pgrad_status pgrad__kept_plan(pgrad_rollout *rollout)
{
    pgrad_rollout_params *params = &rollout->params;
    const int narrow = params->kv_storage != PGRAD_KV_F32;
    if (params->keep_activations == PGRAD_KEEP_ON && narrow)
        return pgrad__fail(
            PGRAD_E_INVALID,
            "rollout.keep_activations: ON needs kv_storage f32: with narrow keys and "
            "values the bits are not those of training");
    if (params->keep_activations == PGRAD_KEEP_AUTO && (narrow || !is_modest(rollout)))
        params->keep_activations = PGRAD_KEEP_OFF;
    rollout->activations.n_rows = params->keep_activations == PGRAD_KEEP_OFF ? 0 : n_rows(rollout);
    return PGRAD_OK;
}

size_t pgrad__kept_group_row(const pgrad_rollout *rollout, uint32_t group, size_t p)
{
    return group * rows_of_group(rollout) + p;
}

size_t pgrad__kept_row(const pgrad_rollout *rollout, uint32_t i, size_t p)
{
    const uint32_t group = rollout->sequences[i].group;
    const pgrad__group *of = &rollout->groups[group];
    if (p < (size_t)of->n_prompt + of->n_prefix)
        return pgrad__kept_group_row(rollout, group, p);
    return rollout->params.max_prompts * rows_of_group(rollout) +
           (size_t)i * rollout->params.max_new_tokens + (p - of->n_prompt);
}

void pgrad__kept_borrow(pgrad_rollout *rollout, uint32_t group, uint32_t from, size_t first,
                        size_t n)
{
    for (size_t p = first; p < first + n; p++)
        pgrad__activation_store_borrow(&rollout->activations,
                                       pgrad__kept_group_row(rollout, group, p),
                                       pgrad__kept_row(rollout, from, p));
}

void pgrad__kept_forget(pgrad_rollout *rollout, uint32_t first)
{
    pgrad__activation_store *store = &rollout->activations;
    const size_t of_group = rows_of_group(rollout), of_sequence = rollout->params.max_new_tokens;
    if (store->n_rows == 0)
        return;
    for (uint32_t i = first; i < rollout->n_sequences; i++) {
        const uint32_t group = rollout->sequences[i].group;
        if (i == first || group != rollout->sequences[i - 1].group)
            pgrad__activation_store_give_back(store, group * of_group, of_group);
        pgrad__activation_store_give_back(
            store, rollout->params.max_prompts * of_group + i * of_sequence, of_sequence);
    }
}

int pgrad__kept_are_of(const pgrad_rollout *rollout, const pgrad_model *model)
{
    return rollout->activations.n_rows > 0 && rollout->model == model &&
           rollout->activations.weight_version == model->weight_version;
}
