/* Sequences none of whose targets has a derivative, a group without spread for one, take no part in
 * the backward pass: the rows of the others move together. */
#include "model/pass.h"

#include <string.h>

/* The sequence of a row: sequences lie one after another. */
static size_t sequence_of(const pgrad__trunk *trunk, uint32_t row)
{
    size_t low = 0, high = trunk->n_sequences;
    while (high - low > 1) {
        size_t middle = (low + high) / 2;
        if (trunk->sequences[middle].first_row <= row)
            low = middle;
        else
            high = middle;
    }
    return low;
}

/* Sets remaining_index: those with a kept row, and the prefixes in front of them. Returns how many.
 */
static size_t choose(pgrad__trunk *trunk, const pgrad__head_pass *head)
{
    size_t n = 0;
    memset(trunk->remaining_index, 0, trunk->n_sequences * sizeof *trunk->remaining_index);
    for (size_t i = 0; i < head->n_kept; i++) {
        size_t s = sequence_of(trunk, head->kept_rows[i]);
        trunk->remaining_index[s] = 1;
        if (trunk->sequences[s].prefix > 0)
            trunk->remaining_index[trunk->sequences[s].prefix - 1] = 1;
    }
    for (size_t s = 0; s < trunk->n_sequences; s++) {
        if (trunk->remaining_index[s] > 0)
            trunk->remaining_index[s] = (uint32_t)++n;
    }
    return n;
}

/* Moves the rows of the kept sequences of x, [n_rows, width], together. */
static void pack(const pgrad__trunk *trunk, float *x, size_t width)
{
    size_t row = 0;
    for (size_t s = 0; s < trunk->n_sequences; s++) {
        const pgrad__attention_sequence *sequence = &trunk->sequences[s];
        if (trunk->remaining_index[s] == 0)
            continue;
        if (row != sequence->first_row)
            memmove(x + row * width, x + sequence->first_row * width,
                    sequence->n_rows * width * sizeof(float));
        row += sequence->n_rows;
    }
}

static void pack_layer(const pgrad__trunk *trunk, pgrad__activations *kept)
{
    pgrad__activation_field fields[PGRAD__MAX_FIELDS];
    const size_t n = pgrad__activation_fields(&trunk->model->config, kept, fields);
    for (size_t i = 0; i < n; i++)
        pack(trunk, *fields[i].at, fields[i].width);
}

/* What the forward pass has left in the trunk; stored rows are gathered when they are needed. */
static void pack_layers(const pgrad__trunk *trunk)
{
    const uint32_t n_layers = trunk->model->config.n_layers;
    for (uint32_t i = 0; i < n_layers; i++) {
        pack(trunk, trunk->layers[i].input, trunk->model->config.n_embd);
        /* With recompute the rest is the last layer's. */
        if (!trunk->recompute || i + 1 == n_layers)
            pack_layer(trunk, &trunk->layers[i]);
    }
}

/* The batch of the kept sequences, in the trunk's arrays. */
static pgrad__batch remaining_batch(pgrad__trunk *trunk)
{
    pgrad__batch batch = {.tokens = trunk->remaining_tokens,
                          .sequences = trunk->remaining_sequences,
                          .activations = trunk->stored == NULL ? NULL : trunk->remaining_stored};
    for (size_t s = 0; s < trunk->n_sequences; s++) {
        pgrad__attention_sequence sequence = trunk->sequences[s];
        if (trunk->remaining_index[s] == 0)
            continue;
        memcpy(trunk->remaining_tokens + batch.n_rows, trunk->tokens + sequence.first_row,
               sequence.n_rows * sizeof *trunk->tokens);
        if (trunk->stored != NULL)
            memcpy(trunk->remaining_stored + batch.n_rows, trunk->stored + sequence.first_row,
                   sequence.n_rows * sizeof *trunk->stored);
        sequence.first_row = batch.n_rows;
        if (sequence.prefix > 0)
            sequence.prefix = trunk->remaining_index[sequence.prefix - 1];
        batch.n_rows += sequence.n_rows;
        trunk->remaining_sequences[batch.n_sequences++] = sequence;
    }
    return batch;
}

void pgrad__trunk_drop(pgrad__trunk *trunk, const pgrad__head_pass *head)
{
    if (choose(trunk, head) == trunk->n_sequences)
        return;
    if (trunk->stored == NULL)
        pack_layers(trunk);
    pack(trunk, trunk->d_stream, trunk->model->config.n_embd);
    pgrad__batch batch = remaining_batch(trunk);
    pgrad__trunk_set_batch(trunk, &batch);
}
