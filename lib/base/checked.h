/* Sizes. Those that may overflow: every product and sum of numbers from a file goes through mul,
 * add and align; each returns 1 and writes *out, or returns 0 and leaves it. */
#ifndef PGRAD_BASE_CHECKED_H
#define PGRAD_BASE_CHECKED_H

#include <stddef.h>
#include <stdint.h>

static inline int pgrad__mul(size_t a, size_t b, size_t *out)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product))
        return 0;
    *out = product;
    return 1;
}

static inline int pgrad__add(size_t a, size_t b, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum))
        return 0;
    *out = sum;
    return 1;
}

/* Rounds up to a multiple of alignment, a power of two. */
static inline int pgrad__align(size_t a, size_t alignment, size_t *out)
{
    size_t sum;
    if (__builtin_add_overflow(a, alignment - 1, &sum))
        return 0;
    *out = sum & ~(alignment - 1);
    return 1;
}

static inline uint32_t pgrad__min_u32(uint32_t a, uint32_t b)
{
    return a < b ? a : b;
}

#endif
