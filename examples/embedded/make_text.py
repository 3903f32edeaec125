#!/usr/bin/env python3
"""Makes the text the embedded model learned from, and its tokenizer. Needs nothing but Python.

usage: make_text.py FOLDER

Writes FOLDER/text.tsv (prompt, tab, completion) and FOLDER/tokenizer.json, tokenizer_config.json. Every line
names a colour and tells of coloured things. In four lines of five their colours have nothing to do with the
one named: following the prompt is left for reinforcement learning to teach."""
import json
import pathlib
import random
import sys

COLOURS = ["red", "blue", "green", "white", "black", "gold"]
NOUNS = ["fox", "bird", "boat", "house", "tree", "horse", "cat", "fish", "hat", "door", "lamp", "stone"]
VERBS = ["sees", "likes", "finds", "paints", "follows", "carries"]
PLACES = ["by the sea", "in the garden", "at night", "on the hill", "in the rain", "after lunch"]
LINES = 12000
OBEYING = 0.2
SPECIAL = ["<|end|>"]


def sentence(rng, colour):
    pick = lambda: colour or rng.choice(COLOURS)
    return f"the {pick()} {rng.choice(NOUNS)} {rng.choice(VERBS)} the {pick()} {rng.choice(NOUNS)} {rng.choice(PLACES)}"


def line(rng):
    asked = rng.choice(COLOURS)
    colour = asked if rng.random() < OBEYING else None
    return f"paint it {asked}:", f" {sentence(rng, colour)}."


def byte_characters():
    """The alphabet of byte-level BPE: every byte as a printable character."""
    plain = list(range(0x21, 0x7F)) + list(range(0xA1, 0xAD)) + list(range(0xAE, 0x100))
    table, extra = {}, 0
    for byte in range(256):
        if byte in plain:
            table[byte] = chr(byte)
        else:
            table[byte] = chr(256 + extra)
            extra += 1
    return table


def learn_merges(words, rounds):
    """Byte-pair encoding: joins the most frequent neighbours, again and again (Sennrich et al. 2016)."""
    pieces = {word: list(word) for word in words}
    merges = []
    for _ in range(rounds):
        counts = {}
        for word, count in words.items():
            for pair in zip(pieces[word], pieces[word][1:]):
                counts[pair] = counts.get(pair, 0) + count
        if not counts:
            break
        best = max(counts, key=lambda pair: (counts[pair], pair))
        merges.append(best)
        for word, parts in pieces.items():
            joined, i = [], 0
            while i < len(parts):
                if i + 1 < len(parts) and (parts[i], parts[i + 1]) == best:
                    joined.append(parts[i] + parts[i + 1])
                    i += 2
                else:
                    joined.append(parts[i])
                    i += 1
            pieces[word] = joined
    return merges


def tokenizer(lines):
    table = byte_characters()
    words = {}
    for prompt, completion in lines:
        for word in (prompt.replace(":", "") + completion.replace(".", "")).split(" "):
            for spelled in (word, " " + word):
                key = "".join(table[byte] for byte in spelled.encode())
                words[key] = words.get(key, 0) + 1
    merges = learn_merges(words, 400)
    vocabulary = {character: i for i, character in enumerate(table[byte] for byte in range(256))}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    added = [{"id": len(vocabulary) + i, "content": text, "single_word": False, "lstrip": False, "rstrip": False,
              "normalized": False, "special": True} for i, text in enumerate(SPECIAL)]
    level = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
    return {"version": "1.0", "truncation": None, "padding": None, "added_tokens": added, "normalizer": None,
            "pre_tokenizer": level, "post_processor": None, "decoder": level,
            "model": {"type": "BPE", "dropout": None, "unk_token": None, "continuing_subword_prefix": None,
                      "end_of_word_suffix": None, "fuse_unk": False, "byte_fallback": False, "ignore_merges": False,
                      "vocab": vocabulary, "merges": [list(pair) for pair in merges]}}


def main():
    folder = pathlib.Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    rng = random.Random(20260101)
    lines = [line(rng) for _ in range(LINES)]
    (folder / "text.tsv").write_text("".join(f"{prompt}\t{completion}\n" for prompt, completion in lines))
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer(lines), ensure_ascii=False))
    (folder / "tokenizer_config.json").write_text(json.dumps(
        {"eos_token": SPECIAL[0], "tokenizer_class": "PreTrainedTokenizerFast",
         "clean_up_tokenization_spaces": False}, indent=2) + "\n")


if __name__ == "__main__":
    main()
