#!/usr/bin/env python3
"""A whole training run from the command line: GRPO on a GGUF file or a Hugging Face folder.

    grpo.py --model SmolLM2-135M-Instruct --chat --reward "text.count('sea') - len(text) / 100" --output tuned
    grpo.py --model PATH --prompts sums.jsonl --reward 'numeric:{"column": "answer"}' --reward think_then_answer
    grpo.py --model PATH --prompts prompts.txt --reward rewards.py:score --checkpoint run.pgrad --resume auto

The prompts file has one prompt a line or, in .jsonl, one JSON object with "prompt" a line, whose other members are
columns that rewards read. A reward is NAME or NAME:{JSON arguments} of docs/rewards.md; FILE.py:FUNCTION, whose
parameters are the completion's text and columns by name; or a Python expression of text and prompt. The last two run as
code: use your own. Several are added. Ctrl-C ends the run in order behind its step, a second one at once.

Status 2: a value of the command line is wrong; 1: the run failed; 130: Ctrl-C."""
from __future__ import annotations

import argparse
import contextlib
import json
import math
import re
import runpy
import signal
import sys
import traceback
from typing import Any, Callable, Dict, Iterator, List

import policygrad as pg

PROMPTS = [f"Tell me about {thing}." for thing in ("the sea", "bread", "the moon", "a clock", "winter", "an old bridge",
                                                  "salt", "bees")]


class BadValue(Exception):
    """Of the command line."""


def told(error: BaseException) -> str:
    """An exception in one line; of code that is not ours, with its place."""
    if isinstance(error, (BadValue, pg.Error, OSError, ValueError, SyntaxError)):
        return " ".join(str(error).split())
    at = traceback.extract_tb(error.__traceback__)[-1]
    return " ".join(f"{type(error).__name__}: {error} ({at.filename}, line {at.lineno})".split())


@contextlib.contextmanager
def naming(option: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:
        raise BadValue(f"{option}: {told(error)}") from error


def find_function(given: str) -> Callable[..., Any]:
    path, _, name = given.rpartition(":")
    if path.endswith(".py"):
        function = runpy.run_path(path).get(name)
        if not callable(function):
            raise ValueError(f"the file has no function {name!r}")
        return function  # type: ignore[no-any-return]
    if re.match(r"\w+($|:)", given):
        raise ValueError(f"expected FILE.py:FUNCTION, an expression, or one of {', '.join(pg.Reward.builtins())}")
    code = compile(given, f"--reward {given}", "eval")
    return lambda text, prompt: eval(code, {"re": re, "math": math, "text": text, "prompt": prompt})


def make_reward(context: pg.Context, given: str) -> pg.Reward:
    name, _, options = given.partition(":")
    with naming(f"--reward {given}"):
        if name in pg.Reward.builtins():
            return pg.Reward.builtin(context, name, **json.loads(options or "{}"))
        return pg.Reward(context, find_function(given), name=given[-40:])


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="a folder, or a .gguf file")
    add("--tokenizer", help="where it is not with the model")
    add("--prompts", help="a file; without one, eight built-in prompts")
    add("--reward", action="append", help="default: 1 - len(text) / 100")
    add("--reward-weight", type=float, action="append", help="of each reward in turn, default 1")
    add("--chat", action="store_true", help="each prompt is a user's message")
    add("--system", help="the system message, with --chat")
    for name, default in (("steps", 50), ("group-size", 8), ("prompts-per-step", 4), ("max-new-tokens", 64),
                          ("learning-rate", 1e-5), ("temperature", 1.0), ("seed", 0), ("threads", 0)):
        add(f"--{name}", type=type(default), default=default)
    add("--estimator", default="grpo", help="none, ema, batch_mean, rloo, grpo, dr_grpo")
    add("--kl-beta", type=float, default=0.0, help="KL to the model as it was, in the loss")
    add("--output", help="folder for the trained model")
    add("--metrics", help="file for one JSON object per step")
    add("--checkpoint", help="file for the run's state, written every 10 steps and at the end")
    add("--resume", choices=("off", "on", "auto"), default="off", help="take up the run at --checkpoint")
    return parser.parse_args()


def run(options: argparse.Namespace, context: pg.Context) -> None:
    with naming(f"--model {options.model}"):
        model = pg.Model.load(context, options.model)
        tokenizer = pg.Tokenizer.load(context, options.tokenizer or options.model)
    with naming(f"--prompts {options.prompts}"):
        columns: Dict[str, Any] = pg.read_prompts(options.prompts) if options.prompts else {"prompt": PROMPTS}
    rewards = [make_reward(context, given) for given in options.reward or ["1 - len(text) / 100"]]
    interrupts: List[int] = []

    def interrupted(number: int, frame: Any) -> None:
        if interrupts:
            raise KeyboardInterrupt
        interrupts.append(number)

    def report(numbers: Dict[str, float], rollout: pg.RolloutView) -> bool:
        step, left = int(numbers["step"]), numbers["step_time"] * (options.steps - numbers["step"])
        print(f"step {step}/{options.steps}  reward {numbers['reward']:.3f} ± {numbers['reward_std']:.3f}  "
              f"tokens {numbers['completions/mean_length']:.1f}  {left:.0f} s left", flush=True)
        if step == 1 or step % 10 == 0:
            print(f"    {rollout.text(0)[:200]!r}", flush=True)
        return not interrupts

    signal.signal(signal.SIGINT, interrupted)
    reward = pg.Reward.combine(context, rewards, options.reward_weight)
    out = pg.train(
        model, tokenizer, reward, columns["prompt"], columns=columns, chat=options.chat, system=options.system,
        report=report, steps=options.steps, group_size=options.group_size,
        prompts_per_step=min(options.prompts_per_step, len(columns["prompt"])), max_new_tokens=options.max_new_tokens,
        learning_rate=options.learning_rate, seed=options.seed, metrics_path=options.metrics, save_path=options.output,
        checkpoint_path=options.checkpoint, checkpoint_every=10, resume=options.resume,
        sampler=pg.Sampler(context, temperature=options.temperature, seed=options.seed),
        advantage=pg.Advantage(context, estimator=options.estimator),
        objective=pg.Objective(model, kl_beta=options.kl_beta),
        reference=model.snapshot() if options.kl_beta > 0 else None)
    print(f"reward {out.first_reward:.3f} -> {out.last_reward:.3f} in {out.steps} steps, {out.seconds:.0f} s")
    if interrupts:
        raise KeyboardInterrupt


def main() -> None:
    options = arguments()
    try:
        with pg.Context(n_threads=options.threads) as context:
            run(options, context)
    except KeyboardInterrupt:
        sys.exit(130)
    except Exception as error:
        print("grpo.py:", told(error), file=sys.stderr)
        failed = isinstance(error, (pg.Error, OSError)) and getattr(error, "status", 0) != pg.E_INVALID
        sys.exit(1 if failed else 2)


if __name__ == "__main__":
    main()
