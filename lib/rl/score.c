/* Log-probabilities of a rollout's completions under a model. */
#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "rl/rollout.h"

enum { ROWS = 2048 }; /* of a pass, at least one sequence */

/* Sequences from `first` on that make one pass: their indices in chosen. */
static size_t choose(const pgrad_rollout *rollout, uint32_t *first, uint32_t *chosen, size_t max)
{
    size_t rows = 0, n = 0;
    for (; *first < rollout->n_sequences && n < max; (*first)++) {
        if (!pgrad__sequence_counts(&rollout->sequences[*first]))
            continue;
        chosen[n] = *first;
        rows += pgrad__batch_rows(&rollout->builder, rollout, chosen, n);
        if (n > 0 && rows > ROWS)
            break;
        n++;
    }
    return n;
}

static pgrad_status check(const pgrad_rollout *rollout, const uint32_t *chosen, size_t n,
                          const float *logprob)
{
    const size_t *offsets = rollout->builder.offsets;
    for (size_t j = 0; j < n; j++)
        for (uint32_t t = 0; t < rollout->sequences[chosen[j]].n_tokens; t++)
            if (!isfinite(logprob[offsets[j] + t]))
                return pgrad__fail(
                    PGRAD_E_NUMERIC,
                    "rollout_score: sequence %u, token %u: the log-probability is %g", chosen[j], t,
                    (double)logprob[offsets[j] + t]);
    return PGRAD_OK;
}

/* Stored when all are computed: a failure leaves the arrays as they were. */
static void store(pgrad_rollout *rollout, uint32_t which, const float *logprob,
                  const float *entropy)
{
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        pgrad__sequence *sequence = &rollout->sequences[i];
        if (!pgrad__sequence_counts(sequence))
            continue;
        memcpy(pgrad__rollout_values(rollout, which, i), logprob,
               sequence->n_tokens * sizeof *logprob);
        sequence->filled |= 1u << which;
        if (which == PGRAD_CURRENT) {
            memcpy(pgrad__rollout_values(rollout, PGRAD_ENTROPY, i), entropy,
                   sequence->n_tokens * sizeof *entropy);
            sequence->filled |= 1u << PGRAD_ENTROPY;
        }
        logprob += sequence->n_tokens;
        entropy += sequence->n_tokens;
    }
}

/* Tokens of all completions, and whether the model has room for them. */
static pgrad_status count_tokens(const pgrad_rollout *rollout, const pgrad_model *model, size_t *n)
{
    *n = 0;
    for (uint32_t i = 0; i < rollout->n_sequences; i++) {
        if (!pgrad__sequence_counts(&rollout->sequences[i]))
            continue;
        if (pgrad__sequence_positions(rollout, i) > model->n_context)
            return pgrad__fail(
                PGRAD_E_MISMATCH,
                "rollout_score: sequence %u takes %zu positions, the model's context is %u", i,
                pgrad__sequence_positions(rollout, i), model->n_context);
        *n += rollout->sequences[i].n_tokens;
    }
    if (*n == 0)
        return pgrad__fail(PGRAD_E_STATE, "rollout_score: there are no completions");
    return PGRAD_OK;
}

enum { MAX_SEQUENCES = 256 };

/* Log-probabilities and entropies of so many tokens. */
static size_t score_floats(size_t n_tokens)
{
    return 2 * n_tokens;
}

pgrad_status pgrad__score_measure(pgrad_rollout *rollout, pgrad_model *model, uint32_t n_workers,
                                  pgrad__pass_size *size, size_t *n_floats)
{
    uint32_t chosen[MAX_SEQUENCES], first = 0;
    size_t n_tokens;
    PGRAD__TRY(count_tokens(rollout, model, &n_tokens));
    *n_floats = score_floats(n_tokens);
    for (size_t n; (n = choose(rollout, &first, chosen, MAX_SEQUENCES)) > 0;) {
        PGRAD__TRY(pgrad__batch_build(&rollout->builder, rollout, chosen, n, 0));
        PGRAD__TRY(pgrad__score_size(model, &rollout->builder.batch, n_workers, size));
    }
    return PGRAD_OK;
}

static pgrad_status score(pgrad_rollout *rollout, pgrad_model *model, uint32_t which)
{
    uint32_t chosen[MAX_SEQUENCES], first = 0;
    size_t n_tokens, done = 0;
    float *logprob;
    PGRAD__TRY(count_tokens(rollout, model, &n_tokens));
    if (rollout->pass == NULL)
        PGRAD__TRY(pgrad__pass_create(rollout->model, &rollout->pass));
    PGRAD__TRY(pgrad__workspace_reserve(&rollout->scores, score_floats(n_tokens), &logprob));
    float *entropy = logprob + n_tokens;
    for (size_t n; (n = choose(rollout, &first, chosen, MAX_SEQUENCES)) > 0;) {
        rollout->generating = 1; /* while the progress function looks at it */
        pgrad_status status = pgrad__progress(rollout->context, "score", done, n_tokens);
        rollout->generating = 0;
        if (status != PGRAD_OK)
            return status;
        PGRAD__TRY(pgrad__batch_build(&rollout->builder, rollout, chosen, n, 0));
        PGRAD__TRY(pgrad__model_score(model, rollout->pass, &rollout->builder.batch, logprob + done,
                                      entropy + done));
        PGRAD__TRY(check(rollout, chosen, n, logprob + done));
        done += rollout->builder.batch.n_targets;
    }
    store(rollout, which, logprob, entropy);
    return PGRAD_OK;
}

pgrad_status pgrad_rollout_score(pgrad_rollout *rollout, pgrad_model *model, uint32_t which)
{
    pgrad__scope scope;
    if (rollout == NULL || model == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_score: %s is NULL",
                           rollout == NULL ? "rollout" : "model");
    PGRAD__TRY(pgrad__rollout_check_idle(rollout, "rollout_score"));
    if (which != PGRAD_CURRENT && which != PGRAD_OLD && which != PGRAD_REFERENCE)
        return pgrad__fail(PGRAD_E_INVALID,
                           "rollout_score: which: expected CURRENT, OLD or REFERENCE, found %u",
                           which);
    if (model->config.n_vocab != rollout->model->config.n_vocab)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "rollout_score: the model has %u tokens, the rollout's has %u",
                           model->config.n_vocab, rollout->model->config.n_vocab);
    PGRAD__TRY(pgrad__enter(rollout->context, &scope));
    pgrad_status status = pgrad__lock_read(&model->lock, "rollout_score: the model");
    if (status == PGRAD_OK) {
        status = score(rollout, model, which);
        pgrad__unlock_read(&model->lock);
    }
    pgrad__leave(&scope);
    return status;
}
