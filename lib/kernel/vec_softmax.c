/* Log-softmax of a row of logits, its gradient, and the weights a token is drawn by. u = z / tau.
 */
#include <math.h>

#include "base/half.h"
#include "base/real.h"
#include "kernel/vec_math.h"

enum { BLOCK = PGRAD__SOFTMAX_BLOCK };

static float row_max(const float *z, size_t n)
{
    vec best[VN], zs[VN];
    for (int v = 0; v < VN; v++)
        best[v] = vec_splat(-INFINITY);
    for (size_t i = 0; i < n; i += PGRAD__LANES) {
        lanes_load(zs, z, i, n, -INFINITY);
        for (int v = 0; v < VN; v++)
            best[v] = vec_max(zs[v], best[v]);
    }
    return lanes_max(best);
}

/* With m = max u, e = exp(u - m), s = sum e, b = sum e (u - m): LSE = m + log s, H = log s - b / s.
 * Where weights is not NULL it gets the e's, largest those of blocks, and their sum is returned. */
INLINE double row_stats(const float *z, size_t n, float inverse_tau, pgrad__softmax_row *out,
                        double *sums, float *weights, float *largest)
{
    const float m = out->max = row_max(z, n) * inverse_tau;
    if (!isfinite(m)) { /* all -inf, a +inf; a NaN elsewhere comes through the sums */
        out->lse = out->entropy = NAN;
        return NAN;
    }
    double s = 0.0, b = 0.0, mass = 0.0;
    for (size_t first = 0; first < n; first += BLOCK) {
        const size_t end = first + BLOCK < n ? first + BLOCK : n;
        vec sum[VN], product[VN], best[VN], zs[VN], es[VN];
        vecd wide[2 * VN] = {{0}};
        for (int v = 0; v < VN; v++)
            sum[v] = product[v] = best[v] = vec_splat(0.0f);
        for (size_t i = first; i < end; i += PGRAD__LANES) {
            lanes_load(zs, z, i, n, -INFINITY);
            for (int v = 0; v < VN; v++) {
                vec d = zs[v] * inverse_tau - m;
                vec e = es[v] = vec_exp(d);
                sum[v] += e;
                product[v] += vec_select(e == 0.0f, e, e * d); /* 0 times -inf counts 0 */
            }
            if (weights == NULL)
                continue;
            lanes_store(weights, i, n, es);
            lanes_add_f64(wide, es);
            for (int v = 0; v < VN; v++)
                best[v] = vec_max(es[v], best[v]);
        }
        if (weights != NULL) {
            largest[first / BLOCK] = lanes_max(best);
            mass += tree_sum_f64(wide);
        }
        const double block = (double)tree_sum(sum);
        if (sums != NULL)
            sums[first / BLOCK] = block;
        s += block;
        b += (double)tree_sum(product);
    }
    const double log_s = pgrad__log(s);
    out->total = s;
    out->lse = (float)((double)m + log_s);
    out->entropy = (float)(log_s - b / s);
    return mass;
}

void PGRAD__VEC(softmax_row_stats)(const float *z, size_t n, float inverse_tau,
                                   pgrad__softmax_row *out, double *sums)
{
    (void)row_stats(z, n, inverse_tau, out, sums, NULL, NULL);
}

double PGRAD__VEC(softmax_row_weights)(const float *z, size_t n, float inverse_tau,
                                       pgrad__softmax_row *out, float *weights, float *largest)
{
    return row_stats(z, n, inverse_tau, out, NULL, weights, largest);
}

double PGRAD__VEC(cut_block)(float *weights, size_t n, float threshold)
{
    vecd sum[2 * VN] = {{0}};
    for (size_t i = 0; i < n; i += PGRAD__LANES) {
        vec w[VN];
        lanes_load(w, weights, i, n, 0.0f);
        for (int v = 0; v < VN; v++)
            w[v] = vec_select(w[v] >= threshold, w[v], vec_splat(0.0f));
        lanes_store(weights, i, n, w);
        lanes_add_f64(sum, w);
    }
    return tree_sum_f64(sum);
}

size_t PGRAD__VEC(gather_block)(const float *weights, size_t n, float threshold, uint32_t first,
                                uint32_t *ids)
{
    const uint32_t least = pgrad__bits_of_float(threshold); /* these compare alike, and quicker */
    size_t found = 0, i = 0;
    for (; i + PGRAD__LANES <= n; i += PGRAD__LANES) {
        veci any = {0};
        for (int v = 0; v < VN; v++)
            any |= vec_load(weights + i + v * VL) >= threshold;
        if (!any_lane(any))
            continue;
        for (size_t lane = 0; lane < PGRAD__LANES; lane++) {
            ids[found] = first + (uint32_t)(i + lane);
            found += pgrad__bits_of_float(weights[i + lane]) >= least;
        }
    }
    for (; i < n; i++) {
        ids[found] = first + (uint32_t)i;
        found += weights[i] >= threshold;
    }
    return found;
}

/* p = exp(u - lse): z <- (c/tau) (1[j = y] - p) + (e/tau) p (u - lse + H). */
void PGRAD__VEC(softmax_row_grad)(float *z, size_t n, float inverse_tau, pgrad_token target,
                                  float lse, float entropy, float d_logprob, float entropy_weight)
{
    const float c = d_logprob * inverse_tau, e = entropy_weight * inverse_tau;
    for (size_t i = 0; i < n; i += PGRAD__LANES) {
        vec zs[VN];
        lanes_load(zs, z, i, n, -INFINITY);
        for (int v = 0; v < VN; v++) {
            vec log_p = zs[v] * inverse_tau - lse;
            vec p = vec_exp(log_p);
            vec term = vec_select(p == 0.0f, p, e * p * (log_p + entropy));
            zs[v] = term - c * p;
        }
        lanes_store(z, i, n, zs);
    }
    z[target] += c;
}
