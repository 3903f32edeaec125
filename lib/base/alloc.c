#include "base/alloc.h"

#include <string.h>

#include "base/checked.h"
#include "base/context.h"
#include "base/fail.h"

/* Stands in front of every block and keeps the alignment; the host's free is told the size. */
enum { ALIGNMENT = PGRAD__BLOCK_HEADER };
typedef struct block_header {
    size_t total;
    unsigned char padding[ALIGNMENT - sizeof(size_t)];
} block_header;

static block_header *header_of(void *block)
{
    return (block_header *)((unsigned char *)block - sizeof(block_header));
}

/* Counts `size` more bytes as held, *held with them: E_LIMIT beyond the context's limit. */
static pgrad_status account(pgrad_context *context, size_t size, uint_fast64_t *held)
{
    const uint64_t limit = context->memory_limit;
    uint_fast64_t before = atomic_load(&context->memory_now);
    do {
        if (limit != 0 && size > limit - before)
            return pgrad__fail(
                PGRAD_E_LIMIT,
                "memory: %zu bytes more are needed, %llu are held, the context allows %llu", size,
                (unsigned long long)before, (unsigned long long)limit);
    } while (!atomic_compare_exchange_weak(&context->memory_now, &before, before + size));
    *held = before + size;
    return PGRAD_OK;
}

static void raise_peak(pgrad_context *context, uint_fast64_t held)
{
    uint_fast64_t peak = atomic_load(&context->memory_peak);
    while (peak < held && !atomic_compare_exchange_weak(&context->memory_peak, &peak, held)) {
    }
}

pgrad_status pgrad__alloc_block(const pgrad_allocator *allocator, size_t size, void **out)
{
    void *block = allocator->alloc(allocator->user, size, ALIGNMENT);
    if (block == NULL)
        return pgrad__fail(PGRAD_E_NOMEM, "memory: the allocator refused %zu bytes", size);
    const unsigned beyond = (unsigned)((uintptr_t)block % ALIGNMENT);
    if (beyond != 0) {
        allocator->free(allocator->user, block, size);
        return pgrad__fail(PGRAD_E_INVALID,
                           "memory: expected a block of the allocator's aligned to %d bytes, found "
                           "one %u bytes beyond that",
                           ALIGNMENT, beyond);
    }
    *out = block;
    return PGRAD_OK;
}

static pgrad_status allocate(pgrad_context *context, size_t count, size_t size, void **out)
{
    size_t total;
    uint_fast64_t held;
    if (!pgrad__mul(count, size, &total) || !pgrad__add(total, sizeof(block_header), &total) ||
        !pgrad__align(total, ALIGNMENT, &total))
        return pgrad__fail(PGRAD_E_LIMIT,
                           "memory: %zu times %zu bytes are more than can be addressed", count,
                           size);
    PGRAD__TRY(account(context, total, &held));
    void *block;
    const pgrad_status status = pgrad__alloc_block(&context->allocator, total, &block);
    if (status != PGRAD_OK) {
        atomic_fetch_sub(&context->memory_now, total);
        return status;
    }
    raise_peak(context, held); /* not before: a block that was refused was never held */
    atomic_fetch_add(&context->n_allocations, 1);
    block_header *header = block;
    header->total = total;
    *out = header + 1;
    return PGRAD_OK;
}

/* The callers pass the address of any object pointer: it is written through memcpy. */
static void store_pointer(void *out, void *block)
{
    memcpy(out, &block, sizeof block);
}

pgrad_status pgrad__alloc(pgrad_context *context, size_t count, size_t size, void *out)
{
    void *block;
    PGRAD__TRY(allocate(context, count, size, &block));
    store_pointer(out, block);
    return PGRAD_OK;
}

pgrad_status pgrad__calloc(pgrad_context *context, size_t count, size_t size, void *out)
{
    void *block;
    PGRAD__TRY(allocate(context, count, size, &block));
    memset(block, 0, count * size);
    store_pointer(out, block);
    return PGRAD_OK;
}

pgrad_status pgrad__realloc(pgrad_context *context, void *block, size_t count, size_t size)
{
    void *old, *grown;
    memcpy(&old, block, sizeof old);
    PGRAD__TRY(allocate(context, count, size, &grown));
    if (old != NULL) {
        size_t had = header_of(old)->total - sizeof(block_header), wanted = count * size;
        memcpy(grown, old, had < wanted ? had : wanted);
        pgrad__free(context, old);
    }
    store_pointer(block, grown);
    return PGRAD_OK;
}

pgrad_status pgrad__copy_text(pgrad_context *context, const char *text, size_t length, char **out)
{
    size_t size;
    char *copy;
    if (!pgrad__add(length, 1, &size))
        return pgrad__fail(PGRAD_E_LIMIT, "memory: a text of %zu bytes is too long", length);
    PGRAD__TRY(pgrad__alloc(context, size, 1, &copy));
    if (length > 0)
        memcpy(copy, text, length);
    copy[length] = '\0';
    *out = copy;
    return PGRAD_OK;
}

void pgrad__free(pgrad_context *context, void *block)
{
    if (block == NULL)
        return;
    block_header *header = header_of(block);
    size_t total = header->total;
    context->allocator.free(context->allocator.user, header, total);
    atomic_fetch_sub(&context->memory_now, total);
}

size_t pgrad__held(const void *block)
{
    return block == NULL ? 0 : ((const block_header *)block - 1)->total;
}

/* Doubles until `needed` fit; 0 when that cannot be counted. */
static size_t grown(size_t capacity, size_t needed)
{
    size_t grown = capacity < 8 ? 8 : capacity;
    while (grown < needed)
        if (!pgrad__mul(grown, 2, &grown))
            return 0;
    return grown;
}

size_t pgrad__reserve_capacity(size_t needed)
{
    return needed == 0 ? 0 : grown(0, needed);
}

pgrad_status pgrad__reserve(pgrad_context *context, void *items, size_t *capacity, size_t needed,
                            size_t size)
{
    if (needed <= *capacity)
        return PGRAD_OK;
    const size_t more = grown(*capacity, needed);
    if (more == 0)
        return pgrad__fail(PGRAD_E_LIMIT, "memory: %zu items of %zu bytes are too many", needed,
                           size);
    PGRAD__TRY(pgrad__realloc(context, items, more, size));
    *capacity = more;
    return PGRAD_OK;
}
