/* All tensor mathematics: the only surface the layers above see. Not a place for model structure.
 *
 * Every matrix or batched product runs through BLIS's micro-kernels. Matrices of weights, and keys
 * and values, are stored in the packed panels that the micro-kernel reads; activations are
 * row-major f32.
 *
 * The exactness contract (docs/design.md): an output element has one order of summation, a
 * function of the shapes of its own reduction alone - not of the batch it is computed in, the
 * number of threads or the kernel set. For a product over k it is
 *
 *     c = 0; for each block of PGRAD__KC ascending k: { s = 0; for k in block: s = fmaf(a[k], b[k],
 * s); c = (first block and not accumulating) ? s : c + s; }
 *
 * Work is split by output only. Sums over token rows run in ascending blocks of PGRAD__ROW_BLOCK
 * rows.
 *
 * Functions that need scratch take a workspace, and return E_NOMEM or E_LIMIT when it cannot grow.
 * Beside each stands another that says how much: floats, for the same shapes. */
#ifndef PGRAD_KERNEL_KERNEL_H
#define PGRAD_KERNEL_KERNEL_H

#include <stddef.h>
#include <stdint.h>

#include <policygrad/model.h>
#include <policygrad/rollout.h>
#include <policygrad/types.h>

#define PGRAD__KC 256        /* block of a reduction; part of the definition of the bits */
#define PGRAD__ROW_BLOCK 256 /* rows of a block in sums over tokens; ditto */
#define PGRAD__KEY_TILE 64   /* keys of an attention tile and of a cache page; ditto */
#define PGRAD__Q8_BLOCK 32   /* inputs of an output that share a scale in Q8_0 */
#define PGRAD__N_STORAGE 3   /* PGRAD_STORAGE_* */
#define PGRAD__SLACK 64 /* floats behind every packed buffer: micro-kernels read past the end */

struct pgrad__vector_ops; /* vec.h */

/* A kernel set. C[i][j] (i < narrow rows of ldc floats, j < wide) = (accumulate ? C : 0) +
 * sum_k narrow_panel[k * narrow + i] * wide_panel[k * wide + j], for k < depth <= PGRAD__KC. */
typedef struct pgrad__kernels {
    uint32_t set; /* PGRAD_KERNELS_* */
    const char *name;
    uint32_t wide, narrow;
    void (*micro)(size_t depth, const float *narrow_panel, const float *wide_panel, float *c,
                  size_t ldc, int accumulate);
    /* The same for n_rows <= rows_max rows of x, which is [n_rows, depth] row-major with ldx: no
     * packing. Panels stand panel_bytes apart, their outputs side by side in c. By the storage of
     * the panels (PGRAD_STORAGE_*), which are widened in registers. The same bits. */
    void (*rows[PGRAD__N_STORAGE])(size_t n_rows, size_t depth, const float *x, size_t ldx,
                                   const void *panels, size_t panel_bytes, size_t n_panels,
                                   float *c, size_t ldc, int accumulate);
    uint32_t rows_max;
    const struct pgrad__vector_ops *vec;
} pgrad__kernels;

/* The table of the context's kernel set; never NULL. */
const pgrad__kernels *pgrad__kernels_of(pgrad_context *context);

/* What PGRAD_KERNELS_AUTO stands for: the best set that the CPU can run, BLIS has the micro-kernel
 * of, and that keeps the order of summation. */
uint32_t pgrad__best_kernel_set(void);

/* What sizes depend on beside shapes. */
typedef struct pgrad__machine {
    const pgrad__kernels *kernels;
    uint32_t n_workers;
} pgrad__machine;

pgrad__machine pgrad__machine_of(pgrad_context *context);

/* One that no machine of as many threads needs more than: what is chosen by memory is chosen for
 * this one, since the bits may follow from it and must not from the machine at hand. */
#define PGRAD__PLANNED_THREADS 8
pgrad__machine pgrad__machine_planned(void);

/* ---- workspace (workspace.c): scratch that grows to the largest need and stays ---- */

typedef struct pgrad__workspace {
    pgrad_context *context;
    float *data;
    size_t capacity; /* floats */
} pgrad__workspace;

