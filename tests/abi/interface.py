#!/usr/bin/env python3
"""Holds the public headers against the interface that tests/abi/interface.txt stores: every function's prototype, the
size of every struct, each field's offset, size and declaration, the value of each constant. Says what changed, and
whether it breaks a program built before.

usage: interface.py [--write | --abidiff LIBRARY] ROOT COMPILER...

A change that is meant is written with --write, and committed beside what made it. --abidiff lets abidiff compare a
library, by its debug information, with one that is made of what is stored; status 77 where abidiff is absent."""
import argparse
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

# What a public struct may be made of: the same on every compiler, no hidden width (docs/embedding.md).
FIELD = re.compile(r"(size_t|u?int(32|64)_t|float|double|char|pgrad_\w+) \w+(\[\d+\])?$|[^(]*\*(const )?\w+$"
                   r"|[^(]*\(\*\w+\)\(.*\)$")


def one_line(text):
    return re.sub(r"\(\s+", "(", re.sub(r"\s+", " ", text)).strip()


def fields_of(body):
    """(name, declaration) of each."""
    for declaration in filter(None, map(one_line, body.split(";"))):
        name = re.search(r"\(\*(\w+)\)", declaration) or re.search(r"(\w+)(\[\w+\])?$", declaration)
        yield name[1], declaration


def read_headers(root):
    """Prototypes, callbacks and scalars by name; structs with their fields; names of constants."""
    types, structs, constants = {}, {}, []
    for header in sorted((root / "include/policygrad").glob("*.h")):
        text = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
        text = re.sub(r"^#.*(\\\n.*)*$", "", text, flags=re.M)
        for found in re.finditer(r"PGRAD_API\s+([^;]*?\b(pgrad_\w+)\s*\([^;]*\));", text):
            types[found[2]] = one_line(found[1])
        for found in re.finditer(r"typedef\s+([^;{}]*\(\*(pgrad_\w+)\)[^;{}]*);", text):
            types[found[2]] = one_line(found[1])
        for found in re.finditer(r"typedef\s+(\w+)\s+(pgrad_\w+);", text):
            types[found[2]] = found[1]
        for found in re.finditer(r"typedef\s+struct\s+(pgrad_\w+)\s*\{([^}]*)\}", text):
            structs[found[1]] = list(fields_of(found[2]))
        for found in re.finditer(r"enum\s*\{([^}]*)\}", text):
            constants += re.findall(r"\b(PGRAD_\w+)\b\s*=", found[1])
    return types, structs, constants


def measure(root, compiler, structs, constants):
    """Lines "KEY VALUE..." as the compiler lays it out."""
    lines = ["#include <policygrad.h>", "#include <stddef.h>", "#include <stdio.h>", "int main(void) {"]
    for name, fields in structs.items():
        lines.append(f'printf("{name} size %zu\\n", sizeof({name}));')
        for field, _ in fields:
            lines.append(f'printf("{name}.{field} %zu %zu\\n", offsetof({name}, {field}), '
                         f"sizeof((({name} *)0)->{field}));")
    lines += [f'printf("{name} %d\\n", {name});' for name in constants]
    lines.append("return 0; }")
    with tempfile.TemporaryDirectory() as folder:
        source, program = pathlib.Path(folder, "layout.c"), pathlib.Path(folder, "layout")
        source.write_text("\n".join(lines))
        subprocess.run([*compiler, "-std=c99", f"-I{root / 'include'}", source, "-o", program], check=True)
        return subprocess.run([program], check=True, capture_output=True, text=True).stdout.splitlines()


def against_the_rules(structs, lines):
    """Types that are not the same everywhere, and holes that a compiler filled."""
    at = {key: list(map(int, value.split())) for key, _, value in (line.partition(" ") for line in lines) if "." in key}
    for name, fields in structs.items():
        end = 0
        for field, declaration in fields:
            if not FIELD.match(declaration):
                yield f"'{declaration}' in {name}: no type for a public struct"
            offset, size = at[f"{name}.{field}"]
            if offset != end:
                yield f"{name}.{field}: unnamed padding before it"
            end = offset + size


