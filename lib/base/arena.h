/* The memory of a pass, a rollout and the like: one block laid out by a plan, grown to the largest
 * plan and kept. Not an allocator: nothing is given back in it. */
#ifndef PGRAD_BASE_ARENA_H
#define PGRAD_BASE_ARENA_H

#include <policygrad/types.h>

/* A plan is run twice by the same code: once with base NULL to learn the size, once to hand out. */
typedef struct pgrad__arena {
    pgrad_context *context;
    unsigned char *base; /* NULL while measuring */
    size_t used, capacity;
    int overflow;
} pgrad__arena;

/* The next count * size bytes, on a 64-byte border; NULL while measuring. */
void *pgrad__arena_take(pgrad__arena *arena, size_t count, size_t size);

/* Runs lay_out twice and sees that the memory is there. E_NOMEM, E_LIMIT: what was handed out
 * before is gone. */
pgrad_status pgrad__arena_plan(pgrad__arena *arena,
                               void (*lay_out)(pgrad__arena *arena, void *user), void *user);
void pgrad__arena_free(pgrad__arena *arena);

/* ---- sizes alone ----
 * An arena with nothing but zeros sums up what lay_out functions take. */

/* The bytes of a block of the allocator's with count * size bytes in it. */
void pgrad__arena_count_block(pgrad__arena *sum, size_t count, size_t size);
/* A plan's bytes, all in; E_LIMIT when they cannot be addressed. */
pgrad_status pgrad__arena_measure(void (*lay_out)(pgrad__arena *arena, void *user), void *user,
                                  size_t *bytes);

#endif
