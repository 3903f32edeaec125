#include "rl/objective.h"

#include <math.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "rl/loss.h"
#include "rl/metrics.h"
#include "rl/optimizer.h"

/* ---- life ---- */

/* Rollouts ask the model whether somebody would use what they keep. */
static void count_keeping(pgrad_objective *objective, int keeps)
{
    if (keeps && !objective->counted)
        atomic_fetch_add(&objective->model->n_keeping, 1);
    else if (!keeps && objective->counted)
        atomic_fetch_sub(&objective->model->n_keeping, 1);
    objective->counted = keeps;
}

void pgrad__objective_settle(pgrad_objective *objective, uint32_t micro_batch_tokens,
                             uint32_t recompute)
{
    const pgrad_objective_params *params = &objective->params;
    objective->micro_batch_tokens = params->micro_batch_tokens;
    objective->recompute = params->recompute;
    if (params->micro_batch_tokens == 0)
        objective->micro_batch_tokens =
            micro_batch_tokens == 0 ? PGRAD__MICRO_BATCH_TOKENS : micro_batch_tokens;
    if (params->recompute == PGRAD_RECOMPUTE_AUTO)
        objective->recompute = recompute == PGRAD_RECOMPUTE_ON;
}

void pgrad__objective_choose(pgrad_objective *objective, uint32_t micro_batch_tokens,
                             uint32_t recompute)
{
    pgrad__objective_settle(objective, micro_batch_tokens, recompute);
    count_keeping(objective, !objective->recompute);
}

pgrad_status pgrad_objective_create(pgrad_model *model, const pgrad_objective_params *params,
                                    pgrad_objective **out)
{
    pgrad__scope scope;
    pgrad_objective_params read;
    pgrad_objective *objective = NULL;
    if (model == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "objective_create: %s is NULL",
                           model == NULL ? "model" : "out");
    if (model->frozen)
        return pgrad__fail(PGRAD_E_STATE, "objective_create: the model is frozen");
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = pgrad__params_read("objective", params, &read);
    if (status != PGRAD_OK)
        goto done;
    status = pgrad__calloc(model->context, 1, sizeof *objective, &objective);
    if (status != PGRAD_OK)
        goto done;
    objective->context = model->context;
    objective->builder.arena.context = model->context;
    objective->params = read;
    objective->builder.whole = !read.share_prefix;
    atomic_init(&objective->references, 1);
    status = pgrad__pass_create(model, &objective->pass);
    if (status != PGRAD_OK) {
        pgrad__free(model->context, objective);
        goto done;
    }
    objective->model = model;
    pgrad__model_retain(model);
    pgrad__objective_choose(objective, 0, PGRAD_RECOMPUTE_AUTO);
    *out = objective;
done:
    pgrad__leave(&scope);
    return status;
}

size_t pgrad__objective_held(const pgrad_objective *objective)
{
    return pgrad__held(objective->builder.arena.base) + pgrad__held(objective->chosen) +
           pgrad__held(objective->weights) + pgrad__held(objective->group_tokens);
}

void pgrad__objective_room_free(pgrad_objective *objective)
{
    pgrad__batch_builder_free(&objective->builder);
    pgrad__free(objective->context, objective->chosen);
    pgrad__free(objective->context, objective->weights);
    pgrad__free(objective->context, objective->group_tokens);
}

void pgrad_objective_free(pgrad_objective *objective)
{
    if (objective == NULL || atomic_fetch_sub(&objective->references, 1) != 1)
        return;
    pgrad_context *context = objective->context;
    pgrad_model *model = objective->model;
    count_keeping(objective, 0);
    pgrad__pass_free(objective->pass);
    pgrad__objective_room_free(objective);
    pgrad__free(context, objective);
    pgrad_model_free(model);
}

/* ---- choosing sequences, counting tokens ---- */

static int is_supervised(const pgrad_objective *objective)
{
    return objective->params.loss == PGRAD_LOSS_SUPERVISED;
}

int pgrad__objective_uses_reference(const pgrad_objective *objective)
{
    return objective->params.kl_beta > 0.0 && objective->params.kl != PGRAD_KL_NONE &&
           !is_supervised(objective);
}

