#!/usr/bin/env python3
"""Reports what the tests ran of lib/, from gcov's data: lines, the statements that word an error, and the failing sides of
PGRAD__TRY and PGRAD__GO, which pass one up.

usage: coverage.py BUILD ROOT [--missing]; status 1 below a limit. --missing prints the error statements and failing sides
that no test reached, --words the functions that word errors. Sources that are built once per instruction set count once: a
line is covered if any build of it was run.

A failing side counts as reached where every branch that gcov has on the statement's lines was taken. That is exact where
the macro's own condition is the only one, and too strict where the call has others in its arguments.
"""
import collections
import json
import os
import pathlib
import re
import subprocess
import sys

LIMITS = {"lines": 90.0, "errors": 80.0, "passed": 60.0}  # percent

# An error statement is a call of a function that words an error: one of these, or one that calls such a function and all
# of whose returns are such calls, or an error's code.
STORING = {"pgrad__fail", "pgrad__fail_in"}
DEFINITION = re.compile(r"^(static )?(?:inline )?pgrad_status (\w+)\([^;{}]*\)\n\{\n(.*?)^\}", re.M | re.S)
RETURN = re.compile(r"\breturn\b([^;]*);")
PASSING = re.compile(r"\bPGRAD__(?:TRY|GO)\s*\(")
NO_CODE = re.compile(r'/\*.*?\*/|//[^\n]*|"(?:\\.|[^"\\\n])*"|\'(?:\\.|[^\'\\\n])*\'', re.S)

# Anything of a line was run; all of it; for each branch on it, whether it was taken.
Line = collections.namedtuple("Line", "run whole branches")


def read_lines(build, root):
    """Path below root -> line number -> Line, of the library's objects."""
    objects = sorted((build / "lib").rglob("*.gcno"))
    if not objects:
        sys.exit(f"{build}: no .gcno files: not built with -Db_coverage=true?")
    gcov = [os.environ.get("GCOV", "gcov"), "--json-format", "--branch-probabilities", "--stdout", *map(str, objects)]
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
                branches = [branch["count"] > 0 for branch in entry["branches"]]
                old = lines.get(entry["line_number"], Line(False, False, []))
                if len(old.branches) == len(branches):  # another build of the same
                    branches = [a or b for a, b in zip(old.branches, branches)]
                lines[entry["line_number"]] = Line(old.run or run, old.whole or run and not entry["unexecuted_block"],
                                                   max(branches, old.branches, key=sum))
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


def only_words(value, names):
    """Whether what is returned is a call of one of the names, an error's code, or a choice of such."""
    chosen = re.sub(r"\([^()]*\)", "", value)
    while chosen != re.sub(r"\([^()]*\)", "", chosen):
        chosen = re.sub(r"\([^()]*\)", "", chosen)
    ends = re.split(r"[?:]", chosen)[1 if "?" in chosen else 0:]
    return all(end.strip() in names or end.strip().startswith("PGRAD_E_") for end in ends)


def wording_functions(texts):
    """Path -> names of the functions that word an error, as they are seen there. texts: path -> code."""
    shared, own = set(STORING), collections.defaultdict(set)
    found = True
    while found:
        found = False
        for path, text in texts.items():
            for static, name, body in DEFINITION.findall(text):
                known = own[path] if static else shared
                values = RETURN.findall(body)
                names = shared | own[path]
                if (name not in known and values and all(only_words(value, names) for value in values) and
                        any(re.search(rf"\b{other}\(", body) for other in names)):
                    known.add(name)
                    found = True
    return {path: shared | own[path] for path in texts}


def passing_statements(text, names):
    """First and last line of each; not those whose call words an error and always fails, which are errors already."""
    for call in PASSING.finditer(text):
        inside = re.match(r"\s*(\w+)", text[call.end():])
        if text[text.rfind("\n", 0, call.start()) + 1] != "#" and not (inside and inside.group(1) in names):
            yield text.count("\n", 0, call.start()) + 1, text.count("\n", 0, end_of_call(text, call.end())) + 1


def failing_side(lines, first, last):
    """Whether it was reached; None where the compiler left no branch: the call cannot fail."""
    known = [lines[number] for number in range(first, last + 1) if number in lines]
    taken = [branch for line in known for branch in line.branches]
    return all(taken) if taken else None


def error_statements(text, names):
    """First and last line of each, and whether it shares its first line with a condition."""
    for call in re.finditer(r"\b(?:" + "|".join(sorted(names)) + r")\s*\(", text):
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
    texts = {path: NO_CODE.sub(blank, (root / path).read_text()) for path in files}
    names = wording_functions(texts)
    counts = collections.defaultdict(lambda: [0] * 6)  # by folder: lines, run; errors, run; passed up, run
    missing = []
    for path in sorted(files):
        lines, written = files[path], (root / path).read_text().splitlines()
        errors = {first: reached(lines, first, last, conditional)
                  for first, last, conditional in error_statements(texts[path], names[path])}
        passed = {first: failing_side(lines, first, last) for first, last in passing_statements(texts[path], names[path])}
        found = [len(lines), sum(line.run for line in lines.values())]
        for kind, statements in (("", errors), ("passed up: ", passed)):
            known = [was for was in statements.values() if was is not None]
            found += [len(known), sum(known)]
            missing += [f"{path}:{first}: {kind}{written[first - 1].strip()}"
                        for first, was in statements.items() if was is False]
        for folder in (str(path.parent), "lib"):
            counts[folder] = [a + b for a, b in zip(counts[folder], found)]
    print(f"{'':12}" + "".join(f" {what:>7} {'run':>9}" for what in LIMITS))
    for folder in sorted(counts, key=lambda name: (name == "lib", name)):
        shares = list(zip(counts[folder][0::2], counts[folder][1::2]))
        print(f"{folder:12}" + "".join(f" {n:7} {percent(run, n):7.1f} %" for n, run in shares))
    if "--missing" in sys.argv[3:]:
        print("\n".join(missing))
    if "--words" in sys.argv[3:]:
        print(" ".join(sorted(set().union(*names.values()))))
    failed = [f"{what}: expected at least {LIMITS[what]:g} %, found {percent(run, n):.1f} %"
              for what, (n, run) in zip(LIMITS, shares) if percent(run, n) < LIMITS[what]]
    print("\n".join(failed), end="\n" if failed else "")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
