/* The inside of a pass: the rows it works on, where keys and values go, what is kept for the
 * backward pass. Shared by scoring, training and decoding; not by the layers above. */
#ifndef PGRAD_MODEL_PASS_H
#define PGRAD_MODEL_PASS_H

#include "base/arena.h"
#include "model/block.h"
#include "model/gradients.h"

struct pgrad__pass {
    pgrad_context *context;
    pgrad__arena arena;
    pgrad__workspace workspace;
    double deadline; /* by pgrad__os_seconds: a forward pass ends then */
};

/* What a layer leaves for its backward pass. A pass that only goes forward has one of these for all
 * layers, in which input, middle and output are the same rows, unless it stores them. */
typedef struct pgrad__activations {
    float *input;   /* [n_rows, E] the residual stream */
    float *middle;  /* [n_rows, E] behind attention */
    float *mean[2]; /* [n_rows] of the norms */
    float *rstd[2];
    float *qkv;                       /* [n_rows, (H + 2 K) hd], rotated */
    float *attention;                 /* [n_rows, H hd] */
    float *lse;                       /* [n_rows, H] */
    float *expand[PGRAD__MAX_EXPAND]; /* [n_rows, I] gate and up, or the first alone */
} pgrad__activations;

/* ---- activations.c ---- */

#define PGRAD__MAX_FIELDS 10

typedef struct pgrad__activation_field {
    float **at;
    size_t width; /* floats of a row */
} pgrad__activation_field;

/* The fields of a layer, its input left out; returns their number. */
size_t pgrad__activation_fields(const pgrad__config *config, pgrad__activations *of,
                                pgrad__activation_field *fields);

/* Makes room for so many floats of workspace: no kernel of the pass asks for more. */
pgrad_status pgrad__pass_reserve(pgrad__pass *pass, size_t floats);
void pgrad__pass_size_extend(pgrad__pass_size *size, const pgrad__pass_size *other);

/* The rows of a pass through all layers. */
typedef struct pgrad__trunk {
    pgrad_model *model;
    pgrad__pass *pass;
    const pgrad_token *tokens;
    size_t n_rows;
    uint32_t *positions;          /* [n_rows] */
    pgrad__attention_span *spans; /* [n_spans] */
    size_t *first_page;           /* [n_spans] index of a span's first page in `pages` */
    size_t n_spans;
    pgrad__kv_run *runs; /* [n_runs] what is stored: each span's rows, then borders of prefixes */
    size_t n_runs;
    unsigned char **pages; /* of all spans, one after another, for the layer at hand */
    size_t n_pages;
    uint32_t kv_storage;      /* PGRAD_KV_* of the pages; of scratch F32 */
    size_t page_layer_stride; /* bytes from a layer's page to the next one's; 0: reused */
    float *page_scratch;      /* of passes that keep no cache */
    size_t page_scratch_floats;
    int keep;                   /* 1: there is a way back, for which activations stay */
    int recompute;              /* with keep: only `input` of each layer, all share the rest */
    int stores;                 /* 1: activations go to `store` as they are computed */
    float **store;              /* [n_rows] a row of activations each */
    float *const *stored;       /* with keep: rows computed before; nothing is computed forward, a
                                   layer is gathered when the way back comes to it. NULL: none */
    pgrad__activations *layers; /* [n_layers], or [1] for all */
    float *output;              /* [n_rows, E] of the last layer */
    float *normed;              /* [n_rows, E] scratch */
    float *hidden;              /* [n_rows, I] scratch */
    /* backward */
    float *d_stream; /* [n_rows, E] */
    float *d_normed; /* [n_rows, E] */
    float *d_hidden; /* [n_rows, max(I, H hd)] */
    float *d_qkv;    /* [n_rows, (H + 2 K) hd] */
    const pgrad__attention_sequence *sequences;
    size_t n_sequences;
    /* the rows and sequences that drop.c leaves */
    pgrad_token *remaining_tokens;                  /* [n_rows] */
    pgrad__attention_sequence *remaining_sequences; /* [n_sequences] */
    uint32_t *remaining_index; /* [n_sequences] 1 + its number among the kept; 0 */
    float **remaining_stored;  /* [n_rows] where there are stored ones */
} pgrad__trunk;

static inline pgrad__activations *pgrad__trunk_layer(const pgrad__trunk *trunk, uint32_t layer)
{
    return &trunk->layers[trunk->keep && trunk->stored == NULL ? layer : 0];
}

/* ---- head.c ---- */

/* The rows that are predicted from, and the scratch to do it in chunks. */
typedef struct pgrad__head_pass {
    pgrad_model *model;
    pgrad__pass *pass;
    const pgrad__batch *batch;
    size_t chunk;    /* rows of logits at a time */
    float *gathered; /* [n_targets, E] of the trunk's output */
    float *normed;   /* [n_targets, E] */
    float *mean, *rstd;
    float *logits;                                               /* [chunk, V] */
    float *logprob, *lse, *entropy, *d_logprob, *entropy_weight; /* [chunk] */
    /* backward: targets with a derivative move to the front, of a chunk and of all */
    float *inverse_tau;   /* [chunk] */
    pgrad_token *targets; /* [chunk] */
    uint32_t *kept_rows;  /* [n_targets] their rows in the trunk */
    size_t n_kept;
    float *d_normed; /* [n_targets, E] */
} pgrad__head_pass;

/* with_logits: a chunk of them and what goes with it, for head_score and head_backward. */
void pgrad__head_lay_out(pgrad__head_pass *head, pgrad__arena *arena, int with_logits,
                         int with_backward);