/* T_i. */
static uint32_t learned_tokens(const pgrad_rollout *rollout, uint32_t i)
{
    uint32_t count = 0;
    for (uint32_t t = 0; t < rollout->sequences[i].n_tokens; t++)
        count += pgrad__is_learned(rollout, i, t) ? 1u : 0u;
    return count;
}

/* What the aggregations divide by. */
typedef struct counts {
    uint32_t n_chosen;
    double tokens;    /* M */
    double sequences; /* N */
    double non_empty; /* N+ */
    double groups;    /* B: sum over sequences of T_i / T_g, 1 for a whole group */
} counts;

static pgrad_status check_sequence(const pgrad_objective *objective, const pgrad_rollout *rollout,
                                   uint32_t i)
{
    const pgrad__sequence *sequence = &rollout->sequences[i];
    if (pgrad__sequence_positions(rollout, i) > objective->model->n_context)
        return pgrad__fail(
            PGRAD_E_MISMATCH,
            "objective_backward: sequence %u takes %zu positions, the model's context is %u", i,
            pgrad__sequence_positions(rollout, i), objective->model->n_context);
    if (is_supervised(objective))
        return PGRAD_OK;
    if (!pgrad__sequence_has(sequence, PGRAD_ADVANTAGES))
        return pgrad__fail(PGRAD_E_STATE,
                           "objective_backward: sequence %u has no advantages: call "
                           "pgrad_advantage_apply or set them",
                           i);
    if (pgrad__objective_uses_reference(objective) &&
        !pgrad__sequence_has(sequence, PGRAD_REFERENCE))
        return pgrad__fail(PGRAD_E_STATE,
                           "objective.kl_beta is %g, but sequence %u has no REFERENCE: call "
                           "pgrad_rollout_score first",
                           objective->params.kl_beta, i);
    return PGRAD_OK;
}

/* T_g of every group, all its finished sequences, so that a group may be cut over several calls. */
static void count_groups(pgrad_objective *objective, const pgrad_rollout *rollout)
{
    for (uint32_t group = 0; group < rollout->n_groups; group++)
        objective->group_tokens[group] = 0;
    for (uint32_t i = 0; i < rollout->n_sequences; i++)
        if (rollout->sequences[i].finish != PGRAD_FINISH_NONE)
            objective->group_tokens[rollout->sequences[i].group] += learned_tokens(rollout, i);
}

/* Fills objective->chosen with the finished sequences asked for, and counts. */
static pgrad_status choose(pgrad_objective *objective, const pgrad_rollout *rollout,
                           const uint32_t *indices, uint32_t n, counts *out)
{
    pgrad_context *context = objective->context;
    if (indices == NULL)
        n = rollout->n_sequences;
    PGRAD__TRY(pgrad__reserve(context, &objective->group_tokens, &objective->group_capacity,
                              (size_t)rollout->n_groups + 1, sizeof(uint32_t)));
    if (objective->capacity < n) {
        PGRAD__TRY(pgrad__realloc(context, &objective->chosen, n, sizeof(uint32_t)));
        PGRAD__TRY(pgrad__realloc(context, &objective->weights, n, sizeof(double)));
        objective->capacity = n;
    }
    count_groups(objective, rollout);
    counts c = {0};
    for (uint32_t j = 0; j < n; j++) {
        uint32_t i = indices == NULL ? j : indices[j];
        if (i >= rollout->n_sequences)
            return pgrad__fail(PGRAD_E_INVALID, "indices[%u]: expected below %u, found %u", j,
                               rollout->n_sequences, i);
        if (rollout->sequences[i].finish == PGRAD_FINISH_NONE)
            continue;
        c.sequences += 1.0;
        uint32_t tokens = learned_tokens(rollout, i);
        if (tokens == 0)
            continue;
        PGRAD__TRY(check_sequence(objective, rollout, i));
        objective->chosen[c.n_chosen++] = i;
        c.tokens += tokens;
        c.non_empty += 1.0;
        c.groups += (double)tokens / objective->group_tokens[rollout->sequences[i].group];
    }
    *out = c;
    return PGRAD_OK;
}

