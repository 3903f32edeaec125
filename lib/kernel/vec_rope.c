/* One head of a rotary embedding. */
#include "kernel/vec_math.h"

/* y_j = x_j c_j - x_(j+h) s_j, y_(j+h) = x_(j+h) c_j + x_j s_j, h = head_dim / 2; sign -1 turns
 * back. */
void PGRAD__VEC(rope_head)(float *x, uint32_t head_dim, const float *cos, const float *sin,
                           float sign)
{
    const uint32_t half = head_dim / 2;
    for (uint32_t j = 0; j < half; j++) {
        float low = x[j], high = x[j + half], s = sign * sin[j];
        x[j] = low * cos[j] - high * s;
        x[j + half] = high * cos[j] + low * s;
    }
}
