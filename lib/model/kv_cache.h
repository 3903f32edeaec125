/* The inside of a key-value cache: pages of all layers in one block. Not who uses which page: the
 * callers of pgrad__model_decode keep that. */
#ifndef PGRAD_MODEL_KV_CACHE_H
#define PGRAD_MODEL_KV_CACHE_H

#include "base/arena.h"
#include "model/model.h"

struct pgrad__kv_cache {
    pgrad_context *context;
    pgrad__arena arena; /* of all that follows */
    uint32_t n_pages, n_layers;
    uint32_t storage;    /* PGRAD_KV_* */
    size_t page_bytes;   /* a page of one layer: a block for each kv head */
    size_t layer_bytes;  /* from a layer's page to the next one's: n_pages * page_bytes */
    unsigned char *data; /* [n_layers, n_pages, page_bytes] + slack */
    uint32_t *references;
    uint32_t *available; /* a stack of free pages */
    uint32_t n_available;
};

/* Sets the sizes of a cache; E_LIMIT when they cannot be addressed. */
pgrad_status pgrad__kv_cache_plan(pgrad__kv_cache *cache, const pgrad_model *model,
                                  uint32_t n_pages, uint32_t storage);
/* Counts what a cache of these sizes takes. */
void pgrad__kv_cache_count(const pgrad__kv_cache *planned, pgrad__arena *sum);

/* The page in the first layer. */
static inline unsigned char *pgrad__kv_cache_page(const pgrad__kv_cache *cache, uint32_t page)
{
    return cache->data + page * cache->page_bytes;
}

#endif
