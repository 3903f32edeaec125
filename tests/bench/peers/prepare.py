"""Writes what all peers read: the weights as a Hugging Face folder (through our own pgrad_model_save) and as GGUF in
f32, bf16 and Q8_0 (through the `gguf` package), and prompts of exact lengths whose text encodes to the same ids.

    prepare.py folder SMOLLM2.gguf DATA     the Hugging Face folder and prompts.json; needs our library only
    prepare.py gguf SMOLLM2.gguf DATA       the GGUF files; needs gguf and safetensors"""
from __future__ import annotations

import json
import os
import pathlib
import sys

# Words that are one token each behind a space; every prompt is another order of them.
WORDS = ("the sea is a place of light and wind where people go to find new words for old stories in the long summer "
         "when all roads lead home over the hills by the river near the house with red doors").split()
LENGTHS = {128: 32, 512: 16}


def write_prompts(tokenizer, path: pathlib.Path) -> None:
    out = {}
    for length, count in LENGTHS.items():
        out[length] = []
        for i in range(count):
            words = [WORDS[(t * (2 * i + 3) + i + t // len(WORDS)) % len(WORDS)] for t in range(length - 1)]
            text = " ".join(["The", *words])
            ids = tokenizer.encode(text)
            if len(ids) != length or tokenizer.decode(ids) != text:
                raise SystemExit(f"prompt {i} has {len(ids)} tokens, {length} expected")
            out[length].append({"text": text, "ids": ids})
    path.write_text(json.dumps(out))


def write_folder(source: str, data: pathlib.Path) -> None:
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "examples" / "python"))
    import policygrad as pg
    with pg.Context(os.environ.get("POLICYGRAD_LIBRARY")) as context, pg.Model.load(context, source) as model, \
            pg.Tokenizer.load(context, source) as tokenizer:
        model.save(data / "smollm2", tokenizer)
        write_prompts(tokenizer, data / "prompts.json")


def llama_rows(matrix, n_heads: int):
    """Hugging Face's order of a head's rows (halves) to llama.cpp's (pairs)."""
    rows, columns = matrix.shape
    return matrix.reshape(n_heads, 2, rows // n_heads // 2, columns).swapaxes(1, 2).reshape(rows, columns)


def write_gguf(source: str, data: pathlib.Path) -> None:
    import gguf
    from safetensors.numpy import load_file
    config = json.loads((data / "smollm2" / "config.json").read_text())
    weights = load_file(data / "smollm2" / "model.safetensors")
    names = gguf.get_tensor_name_map(gguf.MODEL_ARCH.LLAMA, config["num_hidden_layers"])
    reader = gguf.GGUFReader(source)
    kinds = {"f32": gguf.GGMLQuantizationType.F32, "bf16": gguf.GGMLQuantizationType.BF16,
             "q8_0": gguf.GGMLQuantizationType.Q8_0}
    for storage, kind in kinds.items():
        path = data / f"smollm2-{storage}.gguf"
        writer = gguf.GGUFWriter(f"{path}.part", "llama")
        for field in reader.fields.values():  # the source's own description and tokenizer
            if field.name.startswith("GGUF.") or field.name in ("general.architecture", "general.file_type"):
                continue
            main, *sub = field.types
            writer.add_key_value(field.name, field.contents(), main, sub_type=sub[0] if sub else None)
        for name, tensor in weights.items():
            if name.endswith("q_proj.weight"):
                tensor = llama_rows(tensor, config["num_attention_heads"])
            elif name.endswith("k_proj.weight"):
                tensor = llama_rows(tensor, config["num_key_value_heads"])
            as_kind = kind if tensor.ndim == 2 else kinds["f32"]
            writer.add_tensor(names.get_name(name, try_suffixes=(".weight",)),
                              gguf.quantize(tensor, as_kind), raw_dtype=as_kind)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(f"{path}.part", path)


if __name__ == "__main__":
    {"folder": write_folder, "gguf": write_gguf}[sys.argv[1]](sys.argv[2], pathlib.Path(sys.argv[3]))
