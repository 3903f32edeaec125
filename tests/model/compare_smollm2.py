#!/usr/bin/env python3
"""Compares SmolLM2-135M-Instruct with transformers on the same dequantised weights.

    compare_smollm2.py DUMP_LOGITS [MODEL.gguf]

The model defaults to smollm2.gguf in $PGRAD_TEST_MODELS. Status 77 (skipped) without the model, torch, transformers or gguf.
The reference is transformers' LlamaForCausalLM with the weights that the gguf package dequantises: nothing
of it has passed through this library.

1. Logits of ten prompts, every position: at most LOGITS_ERROR apart. Two implementations in f32, 30
   layers, logits of some 20: rounding alone gives about 1e-4.
2. 32 greedy tokens of each prompt, through our cache: transformers, given the same prefix, has the same
   highest logit wherever its two highest are more than TIE apart.
3. Saved as a Hugging Face folder, transformers loads it, with the same bits in every tensor and, by the config.json that
   we write for a GGUF file, the same logits as in 1.
"""
import os
import pathlib
import struct
import subprocess
import sys
import tempfile

LOGITS_ERROR = 5e-4
TIE = 1e-3
N_NEW = 32
PROMPTS = [
    "The capital of France is",
    "Once upon a time, there was a little girl who",
    "def fibonacci(n):\n    ",
    "The three primary colours are",
    "<|im_start|>user\nWhat is 12 + 30?<|im_end|>\n<|im_start|>assistant\n",
    "<|im_start|>system\nYou are a helpful assistant.<|im_end|>\n<|im_start|>user\nName a fruit."
    "<|im_end|>\n<|im_start|>assistant\n",
    "In 1969, the first humans",
    "Photosynthesis is the process by which",
    "1, 1, 2, 3, 5, 8,",
    "La vie est belle, mais " + "elle est parfois difficile; " * 12,
]


def skip(reason):
    print(f"skipped: {reason}")
    sys.exit(77)


def read_outputs(path, n_prompts, np):
    data = path.read_bytes()
    at = 0
    for _ in range(n_prompts):
        n, vocab = struct.unpack_from("=II", data, at)
        at += 8
        logits = np.frombuffer(data, np.float32, n * vocab, at).reshape(n, vocab)
        at += 4 * n * vocab
        added = np.frombuffer(data, np.int32, N_NEW, at)
        at += 4 * N_NEW
        yield logits, added


