/* One token from one row of logits. What top_k, top_p and min_p keep: draw_tail.c. */
#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "base/half.h"
#include "base/real.h"
#include "base/rng.h"
#include "kernel/vec.h"
#include "rl/sampler.h"

enum { BLOCK = PGRAD__SOFTMAX_BLOCK }; /* of cumulative sums: part of the definition of a draw */

static void lay_out(pgrad__arena *arena, void *user)
{
    pgrad__draw_scratch *scratch = user;
    scratch->weight = pgrad__arena_take(arena, scratch->n_vocab, sizeof *scratch->weight);
    scratch->ids = pgrad__arena_take(arena, scratch->n_vocab, sizeof *scratch->ids);
    scratch->seen = pgrad__arena_take(arena, scratch->n_vocab, sizeof *scratch->seen);
    scratch->sums = pgrad__arena_take(arena, scratch->n_vocab / BLOCK + 1, sizeof *scratch->sums);
    scratch->largest =
        pgrad__arena_take(arena, scratch->n_vocab / BLOCK + 1, sizeof *scratch->largest);
}

void pgrad__draw_scratch_count(uint32_t n_vocab, pgrad__arena *sum)
{
    pgrad__draw_scratch scratch = {.n_vocab = n_vocab};
    lay_out(sum, &scratch);
    pgrad__arena_count_block(sum, 0, 0);
}

pgrad_status pgrad__draw_scratch_init(pgrad__draw_scratch *scratch, pgrad_context *context,
                                      uint32_t n_vocab)
{
    *scratch = (pgrad__draw_scratch){.arena.context = context, .n_vocab = n_vocab};
    const pgrad_status status = pgrad__arena_plan(&scratch->arena, lay_out, scratch);
    if (status == PGRAD_OK)
        memset(scratch->seen, 0, n_vocab * sizeof *scratch->seen);
    else
        pgrad__draw_scratch_free(scratch);
    return status;
}

void pgrad__draw_scratch_free(pgrad__draw_scratch *scratch)
{
    if (scratch->arena.context != NULL)
        pgrad__arena_free(&scratch->arena);
    memset(scratch, 0, sizeof *scratch);
}

/* ---- changing the logits ---- */

static void forbid(float *w, uint32_t n_vocab, const pgrad_token *tokens, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (tokens[i] >= 0 && (uint32_t)tokens[i] < n_vocab)
            w[tokens[i]] = -INFINITY;
}

/* z > 0: z / penalty, else z * penalty; once per token however often it came. */
static void penalize(pgrad__draw_scratch *scratch, const pgrad__draw *draw, float penalty)
{
    if (++scratch->mark == 0) { /* the marks came round */
        memset(scratch->seen, 0, scratch->n_vocab * sizeof *scratch->seen);
        scratch->mark = 1;
    }
    for (int part = 0; part < 2; part++)
        for (size_t i = 0; i < draw->n_history[part]; i++) {
            pgrad_token token = draw->history[part][i];
            if (scratch->seen[token] == scratch->mark)
                continue;
            scratch->seen[token] = scratch->mark;
            float z = scratch->weight[token];
            scratch->weight[token] = z > 0.0f ? z / penalty : z * penalty;
        }
}

/* 1 when a rule may change this row. */
static int is_changed(const pgrad_sampler_params *params, const pgrad__draw *draw)
{
    return draw->has_token != NULL || draw->n_barred > 0 || params->n_forbidden_tokens > 0 ||
           params->n_bias_tokens > 0 || params->repetition_penalty != 1.0;
}

/* The logits as the rules leave them, in scratch->weight. */
static void change_logits(const pgrad_sampler_params *params, pgrad__draw_scratch *scratch,
                          const pgrad__draw *draw)
{
    float *w = scratch->weight;
    memcpy(w, draw->logits, scratch->n_vocab * sizeof *w);
    for (uint32_t j = 0; draw->has_token != NULL && j < scratch->n_vocab; j++)
        if (!draw->has_token[j])
            w[j] = -INFINITY;
    forbid(w, scratch->n_vocab, params->forbidden_tokens, params->n_forbidden_tokens);
    forbid(w, scratch->n_vocab, draw->barred, draw->n_barred);
    for (size_t i = 0; i < params->n_bias_tokens; i++)
        if (params->bias_tokens[i] >= 0 && (uint32_t)params->bias_tokens[i] < scratch->n_vocab)
            w[params->bias_tokens[i]] += params->logit_bias[i];
    if (params->repetition_penalty != 1.0)
        penalize(scratch, draw, (float)params->repetition_penalty);
}

