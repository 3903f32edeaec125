#!/usr/bin/env python3
"""Writes smollm2.inc: what transformers computes for ten prompts with SmolLM2-135M-Instruct's weights, dequantised by
the gguf package: the prompts' ids, 32 greedy tokens with the lead of the highest logit over the next, and at every
position the two highest logits and two others.

usage: make_smollm2.py smollm2.gguf > smollm2.inc      (needs torch, transformers, gguf; versions.json has those used)"""
import os
import pathlib
import sys

import gguf
import numpy as np
import torch
import transformers

sys.path.insert(0, str(pathlib.Path(__file__).parent.parent / "model"))
from compare_smollm2 import N_NEW, PROMPTS, reference  # noqa: E402


def c_string(text):
    return '"' + text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n") + '"'


def lines(values, form, width):
    values = list(values)
    for i in range(0, len(values), width):
        yield "    " + " ".join(form % v for v in values[i:i + width])


def array(kind, name, values, form, width):
    print(f"static const {kind} {name}[] = {{")
    print("\n".join(lines(values, form, width)))
    print("};")


def main():
    path = sys.argv[1]
    transformers.logging.set_verbosity_error()
    folder, name = os.path.split(os.path.abspath(path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = reference(path, gguf, torch, transformers)
    print("/* Written by make_smollm2.py: not for editing. */")
    print(f"enum {{ SMOLLM2_PROMPTS = {len(PROMPTS)}, SMOLLM2_NEW = {N_NEW}, SMOLLM2_PROBES = 4 }};")
    ids, offsets, greedy, leads, probe_ids, probes = [], [0], [], [], [], []
    for text in PROMPTS:
        prompt = tokenizer(text, add_special_tokens=False).input_ids
        with torch.no_grad():
            added = model.generate(torch.tensor([prompt]), attention_mask=torch.ones(1, len(prompt), dtype=int),
                                   max_new_tokens=N_NEW, min_new_tokens=N_NEW, do_sample=False, pad_token_id=0,
                                   eos_token_id=None)[0, len(prompt):].tolist()
            logits = model(torch.tensor([prompt + added[:-1]])).logits[0].numpy()
        tops = np.sort(logits[len(prompt) - 1:])[:, -2:]
        lead = [float(high - low) for low, high in tops]
        for position, row in enumerate(logits):
            chosen = [int(i) for i in np.argsort(-row)[:2]]
            chosen += [(position * 7919 + 17) % len(row), (position * 104729 + 31337) % len(row)]
            probe_ids += chosen
            probes += [float(row[i]) for i in chosen]
        ids += prompt
        offsets.append(len(ids))
        greedy += added
        leads += lead
    print("static const char *const SMOLLM2_TEXTS[] = {")
    for text in PROMPTS:
        print(f"    {c_string(text)},")
    print("};")
    array("pgrad_token", "SMOLLM2_IDS", ids, "%d,", 16)
    array("unsigned", "SMOLLM2_OFFSETS", offsets, "%d,", 16)
    array("pgrad_token", "SMOLLM2_GREEDY", greedy, "%d,", 16)
    array("float", "SMOLLM2_LEADS", leads, "%.4gf,", 12)
    print("/* Of every position of prompt and greedy tokens but the last, prompts one after another. */")
    array("pgrad_token", "SMOLLM2_PROBE_IDS", probe_ids, "%d,", 16)
    array("float", "SMOLLM2_PROBE_LOGITS", probes, "%.8ef,", 8)


if __name__ == "__main__":
    main()