def reference(path, gguf, torch, transformers):
    """LlamaForCausalLM with the file's weights, widened to f32."""
    reader = gguf.GGUFReader(path)

    def field(name):
        return reader.fields[name].contents()

    n_heads, n_kv_heads = field("llama.attention.head_count"), field("llama.attention.head_count_kv")
    tensors = {tensor.name: tensor for tensor in reader.tensors}
    config = transformers.LlamaConfig(
        vocab_size=int(tensors["token_embd.weight"].shape[1]),
        hidden_size=field("llama.embedding_length"),
        intermediate_size=field("llama.feed_forward_length"),
        num_hidden_layers=field("llama.block_count"), num_attention_heads=n_heads,
        num_key_value_heads=n_kv_heads, max_position_embeddings=field("llama.context_length"),
        rms_norm_eps=field("llama.attention.layer_norm_rms_epsilon"),
        rope_theta=field("llama.rope.freq_base"), tie_word_embeddings="output.weight" not in tensors,
        attn_implementation="eager")
    model = transformers.LlamaForCausalLM(config)
    names = {"token_embd": "model.embed_tokens", "output_norm": "model.norm", "output": "lm_head",
             "attn_norm": "input_layernorm", "ffn_norm": "post_attention_layernorm",
             "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj", "attn_v": "self_attn.v_proj",
             "attn_output": "self_attn.o_proj", "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj",
             "ffn_down": "mlp.down_proj"}
    state = model.state_dict()
    filled = set()
    for name, tensor in tensors.items():
        stem = name.removesuffix(".weight")
        values = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        if stem.startswith("blk."):
            _, layer, part = stem.split(".")
            target = f"model.layers.{layer}.{names[part]}.weight"
            if part in ("attn_q", "attn_k"):  # pairs back to halves
                heads = n_heads if part == "attn_q" else n_kv_heads
                values = (values.reshape(heads, values.shape[0] // heads // 2, 2, values.shape[1])
                          .swapaxes(1, 2).reshape(values.shape))
        else:
            target = names[stem] + ".weight"
        state[target].copy_(torch.tensor(values).reshape(state[target].shape))
        filled.add(target)
    missing = set(state) - filled - ({"lm_head.weight"} if config.tie_word_embeddings else set())
    assert not missing, missing
    assert model.config.rope_parameters["rope_theta"] == field("llama.rope.freq_base")
    return model.eval()


def main():
    tool = sys.argv[1]
    model_path = sys.argv[2] if len(sys.argv) > 2 else os.path.join(
        os.environ.get("PGRAD_TEST_MODELS", ""), "smollm2.gguf")
    if not model_path or not os.path.isfile(model_path):
        skip("no smollm2.gguf in PGRAD_TEST_MODELS: sh tests/fetch_models.sh")
    try:
        import gguf
        import numpy as np
        import torch
        import transformers
    except ImportError as error:
        skip(str(error))
    transformers.logging.set_verbosity_error()
    folder, name = os.path.split(os.path.abspath(model_path))
    tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
    model = reference(model_path, gguf, torch, transformers)
    prompts = [tokenizer(text, add_special_tokens=False).input_ids for text in PROMPTS]
    with tempfile.TemporaryDirectory() as temporary:
        temporary = pathlib.Path(temporary)
        lines = "".join(" ".join(map(str, ids)) + "\n" for ids in prompts)
        (temporary / "prompts").write_text(lines)
        subprocess.run([tool, model_path, temporary / "prompts", temporary / "out",
                        temporary / "saved"], check=True)
        ours = list(read_outputs(temporary / "out", len(prompts), np))
        saved = transformers.AutoModelForCausalLM.from_pretrained(temporary / "saved",
                                                                  attn_implementation="eager").eval()
    expected, found = model.state_dict(), saved.state_dict()
    changed = [name for name in expected if not torch.equal(expected[name], found[name])]
    print(f"saved and loaded by transformers: {len(expected)} tensors, {len(changed)} differ")
    worst, worst_saved, differing, ties = 0.0, 0.0, 0, 0
    for text, ids, (logits, added) in zip(PROMPTS, prompts, ours):
        with torch.no_grad():
            theirs = model(torch.tensor([ids + added[:-1].tolist()])).logits[0].numpy()
            theirs_saved = saved(torch.tensor([ids])).logits[0].numpy()
        error = float(np.abs(theirs[: len(ids)] - logits).max())
        worst = max(worst, error)
        worst_saved = max(worst_saved, float(np.abs(theirs_saved - logits).max()))
        greedy = theirs[len(ids) - 1:]
        for i, token in enumerate(added):
            top = np.sort(greedy[i])[-2:]
            if int(greedy[i].argmax()) == int(token):
                continue
            if top[1] - top[0] > TIE:
                differing += 1
                print(f"{text[:30]!r}, token {i}: {token}, transformers has {greedy[i].argmax()}, "
                      f"{top[1] - top[0]:.4f} ahead")
            else:
                ties += 1
        print(f"{len(ids):4} tokens, logits differ by {error:.2e}: {tokenizer.decode(added)[:50]!r}")
    print(f"worst {worst:.2e}, saved {worst_saved:.2e} (allowed {LOGITS_ERROR:.0e}); of {N_NEW * len(prompts)} greedy tokens "
          f"{differing} differ, {ties} at ties")
    return 1 if changed or differing or not max(worst, worst_saved) <= LOGITS_ERROR else 0


if __name__ == "__main__":
    sys.exit(main())