/* The largest logit, the lowest id among equals. Four running maxima: one alone would wait for each
 * comparison. */
static uint32_t largest(const float *w, uint32_t n)
{
    float lane[4] = {-INFINITY, -INFINITY, -INFINITY, -INFINITY};
    uint32_t j = 0;
    for (; j + 4 <= n; j += 4)
        for (uint32_t i = 0; i < 4; i++)
            lane[i] = w[j + i] > lane[i] ? w[j + i] : lane[i];
    for (; j < n; j++)
        lane[0] = w[j] > lane[0] ? w[j] : lane[0];
    for (uint32_t i = 1; i < 4; i++)
        lane[0] = lane[i] > lane[0] ? lane[i] : lane[0];
    for (j = 0; w[j] != lane[0];)
        j++;
    return j;
}

/* ---- drawing ---- */

/* What is drawn from: weights, or logits whose weights are exp(u - max), with their sums by blocks
 * and in all. Weights of logits are computed for the one block that is looked into. */
typedef struct distribution {
    const float *row;
    uint32_t n;
    int is_logits;
    float inverse_tau, max;
    const double *sums;
    double total;
} distribution;

/* Four running sums: one alone would wait for each addition. */
static double block_sum(const float *w, uint32_t n)
{
    double sum[4] = {0.0, 0.0, 0.0, 0.0};
    uint32_t j = 0;
    for (; j + 4 <= n; j += 4)
        for (uint32_t lane = 0; lane < 4; lane++)
            sum[lane] += (double)w[j + lane];
    for (; j < n; j++)
        sum[j % 4] += (double)w[j];
    return (sum[0] + sum[1]) + (sum[2] + sum[3]);
}

/* The first id of a block at which the cumulative sum is above `share` of the block; the last with
 * a weight when rounding hides it. The share is of the block's weights as they are summed here: its
 * sum from the softmax pass is rounded otherwise, and the difference must not fall to the last
 * token. A weight of 0 is never found. */
static uint32_t find_in_block(const pgrad__kernels *kernels, const distribution *d, uint32_t first,
                              double share)
{
    const uint32_t n = d->n - first < BLOCK ? d->n - first : BLOCK;
    const float *w = d->row + first;
    float weights[BLOCK];
    if (d->is_logits) {
        for (uint32_t j = 0; j < n; j++)
            weights[j] = w[j] * d->inverse_tau - d->max;
        kernels->vec->exp(weights, n, weights);
        w = weights;
    }
    const double target = share * block_sum(w, n);
    double sum = 0.0;
    uint32_t found = 0;
    for (uint32_t j = 0; j < n && !(sum > target); j++) {
        if (!(w[j] > 0.0f))
            continue;
        sum += (double)w[j];
        found = j;
    }
    return first + found;
}

/* The total is the sum of the blocks in this order, and r at most 1 - 2^-53, so that r total is
 * below it: the walk ends at a block with a weight. */
static uint32_t inverse_cdf(const pgrad__kernels *kernels, const distribution *d, double r)
{
    const double target = r * d->total;
    double below = 0.0;
    uint32_t first = 0;
    while (first + BLOCK < d->n && !(below + d->sums[first / BLOCK] > target)) {
        below += d->sums[first / BLOCK];
        first += BLOCK;
    }
    return find_in_block(kernels, d, first, (target - below) / d->sums[first / BLOCK]);
}

static int is_cut(const pgrad_sampler_params *params)
{
    return params->temperature != 0.0 &&
           (params->top_k != 0 || params->top_p < 1.0 || params->min_p > 0.0);
}

/* The numbers of the row as the rules leave it and what is drawn from: where a tail is cut the
 * weights, which may take the place of the row, else the row. */