/* Makes room for n floats (+ slack); *out is valid until the next reserve. Kernels are leaves: one
 * uses the workspace at a time. */
pgrad_status pgrad__workspace_reserve(pgrad__workspace *workspace, size_t n, float **out);
void pgrad__workspace_free(pgrad__workspace *workspace);

/* ---- matrices (pack.c): [n_out, n_in] in packed panels ----
 * Panel p holds outputs p*wide .. p*wide+wide-1: element (p * n_in + k) * wide + lane. Lanes beyond
 * n_out are zero and stay zero. What is stored of a weight depends on the storage, never on the
 * width of the panels:
 *   F32    the float;
 *   BF16   its upper half, rounded to nearest even;
 *   Q8_0   as in GGUF, blocks of PGRAD__Q8_BLOCK inputs of an output, the last one short: [wide]
 *          scales d in f16, then [inputs of the block][wide] int8 q. The weight is q d, exactly. */

typedef struct pgrad__matrix {
    uint32_t n_out, n_in;
    void *data;       /* of floats, or what the storage says */
    uint32_t storage; /* PGRAD_STORAGE_* */
} pgrad__matrix;

/* Bytes of a panel, and of all with the slack behind them. */
size_t pgrad__panel_bytes(const pgrad__kernels *kernels, uint32_t storage, uint32_t n_in);
size_t pgrad__matrix_bytes(const pgrad__kernels *kernels, uint32_t storage, uint32_t n_out,
                           uint32_t n_in);
/* The same in floats, for F32. */
size_t pgrad__matrix_floats(const pgrad__kernels *kernels, uint32_t n_out, uint32_t n_in);
/* rows: [n_rows, n_in] row-major, outputs first .. first + n_rows - 1. */
void pgrad__matrix_set_rows(const pgrad__kernels *kernels, pgrad__matrix *matrix, uint32_t first,
                            uint32_t n_rows, const float *rows);
void pgrad__matrix_get_rows(const pgrad__kernels *kernels, const pgrad__matrix *matrix,
                            uint32_t first, uint32_t n_rows, float *rows);
/* columns: [n, n_out] row-major, inputs first .. first + n - 1 (Conv1D files). Into Q8_0 they go by
 * whole blocks. */
void pgrad__matrix_set_columns(const pgrad__kernels *kernels, pgrad__matrix *matrix, uint32_t first,
                               uint32_t n, const float *columns);
void pgrad__matrix_get_columns(const pgrad__kernels *kernels, const pgrad__matrix *matrix,
                               uint32_t first, uint32_t n, float *columns);
/* 1 when every weight is finite. */
int pgrad__matrix_all_finite(pgrad_context *context, const pgrad__matrix *matrix);

/* ---- panels in files (canonical.c) ----
 * Output by output, inputs ascending, each value as it is stored: no kernel set has a part in it.
 * Of Q8_0 for each block of an output the scale, then its q, as in GGUF but for a short last block.
 */

/* What lies in the panels; the numbers stand in files. */
typedef enum pgrad__canonical {
    PGRAD__CANONICAL_F32,
    PGRAD__CANONICAL_BF16,
    PGRAD__CANONICAL_Q8_0,
    PGRAD__CANONICAL_BYTE /* moments in 8 bits, and their exponents */
} pgrad__canonical;

/* Bytes of an output, and of n_in elements one after another. */
size_t pgrad__canonical_bytes(pgrad__canonical element, size_t n_in);
/* Outputs first .. first + n - 1 out of panels, or into them. */
void pgrad__canonical_get(const pgrad__kernels *kernels, pgrad__canonical element, size_t n_in,
                          const void *panels, size_t first, size_t n, void *rows);
void pgrad__canonical_put(const pgrad__kernels *kernels, pgrad__canonical element, size_t n_in,
                          void *panels, size_t first, size_t n, const void *rows);

/* ---- products (gemm.c, gemm_grad.c) ---- */

/* One of several products that share their left operand. */
typedef struct pgrad__product {
    const pgrad__matrix *weight;
    const float *bias; /* [n_out] or NULL; added last */
    float *y;          /* [n_rows, n_out], ldy floats between rows */
    size_t ldy;
    int accumulate; /* y += instead of y = */
} pgrad__product;

