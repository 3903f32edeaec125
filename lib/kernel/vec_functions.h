/* Prototypes of the vector functions of every set, named as the fields of the table in vec.h; and
 * of its products of a few rows, pgrad__kernels.rows for its panel width, which kernels.c picks. */
#ifndef PGRAD_KERNEL_VEC_FUNCTIONS_H
#define PGRAD_KERNEL_VEC_FUNCTIONS_H

#include "kernel/vec.h"

#define PGRAD__VEC_DECLARE(set)                                                                    \
    void pgrad__vec_layernorm_row_##set(const float *x, size_t n, const float *w, const float *b,  \
                                        float eps, float *y, float *mean, float *rstd);            \
    void pgrad__vec_layernorm_row_backward_##set(const float *dy, const float *x, size_t n,        \
                                                 const float *w, float mean, float rstd,           \
                                                 float *dx);                                       \
    void pgrad__vec_rmsnorm_row_##set(const float *x, size_t n, const float *w, float eps,         \
                                      float *y, float *rstd);                                      \
    void pgrad__vec_rmsnorm_row_backward_##set(const float *dy, const float *x, size_t n,          \
                                               const float *w, float rstd, float *dx);             \
    void pgrad__vec_norm_columns_backward_##set(                                                   \
        const float *dy, size_t lddy, const float *x, size_t ldx, size_t n_rows, size_t n,         \
        const float *mean, const float *rstd, float *dw, float *db);                               \
    void pgrad__vec_activation_##set(pgrad__activation kind, const float *x, size_t n, float *y);  \
    void pgrad__vec_activation_backward_##set(pgrad__activation kind, const float *dy,             \
                                              const float *x, size_t n, float *dx);                \
    void pgrad__vec_gated_##set(pgrad__activation kind, const float *gate, const float *up,        \
                                size_t n, float *y);                                               \
    void pgrad__vec_gated_backward_##set(pgrad__activation kind, const float *dy,                  \
                                         const float *gate, const float *up, size_t n,             \
                                         float *dgate, float *dup);                                \
    void pgrad__vec_add_##set(const float *x, size_t n, float *y);                                 \
    void pgrad__vec_scale_##set(float factor, size_t n, float *y);                                 \
    void pgrad__vec_rope_head_##set(float *x, uint32_t head_dim, const float *cos,                 \
                                    const float *sin, float sign);                                 \
    void pgrad__vec_softmax_row_stats_##set(const float *z, size_t n, float inverse_tau,           \
                                            pgrad__softmax_row *out, double *sums);                \
    double pgrad__vec_softmax_row_weights_##set(const float *z, size_t n, float inverse_tau,       \
                                                pgrad__softmax_row *out, float *weights,           \
                                                float *largest);                                   \
    double pgrad__vec_cut_block_##set(float *weights, size_t n, float threshold);                  \
    size_t pgrad__vec_gather_block_##set(const float *weights, size_t n, float threshold,          \
                                         uint32_t first, uint32_t *ids);                           \
    void pgrad__vec_softmax_row_grad_##set(float *z, size_t n, float inverse_tau,                  \
                                           pgrad_token target, float lse, float entropy,           \
                                           float d_logprob, float entropy_weight);                 \
    void pgrad__vec_attention_row_##set(float *s, size_t n, float scale, float *m, float *l,       \
                                        float *factor);                                            \
    void pgrad__vec_attention_row_recompute_##set(float *s, size_t n, float scale, float lse);     \
    void pgrad__vec_attention_row_backward_##set(const float *p, float *dp, float delta,           \
                                                 float scale);                                     \
    float pgrad__vec_dot_##set(const float *x, const float *y, size_t n);                          \
    void pgrad__vec_exp_##set(const float *x, size_t n, float *y);                                 \
    void pgrad__vec_panel_sumsq_##set(const float *data, size_t n_in, size_t wide, double *sums);  \
    double pgrad__vec_block_sumsq_##set(const float *x, size_t n);                                 \
    int pgrad__vec_all_finite_##set(const float *x, size_t n);                                     \
    void pgrad__vec_adam_##set(const pgrad__adam *adam, size_t n, float *theta, const float *g,    \
                               float *m, float *v, uint32_t max[3]);                               \
    void pgrad__vec_sgd_##set(const pgrad__sgd *sgd, size_t n, float *theta, const float *g,       \
                              float *b, uint32_t max[3]);                                          \
    void pgrad__vec_random_bits_##set(const pgrad__strip_random *random, size_t depth,             \
                                      size_t wide, uint32_t *bits);                                \
    void pgrad__vec_bf16_widen_##set(const uint16_t *x, size_t n, float *y);                       \
    void pgrad__vec_bf16_round_##set(const float *x, const uint32_t *bits, uint32_t shift,         \
                                     size_t n, uint16_t *y, uint32_t *max);                        \
    void pgrad__vec_q8_widen_##set(const uint8_t *codes, const uint8_t *exponents, size_t depth,   \
                                   size_t wide, int root, float *y);                               \
    void pgrad__vec_q8_round_##set(float *x, const uint32_t *bits, uint32_t shift, size_t depth,   \
                                   size_t wide, int root, uint8_t *codes, uint8_t *exponents,      \
                                   uint32_t *max);                                                 \
    void pgrad__vec_product_rows_f32_##set(size_t n_rows, size_t depth, const float *x,            \
                                           size_t ldx, const void *panels, size_t panel_bytes,     \
                                           size_t n_panels, float *c, size_t ldc, int accumulate); \
    void pgrad__vec_product_rows_bf16_##set(                                                       \
        size_t n_rows, size_t depth, const float *x, size_t ldx, const void *panels,               \
        size_t panel_bytes, size_t n_panels, float *c, size_t ldc, int accumulate);                \
    void pgrad__vec_product_rows_q8_0_##set(                                                       \
        size_t n_rows, size_t depth, const float *x, size_t ldx, const void *panels,               \
        size_t panel_bytes, size_t n_panels, float *c, size_t ldc, int accumulate);                \
    void pgrad__vec_widen_q8_0_##set(const void *panel, size_t first, size_t n, float *out);       \
    void pgrad__vec_pack_transposed_##set(const float *x, size_t ldx, size_t n_rows, size_t depth, \
                                          size_t width, float *panel);                             \
    void pgrad__vec_pack_straight_##set(const float *x, size_t ldx, size_t n, size_t depth,        \
                                        size_t width, float *panel);                               \
    void pgrad__vec_f16_widen_##set(const uint16_t *x, size_t n, float *y);                        \
    void pgrad__vec_f16_narrow_##set(const float *x, size_t n, uint16_t *y);                       \
    void pgrad__vec_bf16_narrow_##set(const float *x, size_t n, uint16_t *y);

PGRAD__VEC_DECLARE(generic)
PGRAD__VEC_DECLARE(haswell)
PGRAD__VEC_DECLARE(skx)
PGRAD__VEC_DECLARE(armv8a)

#endif
