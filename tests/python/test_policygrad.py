#!/usr/bin/env python3
"""The ctypes module on the embedded model. usage: test_policygrad.py LIBRARY ROOT"""
import ctypes
import gc
import pathlib
import sys
import unittest

LIBRARY, ROOT = sys.argv[1], pathlib.Path(sys.argv[2])
sys.path.insert(0, str(ROOT / "examples" / "python"))
import policygrad as pg  # noqa: E402

MODEL = ROOT / "examples" / "embedded" / "model"
PROMPTS = ["paint it red:", "paint it blue:", "paint it gold:"]
pg.load(LIBRARY)


class Boom(Exception):
    pass


class Test(unittest.TestCase):
    def setUp(self):
        self.context = pg.Context()
        self.model = pg.Model.load(self.context, MODEL)
        self.tokenizer = pg.Tokenizer.load(self.context, MODEL)

    def test_struct_sizes(self):
        for name, structure in pg.STRUCTURES.items():
            self.assertEqual(ctypes.sizeof(structure), pg._library.pgrad_struct_size(name.encode()), name)

    def test_round_trip(self):
        for text in ("", "the red fox.", "größer ☃ 漢字", "<|end|>"):
            self.assertEqual(self.tokenizer.decode(self.tokenizer.encode(text)), text)
        self.assertNotIn(self.tokenizer.special(1), self.tokenizer.encode("<|end|>"))
        self.assertEqual(self.tokenizer.encode("<|end|>", 1), [self.tokenizer.special(1)])

    def test_lambda_learns(self):
        history = pg.policy_gradient(self.model, self.tokenizer, lambda text: text.split().count("green") / 2, 3e-4, 25,
                                     PROMPTS, group_size=12, max_new_tokens=20)
        first = sum(step["reward"] for step in history[:5]) / 5
        last = sum(step["reward"] for step in history[-5:]) / 5
        self.assertGreater(last, first + 0.2)
        self.assertTrue(all(step["ratio/min"] == 1.0 == step["ratio/max"] for step in history))

    def test_exception_comes_out(self):
        name = self.model.tensor_names()[0]
        before = list(self.model.tensor(name))

        def reward(text):
            raise Boom("no score today")

        with self.assertRaisesRegex(Boom, "no score today"):
            pg.policy_gradient(self.model, self.tokenizer, reward, 1e-3, 1, PROMPTS, max_new_tokens=8)
        self.assertEqual(before, list(self.model.tensor(name)))
        pg.policy_gradient(self.model, self.tokenizer, len, 1e-3, 1, PROMPTS, max_new_tokens=8)

    def test_errors_carry_status_and_message(self):
        with self.assertRaises(pg.Error) as caught:
            pg.Model.load(self.context, "/nonexistent/model")
        self.assertEqual(caught.exception.name, "E_IO")
        with self.assertRaisesRegex(pg.Error, "sampler.top_p"):
            pg.Sampler(self.context, top_p=1.5)

    def test_not_applicable(self):
        with pg.Rollout(self.model, self.tokenizer, group_size=4, max_new_tokens=8) as rollout, \
                pg.Sampler(self.context, seed=3) as sampler, \
                pg.Reward(self.context, lambda text: None if "red" in text else 1.0) as reward:
            rollout.add_prompt(self.tokenizer.encode("paint it red:"), asked="red")
            rollout.generate(sampler)
            reward.apply(rollout)
            for i in range(len(rollout)):
                self.assertEqual("red" in rollout.text(i), rollout.sequence(i).reward != rollout.sequence(i).reward)
                self.assertEqual(len(rollout.tokens(i)), rollout.sequence(i).n_tokens)
                self.assertEqual(len(rollout.array(pg.LOGPROBS, i)), rollout.sequence(i).n_tokens)

    def test_progress_stops(self):
        self.context.on_progress(lambda what, done, total: False)
        with self.assertRaises(pg.Error) as caught:
            pg.policy_gradient(self.model, self.tokenizer, len, 1e-3, 1, PROMPTS, max_new_tokens=8)
        self.assertEqual(caught.exception.status, pg.E_CALLBACK)

    def test_any_order_of_closing(self):
        rollout = pg.Rollout(self.model, self.tokenizer, group_size=2, max_new_tokens=4)
        optimizer = pg.Optimizer(self.model)
        self.context.close()
        self.tokenizer.close()
        self.model.close()
        rollout.close()
        rollout.close()
        del optimizer
        gc.collect()

    def test_save_and_load(self):
        import tempfile
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "saved"
            self.model.save(path, self.tokenizer)
            again = pg.Model.load(self.context, path)
            words = pg.Tokenizer.load(self.context, path)
            self.assertEqual(words.encode("the red fox"), self.tokenizer.encode("the red fox"))
            for name in self.model.tensor_names():
                self.assertEqual(list(self.model.tensor(name)), list(again.tensor(name)))


if __name__ == "__main__":
    unittest.main(argv=sys.argv[:1])