/* Y_j[t, o] = sum_i X[t, i] W_j[o, i] + b_j[o]. All weights have the same n_in. */
pgrad_status pgrad__matmul(pgrad_context *context, pgrad__workspace *workspace, const float *x,
                           size_t ldx, size_t n_rows, const pgrad__product *products,
                           size_t n_products);

size_t pgrad__matmul_scratch(const pgrad__machine *machine, size_t n_rows,
                             const pgrad__product *products, size_t n_products);

/* dX[t, i] = (accumulate ? dX[t, i] : 0) + sum_o dY[t, o] W[o, i]. */
pgrad_status pgrad__matmul_grad_input(pgrad_context *context, pgrad__workspace *workspace,
                                      const float *dy, size_t ldy, size_t n_rows,
                                      const pgrad__matrix *weight, float *dx, size_t ldx,
                                      int accumulate);

size_t pgrad__matmul_grad_input_scratch(const pgrad__machine *machine, size_t n_rows,
                                        const pgrad__matrix *weight);

/* dW[o, i] += sum_t dY[t, o] X[t, i] in F32, t in blocks of PGRAD__KC (= PGRAD__ROW_BLOCK). */
pgrad_status pgrad__matmul_grad_weight(pgrad_context *context, pgrad__workspace *workspace,
                                       const float *dy, size_t ldy, const float *x, size_t ldx,
                                       size_t n_rows, pgrad__matrix *d_weight);

size_t pgrad__matmul_grad_weight_scratch(const pgrad__machine *machine, size_t n_rows,
                                         const pgrad__matrix *d_weight);

/* db[o] += sum_t dY[t, o]. */
void pgrad__bias_grad(pgrad_context *context, const float *dy, size_t ldy, size_t n_rows,
                      size_t n_out, float *db);

/* ---- embedding (embedding.c) ---- */

/* out[t, :] = E[tokens[t], :] (+ P[positions[t], :] when p is not NULL; p is row-major [n, n_in]).
 */
void pgrad__embedding_forward(pgrad_context *context, const pgrad__matrix *e, const float *p,
                              const pgrad_token *tokens, const uint32_t *positions, size_t n_rows,
                              float *out);
/* dE[tokens[t], :] += dout[t, :] and dP[positions[t], :] += dout[t, :], t ascending. */
void pgrad__embedding_backward(pgrad_context *context, pgrad__matrix *d_e, float *d_p,
                               const pgrad_token *tokens, const uint32_t *positions, size_t n_rows,
                               const float *dout);

/* ---- norms (norm.c): x, y [n_rows, n]; mean, rstd [n_rows] ---- */

/* y = (x - mean) rstd w + b, rstd = 1 / sqrt(var + eps), biased var. */
void pgrad__layernorm_forward(pgrad_context *context, const float *x, size_t n_rows, size_t n,
                              const float *w, const float *b, float eps, float *y, float *mean,
                              float *rstd);
/* dx += ...; dw += sum_t dy xhat; db += sum_t dy. */
void pgrad__layernorm_backward(pgrad_context *context, const float *dy, const float *x,
                               size_t n_rows, size_t n, const float *w, const float *mean,
                               const float *rstd, float *dx, float *dw, float *db);
/* y = x rstd w, rstd = 1 / sqrt(mean(x^2) + eps). */
void pgrad__rmsnorm_forward(pgrad_context *context, const float *x, size_t n_rows, size_t n,
                            const float *w, float eps, float *y, float *rstd);
void pgrad__rmsnorm_backward(pgrad_context *context, const float *dy, const float *x, size_t n_rows,
                             size_t n, const float *w, const float *rstd, float *dx, float *dw);

/* ---- elementwise (elementwise.c) over n floats ---- */

/* Activations of an MLP. */
typedef enum pgrad__activation {
    PGRAD__ACTIVATION_GELU_TANH, /* gelu_new, gelu_pytorch_tanh */
    PGRAD__ACTIVATION_GELU_ERF,  /* gelu */
    PGRAD__ACTIVATION_RELU,
    PGRAD__ACTIVATION_SILU
} pgrad__activation;

