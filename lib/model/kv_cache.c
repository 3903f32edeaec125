#include "model/kv_cache.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"

enum { SLACK_BYTES = PGRAD__SLACK * sizeof(float) };

pgrad_status pgrad__kv_cache_create(pgrad_model *model, uint32_t n_pages, uint32_t storage,
                                    pgrad__kv_cache **out)
{
    pgrad_context *context = model->context;
    pgrad__kv_cache *cache;
    pgrad_status status;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *cache, &cache));
    pgrad__context_retain(context);
    cache->context = context;
    cache->n_pages = n_pages;
    cache->n_layers = model->config.n_layers;
    cache->storage = storage;
    cache->page_bytes = model->config.n_kv_heads * pgrad__kv_element_bytes(storage) *
                        pgrad__kv_block_floats(model->kernels, model->config.head_dim);
    if (!pgrad__mul(cache->page_bytes, n_pages, &cache->layer_bytes))
        PGRAD__GO(pgrad__fail(PGRAD_E_LIMIT, "a cache of %u pages is too large", n_pages));
    PGRAD__GO(pgrad__calloc(context, n_pages, sizeof *cache->references, &cache->references));
    PGRAD__GO(pgrad__calloc(context, n_pages, sizeof *cache->available, &cache->available));
    /* Slack for every layer: more than is needed, and one checked product. */
    PGRAD__GO(
        pgrad__alloc(context, cache->layer_bytes + SLACK_BYTES, cache->n_layers, &cache->data));
    memset(cache->data + cache->layer_bytes * cache->n_layers, 0, SLACK_BYTES);
    pgrad__kv_cache_reset(cache);
    *out = cache;
    return PGRAD_OK;
fail:
    pgrad__kv_cache_free(cache);
    return status;
}

void pgrad__kv_cache_free(pgrad__kv_cache *cache)
{
    if (cache == NULL)
        return;
    pgrad_context *context = cache->context;
    pgrad__free(context, cache->data);
    pgrad__free(context, cache->available);
    pgrad__free(context, cache->references);
    pgrad__free(context, cache);
    pgrad_context_free(context);
}

void pgrad__kv_cache_reset(pgrad__kv_cache *cache)
{
    memset(cache->references, 0, cache->n_pages * sizeof *cache->references);
    cache->n_available = cache->n_pages;
    for (uint32_t i = 0; i < cache->n_pages; i++)
        cache->available[i] = cache->n_pages - 1 - i; /* the lowest is taken first */
}

size_t pgrad__kv_cache_bytes(const pgrad__kv_cache *cache)
{
    return cache->layer_bytes * cache->n_layers;
}

uint32_t pgrad__kv_cache_available(const pgrad__kv_cache *cache)
{
    return cache->n_available;
}

static pgrad_status take(pgrad__kv_cache *cache, uint32_t *page)
{
    if (cache->n_available == 0)
        return pgrad__fail(PGRAD_E_INTERNAL, "the cache of %u pages is full", cache->n_pages);
    *page = cache->available[--cache->n_available];
    cache->references[*page] = 1;
    return PGRAD_OK;
}

pgrad_status pgrad__kv_cache_take(pgrad__kv_cache *cache, uint32_t *page)
{
    PGRAD__TRY(take(cache, page));
    for (uint32_t i = 0; i < cache->n_layers; i++)
        memset(pgrad__kv_cache_page(cache, *page) + i * cache->layer_bytes, 0, cache->page_bytes);
    return PGRAD_OK;
}

pgrad_status pgrad__kv_cache_copy(pgrad__kv_cache *cache, uint32_t from, uint32_t *page)
{
    PGRAD__TRY(take(cache, page));
    for (uint32_t i = 0; i < cache->n_layers; i++)
        memcpy(pgrad__kv_cache_page(cache, *page) + i * cache->layer_bytes,
               pgrad__kv_cache_page(cache, from) + i * cache->layer_bytes, cache->page_bytes);
    return PGRAD_OK;
}

void pgrad__kv_cache_share(pgrad__kv_cache *cache, uint32_t page)
{
    cache->references[page]++;
}

uint32_t pgrad__kv_cache_references(const pgrad__kv_cache *cache, uint32_t page)
{
    return cache->references[page];
}

void pgrad__kv_cache_release(pgrad__kv_cache *cache, uint32_t page)
{
    if (--cache->references[page] == 0)
        cache->available[cache->n_available++] = page;
}