/* The denominator of the step, by the aggregation. */
static double denominator(const pgrad_objective *objective, const counts *c)
{
    switch (objective->params.aggregation) {
    case PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN:
    case PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_SUM:
        return c->non_empty;
    case PGRAD_AGGREGATE_CONSTANT:
        return c->sequences;
    case PGRAD_AGGREGATE_PROMPT_MEAN:
        return c->groups;
    default:
        return c->tokens;
    }
}

/* w_it of every chosen sequence; MICRO_TOKEN_MEAN is set per micro-batch instead. */
static void set_weights(pgrad_objective *objective, const pgrad_rollout *rollout, const counts *c,
                        double normalizer)
{
    uint32_t max_new = objective->params.max_new_tokens != 0 ? objective->params.max_new_tokens
                                                             : rollout->params.max_new_tokens;
    for (uint32_t j = 0; j < c->n_chosen; j++) {
        uint32_t i = objective->chosen[j];
        double w = 1.0 / normalizer;
        if (objective->params.aggregation == PGRAD_AGGREGATE_SEQUENCE_MEAN_TOKEN_MEAN)
            w /= learned_tokens(rollout, i);
        else if (objective->params.aggregation == PGRAD_AGGREGATE_CONSTANT)
            w /= max_new;
        else if (objective->params.aggregation == PGRAD_AGGREGATE_PROMPT_MEAN)
            w /= objective->group_tokens[rollout->sequences[i].group];
        objective->weights[j] = w;
    }
}

pgrad_status pgrad_objective_normalizer(pgrad_objective *objective, const pgrad_rollout *rollout,
                                        const uint32_t *indices, uint32_t n, double *out)
{
    counts c;
    pgrad__scope scope;
    if (objective == NULL || rollout == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "objective_normalizer: an argument is NULL");
    PGRAD__TRY(pgrad__enter(objective->context, &scope));
    pgrad_status status = choose(objective, rollout, indices, n, &c);
    if (status == PGRAD_OK)
        *out = denominator(objective, &c);
    pgrad__leave(&scope);
    return status;
}

/* ---- the loss inside the head's chunks ---- */

/* Sums over learned tokens, in the order of targets. */
typedef struct totals {
    double policy, kl, entropy, kl_tokens;
    double ratio_sum, ratio_min, ratio_max, approx_kl;
    double clip_low, clip_high, tokens;
    uint64_t kept_rows;
} totals;

typedef struct micro_batch {
    const pgrad_objective *objective;
    const pgrad_rollout *rollout;
    uint32_t first, count; /* of objective->chosen */
    double entropy_weight; /* c_H / M */
    totals *totals;
} micro_batch;

static void add_to_totals(totals *sum, double w, const pgrad__token_loss *loss, double kl,
                          double entropy)
{
    sum->policy += w * loss->value;
    sum->kl += w * kl;
    sum->kl_tokens += kl;
    sum->entropy += entropy;
    sum->ratio_sum += loss->ratio;
    sum->ratio_min = fmin(sum->ratio_min, loss->ratio);
    sum->ratio_max = fmax(sum->ratio_max, loss->ratio);
    sum->approx_kl += loss->ratio - 1.0 - loss->log_ratio;
    sum->clip_low += loss->clipped < 0 ? 1.0 : 0.0;
    sum->clip_high += loss->clipped > 0 ? 1.0 : 0.0;
    sum->tokens += 1.0;
}

