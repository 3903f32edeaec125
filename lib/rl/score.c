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
        rows += pgrad__batch_rows(rollout, *first);
        if (n > 0 && rows > ROWS)
            break;
        chosen[n++] = *first;
    }
    return n;
}

static pgrad_status store(pgrad_rollout *rollout, const uint32_t *chosen, size_t n, uint32_t which,
                          const float *logprob, const float *entropy)
{
    const size_t *offsets = rollout->builder.offsets;
    for (size_t j = 0; j < n; j++) {
        pgrad__sequence *sequence = &rollout->sequences[chosen[j]];
        for (uint32_t t = 0; t < sequence->n_tokens; t++)
            if (!isfinite(logprob[offsets[j] + t]))
                return pgrad__fail(PGRAD_E_NUMERIC,
                                   "rollout_score: sequence %u, token %u: the log-probability is %g",
                                   chosen[j], t, (double)logprob[offsets[j] + t]);
        memcpy(pgrad__rollout_values(rollout, which, chosen[j]), logprob + offsets[j],
               sequence->n_tokens * sizeof *logprob);
        sequence->filled |= 1u << which;
        if (which == PGRAD_CURRENT) {
            memcpy(pgrad__rollout_values(rollout, PGRAD_ENTROPY, chosen[j]), entropy + offsets[j],
                   sequence->n_tokens * sizeof *entropy);
            sequence->filled |= 1u << PGRAD_ENTROPY;
        }
    }
    return PGRAD_OK;
}

static pgrad_status score(pgrad_rollout *rollout, pgrad_model *model, uint32_t which)
{
    enum { MAX_SEQUENCES = 256 };
    uint32_t chosen[MAX_SEQUENCES], first = 0;
    int any = 0;
    if (rollout->pass == NULL)
        PGRAD__TRY(pgrad__pass_create(rollout->model, &rollout->pass));
    for (size_t n; (n = choose(rollout, &first, chosen, MAX_SEQUENCES)) > 0;) {
        float *logprob, *entropy;
        any = 1;
        PGRAD__TRY(pgrad__progress(rollout->context, "score", first, rollout->n_sequences));
        PGRAD__TRY(pgrad__batch_build(&rollout->builder, rollout, chosen, n, 0));
        PGRAD__TRY(pgrad__workspace_reserve(&rollout->scores, 2 * rollout->builder.batch.n_targets,
                                            &logprob));
        entropy = logprob + rollout->builder.batch.n_targets;
        PGRAD__TRY(pgrad__model_score(model, rollout->pass, &rollout->builder.batch, logprob, entropy));
        PGRAD__TRY(store(rollout, chosen, n, which, logprob, entropy));
    }
    if (!any)
        return pgrad__fail(PGRAD_E_STATE, "rollout_score: there are no completions");
    return PGRAD_OK;
}

pgrad_status pgrad_rollout_score(pgrad_rollout *rollout, pgrad_model *model, uint32_t which)
{
    pgrad__scope scope;
    if (rollout == NULL || model == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "rollout_score: %s is NULL",
                           rollout == NULL ? "rollout" : "model");
    if (which != PGRAD_CURRENT && which != PGRAD_OLD && which != PGRAD_REFERENCE)
        return pgrad__fail(PGRAD_E_INVALID,
                           "rollout_score: which: expected CURRENT, OLD or REFERENCE, found %u", which);
    if (model->config.n_vocab != rollout->model->config.n_vocab)
        return pgrad__fail(PGRAD_E_MISMATCH, "rollout_score: the model has %u tokens, the rollout's has %u",
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
