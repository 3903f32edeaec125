#include "rl/metrics.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "base/number.h"
#include "base/sink.h"

/* Where each number stands and what it is called: TRL's name where the thing is the same. */
typedef struct metric {
    size_t offset;
    const char *name;
} metric;

#define AT(field) offsetof(pgrad_step_report, field)
static const metric METRICS[] = {
    {AT(reward), "reward"},
    {AT(reward_std), "reward_std"},
    {AT(reward_min), "reward/min"},
    {AT(reward_q1), "reward/q1"},
    {AT(reward_median), "reward/median"},
    {AT(reward_q3), "reward/q3"},
    {AT(reward_max), "reward/max"},
    {AT(frac_zero_std), "frac_reward_zero_std"},
    {AT(n_unscored), "reward/unscored"},
    {AT(completion_mean_length), "completions/mean_length"},
    {AT(completion_min_length), "completions/min_length"},
    {AT(completion_max_length), "completions/max_length"},
    {AT(completion_clipped_ratio), "completions/clipped_ratio"},
    {AT(n_sequences), "num_sequences"},
    {AT(n_tokens), "completions/num_tokens"},
    {AT(sampling_mismatch), "sampling/sampling_logp_difference/mean"},
    {AT(loss), "loss"},
    {AT(policy_loss), "policy_loss"},
    {AT(kl), "kl"},
    {AT(entropy), "entropy"},
    {AT(ratio_mean), "ratio/mean"},
    {AT(ratio_min), "ratio/min"},
    {AT(ratio_max), "ratio/max"},
    {AT(approx_kl), "approx_kl"},
    {AT(clip_low_ratio), "clip_ratio/low_mean"},
    {AT(clip_high_ratio), "clip_ratio/high_mean"},
    {AT(n_micro_batches), "num_micro_batches"},
    {AT(micro_batch_tokens), "micro_batch_tokens"},
    {AT(recompute), "recompute"},
    {AT(kept_rows), "kept_rows"},
    {AT(grad_norm), "grad_norm"},
    {AT(learning_rate), "learning_rate"},
    {AT(seconds), "step_time"},
    {AT(seconds_generate), "step_time/generate"},
    {AT(seconds_train), "step_time/train"},
    {AT(seconds_predicted), "step_time/predicted"},
    {AT(tokens_per_second), "tokens_per_second"},
    {AT(eval_reward), "eval_reward"},
};
enum { N_METRICS = sizeof METRICS / sizeof METRICS[0] };

/* 1 when the caller's struct holds all bytes up to the end of a field. */
static int holds(const pgrad_step_report *report, size_t end)
{
    return report != NULL && report->struct_size >= end;
}

static double number_at(const pgrad_step_report *report, size_t offset)
{
    double value = NAN;
    if (holds(report, offset + sizeof value))
        memcpy(&value, (const char *)report + offset, sizeof value);
    return value;
}

void pgrad_step_report_init(pgrad_step_report *report, size_t size)
{
    if (report == NULL || size < sizeof report->struct_size)
        return;
    if (size > sizeof *report)
        memset((char *)report + sizeof *report, 0, size - sizeof *report);
    pgrad_step_report full;
    memset(&full, 0, sizeof full);
    full.struct_size = size;
    const double nothing = NAN;
    for (size_t i = 0; i < N_METRICS; i++)
        memcpy((char *)&full + METRICS[i].offset, &nothing, sizeof nothing);
    memcpy(report, &full, size < sizeof full ? size : sizeof full);
}

/* A host's struct may hold any number there. */
static uint32_t named_count(const pgrad_step_report *report)
{
    if (!holds(report, AT(named) + sizeof report->named))
        return 0;
    return report->n_named < PGRAD__N_NAMED ? report->n_named : PGRAD__N_NAMED;
}

static void merge_named(pgrad_step_report *report, const pgrad_named_value *value)
{
    const uint32_t n = named_count(report);
    uint32_t at = 0;
    while (at < n && strcmp(report->named[at].name, value->name) != 0)
        at++;
    if (at == PGRAD__N_NAMED)
        return;
    report->named[at] = *value;
    report->n_named = at == n ? n + 1 : n;
}

