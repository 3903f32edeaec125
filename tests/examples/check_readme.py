#!/usr/bin/env python3
"""Compiles and runs the code blocks of README.md as they stand, in a folder with nothing but examples/ in it.

usage: check_readme.py ROOT LIBRARY CC..."""
import os
import pathlib
import re
import subprocess
import sys
import tempfile

root, library, compiler = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve(), sys.argv[3:]
blocks = re.findall(r"^```(\w+)\n(.*?)^```$", (root / "README.md").read_text(), re.M | re.S)
environment = dict(os.environ, POLICYGRAD_LIBRARY=str(library), LD_LIBRARY_PATH=str(library.parent))


def run(*command):
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    assert done.returncode == 0, f"{command}: status {done.returncode}\n{done.stdout}"
    return done.stdout


def run_c(code):
    pathlib.Path("program.c").write_text(code)
    run(*compiler, "-std=c99", "-Wall", "-Wextra", "-Werror", f"-I{root}/include", "program.c",
        f"-L{library.parent}", "-lpolicygrad", "-o", "program")
    before, after = map(float, re.match(r"reward (\S+) -> (\S+), saved in tuned$", run("./program")).groups())
    assert after > before + 0.2, (before, after)
    assert pathlib.Path("tuned/model.safetensors").stat().st_size > 1e5


def run_python(code):
    rewards = [float(line.split()[1]) for line in run(sys.executable, "-c", code).splitlines()
               if re.match(r"\d+ [\d.]+ ", line)]
    assert len(rewards) == 40 and sum(rewards[-5:]) > sum(rewards[:5]) + 1, rewards


with tempfile.TemporaryDirectory() as folder:
    os.chdir(folder)
    pathlib.Path("examples").symlink_to(root / "examples")
    assert [kind for kind, _ in blocks] == ["c", "python"], "a block that this test does not know"
    for kind, code in blocks:
        {"c": run_c, "python": run_python}[kind](code)
    os.chdir("/")
print("README's code runs")
