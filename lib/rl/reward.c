#include "rl/reward.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "base/utf8.h"

/* ---- room for scores ---- */

pgrad__score_scratch *pgrad__score_scratch_lay_out(size_t max_sequences, pgrad__arena *arena)
{
    const pgrad__score_scratch made = {
        .data = pgrad__arena_take(arena, max_sequences, sizeof(float)),
        .sum = pgrad__arena_take(arena, max_sequences, sizeof(double)),
        .whole = pgrad__arena_take(arena, max_sequences, sizeof(double)),
        .kind = pgrad__arena_take(arena, max_sequences, 1)};
    pgrad__score_scratch *scratch = pgrad__arena_take(arena, 1, sizeof *scratch);
    if (scratch != NULL)
        *scratch = made;
    return scratch;
}

/* ---- what callbacks call ---- */

float *pgrad_scores_data(pgrad_scores *scores)
{
    return scores == NULL ? NULL : scores->scratch->data;
}

pgrad_status pgrad_scores_set_tokens(pgrad_scores *scores, uint32_t i, const float *values,
                                     size_t n)
{
    if (scores == NULL || values == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "scores_set_tokens: %s is NULL",
                           scores == NULL ? "scores" : "values");
    if (i >= scores->count)
        return pgrad__fail(PGRAD_E_INVALID, "scores_set_tokens: index: expected below %u, found %u",
                           scores->count, i);
    const pgrad_rollout *rollout = scores->rollout;
    pgrad__score_scratch *scratch = scores->scratch;
    const uint32_t n_tokens = rollout->sequences[scores->first + i].n_tokens;
    if (n != n_tokens)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "scores_set_tokens: sequence %u has %u tokens, found %zu values",
                           scores->first + i, n_tokens, n);
    double sum = 0.0;
    for (size_t t = 0; t < n; t++) {
        if (!isfinite(values[t]))
            return pgrad__fail(PGRAD_E_NUMERIC,
                               "scores_set_tokens: sequence %u, token %zu: score %g",
                               scores->first + i, t, (double)values[t]);
        sum += (double)values[t];
    }
    const size_t stride = rollout->params.max_new_tokens;
    if (scratch->tokens == NULL) {
        pgrad_status status = pgrad__alloc(rollout->context, rollout->max_sequences * stride,
                                           sizeof(float), &scratch->tokens);
        if (status != PGRAD_OK)
            return scores->status = status; /* stays, whatever later calls do */
    }
    memcpy(scratch->tokens + i * stride, values, n * sizeof *values);
    scratch->kind[i] = PGRAD__SCORE_TOKENS;
    scratch->sum[i] = sum;
    return PGRAD_OK;
}

void pgrad_scores_skip(pgrad_scores *scores, uint32_t i)
{
    if (scores != NULL && i < scores->count)
        scores->scratch->kind[i] = PGRAD__SCORE_SKIPPED;
}

void pgrad_scores_fail(pgrad_scores *scores, uint32_t sequence, const char *text)
{
    if (scores == NULL || text == NULL)
        return;
    size_t length = strlen(text);
    if (length >= sizeof scores->failure)
        length = sizeof scores->failure - 1;
    memcpy(scores->failure, text, length);
    scores->failure[length] = '\0';
    scores->failed_sequence = sequence;
}

/* ---- life ---- */

pgrad_status pgrad_reward_create(pgrad_context *context, const char *name, pgrad_reward_fn fn,
                                 void *user, void (*destroy)(void *), pgrad_reward **out)
{
    pgrad__scope scope;
    pgrad_reward *reward;
    if (name == NULL || fn == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "reward_create: %s is NULL",
                           name == NULL ? "name"
                           : fn == NULL ? "fn"
                                        : "out");
    size_t length = strlen(name);
    if (length == 0 || length >= PGRAD__REWARD_NAME)
        return pgrad__fail(PGRAD_E_INVALID,
                           "reward_create: name: expected 1 to %d bytes, found %zu",
                           PGRAD__REWARD_NAME - 1, length);
    if (!pgrad__utf8_is_name(name, length))
        return pgrad__fail(PGRAD_E_INVALID,
                           "reward_create: name: expected UTF-8 without control characters, "
                           "found '%s'",
                           name);
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = pgrad__calloc(context, 1, sizeof *reward, &reward);
    if (status == PGRAD_OK) {
        pgrad__context_retain(context);
        reward->context = context;
        atomic_init(&reward->references, 1);
        memcpy(reward->name, name, length);
        reward->fn = fn;
        reward->user = user;
        reward->destroy = destroy;
        *out = reward;
    }
    pgrad__leave(&scope);
    return status;
}

