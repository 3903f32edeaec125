/* The engine of a rollout: slots over a key-value cache, refilled as sequences finish. Not the
 * storage of what it makes, which is the rollout. */
#ifndef PGRAD_RL_GENERATOR_H
#define PGRAD_RL_GENERATOR_H

#include "base/strbuf.h"
#include "rl/prefix_cache.h"
#include "rl/rollout.h"
#include "rl/sampler.h"

/* A sequence being decoded. */
typedef struct pgrad__slot {
    uint32_t sequence;
    uint32_t n_positions; /* whose keys and values are in the cache */
    uint32_t n_pages;
    uint32_t n_shared_pages; /* with its group: full pages of the prompt */
    uint32_t *pages;         /* [max_pages] */
    uint32_t stop_state;     /* in the sampler's stop strings */
    pgrad_decoder *decoder;  /* NULL without a tokenizer */
    pgrad__strbuf text;
    uint32_t draft_end; /* drafted ids stand in the sequence's own array from n_tokens up to here */
    uint32_t drafted, accepted; /* of late */
    int speculates;             /* drafts go through the model */
    int without_drafts;         /* one of this sequence's was not finite */
} pgrad__slot;

/* A group whose prompt, forced prefix included, is in the cache. */
typedef struct pgrad__prefilled {
    uint32_t group;
    uint32_t n_positions, n_pages;
    uint32_t n_started, n_total; /* sequences that have taken their share of the pages */
    uint32_t first_sequence;     /* they are numbered one after another */
    int ready;                   /* the first tokens are drawn */
    uint32_t *pages;
} pgrad__prefilled;

/* A row of logits to draw from: for the token `ahead` places behind a sequence's last one. */
typedef struct pgrad__draw_row {
    uint32_t sequence, ahead;
    const float *logits;
} pgrad__draw_row;

/* Rows of a decoding step beside the next token of every slot. */
#define PGRAD__MAX_EXTRA_ROWS 24

struct pgrad__generator {
    pgrad_context *context;
    /* sizes, set before any memory is taken */
    uint32_t batch_size, max_pages; /* slots; pages of the longest sequence */
    uint32_t n_pages, n_workers;    /* of the cache; of scratch */
    int has_mask;                   /* some ids have no token */
    /* what is there */
    pgrad__kv_cache *cache;
    pgrad__prefix_cache prefixes;
    pgrad__pass *pass;
    pgrad__slot *slots;         /* the first n_active are in use, in the order of their sequences */
    uint32_t n_active, n_slots; /* n_slots: those with buffers to free */
    pgrad__prefilled *prefilled; /* in the order of their sequences */
    uint32_t n_prefilled, max_prefilled;
    uint32_t *page_numbers; /* of all slots and prefilled groups */
    pgrad__decode_span *spans;
    float *logits;              /* [batch_size + MAX_EXTRA_ROWS, n_vocab] */
    pgrad__draw_row *draw_rows; /* [the same, or group_size] */
    pgrad__drawn *drawn;        /* [batch_size + MAX_EXTRA_ROWS] */
    pgrad__drawn *first;        /* [max_sequences] each sequence's first token, drawn at prefill */
    pgrad__draw_scratch *scratch; /* [n_workers] */
    uint32_t n_scratch;
    uint8_t *has_token; /* [n_vocab], NULL: every id has one */
    pgrad_token *ends;  /* end tokens of tokenizer and model, then the sampler's of this call */
    size_t n_own_ends, n_ends, ends_capacity;
    pgrad_rollout_info info; /* of the last call */
};

/* Sets the sizes of the rollout's generator, which is zeroed; lays its arrays out; counts what it
 * takes beside them; makes the rest of it. */
pgrad_status pgrad__generator_plan(pgrad_rollout *rollout, uint32_t n_workers);
void pgrad__generator_lay_out(pgrad_rollout *rollout, pgrad__arena *arena);
void pgrad__generator_count(const pgrad_rollout *planned, pgrad__arena *kv_cache,
                            pgrad__arena *other);
pgrad_status pgrad__generator_create(pgrad_rollout *rollout);
void pgrad__generator_free(pgrad_rollout *rollout);

/* 1 when the tokenizer or the model ends a text with this token. */
int pgrad__generator_ends_with(const struct pgrad__generator *generator, pgrad_token token);

