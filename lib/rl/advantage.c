#include "rl/advantage.h"

#include <math.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "base/real.h"
#include "rl/rollout.h"

pgrad_status pgrad_advantage_create(pgrad_context *context, const pgrad_advantage_params *params,
                                    pgrad_advantage **out)
{
    pgrad__scope scope;
    pgrad_advantage_params read;
    pgrad_advantage *advantage = NULL;
    if (out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "advantage_create: out is NULL");
    PGRAD__TRY(pgrad__enter(context, &scope));
    pgrad_status status = pgrad__params_read("advantage", params, &read);
    if (status == PGRAD_OK)
        status = pgrad__calloc(context, 1, sizeof *advantage, &advantage);
    if (status == PGRAD_OK) {
        pgrad__context_retain(context);
        advantage->context = context;
        atomic_init(&advantage->references, 1);
        advantage->params = read;
        *out = advantage;
    }
    pgrad__leave(&scope);
    return status;
}

void pgrad_advantage_free(pgrad_advantage *advantage)
{
    if (advantage == NULL || atomic_fetch_sub(&advantage->references, 1) != 1)
        return;
    pgrad_context *context = advantage->context;
    pgrad__free(context, advantage->scratch);
    pgrad__free(context, advantage);
    pgrad_context_free(context);
}

int pgrad__zero_spread(const double *reward, uint32_t n)
{
    double low = INFINITY, high = -INFINITY;
    for (uint32_t i = 0; i < n; i++) {
        if (isnan(reward[i]))
            continue;
        low = fmin(low, reward[i]);
        high = fmax(high, reward[i]);
    }
    return !(high - low > 1e-8 * fmax(1.0, fmax(fabs(low), fabs(high))));
}

static double mean_of(const double *reward, uint32_t n, uint32_t *n_valid)
{
    double sum = 0.0;
    uint32_t valid = 0;
    for (uint32_t i = 0; i < n; i++) {
        if (isnan(reward[i]))
            continue;
        sum += reward[i];
        valid++;
    }
    *n_valid = valid;
    return valid == 0 ? NAN : sum / valid;
}

void pgrad__advantage_group(uint32_t estimator, double epsilon, const double *reward, uint32_t n,
                            double *advantage)
{
    uint32_t valid;
    double mean = mean_of(reward, n, &valid);
    for (uint32_t i = 0; i < n; i++)
        advantage[i] = 0.0;
    if (valid < 2 || pgrad__zero_spread(reward, n))
        return;

    double factor = 1.0;
    if (estimator == PGRAD_ADVANTAGE_RLOO) {
        factor = (double)valid / (valid - 1.0);
    } else if (estimator == PGRAD_ADVANTAGE_GRPO) {
        double squares = 0.0;
        for (uint32_t i = 0; i < n; i++)
            if (!isnan(reward[i]))
                squares += (reward[i] - mean) * (reward[i] - mean);
        factor = 1.0 / (sqrt(squares / (valid - 1.0)) + epsilon);
    }
    for (uint32_t i = 0; i < n; i++)
        if (!isnan(reward[i]))
            advantage[i] = (reward[i] - mean) * factor;
}

static int is_group_estimator(uint32_t estimator)
{
    return estimator == PGRAD_ADVANTAGE_RLOO || estimator == PGRAD_ADVANTAGE_GRPO ||
           estimator == PGRAD_ADVANTAGE_DR_GRPO;
}

/* d_t = old - reference of a learned token, the k1 estimator. */
static double k1_of(const pgrad_rollout *rollout, uint32_t i, uint32_t t, const float *old)
{
    if (!pgrad__is_learned(rollout, i, t))
        return 0.0;
    return (double)old[t] - (double)pgrad__rollout_values(rollout, PGRAD_REFERENCE, i)[t];
}

/* R_i of every sequence into reward[], NaN where none: weighted score less beta sum_t k1. */
static pgrad_status gather_rewards(const pgrad_advantage *advantage, const pgrad_rollout *rollout,
                                   double *reward)
{
    const double beta = advantage->params.kl_beta;
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        const pgrad__sequence *sequence = &rollout->sequences[i];
        reward[i] = pgrad__sequence_counts(sequence) ? sequence->reward : NAN;
        if (rollout->has_rewards == PGRAD__REWARDS_SET && isnan(reward[i]) &&
            pgrad__sequence_counts(sequence))
            return pgrad__fail(
                PGRAD_E_STATE,
                "advantage_apply: sequence %u has no reward: pgrad_rollout_set_array "
                "gave one to others",
                i);
        if (beta == 0.0 || isnan(reward[i]))
            continue;
        if (!pgrad__sequence_has(sequence, PGRAD_REFERENCE))
            return pgrad__fail(PGRAD_E_STATE,
                               "advantage.kl_beta is %g, but sequence %u has no REFERENCE: call "
                               "pgrad_rollout_score first",
                               beta, i);
        const float *old = pgrad_rollout_array(rollout, PGRAD_OLD, i, NULL);
        if (old == NULL)
            return pgrad__fail(PGRAD_E_STATE, "sequence %u has neither OLD nor LOGPROBS", i);
        for (uint32_t t = 0; t < sequence->n_tokens; t++)
            reward[i] -= beta * k1_of(rollout, i, t, old);
    }
    return PGRAD_OK;
}

