#!/usr/bin/env python3
"""What narrow storage does to learning: the quickstart's task, trained with each storage on the same seeds.

    curves.py LIBRARY                               the quickstart's own model, five seeds
    curves.py LIBRARY --model FILE --steps 24 --seeds 1   a GGUF file or a Hugging Face folder, "words with s"
    curves.py LIBRARY --svg FILE --json FILE        a plot of the curves, and all their points

Seed by seed every storage begins with the same prompts and the same random numbers, so one storage's seeds show how
far runs lie apart that differ in nothing but luck. One JSON object a line and storage: value is the mean reward of the
last steps over the seeds, limit that of f32. Seed by seed stand last, whole (the mean of all steps) and
steps_to_threshold, where the mean of the steps before reached the task's threshold; null: it did not."""
from __future__ import annotations

import argparse
import concurrent.futures
import itertools
import json
import math
import os
import pathlib
import re
import sys

HERE = pathlib.Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "examples" / "python"), str(HERE / "peers")]
import policygrad as pg  # noqa: E402
import svg  # noqa: E402


# name: storage of weights, moments, keys and values
CONFIGURATIONS = {
    "f32": (pg.STORAGE_F32, pg.MOMENTS_F32, pg.KV_F32),
    "weights_bf16": (pg.STORAGE_BF16, pg.MOMENTS_F32, pg.KV_F32),
    "moments_bf16": (pg.STORAGE_F32, pg.MOMENTS_BF16, pg.KV_F32),
    "moments_q8": (pg.STORAGE_F32, pg.MOMENTS_Q8, pg.KV_F32),
    "kv_f16": (pg.STORAGE_F32, pg.MOMENTS_F32, pg.KV_F16),
    "kv_bf16": (pg.STORAGE_F32, pg.MOMENTS_F32, pg.KV_BF16),
    "all_narrow": (pg.STORAGE_BF16, pg.MOMENTS_Q8, pg.KV_BF16),
}


# ---- the two tasks of examples/quickstart.c ----

def colour_score(text: str, asked: str, finish: int) -> float:
    """The share of colour words that are the one asked for, of two at least."""
    words = [word for word in re.split("[ .,]+", text) if word in COLOURS["columns"]["asked"]]
    return words.count(asked) / max(2, len(words)) if finish == pg.FINISH_STOP else 0.0


def alliteration_score(text: str, asked: str, finish: int) -> float:
    """Different words that begin with s over all words."""
    words = text.split()
    bare = {re.split("[.,;:!?]", word)[0].lower() for word in words}
    return sum(word.startswith("s") for word in bare) / len(words) if len(words) >= 5 else 0.0


NAMES = ["red", "blue", "green", "white", "black", "gold"]
COLOURS = {"name": "colours", "score": colour_score, "threshold": 0.9, "chat": False, "learning_rate": 1.5e-4,
           "prompts": [f"paint it {name}:" for name in NAMES], "columns": {"asked": NAMES},
           "params": {"steps": 150, "prompts_per_step": 6, "group_size": 16, "max_new_tokens": 24}}
TOPICS = [f"Write a sentence about {topic}." for topic in ("the sea", "the night", "a small dog", "winter", "music",
                                                          "a garden", "the city", "breakfast")]
ALLITERATION = {"name": "words with s", "score": alliteration_score, "threshold": 0.3, "chat": True,
                "learning_rate": 5e-5, "prompts": TOPICS, "columns": {"asked": TOPICS},
                "params": {"steps": 40, "prompts_per_step": 4, "group_size": 8, "max_new_tokens": 32}}


def train(task: dict, path: pathlib.Path, name: str, seed: int, n_threads: int) -> list:
    """The mean reward of each step."""
    storage, moments, kv_storage = CONFIGURATIONS[name]
    rewards = []

    def score(view, first, count):
        for i in range(first, first + count):
            sequence = view.sequence(i)
            yield task["score"](view.text(i), view.data(sequence.group, "asked"), sequence.finish)

    with pg.Context(n_threads=n_threads) as context, pg.Model.load(context, path, storage=storage) as model, \
            pg.Tokenizer.load(context, path) as tokenizer:
        pg.train(model, tokenizer, pg.Reward(context, lambda *of: list(score(*of)), over="rollout"), task["prompts"],
                 columns=task["columns"], chat=task["chat"], report=lambda numbers: rewards.append(numbers["reward"]),
                 optimizer=pg.Optimizer(model, learning_rate=task["learning_rate"], moments=moments, seed=seed),
                 kv_storage=kv_storage, seed=seed, **task["params"])
    return rewards


def mean(values: list) -> float:
    return sum(values) / len(values)