/* Floats of workspace, once it is laid out. */
size_t pgrad__head_scratch(const pgrad__head_pass *head, const pgrad__machine *machine,
                           int with_backward);
/* Gathers the target rows and normalises them. */
void pgrad__head_gather(pgrad__head_pass *head, const float *output);
/* logits [n, V] of target rows first .. */
pgrad_status pgrad__head_logits(pgrad__head_pass *head, size_t first, size_t n, float *logits);
/* logprob and entropy [n_targets], each may be NULL; by chunks. */
pgrad_status pgrad__head_score(pgrad__head_pass *head, float *logprob, float *entropy);
/* Adds to the head's and the final norm's gradients and writes the gradient at the trunk's output,
 * unless n_kept is 0 at the end: every derivative was zero. */
pgrad_status pgrad__head_backward(pgrad__head_pass *head, pgrad__loss_fn loss, void *user,
                                  float *d_stream, size_t n_rows);

/* ---- the trunk ---- */

/* Width of the rows of q, k and v together. */
static inline size_t pgrad__qkv_width(const pgrad__config *config)
{
    return (size_t)(config->n_heads + 2 * config->n_kv_heads) * config->head_dim;
}

static inline size_t pgrad__query_width(const pgrad__config *config)
{
    return (size_t)config->n_heads * config->head_dim;
}

/* Heads and scale of a layer's attention; kv_storage is left at F32. */
pgrad__attention_shape pgrad__layer_attention(const pgrad__config *config, uint32_t layer);

/* Hands out the trunk's arrays; model, n_rows, n_spans, n_runs, n_pages, page_scratch_floats, keep,
 * recompute, stores and stored are set. */
void pgrad__trunk_lay_out(pgrad__trunk *trunk, pgrad__arena *arena);

/* Floats of workspace that the kernels of a trunk ask for, at most; spans, and of one that goes
 * back sequences, are set. */
size_t pgrad__trunk_scratch(const pgrad__trunk *trunk, const pgrad__machine *machine);

/* Says where page i of span s is: pages[first_page[s] + i] are set; puts them into the spans and
 * makes their runs. */
void pgrad__trunk_set_pages(pgrad__trunk *trunk);

/* A batch's trunk and head, planned in the pass's arena and ready for trunk_forward. */
typedef struct pgrad__batch_pass {
    pgrad__trunk trunk;
    pgrad__head_pass head;
    pgrad__gradients gradients;
    int with_logits;
    int borrow; /* 1: room for gradients that are used up at once */
} pgrad__batch_pass;

/* Sets plan->trunk, head and gradients.block; with_logits, borrow, trunk.keep and trunk.recompute
 * are set. */
pgrad_status pgrad__batch_pass_plan(pgrad__batch_pass *plan, pgrad_model *model, pgrad__pass *pass,
                                    const pgrad__batch *batch);

/* Extends *size by what the plan would take for a model without weights. */
pgrad_status pgrad__batch_pass_measure(pgrad__batch_pass *plan, pgrad_model *model,
                                       const pgrad__batch *batch, uint32_t n_workers,
                                       pgrad__pass_size *size);

/* Puts the trunk's spans and pages to a batch that is no larger than the planned one. */
void pgrad__trunk_set_batch(pgrad__trunk *trunk, const pgrad__batch *batch);

/* Takes out of a trunk that has gone forward, before it goes back, the sequences that none of the
 * head's kept rows needs (drop.c). */
void pgrad__trunk_drop(pgrad__trunk *trunk, const pgrad__head_pass *head);

/* Checks ids against the vocabulary: E_INVALID naming the index. */
pgrad_status pgrad__check_tokens(const pgrad_model *model, const pgrad_token *tokens, size_t n);

/* Embedding and all layers; pages stand at layer 0 and are moved on. Cancel is looked at in front
 * of each layer. */
pgrad_status pgrad__trunk_forward(pgrad__trunk *trunk);

/* One layer; block_pass.c. `output` may be the layer's middle, or separate rows. */
pgrad_status pgrad__block_forward(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *kept,
                                  float *output);
/* Fills `kept` again from its input, as far as the backward pass needs it. */
pgrad_status pgrad__block_recompute(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *kept);
/* The embedding of the trunk's tokens, [n_rows, E]. */
void pgrad__trunk_embed(const pgrad__trunk *trunk, float *output);
/* What a layer leaves and its output, to where `store` says; and back from `stored`: all of it with
 * the input, or the output alone. */
void pgrad__store_layer(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *of, float *output);
void pgrad__gather_layer(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *to);
void pgrad__gather_output(pgrad__trunk *trunk, uint32_t layer, float *output);
/* d_stream: in, the gradient at the output; out, at the input. Overwrites kept->expand. */
pgrad_status pgrad__block_backward(pgrad__trunk *trunk, uint32_t layer, pgrad__activations *kept);

/* y = norm(x), both [n_rows, E]; mean (of LayerNorm alone) and rstd, [n_rows], for the way back. */
void pgrad__norm_forward(const pgrad_model *model, const pgrad__norm *norm, const float *x,
                         size_t n_rows, float *y, float *mean, float *rstd);
/* Adds to dx, and to the gradients of the norm's weight and bias. */
void pgrad__norm_backward(const pgrad_model *model, const pgrad__norm *norm, const float *dy,
                          const float *x, size_t n_rows, const float *mean, const float *rstd,
                          float *dx);

#endif
