"""Writes tokenizer_ids.inc: digests of the ids the Rust tokenizers give the strings of
tests/text/strings.h. Needs `pip install tokenizers gguf` and tests/fetch_models.sh.

    make_tokenizer_ids.py TEST_PROGRAM MODELS [--report]

TEST_PROGRAM is the built test_tokenizer_ids, which prints the strings. --report writes nothing: it
tells where our ids differ from the reference, also for the tokenizer.json that the library makes from
a GGUF file.
"""

import os
import subprocess
import sys
import tempfile

import gguf
import tokenizers
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

A_BLOCK = 100
PATHS = ["gpt2", "llama3/tokenizer.json", "smollm2.gguf"]


def load_gpt2(folder):
    tokenizer = Tokenizer(models.BPE.from_file(f"{folder}/vocab.json", f"{folder}/merges.txt"))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.add_special_tokens(["<|endoftext|>"])
    return tokenizer


def load_smollm2(path):
    """SmolLM2 splits digits one by one, then as GPT-2 does; GGUF has vocabulary and merges only."""
    reader = gguf.GGUFReader(path)

    def strings(key):
        field = reader.fields[key]
        return [bytes(field.parts[i]).decode() for i in field.data]

    field = reader.fields["tokenizer.ggml.token_type"]
    types = [int(field.parts[i][0]) for i in field.data]
    tokens = strings("tokenizer.ggml.tokens")
    merges = [tuple(merge.split(" ")) for merge in strings("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(models.BPE({token: i for i, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)])
    tokenizer.decoder = decoders.ByteLevel()
    control = gguf.TokenType.CONTROL
    tokenizer.add_special_tokens(
        [AddedToken(token, special=True, normalized=False)
         for token, kind in zip(tokens, types) if kind == control])
    return tokenizer


def load(path, models_folder):
    full = os.path.join(models_folder, path)
    if path == "gpt2":
        return load_gpt2(full)
    if path.endswith(".gguf"):
        return load_smollm2(full)
    return Tokenizer.from_file(full)


def encode(tokenizer, strings, special):
    tokenizer.encode_special_tokens = not special
    return [tokenizer.encode(s, add_special_tokens=False).ids for s in strings]


def fnv(value, data):
    for byte in data:
        value = (value ^ byte) * 0x100000001B3 & 0xFFFFFFFFFFFFFFFF
    return value


def fnv_ids(value, ids):
    return fnv(value, b"".join(number.to_bytes(4, "little") for number in [len(ids), *ids]))


START = 0xCBF29CE484222325


def blocks(ids):
    for first in range(0, len(ids), A_BLOCK):
        value = START
        for one in ids[first:first + A_BLOCK]:
            value = fnv_ids(value, one)
        yield value


def table(name, values):
    lines = [f"    .{name} = {{"]
    values = [f"0x{value:016x}" for value in values]
    for i in range(0, len(values), 4):
        lines.append("        " + ", ".join(values[i:i + 4]) + ",")
    return lines + ["    },"]


def write(strings, models_folder):
    value = START
    for s in strings:
        value = fnv(fnv_ids(value, []), s.encode())
    lines = [f"/* Made by make_tokenizer_ids.py with tokenizers {tokenizers.__version__}. */",
             f"enum {{ N_EXPECTED = {len(PATHS)} }};",
             f"static const uint64_t expected_strings = 0x{value:016x};",
             "static const expected_ids expected[N_EXPECTED] = {"]
    for path in PATHS:
        tokenizer = load(path, models_folder)
        lines += ["    {", f'    .path = "{path}",']
        lines += table("text", blocks(encode(tokenizer, strings, False)))
        lines += table("special", blocks(encode(tokenizer, strings, True)))
        lines += ["    },"]
    lines += ["};"]
    name = os.path.join(os.path.dirname(os.path.abspath(__file__)), "tokenizer_ids.inc")
    with open(name, "w") as file:
        file.write("\n".join(lines) + "\n")


def compare(what, strings, ours, theirs):
    differing = [i for i in range(len(strings)) if ours[i] != theirs[i]]
    print(f"{what}: {len(differing)} of {len(strings)} strings differ")
    for i in differing[:5]:
        print(f"  {i}: {strings[i]!r}\n    ours   {ours[i]}\n    theirs {theirs[i]}")
    return len(differing)


def report(program, strings, models_folder):
    wrong = 0
    for path in PATHS:
        full = os.path.join(models_folder, path)
        output = subprocess.run([program, "--ids", full], check=True, capture_output=True, text=True)
        ours = [[int(n) for n in line.split()] for line in output.stdout.splitlines()]
        theirs = encode(load(path, models_folder), strings, False)
        wrong += compare(path, strings, ours, theirs)
        if path.endswith(".gguf"):
            with tempfile.TemporaryDirectory() as folder:
                subprocess.run([program, "--write", full, f"{folder}/out"], check=True)
                written = Tokenizer.from_file(f"{folder}/out/tokenizer.json")
            wrong += compare(f"{path} written as tokenizer.json", strings,
                             encode(written, strings, False), theirs)
            wrong += compare("the same, special tokens matched", strings, encode(written, strings, True),
                             encode(load(path, models_folder), strings, True))
    return wrong


def main():
    program, models_folder = sys.argv[1:3]
    output = subprocess.run([program, "--dump"], check=True, capture_output=True, text=True)
    strings = [bytes.fromhex(line).decode() for line in output.stdout.splitlines()]
    if "--report" in sys.argv:
        return 1 if report(program, strings, models_folder) else 0
    write(strings, models_folder)
    return 0


if __name__ == "__main__":
    sys.exit(main())
