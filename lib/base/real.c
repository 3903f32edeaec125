/* Plain multiplications, additions and divisions in a fixed order, so the bits are the same
 * wherever doubles are IEEE 754. Polynomials are the Taylor series, long enough for the reduced
 * range. */
#include "base/real.h"

#include <math.h>

static const double LN2_HIGH = 6.93147180369123816490e-01; /* 33 bits */
static const double LN2_LOW = 1.90821492927058770002e-10;

/* 2^k for -1022 <= k <= 1023. */
static double power_of_two(int64_t k)
{
    return pgrad__real_of_bits((uint64_t)(k + 1023) << 52);
}

/* x = m 2^e, sqrt(1/2) <= m < sqrt(2); with f = m - 1, s = f / (2 + f), z = s^2:
 * log(1 + f) = f - f^2/2 + s (f^2/2 + R), R = 2 z/3 + 2 z^2/5 + ... */
double pgrad__log(double x)
{
    if (!(x > 0.0))
        return x == 0.0 ? -INFINITY : NAN;
    if (isinf(x))
        return x;
    int64_t e = 0;
    if (x < 0x1p-1022) {
        x *= 0x1p54;
        e = -54;
    }
    uint64_t bits = pgrad__bits_of_real(x);
    e += (int64_t)(bits >> 52) - 1023;
    bits = (bits & 0x000fffffffffffffu) | 0x3ff0000000000000u;
    double m = pgrad__real_of_bits(bits);
    if (m > 1.41421356237309504880) {
        m *= 0.5;
        e++;
    }

    double f = m - 1.0, s = f / (2.0 + f), z = s * s, r = 0.0;
    for (int k = 12; k >= 1; k--)
        r = z * (2.0 / (2 * k + 1) + r);
    double half_square = 0.5 * f * f;
    double k = (double)e;
    return k * LN2_HIGH - ((half_square - (s * (half_square + r) + k * LN2_LOW)) - f);
}

/* e^r - 1 for |r| <= 0.36: r + r r/2 (1 + r/3 (...)), the large term added last. */
static double expm1_reduced(double r)
{
    double sum = 1.0;
    for (int k = 16; k >= 3; k--)
        sum = 1.0 + sum * r / k;
    return r + r * (0.5 * r * sum);
}

double pgrad__exp(double x)
{
    if (isnan(x))
        return x;
    if (x > 709.782712893384)
        return INFINITY;
    if (x < -745.1332191019412)
        return 0.0;
    double k = floor(x * 1.44269504088896340736 + 0.5);
    double r = (x - k * LN2_HIGH) - k * LN2_LOW;
    double value = 1.0 + expm1_reduced(r);
    int64_t n = (int64_t)k;
    if (n < -1021) /* a subnormal result: scale in two steps */
        return value * power_of_two(n + 54) * 0x1p-54;
    if (n > 1023)
        return value * power_of_two(n - 1) * 2.0;
    return value * power_of_two(n);
}

/* With x = k log 2 + r: 2^k (e^r - 1) + (2^k - 1), so that nothing cancels near zero. */
double pgrad__expm1(double x)
{
    if (fabs(x) <= 0.36)
        return expm1_reduced(x);
    if (!(fabs(x) < 30.0))
        return pgrad__exp(x) - 1.0;
    double k = floor(x * 1.44269504088896340736 + 0.5);
    double r = (x - k * LN2_HIGH) - k * LN2_LOW;
    double power = power_of_two((int64_t)k);
    return power * expm1_reduced(r) + (power - 1.0);
}

/* x = q pi/2 + r, |r| <= pi/4: pi/2 in parts of 33 bits, so that q times a part is exact for |q| <
 * 2^20. */
static double reduce(double x, int64_t *quadrant)
{
    double q = floor(x * 0.63661977236758134308 + 0.5);
    *quadrant = (int64_t)q & 3;
    double r = x - q * 1.57079632673412561417e+00;
    r -= q * 6.07710050630396597660e-11;
    r -= q * 2.02226624871116645580e-21;
    return r;
}

static double sin_reduced(double r)
{
    double z = r * r, sum = 1.0;
    for (int k = 20; k >= 2; k -= 2)
        sum = 1.0 - sum * z / (k * (k + 1));
    return r * sum;
}

static double cos_reduced(double r)
{
    double z = r * r, sum = 1.0;
    for (int k = 19; k >= 1; k -= 2)
        sum = 1.0 - sum * z / (k * (k + 1));
    return sum;
}

static double sin_at(double x, int64_t shift)
{
    int64_t quadrant;
    if (!isfinite(x))
        return NAN;
    double r = reduce(x, &quadrant);
    quadrant = (quadrant + shift) & 3;
    double value = quadrant & 1 ? cos_reduced(r) : sin_reduced(r);
    return quadrant & 2 ? -value : value;
}

double pgrad__sin(double x)
{
    return sin_at(x, 0);
}

double pgrad__cos(double x)
{
    return sin_at(x, 1);
}

double pgrad__pow(double x, double y)
{
    return pgrad__exp(y * pgrad__log(x));
}
