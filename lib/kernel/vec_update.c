/* The updates of the optimizers, one element like another. algorithms.md 5. */
#include <math.h>

#include "kernel/vec_math.h"

INLINE uint32_t magnitude(float x)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof bits);
    return bits & 0x7fffffffu;
}

INLINE uint32_t larger(uint32_t a, uint32_t b)
{
    return a > b ? a : b;
}

/* m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, theta = theta decay - step m / (sqrt(v) root +
 * eps). */
void PGRAD__VEC(adam)(const pgrad__adam *adam, size_t n, float *restrict theta,
                      const float *restrict g, float *restrict m, float *restrict v,
                      uint32_t max[3])
{
    const pgrad__adam a = *adam;
    uint32_t max_theta = max[0], max_m = max[1], max_v = max[2];
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * a.grad_scale + a.l2 * theta[i];
        float m_new = a.beta1 * m[i] + a.rest1 * gradient;
        float v_new = a.beta2 * v[i] + a.rest2 * (gradient * gradient);
        float updated = theta[i] * a.decay -
                        a.step_size * (m_new / (sqrtf(v_new) * a.inverse_root + a.epsilon));
        max_theta = larger(max_theta, magnitude(updated));
        max_m = larger(max_m, magnitude(m_new));
        max_v = larger(max_v, magnitude(v_new));
        theta[i] = updated;
        m[i] = m_new;
        v[i] = v_new;
    }
    max[0] = max_theta;
    max[1] = max_m;
    max[2] = max_v;
}

/* b = first ? g : momentum b + g; theta -= lr (nesterov ? g + momentum b : b). */
INLINE void sgd_loop(const pgrad__sgd *sgd, size_t n, float *restrict theta,
                     const float *restrict g, float *restrict b, uint32_t max[3],
                     const int momentum)
{
    const pgrad__sgd s = *sgd;
    const float keep = s.first ? 0.0f : s.momentum;
    uint32_t max_theta = max[0], max_b = max[1];
    for (size_t i = 0; i < n; i++) {
        float gradient = g[i] * s.grad_scale + s.l2 * theta[i], step = gradient;
        if (momentum) {
            float b_new = keep * b[i] + gradient;
            step = s.nesterov ? gradient + s.momentum * b_new : b_new;
            max_b = larger(max_b, magnitude(b_new));
            b[i] = b_new;
        }
        float updated = theta[i] - s.learning_rate * step;
        max_theta = larger(max_theta, magnitude(updated));
        theta[i] = updated;
    }
    max[0] = max_theta;
    max[1] = max_b;
}

void PGRAD__VEC(sgd)(const pgrad__sgd *sgd, size_t n, float *theta, const float *g, float *b,
                     uint32_t max[3])
{
    if (b == NULL)
        sgd_loop(sgd, n, theta, g, b, max, 0);
    else
        sgd_loop(sgd, n, theta, g, b, max, 1);
}
