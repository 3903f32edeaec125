#!/usr/bin/env python3
"""Writes rope.inc: config.json texts with scalings of rotary positions, and the frequencies transformers'
ROPE_INIT_FUNCTIONS give for them, as the bits of float32.

usage: make_rope.py > rope.inc      (needs torch, numpy and transformers; written with transformers 5.24.0)"""
import json

import numpy as np
import transformers
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS

BASE = {"model_type": "llama", "vocab_size": 128, "hidden_size": 64, "intermediate_size": 64,
        "num_hidden_layers": 1, "num_attention_heads": 1, "num_key_value_heads": 1, "rms_norm_eps": 1e-5,
        "hidden_act": "silu", "tie_word_embeddings": True, "rope_theta": 500000.0,
        "max_position_embeddings": 131072}
LLAMA3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
          "original_max_position_embeddings": 8192}
CASES = {
    "Llama 3.1 8B": {"head_dim": 128, "rope_scaling": LLAMA3},
    "Llama 3.2 1B": {"head_dim": 64, "rope_scaling": LLAMA3 | {"factor": 32.0}},
    "new spelling, other factors": {
        "head_dim": 64, "rope_theta": None,
        "rope_parameters": LLAMA3 | {"rope_theta": 10000.0, "factor": 3.0, "low_freq_factor": 0.5,
                                     "high_freq_factor": 32, "original_max_position_embeddings": 512}},
    "original context from max_position_embeddings": {
        "head_dim": 32, "max_position_embeddings": 1000,
        "rope_scaling": {k: v for k, v in LLAMA3.items() if not k.startswith("original")}},
    "linear, old spelling": {"head_dim": 64, "rope_theta": 10000.0,
                             "rope_scaling": {"type": "linear", "factor": 2.5}},
    "linear, new spelling": {"head_dim": 32, "rope_theta": None,
                             "rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 1e6}},
}


def main():
    transformers.logging.set_verbosity_error()
    print("/* Written by make_rope.py: not for editing. */")
    print("static const struct {\n    const char *name, *config;\n    uint32_t half, frequency[64];\n"
          "} ROPES[] = {")
    for name, changes in CASES.items():
        values = {k: v for k, v in (BASE | changes).items() if v is not None}
        config = transformers.LlamaConfig(**json.loads(json.dumps(values)))
        frequency, factor = ROPE_INIT_FUNCTIONS[config.rope_parameters["rope_type"]](config, "cpu")
        assert factor == 1.0
        bits = frequency.numpy().astype(np.float32).view(np.uint32)
        text = json.dumps(values).replace('"', '\\"')
        print(f'    {{"{name}",\n     "{text}",\n     {len(bits)},\n     {{')
        for i in range(0, len(bits), 8):
            print("      " + " ".join("0x%08x," % v for v in bits[i:i + 8]))
        print("     }},")
    print("};")


main()
