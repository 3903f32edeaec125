/* Rows of LayerNorm and RMSNorm, forward and backward. Sums run over 16 lanes in f32 within blocks
 * of 256 and over blocks in f64, so that their error does not grow with the row. */
#include <math.h>

#include "kernel/vec_math.h"

enum { BLOCK = 256 };

/* sum_i term(i) over a row; `term` gives vector v of lanes i .. i + 15 from the loaded lanes. */
#define ROW_SUM(n, load, term, total)                                                              \
    do {                                                                                           \
        total = 0.0;                                                                               \
        for (size_t first = 0; first < (n); first += BLOCK) {                                      \
            const size_t end = first + BLOCK < (n) ? first + BLOCK : (n);                          \
            vec lane_sum[VN];                                                                      \
            for (int v = 0; v < VN; v++)                                                           \
                lane_sum[v] = vec_splat(0.0f);                                                     \
            for (size_t i = first; i < end; i += PGRAD__LANES) {                                   \
                load;                                                                              \
                for (int v = 0; v < VN; v++)                                                       \
                    lane_sum[v] += term;                                                           \
            }                                                                                      \
            total += (double)tree_sum(lane_sum);                                                   \
        }                                                                                          \
    } while (0)

void PGRAD__VEC(layernorm_row)(const float *x, size_t n, const float *w, const float *b, float eps,
                               float *y, float *mean, float *rstd)
{
    double sum, squares;
    vec xs[VN];
    ROW_SUM(n, lanes_load(xs, x, i, n, 0.0f), xs[v], sum);
    const float mu = (float)(sum / (double)n);
    ROW_SUM(n, lanes_load(xs, x, i, n, mu), (xs[v] - mu) * (xs[v] - mu), squares);
    const float r = (float)(1.0 / sqrt(squares / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        y[i] = (x[i] - mu) * r * w[i] + b[i];
    *mean = mu;
    *rstd = r;
}

/* d = dy w, h = (x - mean) rstd: dx += rstd (d - mean(d) - h mean(d h)). */
void PGRAD__VEC(layernorm_row_backward)(const float *dy, const float *x, size_t n, const float *w,
                                        float mean, float rstd, float *dx)
{
    double sum, product;
    vec dys[VN], ws[VN], xs[VN];
    ROW_SUM(
        n,
        {
            lanes_load(dys, dy, i, n, 0.0f);
            lanes_load(ws, w, i, n, 0.0f);
        },
        dys[v] * ws[v], sum);
    ROW_SUM(
        n,
        {
            lanes_load(dys, dy, i, n, 0.0f);
            lanes_load(ws, w, i, n, 0.0f);
            lanes_load(xs, x, i, n, mean);
        },
        dys[v] * ws[v] * ((xs[v] - mean) * rstd), product);
    const float mean_d = (float)(sum / (double)n), mean_dh = (float)(product / (double)n);
    for (size_t i = 0; i < n; i++)
        dx[i] += rstd * (dy[i] * w[i] - mean_d - (x[i] - mean) * rstd * mean_dh);
}

void PGRAD__VEC(rmsnorm_row)(const float *x, size_t n, const float *w, float eps, float *y,
                             float *rstd)
{
    double squares;
    vec xs[VN];
    ROW_SUM(n, lanes_load(xs, x, i, n, 0.0f), xs[v] * xs[v], squares);
    const float r = (float)(1.0 / sqrt(squares / (double)n + (double)eps));
    for (size_t i = 0; i < n; i++)
        y[i] = x[i] * r * w[i];
    *rstd = r;
}

/* d = dy w: dx += rstd d - x rstd^3 mean(d x). */
void PGRAD__VEC(rmsnorm_row_backward)(const float *dy, const float *x, size_t n, const float *w,
                                      float rstd, float *dx)
{
    double product;
    vec dys[VN], ws[VN], xs[VN];
    ROW_SUM(
        n,
        {
            lanes_load(dys, dy, i, n, 0.0f);
            lanes_load(ws, w, i, n, 0.0f);
            lanes_load(xs, x, i, n, 0.0f);
        },
        dys[v] * ws[v] * xs[v], product);
    const float factor = (float)(product / (double)n) * rstd * rstd * rstd;
    for (size_t i = 0; i < n; i++)
        dx[i] += dy[i] * w[i] * rstd - x[i] * factor;
}

/* dw[j] += sum_t dy (x - mean) rstd, db[j] += sum_t dy, t ascending. */
void PGRAD__VEC(norm_columns_backward)(const float *dy, size_t lddy, const float *x, size_t ldx,
                                       size_t n_rows, size_t n, const float *mean,
                                       const float *rstd, float *dw, float *db)
{
    for (size_t t = 0; t < n_rows; t++) {
        const float *d = dy + t * lddy, *row = x + t * ldx;
        const float mu = mean == NULL ? 0.0f : mean[t], r = rstd[t];
        for (size_t j = 0; j < n; j++)
            dw[j] += d[j] * ((row[j] - mu) * r);
        if (db != NULL)
            for (size_t j = 0; j < n; j++)
                db[j] += d[j];
    }
}
