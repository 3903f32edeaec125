"""llm.c's plain trainer, train_gpt2.c, of a checkout of the user's: PEERS_LLMC=DIR, with the weights (gpt2_124M.bin)
and the data set that llm.c's own instructions put there. Its batch and length, constants in main(), are replaced."""
from __future__ import annotations

import os
import pathlib
import re
import shlex
import subprocess
import tempfile

from common import main, peak_rss

STEP = re.compile(r"step \d+: train loss \S+ \(took ([0-9.]+) ms\)")
FLAGS = ["-Ofast", "-march=native", "-fopenmp", "-DOMP", "-w"]  # those of its Makefile


def source_of(text: str, sequences: int, tokens: int) -> str:
    for name, value in (("B", sequences), ("T", tokens)):
        text, found = re.subn(rf"\bint {name} = \d+;", f"int {name} = {value};", text)
        if found != 1:
            raise SystemExit(f"train_gpt2.c: expected one `int {name} = NUMBER;`, found {found}")
    return text


def train(case: dict) -> dict:
    """Its own clock around a step: forward, backward and AdamW."""
    if not os.environ.get("PEERS_LLMC"):
        return {"skipped": "no PEERS_LLMC"}
    checkout, warm, steps, last = pathlib.Path(os.environ["PEERS_LLMC"]).resolve(), case.get("warm", 1), [], ""
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder, "train_gpt2.c"), pathlib.Path(folder, "train_gpt2")
        source.write_text(source_of((checkout / "train_gpt2.c").read_text(), case["sequences"], case["tokens"]))
        compiler = shlex.split(os.environ.get("CC", "cc"))
        subprocess.run([*compiler, *FLAGS, "-I", checkout, source, "-o", program, "-lm"], check=True)
        with subprocess.Popen(["stdbuf", "-oL", program], cwd=checkout, stdout=subprocess.PIPE, text=True,
                              errors="replace") as process:
            for last in process.stdout:
                steps += [float(milliseconds) / 1000 for milliseconds in STEP.findall(last)]
                if len(steps) > warm:
                    break
            peak = peak_rss(process.pid) if len(steps) > warm else 0
            process.kill()
    if not peak:
        raise SystemExit(f"llm.c ended after {len(steps)} steps: {last.strip()}")
    return {"seconds": steps[-1], "tokens": case["sequences"] * case["tokens"], "peak_rss": peak}


if __name__ == "__main__":
    main({"train": train})
