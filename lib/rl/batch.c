/* Sequences of a rollout as the rows of a batch. */
#include <string.h>

#include "base/fail.h"
#include "rl/rollout.h"

size_t pgrad__sequence_positions(const pgrad_rollout *rollout, uint32_t i)
{
    const pgrad__sequence *sequence = &rollout->sequences[i];
    return (size_t)rollout->groups[sequence->group].n_prompt + sequence->n_tokens - 1;
}

/* 1 when indices[j] shares the rows of its prompt with the one before it. */
static int shares(const pgrad__batch_builder *builder, const pgrad_rollout *rollout,
                  const uint32_t *indices, size_t j)
{
    return !builder->whole && j > 0 &&
           rollout->sequences[indices[j]].group == rollout->sequences[indices[j - 1]].group;
}

size_t pgrad__batch_rows(const pgrad__batch_builder *builder, const pgrad_rollout *rollout,
                         const uint32_t *indices, size_t j)
{
    const size_t n = pgrad__sequence_positions(rollout, indices[j]);
    if (!shares(builder, rollout, indices, j))
        return n;
    return n - rollout->groups[rollout->sequences[indices[j]].group].n_prompt;
}

static void lay_out(pgrad__arena *arena, void *user)
{
    pgrad__batch_builder *b = user;
    const pgrad__batch *batch = &b->batch;
    b->tokens = pgrad__arena_take(arena, batch->n_rows, sizeof *b->tokens);
    b->targets = pgrad__arena_take(arena, batch->n_targets, sizeof *b->targets);
    b->target_rows = pgrad__arena_take(arena, batch->n_targets, sizeof *b->target_rows);
    b->inverse_tau = pgrad__arena_take(arena, batch->n_targets, sizeof *b->inverse_tau);
    b->sequences = pgrad__arena_take(arena, batch->n_sequences, sizeof *b->sequences);
    b->offsets = pgrad__arena_take(arena, batch->n_sequences + 1, sizeof *b->offsets);
    b->activations =
        pgrad__arena_take(arena, b->use_kept ? batch->n_rows : 0, sizeof *b->activations);
}

/* A batch while it is laid out. */
typedef struct layout {
    size_t row, target, n_sequences;
    uint32_t prefix;  /* 1 + the index of the prompt that the next completion shares; 0: none */
    size_t first_row; /* of that prompt */
} layout;

static void put_rows(pgrad__batch_builder *b, layout *at, const pgrad_token *tokens, size_t n,
                     uint32_t prefix)
{
    memcpy(b->tokens + at->row, tokens, n * sizeof *b->tokens);
    at->row += n;
    if (n > 0)
        b->sequences[at->n_sequences++] =
            (pgrad__attention_sequence){at->row - n, (uint32_t)n, prefix};
}

/* The row before a completion token predicts it: the prompt's last row the first one. */
static void put_targets(pgrad__batch_builder *b, layout *at, const pgrad__sequence *sequence,
                        const pgrad_token *ids, size_t last_prompt_row, size_t first_row,
                        int supervised)
{
    const float inverse_tau = supervised ? 1.0f : (float)(1.0 / sequence->temperature);
    for (uint32_t t = 0; t < sequence->n_tokens; t++, at->target++) {
        b->targets[at->target] = ids[t];
        b->target_rows[at->target] = (uint32_t)(t == 0 ? last_prompt_row : first_row + t - 1);
        b->inverse_tau[at->target] = inverse_tau;
    }
}

/* indices[j]: its prompt's rows, unless they are there, and its completion's without the last. A
 * sequence that shares with none is one run of rows. */
static void put_sequence(pgrad__batch_builder *b, const pgrad_rollout *rollout,
                         const uint32_t *indices, size_t n, size_t j, int supervised, layout *at)
{
    const pgrad__sequence *sequence = &rollout->sequences[indices[j]];
    const pgrad__group *group = &rollout->groups[sequence->group];
    const pgrad_token *prompt = rollout->prompts + group->prompt_offset;
    const pgrad_token *ids = pgrad__rollout_ids(rollout, indices[j]);
    const uint32_t n_rows = sequence->n_tokens - 1;
    const int shared = shares(b, rollout, indices, j);
    if (!shared)
        at->first_row = at->row;
    if (shared || (j + 1 < n && shares(b, rollout, indices, j + 1))) {
        if (!shared) {
            put_rows(b, at, prompt, group->n_prompt, 0);
            at->prefix = (uint32_t)at->n_sequences;
        }
        put_rows(b, at, ids, n_rows, at->prefix);
    } else {
        memcpy(b->tokens + at->row, prompt, group->n_prompt * sizeof *prompt);
        memcpy(b->tokens + at->row + group->n_prompt, ids, n_rows * sizeof *ids);
        at->row += group->n_prompt + n_rows;
        b->sequences[at->n_sequences++] =
            (pgrad__attention_sequence){at->first_row, group->n_prompt + n_rows, 0};
    }
    put_targets(b, at, sequence, ids, at->first_row + group->n_prompt - 1, at->row - n_rows,
                supervised);
}

/* The kept activations of sequence i's last n rows, which it has in the batch from `row` on; 0 when
 * some are not kept. */
static int find_kept(pgrad__batch_builder *b, const pgrad_rollout *rollout, uint32_t i, size_t row,
                     size_t n)
{
    const size_t first = pgrad__sequence_positions(rollout, i) - n;
    int all = rollout->sequences[i].sampled != 0; /* none are of a completion that was added */
    for (size_t k = 0; k < n; k++) {
        b->activations[row + k] = rollout->activations.rows[pgrad__kept_row(rollout, i, first + k)];
        all &= b->activations[row + k] != NULL;
    }
    return all;
}

pgrad_status pgrad__batch_build(pgrad__batch_builder *builder, const pgrad_rollout *rollout,
                                const uint32_t *indices, size_t n, int supervised)
{
    size_t rows = 0, targets = 0;
    layout at = {0};
    int kept = builder->use_kept && rollout->activations.rows != NULL;
    for (size_t j = 0; j < n; j++) {
        rows += pgrad__batch_rows(builder, rollout, indices, j);
        targets += rollout->sequences[indices[j]].n_tokens;
    }
    /* A prompt and a completion each, at most. */
    builder->batch = (pgrad__batch){.n_rows = rows, .n_sequences = 2 * n, .n_targets = targets};
    PGRAD__TRY(pgrad__arena_plan(&builder->arena, lay_out, builder));
    for (size_t j = 0; j < n; j++) {
        const size_t row = at.row;
        builder->offsets[j] = at.target;
        put_sequence(builder, rollout, indices, n, j, supervised, &at);
        kept = kept && find_kept(builder, rollout, indices[j], row, at.row - row);
    }
    builder->offsets[n] = targets;
    builder->batch = (pgrad__batch){.tokens = builder->tokens,
                                    .n_rows = rows,
                                    .sequences = builder->sequences,
                                    .n_sequences = at.n_sequences,
                                    .target_rows = builder->target_rows,
                                    .targets = builder->targets,
                                    .inverse_tau = builder->inverse_tau,
                                    .n_targets = targets,
                                    .activations = kept ? builder->activations : NULL};
    return PGRAD_OK;
}

void pgrad__batch_builder_free(pgrad__batch_builder *builder)
{
    if (builder->arena.context != NULL)
        pgrad__arena_free(&builder->arena);
    memset(builder, 0, sizeof *builder);
}
