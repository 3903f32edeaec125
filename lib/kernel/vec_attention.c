/* Rows of attention tiles, PGRAD__KEY_TILE scores each. */
#include <math.h>

#include "kernel/vec_math.h"

#define VECTORS (PGRAD__KEY_TILE / VL)

static inline float exp_of(float x)
{
    return vec_exp(vec_splat(x))[0];
}

/* Loads a tile row times scale; -infinity for keys that are not visible. */
INLINE void load_scores(vec out[VECTORS], float *s, size_t n, float scale)
{
    for (size_t j = n; j < PGRAD__KEY_TILE; j++)
        s[j] = -INFINITY;
    for (int v = 0; v < VECTORS; v++)
        out[v] = vec_load(s + v * VL) * scale;
}

/* m' = max(m, max s), p = exp(s - m'), a = exp(m - m'), l = l a + sum p: 16 lanes over the tile,
 * then the tree. */
void PGRAD__VEC(attention_row)(float *s, size_t n, float scale, float *m, float *l, float *factor)
{
    vec scores[VECTORS], best[VN], sum[VN];
    load_scores(scores, s, n, scale);
    for (int v = 0; v < VN; v++) {
        best[v] = scores[v];
        sum[v] = vec_splat(0.0f);
    }
    for (int v = VN; v < VECTORS; v++)
        best[v % VN] = vec_max(scores[v], best[v % VN]);
    float tile_max = lanes_max(best);
    float next = tile_max > *m ? tile_max : *m;
    for (int v = 0; v < VECTORS; v++) {
        vec p = vec_exp(scores[v] - next);
        vec_store(s + v * VL, p);
        sum[v % VN] += p;
    }
    *factor = exp_of(*m - next);
    *l = *l * *factor + tree_sum(sum);
    *m = next;
}

/* p = exp(s scale - lse). */
void PGRAD__VEC(attention_row_recompute)(float *s, size_t n, float scale, float lse)
{
    vec scores[VECTORS];
    load_scores(scores, s, n, scale);
    for (int v = 0; v < VECTORS; v++)
        vec_store(s + v * VL, vec_exp(scores[v] - lse));
}

/* ds = p (dp - delta) scale. */
void PGRAD__VEC(attention_row_backward)(const float *p, float *dp, float delta, float scale)
{
    for (int v = 0; v < VECTORS; v++)
        vec_store(dp + v * VL, vec_load(p + v * VL) * (vec_load(dp + v * VL) - delta) * scale);
}

float PGRAD__VEC(dot)(const float *x, const float *y, size_t n)
{
    vec sum[VN], xs[VN], ys[VN];
    for (int v = 0; v < VN; v++)
        sum[v] = vec_splat(0.0f);
    for (size_t i = 0; i < n; i += PGRAD__LANES) {
        lanes_load(xs, x, i, n, 0.0f);
        lanes_load(ys, y, i, n, 0.0f);
        for (int v = 0; v < VN; v++)
            sum[v] += xs[v] * ys[v];
    }
    return tree_sum(sum);
}
