/* Final norm and output head over the target rows, in chunks: the [n_targets, n_vocab] matrix of
 * logits never exists. logits z = W norm(x); logprob, lse, entropy of z / tau. */
#include "model/pass.h"

#include <string.h>

#include "base/fail.h"

/* Bytes of logits held at a time, and the fewest rows whatever the vocabulary. */
#define LOGITS_BUDGET ((size_t)96 << 20)
#define MIN_CHUNK 64

/* Rows of a chunk: of the vocabulary alone, whole row blocks where they fit, so that where a chunk
 * ends says nothing about the order of sums over rows. */
static size_t chunk_rows(uint32_t n_vocab)
{
    size_t rows = LOGITS_BUDGET / ((size_t)n_vocab * sizeof(float));
    if (rows >= PGRAD__ROW_BLOCK)
        return rows - rows % PGRAD__ROW_BLOCK;
    return rows < MIN_CHUNK ? MIN_CHUNK : rows - rows % MIN_CHUNK;
}

void pgrad__head_lay_out(pgrad__head_pass *head, pgrad__arena *arena, int with_logits,
                         int with_backward)
{
    const pgrad__config *config = &head->model->config;
    size_t n = head->batch->n_targets, row = n * sizeof(float);
    head->gathered = pgrad__arena_take(arena, config->n_embd, row);
    head->normed = pgrad__arena_take(arena, config->n_embd, row);
    head->mean = pgrad__arena_take(arena, 1, row);
    head->rstd = pgrad__arena_take(arena, 1, row);
    if (!with_logits)
        return;
    head->chunk = chunk_rows(config->n_vocab);
    if (head->chunk > n)
        head->chunk = n;
    row = head->chunk * sizeof(float);
    head->logits = pgrad__arena_take(arena, config->n_vocab, row);
    head->logprob = pgrad__arena_take(arena, 1, row);
    head->lse = pgrad__arena_take(arena, 1, row);
    head->entropy = pgrad__arena_take(arena, 1, row);
    if (!with_backward)
        return;
    head->d_logprob = pgrad__arena_take(arena, 1, row);
    head->entropy_weight = pgrad__arena_take(arena, 1, row);
    head->d_normed = pgrad__arena_take(arena, config->n_embd, n * sizeof(float));
}

void pgrad__head_gather(pgrad__head_pass *head, const float *output)
{
    size_t embd = head->model->config.n_embd, n = head->batch->n_targets;
    for (size_t i = 0; i < n; i++)
        memcpy(head->gathered + i * embd, output + head->batch->target_rows[i] * embd,
               embd * sizeof(float));
    pgrad__norm_forward(head->model, &head->model->stem->norm, head->gathered, n, head->normed,
                        head->mean, head->rstd);
}

pgrad_status pgrad__head_logits(pgrad__head_pass *head, size_t first, size_t n, float *logits)
{
    const pgrad_model *model = head->model;
    size_t embd = model->config.n_embd;
    pgrad__product product = {
        .weight = &model->stem->head->matrix, .y = logits, .ldy = model->config.n_vocab};
    return pgrad__matmul(model->context, &head->pass->workspace, head->normed + first * embd, embd,
                         n, &product, 1);
}

/* The logits of a chunk and their statistics. */
static pgrad_status chunk_forward(pgrad__head_pass *head, size_t first, size_t n, float *logprob,
                                  float *entropy)
{
    const pgrad__batch *batch = head->batch;
    size_t vocab = head->model->config.n_vocab;
    PGRAD__TRY(pgrad__check_cancel(head->model->context));
    PGRAD__TRY(pgrad__head_logits(head, first, n, head->logits));
    pgrad__softmax_stats(head->model->context, head->logits, vocab, n, vocab,
                         batch->inverse_tau + first, batch->targets + first, logprob, head->lse,
                         entropy);
    return PGRAD_OK;
}

pgrad_status pgrad__head_score(pgrad__head_pass *head, float *logprob, float *entropy)
{
    size_t total = head->batch->n_targets;
    for (size_t first = 0; first < total; first += head->chunk) {
        size_t n = total - first < head->chunk ? total - first : head->chunk;
        PGRAD__TRY(chunk_forward(head, first, n, logprob == NULL ? NULL : logprob + first,
                                 entropy == NULL ? NULL : entropy + first));
    }
    return PGRAD_OK;
}

static int all_zero_values(const float *x, size_t n)
{
    for (size_t i = 0; i < n; i++) {
        if (!(x[i] == 0.0f)) /* a NaN is not zero */
            return 0;
    }
    return 1;
}

/* dz in the place of z; d_normed = W^T dz; dW += dz^T normed. */
static pgrad_status chunk_backward(pgrad__head_pass *head, size_t first, size_t n)
{
    const pgrad_model *model = head->model;
    const pgrad__batch *batch = head->batch;
    pgrad__tensor *weight = model->stem->head;
    size_t vocab = model->config.n_vocab, embd = model->config.n_embd;
    pgrad__softmax_grad(model->context, head->logits, vocab, n, vocab, batch->inverse_tau + first,
                        batch->targets + first, head->lse, head->entropy, head->d_logprob,
                        head->entropy_weight);
    PGRAD__TRY(pgrad__matmul_grad_input(model->context, &head->pass->workspace, head->logits, vocab,
                                        n, &weight->matrix, head->d_normed + first * embd, embd,
                                        0));
    return pgrad__matmul_grad_weight(model->context, &head->pass->workspace, head->logits, vocab,
                                     head->normed + first * embd, embd, n, &weight->grad_matrix);
}

pgrad_status pgrad__head_backward(pgrad__head_pass *head, pgrad__loss_fn loss, void *user,
                                  float *d_stream, size_t n_rows, int *all_zero)
{
    const pgrad_model *model = head->model;
    size_t embd = model->config.n_embd, total = head->batch->n_targets;
    *all_zero = 1;
    for (size_t first = 0; first < total; first += head->chunk) {
        size_t n = total - first < head->chunk ? total - first : head->chunk;
        PGRAD__TRY(chunk_forward(head, first, n, head->logprob, head->entropy));
        PGRAD__TRY(loss(user, first, n, head->logprob, head->entropy, head->d_logprob,
                        head->entropy_weight));
        if (all_zero_values(head->d_logprob, n) && all_zero_values(head->entropy_weight, n)) {
            memset(head->d_normed + first * embd, 0, n * embd * sizeof(float));
            continue;
        }
        *all_zero = 0;
        PGRAD__TRY(chunk_backward(head, first, n));
    }
    if (*all_zero)
        return PGRAD_OK;
    /* normed has done its part and takes the gradient at the gathered rows. */
    memset(head->normed, 0, total * embd * sizeof(float));
    pgrad__norm_backward(model, &model->stem->norm, head->d_normed, head->gathered, total,
                         head->mean, head->rstd, head->normed);
    memset(d_stream, 0, n_rows * embd * sizeof(float));
    for (size_t i = 0; i < total; i++) { /* several may have one row */
        float *row = d_stream + head->batch->target_rows[i] * embd;
        for (size_t d = 0; d < embd; d++)
            row[d] += head->normed[i * embd + d];
    }
    return PGRAD_OK;
}
