/* An allocator that counts what is alive and can be told to fail at its n-th call. */
#ifndef PGRAD_TESTS_FAILING_ALLOCATOR_H
#define PGRAD_TESTS_FAILING_ALLOCATOR_H

#include <policygrad/context.h>
#include <stdlib.h>

typedef struct counted {
    long left; /* allocations until one fails; below zero: none does */
    long live;
} counted;

static inline void *counted_alloc(void *user, size_t size, size_t alignment)
{
    counted *state = user;
    long left = __atomic_sub_fetch(&state->left, 1, __ATOMIC_SEQ_CST);
    if (left == 0)
        return NULL;
    void *block = aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
    if (block != NULL)
        __atomic_add_fetch(&state->live, 1, __ATOMIC_SEQ_CST);
    return block;
}

static inline void counted_free(void *user, void *pointer, size_t size)
{
    counted *state = user;
    (void)size;
    __atomic_sub_fetch(&state->live, 1, __ATOMIC_SEQ_CST);
    free(pointer);
}

static inline pgrad_allocator counted_allocator(counted *state)
{
    return (pgrad_allocator){state, counted_alloc, counted_free};
}

#endif
