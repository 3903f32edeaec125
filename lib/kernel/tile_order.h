/* Whether a micro-kernel keeps the contract's order of summation. Not how to multiply. */
#ifndef PGRAD_KERNEL_TILE_ORDER_H
#define PGRAD_KERNEL_TILE_ORDER_H

#include "kernel/blis.h"

/* 1 when a tile that it computes, written and then added to, has the bits of the five lines of C at
 * the head of kernel.h. */
int pgrad__keeps_order(pgrad__micro_fn micro, size_t narrow, size_t wide);

#endif
