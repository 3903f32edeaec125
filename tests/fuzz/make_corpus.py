#!/usr/bin/env python3
"""Makes the seeds of the fuzz targets: small files that are right, or nearly, and a dictionary of the words
they are made of.

usage: make_corpus.py FOLDER      writes FOLDER/{safetensors,gguf,config,tokenizer}/*, FOLDER/*.dict"""
import json
import pathlib
import struct
import sys

U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 = range(13)
NUMBERS = {U8: "<B", I8: "<b", U16: "<H", I16: "<h", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q",
           I64: "<q", F64: "<d"}
# Block and bytes of tensor types.
TYPES = {0: (1, 4), 1: (1, 2), 2: (32, 18), 3: (32, 20), 6: (32, 22), 7: (32, 24), 8: (32, 34), 10: (256, 84),
         11: (256, 110), 12: (256, 144), 13: (256, 176), 14: (256, 210), 23: (256, 136), 27: (1, 8), 28: (1, 8),
         30: (1, 2)}


def pattern(n):
    return bytes(i * 37 % 256 for i in range(n))


def text(value):
    data = value.encode() if isinstance(value, str) else value
    return struct.pack("<Q", len(data)) + data


def value_of(kind, value):
    if kind == STRING:
        return text(value)
    if kind == ARRAY:
        element, values = value
        return struct.pack("<IQ", element, len(values)) + b"".join(value_of(element, v) for v in values)
    return struct.pack(NUMBERS[kind], value)


