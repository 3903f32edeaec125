#include "rl/prefix_cache.h"

#include <string.h>

enum { TILE = PGRAD__KEY_TILE };

void pgrad__prefix_cache_lay_out(pgrad__prefix_cache *prefixes, uint32_t n_pages,
                                 pgrad__arena *arena)
{
    *prefixes = (pgrad__prefix_cache){.n_pages = n_pages, .n_buckets = 16};
    while (prefixes->n_buckets < n_pages)
        prefixes->n_buckets *= 2;
    prefixes->pages = pgrad__arena_take(arena, n_pages, sizeof *prefixes->pages);
    prefixes->buckets = pgrad__arena_take(arena, prefixes->n_buckets, sizeof *prefixes->buckets);
}

void pgrad__prefix_cache_init(pgrad__prefix_cache *prefixes, pgrad__kv_cache *cache)
{
    prefixes->cache = cache;
    memset(prefixes->pages, 0, prefixes->n_pages * sizeof *prefixes->pages);
    memset(prefixes->buckets, 0xff, prefixes->n_buckets * sizeof *prefixes->buckets);
}

/* ---- the index ---- */

static uint32_t *bucket_of(const pgrad__prefix_cache *prefixes, uint32_t parent,
                           const pgrad_token *tokens)
{
    uint64_t hash = 0xcbf29ce484222325u ^ parent;
    for (size_t i = 0; i < TILE; i++) {
        hash = (hash ^ (uint32_t)tokens[i]) * 0x100000001b3u;
        hash ^= hash >> 29;
    }
    return &prefixes->buckets[(hash ^ hash >> 32) & (prefixes->n_buckets - 1)];
}

static void copy_tokens(const pgrad__token_chain *chain, size_t index, pgrad_token *tokens)
{
    for (size_t i = 0, at = index * TILE; i < TILE; i++, at++)
        tokens[i] = at < chain->n[0] ? chain->part[0][at] : chain->part[1][at - chain->n[0]];
}

static uint32_t find(pgrad__prefix_cache *prefixes, uint32_t parent, const pgrad_token *tokens)
{
    uint32_t page = *bucket_of(prefixes, parent, tokens);
    while (page != PGRAD__NO_PAGE &&
           (prefixes->pages[page].parent != parent ||
            memcmp(prefixes->pages[page].tokens, tokens, TILE * sizeof *tokens) != 0))
        page = prefixes->pages[page].next;
    if (page != PGRAD__NO_PAGE)
        prefixes->pages[page].used = ++prefixes->now;
    return page;
}

static void add(pgrad__prefix_cache *prefixes, uint32_t parent, const pgrad_token *tokens,
                uint32_t sequence, uint32_t page)
{
    uint32_t *bucket = bucket_of(prefixes, parent, tokens);
    pgrad__kept_page *made = &prefixes->pages[page];
    *made = (pgrad__kept_page){.parent = parent, .next = *bucket, .kept = 1, .sequence = sequence};
    made->used = made->added = ++prefixes->now;
    prefixes->n_kept++;
    memcpy(made->tokens, tokens, sizeof made->tokens);
    *bucket = page;
    if (parent != PGRAD__NO_PAGE)
        prefixes->pages[parent].n_children++;
    pgrad__kv_cache_share(prefixes->cache, page);
}

static void give_up(pgrad__prefix_cache *prefixes, uint32_t page)
{
    pgrad__kept_page *gone = &prefixes->pages[page];
    uint32_t *link = bucket_of(prefixes, gone->parent, gone->tokens);
    while (*link != page)
        link = &prefixes->pages[*link].next;
    *link = gone->next;
    if (gone->parent != PGRAD__NO_PAGE)
        prefixes->pages[gone->parent].n_children--;
    gone->kept = 0;
    prefixes->n_kept--;
    pgrad__kv_cache_release(prefixes->cache, page);
}

void pgrad__prefix_cache_clear(pgrad__prefix_cache *prefixes)
{
    for (uint32_t page = 0; page < prefixes->n_pages; page++)
        if (prefixes->pages[page].kept)
            give_up(prefixes, page);
}

uint32_t pgrad__prefix_cache_find(pgrad__prefix_cache *prefixes, uint32_t parent,
                                  const pgrad__token_chain *chain, size_t index)
{
    pgrad_token tokens[TILE];
    copy_tokens(chain, index, tokens);
    return find(prefixes, parent, tokens);
}

/* Who holds a page holds the kept pages in front of it: what is kept behind a page that nobody
 * holds is held by nobody either, and leaves can be given up one after another. */
void pgrad__prefix_cache_keep(pgrad__prefix_cache *prefixes, const pgrad__token_chain *chain,
                              uint32_t *pages, size_t n_full)
{
    uint32_t parent = PGRAD__NO_PAGE;
    for (size_t i = 0; i < n_full; parent = pages[i++]) {
        pgrad_token tokens[TILE];
        copy_tokens(chain, i, tokens);
        const uint32_t known = find(prefixes, parent, tokens);
        if (known == PGRAD__NO_PAGE) {
            add(prefixes, parent, tokens, chain->sequence, pages[i]);
        } else if (known != pages[i]) {
            pgrad__kv_cache_release(prefixes->cache, pages[i]);
            pgrad__kv_cache_share(prefixes->cache, known);
            pages[i] = known;
        }
    }
}

/* ---- room ---- */

static void make_room(pgrad__prefix_cache *prefixes)
{
    uint32_t oldest = PGRAD__NO_PAGE;
    if (pgrad__kv_cache_available(prefixes->cache) > 0)
        return;
    for (uint32_t i = 0; i < prefixes->n_pages; i++) {
        const pgrad__kept_page *page = &prefixes->pages[i];
        if (page->kept && page->n_children == 0 &&
            pgrad__kv_cache_references(prefixes->cache, i) == 1 &&
            (oldest == PGRAD__NO_PAGE || page->used < prefixes->pages[oldest].used))
            oldest = i;
    }
    if (oldest != PGRAD__NO_PAGE)
        give_up(prefixes, oldest);
}

pgrad_status pgrad__prefix_cache_take(pgrad__prefix_cache *prefixes, uint32_t *page)
{
    make_room(prefixes);
    return pgrad__kv_cache_take(prefixes->cache, page);
}

pgrad_status pgrad__prefix_cache_copy(pgrad__prefix_cache *prefixes, uint32_t from, uint32_t *page)
{
    make_room(prefixes);
    return pgrad__kv_cache_copy(prefixes->cache, from, page);
}