/* Token t of chosen sequence j, with log-probability l and entropy h. */
static pgrad_status loss_of_token(const micro_batch *micro, uint32_t j, uint32_t t, double l,
                                  double h, float *d_logprob, float *entropy_weight)
{
    const pgrad_objective *objective = micro->objective;
    const pgrad_objective_params *params = &objective->params;
    const pgrad_rollout *rollout = micro->rollout;
    uint32_t i = objective->chosen[j];
    *d_logprob = 0.0f;
    *entropy_weight = 0.0f;
    if (!pgrad__is_learned(rollout, i, t))
        return PGRAD_OK;
    if (!isfinite(l))
        return pgrad__fail(
            PGRAD_E_NUMERIC,
            "sequence %u, token %u: the log-probability is %g: weights or logits are "
            "not finite",
            i, t, l);

    const float *old =
        is_supervised(objective) ? NULL : pgrad_rollout_array(rollout, PGRAD_OLD, i, NULL);
    double l_old = old == NULL ? l : (double)old[t];
    double advantage = is_supervised(objective)
                           ? 0.0
                           : (double)pgrad__rollout_values(rollout, PGRAD_ADVANTAGES, i)[t];
    pgrad__token_loss loss =
        pgrad__loss_token(params->loss, l, l_old, advantage, params->clip_low, params->clip_high);
    pgrad__kl_term kl = {0.0, 0.0};
    if (pgrad__objective_uses_reference(objective))
        kl = pgrad__kl_token(params->kl, l,
                             (double)pgrad__rollout_values(rollout, PGRAD_REFERENCE, i)[t],
                             loss.ratio);
    const double w = objective->weights[j];
    double c = w * (loss.derivative + params->kl_beta * kl.derivative);
    if (!isfinite(c) || !isfinite(loss.value))
        return pgrad__fail(PGRAD_E_NUMERIC,
                           "sequence %u, token %u: the loss is not finite "
                           "(advantage %g, log-probability %g, old %g)",
                           i, t, advantage, l, l_old);
    *d_logprob = (float)c;
    *entropy_weight = (float)micro->entropy_weight;
    add_to_totals(micro->totals, w, &loss, kl.value, h);
    return PGRAD_OK;
}

/* pgrad__loss_fn: finds the sequence of each target and applies the loss. */
static pgrad_status loss_of_targets(void *user, size_t first, size_t n, const float *logprob,
                                    const float *entropy, float *d_logprob, float *entropy_weight)
{
    const micro_batch *micro = user;
    const size_t *offsets = micro->objective->builder.offsets;
    uint32_t j = 0;
    while (j + 1 < micro->count && offsets[j + 1] <= first)
        j++;
    for (size_t k = 0; k < n; k++) {
        while (j + 1 < micro->count && offsets[j + 1] <= first + k)
            j++;
        PGRAD__TRY(loss_of_token(micro, micro->first + j, (uint32_t)(first + k - offsets[j]),
                                 (double)logprob[k], (double)entropy[k], &d_logprob[k],
                                 &entropy_weight[k]));
    }
    return PGRAD_OK;
}

/* ---- backward ---- */

/* Rows of a micro-batch that starts with this sequence. Its prompt counts for half of them at most:
 * a long one would otherwise be computed again for each of its completions. */
static size_t micro_batch_rows(const pgrad_objective *objective, const pgrad_rollout *rollout,
                               uint32_t sequence)
{
    const size_t rows = objective->micro_batch_tokens, half = rows / 2,
                 n_prompt = rollout->groups[rollout->sequences[sequence].group].n_prompt;
    return objective->builder.whole || n_prompt <= half ? rows : rows - half + n_prompt;
}

/* The end of the micro-batch that starts at `first`: whole sequences, at least one. A function of
 * data and params alone. */
static uint32_t micro_batch_end(const pgrad_objective *objective, const pgrad_rollout *rollout,
                                uint32_t first, uint32_t n)
{
    const size_t most = micro_batch_rows(objective, rollout, objective->chosen[first]);
    size_t rows = 0;
    uint32_t end = first;
    while (end < n) {
        rows +=
            pgrad__batch_rows(&objective->builder, rollout, objective->chosen + first, end - first);
        if (end > first && rows > most)
            break;
        end++;
    }
    return end;
}

static uint32_t count_micro_batches(const pgrad_objective *objective, const pgrad_rollout *rollout,
                                    uint32_t n)
{
    uint32_t count = 0;
    for (uint32_t first = 0; first < n; count++)
        first = micro_batch_end(objective, rollout, first, n);
    return count;
}

