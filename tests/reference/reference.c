#include "reference.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

#include "kernel/kernel.h"

/* ---- product ---- */

void ref_product(const double *x, size_t rows, size_t n_in, const double *w, size_t n_out, const double *b,
                 double *y)
{
    for (size_t t = 0; t < rows; t++)
        for (size_t o = 0; o < n_out; o++) {
            double sum = b == NULL ? 0.0 : b[o];
            for (size_t i = 0; i < n_in; i++)
                sum += x[t * n_in + i] * w[o * n_in + i];
            y[t * n_out + o] = sum;
        }
}

void ref_product_grad(const double *dy, const double *x, size_t rows, size_t n_in, const double *w,
                      size_t n_out, double *dx, double *dw, double *db)
{
    memset(dx, 0, rows * n_in * sizeof *dx);
    memset(dw, 0, n_out * n_in * sizeof *dw);
    memset(db, 0, n_out * sizeof *db);
    for (size_t t = 0; t < rows; t++)
        for (size_t o = 0; o < n_out; o++) {
            const double d = dy[t * n_out + o];
            db[o] += d;
            for (size_t i = 0; i < n_in; i++) {
                dx[t * n_in + i] += d * w[o * n_in + i];
                dw[o * n_in + i] += d * x[t * n_in + i];
            }
        }
}

/* ---- embedding ---- */

void ref_embedding(const double *e, const double *p, const int *tokens, const unsigned *positions, size_t rows,
                   size_t n, double *y)
{
    for (size_t t = 0; t < rows; t++)
        for (size_t i = 0; i < n; i++)
            y[t * n + i] = e[(size_t)tokens[t] * n + i] + (p == NULL ? 0.0 : p[positions[t] * n + i]);
}

void ref_embedding_grad(const double *dy, const int *tokens, const unsigned *positions, size_t rows, size_t n,
                        size_t n_tokens, size_t n_positions, double *de, double *dp)
{
    memset(de, 0, n_tokens * n * sizeof *de);
    if (dp != NULL)
        memset(dp, 0, n_positions * n * sizeof *dp);
    for (size_t t = 0; t < rows; t++)
        for (size_t i = 0; i < n; i++) {
            de[(size_t)tokens[t] * n + i] += dy[t * n + i];
            if (dp != NULL)
                dp[positions[t] * n + i] += dy[t * n + i];
        }
}

/* ---- norms ---- */

static void moments(const double *x, size_t n, double eps, double *mean, double *rstd)
{
    double sum = 0.0, square = 0.0;
    for (size_t i = 0; i < n; i++)
        sum += x[i];
    *mean = sum / (double)n;
    for (size_t i = 0; i < n; i++)
        square += (x[i] - *mean) * (x[i] - *mean);
    *rstd = 1.0 / sqrt(square / (double)n + eps);
}

void ref_layernorm(const double *x, size_t rows, size_t n, const double *w, const double *b, double eps,
                   double *y)
{
    for (size_t t = 0; t < rows; t++, x += n, y += n) {
        double mean, rstd;
        moments(x, n, eps, &mean, &rstd);
        for (size_t i = 0; i < n; i++)
            y[i] = (x[i] - mean) * rstd * w[i] + b[i];
    }
}

/* dx = rstd (g - mean(g) - xhat mean(g xhat)), g = dy w. */
void ref_layernorm_grad(const double *dy, const double *x, size_t rows, size_t n, const double *w, double eps,
                        double *dx, double *dw, double *db)
{
    memset(dw, 0, n * sizeof *dw);
    memset(db, 0, n * sizeof *db);
    for (size_t t = 0; t < rows; t++, x += n, dy += n, dx += n) {
        double mean, rstd, sum = 0.0, with_x = 0.0;
        moments(x, n, eps, &mean, &rstd);
        for (size_t i = 0; i < n; i++) {
            const double hat = (x[i] - mean) * rstd;
            sum += dy[i] * w[i];
            with_x += dy[i] * w[i] * hat;
            dw[i] += dy[i] * hat;
            db[i] += dy[i];
        }
        for (size_t i = 0; i < n; i++)
            dx[i] = rstd * (dy[i] * w[i] - sum / (double)n - (x[i] - mean) * rstd * with_x / (double)n);
    }
}

static double root_mean_square(const double *x, size_t n, double eps)
{
    double square = 0.0;
    for (size_t i = 0; i < n; i++)
        square += x[i] * x[i];
    return 1.0 / sqrt(square / (double)n + eps);
}

void ref_rmsnorm(const double *x, size_t rows, size_t n, const double *w, double eps, double *y)
{
    for (size_t t = 0; t < rows; t++, x += n, y += n) {
        const double rstd = root_mean_square(x, n, eps);
        for (size_t i = 0; i < n; i++)
            y[i] = x[i] * rstd * w[i];
    }
}

