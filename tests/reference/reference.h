/* The kernels once more, in double precision and as plainly as their formulas: what the tests compare
 * with. Row-major, no strides, backward functions overwrite. Checked by central differences in
 * test_reference.c. */
#ifndef PGRAD_TESTS_REFERENCE_H
#define PGRAD_TESTS_REFERENCE_H

#include <stddef.h>

/* y[t, o] = sum_i x[t, i] w[o, i] + b[o]; b may be NULL. */
void ref_product(const double *x, size_t rows, size_t n_in, const double *w, size_t n_out, const double *b,
                 double *y);
void ref_product_grad(const double *dy, const double *x, size_t rows, size_t n_in, const double *w,
                      size_t n_out, double *dx, double *dw, double *db);

/* y[t, :] = e[tokens[t], :] + p[positions[t], :]; p may be NULL, and dp then. */
void ref_embedding(const double *e, const double *p, const int *tokens, const unsigned *positions, size_t rows,
                   size_t n, double *y);
/* de [n_tokens, n], dp [n_positions, n]. */
void ref_embedding_grad(const double *dy, const int *tokens, const unsigned *positions, size_t rows, size_t n,
                        size_t n_tokens, size_t n_positions, double *de, double *dp);

void ref_layernorm(const double *x, size_t rows, size_t n, const double *w, const double *b, double eps,
                   double *y);
void ref_layernorm_grad(const double *dy, const double *x, size_t rows, size_t n, const double *w, double eps,
                        double *dx, double *dw, double *db);

void ref_rmsnorm(const double *x, size_t rows, size_t n, const double *w, double eps, double *y);
void ref_rmsnorm_grad(const double *dy, const double *x, size_t rows, size_t n, const double *w, double eps,
                      double *dx, double *dw);

/* kind: pgrad__activation. */
double ref_activation(int kind, double x);
double ref_activation_grad(int kind, double x); /* the derivative */
/* y = act(gate) up. */
void ref_gated(int kind, const double *gate, const double *up, size_t n, double *y);
void ref_gated_grad(int kind, const double *dy, const double *gate, const double *up, size_t n, double *dgate,
                    double *dup);

/* Rotates pair (j, j + head_dim / 2) of one head by angle[j]; sign -1 turns back. */
void ref_rope(double *x, size_t head_dim, const double *angle, double sign);

/* One row: log p[y], log-sum-exp and entropy of softmax(z / tau). */
void ref_softmax(const double *z, size_t n, double tau, size_t y, double *logprob, double *lse,
                 double *entropy);
/* dz = d/dz (c logprob - e entropy). */
void ref_softmax_grad(const double *z, size_t n, double tau, size_t y, double c, double e, double *dz);

/* Causal attention of one sequence: q, o [rows, heads * dim], k, v [rows, kv_heads * dim]. lse [rows,
 * heads] may be NULL. */
typedef struct ref_shape {
    size_t rows, heads, kv_heads, dim;
    double scale;
} ref_shape;
void ref_attention(const ref_shape *shape, const double *q, const double *k, const double *v, double *o,
                   double *lse);
void ref_attention_grad(const ref_shape *shape, const double *q, const double *k, const double *v,
                        const double *d_o, double *dq, double *dk, double *dv);

typedef struct ref_adam {
    double learning_rate, beta1, beta2, epsilon, l2, decay; /* decay: AdamW's weight decay */
} ref_adam;
/* Step t, from 1. */
void ref_adam_update(const ref_adam *adam, size_t n, unsigned t, double *theta, const double *g, double *m,
                     double *v);
/* Heavy ball, or Nesterov's form of it. */
void ref_sgd_update(double learning_rate, double momentum, int nesterov, double l2, size_t n, unsigned t,
                    double *theta, const double *g, double *b);

#endif
