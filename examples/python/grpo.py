#!/usr/bin/env python3
"""A whole training run from the command line: GRPO on a GGUF file or a Hugging Face folder.

    grpo.py --model SmolLM2-135M-Instruct --chat --reward concise --steps 50 --output tuned
    grpo.py --model PATH --prompts prompts.txt --reward "text.count('sea') - len(text) / 100"

The prompts file has one prompt a line, or one JSON object with "prompt" a line (.jsonl). The reward is one of the
names below, or a Python expression of `text` and `prompt` (it runs as code: use your own)."""
import argparse
import collections
import math
import pathlib
import re
import sys

import policygrad as pg

PROMPTS = [f"Tell me about {thing}." for thing in ("the sea", "bread", "the moon", "a clock", "winter", "an old bridge",
                                                  "salt", "bees")]


def distinct(text, prompt):
    """Share of words that were not said before."""
    words = text.lower().split()
    return len(set(words)) / len(words) if words else 0.0


def repetition(text, prompt):
    """Minus the share of three-word runs said twice or more."""
    words = text.lower().split()
    runs = collections.Counter(zip(words, words[1:], words[2:]))
    return -sum(n - 1 for n in runs.values()) / max(sum(runs.values()), 1)


REWARDS = {
    "concise": lambda text, prompt: -len(text) / 100,
    "verbose": lambda text, prompt: len(text) / 100,
    "sentence": lambda text, prompt: float(bool(re.fullmatch(r"[A-Z][^.!?]*[.!?]", text.strip()))),
    "distinct": distinct,
    "repetition": repetition,
}


def reward_function(text):
    if text in REWARDS:
        return REWARDS[text]
    try:
        code = compile(text, "--reward", "eval")
    except SyntaxError as error:
        sys.exit(f"grpo.py: --reward is neither one of {', '.join(REWARDS)} nor an expression: {error}")
    return lambda text, prompt: eval(code, {"re": re, "math": math, "text": text, "prompt": prompt})


def read_prompts(path):
    if path is None:
        return PROMPTS
    lines = [line for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if path.endswith(".jsonl"):
        import json
        return [json.loads(line)["prompt"] for line in lines]
    return lines


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="a folder, or a .gguf file")
    add("--tokenizer", help="where it is not with the model")
    add("--prompts", help="a file; without one, eight built-in prompts")
    add("--reward", default="concise", help=f"{', '.join(REWARDS)}, or an expression")
    add("--chat", action="store_true", help="each prompt is a user's message")
    add("--system", help="the system message, with --chat")
    add("--steps", type=int, default=50)
    add("--learning-rate", type=float, default=1e-5)
    add("--group-size", type=int, default=8)
    add("--prompts-per-step", type=int, default=4)
    add("--max-new-tokens", type=int, default=64)
    add("--temperature", type=float, default=1.0)
    add("--estimator", default="grpo", help="none, ema, batch_mean, rloo, grpo, dr_grpo")
    add("--kl-beta", type=float, default=0.0, help="KL to the model as it was, in the loss")
    add("--seed", type=int, default=0)
    add("--threads", type=int, default=0)
    add("--output", help="folder for the trained model")
    add("--metrics", help="file for one JSON object per step")
    return parser.parse_args()


def train(options, context):
    model = pg.Model.load(context, options.model)
    tokenizer = pg.Tokenizer.load(context, options.tokenizer or options.model)
    prompts = read_prompts(options.prompts)

    def report(numbers, rollout):
        step = int(numbers["step"])
        left = numbers["step_time"] * (options.steps - step)
        print(f"step {step}/{options.steps}  reward {numbers['reward']:.3f} ± {numbers['reward_std']:.3f}  "
              f"tokens {numbers['completions/mean_length']:.1f}  {numbers['tokens_per_second']:.0f} tokens/s  "
              f"{left:.0f} s left", flush=True)
        if step == 1 or step % 10 == 0:
            print(f"    {rollout.text(0)[:200]!r}", flush=True)

    optional = {}
    if options.kl_beta > 0:
        optional["reference"] = model.snapshot()
    if options.metrics:
        optional["metrics_path"] = options.metrics
    if options.output:
        optional["save_path"] = options.output
    out = pg.train(
        model, tokenizer, pg.Reward(context, reward_function(options.reward), columns=["prompt"]), prompts,
        columns={"prompt": prompts}, chat=options.chat, system=options.system, report=report, steps=options.steps,
        group_size=options.group_size, prompts_per_step=min(options.prompts_per_step, len(prompts)),
        max_new_tokens=options.max_new_tokens, learning_rate=options.learning_rate, seed=options.seed,
        sampler=pg.Sampler(context, temperature=options.temperature, seed=options.seed),
        advantage=pg.Advantage(context, estimator=options.estimator),
        objective=pg.Objective(model, kl_beta=options.kl_beta), **optional)
    print(f"reward {out.first_reward:.3f} -> {out.last_reward:.3f} in {out.steps} steps, {out.seconds:.0f} s"
          + (f"; saved to {options.output}" if options.output else ""))


def main():
    options = arguments()
    try:
        with pg.Context(n_threads=options.threads) as context:
            train(options, context)
    except KeyboardInterrupt:
        sys.exit("grpo.py: stopped")
    except (pg.Error, OSError, ValueError) as error:
        sys.exit(f"grpo.py: {error}")


if __name__ == "__main__":
    main()
