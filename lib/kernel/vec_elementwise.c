/* Activations and sums, value and derivative side by side. */
#include "kernel/vec_math.h"

/* Runs statement for every vector of an index i: whole ones, then the last part. */
#define FOR_VECTORS(n, whole, part)                                                                \
    do {                                                                                           \
        size_t i = 0;                                                                              \
        for (; i + VL <= (n); i += VL) {                                                           \
            whole;                                                                                 \
        }                                                                                          \
        if (i < (n)) {                                                                             \
            const size_t rest = (n)-i;                                                             \
            part;                                                                                  \
        }                                                                                          \
    } while (0)

static const float ROOT_2_OVER_PI = 0.79788456080286535588f;
static const float CUBE = 0.044715f;

/* y = sqrt(2/pi) (x + 0.044715 x^3); x/2 (1 + tanh y) = x sigmoid(2 y): no cancellation for x < 0.
 */
INLINE vec gelu_tanh(vec x)
{
    vec y = ROOT_2_OVER_PI * (x + CUBE * (x * x * x));
    return x * vec_sigmoid(2.0f * y);
}

INLINE vec gelu_tanh_derivative(vec x)
{
    vec y = ROOT_2_OVER_PI * (x + CUBE * (x * x * x));
    vec dy = ROOT_2_OVER_PI * (1.0f + 3.0f * CUBE * (x * x));
    vec s = vec_sigmoid(2.0f * y);
    return s + x * s * (1.0f - s) * 2.0f * dy;
}

/* Phi(x) = erfc(-x / sqrt 2) / 2. */
INLINE vec normal_cdf(vec x)
{
    veci negative = x < 0.0f;
    vec tail = 0.5f * vec_erfc(vec_select(negative, -x, x) * 0.70710678118654752440f);
    return vec_select(negative, tail, 1.0f - tail);
}

INLINE vec gelu_erf_derivative(vec x)
{
    return normal_cdf(x) + x * (0.39894228040143267794f * vec_exp(-0.5f * (x * x)));
}

INLINE vec silu_derivative(vec x)
{
    vec s = vec_sigmoid(x);
    return s * (1.0f + x * (1.0f - s));
}

INLINE vec act(pgrad__activation kind, vec x)
{
    switch (kind) {
    case PGRAD__ACTIVATION_GELU_TANH:
        return gelu_tanh(x);
    case PGRAD__ACTIVATION_GELU_ERF:
        return x * normal_cdf(x);
    case PGRAD__ACTIVATION_SILU:
        return x * vec_sigmoid(x);
    default:
        return vec_select(x < 0.0f, vec_splat(0.0f), x); /* NaN through */
    }
}

INLINE vec act_derivative(pgrad__activation kind, vec x)
{
    switch (kind) {
    case PGRAD__ACTIVATION_GELU_TANH:
        return gelu_tanh_derivative(x);
    case PGRAD__ACTIVATION_GELU_ERF:
        return gelu_erf_derivative(x);
    case PGRAD__ACTIVATION_SILU:
        return silu_derivative(x);
    default:
        return vec_select(x > 0.0f, vec_splat(1.0f), vec_splat(0.0f));
    }
}

/* Makes one loop per kind of activation, so that the choice is outside of it. */
#define FOR_KIND(kind, call)                                                                       \
    switch (kind) {                                                                                \
    case PGRAD__ACTIVATION_GELU_TANH:                                                              \
        call(PGRAD__ACTIVATION_GELU_TANH);                                                         \
        break;                                                                                     \
    case PGRAD__ACTIVATION_GELU_ERF:                                                               \
        call(PGRAD__ACTIVATION_GELU_ERF);                                                          \
        break;                                                                                     \
    case PGRAD__ACTIVATION_SILU:                                                                   \
        call(PGRAD__ACTIVATION_SILU);                                                              \
        break;                                                                                     \
    default:                                                                                       \
        call(PGRAD__ACTIVATION_RELU);                                                              \
    }

void PGRAD__VEC(activation)(pgrad__activation kind, const float *x, size_t n, float *y)
{
#define LOOP(k)                                                                                    \
    FOR_VECTORS(n, vec_store(y + i, act(k, vec_load(x + i))),                                      \
                vec_store_part(y + i, rest, act(k, vec_load_part(x + i, rest, 0.0f))))
    FOR_KIND(kind, LOOP);
#undef LOOP
}

void PGRAD__VEC(activation_backward)(pgrad__activation kind, const float *dy, const float *x,
                                     size_t n, float *dx)
{
#define LOOP(k)                                                                                    \
    FOR_VECTORS(n, vec_store(dx + i, vec_load(dy + i) * act_derivative(k, vec_load(x + i))),       \
                vec_store_part(dx + i, rest,                                                       \
                               vec_load_part(dy + i, rest, 0.0f) *                                 \
                                   act_derivative(k, vec_load_part(x + i, rest, 0.0f))))
    FOR_KIND(kind, LOOP);
#undef LOOP
}

void PGRAD__VEC(gated)(pgrad__activation kind, const float *gate, const float *up, size_t n,
                       float *y)
{
#define LOOP(k)                                                                                    \
    FOR_VECTORS(n, vec_store(y + i, act(k, vec_load(gate + i)) * vec_load(up + i)),                \
                vec_store_part(y + i, rest,                                                        \
                               act(k, vec_load_part(gate + i, rest, 0.0f)) *                       \
                                   vec_load_part(up + i, rest, 0.0f)))
    FOR_KIND(kind, LOOP);
#undef LOOP
}

/* dgate = dy up act'(gate), dup = dy act(gate); all are read before either is written. */
INLINE void gated_backward_loop(const pgrad__activation kind, const float *dy, const float *gate,
                                const float *up, size_t n, float *dgate, float *dup)
{
    for (size_t i = 0; i < n; i += VL) {
        const size_t rest = n - i < VL ? n - i : VL;
        vec d = vec_load_part(dy + i, rest, 0.0f), g = vec_load_part(gate + i, rest, 0.0f);
        vec u = vec_load_part(up + i, rest, 0.0f);
        vec_store_part(dgate + i, rest, d * u * act_derivative(kind, g));
        vec_store_part(dup + i, rest, d * act(kind, g));
    }
}

void PGRAD__VEC(gated_backward)(pgrad__activation kind, const float *dy, const float *gate,
                                const float *up, size_t n, float *dgate, float *dup)
{
    const size_t whole = n - n % VL; /* constant sizes in the loop that matters */
#define LOOP(k)                                                                                    \
    gated_backward_loop(k, dy, gate, up, whole, dgate, dup);                                       \
    gated_backward_loop(k, dy + whole, gate + whole, up + whole, n - whole, dgate + whole,         \
                        dup + whole)
    FOR_KIND(kind, LOOP);
#undef LOOP
}

void PGRAD__VEC(add)(const float *x, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] += x[i];
}

void PGRAD__VEC(scale)(float factor, size_t n, float *y)
{
    for (size_t i = 0; i < n; i++)
        y[i] *= factor;
}

void PGRAD__VEC(exp)(const float *x, size_t n, float *y)
{
    FOR_VECTORS(n, vec_store(y + i, vec_exp(vec_load(x + i))),
                vec_store_part(y + i, rest, vec_exp(vec_load_part(x + i, rest, 0.0f))));
}