def differences(was, now):
    """(text, whether a program built before breaks)"""
    for key in sorted(was.keys() | now.keys()):
        old, new = was.get(key), now.get(key)
        if old is None:
            yield f"new: {key}: {new}", False
        elif new is None:
            yield f"gone: {key}: {old}", not key.endswith(".reserved")  # its place has a new name
        elif old != new:
            grown = old.startswith("size") and new.startswith("size") and int(new[5:]) > int(old[5:])
            yield f"changed: {key}: {old} -> {new}", not grown


def stand_in(stored):
    """C source of a library with the stored interface, without what it does."""
    handles = sorted(set(re.findall(r"\bpgrad_\w+", " ".join(stored.values()))) - stored.keys())
    structs = [key for key, value in stored.items() if value.startswith("size ")]
    lines = ["#include <stddef.h>", "#include <stdint.h>"]
    lines += [f"typedef {value} {key};" for key, value in stored.items() if re.fullmatch(r"u?int\d+_t", value)]
    lines += [f"typedef struct {name} {name};" for name in handles + structs]
    lines += [f"typedef {value};" for key, value in stored.items() if f"(*{key})" in value]
    for name in structs:
        fields = [value.split(" ", 2)[2] for key, value in stored.items() if key.startswith(name + ".")]
        lines.append(f"struct {name} {{ {'; '.join(fields)}; }};")
    lines += [f"{value} {{ __builtin_trap(); }}" for key, value in stored.items() if f" {key}(" in value.replace("*", " ")]
    return "\n".join(lines)


def run_abidiff(root, compiler, stored, library):
    if shutil.which("abidiff") is None:
        print("skipped: no abidiff (abigail-tools)")
        return 77
    with tempfile.TemporaryDirectory() as folder:
        source, made, exports = (pathlib.Path(folder, name) for name in ("stored.c", "stored.so", "stored.map"))
        source.write_text(stand_in(stored))
        node = (root / "lib/policygrad.map").read_text().split()[0]
        exports.write_text(f"{node} {{ global: pgrad_*; local: *; }};")
        soname = re.search(r"soname: \[(.*?)\]", subprocess.run(["readelf", "-d", library], check=True,
                                                               capture_output=True, text=True).stdout)[1]
        subprocess.run([*compiler, "-g", "-w", "-shared", "-fPIC", source, "-o", made, f"-Wl,-soname,{soname}",
                        f"-Wl,--version-script={exports}"], check=True)
        done = subprocess.run(["abidiff", made, library],
                              capture_output=True, text=True)
    print(done.stdout + done.stderr if done.returncode else "abidiff: the library is as stored")
    return done.returncode != 0


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--write", action="store_true")
    parser.add_argument("--abidiff")
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("compiler", nargs="+")
    given = parser.parse_args()
    stored = given.root / "tests/abi/interface.txt"
    if given.abidiff:
        was = dict(line.split(": ", 1) for line in stored.read_text().splitlines())
        return run_abidiff(given.root, given.compiler, was, given.abidiff)
    types, structs, constants = read_headers(given.root)
    lines = measure(given.root, given.compiler, structs, constants)
    bad = list(against_the_rules(structs, lines))
    kinds = {f"{name}.{field}": kind for name, fields in structs.items() for field, kind in fields}
    now = {name: text for name, text in sorted(types.items())}
    for key, _, value in (line.partition(" ") for line in lines):
        now[key] = f"{value} {kinds[key]}" if key in kinds else value
    if given.write:
        stored.write_text("".join(f"{key}: {value}\n" for key, value in now.items()))
    was = dict(line.split(": ", 1) for line in stored.read_text().splitlines())
    changes = list(differences(was, now))
    breaking = sum(breaks for _, breaks in changes)
    if changes:
        bad += [text + ("   (breaks programs built before)" if breaks else "") for text, breaks in changes]
        bad.append(f"{len(changes)} changes, {breaking} of them breaking. When they are meant: "
                   "python3 tests/abi/interface.py --write . cc")
    print("\n".join(bad) if bad else f"{len(types)} functions and types, {len(structs)} structs, {len(constants)} "
          "constants: as stored")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