/* dx = rstd (g - xhat mean(g xhat)). */
void ref_rmsnorm_grad(const double *dy, const double *x, size_t rows, size_t n, const double *w, double eps,
                      double *dx, double *dw)
{
    memset(dw, 0, n * sizeof *dw);
    for (size_t t = 0; t < rows; t++, x += n, dy += n, dx += n) {
        const double rstd = root_mean_square(x, n, eps);
        double with_x = 0.0;
        for (size_t i = 0; i < n; i++) {
            with_x += dy[i] * w[i] * x[i] * rstd;
            dw[i] += dy[i] * x[i] * rstd;
        }
        for (size_t i = 0; i < n; i++)
            dx[i] = rstd * (dy[i] * w[i] - x[i] * rstd * with_x / (double)n);
    }
}

/* ---- activations ---- */

static const double PI = 3.14159265358979323846;

double ref_activation(int kind, double x)
{
    switch (kind) {
    case PGRAD__ACTIVATION_GELU_TANH:
        return 0.5 * x * (1.0 + tanh(sqrt(2.0 / PI) * (x + 0.044715 * x * x * x)));
    case PGRAD__ACTIVATION_GELU_ERF:
        return 0.5 * x * (1.0 + erf(x / sqrt(2.0)));
    case PGRAD__ACTIVATION_RELU:
        return x > 0.0 ? x : 0.0;
    default:
        return x / (1.0 + exp(-x));
    }
}

double ref_activation_grad(int kind, double x)
{
    switch (kind) {
    case PGRAD__ACTIVATION_GELU_TANH: {
        const double t = tanh(sqrt(2.0 / PI) * (x + 0.044715 * x * x * x));
        return 0.5 * (1.0 + t) + 0.5 * x * (1.0 - t * t) * sqrt(2.0 / PI) * (1.0 + 3.0 * 0.044715 * x * x);
    }
    case PGRAD__ACTIVATION_GELU_ERF:
        return 0.5 * (1.0 + erf(x / sqrt(2.0))) + x * exp(-0.5 * x * x) / sqrt(2.0 * PI);
    case PGRAD__ACTIVATION_RELU:
        return x > 0.0;
    default: {
        const double s = 1.0 / (1.0 + exp(-x));
        return s * (1.0 + x * (1.0 - s));
    }
    }
}

void ref_gated(int kind, const double *gate, const double *up, size_t n, double *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] = ref_activation(kind, gate[i]) * up[i];
}

void ref_gated_grad(int kind, const double *dy, const double *gate, const double *up, size_t n, double *dgate,
                    double *dup)
{
    for (size_t i = 0; i < n; i++) {
        dgate[i] = dy[i] * up[i] * ref_activation_grad(kind, gate[i]);
        dup[i] = dy[i] * ref_activation(kind, gate[i]);
    }
}

/* ---- rope ---- */

void ref_rope(double *x, size_t head_dim, const double *angle, double sign)
{
    const size_t half = head_dim / 2;
    for (size_t j = 0; j < half; j++) {
        const double c = cos(angle[j]), s = sign * sin(angle[j]), a = x[j], b = x[j + half];
        x[j] = a * c - b * s;
        x[j + half] = b * c + a * s;
    }
}

/* ---- softmax ---- */

void ref_softmax(const double *z, size_t n, double tau, size_t y, double *logprob, double *lse,
                 double *entropy)
{
    double largest = -INFINITY, sum = 0.0, expected = 0.0;
    for (size_t j = 0; j < n; j++)
        largest = fmax(largest, z[j] / tau);
    for (size_t j = 0; j < n; j++)
        sum += exp(z[j] / tau - largest);
    *lse = largest + log(sum);
    for (size_t j = 0; j < n; j++)
        if (z[j] > -INFINITY)
            expected += exp(z[j] / tau - *lse) * (z[j] / tau);
    *logprob = z[y] / tau - *lse;
    *entropy = *lse - expected;
}

void ref_softmax_grad(const double *z, size_t n, double tau, size_t y, double c, double e, double *dz)
{
    double logprob, lse, entropy;
    ref_softmax(z, n, tau, y, &logprob, &lse, &entropy);
    for (size_t j = 0; j < n; j++) {
        const double log_p = z[j] / tau - lse, p = exp(log_p);
        dz[j] = c / tau * ((j == y) - p) + (p > 0.0 ? e / tau * p * (log_p + entropy) : 0.0);
    }
}

/* ---- attention ---- */

