/* Sequences of a rollout as the rows of a batch. */
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "rl/rollout.h"

size_t pgrad__batch_rows(const pgrad_rollout *rollout, uint32_t i)
{
    const pgrad__sequence *sequence = &rollout->sequences[i];
    return (size_t)rollout->groups[sequence->group].n_prompt + sequence->n_tokens - 1;
}

/* Growing does not keep what was there: free, then take more. */
static pgrad_status room(pgrad_context *context, void *array, size_t count, size_t size)
{
    void *block;
    memcpy(&block, array, sizeof block);
    pgrad__free(context, block);
    block = NULL;
    memcpy(array, &block, sizeof block);
    return pgrad__alloc(context, count, size, array);
}

static pgrad_status make_room(pgrad__batch_builder *b, size_t rows, size_t targets,
                              size_t sequences)
{
    if (rows > b->row_capacity) {
        b->row_capacity = 0;
        PGRAD__TRY(room(b->context, &b->tokens, rows, sizeof *b->tokens));
        b->row_capacity = rows;
    }
    if (targets > b->target_capacity) {
        b->target_capacity = 0;
        PGRAD__TRY(room(b->context, &b->targets, targets, sizeof *b->targets));
        PGRAD__TRY(room(b->context, &b->target_rows, targets, sizeof *b->target_rows));
        PGRAD__TRY(room(b->context, &b->inverse_tau, targets, sizeof *b->inverse_tau));
        b->target_capacity = targets;
    }
    if (sequences + 1 > b->sequence_capacity) {
        b->sequence_capacity = 0;
        PGRAD__TRY(room(b->context, &b->sequences, sequences + 1, sizeof *b->sequences));
        PGRAD__TRY(room(b->context, &b->offsets, sequences + 1, sizeof *b->offsets));
        b->sequence_capacity = sequences + 1;
    }
    return PGRAD_OK;
}

/* Rows: prompt, completion without its last token; the row before a completion token predicts it.
 */
static void put_sequence(pgrad__batch_builder *b, const pgrad_rollout *rollout, uint32_t i,
                         int supervised, size_t row, size_t target)
{
    const pgrad__sequence *sequence = &rollout->sequences[i];
    const pgrad__group *group = &rollout->groups[sequence->group];
    const pgrad_token *ids = pgrad__rollout_ids(rollout, i);
    const float inverse_tau = supervised ? 1.0f : (float)(1.0 / sequence->temperature);
    memcpy(b->tokens + row, rollout->prompts + group->prompt_offset,
           group->n_prompt * sizeof *b->tokens);
    memcpy(b->tokens + row + group->n_prompt, ids, (sequence->n_tokens - 1) * sizeof *b->tokens);
    for (uint32_t t = 0; t < sequence->n_tokens; t++) {
        b->targets[target + t] = ids[t];
        b->target_rows[target + t] = (uint32_t)(row + group->n_prompt - 1 + t);
        b->inverse_tau[target + t] = inverse_tau;
    }
}

pgrad_status pgrad__batch_build(pgrad__batch_builder *builder, const pgrad_rollout *rollout,
                                const uint32_t *indices, size_t n, int supervised)
{
    size_t rows = 0, targets = 0;
    for (size_t j = 0; j < n; j++) {
        rows += pgrad__batch_rows(rollout, indices[j]);
        targets += rollout->sequences[indices[j]].n_tokens;
    }
    PGRAD__TRY(make_room(builder, rows, targets, n));
    rows = targets = 0;
    for (size_t j = 0; j < n; j++) {
        put_sequence(builder, rollout, indices[j], supervised, rows, targets);
        builder->sequences[j] =
            (pgrad__attention_sequence){rows, (uint32_t)pgrad__batch_rows(rollout, indices[j])};
        builder->offsets[j] = targets;
        rows += builder->sequences[j].n_rows;
        targets += rollout->sequences[indices[j]].n_tokens;
    }
    builder->offsets[n] = targets;
    builder->batch = (pgrad__batch){.tokens = builder->tokens,
                                    .n_rows = rows,
                                    .sequences = builder->sequences,
                                    .n_sequences = n,
                                    .target_rows = builder->target_rows,
                                    .targets = builder->targets,
                                    .inverse_tau = builder->inverse_tau,
                                    .n_targets = targets};
    return PGRAD_OK;
}

void pgrad__batch_builder_free(pgrad__batch_builder *builder)
{
    if (builder->context == NULL)
        return;
    pgrad__free(builder->context, builder->tokens);
    pgrad__free(builder->context, builder->targets);
    pgrad__free(builder->context, builder->target_rows);
    pgrad__free(builder->context, builder->inverse_tau);
    pgrad__free(builder->context, builder->sequences);
    pgrad__free(builder->context, builder->offsets);
    memset(builder, 0, sizeof *builder);
}