/* Flattens: a sum of sums is one sum of plain rewards. */
static pgrad_status add_component(pgrad_reward *sum, pgrad_reward *reward, double weight)
{
    if (reward->fn == NULL) {
        for (uint32_t i = 0; i < reward->n_components; i++)
            PGRAD__TRY(add_component(sum, reward->components[i].reward,
                                     weight * reward->components[i].weight));
        return PGRAD_OK;
    }
    for (uint32_t i = 0; i < sum->n_components; i++)
        if (strcmp(sum->components[i].reward->name, reward->name) == 0)
            return pgrad__fail(PGRAD_E_INVALID, "reward_combine: two rewards are named '%s'",
                               reward->name);
    if (sum->n_components == PGRAD__MAX_COMPONENTS)
        return pgrad__fail(PGRAD_E_LIMIT, "reward_combine: at most %d plain rewards",
                           PGRAD__MAX_COMPONENTS);
    atomic_fetch_add(&reward->references, 1);
    sum->components[sum->n_components++] = (pgrad__component){reward, weight};
    return PGRAD_OK;
}

static pgrad_status combine(pgrad_reward *sum, pgrad_reward *const *rewards, const double *weights,
                            uint32_t n)
{
    for (uint32_t i = 0; i < n; i++) {
        if (rewards[i] == NULL || rewards[i]->context != sum->context)
            return pgrad__fail(PGRAD_E_INVALID,
                               "reward_combine: rewards[%u] is NULL, or of another context", i);
        if (!isfinite(weights[i]))
            return pgrad__fail(PGRAD_E_INVALID,
                               "reward_combine: weights[%u]: expected a finite number, "
                               "found %g",
                               i, weights[i]);
        PGRAD__TRY(add_component(sum, rewards[i], weights[i]));
    }
    return PGRAD_OK;
}

pgrad_status pgrad_reward_combine(pgrad_context *context, pgrad_reward *const *rewards,
                                  const double *weights, uint32_t n, pgrad_reward **out)
{
    pgrad__scope scope;
    pgrad_reward *sum;
    if (rewards == NULL || weights == NULL || out == NULL || n == 0)
        return pgrad__fail(PGRAD_E_INVALID, "reward_combine: an argument is NULL, or n is 0");
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = pgrad__calloc(context, 1, sizeof *sum, &sum);
    if (status == PGRAD_OK) {
        pgrad__context_retain(context);
        sum->context = context;
        atomic_init(&sum->references, 1);
        status = combine(sum, rewards, weights, n);
        if (status == PGRAD_OK)
            *out = sum;
        else
            pgrad_reward_free(sum);
    }
    pgrad__leave(&scope);
    return status;
}

void pgrad_reward_free(pgrad_reward *reward)
{
    if (reward == NULL || atomic_fetch_sub(&reward->references, 1) != 1)
        return;
    pgrad_context *context = reward->context;
    for (uint32_t i = 0; i < reward->n_components; i++)
        pgrad_reward_free(reward->components[i].reward);
    if (reward->destroy != NULL)
        reward->destroy(reward->user);
    pgrad__free(context, reward);
    pgrad_context_free(context);
}

/* ---- applying ---- */

static pgrad_status callback_failed(const pgrad_reward *reward, const pgrad_scores *scores,
                                    int32_t result)
{
    if (scores->status != PGRAD_OK && scores->failed_sequence != UINT32_MAX)
        return pgrad__fail_in(scores->status, "reward '%s', sequence %u: ", reward->name,
                              scores->failed_sequence);
    if (scores->status != PGRAD_OK)
        return pgrad__fail_in(scores->status, "reward '%s': ", reward->name);
    if (scores->failure[0] == '\0')
        return pgrad__fail(
            PGRAD_E_CALLBACK,
            "reward '%s', sequences %u to %u: the function returned %d, %u means success",
            reward->name, scores->first, scores->first + scores->count - 1, result, scores->count);
    if (scores->failed_sequence - scores->first >= scores->count) /* none of those it was given */
        return pgrad__fail(PGRAD_E_CALLBACK, "reward '%s', sequences %u to %u: %s", reward->name,
                           scores->first, scores->first + scores->count - 1, scores->failure);
    return pgrad__fail(PGRAD_E_CALLBACK, "reward '%s', sequence %u: %s", reward->name,
                       scores->failed_sequence, scores->failure);
}

