/* The numbers of a rollout: rewards, lengths, reward components. */
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "rl/advantage.h"
#include "rl/loss.h"
#include "rl/metrics.h"
#include "rl/rollout.h"

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

/* Between neighbours in a sorted row, at p (n - 1). */
static double quantile(const double *sorted, size_t n, double p)
{
    double at = p * (double)(n - 1);
    size_t low = (size_t)at;
    double high = low + 1 < n ? sorted[low + 1] : sorted[low];
    return sorted[low] + (at - (double)low) * (high - sorted[low]);
}

/* mean and standard deviation (ddof 1; 0 for one value). */
static void moments(const double *x, size_t n, double *mean, double *std)
{
    double sum = 0.0, squares = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        squares += (x[i] - *mean) * (x[i] - *mean);
    *std = n > 1 ? sqrt(squares / (double)(n - 1)) : 0.0;
}

static void report_rewards(const pgrad_rollout *rollout, double *values, pgrad_step_report *part)
{
    size_t n = 0;
    double unscored = 0.0;
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        const pgrad__sequence *sequence = &rollout->sequences[i];
        if (!pgrad__sequence_counts(sequence))
            continue;
        if (isnan(sequence->reward))
            unscored += 1.0;
        else
            values[n++] = sequence->reward;
    }
    part->n_unscored = unscored;
    if (n == 0)
        return;
    moments(values, n, &part->reward, &part->reward_std);
    qsort(values, n, sizeof *values, ascending);
    part->reward_min = values[0];
    part->reward_q1 = quantile(values, n, 0.25);
    part->reward_median = quantile(values, n, 0.5);
    part->reward_q3 = quantile(values, n, 0.75);
    part->reward_max = values[n - 1];
}

/* The spread within groups takes the place of the batch's where there are groups of two. */
static void report_groups(const pgrad_rollout *rollout, double *values, pgrad_step_report *part)
{
    double groups = 0.0, flat = 0.0, spread = 0.0, several = 0.0;
    for (uint32_t group = 0; group < rollout->n_groups; group++) {
        uint32_t n = 0, members = 0;
        for (uint32_t i = 0; i < rollout->n_sequences; i++) {
            const pgrad__sequence *sequence = &rollout->sequences[i];
            if (sequence->group != group || !pgrad__sequence_counts(sequence))
                continue;
            members++;
            if (!isnan(sequence->reward))
                values[n++] = sequence->reward;
        }
        if (members == 0)
            continue;
        groups += 1.0;
        flat += pgrad__zero_spread(values, n) ? 1.0 : 0.0;
        if (n > 1) {
            double mean, std;
            moments(values, n, &mean, &std);
            spread += std;
            several += 1.0;
        }
    }
    if (groups > 0.0)
        part->frac_zero_std = flat / groups;
    if (several > 0.0)
        part->reward_std = spread / several;
}

/* k3 of what was sampled against the reference, over the learned tokens. */
static void report_kl(const pgrad_rollout *rollout, pgrad_step_report *part)
{
    double sum = 0.0, tokens = 0.0;
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        const pgrad__sequence *sequence = &rollout->sequences[i];
        const float *old = pgrad_rollout_array(rollout, PGRAD_OLD, i, NULL);
        const float *reference = pgrad_rollout_array(rollout, PGRAD_REFERENCE, i, NULL);
        const float *mask = pgrad_rollout_array(rollout, PGRAD_MASK, i, NULL);
        if (!pgrad__sequence_counts(sequence) || old == NULL || reference == NULL)
            continue;
        for (uint32_t t = 0; t < sequence->n_tokens; t++) {
            if (mask != NULL && mask[t] == 0.0f)
                continue;
            sum +=
                pgrad__kl_token(PGRAD_KL_K3_RATIO, (double)old[t], (double)reference[t], 1.0).value;
            tokens += 1.0;
        }
    }
    if (tokens > 0.0)
        part->kl = sum / tokens;
}