pgrad_status pgrad__report_check(const pgrad_step_report *report)
{
    if (report == NULL || holds(report, AT(step) + sizeof report->step))
        return PGRAD_OK;
    return pgrad__fail(
        PGRAD_E_INVALID,
        "step_report.struct_size: expected %zu (call pgrad_step_report_init), found %zu",
        sizeof *report, report->struct_size);
}

void pgrad__report_merge(pgrad_step_report *report, const pgrad_step_report *part)
{
    for (size_t i = 0; i < N_METRICS; i++) {
        double value = number_at(part, METRICS[i].offset);
        if (!isnan(value) && holds(report, METRICS[i].offset + sizeof value))
            memcpy((char *)report + METRICS[i].offset, &value, sizeof value);
    }
    if (part->step != 0 && holds(report, AT(step) + sizeof report->step))
        report->step = part->step;
    if (holds(report, AT(named) + sizeof report->named))
        for (uint32_t i = 0; i < part->n_named; i++)
            merge_named(report, &part->named[i]);
}

/* Number `index` among those filled: its place in METRICS, or N_METRICS + i for named value i. */
static int find_filled(const pgrad_step_report *report, uint32_t index, size_t *place)
{
    uint32_t seen = 0;
    for (size_t i = 0; i < N_METRICS; i++)
        if (!isnan(number_at(report, METRICS[i].offset)) && seen++ == index) {
            *place = i;
            return 1;
        }
    if (index - seen >= named_count(report))
        return 0;
    *place = N_METRICS + (index - seen);
    return 1;
}

uint32_t pgrad_metrics_count(const pgrad_step_report *report)
{
    uint32_t count = 0;
    for (size_t i = 0; i < N_METRICS; i++)
        count += isnan(number_at(report, METRICS[i].offset)) ? 0u : 1u;
    return count + named_count(report);
}

const char *pgrad_metrics_name(const pgrad_step_report *report, uint32_t index)
{
    size_t place;
    if (!find_filled(report, index, &place))
        return NULL;
    return place < N_METRICS ? METRICS[place].name : report->named[place - N_METRICS].name;
}

double pgrad_metrics_value(const pgrad_step_report *report, uint32_t index)
{
    size_t place;
    if (!find_filled(report, index, &place))
        return NAN;
    return place < N_METRICS ? number_at(report, METRICS[place].offset)
                             : report->named[place - N_METRICS].value;
}

/* ---- as JSON ---- */

/* Names are ASCII but for a reward's own, where a quote or backslash is escaped. */
static void put_name(pgrad__sink *out, const char *name)
{
    pgrad__sink_put(out, "\"");
    for (; *name != '\0'; name++) {
        if (*name == '"' || *name == '\\')
            pgrad__sink_put(out, "\\");
        const char byte[] = {(unsigned char)*name < 0x20 ? ' ' : *name, '\0'};
        pgrad__sink_put(out, byte);
    }
    pgrad__sink_put(out, "\":");
}

static void put_report(pgrad__sink *out, const pgrad_step_report *report)
{
    char number[32];
    (void)snprintf(number, sizeof number, "%llu",
                   holds(report, AT(step) + sizeof report->step) ? (unsigned long long)report->step
                                                                 : 0);
    pgrad__sink_put(out, "{\"step\":");
    pgrad__sink_put(out, number);
    uint32_t n = pgrad_metrics_count(report);
    for (uint32_t i = 0; i < n; i++) {
        double value = pgrad_metrics_value(report, i);
        pgrad__sink_put(out, ",");
        put_name(out, pgrad_metrics_name(report, i));
        (void)pgrad__format_real(number, value);
        pgrad__sink_put(out, isfinite(value) ? number : "null");
    }
    pgrad__sink_put(out, "}");
}

pgrad_status pgrad_metrics_json(const pgrad_step_report *report, char *json, size_t capacity,
                                size_t *length)
{
    if (report == NULL || length == NULL || (json == NULL && capacity > 0))
        return pgrad__fail(PGRAD_E_INVALID, "metrics_json: an argument is NULL");
    PGRAD__TRY(pgrad__report_check(report));
    pgrad__sink measure = {NULL, 0, 0};
    put_report(&measure, report);
    *length = measure.length;
    if (capacity <= measure.length)
        return pgrad__fail(PGRAD_E_BUFFER, "metrics_json: %zu bytes are needed, capacity is %zu",
                           measure.length + 1, capacity);
    put_report(&(pgrad__sink){json, capacity, 0}, report);
    return PGRAD_OK;
}
