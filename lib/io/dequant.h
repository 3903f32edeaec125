/* Element types of weight files and their widening to f32. Formulas: docs/formats.md and ggml's
 * published block layouts. */
#ifndef PGRAD_IO_DEQUANT_H
#define PGRAD_IO_DEQUANT_H

#include <stddef.h>
#include <stdint.h>

#include "base/half.h"

typedef enum pgrad__element_type {
    PGRAD__ELEMENT_F32,
    PGRAD__ELEMENT_F16,
    PGRAD__ELEMENT_BF16,
    PGRAD__ELEMENT_F64,
    PGRAD__ELEMENT_Q4_0,
    PGRAD__ELEMENT_Q4_1,
    PGRAD__ELEMENT_Q5_0,
    PGRAD__ELEMENT_Q5_1,
    PGRAD__ELEMENT_Q8_0,
    PGRAD__ELEMENT_Q2_K,
    PGRAD__ELEMENT_Q3_K,
    PGRAD__ELEMENT_Q4_K,
    PGRAD__ELEMENT_Q5_K,
    PGRAD__ELEMENT_Q6_K,
    PGRAD__ELEMENT_OTHER /* known to the format, not readable here */
} pgrad__element_type;

/* Elements and bytes of a block (1 and the size for plain types; 0 for OTHER). */
uint32_t pgrad__element_block(pgrad__element_type type);
uint32_t pgrad__element_block_bytes(pgrad__element_type type);

/* Widens count elements (a multiple of the block) to f32; data needs no alignment. */
void pgrad__dequantize(pgrad__element_type type, const void *data, size_t count, float *out);

#endif
