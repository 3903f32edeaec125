#include "model/kv_cache.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"

enum { SLACK_BYTES = PGRAD__SLACK * sizeof(float) };

pgrad_status pgrad__kv_cache_plan(pgrad__kv_cache *cache, const pgrad_model *model,
                                  uint32_t n_pages, uint32_t storage)
{
    cache->n_pages = n_pages;
    cache->n_layers = model->config.n_layers;
    cache->storage = storage;
    cache->page_bytes = model->config.n_kv_heads * pgrad__kv_element_bytes(storage) *
                        pgrad__kv_block_floats(model->kernels, model->config.head_dim);
    if (!pgrad__mul(cache->page_bytes, n_pages, &cache->layer_bytes))
        return pgrad__fail(PGRAD_E_LIMIT, "a cache of %u pages is too large", n_pages);
    return PGRAD_OK;
}

static void lay_out(pgrad__arena *arena, void *user)
{
    pgrad__kv_cache *cache = user;
    cache->references = pgrad__arena_take(arena, cache->n_pages, sizeof *cache->references);
    cache->available = pgrad__arena_take(arena, cache->n_pages, sizeof *cache->available);
    /* Slack for every layer: more than is needed, and one checked product. */
    cache->data = pgrad__arena_take(arena, cache->n_layers, cache->layer_bytes + SLACK_BYTES);
}

void pgrad__kv_cache_count(const pgrad__kv_cache *planned, pgrad__arena *sum)
{
    pgrad__kv_cache copy = *planned;
    pgrad__arena_count_block(sum, 1, sizeof copy);
    lay_out(sum, &copy);
    pgrad__arena_count_block(sum, 0, 0); /* of the arena itself */
}

pgrad_status pgrad__kv_cache_create(pgrad_model *model, uint32_t n_pages, uint32_t storage,
                                    pgrad__kv_cache **out)
{
    pgrad_context *context = model->context;
    pgrad__kv_cache *cache;
    pgrad_status status;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *cache, &cache));
    pgrad__context_retain(context);
    cache->context = cache->arena.context = context;
    PGRAD__GO(pgrad__kv_cache_plan(cache, model, n_pages, storage));
    PGRAD__GO(pgrad__arena_plan(&cache->arena, lay_out, cache));
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
    pgrad__arena_free(&cache->arena);
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
