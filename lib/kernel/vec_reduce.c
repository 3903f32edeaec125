/* Sums of squares in f64 and the search for values that are not finite. */
#include "kernel/vec_math.h"

void PGRAD__VEC(panel_sumsq)(const float *data, size_t n_in, size_t wide, double *sums)
{
    for (size_t lane = 0; lane < wide; lane++)
        sums[lane] = 0.0;
    for (size_t k = 0; k < n_in; k++)
        for (size_t lane = 0; lane < wide; lane++) {
            double x = (double)data[k * wide + lane];
            sums[lane] += x * x;
        }
}

double PGRAD__VEC(block_sumsq)(const float *x, size_t n)
{
    double sum[PGRAD__LANES] = {0};
    size_t i = 0;
    for (; i + PGRAD__LANES <= n; i += PGRAD__LANES)
        for (size_t lane = 0; lane < PGRAD__LANES; lane++)
            sum[lane] += (double)x[i + lane] * (double)x[i + lane];
    for (; i < n; i++)
        sum[i % PGRAD__LANES] += (double)x[i] * (double)x[i];
    for (size_t half = PGRAD__LANES / 2; half >= 1; half /= 2)
        for (size_t lane = 0; lane < half; lane++)
            sum[lane] += sum[lane + half];
    return sum[0];
}

int PGRAD__VEC(all_finite)(const float *x, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, x + i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
    }
    return bad == 0;
}
