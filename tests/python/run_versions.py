#!/usr/bin/env python3
"""Runs the tests of the Python module with every Python of version 3.9 or later that is here, two at a time, and says
with which.

usage: run_versions.py LIBRARY ROOT [PYTHON...]

Without names, here or in the variable PYTHONS, the interpreters are python3.X on the path, those that pyenv keeps, and
the one that runs this. One that does not start, or has no ctypes, is left out."""
import concurrent.futures
import glob
import os
import pathlib
import shutil
import subprocess
import sys

OLDEST, NEWEST = 9, 20
HERE = pathlib.Path(__file__).resolve().parent
TESTS = sorted(HERE.glob("test_*.py"))
OPTIONAL = ("numpy", "mypy")  # what some tests need
PROBE = ("import ctypes, sys, importlib.util as u; "
         f"print(*sys.version_info[:3], *(name for name in {OPTIONAL} if u.find_spec(name)))")


def candidates():
    yield sys.executable
    for minor in range(OLDEST, NEWEST):
        for folder in os.environ.get("PATH", "").split(os.pathsep):
            yield shutil.which(f"python3.{minor}", path=folder)
    yield from sorted(glob.glob(os.path.join(os.environ.get("PYENV_ROOT", os.path.expanduser("~/.pyenv")), "versions",
                                             "3.*", "bin", "python3")))


def version(interpreter):
    """(minor, patch, those of OPTIONAL that it has...) of an interpreter, None for what is none."""
    try:
        said = subprocess.run([interpreter, "-c", PROBE], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, timeout=60)
        major, minor, patch, *rest = said.stdout.decode().split()
    except (OSError, ValueError, subprocess.TimeoutExpired):
        return None
    return (int(minor), int(patch), *rest) if said.returncode == 0 and int(major) == 3 else None


def run(interpreter, test, arguments):
    done = subprocess.run([interpreter, "-B", "-X", "faulthandler", test, *arguments], stdout=subprocess.PIPE,
                          stderr=subprocess.STDOUT)
    return done.returncode, done.stdout.decode(errors="replace")


def main():
    library, root, *named = sys.argv[1:]
    named = named or os.environ.get("PYTHONS", "").split()
    found = {}
    for interpreter in filter(None, named or candidates()):
        seen = version(interpreter)
        if seen is None and named:
            sys.exit(f"{interpreter} is no Python 3 with ctypes")
        if seen is not None and seen[0] >= OLDEST:
            found.setdefault(seen[0], (interpreter, seen))
    failed = False
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        runs = {minor: [pool.submit(run, interpreter, str(test), [library, root]) for test in TESTS]
                for minor, (interpreter, _) in sorted(found.items())}
        for minor, results in runs.items():
            interpreter, (_, patch, *has) = found[minor]
            good = all(result.result()[0] == 0 for result in results)
            failed = failed or not good
            print(f"Python 3.{minor}.{patch} {'with ' * bool(has)}{' and '.join(has)}{' ' * bool(has)}({interpreter}): "
                  f"{'good' if good else 'FAILED'}", flush=True)
            for test, result in zip(TESTS, results):
                if result.result()[0] != 0:
                    print(f"-- {test.name}, status {result.result()[0]}\n{result.result()[1]}")
    for name in OPTIONAL:
        if not any(name in seen for _, seen in found.values()):
            print(f"skipped: the tests that need {name}, which no Python here has")
    sys.exit(1 if failed or not found else 0)


if __name__ == "__main__":
    main()