static pgrad_status check_scores(const pgrad_reward *reward, const pgrad_scores *scores)
{
    for (uint32_t i = 0; i < scores->count; i++) {
        float value = scores->scratch->data[i];
        if (scores->scratch->kind[i] != PGRAD__SCORE_PLAIN || isfinite(value))
            continue;
        return pgrad__fail(PGRAD_E_NUMERIC, "reward '%s', sequence %u: the score is %s",
                           reward->name, scores->first + i,
                           isnan(value) ? "NaN: not set, or set to it (pgrad_scores_skip: not "
                                          "applicable)"
                                        : "infinite");
    }
    return PGRAD_OK;
}

/* Adds weight times a component's scores of a run of sequences: R_i to the sequence, token scores
 * to the tokens. What was given for the sequence comes to its last token in spread_rewards. */
static pgrad_status add_scores(pgrad_rollout *rollout, const pgrad_scores *scores,
                               const pgrad__component *part, uint32_t component)
{
    const pgrad__score_scratch *scratch = scores->scratch;
    for (uint32_t i = 0; i < scores->count; i++) {
        const uint32_t s = scores->first + i;
        pgrad__sequence *sequence = &rollout->sequences[s];
        double *score = &rollout->component_scores[(size_t)component * rollout->max_sequences + s];
        if (scratch->kind[i] == PGRAD__SCORE_SKIPPED)
            continue;
        *score =
            scratch->kind[i] == PGRAD__SCORE_TOKENS ? scratch->sum[i] : (double)scratch->data[i];
        if (!isfinite(part->weight * *score))
            return pgrad__fail(PGRAD_E_NUMERIC, "reward '%s', sequence %u: %g times its weight %g",
                               part->reward->name, s, *score, part->weight);
        sequence->reward =
            (isnan(sequence->reward) ? 0.0 : sequence->reward) + part->weight * *score;
        if (scratch->kind[i] != PGRAD__SCORE_TOKENS) {
            scratch->whole[s] += part->weight * *score;
            continue;
        }
        const float *tokens = scratch->tokens + (size_t)i * rollout->params.max_new_tokens;
        float *rewards = pgrad__rollout_values(rollout, PGRAD_REWARDS, s);
        rollout->has_token_rewards = 1;
        for (uint32_t t = 0; t < sequence->n_tokens; t++)
            rewards[t] = (float)((double)rewards[t] + part->weight * (double)tokens[t]);
    }
    return PGRAD_OK;
}

/* What was given for a sequence stands on its last token. */
static pgrad_status spread_rewards(pgrad_rollout *rollout)
{
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        pgrad__sequence *sequence = &rollout->sequences[i];
        if (!pgrad__sequence_counts(sequence) || isnan(sequence->reward))
            continue;
        float *rewards = pgrad__rollout_values(rollout, PGRAD_REWARDS, i);
        float *last = &rewards[sequence->n_tokens - 1];
        *last = (float)((double)*last + rollout->score_scratch->whole[i]);
        for (uint32_t t = 0; t < sequence->n_tokens; t++)
            if (!isfinite(rewards[t]))
                return pgrad__fail(PGRAD_E_NUMERIC,
                                   "sequence %u: its weighted rewards add up to %g", i,
                                   sequence->reward);
        sequence->filled |= 1u << PGRAD_REWARDS;
    }
    return PGRAD_OK;
}

