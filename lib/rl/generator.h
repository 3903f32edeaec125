/* The engine of a rollout: slots over a key-value cache, refilled as sequences finish. Not the
 * storage of what it makes, which is the rollout. */
#ifndef PGRAD_RL_GENERATOR_H
#define PGRAD_RL_GENERATOR_H

#include "base/strbuf.h"
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

struct pgrad__generator {
    pgrad_context *context;
    uint32_t batch_size, max_pages; /* slots; pages of the longest sequence */
    pgrad__kv_cache *cache;
    pgrad__pass *pass;
    pgrad__slot *slots; /* the first n_active are in use, in the order of their sequences */
    uint32_t n_active;
    pgrad__prefilled *prefilled; /* in the order of their sequences */
    uint32_t n_prefilled, max_prefilled;
    uint32_t *page_numbers; /* of all slots and prefilled groups */
    pgrad__decode_span *spans;
    float *logits;       /* [batch_size, n_vocab] */
    pgrad__drawn *drawn; /* [batch_size] */
    pgrad__drawn *first; /* [max_sequences] each sequence's first token, drawn at prefill */
    pgrad__draw_scratch *scratch; /* [n_workers] */
    uint32_t n_scratch;
    uint8_t *has_token; /* [n_vocab], NULL: every id has one */
    pgrad_token *ends;  /* end tokens of tokenizer and model, then the sampler's of this call */
    size_t n_own_ends, n_ends, ends_capacity;
};

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
} pgrad__generation;

/* Most tokens of a completion of this group. */
uint32_t pgrad__token_limit(const pgrad__generation *g, uint32_t group);

/* slots.c: writes a token into its sequence's arrays. */
void pgrad__record_token(pgrad_rollout *rollout, uint32_t i, const pgrad__drawn *drawn, int forced);
/* Puts a drawn token into its sequence; *finished when it ended there. */
pgrad_status pgrad__slot_push(pgrad__generation *g, pgrad__slot *slot, const pgrad__drawn *drawn,
                              int *finished);
/* Tells of the forced tokens, which are in the arrays already. */
pgrad_status pgrad__slot_push_prefix(pgrad__generation *g, pgrad__slot *slot);
/* Gives the slot's pages back and settles the sequence's text. */
pgrad_status pgrad__slot_finish(pgrad__generation *g, pgrad__slot *slot, uint32_t finish);
/* Settles the text of a sequence that was stopped. */
pgrad_status pgrad__slot_stop(pgrad__generation *g, pgrad__slot *slot);

#endif
