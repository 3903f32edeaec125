#!/usr/bin/env python3
"""The same in Python: a function of a text is the reward, arrays are views without copies, failures are exceptions.

usage: 13_python.py [MODEL [STEPS]]"""
import pathlib
import sys

here = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(here / "python"))
import policygrad as pg  # noqa: E402

PROMPTS = ["paint it red:", "paint it blue:"]


def show(numbers, rollout):
    print(f"step {numbers['step']:2}  reward {numbers['reward']:.3f} {rollout.text(0)}")


def main():
    path = sys.argv[1] if len(sys.argv) > 1 else here / "embedded" / "model"
    steps = int(sys.argv[2]) if len(sys.argv) > 2 else 20
    with pg.Context() as context, pg.Model.load(context, path) as model, pg.Tokenizer.load(context, path) as tokenizer:
        # The ready loop; options by name, as in the C struct.
        out = pg.train(model, tokenizer, lambda text: " cat " in text, PROMPTS, steps=steps, prompts_per_step=2,
                       group_size=16, max_new_tokens=24, learning_rate=3e-4, report=show)
        print(f"reward {out.first_reward:.3f} -> {out.last_reward:.3f} in {out.steps} steps")

        # The pieces, too: log-probabilities of what was just sampled, as numpy's array where numpy is there.
        with pg.Rollout(model, tokenizer, group_size=2, max_new_tokens=24) as rollout, \
                pg.Sampler(context, temperature=0.8, stop_strings=["."]) as sampler:
            rollout.add_prompt(tokenizer.encode(PROMPTS[0], pg.ENCODE_ADD))
            rollout.generate(sampler)
            for i, text in enumerate(rollout.texts()):
                print(f"mean log-probability {sum(rollout.array(pg.LOGPROBS, i)) / rollout.sequence(i).n_tokens:.3f} "
                      f"of{text}")
        try:
            pg.Sampler(context, temperature=-1)
        except pg.Error as failure:
            print(f"{failure.name}: {failure}")


if __name__ == "__main__":
    main()