/* One call of generate. */
typedef struct pgrad__generation {
    pgrad_rollout *rollout;
    struct pgrad__generator *generator;
    const pgrad_sampler *sampler;
    const pgrad_token *ends; /* those in force */
    size_t n_ends;
    pgrad_generate_params params;
    double started;
    uint32_t first_sequence;  /* the first made by this call */
    uint32_t next_sequence;   /* the first that has no slot yet */
    uint32_t next_prefill;    /* the first whose prompt is not in the cache */
    uint64_t n_done, n_total; /* tokens, for progress */
    int keeps;                /* activations go to the rollout's store */
} pgrad__generation;

/* ---- generate.c ---- */

/* Most tokens of a completion of this group. */
uint32_t pgrad__token_limit(const pgrad__generation *g, uint32_t group);
/* Sequence i's prompt and the first n_tokens of its completion. */
pgrad__token_chain pgrad__chain_of(const pgrad_rollout *rollout, uint32_t i, size_t n_tokens);
/* Between passes: progress, cancel, deadline. */
pgrad_status pgrad__generation_go_on(const pgrad__generation *g);
/* Takes pages until there is room for so many positions. */
pgrad_status pgrad__take_pages(struct pgrad__generator *generator, uint32_t *pages,
                               uint32_t *n_pages, size_t positions);
/* Has the activations of a span's tokens kept from a row of the store on, where this call keeps
 * any. Memory that AUTO is refused ends the keeping. */
pgrad_status pgrad__generation_keep(pgrad__generation *g, pgrad__decode_span *span, size_t row);
/* pgrad__model_decode over the generator's spans. */
pgrad_status pgrad__generation_decode(pgrad__generation *g, size_t n_spans);
/* Draws for the generator's first n draw_rows, into out. */
void pgrad__draw_all(pgrad__generation *g, size_t n, pgrad__drawn *out);
/* The error of a draw that failed. */
pgrad_status pgrad__check_drawn(const pgrad__generation *g, const pgrad__draw_row *row,
                                const pgrad__drawn *drawn);

/* The spans of a step with all slots in use, and drafts in each; all of the same lengths. */
void pgrad__decode_shape(const pgrad_rollout *planned, uint32_t n_prompt, uint32_t n_tokens,
                         pgrad__decode_span *spans);

/* ---- prefill.c ---- */

/* The spans of a pass over as many prompts of n_prompt tokens as go in; returns their number. */
uint32_t pgrad__prefill_shape(const pgrad_rollout *planned, uint32_t n_prompt,
                              pgrad__decode_span *spans);

/* Computes the prompts of as many groups as fill the free slots, several to a pass. */
pgrad_status pgrad__prefill(pgrad__generation *g);
/* Gives the pages of the first prefilled group back, whose sequences have started. */
void pgrad__release_prefilled(struct pgrad__generator *generator);

/* ---- speculate.c ---- */

/* Of a slot that begins a sequence. */
void pgrad__draft_reset(pgrad__slot *slot);
/* 1 when drafts are to go through the model in this step. AUTO: when enough of them come true in
 * all active slots, since a step lasts as long as its rows, and a batch as long as its slowest
 * slot. */
int pgrad__drafts_pay(const pgrad__generation *g);
/* Most drafts of each slot: evenly, since a batch lasts as long as its slowest slot. */
uint32_t pgrad__draft_share(uint32_t n_active);
/* Drafts behind the slot's last id; how many of them to feed, at most `room`. */
uint32_t pgrad__draft(const pgrad__generation *g, pgrad__slot *slot, uint32_t room);
/* Tells of the token drawn next, before it is recorded; 1 when it is the drafted one. */
int pgrad__draft_came_true(const pgrad__generation *g, pgrad__slot *slot, pgrad_token token);

/* ---- slots.c ---- */

/* Writes a token into its sequence's arrays. */
void pgrad__record_token(pgrad_rollout *rollout, uint32_t i, const pgrad__drawn *drawn, int forced);
/* Puts a drawn token into its sequence; *finished when it ended there. */
pgrad_status pgrad__slot_push(pgrad__generation *g, pgrad__slot *slot, const pgrad__drawn *drawn,
                              int *finished);
/* Tells of the forced tokens, which are in the arrays already. */
pgrad_status pgrad__slot_push_prefix(pgrad__generation *g, pgrad__slot *slot);
/* Keeps the slot's full pages, gives all of them back and settles the sequence's text. */
pgrad_status pgrad__slot_finish(pgrad__generation *g, pgrad__slot *slot, uint32_t finish);
/* Gives the pages back and settles the text of a sequence that was stopped. */
pgrad_status pgrad__slot_stop(pgrad__generation *g, pgrad__slot *slot);

#endif
