/* Byte-pair merges: a table of ranked pairs, and the engine that applies them to one piece. Not the
 * splitting into pieces. */
#ifndef PGRAD_TEXT_BPE_H
#define PGRAD_TEXT_BPE_H

#include <policygrad/types.h>

typedef struct pgrad__merge {
    uint32_t left, right;
    uint32_t rank, id; /* lower ranks first; the id of the joined token */
} pgrad__merge;

/* Open addressing by (left, right); left UINT32_MAX: free. */
typedef struct pgrad__merges {
    pgrad_context *context;
    pgrad__merge *entries;
    size_t count, capacity;
} pgrad__merges;

pgrad_status pgrad__merges_init(pgrad__merges *merges, pgrad_context *context, size_t expected);
/* At most as many as were expected; a pair that is put twice keeps the later rank. */
void pgrad__merges_put(pgrad__merges *merges, pgrad__merge merge);
const pgrad__merge *pgrad__merges_get(const pgrad__merges *merges, uint32_t left, uint32_t right);
void pgrad__merges_free(pgrad__merges *merges);

/* Scratch of merging, kept between pieces. */
typedef struct pgrad__bpe_scratch {
    pgrad_context *context;
    struct pgrad__bpe_symbol *symbols;
    struct pgrad__bpe_candidate *heap;
    size_t symbol_capacity, heap_capacity, heap_count;
} pgrad__bpe_scratch;
void pgrad__bpe_scratch_free(pgrad__bpe_scratch *scratch);

/* Merges n ids in place, lowest rank first, leftmost among equals, until no pair is left; *n is
 * what remains. O(n log n). */
pgrad_status pgrad__bpe_merge(const pgrad__merges *merges, pgrad__bpe_scratch *scratch,
                              pgrad_token *ids, size_t *n);

#endif