/* The baseline of the estimators that use the whole batch. */
static void batch_baselines(const pgrad_advantage *advantage, const double *reward, uint32_t n,
                            double *baseline)
{
    uint32_t valid;
    double mean = mean_of(reward, n, &valid);
    const pgrad__ema *ema = &advantage->ema;
    for (uint32_t i = 0; i < n; i++) {
        baseline[i] = 0.0;
        if (advantage->params.estimator == PGRAD_ADVANTAGE_BATCH_MEAN)
            baseline[i] = mean;
        else if (advantage->params.estimator == PGRAD_ADVANTAGE_EMA && ema->k > 0)
            baseline[i] = ema->b / (1.0 - pgrad__pow(advantage->params.ema_decay, (double)ema->k));
        else if (advantage->params.estimator == PGRAD_ADVANTAGE_EMA && valid > 1)
            baseline[i] = (mean * valid - reward[i]) / (valid - 1.0); /* the others: unbiased */
    }
}

static void spread_over_tokens(pgrad_rollout *rollout, uint32_t i, double value)
{
    float *out = pgrad__rollout_values(rollout, PGRAD_ADVANTAGES, i);
    for (uint32_t t = 0; t < rollout->sequences[i].n_tokens; t++)
        out[t] = (float)value;
    rollout->sequences[i].filled |= 1u << PGRAD_ADVANTAGES;
}

/* A_t = sum_{s >= t} (r_s - beta k1_s) - baseline. */
static void reward_to_go(pgrad_rollout *rollout, uint32_t i, double beta, double baseline)
{
    const float *r = pgrad__rollout_values(rollout, PGRAD_REWARDS, i);
    const float *old = beta == 0.0 ? NULL : pgrad_rollout_array(rollout, PGRAD_OLD, i, NULL);
    float *out = pgrad__rollout_values(rollout, PGRAD_ADVANTAGES, i);
    double sum = 0.0;
    for (uint32_t t = rollout->sequences[i].n_tokens; t-- > 0;) {
        sum += (double)r[t];
        if (old != NULL)
            sum -= beta * k1_of(rollout, i, t, old);
        out[t] = (float)(sum - baseline);
    }
    rollout->sequences[i].filled |= 1u << PGRAD_ADVANTAGES;
}

static void apply_batch(pgrad_advantage *advantage, pgrad_rollout *rollout, const double *reward,
                        double *baseline)
{
    uint32_t n = rollout->n_sequences;
    batch_baselines(advantage, reward, n, baseline);
    for (uint32_t i = 0; i < n; i++) {
        if (isnan(reward[i]))
            spread_over_tokens(rollout, i, 0.0);
        else if (rollout->has_token_rewards)
            reward_to_go(rollout, i, advantage->params.kl_beta, baseline[i]);
        else
            spread_over_tokens(rollout, i, reward[i] - baseline[i]);
    }
    if (advantage->params.estimator == PGRAD_ADVANTAGE_EMA) {
        uint32_t valid;
        double mean = mean_of(reward, n, &valid);
        double q = advantage->params.ema_decay;
        if (valid > 0) {
            advantage->ema.b = q * advantage->ema.b + (1.0 - q) * mean;
            advantage->ema.k++;
        }
    }
}

/* Members of a group need not be neighbours: gather, estimate, spread. */
static void apply_groups(const pgrad_advantage *advantage, pgrad_rollout *rollout,
                         const double *reward, double *scratch)
{
    uint32_t n = rollout->n_sequences;
    double *of_group = scratch, *result = scratch + n;
    for (uint32_t group = 0; group < rollout->n_groups; group++) {
        uint32_t members = 0;
        for (uint32_t i = 0; i < n; i++)
            if (rollout->sequences[i].group == group)
                of_group[members++] = reward[i];
        pgrad__advantage_group(advantage->params.estimator, advantage->params.epsilon, of_group,
                               members, result);
        members = 0;
        for (uint32_t i = 0; i < n; i++)
            if (rollout->sequences[i].group == group)
                spread_over_tokens(rollout, i, result[members++]);
    }
}

pgrad_status pgrad__advantage_check(const pgrad_advantage *advantage, uint32_t group_size)
{
    if (is_group_estimator(advantage->params.estimator) && group_size < 2)
        return pgrad__fail(PGRAD_E_INVALID,
                           "advantage.estimator: a group estimator needs groups of at least 2, "
                           "the rollout's group_size is %u",
                           group_size);
    return PGRAD_OK;
}

static pgrad_status apply(pgrad_advantage *advantage, pgrad_rollout *rollout)
{
    const uint32_t estimator = advantage->params.estimator;
    if (!rollout->has_rewards)
        return pgrad__fail(PGRAD_E_STATE, "advantage_apply: the rollout has no rewards yet");
    PGRAD__TRY(pgrad__advantage_check(advantage, rollout->params.group_size));
    size_t needed = (size_t)rollout->max_sequences * 3;
    if (advantage->scratch_count < needed) {
        PGRAD__TRY(pgrad__realloc(advantage->context, &advantage->scratch, needed, sizeof(double)));
        advantage->scratch_count = needed;
    }
    double *reward = advantage->scratch;
    PGRAD__TRY(gather_rewards(advantage, rollout, reward));
    if (is_group_estimator(estimator))
        apply_groups(advantage, rollout, reward, reward + rollout->n_sequences);
    else
        apply_batch(advantage, rollout, reward, reward + rollout->n_sequences);
    return PGRAD_OK;
}

pgrad_status pgrad_advantage_apply(pgrad_advantage *advantage, pgrad_rollout *rollout)
{
    pgrad__scope scope;
    if (advantage == NULL || rollout == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "advantage_apply: %s is NULL",
                           advantage == NULL ? "advantage" : "rollout");
    PGRAD__TRY(pgrad__enter(rollout->context, &scope));
    pgrad_status status = apply(advantage, rollout);
    pgrad__leave(&scope);
    return status;
}
