/* What the layers above see of a model: its tensors, and passes over batches of token rows. Not the
 * public calls, which are in model.c. */
#ifndef PGRAD_MODEL_MODEL_H
#define PGRAD_MODEL_MODEL_H

#include <policygrad/model.h>

#include "base/arena.h"
#include "base/context.h"
#include "io/atomic_file.h"
#include "kernel/kernel.h"
#include "model/config.h"

/* How a tensor is stored. */
typedef enum pgrad__tensor_kind {
    PGRAD__TENSOR_MATRIX,            /* packed panels; file shape [out, in] */
    PGRAD__TENSOR_MATRIX_TRANSPOSED, /* packed panels; file shape [in, out] (Conv1D) */
    PGRAD__TENSOR_TABLE,             /* row-major [rows, columns]: learned positions */
    PGRAD__TENSOR_VECTOR
} pgrad__tensor_kind;

typedef struct pgrad__tensor {
    char *name;                            /* as in a Hugging Face checkpoint */
    const struct pgrad__tensor_rule *rule; /* arch.h: what it was made from */
    uint32_t layer;                        /* of a rule for every layer */
    pgrad__tensor_kind kind;
    uint32_t n_dims;
    uint64_t dims[2];          /* as in the checkpoint */
    pgrad__matrix matrix;      /* MATRIX*: data is `data`; of the others n_out is 0 */
    pgrad__matrix grad_matrix; /* likewise, of `grad` */
    void *data;                /* floats; of a matrix what its storage says */
    size_t bytes;              /* of it, slack excluded */
    float *grad;   /* floats in the same order; NULL before the first backward pass: gradients.h */
    size_t floats; /* of it, slack excluded, whether there is one or not */
} pgrad__tensor;

static inline int pgrad__tensor_is_matrix(const pgrad__tensor *tensor)
{
    return tensor->kind == PGRAD__TENSOR_MATRIX || tensor->kind == PGRAD__TENSOR_MATRIX_TRANSPOSED;
}

struct pgrad_model {
    pgrad_context *context;
    atomic_uint references;
    pgrad__lock lock; /* readers: passes; writer: backward, updates, tensor_write */
    pgrad__config config;
    char *config_text; /* config.json as it was read or made, for saving */
    size_t config_length;
    int bare_names; /* the file lacked the family's prefix: names are written as they were */
    char *generation_config_text; /* NULL when there was none */
    size_t generation_config_length;
    pgrad__tensor *tensors;
    uint32_t n_tensors;
    struct pgrad__layer *layers; /* block.h: pointers into tensors */
    struct pgrad__stem *stem;    /* embeddings, final norm, head */
    float *rope_cos, *rope_sin;  /* [n_context, head_dim / 2], NULL without rope */
    uint32_t n_context;
    int frozen;
    int has_gradients; /* memory of its own for all of them */
    int planned;       /* 1: without weights, for their sizes; no handle of the host's */
    uint32_t storage;  /* PGRAD_STORAGE_* of its matrices */
    atomic_uint_fast64_t weight_version; /* read without the lock, by get_info */
    atomic_uint n_keeping;               /* objectives that would use kept activations */
    const pgrad__kernels *kernels;
};

void pgrad__model_retain(pgrad_model *model);

/* ---- models for their sizes: all of a model but weights and tables ---- */

/* As pgrad_model_load and pgrad_model_create. */
pgrad_status pgrad__model_plan_load(pgrad_context *context, const char *path,
                                    const pgrad_model_params *params, pgrad_model **out);
pgrad_status pgrad__model_plan_create(pgrad_context *context, const char *config_json,
                                      const pgrad_model_params *params, pgrad_model **out);
/* Of a model of either kind, as it would be with these kernels and this storage. */
pgrad_status pgrad__model_plan_copy(const pgrad_model *from, const pgrad__kernels *kernels,
                                    uint32_t storage, pgrad_model **out);

/* Count what a model takes for weights and the gradients of all of them; and for the rest. */
void pgrad__weights_count(const pgrad_model *model, pgrad__arena *sum);
void pgrad__gradients_count(const pgrad_model *model, pgrad__arena *sum);
void pgrad__registry_count(const pgrad_model *model, pgrad__arena *sum);

/* Writes config.json, model.safetensors and generation_config.json into a folder being built. */
pgrad_status pgrad__model_write(pgrad_model *model, const pgrad_save_params *params,
                                pgrad__folder *folder);

/* ---- passes over whole sequences: scoring and training (forward.c, backward.c) ----
 * Passes take no lock. The caller holds the model's read lock around score, forward_logits and
 * decode, its write lock around backward. Tokens outside the vocabulary are E_INVALID with their
 * index. */

/* Sequences lie one after another, no padding: whole ones from position 0 on, or a prefix followed
 * by those that share it. The head is applied to the rows target_rows only, where a row may come
 * more than once (the last of a shared prefix): row target_rows[j] predicts targets[j]. */
