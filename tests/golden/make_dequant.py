#!/usr/bin/env python3
"""Writes dequant.inc: random blocks of each quantised type and the values the gguf package reads from
them, as the bits of float32. Scales are kept finite; quants and signs are any bits.

usage: make_dequant.py > dequant.inc      (needs numpy and gguf; written with gguf 0.19.0)"""
import numpy as np
from gguf import GGMLQuantizationType as T
from gguf.constants import GGML_QUANT_SIZES
from gguf.quants import dequantize

N_BLOCKS = 3
# Bytes at which a block holds f16 scales.
SCALES = {T.Q4_0: [0], T.Q4_1: [0, 2], T.Q8_0: [0], T.Q6_K: [208], T.Q5_0: [0], T.Q5_1: [0, 2],
          T.Q2_K: [80, 82], T.Q3_K: [108], T.Q4_K: [0, 2], T.Q5_K: [0, 2]}


def rows(values, form, width):
    for i in range(0, len(values), width):
        yield "    " + " ".join(form % v for v in values[i:i + width])


def main():
    random = np.random.default_rng(20240607)
    print("/* Written by make_dequant.py: not for editing. */")
    for kind, places in SCALES.items():
        elements, size = GGML_QUANT_SIZES[kind]
        blocks = random.integers(0, 256, (N_BLOCKS, size), dtype=np.uint8)
        for b in range(N_BLOCKS):
            for place in places:
                # an ordinary scale, a negative one, and a subnormal one
                scale = np.float16([0.0123, -0.71, 3.1e-6][b] * (1 + place))
                blocks[b, place:place + 2] = np.frombuffer(scale.tobytes(), np.uint8)
        values = dequantize(blocks, kind).astype(np.float32).reshape(-1)
        assert len(values) == N_BLOCKS * elements
        name = kind.name
        print(f"static const unsigned char {name}_BLOCKS[] = {{")
        print("\n".join(rows(blocks.reshape(-1), "%d,", 20)))
        print("};")
        print(f"static const uint32_t {name}_VALUES[] = {{")
        print("\n".join(rows(values.view(np.uint32), "0x%08x,", 8)))
        print("};")


main()
