/* Vector code that is built once per instruction set: every vec_*.c is compiled with PGRAD__SET
 * naming the set, and its functions are reached through the table only. Not for the layers above.
 *
 * The bits must not depend on the set: loops run over 16 fixed lanes, reductions end in one fixed
 * tree, contraction is off, and no libm function is called: multiplication, addition, division,
 * square root are the same everywhere. */
#ifndef PGRAD_KERNEL_VEC_H
#define PGRAD_KERNEL_VEC_H

#include "kernel/kernel.h"

#define PGRAD__LANES 16

/* Where the random words of a strip are: see pgrad__update_rule. Philox block (first_output + lane)
 * quads + first_quad + i serves the inputs 4 i .. 4 i + 3 of a lane. */
typedef struct pgrad__strip_random {
    uint64_t seed;
    uint32_t array, update;
    uint32_t draw; /* 0: moments; 1: weights */
    uint64_t first_output, first_quad, quads;
} pgrad__strip_random;

/* m = max u, s = sum exp(u - m), LSE = m + log s, H of a row; total undefined where lse is NaN. */
enum { PGRAD__SOFTMAX_BLOCK = 256 };
typedef struct pgrad__softmax_row {
    float max, lse, entropy;
    double total;
} pgrad__softmax_row;

/* Per-row and per-range loops; the functions of kernel.h split rows and ranges over threads and
 * call these. Shapes and formulas: kernel.h. */
typedef struct pgrad__vector_ops {
    void (*layernorm_row)(const float *x, size_t n, const float *w, const float *b, float eps,
                          float *y, float *mean, float *rstd);
    void (*layernorm_row_backward)(const float *dy, const float *x, size_t n, const float *w,
                                   float mean, float rstd, float *dx);
    void (*rmsnorm_row)(const float *x, size_t n, const float *w, float eps, float *y, float *rstd);
    void (*rmsnorm_row_backward)(const float *dy, const float *x, size_t n, const float *w,
                                 float rstd, float *dx);
    /* Columns [0, n) over n_rows rows of ld floats: dw += sum_t dy (x - mean) rstd (mean NULL: 0),
     * and db += sum_t dy (db NULL: not). */
    void (*norm_columns_backward)(const float *dy, size_t lddy, const float *x, size_t ldx,
                                  size_t n_rows, size_t n, const float *mean, const float *rstd,
                                  float *dw, float *db);
    void (*activation)(pgrad__activation kind, const float *x, size_t n, float *y);
    void (*activation_backward)(pgrad__activation kind, const float *dy, const float *x, size_t n,
                                float *dx);
    void (*gated)(pgrad__activation kind, const float *gate, const float *up, size_t n, float *y);
    void (*gated_backward)(pgrad__activation kind, const float *dy, const float *gate,
                           const float *up, size_t n, float *dgate, float *dup);
    void (*add)(const float *x, size_t n, float *y);
    void (*scale)(float factor, size_t n, float *y); /* y *= factor */
    /* One head: sign +1 rotates, -1 rotates back. */
    void (*rope_head)(float *x, uint32_t head_dim, const float *cos, const float *sin, float sign);
    /* sums, where not NULL: of each PGRAD__SOFTMAX_BLOCK e's; they add up, in order, to total. */
    void (*softmax_row_stats)(const float *z, size_t n, float inverse_tau, pgrad__softmax_row *out,
                              double *sums);
    /* The same, and weights <- e (may be z), largest <- the largest e of each block. Returns the
     * sum of all in f64, by blocks: 16 lanes, then the tree. */
    double (*softmax_row_weights)(const float *z, size_t n, float inverse_tau,
                                  pgrad__softmax_row *out, float *weights, float *largest);
    /* Weights of a block below the threshold become 0; returns the sum of what is left in f64. */
    double (*cut_block)(float *weights, size_t n, float threshold);
    /* The ids of those that are not below it, ascending from first; returns how many. ids: [n]. */
    size_t (*gather_block)(const float *weights, size_t n, float threshold, uint32_t first,
                           uint32_t *ids);
    void (*softmax_row_grad)(float *z, size_t n, float inverse_tau, pgrad_token target, float lse,
                             float entropy, float d_logprob, float entropy_weight);
    /* A row of an attention tile: s[0, n) <- exp(s scale - m'), n <= 64, the rest of the 64 <- 0;
     * updates *m and *l (m = -inf at first) and gives the factor for the old sums. */
    void (*attention_row)(float *s, size_t n, float scale, float *m, float *l, float *factor);
    /* p <- exp(s scale - lse) for the n visible of 64, 0 for the rest. */
    void (*attention_row_recompute)(float *s, size_t n, float scale, float lse);
    /* ds <- p (dp - delta) scale over 64. */
    void (*attention_row_backward)(const float *p, float *dp, float delta, float scale);
    float (*dot)(const float *x, const float *y, size_t n); /* 16 lanes and the tree */
    void (*exp)(const float *x, size_t n, float *y);
    /* One panel of a matrix: sums[lane] = sum_k data[k * wide + lane]^2 in f64, k ascending. */
    void (*panel_sumsq)(const float *data, size_t n_in, size_t wide, double *sums);
    double (*block_sumsq)(const float *x, size_t n); /* n <= 256: 16 lanes in f64, then the tree */
    int (*all_finite)(const float *x, size_t n);
    /* n elements in place. Each raises max[0], max[1], max[2], the bits of the largest |theta|, |m|
     * and |v| (integers, so NaN comes out on top). SGD's b may be NULL. */
    void (*adam)(const pgrad__adam *adam, size_t n, float *theta, const float *g, float *m,
                 float *v, uint32_t max[3]);
    void (*sgd)(const pgrad__sgd *sgd, size_t n, float *theta, const float *g, float *b,
                uint32_t max[3]);
    /* Storage of theta and moments (vec_storage.c): strips of a panel, [depth][wide], depth <=
     * PGRAD__MOMENT_BLOCK. bits: the random word of each element, 16 of whose bits, from `shift`
     * on, are used. */
    void (*random_bits)(const pgrad__strip_random *random, size_t depth, size_t wide,
                        uint32_t *bits);
    void (*bf16_widen)(const uint16_t *x, size_t n, float *y);
    void (*bf16_round)(const float *x, const uint32_t *bits, uint32_t shift, size_t n, uint16_t *y,
                       uint32_t *max);
    void (*q8_widen)(const uint8_t *codes, const uint8_t *exponents, size_t depth, size_t wide,
                     int root, float *y);
    /* x is used up. */
    void (*q8_round)(float *x, const uint32_t *bits, uint32_t shift, size_t depth, size_t wide,
                     int root, uint8_t *codes, uint8_t *exponents, uint32_t *max);
    /* out[k * wide + lane], inputs first .. first + n - 1 of a Q8_0 panel. */
    void (*widen_q8_0)(const void *panel, size_t first, size_t n, float *out);
    /* Packing of activations into panels of `width` lanes: transposed from rows [n_rows <= width,
     * depth] (lanes beyond n_rows zero), or straight from [depth, n <= width] slices. */
    void (*pack_transposed)(const float *x, size_t ldx, size_t n_rows, size_t depth, size_t width,
                            float *panel);
    void (*pack_straight)(const float *x, size_t ldx, size_t n, size_t depth, size_t width,
                          float *panel);
    /* base/half.h over n values (bf16_widen: above). */
    void (*f16_widen)(const uint16_t *x, size_t n, float *y);
    void (*f16_narrow)(const float *x, size_t n, uint16_t *y);
    void (*bf16_narrow)(const float *x, size_t n, uint16_t *y);
} pgrad__vector_ops;

