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

/* Sets kept_index: those with a kept row, and the prefixes in front of them. Returns how many. */
static size_t choose(pgrad__trunk *trunk, const pgrad__head_pass *head)
{
    size_t n = 0;
    memset(trunk->kept_index, 0, trunk->n_sequences * sizeof *trunk->kept_index);
    for (size_t i = 0; i < head->n_kept; i++) {
        size_t s = sequence_of(trunk, head->kept_rows[i]);
        trunk->kept_index[s] = 1;
        if (trunk->sequences[s].prefix > 0)
            trunk->kept_index[trunk->sequences[s].prefix - 1] = 1;
    }
    for (size_t s = 0; s < trunk->n_sequences; s++) {
        if (trunk->kept_index[s] > 0)
            trunk->kept_index[s] = (uint32_t)++n;
    }
    return n;
}

/* Moves the rows of the kept sequences of x, [n_rows, width], together. */
static void pack(const pgrad__trunk *trunk, float *x, size_t width)
{
    size_t row = 0;
    for (size_t s = 0; s < trunk->n_sequences && x != NULL; s++) {
        const pgrad__attention_sequence *sequence = &trunk->sequences[s];
        if (trunk->kept_index[s] == 0)
            continue;
        if (row != sequence->first_row)
            memmove(x + row * width, x + sequence->first_row * width,
                    sequence->n_rows * width * sizeof(float));
        row += sequence->n_rows;
    }
}

static void pack_layer(const pgrad__trunk *trunk, pgrad__activations *kept)
{
    const pgrad__config *config = &trunk->model->config;
    pack(trunk, kept->middle, config->n_embd);
    for (size_t i = 0; i < 2; i++) {
        pack(trunk, kept->mean[i], 1);
        pack(trunk, kept->rstd[i], 1);
    }
    pack(trunk, kept->qkv, pgrad__qkv_width(config));
    pack(trunk, kept->attention, pgrad__query_width(config));
    pack(trunk, kept->lse, config->n_heads);
    for (size_t i = 0; i < PGRAD__MAX_EXPAND; i++)
        pack(trunk, kept->expand[i], config->n_ff);
}

/* The batch of the kept sequences, in the trunk's arrays. */
static pgrad__batch kept_batch(pgrad__trunk *trunk)
{
    pgrad__batch batch = {.tokens = trunk->kept_tokens, .sequences = trunk->kept_sequences};
    for (size_t s = 0; s < trunk->n_sequences; s++) {
        pgrad__attention_sequence sequence = trunk->sequences[s];
        if (trunk->kept_index[s] == 0)
            continue;
        memcpy(trunk->kept_tokens + batch.n_rows, trunk->tokens + sequence.first_row,
               sequence.n_rows * sizeof *trunk->tokens);
        sequence.first_row = batch.n_rows;
        if (sequence.prefix > 0)
            sequence.prefix = trunk->kept_index[sequence.prefix - 1];
        batch.n_rows += sequence.n_rows;
        trunk->kept_sequences[batch.n_sequences++] = sequence;
    }
    return batch;
}

void pgrad__trunk_drop(pgrad__trunk *trunk, const pgrad__head_pass *head)
{
    const uint32_t n_layers = trunk->model->config.n_layers;
    if (choose(trunk, head) == trunk->n_sequences)
        return;
    for (uint32_t i = 0; i < n_layers; i++) {
        pack(trunk, trunk->layers[i].input, trunk->model->config.n_embd);
        /* With recompute the rest is the last layer's. */
        if (!trunk->recompute || i + 1 == n_layers)
            pack_layer(trunk, &trunk->layers[i]);
    }
    pack(trunk, trunk->d_stream, trunk->model->config.n_embd);
    pgrad__batch batch = kept_batch(trunk);
    pgrad__trunk_set_batch(trunk, &batch);
}