static pgrad_status call(const pgrad__component *part, pgrad_rollout *rollout, pgrad_scores *scores,
                         uint32_t component)
{
    pgrad_reward *reward = part->reward;
    for (uint32_t i = 0; i < scores->count; i++)
        scores->scratch->data[i] = NAN;
    memset(scores->scratch->kind, PGRAD__SCORE_PLAIN, scores->count);
    scores->failure[0] = '\0';
    scores->failed_sequence = UINT32_MAX;
    scores->status = PGRAD_OK;
    if (reward->busy)
        return pgrad__fail(PGRAD_E_BUSY, "reward '%s': its function is running", reward->name);
    rollout->generating = reward->busy = 1;
    int32_t result = reward->fn(reward->user, rollout, scores->first, scores->count, scores);
    rollout->generating = reward->busy = 0;
    (void)pgrad__os_float_begin(); /* the host may have left another rounding mode */
    if (result < 0 || (uint32_t)result != scores->count || scores->failure[0] != '\0' ||
        scores->status != PGRAD_OK)
        return callback_failed(reward, scores, result);
    PGRAD__TRY(check_scores(reward, scores));
    PGRAD__TRY(add_scores(rollout, scores, part, component));
    return pgrad__check_cancel(rollout->context);
}

static void clear_rewards(pgrad_rollout *rollout)
{
    pgrad__rollout_drop_rewards(rollout);
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        rollout->score_scratch->whole[i] = 0.0;
        rollout->sequences[i].filled &= ~(1u << PGRAD_ADVANTAGES);
        memset(pgrad__rollout_values(rollout, PGRAD_REWARDS, i), 0,
               rollout->sequences[i].n_tokens * sizeof(float));
    }
}

/* Runs of finished sequences: the others are never shown to a reward function. */
static int next_run(const pgrad_rollout *rollout, uint32_t *first, uint32_t *count)
{
    uint32_t i = *first + *count;
    while (i < rollout->n_sequences && !pgrad__sequence_counts(&rollout->sequences[i]))
        i++;
    *first = i;
    while (i < rollout->n_sequences && pgrad__sequence_counts(&rollout->sequences[i]))
        i++;
    *count = i - *first;
    return *count > 0;
}

static pgrad_status apply_component(const pgrad__component *part, pgrad_rollout *rollout,
                                    pgrad_scores *scores)
{
    const uint32_t component = rollout->n_components++;
    memcpy(rollout->component_names[component], part->reward->name, PGRAD__REWARD_NAME);
    for (uint32_t i = 0; i < rollout->n_sequences; i++)
        rollout->component_scores[(size_t)component * rollout->max_sequences + i] = NAN;
    scores->first = scores->count = 0;
    int any = 0;
    while (next_run(rollout, &scores->first, &scores->count)) {
        any = 1;
        PGRAD__TRY(call(part, rollout, scores, component));
    }
    if (!any)
        return pgrad__fail(PGRAD_E_STATE, "reward_apply: there are no finished completions");
    return PGRAD_OK;
}

static pgrad_status apply(pgrad_reward *reward, pgrad_rollout *rollout)
{
    pgrad_scores scores = {.rollout = rollout, .scratch = rollout->score_scratch};
    pgrad__component alone = {reward, 1.0};
    const pgrad__component *parts = reward->fn != NULL ? &alone : reward->components;
    const uint32_t n_parts = reward->fn != NULL ? 1 : reward->n_components;
    pgrad_status status = PGRAD_OK;
    clear_rewards(rollout);
    for (uint32_t i = 0; i < n_parts; i++)
        PGRAD__GO(apply_component(&parts[i], rollout, &scores));
    PGRAD__GO(spread_rewards(rollout));
    rollout->has_rewards = PGRAD__REWARDS_APPLIED;
    return PGRAD_OK;
fail:
    clear_rewards(rollout);
    return status;
}

/* The callback may drop the host's references. */
pgrad_status pgrad_reward_apply(pgrad_reward *reward, pgrad_rollout *rollout)
{
    pgrad__scope scope;
    if (reward == NULL || rollout == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "reward_apply: %s is NULL",
                           reward == NULL ? "reward" : "rollout");
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "reward_apply"));
    PGRAD__TRY(pgrad__enter(rollout->context, &scope));
    atomic_fetch_add(&reward->references, 1);
    (void)pgrad_rollout_retain(rollout);
    pgrad_status status = apply(reward, rollout);
    pgrad_rollout_free(rollout);
    pgrad_reward_free(reward);
    pgrad__leave(&scope);
    return status;
}
