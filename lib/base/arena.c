#include "base/arena.h"

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"

void *pgrad__arena_take(pgrad__arena *arena, size_t count, size_t size)
{
    size_t bytes, end, at = arena->used;
    if (!pgrad__mul(count, size, &bytes) || !pgrad__align(bytes, 64, &bytes) ||
        !pgrad__add(at, bytes, &end)) {
        arena->overflow = 1;
        return NULL;
    }
    arena->used = end;
    return arena->base == NULL ? NULL : arena->base + at;
}

static pgrad_status too_large(void)
{
    return pgrad__fail(PGRAD_E_LIMIT, "memory: more than can be addressed");
}

pgrad_status pgrad__arena_plan(pgrad__arena *arena,
                               void (*lay_out)(pgrad__arena *arena, void *user), void *user)
{
    unsigned char *block = arena->base;
    arena->base = NULL;
    arena->used = 0;
    arena->overflow = 0;
    lay_out(arena, user);
    if (arena->overflow) {
        arena->base = block;
        return too_large();
    }
    if (arena->used > arena->capacity) {
        size_t needed = arena->used;
        pgrad__free(arena->context, block); /* first: the old and the new need not fit together */
        arena->capacity = 0;
        PGRAD__TRY(pgrad__alloc(arena->context, needed, 1, &block));
        arena->capacity = needed;
    }
    arena->base = block;
    arena->used = 0;
    lay_out(arena, user);
    return PGRAD_OK;
}

void pgrad__arena_free(pgrad__arena *arena)
{
    pgrad__free(arena->context, arena->base);
    arena->base = NULL;
    arena->capacity = 0;
}

void pgrad__arena_count_block(pgrad__arena *sum, size_t count, size_t size)
{
    (void)pgrad__arena_take(sum, count, size);
    (void)pgrad__arena_take(sum, 1, PGRAD__BLOCK_HEADER);
}

pgrad_status pgrad__arena_measure(void (*lay_out)(pgrad__arena *arena, void *user), void *user,
                                  size_t *bytes)
{
    pgrad__arena sum = {0};
    lay_out(&sum, user);
    if (sum.overflow)
        return too_large();
    *bytes = sum.used;
    return PGRAD_OK;
}
