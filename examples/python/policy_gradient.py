#!/usr/bin/env python3
"""Policy gradient in Python, the reward function a lambda.

usage: policy_gradient.py [MODEL [EPOCHS]]"""
from __future__ import annotations

import pathlib
import sys

from policygrad import Context, Model, Tokenizer, policy_gradient

PROMPTS = [f"paint it {colour}:" for colour in ("red", "blue", "green", "white", "black", "gold")]


def main() -> None:
    embedded = pathlib.Path(__file__).resolve().parents[1] / "embedded" / "model"
    path = sys.argv[1] if len(sys.argv) > 1 else embedded
    epochs = int(sys.argv[2]) if len(sys.argv) > 2 else 60
    with Context() as context, Model.load(context, path) as model, Tokenizer.load(context, path) as tokenizer:
        policy_gradient(
            model, tokenizer,
            lambda text, prompt: min(text.split().count(prompt[len("paint it "):-1]), 2) / 2 * text.endswith("."),
            learning_rate=1.5e-4, epochs=epochs, prompts=PROMPTS, group_size=16, max_new_tokens=24,
            on_epoch=lambda epoch, numbers, rollout: epoch % 10 == 9 and print(
                f"epoch {epoch + 1:3}  reward {numbers['reward']:.3f}  {PROMPTS[0]}{rollout.text(0)}"))


if __name__ == "__main__":
    main()