typedef struct pgrad__batch {
    const pgrad_token *tokens; /* [n_rows] */
    size_t n_rows;
    const pgrad__attention_sequence *sequences;
    size_t n_sequences;
    const uint32_t *target_rows; /* [n_targets] */
    const pgrad_token *targets;
    const float *inverse_tau;
    size_t n_targets;
    float *const *activations; /* [n_rows] of every row, from an activation store: backward computes
                                  nothing forward but the head. NULL: it computes all */
} pgrad__batch;

/* Activations and scratch of passes: grows to the largest batch and stays. One user at a time. */
typedef struct pgrad__pass pgrad__pass;
pgrad_status pgrad__pass_create(pgrad_model *model, pgrad__pass **out);
void pgrad__pass_free(pgrad__pass *pass);
/* Forward passes end with E_DEADLINE, between two layers, when this time of pgrad__os_seconds has
 * come; infinity: never. */
void pgrad__pass_set_deadline(pgrad__pass *pass, double deadline);

/* Forward only: logprob and entropy [n_targets], either may be NULL. The model may be another one
 * than the pass was made for, of any shape. Cancel is looked at between layers. */
pgrad_status pgrad__model_score(pgrad_model *model, pgrad__pass *pass, const pgrad__batch *batch,
                                float *logprob, float *entropy);

/* The logits of the target rows, [n_targets, n_vocab]. */
pgrad_status pgrad__model_forward_logits(pgrad_model *model, pgrad__pass *pass,
                                         const pgrad__batch *batch, float *logits);

/* Given the log-probabilities and entropies of targets [first, first + n), says dL/d logprob and
 * the weight of the entropy's term: see pgrad__softmax_grad. Called on the calling thread, targets
 * ascending, each once. */
typedef pgrad_status (*pgrad__loss_fn)(void *user, size_t first, size_t n, const float *logprob,
                                       const float *entropy, float *d_logprob,
                                       float *entropy_weight);

/* Updates tensor `index` of the model from its gradient. Called on the calling thread. */
typedef pgrad_status (*pgrad__update_fn)(void *user, uint32_t index);

/* What a backward pass is to do. */
typedef struct pgrad__backward {
    pgrad__loss_fn loss;
    void *user;    /* of loss */
    int recompute; /* 1: of each layer only the input is kept, the rest computed again: same bits */
    pgrad__update_fn update; /* NULL, or called for each tensor as soon as its gradient is complete,
                                which is then used up. Memory for the gradients of the whole model
                                is not taken, where there is none yet */
    void *update_user;
} pgrad__backward;

/* Forward, loss and backward; adds to the gradients. Head and loss run in chunks of rows, so the
 * [n_targets, n_vocab] matrix never exists. Rows without a derivative are left out of the backward
 * pass. The caller holds the model's write lock. */
pgrad_status pgrad__model_backward(pgrad_model *model, pgrad__pass *pass, const pgrad__batch *batch,
                                   const pgrad__backward *how);

/* What a pass takes. */
typedef struct pgrad__pass_size {
    size_t arena;             /* bytes, of which: */
    size_t logits, gradients; /* a chunk of logits; what is borrowed for gradients */
    size_t scratch;           /* floats of its workspace */
} pgrad__pass_size;

/* Extend *size by what a pass over such a batch takes; the model may be a planned one. Ids do not
 * count. */
pgrad_status pgrad__score_size(pgrad_model *model, const pgrad__batch *batch, uint32_t n_workers,
                               pgrad__pass_size *size);
pgrad_status pgrad__backward_size(pgrad_model *model, const pgrad__batch *batch,
                                  const pgrad__backward *how, int has_gradients, uint32_t n_workers,
                                  pgrad__pass_size *size);
/* Count a pass's memory: its handle and arena, scratch of the kernels with the logits, and borrowed
 * gradients. */
void pgrad__pass_count(const pgrad__pass_size *size, pgrad__arena *activations,
                       pgrad__arena *scratch, pgrad__arena *gradients);

/* Takes memory for the gradients of all tensors, zero, unless it is there. */
pgrad_status pgrad__gradients_allocate(pgrad_model *model);
void pgrad__gradients_zero(pgrad_model *model);

/* ---- activations kept from decoding for the backward pass (activations.c) ----
 * A decoding pass computes the bits of a training pass, so a backward pass over the same weights
 * may start from what it left. Rows have the caller's numbers; memory is taken as they are, and
 * used again. */
typedef struct pgrad__activation_store {
    pgrad_context *context;
    float **rows;            /* [n_rows] NULL: not kept */
    unsigned char *borrowed; /* [n_rows] 1: another number's row, which it gives back */
    size_t n_rows;
    float **given_back; /* [n_rows] rows in no use, n_given_back of them */
    size_t n_given_back;
    float **blocks; /* [n_rows] n_blocks of memory */
    size_t n_blocks, block_floats, layer_floats, n_taken;
    uint64_t weight_version; /* of the weights that computed them */
} pgrad__activation_store;

