/* The door to BLIS's micro-kernels. Not the macro loops, which are gemm.c. */
#ifndef PGRAD_KERNEL_BLIS_H
#define PGRAD_KERNEL_BLIS_H

#include <stddef.h>
#include <stdint.h>

/* C[i][j] = (accumulate ? C : 0) + sum_k narrow[k * n + i] wide[k * w + j], i < n rows of ldc
 * floats, j < w: the micro-kernel of a set, whichever of its operands it wants first. Panels are
 * read up to 128 bytes past their end; wide panels are 64-byte aligned; depth >= 1. */
typedef void (*pgrad__micro_fn)(size_t depth, const float *narrow, const float *wide, float *c,
                                size_t ldc, int accumulate);

/* 1 when BLIS has the micro-kernel of a set (PGRAD_KERNELS_*, not generic); else 0 and why not. The
 * kernels below must not be called without it. */
int pgrad__blis_has(uint32_t set, char *why, size_t size);

#if defined(__x86_64__)
void pgrad__micro_haswell(size_t depth, const float *narrow, const float *wide, float *c,
                          size_t ldc, int accumulate); /* 6 x 16 */
void pgrad__micro_skx(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc,
                      int accumulate); /* 12 x 32 */
#elif defined(__aarch64__)
void pgrad__micro_armv8a(size_t depth, const float *narrow, const float *wide, float *c, size_t ldc,
                         int accumulate); /* 12 x 8 */
#endif

#endif