/* MICRO_TOKEN_MEAN: 1 / (M_micro n_micro). */
static void set_micro_weights(pgrad_objective *objective, const pgrad_rollout *rollout,
                              const micro_batch *micro, uint32_t n_micro)
{
    double tokens = 0.0;
    for (uint32_t j = micro->first; j < micro->first + micro->count; j++)
        tokens += learned_tokens(rollout, objective->chosen[j]);
    for (uint32_t j = micro->first; j < micro->first + micro->count; j++)
        objective->weights[j] = 1.0 / (tokens * n_micro);
}

static void fill_report(const pgrad_objective *objective, const totals *sum, double entropy_tokens,
                        uint32_t n_micro, pgrad_step_report *report)
{
    pgrad_step_report full;
    pgrad_step_report_init(&full, sizeof full);
    double tokens = sum->tokens;
    full.policy_loss = sum->policy;
    full.loss = sum->policy + objective->params.kl_beta * sum->kl;
    if (entropy_tokens > 0.0)
        full.loss -= objective->params.entropy_coefficient * sum->entropy / entropy_tokens;
    if (pgrad__objective_uses_reference(objective))
        full.kl = sum->kl_tokens / tokens;
    full.entropy = sum->entropy / tokens;
    full.ratio_mean = sum->ratio_sum / tokens;
    full.ratio_min = sum->ratio_min;
    full.ratio_max = sum->ratio_max;
    full.approx_kl = sum->approx_kl / tokens;
    full.clip_low_ratio = sum->clip_low / tokens;
    full.clip_high_ratio = sum->clip_high / tokens;
    full.n_micro_batches = n_micro;
    full.micro_batch_tokens = objective->micro_batch_tokens;
    full.recompute = objective->recompute;
    full.kept_rows = (double)sum->kept_rows;
    pgrad__report_merge(report, &full);
}

static pgrad__backward backward_of(const pgrad_objective *objective, int update)
{
    return (pgrad__backward){.loss = loss_of_targets,
                             .recompute = (int)objective->recompute,
                             .update = update ? pgrad__tensor_updates_one : NULL};
}

pgrad_status pgrad__objective_measure(pgrad_objective *objective, const pgrad_rollout *rollout,
                                      int keeps, int in_backward, uint32_t n_workers,
                                      pgrad__backward_need *out)
{
    counts c;
    out->rows = out->n_micro_batches = 0;
    PGRAD__TRY(choose(objective, rollout, NULL, 0, &c));
    objective->builder.use_kept = keeps;
    for (uint32_t first = 0, end; first < c.n_chosen; first = end) {
        end = micro_batch_end(objective, rollout, first, c.n_chosen);
        PGRAD__TRY(pgrad__batch_build(&objective->builder, rollout, objective->chosen + first,
                                      end - first, is_supervised(objective)));
        if (keeps) /* of a rollout without arrays: all rows are there */
            objective->builder.batch.activations = objective->builder.activations;
        const pgrad__backward how = backward_of(objective, in_backward && end == c.n_chosen);
        PGRAD__TRY(pgrad__backward_size(objective->model, &objective->builder.batch, &how,
                                        out->n_micro_batches > 0, n_workers, &out->pass));
        out->rows += objective->builder.batch.n_rows;
        out->n_micro_batches++;
    }
    return PGRAD_OK;
}

static pgrad_status run_micro_batches(pgrad_objective *objective, const pgrad_rollout *rollout,
                                      const counts *c, double entropy_weight, uint32_t n_micro,
                                      pgrad__tensor_updates *updates, totals *sum)
{
    pgrad_model *model = objective->model;
    uint64_t done = 0;
    for (uint32_t first = 0; first < c->n_chosen;) {
        uint32_t end = micro_batch_end(objective, rollout, first, c->n_chosen);
        micro_batch micro = {objective, rollout, first, end - first, entropy_weight, sum};
        if (objective->params.aggregation == PGRAD_AGGREGATE_MICRO_TOKEN_MEAN)
            set_micro_weights(objective, rollout, &micro, n_micro);
        PGRAD__TRY(pgrad__progress(model->context, "backward", done, (uint64_t)c->tokens));
        PGRAD__TRY(pgrad__batch_build(&objective->builder, rollout, objective->chosen + first,
                                      end - first, is_supervised(objective)));
        pgrad__backward how = backward_of(objective, updates != NULL && end == c->n_chosen);
        how.user = &micro;
        how.update_user = updates;
        PGRAD__TRY(pgrad__model_backward(model, objective->pass, &objective->builder.batch, &how));
        if (objective->builder.batch.activations != NULL)
            sum->kept_rows += objective->builder.batch.n_rows;
        done += objective->builder.batch.n_targets;
        first = end;
    }
    /* Weights that are updated are not to be taken back by a progress function. */
    return updates != NULL ? PGRAD_OK : pgrad__progress(model->context, "backward", done, done);
}