/* vec_table.c, built per set, defines one of these. */
extern const pgrad__vector_ops pgrad__vector_ops_generic;
extern const pgrad__vector_ops pgrad__vector_ops_haswell;
extern const pgrad__vector_ops pgrad__vector_ops_skx;
extern const pgrad__vector_ops pgrad__vector_ops_armv8a;

/* In a file built for SET: PGRAD__VEC(name) is pgrad__vec_name_SET, and an #if may ask
 * PGRAD__BUILT_FOR(set). */
#ifdef PGRAD__SET
#define PGRAD__VEC_PASTE(name, set) pgrad__vec_##name##_##set
#define PGRAD__VEC_EXPAND(name, set) PGRAD__VEC_PASTE(name, set)
#define PGRAD__VEC(name) PGRAD__VEC_EXPAND(name, PGRAD__SET)
#define PGRAD__NUMBER_OF_generic 1
#define PGRAD__NUMBER_OF_haswell 2
#define PGRAD__NUMBER_OF_skx 3
#define PGRAD__NUMBER_OF_armv8a 4
#define PGRAD__NUMBER_PASTE(set) PGRAD__NUMBER_OF_##set
#define PGRAD__NUMBER_EXPAND(set) PGRAD__NUMBER_PASTE(set)
#define PGRAD__BUILT_FOR(set) (PGRAD__NUMBER_EXPAND(PGRAD__SET) == PGRAD__NUMBER_OF_##set)
#endif

#endif