static void report_lengths(const pgrad_rollout *rollout, pgrad_step_report *part)
{
    double n = 0.0, tokens = 0.0, clipped = 0.0, low = INFINITY, high = 0.0, mismatch = 0.0,
           sampled = 0.0;
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        const pgrad__sequence *sequence = &rollout->sequences[i];
        if (!pgrad__sequence_counts(sequence))
            continue;
        n += 1.0;
        tokens += sequence->n_tokens;
        low = fmin(low, sequence->n_tokens);
        high = fmax(high, sequence->n_tokens);
        clipped += sequence->finish == PGRAD_FINISH_LENGTH ? 1.0 : 0.0;
        if (!pgrad__sequence_has(sequence, PGRAD_LOGPROBS_SAMPLED))
            continue;
        const float *l = pgrad__rollout_values(rollout, PGRAD_LOGPROBS, i);
        const float *q = pgrad__rollout_values(rollout, PGRAD_LOGPROBS_SAMPLED, i);
        for (uint32_t t = 0; t < sequence->n_tokens; t++)
            mismatch += fabs((double)l[t] - (double)q[t]);
        sampled += sequence->n_tokens;
    }
    part->n_sequences = n;
    part->n_tokens = tokens;
    if (n == 0.0)
        return;
    part->completion_mean_length = tokens / n;
    part->completion_min_length = low;
    part->completion_max_length = high;
    part->completion_clipped_ratio = clipped / n;
    if (sampled > 0.0)
        part->sampling_mismatch = mismatch / sampled;
}

static void report_components(const pgrad_rollout *rollout, double *values, pgrad_step_report *part)
{
    _Static_assert(2 * PGRAD__MAX_COMPONENTS <= PGRAD__N_NAMED, "room for all components");
    for (uint32_t c = 0; c < rollout->n_components; c++) {
        const double *scores = rollout->component_scores + (size_t)c * rollout->max_sequences;
        size_t n = 0;
        for (uint32_t i = 0; i < rollout->n_sequences; i++)
            if (!isnan(scores[i]))
                values[n++] = scores[i];
        if (n == 0)
            continue;
        pgrad_named_value *mean = &part->named[part->n_named++],
                          *std = &part->named[part->n_named++];
        moments(values, n, &mean->value, &std->value);
        (void)snprintf(mean->name, sizeof mean->name, "rewards/%.40s/mean",
                       rollout->component_names[c]);
        (void)snprintf(std->name, sizeof std->name, "rewards/%.40s/std",
                       rollout->component_names[c]);
    }
}

static pgrad_status fill_report(const pgrad_rollout *rollout, pgrad_step_report *report)
{
    pgrad_step_report part;
    double few[1024], *values = few,
                      *many = NULL; /* no allocation for the usual number of sequences */
    pgrad_step_report_init(&part, sizeof part);
    if (rollout->n_sequences > sizeof few / sizeof few[0]) {
        PGRAD__TRY(pgrad__alloc(rollout->context, rollout->n_sequences, sizeof *many, &many));
        values = many;
    }
    report_lengths(rollout, &part);
    report_kl(rollout, &part);
    if (rollout->has_rewards) {
        report_rewards(rollout, values, &part);
        report_groups(rollout, values, &part);
        report_components(rollout, values, &part);
    }
    pgrad__free(rollout->context, many);
    pgrad__report_merge(report, &part);
    return PGRAD_OK;
}

pgrad_status pgrad_rollout_report(const pgrad_rollout *rollout, pgrad_step_report *report)
{
    pgrad__scope scope;
    if (rollout == NULL || report == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_report: %s is NULL",
                           rollout == NULL ? "rollout" : "report");
    PGRAD__TRY(pgrad__report_check(report));
    PGRAD__TRY(pgrad__enter(rollout->context, &scope));
    pgrad_status status = fill_report(rollout, report);
    pgrad__leave(&scope);
    return status;
}