/* y = act(x). */
void pgrad__activation_forward(pgrad_context *context, pgrad__activation kind, const float *x,
                               size_t n, float *y);
/* dx = dy act'(x); dx may be dy. */
void pgrad__activation_backward(pgrad_context *context, pgrad__activation kind, const float *dy,
                                const float *x, size_t n, float *dx);
/* y = act(gate) up. */
void pgrad__gated_forward(pgrad_context *context, pgrad__activation kind, const float *gate,
                          const float *up, size_t n, float *y);
/* dgate = dy up act'(gate), dup = dy act(gate); the outputs may be gate and up. */
void pgrad__gated_backward(pgrad_context *context, pgrad__activation kind, const float *dy,
                           const float *gate, const float *up, size_t n, float *dgate, float *dup);
/* y += x. */
void pgrad__add_to(pgrad_context *context, const float *x, size_t n, float *y);

/* ---- rotary embedding (rope.c) ---- */

/* Fills cos and sin [n_positions, head_dim / 2]: angle(pos, j) = pos f_j, f_j = frequency[j] given
 * in double (scalings applied by the caller); angles in f32 as the checkpoints' own code has them.
 */
void pgrad__rope_table(const double *frequency, uint32_t n_positions, uint32_t head_dim, float *cos,
                       float *sin);
/* Rotates n_heads heads of each row in place: pair (j, j + head_dim / 2). */
void pgrad__rope_forward(pgrad_context *context, float *x, size_t ldx, size_t n_rows,
                         uint32_t n_heads, uint32_t head_dim, const uint32_t *positions,
                         const float *cos, const float *sin);
/* The inverse rotation: dx in place. */
void pgrad__rope_backward(pgrad_context *context, float *dx, size_t ldx, size_t n_rows,
                          uint32_t n_heads, uint32_t head_dim, const uint32_t *positions,
                          const float *cos, const float *sin);

/* ---- log-softmax (softmax.c): logits z [n_rows, n] with ldz, u = z / tau ---- */

/* For each row: logprob = u[y] - LSE(u), lse = LSE(u), entropy = LSE - sum p u. Outputs may be
 * NULL; inverse_tau [n_rows]; target may be NULL when logprob is. -infinity is p = 0. A row with
 * NaN, +inf or all -inf gives NaN outputs. */
void pgrad__softmax_stats(pgrad_context *context, const float *z, size_t ldz, size_t n_rows,
                          size_t n, const float *inverse_tau, const pgrad_token *target,
                          float *logprob, float *lse, float *entropy);
/* In place: z_j <- (c/tau) (1[j=y] - p_j) + (e/tau) p_j (log p_j + H), per row c = d_logprob
 * (dL/dl) and e = entropy_weight (NULL: 0), with lse and entropy from the stats. */
void pgrad__softmax_grad(pgrad_context *context, float *z, size_t ldz, size_t n_rows, size_t n,
                         const float *inverse_tau, const pgrad_token *target, const float *lse,
                         const float *entropy, const float *d_logprob, const float *entropy_weight);

/* ---- attention (attention.c forward, attention_backward.c) ----
 *
 * H query heads, n_kv_heads key-value heads, query head h uses kv head h / (H / n_kv_heads).
 * o[t, h] = sum_s softmax_s(scale q[t,h].k[s]) v[s], s <= position of t.
 *
 * Keys and values are kept in pages of PGRAD__KEY_TILE positions, page i holding absolute positions
 * 64 i .. 64 i + 63 of a sequence. For one layer a page has one block per kv head, kv_block_floats
 * apart: K panels [64 / wide][head_dim][wide], then V panels [ceil(head_dim / wide)][64][wide].
 * Unwritten slots are finite (zero at first). The elements are f32, f16 or bf16, rounded to nearest
 * even when they are stored: what is computed from a page is what f32 pages of the rounded values
 * give, to the bit.
 *
 * Order: key tiles ascending; in a tile s = (q.k) scale, m' = max(m, max s), p = exp(s - m'), l = l
 * a + sum p, o = o a + (p.V of the tile), a = exp(m - m'); at the end o / l, lse = m + log l. */

