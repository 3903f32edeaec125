#!/usr/bin/env python3
"""Reports what the tests ran of lib/, from gcov's data: lines, and the statements that report an error.

usage: coverage.py BUILD ROOT [--missing]; status 1 below a limit. --missing prints the error statements that no test
reached. Sources that are built once per instruction set count once: a line is covered if any build of it was run.
"""
import collections
import json
import os
import pathlib
import re
import subprocess
import sys

LIMITS = {"lines": 90.0, "errors": 80.0}  # percent

# An error statement is a call of one of these: what stores a message, and the functions that do nothing else than to
# word one.
WORDED = """
    pgrad__fail pgrad__fail_in pgrad__fail_system pgrad__json_wrong pgrad__draw_fail
    bad bad_field busy callback_failed damaged differs fail_in_file malformed no_memory no_profile no_value none_found
    not_built refuse refused time_over too_large truncated two_ids unknown_argument wrong wrong_member wrong_type
""".split()
CALL = re.compile(r"\b(?:" + "|".join(WORDED) + r")\s*\(")
NO_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

Line = collections.namedtuple("Line", "run whole")  # anything of it was run; all of it


def read_lines(build, root):
    """Path below root -> line number -> Line, of the library's objects."""
    objects = sorted((build / "lib").rglob("*.gcno"))
    if not objects:
        sys.exit(f"{build}: no .gcno files: not built with -Db_coverage=true?")
    gcov = [os.environ.get("GCOV", "gcov"), "--json-format", "--stdout", *map(str, objects)]
    output = subprocess.run(gcov, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, check=True, text=True).stdout
    files = collections.defaultdict(dict)
    for document in filter(None, output.splitlines()):
        data = json.loads(document)
        for file in data["files"]:
            path = pathlib.Path(os.path.normpath(os.path.join(data["current_working_directory"], file["file"])))
            if root / "lib" not in path.parents:
                continue
            lines = files[path.relative_to(root)]
            for entry in file["lines"]:
                run = entry["count"] > 0
                old = lines.get(entry["line_number"], Line(False, False))
                lines[entry["line_number"]] = Line(old.run or run,
                                                   old.whole or run and not entry["unexecuted_block"])
    return files


def blank(match):
    return re.sub(r"[^\n]", " ", match.group())


def end_of_call(text, at):
    """Where the parenthesis that opens before `at` is closed."""
    depth = 1
    while depth > 0:
        depth += {"(": 1, ")": -1}.get(text[at], 0)
        at += 1
    return at


def error_statements(path):
    """First and last line of each, and whether it shares its first line with a condition."""
    text = NO_CODE.sub(blank, path.read_text())
    for call in CALL.finditer(text):
        start = text.rfind("\n", 0, call.start()) + 1
        before = text[start:call.start()]
        if not before[:1].isspace():  # a definition
            continue
        first = text.count("\n", 0, call.start()) + 1
        last = text.count("\n", 0, end_of_call(text, call.end())) + 1
        yield first, last, "?" in before or re.search(r"\bif\b", before) is not None


def reached(lines, first, last, conditional):
    """None where the compiler made no code of it: another machine's."""
    known = [lines[number] for number in range(first, last + 1) if number in lines]
    if not known:
        return None
    return known[0].whole if conditional else known[0].run


def percent(part, whole):
    return 100.0 * part / whole if whole else 100.0


def main():
    build, root = pathlib.Path(sys.argv[1]).resolve(), pathlib.Path(sys.argv[2]).resolve()
    files = read_lines(build, root)
    counts = collections.defaultdict(lambda: [0, 0, 0, 0])  # by folder: lines, run; error statements, run
    missing = []
    for path in sorted(files):
        lines = files[path]
        errors = []
        for first, last, conditional in error_statements(root / path):
            was = reached(lines, first, last, conditional)
            if was is not None:
                errors.append(was)
            if was is False:
                missing.append(f"{path}:{first}: {(root / path).read_text().splitlines()[first - 1].strip()}")
        found = [len(lines), sum(line.run for line in lines.values()), len(errors), sum(errors)]
        for folder in (str(path.parent), "lib"):
            counts[folder] = [a + b for a, b in zip(counts[folder], found)]
    print(f"{'':12} {'lines':>7} {'run':>9} {'errors':>9} {'run':>9}")
    for folder in sorted(counts, key=lambda name: (name == "lib", name)):
        n, run, n_errors, reported = counts[folder]
        print(f"{folder:12} {n:7} {percent(run, n):7.1f} % {n_errors:9} {percent(reported, n_errors):7.1f} %")
    if "--missing" in sys.argv[3:]:
        print("\n".join(missing))
    n, run, n_errors, reported = counts["lib"]
    failed = [f"{what}: expected at least {LIMITS[what]:g} %, found {value:.1f} %"
              for what, value in (("lines", percent(run, n)), ("errors", percent(reported, n_errors)))
              if value < LIMITS[what]]
    print("\n".join(failed), end="\n" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
