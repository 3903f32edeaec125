/* One tile by a micro-kernel against the definition of the bits. Run where a kernel set is chosen,
 * and by check_blis.c when the library is configured. */
#include "kernel/tile_order.h"

#include <string.h>

#include "kernel/panels.h"

/* The depth leaves a remainder to every unrolling by 2, 4, 8 or 16. */
enum { DEPTH = 79, NARROW = PGRAD__MAX_NARROW, WIDE = PGRAD__MAX_WIDE };

/* Numbers of both signs and some orders of magnitude: another order of summation shows. */
static void fill(float *x, size_t n, uint32_t state)
{
    for (size_t i = 0; i < n; i++) {
        state = state * 1664525u + 1013904223u;
        const float value = (float)(int32_t)state * 0x1p-31f;
        x[i] = state & 0x100 ? value : value * 0x1p-9f;
    }
}

static void tile_as_defined(const float *a, const float *b, size_t narrow, size_t wide, float *c,
                            int accumulate)
{
    for (size_t i = 0; i < narrow; i++)
        for (size_t j = 0; j < wide; j++) {
            float s = 0.0f;
            for (size_t k = 0; k < DEPTH; k++)
                s = __builtin_fmaf(a[k * narrow + i], b[k * wide + j], s);
            c[i * wide + j] = accumulate ? c[i * wide + j] + s : s;
        }
}

int pgrad__keeps_order(pgrad__micro_fn micro, size_t narrow, size_t wide)
{
    _Alignas(64) float a[DEPTH * NARROW + PGRAD__SLACK], b[DEPTH * WIDE + PGRAD__SLACK];
    _Alignas(64) float found[NARROW * WIDE], wanted[NARROW * WIDE];
    fill(a, DEPTH * NARROW + PGRAD__SLACK, 1);
    fill(b, DEPTH * WIDE + PGRAD__SLACK, 2);
    fill(found, NARROW * WIDE, 3);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        micro(DEPTH, a, b, found, wide, accumulate);
        tile_as_defined(a, b, narrow, wide, wanted, accumulate);
        if (memcmp(found, wanted, narrow * wide * sizeof *found) != 0)
            return 0;
    }
    return 1;
}