/* Bytes of so many rows; 0 when they cannot be addressed. */
int pgrad__activation_store_bytes(const pgrad_model *model, size_t n_rows, uint64_t *bytes);
/* Takes the arrays of a store of n_rows from an arena; then init, without any row kept. Count what
 * taking n_rows takes. */
void pgrad__activation_store_lay_out(pgrad__activation_store *store, size_t n_rows,
                                     pgrad__arena *arena);
void pgrad__activation_store_init(pgrad__activation_store *store, const pgrad_model *model);
void pgrad__activation_store_count(const pgrad_model *model, size_t n_rows, pgrad__arena *sum);
uint64_t pgrad__activation_store_held(const pgrad__activation_store *store);
/* Gives the memory back; the store stays usable. */
void pgrad__activation_store_free(pgrad__activation_store *store);
/* Sees that rows [first, first + n) are there. E_NOMEM, E_LIMIT: some may be. */
pgrad_status pgrad__activation_store_take(pgrad__activation_store *store, size_t first, size_t n);
/* Row `to`, which is not there, is row `from` from now on, as long as that is kept. */
void pgrad__activation_store_borrow(pgrad__activation_store *store, size_t to, size_t from);
void pgrad__activation_store_give_back(pgrad__activation_store *store, size_t first, size_t n);

/* ---- decoding over a cache (kv_cache.c, decode.c) ---- */

/* Pages of PGRAD__KEY_TILE positions for all layers, allocated once. A page is shared by counting
 * references; only its single owner may write to it. */
typedef struct pgrad__kv_cache pgrad__kv_cache;
static inline size_t pgrad__kv_pages(size_t n_positions)
{
    return (n_positions + PGRAD__KEY_TILE - 1) / PGRAD__KEY_TILE;
}
/* storage: PGRAD_KV_*. */
pgrad_status pgrad__kv_cache_create(pgrad_model *model, uint32_t n_pages, uint32_t storage,
                                    pgrad__kv_cache **out);
size_t pgrad__kv_cache_bytes(const pgrad__kv_cache *cache); /* of its pages */
void pgrad__kv_cache_free(pgrad__kv_cache *cache);
void pgrad__kv_cache_reset(pgrad__kv_cache *cache); /* gives every page back */
uint32_t pgrad__kv_cache_available(const pgrad__kv_cache *cache);
/* Takes a zeroed page; E_INTERNAL when none is free (the caller plans). */
pgrad_status pgrad__kv_cache_take(pgrad__kv_cache *cache, uint32_t *page);
void pgrad__kv_cache_share(pgrad__kv_cache *cache, uint32_t page);
uint32_t pgrad__kv_cache_references(const pgrad__kv_cache *cache, uint32_t page);
void pgrad__kv_cache_release(pgrad__kv_cache *cache, uint32_t page);
/* Takes a page with a copy of another's contents: the border page of a shared prompt. */
pgrad_status pgrad__kv_cache_copy(pgrad__kv_cache *cache, uint32_t from, uint32_t *page);

/* New tokens of one sequence at first_position .., whose earlier positions are in the cache. */
typedef struct pgrad__decode_span {
    const pgrad_token *tokens;
    uint32_t n_tokens;
    uint32_t first_position;
    const uint32_t *pages; /* page numbers of positions 0 .. first_position + n_tokens - 1 */
    uint32_t group;        /* see pgrad__attention_span: spans with shared prompt pages, 0: none */
    uint32_t n_shared_pages;
    uint32_t n_logits;         /* of the last so many tokens */
    float *const *activations; /* [n_tokens] rows of a store, filled by the pass; NULL, in all spans
                                  of a call or none */
} pgrad__decode_span;

/* Runs the spans' tokens, stores their keys and values, and writes the logits of the wanted rows,
 * in span order, [n_wanted, n_vocab]. A span may begin behind pages that another one of the same
 * call fills. Cancel and the pass's deadline are looked at between layers. */
pgrad_status pgrad__model_decode(pgrad_model *model, pgrad__pass *pass, pgrad__kv_cache *cache,
                                 const pgrad__decode_span *spans, size_t n_spans, float *logits);

/* Extends *size as pgrad__score_size does. Ids and pages do not count. */
pgrad_status pgrad__decode_size(pgrad_model *model, uint32_t kv_storage, int with_activations,
                                const pgrad__decode_span *spans, size_t n_spans, uint32_t n_workers,
                                pgrad__pass_size *size);

/* Zeroes the keys and values of n positions from `first` on: those of drafts that did not come true
 * and were not finite, which a probability of zero does not hide. */
pgrad_status pgrad__model_forget(pgrad_model *model, pgrad__pass *pass, pgrad__kv_cache *cache,
                                 const uint32_t *pages, uint32_t first, uint32_t n);

#endif
