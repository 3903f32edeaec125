/* Named, frozen sets of options: what a profile sets, it sets in every version of the library. A
 * change upstream is a new profile. */
#include <policygrad.h>

#include <string.h>

#include "base/fail.h"
#include "base/params_check.h"
#include "base/sink.h"

typedef struct row {
    const char *params, *field, *value;
} row;

/* TRL 1.10: what its trainers inherit from transformers' TrainingArguments. */
static const row TRL_1_10_BASE[] = {
    {"optimizer", "kind", "adamw"},
    {"optimizer", "learning_rate", "1e-6"},
    {"optimizer", "beta1", "0.9"},
    {"optimizer", "beta2", "0.999"},
    {"optimizer", "epsilon", "1e-8"},
    {"optimizer", "weight_decay", "0"},
    {"optimizer", "max_grad_norm", "1"},
    {"optimizer", "schedule", "linear"},
    {"optimizer", "warmup_steps", "0"},
    {"optimizer", "final_factor", "0"},
    {"objective", "aggregation", "token_mean"},
    {"objective", "kl_beta", "0"},
    {"objective", "entropy_coefficient", "0"},
};

/* What those that sample have in common. */
static const row TRL_1_10_ONLINE[] = {
    {"sampler", "temperature", "1"},
    {"sampler", "top_p", "1"},
    {"sampler", "top_k", "0"},
    {"sampler", "min_p", "0"},
    {"sampler", "repetition_penalty", "1"},
    {"rollout", "group_size", "8"},
    {"rollout", "max_new_tokens", "512"},
    {"advantage", "kl_beta", "0"},
    {"objective", "loss", "ppo_clip"},
    {"objective", "clip_low", "0.2"},
    {"objective", "clip_high", "0.2"},
    {"train", "prompts_per_step", "1"}, /* 8 completions a device, of one prompt */
    {"train", "group_size", "8"},
    {"train", "max_new_tokens", "512"},
    {"train", "epochs_per_step", "1"}, /* num_iterations */
    {"train", "learning_rate", "1e-6"},
};

/* GRPOConfig; its loss_type is dapo. */
static const row TRL_1_10_GRPO[] = {
    {"advantage", "estimator", "grpo"},
    {"advantage", "epsilon", "1e-4"},
    {"objective", "kl", "k3_ratio"}, /* use_bias_correction_kl */
};

/* RLOOConfig: KL in the reward, sums over a sequence. */
static const row TRL_1_10_RLOO[] = {
    {"advantage", "estimator", "rloo"},
    {"advantage", "kl_beta", "0.05"},
    {"objective", "aggregation", "sequence_mean_token_sum"},
    {"rollout", "group_size", "2"},
    {"train", "group_size", "2"},
    {"train", "prompts_per_step", "4"},
};

/* SFTConfig. */
static const row TRL_1_10_SFT[] = {
    {"objective", "loss", "supervised"},
    {"optimizer", "learning_rate", "2e-5"},
};

/* Parts in their order: a later one wins. */
enum { MAX_PARTS = 3 };
#define PART(rows)                                                                                 \
    {                                                                                              \
        rows, sizeof(rows) / sizeof((rows)[0])                                                     \
    }
static const struct profile {
    const char *name;
    struct {
        const row *rows;
        size_t n_rows;
    } parts[MAX_PARTS];
} PROFILES[] = {
    {"trl-1.10", {PART(TRL_1_10_BASE), PART(TRL_1_10_ONLINE), PART(TRL_1_10_GRPO)}},
    {"trl-1.10-rloo", {PART(TRL_1_10_BASE), PART(TRL_1_10_ONLINE), PART(TRL_1_10_RLOO)}},
    {"trl-1.10-sft", {PART(TRL_1_10_BASE), PART(TRL_1_10_SFT)}},
};
enum { N_PROFILES = sizeof PROFILES / sizeof PROFILES[0] };

static pgrad_status no_profile(const char *name)
{
    char known[160] = "";
    pgrad__sink list = {.text = known, .capacity = sizeof known};
    for (size_t i = 0; i < N_PROFILES; i++) {
        pgrad__sink_put(&list, i == 0 ? "" : ", ");
        pgrad__sink_put(&list, PROFILES[i].name);
    }
    return pgrad__fail(PGRAD_E_INVALID, "params_profile: expected one of %s, found '%.64s'", known,
                       name == NULL ? "(NULL)" : name);
}

static pgrad_status set_rows(const struct profile *profile, const char *params_name, void *params)
{
    for (size_t part = 0; part < MAX_PARTS; part++)
        for (size_t i = 0; i < profile->parts[part].n_rows; i++) {
            const row *r = &profile->parts[part].rows[i];
            if (strcmp(r->params, params_name) == 0)
                PGRAD__TRY(pgrad_params_set(params_name, params, r->field, r->value));
        }
    return PGRAD_OK;
}

pgrad_status pgrad_params_profile(const char *params_name, void *params, const char *profile)
{
    _Alignas(16) unsigned char copy[PGRAD__PARAMS_MAX]; /* all or nothing */
    const pgrad__params_table *table = NULL;
    const struct profile *found = NULL;
    size_t size;
    PGRAD__TRY(pgrad__options_find(params_name, &table));
    for (size_t i = 0; profile != NULL && i < N_PROFILES; i++)
        if (strcmp(PROFILES[i].name, profile) == 0)
            found = &PROFILES[i];
    if (found == NULL)
        return no_profile(profile);
    if (params == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "params_profile: params is NULL");
    memcpy(&size, params, sizeof size);
    size = size < table->size ? size : table->size;
    memcpy(copy, params, size < sizeof size ? sizeof size : size);
    PGRAD__TRY(set_rows(found, params_name, copy));
    memcpy(params, copy, size);
    return PGRAD_OK;
}
