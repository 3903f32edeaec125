/* Log-softmax over rows of logits: a row is a task. */
#include "base/pool.h"
#include "kernel/kernel.h"
#include "kernel/vec.h"

typedef struct job {
    const pgrad__vector_ops *vec;
    const float *z;
    float *dz;
    size_t ldz, n;
    const float *inverse_tau;
    const pgrad_token *target;
    float *logprob, *lse_out, *entropy_out;
    const float *lse, *entropy, *d_logprob, *entropy_weight;
} job;

static void stats_task(void *argument, size_t t, uint32_t worker)
{
    const job *j = argument;
    const float *z = j->z + t * j->ldz;
    pgrad__softmax_row row;
    (void)worker;
    j->vec->softmax_row_stats(z, j->n, j->inverse_tau[t], &row, NULL);
    if (j->logprob != NULL)
        j->logprob[t] = z[j->target[t]] * j->inverse_tau[t] - row.lse;
    if (j->lse_out != NULL)
        j->lse_out[t] = row.lse;
    if (j->entropy_out != NULL)
        j->entropy_out[t] = row.entropy;
}

void pgrad__softmax_stats(pgrad_context *context, const float *z, size_t ldz, size_t n_rows,
                          size_t n, const float *inverse_tau, const pgrad_token *target,
                          float *logprob, float *lse, float *entropy)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .z = z,
             .ldz = ldz,
             .n = n,
             .inverse_tau = inverse_tau,
             .target = target,
             .logprob = logprob,
             .lse_out = lse,
             .entropy_out = entropy};
    pgrad__parallel(context, n_rows, stats_task, &j);
}

static void grad_task(void *argument, size_t t, uint32_t worker)
{
    const job *j = argument;
    (void)worker;
    j->vec->softmax_row_grad(j->dz + t * j->ldz, j->n, j->inverse_tau[t], j->target[t], j->lse[t],
                             j->entropy == NULL ? 0.0f : j->entropy[t], j->d_logprob[t],
                             j->entropy_weight == NULL ? 0.0f : j->entropy_weight[t]);
}

void pgrad__softmax_grad(pgrad_context *context, float *z, size_t ldz, size_t n_rows, size_t n,
                         const float *inverse_tau, const pgrad_token *target, const float *lse,
                         const float *entropy, const float *d_logprob, const float *entropy_weight)
{
    job j = {.vec = pgrad__kernels_of(context)->vec,
             .dz = z,
             .ldz = ldz,
             .n = n,
             .inverse_tau = inverse_tau,
             .target = target,
             .lse = lse,
             .entropy = entropy,
             .d_logprob = d_logprob,
             .entropy_weight = entropy_weight};
    pgrad__parallel(context, n_rows, grad_task, &j);
}
