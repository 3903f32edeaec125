/* The engine of a rollout: slots over a key-value cache, refilled as sequences finish. Not the storage of
 * what it makes, which is the rollout. */
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
    uint32_t *pages; /* [max_pages] */
    pgrad_decoder *decoder; /* NULL without a tokenizer */
    pgrad__strbuf text;
} pgrad__slot;

/* A group whose prompt is in the cache. */
typedef struct pgrad__prefilled {
    uint32_t group;
    uint32_t n_positions, n_pages;
    uint32_t n_started, n_total;  /* sequences that have taken their share of the pages */
    uint32_t first_sequence;      /* they are numbered one after another */
    uint32_t *pages;
} pgrad__prefilled;

struct pgrad__generator {
    pgrad_context *context;
    uint32_t batch_size, max_pages; /* slots; pages of the longest sequence */
    pgrad__kv_cache *cache;
    pgrad__pass *pass;
    pgrad__slot *slots; /* the first n_active are in use, in the order of their sequences */
    uint32_t n_active;
    pgrad__prefilled *prefilled;
    uint32_t n_prefilled;
    uint32_t *page_numbers; /* of all slots and prefilled groups */
    pgrad__decode_span *spans;
    float *logits; /* [max(batch_size, 1), n_vocab] */
    pgrad__drawn *drawn;      /* [max(batch_size, group_size)] */
    pgrad__drawn *first;      /* [max_sequences] each sequence's first token, drawn at prefill */
    pgrad__draw_scratch *scratch; /* [n_workers] */
    uint32_t n_scratch;
    uint8_t *has_token; /* [n_vocab], NULL: every id has one */
    pgrad_token *ends;  /* end tokens of tokenizer, model and sampler */
    size_t n_ends, ends_capacity;
};

pgrad_status pgrad__generator_create(pgrad_rollout *rollout);
void pgrad__generator_free(pgrad_rollout *rollout);

/* One call of generate. */
typedef struct pgrad__generation {
    pgrad_rollout *rollout;
    struct pgrad__generator *generator;
    const pgrad_sampler *sampler;
    pgrad_generate_params params;
    double started;
    uint32_t next_sequence; /* the first that has no slot yet */
    uint32_t next_group;
    uint64_t n_done, n_total; /* tokens, for progress */
} pgrad__generation;

/* Most tokens of a completion of this group. */
uint32_t pgrad__token_limit(const pgrad__generation *g, uint32_t group);

/* slots.c: puts a drawn token into its sequence; *finished when it ended there. */
pgrad_status pgrad__slot_push(pgrad__generation *g, pgrad__slot *slot, const pgrad__drawn *drawn,
                              int forced, int *finished);
/* Gives the slot's pages back and settles the sequence's text. */
pgrad_status pgrad__slot_finish(pgrad__generation *g, pgrad__slot *slot, uint32_t finish);

#endif
