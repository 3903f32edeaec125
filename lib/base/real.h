/* Elementary functions in double precision with the same bits on every machine: libm's differ by
 * version and by CPU. Errors below 2 ulp. Written without fused multiply-add. And a double's bits.
 */
#ifndef PGRAD_BASE_REAL_H
#define PGRAD_BASE_REAL_H

#include <stdint.h>
#include <string.h>

static inline uint64_t pgrad__bits_of_real(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline double pgrad__real_of_bits(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

double pgrad__log(double x); /* x > 0; -inf for 0, NaN below */
double pgrad__exp(double x);
double pgrad__expm1(double x);
double pgrad__sin(double x); /* any finite x; full precision to |x| < 2^20 */
double pgrad__cos(double x);
/* x > 0: exp(y log x), with a relative error of some 1e-14; enough for rope. */
double pgrad__pow(double x, double y);

#endif