static distribution distribution_of(const pgrad_sampler_params *params,
                                    const pgrad__kernels *kernels, pgrad__draw_scratch *scratch,
                                    const float *row, float inverse_tau, pgrad__softmax_row *stats)
{
    const uint32_t n = scratch->n_vocab;
    distribution d = {.row = row, .n = n, .is_logits = !is_cut(params), .inverse_tau = inverse_tau};
    d.sums = scratch->sums;
    if (d.is_logits) {
        kernels->vec->softmax_row_stats(row, n, inverse_tau, stats, scratch->sums);
        d.total = stats->total;
    } else {
        d.row = scratch->weight;
        const double mass = kernels->vec->softmax_row_weights(row, n, inverse_tau, stats,
                                                              scratch->weight, scratch->largest);
        if (isfinite(stats->lse))
            d.total = pgrad__cut_tail(params, kernels, scratch, mass);
    }
    d.max = stats->max;
    return d;
}

/* `stats` are those of the row as the rules leave it. */
static void draw_token(const pgrad_sampler_params *params, const pgrad__kernels *kernels,
                       const distribution *d, const pgrad__draw *draw, float lse, pgrad__drawn *out)
{
    const double r = pgrad__uniform(params->seed, draw->sequence, draw->position, 0);
    if (params->temperature == 0.0) {
        out->token = (pgrad_token)largest(d->row, d->n);
        out->logprob_sampled = 0.0f; /* the only token */
        return;
    }
    out->token = (pgrad_token)inverse_cdf(kernels, d, r);
    out->logprob_sampled = d->is_logits ? d->row[out->token] * d->inverse_tau - lse
                                        : (float)pgrad__log((double)d->row[out->token] / d->total);
}

pgrad__drawn pgrad__sampler_draw(const pgrad_sampler *sampler, const pgrad__kernels *kernels,
                                 pgrad__draw_scratch *scratch, const pgrad__draw *draw)
{
    const pgrad_sampler_params *params = &sampler->params;
    const float inverse_tau =
        params->temperature == 0.0 ? 1.0f : (float)(1.0 / params->temperature);
    const int changes = is_changed(params, draw);
    pgrad__drawn out = {.token = -1};
    pgrad__softmax_row model, changed;
    distribution d;
    if (changes)
        kernels->vec->softmax_row_stats(draw->logits, scratch->n_vocab, inverse_tau, &model, NULL);
    else
        d = distribution_of(params, kernels, scratch, draw->logits, inverse_tau, &model);
    if (!isfinite(model.lse)) {
        out.failure = PGRAD__DRAW_NOT_FINITE;
        return out;
    }
    changed = model;
    if (changes) {
        change_logits(params, scratch, draw);
        d = distribution_of(params, kernels, scratch, scratch->weight, inverse_tau, &changed);
    }
    if (!isfinite(changed.lse)) {
        out.failure = changed.max == -INFINITY ? PGRAD__DRAW_NO_TOKEN : PGRAD__DRAW_OVERFLOW;
        return out;
    }
    draw_token(params, kernels, &d, draw, changed.lse, &out);
    out.logprob = draw->logits[out.token] * inverse_tau - model.lse; /* as pgrad__softmax_stats */
    out.entropy = model.entropy;
    return out;
}

static int all_minus_infinity(const float *logits, uint32_t n)
{
    for (uint32_t j = 0; j < n; j++)
        if (logits[j] != -INFINITY)
            return 0;
    return 1;
}

pgrad_status pgrad__draw_fail(pgrad__draw_failure failure, const float *logits, uint32_t n_vocab,
                              const char *what)
{
    uint32_t j = 0;
    if (failure == PGRAD__DRAW_NO_TOKEN)
        return pgrad__fail(PGRAD_E_NUMERIC, "%s: no token is left to sample: all are forbidden",
                           what);
    while (j < n_vocab && !isnan(logits[j]) && !(logits[j] == INFINITY))
        j++;
    if (j < n_vocab)
        return pgrad__fail(PGRAD_E_NUMERIC, "%s: logit %u is %g", what, j, (double)logits[j]);
    if (failure == PGRAD__DRAW_NOT_FINITE && all_minus_infinity(logits, n_vocab))
        return pgrad__fail(PGRAD_E_NUMERIC, "%s: all %u logits are -infinity", what, n_vocab);
    return pgrad__fail(
        PGRAD_E_NUMERIC,
        "%s: a logit divided by the temperature, or with its bias, is beyond the range of a "
        "float",
        what);
}