/* p[s], s <= t, of query row t and head h; gives the log-sum-exp. */
static double weights(const ref_shape *s, const double *q, const double *k, size_t t, size_t h, double *p)
{
    const size_t width = s->heads * s->dim, kv_width = s->kv_heads * s->dim;
    const size_t kv = h / (s->heads / s->kv_heads);
    double largest = -INFINITY, sum = 0.0;
    for (size_t j = 0; j <= t; j++) {
        double dot = 0.0;
        for (size_t d = 0; d < s->dim; d++)
            dot += q[t * width + h * s->dim + d] * k[j * kv_width + kv * s->dim + d];
        p[j] = dot * s->scale;
        largest = fmax(largest, p[j]);
    }
    for (size_t j = 0; j <= t; j++)
        sum += exp(p[j] - largest);
    const double lse = largest + log(sum);
    for (size_t j = 0; j <= t; j++)
        p[j] = exp(p[j] - lse);
    return lse;
}

void ref_attention(const ref_shape *s, const double *q, const double *k, const double *v, double *o,
                   double *lse)
{
    const size_t width = s->heads * s->dim, kv_width = s->kv_heads * s->dim;
    double *p = malloc(s->rows * sizeof *p);
    for (size_t t = 0; t < s->rows; t++)
        for (size_t h = 0; h < s->heads; h++) {
            const size_t kv = h / (s->heads / s->kv_heads);
            const double sum = weights(s, q, k, t, h, p);
            if (lse != NULL)
                lse[t * s->heads + h] = sum;
            for (size_t d = 0; d < s->dim; d++) {
                double out = 0.0;
                for (size_t j = 0; j <= t; j++)
                    out += p[j] * v[j * kv_width + kv * s->dim + d];
                o[t * width + h * s->dim + d] = out;
            }
        }
    free(p);
}

/* dS = P (dP - sum P dP) scale. */
void ref_attention_grad(const ref_shape *s, const double *q, const double *k, const double *v,
                        const double *d_o, double *dq, double *dk, double *dv)
{
    const size_t width = s->heads * s->dim, kv_width = s->kv_heads * s->dim;
    double *p = malloc(s->rows * sizeof *p), *dp = malloc(s->rows * sizeof *dp);
    memset(dq, 0, s->rows * width * sizeof *dq);
    memset(dk, 0, s->rows * kv_width * sizeof *dk);
    memset(dv, 0, s->rows * kv_width * sizeof *dv);
    for (size_t t = 0; t < s->rows; t++)
        for (size_t h = 0; h < s->heads; h++) {
            const size_t kv = h / (s->heads / s->kv_heads) * s->dim, at = t * width + h * s->dim;
            double mean = 0.0;
            (void)weights(s, q, k, t, h, p);
            for (size_t j = 0; j <= t; j++) {
                dp[j] = 0.0;
                for (size_t d = 0; d < s->dim; d++) {
                    dp[j] += d_o[at + d] * v[j * kv_width + kv + d];
                    dv[j * kv_width + kv + d] += p[j] * d_o[at + d];
                }
                mean += p[j] * dp[j];
            }
            for (size_t j = 0; j <= t; j++) {
                const double ds = p[j] * (dp[j] - mean) * s->scale;
                for (size_t d = 0; d < s->dim; d++) {
                    dq[at + d] += ds * k[j * kv_width + kv + d];
                    dk[j * kv_width + kv + d] += ds * q[at + d];
                }
            }
        }
    free(p);
    free(dp);
}

/* ---- optimizers ---- */

void ref_adam_update(const ref_adam *adam, size_t n, unsigned t, double *theta, const double *g, double *m,
                     double *v)
{
    for (size_t i = 0; i < n; i++) {
        const double grad = g[i] + adam->l2 * theta[i];
        m[i] = adam->beta1 * m[i] + (1.0 - adam->beta1) * grad;
        v[i] = adam->beta2 * v[i] + (1.0 - adam->beta2) * grad * grad;
        const double m_hat = m[i] / (1.0 - pow(adam->beta1, t)), v_hat = v[i] / (1.0 - pow(adam->beta2, t));
        theta[i] -= adam->learning_rate * adam->decay * theta[i];
        theta[i] -= adam->learning_rate * m_hat / (sqrt(v_hat) + adam->epsilon);
    }
}

void ref_sgd_update(double learning_rate, double momentum, int nesterov, double l2, size_t n, unsigned t,
                    double *theta, const double *g, double *b)
{
    for (size_t i = 0; i < n; i++) {
        const double grad = g[i] + l2 * theta[i];
        b[i] = t == 1 ? grad : momentum * b[i] + grad;
        theta[i] -= learning_rate * (nesterov ? grad + momentum * b[i] : b[i]);
    }
}