def gguf(pairs, tensors, version=3, alignment=32):
    """pairs: {key: (type, value)}; tensors: [(name, dims innermost first, type[, data])]."""
    out = b"GGUF" + struct.pack("<IQQ", version, len(tensors), len(pairs))
    for key, (kind, value) in pairs.items():
        out += text(key) + struct.pack("<I", kind) + value_of(kind, value)
    at, contents = 0, []
    for name, dims, kind, *data in tensors:
        n = 1
        for d in dims:
            n *= d
        block, size = TYPES[kind]
        out += text(name) + struct.pack("<I", len(dims)) + struct.pack(f"<{len(dims)}Q", *dims)
        out += struct.pack("<IQ", kind, at)
        contents += data or [pattern(n // block * size)]
        at += (len(contents[-1]) + alignment - 1) // alignment * alignment
    for data in contents:
        out += bytes(-len(out) % alignment) + data
    return out


LLAMA = {
    "general.architecture": (STRING, "llama"), "llama.block_count": (U32, 1),
    "llama.context_length": (U32, 64), "llama.embedding_length": (U32, 32),
    "llama.feed_forward_length": (U32, 32), "llama.attention.head_count": (U32, 4),
    "llama.attention.head_count_kv": (U32, 2), "llama.attention.layer_norm_rms_epsilon": (F32, 1e-5),
    "llama.rope.freq_base": (F32, 10000.0)}
EMBEDDING = [("token_embd.weight", [32, 8], 0)]


def gguf_seeds():
    yield "empty", gguf({}, [])
    yield "llama", gguf(LLAMA, EMBEDDING)
    yield "llama-v2", gguf(LLAMA, EMBEDDING, version=2)
    turns = 128 * 0.1 / 6.283185307179586
    smooth = (turns - 1) / 3
    divisors = struct.pack("<4f", 1, 1 / ((1 - smooth) / 8 + smooth), 8, 8)
    yield "llama3", gguf(LLAMA, EMBEDDING + [("rope_freqs.weight", [4], 0, divisors)])
    yield "rope-of-others", gguf(LLAMA, EMBEDDING + [("rope_freqs.weight", [4], 0)])
    yield "linear", gguf(LLAMA | {"llama.rope.scaling.type": (STRING, "linear"),
                                  "llama.rope.scaling.factor": (F32, 2.0)}, EMBEDDING)
    yield "heads", gguf(LLAMA | {"llama.attention.head_count": (ARRAY, (I32, [4]))}, EMBEDDING)
    yield "gpt2", gguf({"general.architecture": (STRING, "gpt2"), "gpt2.block_count": (U32, 2),
                        "gpt2.context_length": (U64, 64), "gpt2.embedding_length": (U16, 32),
                        "gpt2.feed_forward_length": (U32, 128), "gpt2.attention.head_count": (U8, 4),
                        "gpt2.attention.layer_norm_epsilon": (F32, 1e-5), "gpt2.vocab_size": (U32, 9)}, [])
    for kind, (block, _) in TYPES.items():
        yield f"type-{kind}", gguf({"general.alignment": (U32, 8)}, [("t", [block, 2], kind)], alignment=8)
    every = {f"k{kind}": (kind, 1) for kind in NUMBERS}
    every |= {f"a{kind}": (ARRAY, (kind, [1, 0, 1])) for kind in NUMBERS}
    every |= {"s": (STRING, "x"), "as": (ARRAY, (STRING, ["a", "", "bc"])), "split.count": (U16, 1)}
    yield "every-type", gguf(every, [])


def safetensors(entries, data, metadata=None):
    header = {} if metadata is None else {"__metadata__": metadata}
    for name, dtype, shape, begin, end in entries:
        header[name] = {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}
    raw = json.dumps(header, separators=(",", ":")).encode()
    raw += b" " * (-len(raw) % 8)
    return struct.pack("<Q", len(raw)) + raw + pattern(data)


def safetensors_seeds():
    yield "empty", safetensors([], 0)
    yield "one", safetensors([("a", "F32", [2, 3], 0, 24)], 24, {"format": "pt"})
    yield "several", safetensors([("b", "BF16", [2], 4, 8), ("a", "F16", [2], 0, 4), ("c", "F64", [], 8, 16),
                                  ("n", "F32", [0, 5], 16, 16)], 16)
    yield "others", safetensors([("i", "I64", [1], 0, 8), ("f8", "F8_E4M3", [3], 8, 11), ("f4", "F4", [2], 11, 12),
                                 ("b", "BOOL", [4], 12, 16)], 16)
    yield "hole", safetensors([("a", "F32", [1], 0, 4), ("b", "F32", [1], 8, 12)], 12)
    yield "overflow", safetensors([("a", "F32", [4194305, 4194305, 211106198978564], 0, 16)], 16)
    yield "names", safetensors([("model.layers.%d.w" % i, "F32", [1], 4 * i, 4 * i + 4) for i in range(20)], 80)


def config_seeds():
    llama = {"architectures": ["LlamaForCausalLM"], "model_type": "llama", "vocab_size": 101, "hidden_size": 32,
             "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
             "head_dim": 8, "max_position_embeddings": 256, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
             "hidden_act": "silu", "tie_word_embeddings": False, "attention_bias": False, "mlp_bias": False,
             "bos_token_id": 1, "eos_token_id": [2, 3], "initializer_range": 0.02, "rope_scaling": None}
    llama3 = {"rope_type": "llama3", "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0,
              "original_max_position_embeddings": 128}
    gpt2 = {"model_type": "gpt2", "vocab_size": 97, "n_positions": 64, "n_embd": 32, "n_layer": 2, "n_head": 4,
            "n_inner": None, "activation_function": "gelu_new", "layer_norm_epsilon": 1e-5,
            "scale_attn_weights": True, "scale_attn_by_inverse_layer_idx": False, "eos_token_id": 96}
    index = {"metadata": {"total_size": 8}, "weight_map": {"a": "model-00001-of-00002.safetensors",
                                                           "b": "model-00002-of-00002.safetensors"}}
    values = {"llama": llama, "llama3": llama | {"rope_scaling": llama3},
              "new-rope": llama | {"rope_parameters": llama3 | {"rope_theta": 5e5}},
              "linear": llama | {"rope_scaling": {"type": "linear", "factor": 2}}, "gpt2": gpt2, "index": index,
              "quantized": llama | {"quantization_config": {"quant_method": "gptq"}},
              "numbers": [0, -0.0, 1e308, 5e-324, -9223372036854775808, 0.1, 1e-7, True, None, ""],
              "escapes": {"\u0001\n\t\"\\/\u00e9\U0001f600": "\ud7ff\ue000"}, "deep": [[[[[[[[]]]]]]]]}
    for name, value in values.items():
        yield name, json.dumps(value).encode()
        yield name + "-utf8", json.dumps(value, ensure_ascii=False, indent=1).encode()


def stand_ins():
    """The byte-level alphabet: a printable character for each byte."""
    printable = [*range(0x21, 0x7f), *range(0xa1, 0xad), *range(0xae, 0x100)]
    out, more = {}, 0
    for b in range(256):
        out[b] = chr(b) if b in printable else chr(256 + more)
        more += b not in printable
    return out


def tokenizer_parts():
    spell = stand_ins()
    words = ["He", "ll", "Hell", "Hello", spell[32] + "w", "or"]
    merges = [("H", "e"), ("l", "l"), ("He", "ll"), ("Hell", "o"), (spell[32], "w"), ("o", "r")]
    tokens = [spell[b] for b in range(256)] + words
    added = [{"id": len(tokens) + i, "content": content, "special": i < 3, "normalized": i == 3,
              "lstrip": i == 4, "rstrip": i == 4, "single_word": False}
             for i, content in enumerate(["<|endoftext|>", "<|im_start|>", "<|im_end|>", "42", "\n"])]
    return tokens, merges, added


def tokenizer_json(**changes):
    tokens, merges, added = tokenizer_parts()
    value = {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
             "pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True,
                               "use_regex": True},
             "post_processor": None, "decoder": {"type": "ByteLevel"},
             "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                       "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False,
                       "ignore_merges": False, "vocab": {t: i for i, t in enumerate(tokens)},
                       "merges": [list(m) for m in merges]}}
    model = changes.pop("model", {})
    value |= changes
    value["model"] |= model
    return value


