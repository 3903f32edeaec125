#!/usr/bin/env python3
"""The command-line program: whole runs, resumed ones, and what is said of wrong values.
usage: test_grpo.py LIBRARY ROOT"""
import contextlib
import io
import json
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import time
import unittest.mock

from support import LIBRARY, MODEL, PYTHON, Case, main, pg, run
import grpo

PROGRAM = PYTHON / "grpo.py"


class Test(Case):
    def setUp(self):
        super().setUp()
        self.folder = tempfile.TemporaryDirectory()
        self.addCleanup(self.folder.cleanup)
        self.path = pathlib.Path(self.folder.name)

    def file(self, name, text):
        (self.path / name).write_text(text)
        return self.path / name

    def grpo(self, *arguments, status=0):
        found, text = run(PROGRAM, "--model", MODEL, "--max-new-tokens", 8, *arguments)
        self.assertEqual(found, status, text)
        return text

    def inside(self, *arguments):
        """The same without a process: status and what it printed."""
        command, out, status = [str(a) for a in ("grpo.py", "--model", MODEL, *arguments)], io.StringIO(), 0
        old = signal.getsignal(signal.SIGINT)
        with unittest.mock.patch.object(sys, "argv", command), contextlib.redirect_stdout(out), \
                contextlib.redirect_stderr(out):
            try:
                grpo.main()
            except SystemExit as end:
                status = end.code
            finally:
                signal.signal(signal.SIGINT, old)
        return status, out.getvalue()

    def test_it_is_short(self):
        self.assertLess(len(PROGRAM.read_text().splitlines()), 150)

    def test_a_run(self):
        text = self.grpo("--reward", "text.count('red')", "--steps", 2, "--kl-beta", 0.1, "--output",
                         self.path / "tuned")
        self.assertIn("step 2/2", text)
        pg.Model.load(self.context, self.path / "tuned").close()

    def test_rewards_of_every_kind(self):
        prompts = self.file("prompts.jsonl", '{"prompt": "paint it red:", "answer": 5, "colour": "red"}\n\n'
                                             '{"prompt": "paint it blue:", "answer": 6}\n')
        rewards = self.file("rewards.py", "def three(text, colour, answer, by=3):\n"
                                          "    assert colour in ('red', None) and answer in ('5', '6')\n"
                                          "    return by\n")
        metrics = self.path / "metrics.jsonl"
        self.grpo("--prompts", prompts, "--steps", 1, "--metrics", metrics,
                  "--reward", "numeric", "--reward", 'length:{"target": 5}', "--reward", "float('r' in text)",
                  "--reward", f"{rewards}:three",
                  "--reward-weight", 1, "--reward-weight", 2, "--reward-weight", 0, "--reward-weight", 0.5)
        numbers = json.loads(metrics.read_text())
        self.assertEqual(numbers["rewards/numeric/mean"], 0.0)
        self.assertAlmostEqual(numbers["reward"], 2.0 * numbers["rewards/length/mean"] + 1.5, places=5)

    def test_resuming(self):
        """The run that was stopped has the weights of the one that was not."""
        prompts = self.file("prompts.txt", "paint it red:\npaint it blue:\r\n\npaint it gold:\n")
        command = ["--prompts", prompts, "--prompts-per-step", 2, "--learning-rate", 1e-3, "--reward", "len(text) % 5"]
        self.grpo(*command, "--steps", 4, "--output", self.path / "whole")
        for steps in (2, 4):
            text = self.grpo(*command, "--steps", steps, "--checkpoint", self.path / "run", "--resume", "auto",
                             "--output", self.path / "resumed")
        self.assertNotIn("step 2/4", text)
        self.assertIn("step 3/4", text)
        weights = [(self.path / name / "model.safetensors").read_bytes() for name in ("whole", "resumed")]
        self.assertEqual(*weights)

    def test_interrupts(self):
        """The first ends the run in order: what was learnt is saved, and taken up again. The second ends it at once."""
        def start(*arguments):
            program = subprocess.Popen([sys.executable, str(PROGRAM), "--model", str(MODEL), "--steps", "100000",
                                        "--max-new-tokens", "8", *map(str, arguments)], stdout=subprocess.PIPE,
                                       stderr=subprocess.STDOUT, universal_newlines=True,
                                       env=dict(os.environ, POLICYGRAD_LIBRARY=os.path.abspath(LIBRARY)))
            self.assertTrue(program.stdout.readline().startswith("step 1/"))
            return program

        def end(program):
            text = program.communicate(timeout=60)[0]
            self.assertEqual(program.returncode, 130, text)
            self.assertNotIn("Traceback", text)
            return text

        saved = ("--output", self.path / "tuned", "--checkpoint", self.path / "run")
        program = start(*saved)
        program.send_signal(signal.SIGINT)
        self.assertIn("reward", end(program).splitlines()[-1])
        pg.Model.load(self.context, self.path / "tuned").close()
        with pg.Checkpoint.open(self.context, self.path / "run") as opened:
            self.assertGreater(len(opened), 4)

        slow = self.file("slow.py", "import time\ndef slow(text):\n    print('step 1/', flush=True)\n"
                                    "    time.sleep(60)\n")
        program = start("--reward", f"{slow}:slow")
        while program.poll() is None:  # two that come at once are one
            program.send_signal(signal.SIGINT)
            time.sleep(0.5)
        end(program)

    def test_wrong_values(self):
        """Each is told in one line, with status 2."""
        rows = self.file("rows.jsonl", '{"prompt": "a"}\n{"text": "b"}\n')
        rewards = self.file("rewards.py", "def bad(text):\n    return 1 / 0\ndef other(text, answer):\n    return 1\n"
                                          "number = 5\nclass Error(Exception):\n    pass\n"
                                          "def own(text):\n    raise Error('of its own\\nkind')\n")
        for arguments, said in (
            (["--model", self.path / "none"], "--model .*none: cannot open"),
            (["--model", rewards], "--model .*rewards.py: "),
            (["--tokenizer", self.path / "none"], "none: cannot open"),
            (["--prompts", self.path / "none.txt"], "--prompts .*none.txt: .*No such file"),
            (["--prompts", self.path], "--prompts .*: .*directory"),
            (["--prompts", self.file("empty.txt", "\n\n")], "--prompts .*empty.txt: no prompts"),
            (["--prompts", rows], '--prompts .*rows.jsonl: expected an object with a text "prompt", found .*"b"'),
            (["--prompts", self.file("bad.jsonl", "{\n")], "--prompts .*bad.jsonl: Expecting property name"),
            (["--reward", "redd"], "--reward redd: expected FILE.py:FUNCTION, an expression, or one of exact, numeric"),
            (["--reward", "regexp:{}"], "--reward regexp:{}: expected FILE.py:FUNCTION, an expression, or one of"),
            (["--reward", 'length:{"targets": 5}'], '--reward length:.*found "targets"'),
            (["--reward", "length:{"], "--reward length:{: Expecting"),
            (["--reward", "length:[1]"], r"--reward length:\[1\]: "),
            (["--reward", "text +"], r"--reward text \+: .*line 1"),
            (["--reward", "text.red()"], "AttributeError: 'str' object has no attribute 'red' .--reward text.red"),
            (["--reward", "'good'"], "expected a number, or one per token, found 'good'"),
            (["--reward", f"{self.path / 'none.py'}:f"], "--reward .*none.py:f: .*No such file"),
            (["--reward", f"{rewards}:none"], "--reward .*rewards.py:none: the file has no function 'none'"),
            (["--reward", f"{rewards}:number"], "--reward .*the file has no function 'number'"),
            (["--reward", f"{rewards}:bad"], r"ZeroDivisionError: division by zero \(.*rewards.py, line 2\)"),
            (["--reward", f"{rewards}:own"], r"Error: of its own kind \(.*rewards.py, line 9\)"),
            (["--reward", f"{rewards}:other"], "reward: 'answer' is none of the columns: prompt"),
            (["--reward", f"{self.file('broken.py', 'import nothing_like_it')}:f"],
             "ModuleNotFoundError.*broken.py, line 1"),
            (["--reward-weight", 1, "--reward-weight", 2], "rewards and weights differ in length"),
            (["--reward-weight", "nan"], "reward_combine"),
            (["--estimator", "best"], "advantage.estimator: expected one of none, ema"),
            (["--steps", 0], "train.steps: expected"),
            (["--temperature", -1], "sampler.temperature: expected"),
            (["--resume", "on"], "train.resume: there is no checkpoint_path"),
        ):
            with self.subTest(arguments):
                status, text = self.inside("--steps", 1, "--max-new-tokens", 4, *arguments)
                self.assertEqual(status, 2)
                self.assertRegex(text, f"^grpo.py: .*{said}")
                self.assertEqual(text.count("\n"), 1, text)
        text = self.grpo("--reward", "redd", status=2)
        self.assertEqual(text.count("\n"), 1, text)
        self.assertIn("argument --steps: invalid int value: 'many'", self.grpo("--steps", "many", status=2))

    def test_failures_of_the_run(self):
        status, text = self.inside("--resume", "on", "--checkpoint", self.path / "none")
        self.assertEqual(status, 1)
        self.assertRegex(text, "^grpo.py: train.resume: there is no checkpoint at .*none\n$")


if __name__ == "__main__":
    main()
