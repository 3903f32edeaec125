#!/usr/bin/env python3
"""The ctypes module on the embedded model. usage: test_policygrad.py LIBRARY ROOT"""
import array
import ctypes
import functools
import gc
import json
import math
import os
import pathlib
import signal
import tempfile
import threading

from support import Boom, Case, MODEL, PROMPTS, main, pg


class Test(Case):
    def test_struct_sizes(self):
        for name, structure in pg._STRUCTURES.items():
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

    def test_exception_comes_out(self):  # RW09
        name = self.model.tensor_names()[0]
        before = self.model.tensor(name).tobytes()

        def reward(text):
            raise Boom("no score today")

        with self.assertRaisesRegex(Boom, "no score today") as caught:
            pg.policy_gradient(self.model, self.tokenizer, reward, 1e-3, 1, PROMPTS, max_new_tokens=8)
        self.assertRegex(caught.exception.__notes__[-1], r"^reward '.*', sequence 0: ")  # which one
        self.assertEqual(before, self.model.tensor(name).tobytes())
        pg.policy_gradient(self.model, self.tokenizer, len, 1e-3, 1, PROMPTS, max_new_tokens=8)

    def test_ids_beyond_32_bits_are_no_ids(self):
        far = 2**32 + 5
        with pg.Rollout(self.model, self.tokenizer, group_size=1, max_new_tokens=4) as rollout:
            with self.assertRaisesRegex(ValueError, rf"ids\[1\]: expected a token id, found {far}"):
                rollout.add_prompt([1, far])
        with self.assertRaisesRegex(ValueError, "found -4294967297"):
            self.tokenizer.decode([-2**32 - 1])
        with self.assertRaisesRegex(ValueError, r"sampler.forbidden_tokens\[0\]"):
            pg.Sampler(self.context, forbidden_tokens=[far])
        with self.assertRaises(TypeError):
            self.tokenizer.decode([1.5])

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
            rollout.generate(sampler, speculate="off")
            self.assertGreater(rollout.info().prompt_tokens_computed, 0)
            self.assertEqual(rollout.info().drafted_tokens, 0)
            reward.apply(rollout)
            for i in range(len(rollout)):
                self.assertEqual("red" in rollout.text(i), rollout.sequence(i).reward != rollout.sequence(i).reward)
                self.assertEqual(len(rollout.tokens(i)), rollout.sequence(i).n_tokens)
                self.assertEqual(len(rollout.array(pg.LOGPROBS, i)), rollout.sequence(i).n_tokens)

    def test_builtin_rewards(self):
        builtins = pg.Reward.builtins()
        self.assertEqual([a["name"] for a in builtins["overlong"]["arguments"]],
                         ["name", "max_length", "buffer", "factor"])
        with pg.Rollout(self.model, self.tokenizer, group_size=4, max_new_tokens=8) as rollout, \
                pg.Sampler(self.context, seed=3) as sampler, \
                pg.Reward.builtin(self.context, "regex", pattern="é|r", name="has_r") as has_r, \
                pg.Reward.builtin(self.context, "length", target=8, unit="tokens") as length, \
                pg.Reward.combine(self.context, [has_r, length], [2.0, 1.0]) as both:
            rollout.add_prompt(self.tokenizer.encode("paint it red:"))
            rollout.generate(sampler)
            both.apply(rollout)
            for i in range(len(rollout)):
                wanted = 2.0 * ("r" in rollout.text(i)) + rollout.sequence(i).n_tokens / 8
                self.assertAlmostEqual(rollout.sequence(i).reward, wanted, places=6)
        with self.assertRaisesRegex(pg.Error, "pattern: expected a string"):
            pg.Reward.builtin(self.context, "regex", pattern=3)
        with self.assertRaisesRegex(pg.Error, "found 'regexp'"):
            pg.Reward.builtin(self.context, "regexp")

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
        with tempfile.TemporaryDirectory() as folder:
            path = pathlib.Path(folder) / "saved"
            self.model.save(path, self.tokenizer)
            again = pg.Model.load(self.context, path)
            words = pg.Tokenizer.load(self.context, path)
            self.assertEqual(words.encode("the red fox"), self.tokenizer.encode("the red fox"))
            for name in self.model.tensor_names():
                self.assertEqual(self.model.tensor(name).tobytes(), again.tensor(name).tobytes())

    # What comes out of callbacks.

    def test_exception_in_progress_comes_out(self):
        def progress(what, done, total):
            raise Boom(what)

        for _ in range(5):
            self.context.on_progress(progress)
            with self.assertRaisesRegex(Boom, "generate"):
                self.generated()
            self.context.on_progress(None)
            self.generated()

    def test_interrupt_as_a_call_ends_leaves_nothing_behind(self):
        """Ctrl-C behind the last progress of a call that succeeds: the handle it made goes with the exception."""
        create = pg._library.pgrad_model_create

        def interrupted(*arguments):
            status = create(*arguments)
            self.assertEqual(status, pg.OK)
            try:
                os.kill(os.getpid(), signal.SIGINT)
            except KeyboardInterrupt:
                self.fail("thrown into C code")
            return status

        config = json.dumps({"model_type": "llama", "vocab_size": 8, "hidden_size": 8, "intermediate_size": 8,
                             "num_hidden_layers": 1, "num_attention_heads": 2})
        before = self.context.info().memory_now
        pg._library.pgrad_model_create = interrupted
        try:
            with self.assertRaises(KeyboardInterrupt):
                pg.Model.create(self.context, config)
        finally:
            pg._library.pgrad_model_create = create
        self.assertEqual(self.context.info().memory_now, before)

    def test_rw09_interrupt_in_progress(self):
        before = signal.getsignal(signal.SIGINT)
        for _ in range(5):
            self.context.on_progress(lambda what, done, total: os.kill(os.getpid(), signal.SIGINT) if done else None)
            with self.assertRaises(KeyboardInterrupt):
                self.generated(group_size=8, max_new_tokens=32)
            self.context.on_progress(None)
            self.assertIs(signal.getsignal(signal.SIGINT), before)
            self.generated()

    def test_interrupt_from_outside(self):  # RW09
        sent = []
        for _ in range(3):
            timer = threading.Timer(0.1, lambda: (sent.append(1), os.kill(os.getpid(), signal.SIGINT)))
            with self.assertRaises(KeyboardInterrupt):
                timer.start()
                pg.train(self.model, self.tokenizer, lambda text: float(len(text)), PROMPTS, steps=100000,
                         prompts_per_step=2, max_new_tokens=16)
            timer.join()
        self.assertEqual(len(sent), 3)

    def test_interrupt_ends_a_reward_that_hangs(self):
        def hangs(text):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            while True:
                pass

        old = signal.signal(signal.SIGALRM, lambda *_: os.kill(os.getpid(), signal.SIGINT))
        try:
            with self.assertRaises(KeyboardInterrupt):
                pg.train(self.model, self.tokenizer, hangs, PROMPTS, steps=1, prompts_per_step=1, max_new_tokens=4)
        finally:
            signal.signal(signal.SIGALRM, old)

    def test_exceptions_of_train(self):
        def boom(*_):
            raise Boom("here")

        for named in ({"report": boom}, {"on_advantages": boom}):
            with self.assertRaisesRegex(Boom, "here"):
                pg.train(self.model, self.tokenizer, lambda text: float(len(text)), PROMPTS, steps=3,
                         prompts_per_step=2, max_new_tokens=8, **named)
        with self.assertRaisesRegex(Boom, "here"):
            self.generated(event=boom)

    def test_rw09_callbacks_outlive_the_context_object(self):  # RW09
        def made():
            context = pg.Context()
            context.on_progress(lambda what, done, total: seen.append(what))
            model = pg.Model.load(context, MODEL)
            rollout = pg.Rollout(model, group_size=2, max_new_tokens=4)
            return rollout, pg.Sampler(context)

        seen = []
        rollout, sampler = made()
        gc.collect()
        recycled = [pg._ProgressCallback(lambda *_: seen.append("recycled") or 0) for _ in range(200)]
        rollout.add_prompt([1, 2, 3])
        del seen[:]
        rollout.generate(sampler)
        self.assertEqual(set(seen), {"generate"})
        del recycled

    # Rewards.

    def test_per_token_and_batch_rewards(self):
        rollout = self.generated()
        lengths = [rollout.sequence(i).n_tokens for i in range(4)]
        values = [[0.25 * (t + i) for t in range(n)] for i, n in enumerate(lengths)]

        def batch(view, first, count):
            return [None if i == 2 else values[i] for i in range(first, first + count)]

        with pg.Reward(self.context, batch, over="rollout") as reward:
            reward.apply(rollout)
        for i in range(4):
            if i == 2:
                self.assertTrue(math.isnan(rollout.sequence(i).reward))
            else:
                self.assertEqual(list(rollout.array(pg.REWARDS, i)), values[i])

        seen = []
        with pg.Reward(self.context, lambda texts, asked: seen.append((texts, asked)) or range(len(texts)),
                       columns=["asked"], over="texts") as reward:
            reward.apply(rollout)
        self.assertEqual(seen, [(rollout.texts(), ["red"] * 4)])
        self.assertEqual([rollout.sequence(i).reward for i in range(4)], [0, 1, 2, 3])
        with pg.Reward(self.context, lambda texts: [1.0], over="texts") as reward:
            with self.assertRaisesRegex(ValueError, "1 scores for 4"):
                reward.apply(rollout)
        with pg.Reward(self.context, lambda text: [1.0] * 100) as reward:
            with self.assertRaises(pg.Error) as caught:
                reward.apply(rollout)
            self.assertEqual(caught.exception.name, "E_MISMATCH")

    def test_data(self):
        rollout = self.generated()
        self.assertEqual((rollout.data(0, "asked"), rollout.data(0, "answer")), ("red", None))
        rollout.set_data(0, "answer", "größer\0☃")
        rollout.set_data(0, "asked", "")
        self.assertEqual((rollout.data(0, "asked"), rollout.data(0, "answer")), ("", "größer\0☃"))
        seen = set()
        pg.Reward(self.context, lambda text, answer, other: seen.add((answer, other))).apply(rollout)
        self.assertEqual(seen, {("größer\0☃", None)})

    def test_combine(self):
        rollout = self.generated()
        ones = pg.Reward(self.context, lambda text: 1.0, "ones")
        twos = pg.Reward(self.context, lambda text: 2.0, "twos")
        both = pg.Reward.combine(self.context, [ones, twos], [3, 0.5])
        del ones, twos
        gc.collect()
        both.apply(rollout)
        self.assertEqual(rollout.sequence(0).reward, 4.0)
        report = pg.Report()
        report.add(rollout)
        self.assertEqual(report.numbers()["rewards/twos/mean"], 2.0)

    def test_reward_of_any_callable(self):
        class Scorer:
            def score(self, text):
                return float(len(text))

            def __call__(self, text, prompt):
                return float(prompt in PROMPTS)

        def three(weight, text, prompt):
            return weight * (prompt in PROMPTS)

        for function, mean in ((Scorer().score, None), (Scorer(), 1.0), (functools.partial(three, 2.0), 2.0),
                               (len, None)):
            history = pg.policy_gradient(self.model, self.tokenizer, function, 1e-5, 1, PROMPTS, group_size=2,
                                         max_new_tokens=4)
            if mean is not None:
                self.assertEqual(history[0]["reward"], mean)
        for call in (lambda: pg.policy_gradient(self.model, self.tokenizer, len, 1e-5, 1, []),
                     lambda: pg.train(self.model, self.tokenizer, len, [])):
            with self.assertRaisesRegex(ValueError, "prompts is empty"):
                call()

    # Memory, told before and kept under a limit.

    def test_estimate(self):
        plan = dict(rollout=dict(group_size=8, max_prompts=2, max_prompt_tokens=8, max_new_tokens=20),
                    objective={}, optimizer=dict(moments="auto"), tokenizer=self.tokenizer)
        report = pg.Model.estimate_load(self.context, MODEL, **plan)
        self.assertEqual(report.total, self.model.estimate(**plan).total)
        self.assertEqual(report.weights, report.gradients)
        self.assertEqual((report.micro_batch_tokens, report.recompute), (2048, 0))
        config = (MODEL / "config.json").read_text()
        half = pg.Model.estimate_create(self.context, config, model=dict(storage="bf16"), **plan)
        self.assertLess(half.weights, report.weights * 0.6)
        least = self.model.estimate(memory_limit=report.total * 7 // 10, **plan)
        self.assertLessEqual(least.total, report.total * 7 // 10)
        self.assertTrue(least.recompute or least.n_micro_batches > 1 or least.moments_storage)
        with self.assertRaisesRegex(pg.Error, "memory_limit: .* the leanest plan") as refused:
            self.model.estimate(memory_limit=report.weights, **plan)
        self.assertEqual(refused.exception.status, pg.E_LIMIT)
        with self.assertRaisesRegex(pg.Error, "plan.prompt_tokens"):
            self.model.estimate(prompt_tokens=9, **plan)

    def test_train_under_a_limit(self):
        def run(limit):
            seen = []
            with pg.Context(memory_limit=limit) as context:
                model, tokenizer = pg.Model.load(context, MODEL), pg.Tokenizer.load(context, MODEL)
                sampler = pg.Sampler(context, ignore_eos=True)  # full lengths, as they are planned
                out = pg.train(model, tokenizer, lambda text: len(text), PROMPTS, steps=1, prompts_per_step=3,
                               max_new_tokens=40, moments="auto", sampler=sampler, report=seen.append)
                peak = context.info().memory_peak
                sampler.close()
                tokenizer.close()
                model.close()
            return out.memory_planned, peak, seen[0]

        planned, peak, numbers = run(0)
        self.assertLess(abs(planned / peak - 1), 0.05)
        self.assertEqual(numbers["num_micro_batches"], 1)
        self.assertEqual((numbers["recompute"], numbers["micro_batch_tokens"]), (0, 2048))
        less, peak, numbers = run(planned * 8 // 10)
        self.assertLessEqual(peak, planned * 8 // 10)
        self.assertLess(abs(less / peak - 1), 0.05)
        self.assertTrue(numbers["num_micro_batches"] > 1 or numbers["recompute"] == 1)

    # Options, arrays, the rest.

    def test_mirrors_name_every_field(self):
        for name in ("save", "sampler", "prompt", "generate", "train", "plan"):
            text, length = ctypes.create_string_buffer(4096), ctypes.c_size_t()
            pg._check(pg._library.pgrad_params_describe(name.encode(), None, text, ctypes.c_size_t(4096),
                                                        ctypes.byref(length)))
            fields = {field for field, *_ in pg._STRUCTURES[name]._fields_}
            self.assertLessEqual(set(json.loads(text.value.decode())), fields, name)
            params = pg._params(name, {})
            self.assertEqual(pg._STRUCTURES[name].from_buffer(params).struct_size, ctypes.sizeof(pg._STRUCTURES[name]))

    def test_sampler_arrays(self):
        red = self.tokenizer.encode(" red")[0]
        for options, first in (({"logit_bias": {red: 100.0}}, red),
                               ({"bias_tokens": [red], "logit_bias": [100.0]}, red)):
            with pg.Sampler(self.context, stop_tokens=[red], **options) as sampler:
                rollout = pg.Rollout(self.model, self.tokenizer, group_size=2, max_new_tokens=6)
                rollout.add_prompt([1, 2])
                rollout.generate(sampler)
                self.assertEqual([list(rollout.tokens(i)) for i in range(2)], [[first]] * 2)
                self.assertEqual(rollout.sequence(0).finish, pg.FINISH_STOP)
        with pg.Sampler(self.context, forbidden_tokens=[red], logit_bias={red: 100.0}) as sampler:
            rollout = pg.Rollout(self.model, self.tokenizer, group_size=4, max_new_tokens=6)
            rollout.add_prompt([1, 2])
            rollout.generate(sampler)
            self.assertFalse(any(red in list(rollout.tokens(i)) for i in range(4)))
        with pg.Sampler(self.context, stop_strings=["red", "é"], logit_bias={red: 100.0}) as sampler:
            rollout = pg.Rollout(self.model, self.tokenizer, group_size=1, max_new_tokens=6)
            rollout.add_prompt([1, 2])
            rollout.generate(sampler)
            self.assertEqual(rollout.sequence(0).finish, pg.FINISH_STRING)
        pg.Sampler(self.context, logit_bias={}).close()
        with self.assertRaisesRegex(ValueError, "NUL"):
            pg.Sampler(self.context, stop_strings=["a\0b"])
        with self.assertRaisesRegex(TypeError, "stop_strings: expected a sequence of texts, found one text"):
            pg.Sampler(self.context, stop_strings="red")
        with self.assertRaisesRegex(ValueError, "differ in length"):
            pg.Sampler(self.context, bias_tokens=[1, 2], logit_bias=[1.0])
        with self.assertRaisesRegex(pg.Error, "no field of this name; did you mean 'temperature'?"):
            pg.Sampler(self.context, temprature=1)

    def test_choices_as_text(self):
        pg.Advantage(self.context, estimator="rloo").close()
        pg.Optimizer(self.model, kind="sgd", max_grad_norm=math.inf).close()
        with self.assertRaisesRegex(pg.Error, "advantage.estimator"):
            pg.Advantage(self.context, estimator="best")

    def test_set_array_add_sequence_backward_indices(self):
        rollout = pg.Rollout(self.model, self.tokenizer, group_size=2, max_new_tokens=8)
        group = rollout.add_prompt(self.tokenizer.encode("paint it red:"))
        for text in (" the red fox.", " a red hat."):
            rollout.add_sequence(group, self.tokenizer.encode(text)[:8], finish="length")
        rollout.score(self.model, pg.OLD)
        for i, value in ((0, 1.0), (1, 0.0)):
            rollout.set_array(pg.ADVANTAGES, i, value)
        name, grads = self.model.tensor_names()[0], []
        with pg.Objective(self.model, loss="reinforce", aggregation="sequence_mean_token_sum") as objective:
            self.assertEqual((objective.normalizer(rollout), objective.normalizer(rollout, [0])), (2.0, 1.0))
            for indices, total in ((None, 0.0), ([0], 2.0)):
                self.model.zero_grad()
                objective.backward(rollout, indices=indices, normalizer_total=total)
                grads.append(array.array("f", self.model.grad(name).tobytes()))
        self.assertLess(max(abs(a - b) for a, b in zip(*grads)), 1e-6)
        self.assertGreater(max(map(abs, grads[0])), 1e-4)
        with self.assertRaisesRegex(pg.Error, "no_such"):
            self.model.tensor("no_such")

    def test_the_optimizer_inside_backward(self):
        """The same weights as by backward and step."""
        after = []
        for inside in (False, True):
            model = pg.Model.load(self.context, MODEL)
            rollout = pg.Rollout(model, self.tokenizer, group_size=2, max_new_tokens=8)
            group = rollout.add_prompt(self.tokenizer.encode("paint it red:"))
            for text in (" the red fox.", " a red hat."):
                rollout.add_sequence(group, self.tokenizer.encode(text)[:8], finish="length")
            with pg.Objective(model, loss="supervised") as objective, \
                    pg.Optimizer(model, learning_rate=1e-3, max_grad_norm=math.inf) as optimizer:
                objective.backward(rollout, **({"optimizer": optimizer} if inside else {}))
                if not inside:
                    optimizer.step()
            after.append([model.tensor(name).tobytes() for name in model.tensor_names()])
        self.assertEqual(*after)
        self.assertNotEqual(after[0][0], self.model.tensor(self.model.tensor_names()[0]).tobytes())

    def test_arguments_of_another_kind(self):
        def train(**fields):
            pg.train(self.model, self.tokenizer, lambda text: 1.0, PROMPTS,
                     **{"steps": 1, "prompts_per_step": 1, **fields})

        sampler = pg.Sampler(self.context)
        for fields, said in (({"sampler": self.model}, "train.sampler: expected Sampler, found Model"),
                             ({"objective": sampler}, "train.objective: expected Objective, found Sampler"),
                             ({"reference": self.tokenizer}, "train.reference: expected Model, found Tokenizer"),
                             ({"metrics_path": self.model}, "train.metrics_path: expected a path, found Model")):
            with self.assertRaisesRegex(TypeError, said):
                train(**fields)
        with self.assertRaisesRegex(TypeError, "found one text"):
            pg.train(self.model, self.tokenizer, lambda text: 1.0, PROMPTS[0])
        with self.assertRaisesRegex(TypeError, "expected a number, or one per token, found 'good'"):
            pg.train(self.model, self.tokenizer, lambda text: "good", PROMPTS, steps=1, prompts_per_step=1)
        for fields, said in (({"lr": 3}, "train.lr: there is no field"), ({"resume": "yes"}, "one of off, on, auto"),
                             ({"learning_rate": "fast"}, "expected a number, found 'fast'")):
            with self.assertRaisesRegex(pg.Error, said):
                train(**fields)

    def test_logits(self):
        ids = self.tokenizer.encode("paint it red:")
        every, last = self.model.logits(ids), self.model.logits(ids, last=True)
        flat = array.array("f", every.tobytes()).tolist()
        self.assertEqual(len(flat), len(ids) * self.model.info().n_vocab)
        self.assertEqual(flat[-len(last):], last.tolist())
        with self.assertRaisesRegex(pg.Error, "token"):
            self.model.logits([10 ** 6])

    def test_numbers_of_any_kind(self):
        """Sequences and buffers of numbers; what is none is refused, and nothing wraps around."""
        rollout = self.generated()
        n = rollout.sequence(0).n_tokens
        kinds = [[float(t) for t in range(n)], range(n), tuple(range(n)), array.array("f", range(n)),
                 array.array("d", range(n)), memoryview(array.array("f", range(2 * n)))[::2]]
        if pg.numpy:
            kinds += [pg.numpy.arange(n), pg.numpy.arange(n, dtype="f4"), pg.numpy.arange(2 * n, dtype="f8")[::2]]
        for values in kinds:
            rollout.set_array(pg.ADVANTAGES, 0, values)
            wanted = [2.0 * t for t in range(n)] if len(values) and values[1] == 2 else [float(t) for t in range(n)]
            self.assertEqual(rollout.array(pg.ADVANTAGES, 0).tolist(), wanted)
        for ids in ([1, 2], range(1, 3), (1, 2), array.array("i", [1, 2]), array.array("q", [1, 2]), rollout.tokens(0),
                    *([pg.numpy.array([1, 2])] if pg.numpy else [])):
            self.assertEqual(self.tokenizer.decode(ids), self.tokenizer.decode([int(i) for i in ids]))
        for ids, error in (([1.5], TypeError), (["1"], TypeError), ("12", TypeError), (b"1234", TypeError),
                           (5, TypeError), ([2 ** 32 + 1], ValueError), ([-2 ** 31 - 1], ValueError)):
            with self.assertRaises(error):
                rollout.add_prompt(ids)
        with self.assertRaisesRegex(pg.Error, "empty prompt"):
            rollout.add_prompt([])
        with self.assertRaisesRegex(TypeError, "asked: expected a text, found int"):
            rollout.add_prompt([1], asked=1)
        for call in (lambda: pg.Model.create(self.context, "{}", seed=-1), lambda: rollout.array(2 ** 32, 0),
                     lambda: pg.Sampler(self.context).pick([0.0], 2 ** 64), lambda: rollout.score(self.model, -1),
                     lambda: pg.Objective(self.model).normalizer(rollout, [2 ** 32]),
                     lambda: pg.Decoder(self.tokenizer).push(2 ** 32)):
            with self.assertRaises(ValueError):
                call()
        self.assertEqual(rollout.n_groups, 1)
        for call in (rollout.text, rollout.tokens, rollout.sequence, rollout.prompt, lambda i: rollout.data(i, "asked"),
                     lambda i: rollout.array(pg.LOGPROBS, i), lambda i: rollout.set_array(pg.OLD, i, 0.0)):
            for i in (-1, 4, 2 ** 32):
                with self.assertRaises(IndexError):
                    call(i)

    def test_decoder(self):
        text = "größer ☃ 漢字 the red fox"
        with pg.Decoder(self.tokenizer) as decoder:
            for _ in range(2):
                ids = self.tokenizer.encode(text)
                pieces = [decoder.push(i) for i in ids]
                self.assertEqual("".join(pieces) + decoder.finish(), text)
            self.assertIn("", pieces)  # a character of several tokens
            for i in self.tokenizer.encode("☃")[:-1]:
                decoder.push(i)
            self.assertEqual(decoder.finish(), "\ufffd")
            with self.assertRaisesRegex(pg.Error, "-1"):
                decoder.push(-1)

    def test_tokens(self):
        end = self.tokenizer.find("<|end|>")
        self.assertEqual(end, self.tokenizer.special(pg.TOKEN_EOS))
        self.assertIsNone(self.tokenizer.find("no such token"))
        self.assertIsNone(self.tokenizer.special(pg.TOKEN_PAD + 100))
        self.assertIn(end, self.tokenizer)
        for token in (-1, len(self.tokenizer), 2 ** 32):
            self.assertNotIn(token, self.tokenizer)
        self.assertEqual(self.tokenizer.decode([end], pg.DECODE_SKIP_SPECIAL), "")

    def test_pick_is_the_draw_of_generate(self):
        with pg.Sampler(self.context, seed=3, temperature=0.7, top_k=5) as sampler:
            rollout = pg.Rollout(self.model, self.tokenizer, group_size=2, max_new_tokens=4)
            rollout.add_prompt([1, 2, 3])
            rollout.generate(sampler)
            for i in range(2):
                for t, token in enumerate(rollout.tokens(i).tolist()):
                    logits = self.model.logits([1, 2, 3] + rollout.tokens(i).tolist()[:t], last=True)
                    pick = sampler.pick(logits, rollout.sequence(i).sequence, 3 + t)
                    self.assertEqual(pick, (token, rollout.array(pg.LOGPROBS, i)[t],
                                            rollout.array(pg.LOGPROBS_SAMPLED, i)[t], rollout.array(pg.ENTROPY, i)[t]))
            self.assertEqual(sampler.next_sequence, 2)
            sampler.next_sequence = 7
            self.assertEqual(sampler.next_sequence, 7)
            with self.assertRaisesRegex(pg.Error, "logit|finite"):
                sampler.pick([0.0, math.nan])

    def test_describe(self):
        self.assertEqual(pg.describe("sampler")["temperature"], 1.0)
        self.assertEqual(pg.describe("sampler", temperature=0.5, stop_tokens=[1])["temperature"], 0.5)
        self.assertEqual(pg.describe("advantage", estimator="rloo")["estimator"], "rloo")
        self.assertEqual(pg.describe("train")["max_seconds"], math.inf)
        self.assertEqual(pg.describe("rollout", profile="trl-1.10")["max_new_tokens"], 512)
        self.assertEqual(pg.describe("rollout", profile="trl-1.10", max_new_tokens=7)["max_new_tokens"], 7)
        with self.assertRaisesRegex(pg.Error, "trl-0"):
            pg.Rollout(self.model, profile="trl-0")
        with self.assertRaisesRegex(ValueError, "'smapler'"):
            pg.describe("smapler")
        with self.assertRaisesRegex(pg.Error, "no field"):
            pg.describe("sampler", temprature=1)

    def test_none_is_the_default(self):
        with pg.Sampler(self.context, top_k=None, stop_tokens=None, logit_bias=None, seed=None) as sampler:
            self.generated().generate(sampler)

    def test_report(self):
        report = pg.Report()
        self.assertEqual(report.numbers(), {"step": 0})
        rollout = self.generated()
        pg.Reward(self.context, lambda text: 2.0, "two").apply(rollout)
        report.add(rollout)
        self.assertEqual(report.numbers()["rewards/two/mean"], 2.0)
        self.assertEqual(json.loads(report.json())["reward"], report.numbers()["reward"])

    def test_logs(self):
        lines = []
        self.context.on_log(lambda level, line: lines.append(line), pg.LOG_DEBUG)
        pg.train(self.model, self.tokenizer, lambda text: 1.0, PROMPTS, steps=1, prompts_per_step=1, max_new_tokens=4)
        self.assertTrue(lines)
        self.context.on_log(None)
        n = len(lines)
        pg.train(self.model, self.tokenizer, lambda text: 1.0, PROMPTS, steps=1, prompts_per_step=1, max_new_tokens=4)
        self.assertEqual(len(lines), n)

    def test_log_reaches_logging(self):
        with self.assertLogs("policygrad", "WARNING") as seen:
            pg.train(self.model, self.tokenizer, lambda text: None, PROMPTS, steps=1, prompts_per_step=1,
                     max_new_tokens=4)
        self.assertIn("applies to none of the step's", seen.output[0])

    def test_columns_by_the_parameters_name(self):
        def reward(text, prompt, colour, weight=2.0):
            seen.add((prompt, colour))
            return weight

        seen = set()
        pg.train(self.model, self.tokenizer, reward, PROMPTS, columns={"colour": ["red", None, "gold"]}, steps=1,
                 prompts_per_step=3, max_new_tokens=4)
        self.assertEqual(seen, {(PROMPTS[0], "red"), (PROMPTS[1], None), (PROMPTS[2], "gold")})
        with self.assertRaisesRegex(ValueError, "'answer' is none of the columns: colour, prompt"):
            pg.train(self.model, self.tokenizer, lambda text, answer: 1.0, PROMPTS, columns={"colour": PROMPTS})
        both = pg.Reward.combine(self.context, [pg.Reward(self.context, reward, "a"),
                                                pg.Reward(self.context, lambda texts, x: texts, "b", over="texts")])
        self.assertEqual(both.columns, ("prompt", "colour", "x"))
        with self.assertRaisesRegex(ValueError, "'x' is none of the columns: colour, prompt"):
            pg.train(self.model, self.tokenizer, both, PROMPTS, columns={"colour": PROMPTS})
        with self.assertRaisesRegex(ValueError, "'colour' is none of the columns: prompt"):
            pg.train(self.model, self.tokenizer, reward, PROMPTS, columns={"colour": PROMPTS}, eval_prompts=PROMPTS)
        with self.assertRaisesRegex(ValueError, "'prompt' is none of the columns: there are none"):
            pg.train(self.model, self.tokenizer, lambda text, prompt: 1.0, [[1, 2]])
        with self.assertRaisesRegex(ValueError, "column colour: expected 3 texts, found one text"):
            pg.train(self.model, self.tokenizer, len, PROMPTS, columns={"colour": "red"})

    def test_events(self):
        seen = []
        rollout = self.generated(event=lambda *told: seen.append(told))
        for i in range(4):
            told = [(token, text) for kind, sequence, token, text in seen if (kind, sequence) == (pg.EVENT_TOKEN, i)]
            self.assertEqual([token for token, _ in told], rollout.tokens(i).tolist())
            ends = [(token, text) for kind, sequence, token, text in seen if (kind, sequence) == (pg.EVENT_FINISHED, i)]
            self.assertEqual(ends, [(None, rollout.text(i))])
        with self.assertRaises(pg.Error) as caught:
            self.generated(event=lambda *told: False)
        self.assertEqual(caught.exception.name, "E_CALLBACK")

    def test_chat(self):
        ids = self.tokenizer.chat([("system", "Be brief."), ("user", "Paint it red.")], pg.CHAT_PLAIN)
        self.assertEqual(self.tokenizer.decode(ids).replace("\n", "").replace(" ", ""), "Bebrief.Paintitred.")
        with self.assertRaisesRegex(pg.Error, "robot"):
            self.tokenizer.chat([("robot", "x")])

    def test_train(self):
        with tempfile.TemporaryDirectory() as folder:
            seen, metrics = [], pathlib.Path(folder) / "metrics.jsonl"
            advantage = pg.Advantage(self.context, estimator="dr_grpo")
            out = pg.train(self.model, self.tokenizer,
                           pg.Reward(self.context, lambda text, colour: float(colour in text), columns=["colour"]),
                           PROMPTS, columns={"colour": ["red", "blue", "gold"]}, steps=3, prompts_per_step=2,
                           group_size=4, max_new_tokens=12, learning_rate=1e-4, advantage=advantage,
                           metrics_path=metrics, save_path=str(pathlib.Path(folder) / "saved"),
                           eval_prompts=PROMPTS[:1], eval_columns={"colour": ["red"]},
                           report=lambda numbers, rollout: seen.append((numbers, len(rollout))))
            self.assertEqual((out.steps, out.stopped, len(seen)), (3, pg.STOPPED_STEPS, 3))
            self.assertEqual(seen[0][0]["reward"], out.first_reward)
            self.assertEqual(seen[0][1], 8)
            self.assertIn(out.eval_before, (0.0, 1.0))
            self.assertEqual(len(metrics.read_text().splitlines()), 3)
            pg.Model.load(self.context, pathlib.Path(folder) / "saved").close()
        out = pg.train(self.model, self.tokenizer, lambda text: float(len(text)),
                       [self.tokenizer.encode(p) for p in PROMPTS], steps=9, prompts_per_step=1, max_new_tokens=4,
                       report=lambda numbers: False)
        self.assertEqual((out.steps, out.stopped), (1, pg.STOPPED_HOST))
        with self.assertRaisesRegex(ValueError, "column colour"):
            pg.train(self.model, self.tokenizer, len, PROMPTS, columns={"colour": ["red"]})
        with self.assertRaisesRegex(pg.Error, "train.group_size"):
            pg.train(self.model, self.tokenizer, len, PROMPTS, group_size=0)

    def test_checkpoint_and_resume(self):
        def run(path, **params):
            lengths = []
            with pg.Model.load(self.context, MODEL) as model:
                out = pg.train(model, self.tokenizer, lambda text: float(len(text) % 5), PROMPTS, prompts_per_step=2,
                               group_size=4, max_new_tokens=8, learning_rate=1e-3, checkpoint_path=path,
                               on_checkpoint=lambda c: c.add_text("lengths", str(lengths)),
                               report=lambda numbers: lengths.append(numbers["step"]), **params)
                return out, model.tensor("model.norm.weight").tobytes()

        with tempfile.TemporaryDirectory() as folder:
            path, other = pathlib.Path(folder) / "run.pgrad", pathlib.Path(folder) / "other.pgrad"
            whole, expected = run(other, steps=4)
            run(path, steps=2, checkpoint_every=1, checkpoint_keep=2)
            self.assertTrue(path.with_name("run.pgrad.1").exists())
            resumed, weights = run(path, steps=4, resume="on")
            self.assertEqual((whole.steps_before, resumed.steps_before, resumed.steps), (0, 2, 4))
            self.assertEqual(weights, expected)
            with pg.Checkpoint.open(self.context, path) as opened:
                self.assertEqual(opened.text("lengths"), b"[3, 4]")
                self.assertEqual([part.name for part in opened.parts()][:2], ["policy", "optimizer"])
                self.assertEqual(len(opened), 7)
                with self.assertRaisesRegex(pg.Error, "no part 'x'"):
                    opened.text("x")
                with pg.Model.load(self.context, MODEL) as model:
                    opened.restore("policy", model)
                    self.assertEqual(model.tensor("model.norm.weight").tobytes(), expected)
                with self.assertRaises(TypeError):
                    opened.restore("policy", self.context)
            with pg.Checkpoint(self.context) as made, pg.Sampler(self.context, seed=3) as sampler:
                made.add("draws", sampler)
                made.add_text("note", b"\0\1")
                made.write(path, background=True, keep=3)
                made.wait()
            with self.assertRaises(Boom):
                run(other, steps=5, resume="auto", eval_prompts=PROMPTS[:1], on_advantages=self.boom)

    @staticmethod
    def boom(rollout):
        raise Boom("no advantages today")

    def test_closed_handles_say_so(self):
        rollout = self.generated()
        rollout.close()
        with self.assertRaisesRegex(ValueError, "Rollout is closed"):
            rollout.texts()
        kept = []
        with pg.Reward(self.context, lambda view, first, count: kept.append(view) or [0.0] * count,
                       over="rollout") as reward:
            reward.apply(self.generated())
        with self.assertRaisesRegex(ValueError, "during the call"):
            kept[0].texts()


if __name__ == "__main__":
    main()
