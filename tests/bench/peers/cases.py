"""The cases: who runs what. A run is a line of the report: {"case", "line", "peer", "worker"}; all else goes to the
worker as it is."""
from __future__ import annotations

import json

THREADS = 2
GPT2 = {"model_type": "gpt2", "vocab_size": 50257, "n_positions": 1024, "n_embd": 768, "n_layer": 12, "n_head": 12,
        "resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0, "layer_norm_epsilon": 1e-5,
        "activation_function": "gelu_new", "initializer_range": 0.02, "architectures": ["GPT2LMHeadModel"],
        "bos_token_id": 50256, "eos_token_id": 50256, "tie_word_embeddings": True}
# parameters in millions: layers, width, heads, feed-forward width
SIZES = {10: (7, 256, 4, 704), 30: (13, 384, 6, 1024), 100: (18, 640, 10, 1728), 250: (18, 1024, 16, 2752),
         500: (24, 1280, 20, 3456)}
GRPO_PEERS = [("ours", "ours", {}), ("ours, lean", "ours", {"lean": True}),
              ("TRL, defaults", "trl", {"variant": "default"}),
              ("TRL, equal settings", "trl", {"variant": "equal", "tuned": [4, 8, 16, 32]}),
              ("PyTorch by hand", "torch", {"tuned": [4, 8, 16, 32]})]

# Growth: a step, and along which of its fields it grows; of each the values, and the largest one for PyTorch.
BASE = {"size": 30, "vocabulary": 16384, "prompts": 2, "group": 8, "prompt_tokens": 128, "new_tokens": 32}
AXES = {"model size, million parameters": ("size", list(SIZES), 100),
        "vocabulary": ("vocabulary", [16384, 32768, 65536, 131072, 262144], 65536),
        "prompt length": ("prompt_tokens", [128, 256, 512, 2048, 8160], 512),
        "group size": ("group", [2, 4, 8, 16, 32], 16),
        "prompts at once": ("prompts", [1, 2, 4, 8], 4)}


def llama(size: int, vocabulary: int = 16384, context: int = 512) -> dict:
    layers, width, heads, feed = SIZES[size]
    return {"model_type": "llama", "architectures": ["LlamaForCausalLM"], "num_hidden_layers": layers,
            "hidden_size": width, "num_attention_heads": heads, "num_key_value_heads": heads,
            "head_dim": width // heads, "intermediate_size": feed, "vocab_size": vocabulary,
            "max_position_embeddings": context, "rms_norm_eps": 1e-5, "rope_theta": 10000.0, "hidden_act": "silu",
            "initializer_range": 0.02, "attention_bias": False, "mlp_bias": False, "tie_word_embeddings": True,
            "bos_token_id": 1, "eos_token_id": 2}


def grpo(case: str, line: str, prompts: int, prompt_tokens: int) -> list:
    shape = {"kind": "grpo", "prompts": prompts, "group": 8, "prompt_tokens": prompt_tokens, "new_tokens": 64}
    out = [{"case": case, "line": line, "peer": peer, "worker": worker, **shape, **more}
           for peer, worker, more in GRPO_PEERS]
    for run in out:  # micro-batches divide the batch
        if "tuned" in run:
            run["tuned"] = [micro for micro in run["tuned"] if micro <= prompts * 8]
    return out


def generation() -> list:
    out = []
    for batch in (1, 8, 32):
        shape = {"case": "C", "line": f"batch {batch}", "kind": "generate", "prompts": batch, "prompt_tokens": 128,
                 "new_tokens": 64}
        for storage in ("f32", "bf16", "q8_0"):
            peers = [("ours {}", "ours", {}), ("ours {}, f16 cache", "ours", {"kv": "f16"}),
                     ("llama.cpp {}", "llama", {})]
            if storage != "q8_0":  # transformers has none that computes on a CPU
                peers.append(("transformers {}", "torch", {}))
            out += [{**shape, "peer": peer.format(storage), "worker": worker, "storage": storage, **more}
                    for peer, worker, more in peers]
    return out


def training() -> list:
    out = []
    for line, more in (("GPT-2 124M", {"config": GPT2, "vocabulary": 50000}),
                       ("SmolLM2-135M", {"vocabulary": 49000})):
        shape = {"case": "D", "line": f"{line}, 4 x 256", "kind": "train", "sequences": 4, "tokens": 256, **more}
        out += [{**shape, "peer": "ours", "worker": "ours"}, {**shape, "peer": "PyTorch eager", "worker": "torch"},
                {**shape, "peer": "torch.compile", "worker": "torch", "compile": True}]
        if "config" in more:
            out.append({**shape, "peer": "llm.c", "worker": "llmc"})
    return out


def starting() -> list:
    shape = {"case": "E", "line": "first token after a 128-token prompt", "kind": "start", "prompts": 1,
             "prompt_tokens": 128, "new_tokens": 1}
    return [{**shape, "peer": peer, "worker": worker} for peer, worker in
            (("ours, C", "start"), ("ours, Python", "ours"), ("transformers", "torch"), ("TRL", "trl"),
             ("llama.cpp, Python", "llama"))]


def growth() -> list:
    """A round takes some ten minutes. Where the other axes cross the first one they have its run."""
    out = []
    for axis, (field, values, torch_limit) in AXES.items():
        for value in values:
            if value == BASE[field] and out and out[0]["line"] != axis:
                continue
            shape = {**BASE, field: value}
            tokens = shape["prompt_tokens"] + shape["group"] * shape["new_tokens"]
            context = shape["prompt_tokens"] + shape["new_tokens"]
            run = {"case": "F", "line": axis, "x": value, "kind": "grpo",
                   "config": llama(shape["size"], shape["vocabulary"], context), **shape}
            # a group in one micro-batch, or each completion would have its prompt computed again
            out.append({**run, "peer": "ours", "worker": "ours", "micro_batch_tokens": max(2048, tokens)})
            if value <= torch_limit:
                micro = next(m for m in (8, 4, 2, 1) if shape["prompts"] * shape["group"] % m == 0)
                out.append({**run, "peer": "PyTorch by hand", "worker": "torch", "micro": micro})
    return out


def everything() -> list:
    return (grpo("A", "SmolLM2-135M, 4 x 8, 128 + 64 tokens", 4, 128)
            + grpo("B", "SmolLM2-135M, 2 x 8, 512 + 64 tokens", 2, 512)
            + generation() + training() + starting() + growth())


def key_of(run: dict) -> tuple:
    return run["case"], run["line"], run.get("x"), run["peer"]


def is_chosen(run: dict, line: str) -> bool:
    return line in json.dumps([run["line"], run["peer"]])


def runs(cases: str, line: str = "") -> list:
    return [{"threads": THREADS, **run} for run in everything()
            if run["case"] in cases.split(",") and is_chosen(run, line)]