typedef struct pgrad__attention_shape {
    uint32_t n_heads, n_kv_heads, head_dim;
    float scale;
    uint32_t kv_storage; /* PGRAD_KV_*: of the pages */
} pgrad__attention_shape;

/* Elements of a kv block (one page, one layer, one kv head), a multiple of 16; bytes of each. */
size_t pgrad__kv_block_floats(const pgrad__kernels *kernels, uint32_t head_dim);
size_t pgrad__kv_element_bytes(uint32_t kv_storage);

/* A run of query rows of one sequence at consecutive positions. pages[i] is the base of page i for
 * this layer: its kv head j is j * kv_block_floats elements behind it. Spans that follow one
 * another with the same nonzero `group` have the same first n_shared_pages pages, all of whose keys
 * are visible to all of their rows: these are computed together. */
typedef struct pgrad__attention_span {
    size_t first_row;
    uint32_t n_rows;
    uint32_t first_position;
    const unsigned char *const *pages;
    uint32_t group;
    uint32_t n_shared_pages;
} pgrad__attention_span;

/* Rows first_row .. of k and v that go to positions first_position .. of their pages. */
typedef struct pgrad__kv_run {
    size_t first_row;
    uint32_t n_rows;
    uint32_t first_position;
    unsigned char *const *pages; /* as in a span, writable; no slot is written by two runs */
} pgrad__kv_run;

/* New keys and values. k, v: [rows, n_kv_heads * head_dim] with ldkv. */
typedef struct pgrad__kv_rows {
    const float *k, *v;
    size_t ldkv;
    const pgrad__kv_run *runs;
    size_t n_runs;
} pgrad__kv_rows;

/* Writes keys and values into pages. */
void pgrad__kv_store(pgrad_context *context, const pgrad__attention_shape *shape,
                     const pgrad__kv_rows *rows);

/* q, o: [rows, H * head_dim] with ldq, ldo; lse: [rows, H] or NULL. `fresh` (may be NULL) is stored
 * first; its first n_spans runs are the spans'. A page it writes may be another span's too where
 * one run writes all of it. */
pgrad_status pgrad__attention_forward(pgrad_context *context, pgrad__workspace *workspace,
                                      const pgrad__attention_shape *shape,
                                      const pgrad__kv_rows *fresh, const float *q, size_t ldq,
                                      const pgrad__attention_span *spans, size_t n_spans, float *o,
                                      size_t ldo, float *lse);

size_t pgrad__attention_forward_scratch(const pgrad__machine *machine,
                                        const pgrad__attention_shape *shape,
                                        const pgrad__attention_span *spans, size_t n_spans);

/* A run of rows of a training batch: a whole sequence at positions 0 .., or one that stands behind
 * a shared prefix, the whole of an earlier sequence that has none itself. */
typedef struct pgrad__attention_sequence {
    size_t first_row;
    uint32_t n_rows;
    uint32_t prefix; /* 1 + the index of that sequence; 0: none */
} pgrad__attention_sequence;

/* Positions in front of a sequence's first row. */
static inline uint32_t pgrad__n_prefix(const pgrad__attention_sequence *sequences, size_t index)
{
    const uint32_t prefix = sequences[index].prefix;
    return prefix == 0 ? 0 : sequences[prefix - 1].n_rows;
}

/* dq, dk, dv are overwritten; lse [rows, H]. Probabilities are recomputed from lse: dS = P (dP -
 * rowsum(dO O)) scale (Dao 2023, algorithm 2). Gradients at a shared prefix are its own plus those
 * from each sequence behind it, by index. Memory linear in length. */
typedef struct pgrad__attention_grads {
    const float *q, *k, *v, *o, *d_o, *lse;
    float *dq, *dk, *dv;
    size_t ldq, ldkv, ldo, lddq, lddkv; /* between rows of q; k, v; o, d_o; dq; dk, dv */
} pgrad__attention_grads;
pgrad_status pgrad__attention_backward(pgrad_context *context, pgrad__workspace *workspace,
                                       const pgrad__attention_shape *shape,
                                       const pgrad__attention_sequence *sequences,
                                       size_t n_sequences, const pgrad__attention_grads *grads);
