#!/usr/bin/env python3
"""The layout of every public struct, and the value of every public constant, against what is stored in layout.txt: a
host program has both compiled in. The compiler is asked, the headers only say the names.

What may change while the soversion stays: structs that end in new fields, a `reserved` that is used up, new structs, new
constants. What may not: a field that moves, changes its width or disappears, a struct that shrinks, a constant that changes.

usage: layout.py [--write] ROOT CC..."""
import pathlib
import re
import subprocess
import sys
import tempfile

STORED = pathlib.Path(__file__).resolve().parent / "layout.txt"
FIELD = re.compile(r"(\w+)\s*(?:\[[^]]*\])?\s*$")


def without_comments(text):
    return re.sub(r"/\*.*?\*/|^\s*#.*?$", " ", text, flags=re.S | re.M)


def fields_of(body):
    for part in body.split(";"):
        part = part.strip()
        if not part:
            continue
        function = re.search(r"\(\*\s*(\w+)\)", part)  # a pointer to a function
        if function:
            yield function.group(1)
            continue
        for name in part.split(","):
            yield FIELD.search(name).group(1)


def names_of(root):
    structs, constants = {}, []
    for header in sorted((root / "include").rglob("*.h")):
        text = without_comments(header.read_text())
        for name, body in re.findall(r"typedef struct (pgrad_\w+)\s*\{(.*?)\}\s*\1\s*;", text, re.S):
            structs[name] = list(fields_of(body))
        for body in re.findall(r"\benum\b[^{;]*\{(.*?)\}", text, re.S):
            constants += re.findall(r"\b(PGRAD_\w+)\b\s*=?[^,]*,?", body)
    return structs, sorted(set(constants))


def ask(root, compiler):
    structs, constants = names_of(root)
    lines = ["#include <policygrad.h>", "#include <stddef.h>", "#include <stdio.h>", "int main(void) {"]
    for struct, fields in sorted(structs.items()):
        lines.append(f'printf("{struct} %zu\\n", sizeof({struct}));')
        lines += [f'printf("{struct}.{field} %zu +%zu\\n", offsetof({struct}, {field}), '
                  f'sizeof((({struct} *)0)->{field}));' for field in fields]
    lines += [f'printf("{name} %lld\\n", (long long){name});' for name in constants]
    lines += ["return 0; }"]
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder, "layout.c"), pathlib.Path(folder, "layout")
        source.write_text("\n".join(lines))
        subprocess.run([*compiler, "-std=c11", f"-I{root}/include", source, "-o", program], check=True)
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout


def entries(text):
    return dict(line.split(" ", 1) for line in text.splitlines() if line)


def main():
    write = sys.argv[1] == "--write"
    root, *compiler = sys.argv[2 if write else 1:]
    now = ask(pathlib.Path(root), compiler)
    if write:
        STORED.write_text(now)
        return 0
    before, after = entries(STORED.read_text()), entries(now)
    bad, new = [], [name for name in after if name not in before]
    for name, value in before.items():
        found = after.get(name, "gone")
        grew = name.startswith("pgrad_") and "." not in name and found != "gone" and int(found) > int(value)
        used_up = found == "gone" and name.endswith(".reserved")  # its place has a new name
        if found != value and not grew and not used_up:
            bad.append(f"{name}: {value} before, {found} now")
        elif found != value:
            new.append(f"{name}: {value} -> {found} bytes")
    if bad:
        print("programs that were built before would break:", *bad, sep="\n  ")
        return 1
    if new:
        print("additions that are not stored yet (layout.py --write ROOT CC):", *new, sep="\n  ")
        return 1
    print(f"{len(before)} structs, fields and constants are where they were")
    return 0


if __name__ == "__main__":
    sys.exit(main())