def window(n_steps: int) -> int:
    """Steps of the mean that is drawn, and that reaches the threshold."""
    return max(1, min(10, n_steps // 6))


def last(rewards: list) -> float:
    return mean(rewards[-max(1, min(20, len(rewards) // 6)):])


def smooth(rewards: list) -> list:
    """Of each step the mean of the window that ends there."""
    n = window(len(rewards))
    return [mean(rewards[max(0, i - n + 1):i + 1]) for i in range(len(rewards))]


def steps_to(rewards: list, threshold: float):
    n = window(len(rewards))
    return next((i + 1 for i, value in enumerate(smooth(rewards)) if i + 1 >= n and value >= threshold), None)


def line(task: dict, name: str, curves: list, limit: float, machine: dict) -> dict:
    ends = [last(rewards) for rewards in curves]
    return {"name": f"curve_{name}", "value": round(mean(ends), 4), "unit": "reward", "limit": round(limit, 4),
            "share": round(mean(ends) / limit, 4), "task": task["name"], "last": [round(value, 4) for value in ends],
            "whole": [round(mean(rewards), 4) for rewards in curves], "threshold": task["threshold"],
            "steps_to_threshold": [steps_to(rewards, task["threshold"]) for rewards in curves], **machine}


def panel(top: float, height: float, low: float, high: float, step: float, curves: dict) -> list:
    """Each storage's mean over the seeds as a line; how far the seeds of f32 lie apart as a band."""
    left, width, n_steps = 60, 480, len(curves["f32"][0])

    def at(i: int, reward: float) -> str:
        return f"{left + width * i / max(1, n_steps - 1):.1f},{top + height * (high - reward) / (high - low):.1f}"

    body = []
    for k in range(round(low / step), round(high / step) + 1):
        y = top + height * (high - k * step) / (high - low)
        body.append(f"<line x1='{left}' x2='{left + width}' y1='{y:.1f}' y2='{y:.1f}' stroke='#ddd'/>")
        body.append(svg.text(left - 6, y + 4, f"{k * step:.3g}", "text-anchor='end'"))
    seeds = [*enumerate(zip(*curves["f32"]))]
    band = [at(i, min(of)) for i, of in seeds] + [at(i, max(of)) for i, of in reversed(seeds)]
    body.append(f"<polygon points='{' '.join(band)}' fill='{svg.COLOURS[0]}' fill-opacity='0.15'/>")
    for colour, runs in zip(svg.COLOURS, curves.values()):
        points = " ".join(at(i, mean(list(of))) for i, of in enumerate(zip(*runs)))
        body.append(f"<polyline points='{points}' fill='none' stroke='{colour}' stroke-width='1.5'/>")
    return body


def draw(task: dict, curves: dict) -> str:
    """The curves, and below them how far they lie from the mean of f32."""
    curves = {name: [smooth(rewards) for rewards in runs] for name, runs in curves.items()}
    middle = [mean(list(of)) for of in zip(*curves["f32"])]
    apart = {name: [[value - of for value, of in zip(rewards, middle)] for rewards in runs]
             for name, runs in curves.items()}
    n_steps, n_seeds = len(middle), len(curves["f32"])
    highest = math.ceil(10 * max(max(rewards) for runs in curves.values() for rewards in runs)) / 10
    furthest = math.ceil(50 * max(abs(value) for rewards in apart["f32"] + [
        [mean(list(of)) for of in zip(*runs)] for runs in apart.values()] for value in rewards)) / 50 or 0.02
    body = panel(40, 220, 0.0, highest, 0.2 if highest > 0.5 else 0.1, curves)
    body += panel(310, 120, -furthest, furthest, furthest / 2, apart)
    body.append(svg.text(12, 298, "less the mean of f32", "font-weight='bold'"))
    for i in range(6):
        step = (n_steps - 1) * i // 5
        body.append(svg.text(60 + 480 * step / max(1, n_steps - 1), 448, str(step + 1), "text-anchor='middle'"))
    body.append(svg.text(300, 466, "step", "text-anchor='middle'"))
    for i, (colour, name) in enumerate(zip(svg.COLOURS, curves)):
        body.append(f"<rect x='556' y='{40 + 20 * i}' width='12' height='12' fill='{colour}'/>")
        body.append(svg.text(573, 51 + 20 * i, name.replace("_", " ")))
    title = f"{task['name']}: reward, mean of {window(n_steps)} steps" + (
        f" and {n_seeds} seeds; band: the seeds of f32" if n_seeds > 1 else "")
    return svg.document(680, 480, title, body)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("library")
    parser.add_argument("--model", type=pathlib.Path)
    parser.add_argument("--steps", type=int, help="the quickstart's otherwise")
    parser.add_argument("--seeds", type=int, default=5)
    parser.add_argument("--jobs", type=int, help="runs at once: one for each CPU, with --model one; the bits of both")
    parser.add_argument("--svg", type=pathlib.Path)
    parser.add_argument("--json", type=pathlib.Path)
    options = parser.parse_args()
    task = COLOURS if options.model is None else ALLITERATION
    path = options.model or HERE.parents[1] / "examples" / "embedded" / "model"
    jobs = options.jobs or (1 if options.model else len(os.sched_getaffinity(0)))
    if options.steps:
        task["params"]["steps"] = options.steps
    with pg.Context(library=options.library) as context:
        machine = {"kernel_set": context.info().kernel_set_name}
    with concurrent.futures.ThreadPoolExecutor(jobs) as pool:
        waiting = {(name, seed): pool.submit(train, task, path, name, seed, 0 if jobs == 1 else 1)
                   for seed, name in itertools.product(range(1, options.seeds + 1), CONFIGURATIONS)}
        curves = {name: [waiting[name, seed].result() for seed in range(1, options.seeds + 1)]
                  for name in CONFIGURATIONS}
    limit = mean([last(rewards) for rewards in curves["f32"]])
    for name, runs in curves.items():
        print(json.dumps(line(task, name, runs, limit, machine)), flush=True)
    if options.svg:
        options.svg.write_text(draw(task, curves))
    if options.json:
        options.json.write_text(json.dumps({"task": task["name"], "rewards": curves}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
