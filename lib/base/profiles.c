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

/* TRL 1.10's GRPOConfig, and what it inherits from transformers' TrainingArguments. */
static const row TRL_1_10[] = {
    {"sampler", "temperature", "1"},
    {"sampler", "top_p", "1"},
    {"sampler", "top_k", "0"},
    {"sampler", "min_p", "0"},
    {"sampler", "repetition_penalty", "1"},
    {"rollout", "group_size", "8"},
    {"rollout", "max_new_tokens", "512"},
    {"advantage", "estimator", "grpo"},
    {"advantage", "epsilon", "1e-4"},
    {"advantage", "kl_beta", "0"},
    {"objective", "loss", "ppo_clip"},
    {"objective", "aggregation", "token_mean"}, /* loss_type dapo */
    {"objective", "clip_low", "0.2"},
    {"objective", "clip_high", "0.2"},
    {"objective", "kl", "k3_ratio"}, /* use_bias_correction_kl */
    {"objective", "kl_beta", "0"},
    {"objective", "entropy_coefficient", "0"},
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
    {"train", "prompts_per_step", "1"}, /* 8 completions a device, of one prompt */
    {"train", "group_size", "8"},
    {"train", "max_new_tokens", "512"},
    {"train", "epochs_per_step", "1"}, /* num_iterations */
    {"train", "learning_rate", "1e-6"},
};

static const struct profile {
    const char *name;
    const row *rows;
    size_t n_rows;
} PROFILES[] = {{"trl-1.10", TRL_1_10, sizeof TRL_1_10 / sizeof TRL_1_10[0]}};
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

pgrad_status pgrad_params_profile(const char *params_name, void *params, const char *profile)
{
    const struct profile *found = NULL;
    if (pgrad__params_find(params_name) == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "no option struct is called '%.64s'",
                           params_name == NULL ? "(NULL)" : params_name);
    for (size_t i = 0; profile != NULL && i < N_PROFILES; i++)
        if (strcmp(PROFILES[i].name, profile) == 0)
            found = &PROFILES[i];
    if (found == NULL)
        return no_profile(profile);
    if (params == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "params_profile: params is NULL");
    for (size_t i = 0; i < found->n_rows; i++)
        if (strcmp(found->rows[i].params, params_name) == 0)
            PGRAD__TRY(
                pgrad_params_set(params_name, params, found->rows[i].field, found->rows[i].value));
    return PGRAD_OK;
}