/* The micro-batches, and with an optimizer their step. */
static pgrad_status run(pgrad_objective *objective, const pgrad_rollout *rollout, const counts *c,
                        double entropy_weight, uint32_t n_micro, pgrad_optimizer *optimizer,
                        totals *sum, pgrad_step_report *report)
{
    pgrad__tensor_updates updates;
    if (optimizer == NULL)
        return run_micro_batches(objective, rollout, c, entropy_weight, n_micro, NULL, sum);
    PGRAD__TRY(pgrad__tensor_updates_begin(optimizer, objective->model, &updates));
    pgrad_status status =
        run_micro_batches(objective, rollout, c, entropy_weight, n_micro, &updates, sum);
    pgrad__tensor_updates_end(&updates, status, report);
    return status;
}

static pgrad_status backward(pgrad_objective *objective, const pgrad_rollout *rollout,
                             const uint32_t *indices, uint32_t n,
                             const pgrad_backward_params *params, pgrad_step_report *report)
{
    counts c;
    PGRAD__TRY(choose(objective, rollout, indices, n, &c));
    if (c.n_chosen == 0)
        return pgrad__fail(PGRAD_E_STATE,
                           "objective_backward: no finished sequence with a token to "
                           "learn from (%u sequences in the rollout)",
                           rollout->n_sequences);
    double normalizer =
        params->normalizer_total > 0.0 ? params->normalizer_total : denominator(objective, &c);
    double entropy_tokens = params->n_tokens_total > 0.0 ? params->n_tokens_total : c.tokens;
    uint32_t n_micro = count_micro_batches(objective, rollout, c.n_chosen);
    set_weights(objective, rollout, &c, normalizer);

    totals sum = {.ratio_min = INFINITY, .ratio_max = -INFINITY};
    PGRAD__TRY(pgrad__lock_write(&objective->model->lock, "objective_backward: the model"));
    objective->builder.use_kept = pgrad__kept_are_of(rollout, objective->model);
    pgrad_status status =
        run(objective, rollout, &c, objective->params.entropy_coefficient / entropy_tokens, n_micro,
            params->optimizer, &sum, report);
    pgrad__unlock_write(&objective->model->lock);
    PGRAD__TRY(status);
    if (report != NULL)
        fill_report(objective, &sum, entropy_tokens, n_micro, report);
    return PGRAD_OK;
}

pgrad_status pgrad_objective_backward(pgrad_objective *objective, const pgrad_rollout *rollout,
                                      const uint32_t *indices, uint32_t n,
                                      const pgrad_backward_params *params,
                                      pgrad_step_report *report)
{
    pgrad__scope scope;
    pgrad_backward_params read;
    if (objective == NULL || rollout == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "objective_backward: %s is NULL",
                           objective == NULL ? "objective" : "rollout");
    if (rollout->model->config.n_vocab != objective->model->config.n_vocab)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "objective_backward: the model has %u tokens, the rollout's has %u",
                           objective->model->config.n_vocab, rollout->model->config.n_vocab);
    PGRAD__TRY(pgrad__report_check(report));
    PGRAD__TRY(pgrad__enter(objective->context, &scope));
    pgrad_status status = pgrad__params_read("backward", params, &read);
    if (status == PGRAD_OK)
        status = backward(objective, rollout, indices, n, &read, report);
    pgrad__leave(&scope);
    return status;
}