size_t pgrad__attention_backward_scratch(const pgrad__machine *machine,
                                         const pgrad__attention_shape *shape,
                                         const pgrad__attention_sequence *sequences,
                                         size_t n_sequences);

/* ---- sums of squares, finite values (reduce.c) ---- */

/* Sum of squares of an F32 matrix, canonical: per output over ascending inputs in f64, then a fixed
 * pairwise tree over outputs. NaN or infinity comes through. */
double pgrad__matrix_sumsq(pgrad_context *context, const pgrad__matrix *matrix);
/* The same for a vector: blocks of 256 ascending in f64, then the tree over blocks. */
double pgrad__vector_sumsq(pgrad_context *context, const float *x, size_t n);
/* 1 when every value is finite. */
int pgrad__all_finite(pgrad_context *context, const float *x, size_t n);

/* ---- optimizers (update.c; formulas: docs/algorithms.md 5) ---- */

#define PGRAD__MOMENT_BLOCK 64 /* inputs of a row that share an exponent; part of the bits */

/* How an array of weights or moments is stored; the numbers are those of PGRAD_MOMENTS_*. */
typedef enum pgrad__storage {
    PGRAD__STORAGE_F32,
    PGRAD__STORAGE_BF16, /* uint16_t, rounded stochastically */
    PGRAD__STORAGE_Q8    /* uint8_t and an exponent for a block, rounded stochastically */
} pgrad__storage;

/* A first moment is stored as it is. A second one is stored in Q8 by its root, which has half the
 * range of exponents, and never as 0 unless it is 0: the update divides by it. */
typedef struct pgrad__stored {
    pgrad__storage storage;
    void *data;         /* in the order of the weights; NULL: not kept */
    uint8_t *exponents; /* Q8: [panel][block][wide], biased by 127 */
} pgrad__stored;

/* The arrays of one update. A matrix lies in panels; a flat array (n_out 0) of n_in values is taken
 * as one panel of 16 outputs, its last row perhaps incomplete. */
typedef struct pgrad__update_arrays {
    uint32_t n_out;
    size_t n_in;
    pgrad__stored theta; /* F32 or BF16 */
    const float *g;
    pgrad__stored m, v; /* m is SGD's b */
} pgrad__update_arrays;

/* Bytes of data, and exponents of Q8, of a moment of these arrays. */
size_t pgrad__stored_bytes(const pgrad__kernels *kernels, uint32_t n_out, size_t n_in,
                           pgrad__storage storage, size_t *n_exponents);

/* Adam or AdamW; g' = g grad_scale + l2 theta. */
typedef struct pgrad__adam {
    float grad_scale; /* of global-norm clipping */
    float l2;         /* Adam's; 0 for AdamW */
    float decay;      /* AdamW: theta *= decay first (1 - lr wd); 1: none */
    float beta1, beta2;
    float rest1, rest2; /* 1 - beta, formed in double */
    float step_size;    /* lr / (1 - beta1^t) */
    float inverse_root; /* 1 / sqrt(1 - beta2^t) */
    float epsilon;
} pgrad__adam;

/* SGD: g' = g grad_scale + l2 theta; b = first ? g' : momentum b + g'; theta -= lr (nesterov ? g' +
 * momentum b : b). b is not kept when momentum is 0. */
typedef struct pgrad__sgd {
    float grad_scale, l2, learning_rate, momentum;
    int nesterov, first;
} pgrad__sgd;

/* A rule, and where its random numbers are: Philox at key = seed, counter = (four inputs of an
 * output, array, update). */
typedef struct pgrad__update_rule {
    const pgrad__adam *adam; /* or */
    const pgrad__sgd *sgd;
    uint64_t seed;
    uint32_t array;  /* number of the tensor */
    uint64_t update; /* its low 32 bits count */
} pgrad__update_rule;

/* The largest magnitudes of the new theta, m and v; infinity or NaN where one is not finite, or
 * above 2^126 in Q8. */
typedef struct pgrad__reach {
    float theta, m, v;
} pgrad__reach;

/* Reads every array once; with `write`, stores theta, m and v once. */
pgrad__reach pgrad__update(pgrad_context *context, const pgrad__update_rule *rule,
                           const pgrad__update_arrays *arrays, int write);

#endif
