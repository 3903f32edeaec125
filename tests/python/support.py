"""What the tests of the Python module share. Each is called with LIBRARY ROOT."""
import os
import pathlib
import signal
import subprocess
import sys
import tempfile
import unittest

LIBRARY, ROOT = sys.argv[1], pathlib.Path(sys.argv[2]).resolve()
PYTHON = ROOT / "examples" / "python"
sys.path.insert(0, str(PYTHON))
import policygrad as pg  # noqa: E402

MODEL = ROOT / "examples" / "embedded" / "model"
PROMPTS = ["paint it red:", "paint it blue:", "paint it gold:"]
pg.load(LIBRARY)


class Boom(Exception):
    pass


class Case(unittest.TestCase):
    def setUp(self):
        self.context = pg.Context()
        self.model = pg.Model.load(self.context, MODEL)
        self.tokenizer = pg.Tokenizer.load(self.context, MODEL)

    def generated(self, event=None, **params):
        rollout = pg.Rollout(self.model, self.tokenizer, **dict({"group_size": 4, "max_new_tokens": 6}, **params))
        rollout.add_prompt(self.tokenizer.encode("paint it red:"), asked="red")
        with pg.Sampler(self.context, seed=3) as sampler:
            rollout.generate(sampler, event)
        return rollout


def run(*command, **environment):
    """Status and output of a program of this interpreter's."""
    done = subprocess.run([sys.executable, *map(str, command)], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          timeout=100, env=dict(os.environ, POLICYGRAD_LIBRARY=os.path.abspath(LIBRARY),
                                                PYTHONPATH=str(PYTHON), **environment))
    return done.returncode, done.stdout.decode()


def run_text(program):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "program.py"
        path.write_text(f"MODEL, PROMPTS = {str(MODEL)!r}, {PROMPTS!r}\nimport policygrad as pg\n{program}")
        return run(path)


def main():
    # A shell that runs a job in the background has it ignore Ctrl-C, which children inherit.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    unittest.main(argv=sys.argv[:1])