def small_vocabulary():
    """A tokenizer of a few bytes only: a fuzzer reaches more of it."""
    return {"vocab": {"a": 0, "b": 1, "ab": 2, "abab": 3, stand_ins()[32]: 4}, "merges": ["a b", "ab ab"]}


def tokenizer_seeds():
    split = {"type": "Split", "pattern": {"Regex": r"\p{L}+|\s+|[^\s]"}, "behavior": "Isolated", "invert": False}
    level = {"type": "ByteLevel", "add_prefix_space": True, "use_regex": False}
    tokens, merges, added = tokenizer_parts()
    said = b"\0Hello wor\xcc\x81ld 42 <|im_start|>a b\n\nabab\xf0\x9f\x98\x80"
    small = {"model": small_vocabulary(), "added_tokens": [added[0] | {"id": 5}]}
    values = {
        "plain": {}, "nfc": {"normalizer": {"type": "NFC"}}, "ignore": {"model": {"ignore_merges": True}},
        "split": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [split, level]}},
        "digits": {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            {"type": "Digits", "individual_digits": True}, level]}},
        "template": {"post_processor": {
            "type": "TemplateProcessing", "single": [{"SpecialToken": {"id": "<|im_start|>", "type_id": 0}},
                                                     {"Sequence": {"id": "A", "type_id": 0}}],
            "pair": [], "special_tokens": {"<|im_start|>": {"id": "<|im_start|>", "ids": [263],
                                                            "tokens": ["<|im_start|>"]}}}},
        "old-merges": {"model": {"merges": [" ".join(m) for m in merges]}}, "small": small}
    for behavior in ("Removed", "MergedWithPrevious", "MergedWithNext", "Contiguous"):
        values["small-" + behavior] = small | {"pre_tokenizer": {"type": "Sequence", "pretokenizers": [
            split | {"behavior": behavior, "pattern": {"String": "b"}}, level]}}
    for name, changes in values.items():
        yield name, json.dumps(tokenizer_json(**changes), ensure_ascii=False, separators=(",", ":")).encode() + said
    for pre in ("gpt-2", "smollm", "llama-bpe", "qwen2"):
        yield "gguf-" + pre, gguf({
            "general.architecture": (STRING, "llama"), "tokenizer.ggml.model": (STRING, "gpt2"),
            "tokenizer.ggml.pre": (STRING, pre),
            "tokenizer.ggml.tokens": (ARRAY, (STRING, tokens + [a["content"] for a in added])),
            "tokenizer.ggml.token_type": (ARRAY, (I32, [1] * len(tokens) + [3, 3, 3, 4, 4])),
            "tokenizer.ggml.merges": (ARRAY, (STRING, [" ".join(m) for m in merges])),
            "tokenizer.ggml.bos_token_id": (U32, 262), "tokenizer.ggml.eos_token_id": (U32, 264),
            "tokenizer.ggml.add_bos_token": (BOOL, True)}, [])


def words_of(data):
    """Keys and strings of a JSON text, for the dictionary."""
    try:
        value = json.loads(data)
    except ValueError:
        return
    stack = [value]
    while stack:
        item = stack.pop()
        if isinstance(item, str) and 2 < len(item) < 40 and item.isascii() and item.isprintable():
            yield json.dumps(item)
        stack.extend([*item, *item.values()] if isinstance(item, dict) else item if isinstance(item, list) else [])


def main():
    root = pathlib.Path(sys.argv[1])
    seeds = {"safetensors": safetensors_seeds, "gguf": gguf_seeds, "config": config_seeds,
             "tokenizer": tokenizer_seeds}
    for target, make in seeds.items():
        folder = root / target
        folder.mkdir(parents=True, exist_ok=True)
        words = {'"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\xff"', '"\\xff\\xff\\xff\\xff\\xff\\xff\\xff\\x7f"'}
        for name, data in make():
            (folder / name).write_bytes(data)
            text_part = data[8:8 + struct.unpack("<Q", data[:8])[0]] if target == "safetensors" else data
            found = set(words_of(text_part.split(b"\0")[0]))
            words |= {json.dumps(w) for w in found} | {w for w in found}
        if target == "gguf":
            words |= {json.dumps(key) for key in LLAMA}
        (root / (target + ".dict")).write_text("".join(w + "\n" for w in sorted(words) if "\\u" not in w))


main()
