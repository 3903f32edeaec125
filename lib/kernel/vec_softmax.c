/* Log-softmax of a row of logits, and its gradient. u = z / tau. */
#include <math.h>

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
 */
void PGRAD__VEC(softmax_row_stats)(const float *z, size_t n, float inverse_tau,
                                   pgrad__softmax_row *out, double *sums)
{
    const float m = out->max = row_max(z, n) * inverse_tau;
    if (!isfinite(m)) { /* all -inf, a +inf; a NaN elsewhere comes through the sums */
        out->lse = out->entropy = NAN;
        return;
    }
    double s = 0.0, b = 0.0;
    for (size_t first = 0; first < n; first += BLOCK) {
        const size_t end = first + BLOCK < n ? first + BLOCK : n;
        vec sum[VN], product[VN], zs[VN];
        for (int v = 0; v < VN; v++)
            sum[v] = product[v] = vec_splat(0.0f);
        for (size_t i = first; i < end; i += PGRAD__LANES) {
            lanes_load(zs, z, i, n, -INFINITY);
            for (int v = 0; v < VN; v++) {
                vec d = zs[v] * inverse_tau - m;
                vec e = vec_exp(d);
                sum[v] += e;
                product[v] += vec_select(e == 0.0f, e, e * d); /* 0 times -inf counts 0 */
            }
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
        memcpy(z + i, zs, (n - i < PGRAD__LANES ? n - i : PGRAD__LANES) * sizeof *z);
    }
    z[target] += c;
}
