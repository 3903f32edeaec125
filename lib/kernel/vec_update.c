/* The updates of the optimizers, one element like another. algorithms.md 8. */
#include <math.h>

#include "kernel/vec_math.h"

INLINE uint32_t not_finite(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return (bits & 0x7f800000u) == 0x7f800000u;
}

/* m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, theta = theta decay - step m / (sqrt(v) root +
 * eps). */
INLINE int adam_loop(const pgrad__adam *adam, size_t n, float *theta, const float *g, float *m,
                     float *v, const int write)
{
    const pgrad__adam a = *adam;
    const float rest1 = 1.0f - a.beta1, rest2 = 1.0f - a.beta2;
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * a.grad_scale + a.l2 * theta[i];
        float m_new = a.beta1 * m[i] + rest1 * gradient;
        float v_new = a.beta2 * v[i] + rest2 * (gradient * gradient);
        float updated = theta[i] * a.decay -
                        a.step_size * (m_new / (sqrtf(v_new) * a.inverse_root + a.epsilon));
        bad |= not_finite(updated) | not_finite(m_new) | not_finite(v_new);
        if (write) {
            theta[i] = updated;
            m[i] = m_new;
            v[i] = v_new;
        }
    }
    return bad == 0;
}

int PGRAD__VEC(adam)(const pgrad__adam *adam, size_t n, float *theta, const float *g, float *m,
                     float *v, int write)
{
    return write ? adam_loop(adam, n, theta, g, m, v, 1) : adam_loop(adam, n, theta, g, m, v, 0);
}

/* b = first ? g : momentum b + g; theta -= lr (nesterov ? g + momentum b : b). */
INLINE int sgd_loop(const pgrad__sgd *sgd, size_t n, float *theta, const float *g, float *b,
                    const int write, const int momentum)
{
    const pgrad__sgd s = *sgd;
    const float keep = s.first ? 0.0f : s.momentum;
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * s.grad_scale + s.l2 * theta[i], step = gradient;
        if (momentum) {
            float b_new = keep * b[i] + gradient;
            step = s.nesterov ? gradient + s.momentum * b_new : b_new;
            bad |= not_finite(b_new);
            if (write)
                b[i] = b_new;
        }
        float updated = theta[i] - s.learning_rate * step;
        bad |= not_finite(updated);
        if (write)
            theta[i] = updated;
    }
    return bad == 0;
}

int PGRAD__VEC(sgd)(const pgrad__sgd *sgd, size_t n, float *theta, const float *g, float *b,
                    int write)
{
    if (b == NULL)
        return write ? sgd_loop(sgd, n, theta, g, b, 1, 0) : sgd_loop(sgd, n, theta, g, b, 0, 0);
    return write ? sgd_loop(sgd, n, theta, g, b, 1, 1) : sgd_loop(sgd, n, theta, g, b, 0, 1);
}
