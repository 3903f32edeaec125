/* Final norm and output head over the target rows, in chunks: the [n_targets, n_vocab] matrix of
 * logits never exists. logits z = W norm(x); logprob, lse, entropy of z / tau. */
#include "model/pass.h"

#include <string.h>

#include "base/fail.h"
#include "model/arch.h"

/* Bytes of logits held at a time, whatever the vocabulary: six rows of the largest. */
#define LOGITS_BUDGET ((size_t)96 << 20)

_Static_assert(PGRAD__MAX_VOCAB * sizeof(float) <= LOGITS_BUDGET, "a row of logits");

/* Rows of a chunk: of the vocabulary alone, whole row blocks where they fit, so that where a chunk
 * ends says nothing about the order of sums over rows. */
static size_t chunk_rows(uint32_t n_vocab)
{
    size_t rows = LOGITS_BUDGET / ((size_t)n_vocab * sizeof(float));
    return rows < PGRAD__ROW_BLOCK ? rows : rows - rows % PGRAD__ROW_BLOCK;
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
    head->inverse_tau = pgrad__arena_take(arena, 1, row);
    head->targets = pgrad__arena_take(arena, head->chunk, sizeof *head->targets);
    head->kept_rows = pgrad__arena_take(arena, n, sizeof *head->kept_rows);
    head->d_normed = pgrad__arena_take(arena, config->n_embd, n * sizeof(float));
}

size_t pgrad__head_scratch(const pgrad__head_pass *head, const pgrad__machine *machine,
                           int with_backward)
{
    const pgrad__tensor *weight = head->model->stem->head;
    const pgrad__product product = {.weight = &weight->matrix};
    const size_t n = head->chunk > 0 ? head->chunk : head->batch->n_targets;
    size_t most = pgrad__matmul_scratch(machine, n, &product, 1);
    if (with_backward) {
        const size_t back[2] = {
            pgrad__matmul_grad_input_scratch(machine, n, &weight->matrix),
            pgrad__matmul_grad_weight_scratch(machine, n, &weight->grad_matrix)};
        most = back[0] > most ? back[0] : most;
        most = back[1] > most ? back[1] : most;
    }
    return most;
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

/* Puts what the backward pass needs of a target to the place of an earlier one. */
static void move_target(pgrad__head_pass *head, size_t from, size_t to)
{
    size_t embd = head->model->config.n_embd;
    if (from == to)
        return;
    memcpy(head->gathered + to * embd, head->gathered + from * embd, embd * sizeof(float));
    memcpy(head->normed + to * embd, head->normed + from * embd, embd * sizeof(float));
    head->mean[to] = head->mean[from];
    head->rstd[to] = head->rstd[from];
}

/* Moves the targets of a chunk with a derivative to its front, and behind those kept before;
 * returns how many they are. A NaN is not zero. */
static size_t keep_targets(pgrad__head_pass *head, size_t first, size_t n)
{
    const pgrad__batch *batch = head->batch;
    size_t vocab = head->model->config.n_vocab, kept = 0;
    for (size_t i = 0; i < n; i++) {
        if (head->d_logprob[i] == 0.0f && head->entropy_weight[i] == 0.0f)
            continue;
        if (kept != i)
            memcpy(head->logits + kept * vocab, head->logits + i * vocab, vocab * sizeof(float));
        head->lse[kept] = head->lse[i];
        head->entropy[kept] = head->entropy[i];
        head->d_logprob[kept] = head->d_logprob[i];
        head->entropy_weight[kept] = head->entropy_weight[i];
        head->inverse_tau[kept] = batch->inverse_tau[first + i];
        head->targets[kept] = batch->targets[first + i];
        head->kept_rows[head->n_kept + kept] = batch->target_rows[first + i];
        move_target(head, first + i, head->n_kept + kept);
        kept++;
    }
    return kept;
}

/* dz in the place of z; d_normed = W^T dz; dW += dz^T normed; for the n targets behind n_kept. */
static pgrad_status chunk_backward(pgrad__head_pass *head, size_t n)
{
    const pgrad_model *model = head->model;
    pgrad__tensor *weight = model->stem->head;
    size_t vocab = model->config.n_vocab, embd = model->config.n_embd, at = head->n_kept * embd;
    pgrad__softmax_grad(model->context, head->logits, vocab, n, vocab, head->inverse_tau,
                        head->targets, head->lse, head->entropy, head->d_logprob,
                        head->entropy_weight);
    PGRAD__TRY(pgrad__matmul_grad_input(model->context, &head->pass->workspace, head->logits, vocab,
                                        n, &weight->matrix, head->d_normed + at, embd, 0));
    return pgrad__matmul_grad_weight(model->context, &head->pass->workspace, head->logits, vocab,
                                     head->normed + at, embd, n, &weight->grad_matrix);
}

/* From d_normed through the final norm to the rows of d_stream. */
static void output_backward(pgrad__head_pass *head, float *d_stream, size_t n_rows)
{
    const pgrad_model *model = head->model;
    size_t embd = model->config.n_embd, n = head->n_kept;
    /* normed has done its part and takes the gradient at the gathered rows. */
    memset(head->normed, 0, n * embd * sizeof(float));
    pgrad__norm_backward(model, &model->stem->norm, head->d_normed, head->gathered, n, head->mean,
                         head->rstd, head->normed);
    memset(d_stream, 0, n_rows * embd * sizeof(float));
    for (size_t i = 0; i < n; i++) { /* several may have one row */
        float *row = d_stream + head->kept_rows[i] * embd;
        for (size_t d = 0; d < embd; d++)
            row[d] += head->normed[i * embd + d];
    }
}

pgrad_status pgrad__head_backward(pgrad__head_pass *head, pgrad__loss_fn loss, void *user,
                                  float *d_stream, size_t n_rows)
{
    size_t total = head->batch->n_targets;
    head->n_kept = 0;
    for (size_t first = 0; first < total; first += head->chunk) {
        size_t n = total - first < head->chunk ? total - first : head->chunk;
        PGRAD__TRY(chunk_forward(head, first, n, head->logprob, head->entropy));
        PGRAD__TRY(loss(user, first, n, head->logprob, head->entropy, head->d_logprob,
                        head->entropy_weight));
        size_t kept = keep_targets(head, first, n);
        PGRAD__TRY(chunk_backward(head, kept));
        head->n_kept += kept;
    }
    if (head->n_kept > 0)
        output_backward(head, d_stream, n_rows);
    return PGRAD_OK;
}
