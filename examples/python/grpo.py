#!/usr/bin/env python3
"""A whole training run from the command line: GRPO on a GGUF file or a Hugging Face folder.

    grpo.py --model SmolLM2-135M-Instruct --chat --reward concise --steps 50 --output tuned
    grpo.py --model PATH --prompts prompts.txt --reward "text.count('sea') - len(text) / 100"
    grpo.py --model PATH --prompts sums.jsonl --reward 'numeric:{"column": "answer"}' --reward think_then_answer

The prompts file has one prompt a line, or one JSON object with "prompt" a line (.jsonl), whose other members the
rewards read. A reward is one of the names below, NAME or NAME:{JSON arguments} of docs/rewards.md, or a Python
expression of `text` and `prompt` (it runs as code: use your own). Several are added."""
import argparse
import json
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


REWARDS = {
    "concise": lambda text, prompt: -len(text) / 100,
    "verbose": lambda text, prompt: len(text) / 100,
    "sentence": lambda text, prompt: float(bool(re.fullmatch(r"[A-Z][^.!?]*[.!?]", text.strip()))),
    "distinct": distinct,
}


def make_reward(context, text):
    name, _, options = text.partition(":")
    if name in pg.Reward.builtins():
        given = json.loads(options or "{}")
        if not isinstance(given, dict):
            raise ValueError(f"--reward {text}: the arguments are no JSON object")
        return pg.Reward.builtin(context, name, **given)
    function = REWARDS.get(text)
    if function is None:
        try:
            code = compile(text, "--reward", "eval")
        except SyntaxError as error:
            sys.exit(f"grpo.py: --reward is none of {', '.join(REWARDS)}, {', '.join(pg.Reward.builtins())}, and no "
                     f"expression: {error}")
        function = lambda text, prompt: eval(code, {"re": re, "math": math, "text": text, "prompt": prompt})  # noqa: E731
    return pg.Reward(context, function, name=" ".join(text.split()).encode()[:40].decode(errors="ignore"),
                     columns=["prompt"])


def read_columns(path):
    """{"prompt": [...], other columns}; what is no text is written as JSON."""
    if path is None:
        return {"prompt": PROMPTS}
    lines = [line for line in pathlib.Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    if not path.endswith(".jsonl"):
        return {"prompt": lines}
    rows = [json.loads(line) for line in lines]
    if not all(isinstance(row, dict) and "prompt" in row for row in rows):
        raise ValueError(f"{path}: a line is no JSON object with \"prompt\"")
    return {name: [row[name] if isinstance(row[name], str) else json.dumps(row[name]) for row in rows]
            for name in rows[0] if all(name in row for row in rows)}


def arguments():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--model", required=True, help="a folder, or a .gguf file")
    add("--tokenizer", help="where it is not with the model")
    add("--prompts", help="a file; without one, eight built-in prompts")
    add("--reward", action="append", help=f"{', '.join(REWARDS)}, a builtin one, or an expression; default concise")
    add("--reward-weight", type=float, action="append", help="of each reward in turn, default 1")
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
    columns = read_columns(options.prompts)
    prompts = columns["prompt"]
    rewards = [make_reward(context, text) for text in options.reward or ["concise"]]
    reward = pg.Reward.combine(context, rewards, options.reward_weight or [1.0] * len(rewards))

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
        model, tokenizer, reward, prompts, columns=columns, chat=options.chat, system=options.system, report=report,
        steps=options.steps, group_size=options.group_size,
        prompts_per_step=min(options.prompts_per_step, len(prompts)), max_new_tokens=options.max_new_tokens,
        learning_rate=options.learning_rate, seed=options.seed,
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
