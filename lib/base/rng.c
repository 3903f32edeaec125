#include "base/rng.h"

#include <math.h>

#include "base/real.h"

static inline void round_once(uint32_t c[4], uint32_t k0, uint32_t k1)
{
    uint64_t product0 = (uint64_t)0xD2511F53u * c[0], product1 = (uint64_t)0xCD9E8D57u * c[2];
    uint32_t next0 = (uint32_t)(product1 >> 32) ^ c[1] ^ k0;
    uint32_t next2 = (uint32_t)(product0 >> 32) ^ c[3] ^ k1;
    c[1] = (uint32_t)product1;
    c[3] = (uint32_t)product0;
    c[0] = next0;
    c[2] = next2;
}

void pgrad__philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4])
{
    uint32_t c[4] = {counter[0], counter[1], counter[2], counter[3]};
    uint32_t k0 = key[0], k1 = key[1];
    for (int i = 0; i < 10; i++) {
        round_once(c, k0, k1);
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
    for (int i = 0; i < 4; i++)
        out[i] = c[i];
}

/* 64 random bits at (seed; stream, position, draw), the second 64 of the same block with half = 1.
 */
static uint64_t bits_at(uint64_t seed, uint64_t stream, uint64_t position, uint32_t draw, int half)
{
    const uint32_t key[2] = {(uint32_t)seed, (uint32_t)(seed >> 32)};
    uint64_t place = position ^ (uint64_t)draw << 56;
    const uint32_t counter[4] = {(uint32_t)place, (uint32_t)(place >> 32), (uint32_t)stream,
                                 (uint32_t)(stream >> 32)};
    uint32_t out[4];
    pgrad__philox(key, counter, out);
    return (uint64_t)out[2 * half + 1] << 32 | out[2 * half];
}

static double to_unit(uint64_t bits)
{
    return (double)(bits >> 11) * 0x1p-53;
}

double pgrad__uniform(uint64_t seed, uint64_t stream, uint64_t position, uint32_t draw)
{
    return to_unit(bits_at(seed, stream, position, draw, 0));
}

double pgrad__normal(uint64_t seed, uint64_t stream, uint64_t position)
{
    const double two_pi = 6.28318530717958647692;
    double u = 1.0 - to_unit(bits_at(seed, stream, position, 0, 0)); /* in (0, 1] */
    double v = to_unit(bits_at(seed, stream, position, 0, 1));
    return sqrt(-2.0 * pgrad__log(u)) * pgrad__cos(two_pi * v);
}

uint64_t pgrad__uniform_below(uint64_t seed, uint64_t stream, uint64_t position, uint64_t n)
{
    /* The high word of a 64 by 64 bit product; its bias is below n / 2^64. */
    return (uint64_t)(((unsigned __int128)bits_at(seed, stream, position, 0, 0) * n) >> 64);
}
