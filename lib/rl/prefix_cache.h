/* Which pages of a rollout's key-value cache hold which beginnings of token sequences, so that a
 * prompt that begins like an earlier one takes its keys and values over. Lives as long as the
 * weights stay the same. Not who decodes over a page: that is generate's. */
#ifndef PGRAD_RL_PREFIX_CACHE_H
#define PGRAD_RL_PREFIX_CACHE_H

#include "model/model.h"

#define PGRAD__NO_PAGE UINT32_MAX

/* The ids of a sequence from position 0 on: prompt, then completion. */
typedef struct pgrad__token_chain {
    uint32_t sequence; /* its number in the rollout */
    const pgrad_token *part[2];
    size_t n[2];
} pgrad__token_chain;

/* What the index knows of a page. A page is named by the page in front of it and its own ids, so
 * equal names mean equal ids from position 0 on. */
typedef struct pgrad__kept_page {
    uint32_t parent; /* PGRAD__NO_PAGE: position 0 begins here */
    uint32_t n_children;
    uint32_t next; /* in its bucket */
    int kept;
    uint32_t sequence;    /* that it was computed for */
    uint64_t used, added; /* when, in the index's own time */
    pgrad_token tokens[PGRAD__KEY_TILE];
} pgrad__kept_page;

/* An index of full pages; it holds a reference to each. A page that nobody else holds is given up
 * when room is needed: the one not used for longest, of those with no page behind them. */
typedef struct pgrad__prefix_cache {
    pgrad__kv_cache *cache;
    uint32_t n_pages, n_buckets;
    pgrad__kept_page *pages; /* [n_pages] by page number */
    uint32_t *buckets;
    uint32_t n_kept;
    uint64_t now, computed;  /* what was added up to then is in its pages */
    uint64_t weight_version; /* of the weights that computed them */
} pgrad__prefix_cache;

void pgrad__prefix_cache_lay_out(pgrad__prefix_cache *prefixes, uint32_t n_pages,
                                 pgrad__arena *arena);
/* Empty, once it is laid out. */
void pgrad__prefix_cache_init(pgrad__prefix_cache *prefixes, pgrad__kv_cache *cache);

/* Forgets all pages. */
void pgrad__prefix_cache_clear(pgrad__prefix_cache *prefixes);

/* A page as pgrad__kv_cache_take and _copy give it, at the cost of a kept one when none is free. */
pgrad_status pgrad__prefix_cache_take(pgrad__prefix_cache *prefixes, uint32_t *page);
pgrad_status pgrad__prefix_cache_copy(pgrad__prefix_cache *prefixes, uint32_t from, uint32_t *page);

/* The kept page with the ids of page `index` of the chain behind `parent`; PGRAD__NO_PAGE. */
uint32_t pgrad__prefix_cache_find(pgrad__prefix_cache *prefixes, uint32_t parent,
                                  const pgrad__token_chain *chain, size_t index);

/* 1 when the keys and values are in the page: a pass may still be on its way to them. */
static inline int pgrad__prefix_cache_has(const pgrad__prefix_cache *prefixes, uint32_t page)
{
    return prefixes->pages[page].added <= prefixes->computed;
}

/* The sequence that the page was computed for, of those the rollout had then. */
static inline uint32_t pgrad__prefix_cache_origin(const pgrad__prefix_cache *prefixes,
                                                  uint32_t page)
{
    return prefixes->pages[page].sequence;
}

/* All pages kept so far have been computed. */
static inline void pgrad__prefix_cache_computed(pgrad__prefix_cache *prefixes)
{
    prefixes->computed = prefixes->now;
}

/* Keeps the first n_full pages of a chain. Where the index has a page of the same ids, that one
 * takes the place of pages[i]. */
void pgrad__prefix_cache_keep(pgrad__prefix_cache *prefixes, const pgrad__token_chain *chain,
                              uint32_t *pages, size_t n_full);

#endif
