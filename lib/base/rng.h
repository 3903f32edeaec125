/* Counter-based random numbers: Philox 4x32-10 (Salmon et al., SC 2011). A number is a pure
 * function of its key and counter; there is no state. */
#ifndef PGRAD_BASE_RNG_H
#define PGRAD_BASE_RNG_H

#include <stdint.h>

void pgrad__philox(const uint32_t key[2], const uint32_t counter[4], uint32_t out[4]);

/* A double in [0, 1) with 53 bits: key = seed, counter = (stream, position with draw in the top
 * byte). */
double pgrad__uniform(uint64_t seed, uint64_t stream, uint64_t position, uint32_t draw);

/* A standard normal number from two of them (Box-Muller in double, own log and cosine: the same
 * bits everywhere). */
double pgrad__normal(uint64_t seed, uint64_t stream, uint64_t position);

/* An integer in [0, n), n > 0, for shuffles. */
uint64_t pgrad__uniform_below(uint64_t seed, uint64_t stream, uint64_t position, uint64_t n);

#endif
