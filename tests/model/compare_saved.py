#!/usr/bin/env python3
"""What this library saves, loaded by transformers: the same logits and the same ids.

    compare_saved.py LIBRARY ROOT [MODEL.gguf]       needs torch and transformers

1. Each tiny model of tests/golden, folder or GGUF file, saved in f32, in bf16 and in shards: transformers' logits of what
   it loads are those of this library; of its source, where the weights are not rounded. So config.json, which is made
   anew for a GGUF file, is judged too.
2. MODEL.gguf (default: smollm2.gguf in $PGRAD_TEST_MODELS) with its tokenizer, written as tokenizer.json from the
   metadata of the GGUF file: transformers' tokenizer of the folder gives this library's ids of the file.
"""
import os
import pathlib
import sys
import tempfile

import numpy as np
import torch
import transformers

LIBRARY, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, str(ROOT / "examples" / "python"))
import policygrad as pg  # noqa: E402

LOGITS_ERROR = 2e-5
FORMS = {"f32": {}, "bf16": {"dtype": "bf16"}, "shards": {"max_shard_bytes": 40000}}
TEXTS = ["The capital of France is", "  two  spaces\n\tand a tab", "naïve café, Straße, Ελληνικά, русский, 日本語, 한국어, हिन्दी",
         "def f(x):\n    return x**2  # 3.14", "🙂👩‍👩‍👧 emoji", "1234567890 1,000.50", "don't we'll I'M", "a<|im_start|>b",
         "\u00a0\u2003odd\u200bspaces", "", "ﬁ ﬂ ½ ② Å"]


def compare_models(context, folder):
    golden = ROOT / "tests" / "golden"
    sources = [path.parent for path in golden.glob("*/golden.safetensors")] + list(golden.glob("*.gguf"))
    assert any(path.suffix == ".gguf" for path in sources)
    worst = 0.0
    for source in sorted(sources):
        for form, fields in FORMS.items():
            path = folder / f"{source.name}-{form}"
            saved = pg.Model.load(context, source)
            saved.save(path, **fields)
            shards = len(list(path.glob("*.safetensors")))
            assert (shards > 1) == (form == "shards"), (path, shards)
            ids = [(7 * i + i * i) % 40 for i in range(33)]
            rounded = form == "bf16"
            ours = np.asarray((pg.Model.load(context, path) if rounded else saved).logits(ids)).reshape(-1)
            model = transformers.AutoModelForCausalLM.from_pretrained(path, dtype=torch.float32,
                                                                      attn_implementation="eager").eval()
            with torch.no_grad():
                theirs = model(torch.tensor([ids])).logits[0].numpy().reshape(-1)[-len(ours):]
            error = float(np.abs(ours - theirs).max())
            assert error <= LOGITS_ERROR, f"{path.name}: logits differ by {error}"
            worst = max(worst, error)
    print(f"{len(sources)} tiny models saved in {', '.join(FORMS)}: logits differ by {worst:.1e} at most")


def compare_tokenizer(context, folder, path):
    ours = pg.Tokenizer.load(context, path)
    pg.Model.load(context, path).save(folder / "real", ours)
    saved = transformers.AutoTokenizer.from_pretrained(folder / "real")
    again = pg.Tokenizer.load(context, folder / "real")
    for text in TEXTS:
        plain = text.replace("<|im_start|>", "<im_start>")  # text is never a special token here
        expected = ours.encode(plain)
        for name, found in (("transformers, saved", saved(plain, add_special_tokens=False).input_ids),
                            ("read again", again.encode(plain))):
            assert found == expected, f"{plain!r}: {name}: {found}, here {expected}"
        special = saved(text, add_special_tokens=False).input_ids
        assert special == again.encode(text, pg.ENCODE_SPECIAL), f"{text!r}: special tokens"
        assert saved.decode(special) == text and again.decode(special) == text, text
    print(f"{path.name}: its tokenizer.json gives the same ids for {len(TEXTS)} texts")


def main():
    transformers.logging.set_verbosity_error()
    pg.load(LIBRARY)
    path = pathlib.Path(sys.argv[3] if len(sys.argv) > 3 else os.path.join(os.environ["PGRAD_TEST_MODELS"], "smollm2.gguf"))
    with tempfile.TemporaryDirectory() as folder, pg.Context() as context:
        compare_models(context, pathlib.Path(folder))
        compare_tokenizer(context, pathlib.Path(folder), path)


if __name__ == "__main__":
    main()
