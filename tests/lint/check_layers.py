#!/usr/bin/env python3
"""Holds lib/ against the rules of the house: layers point down only, each outside library has one door,
nothing prints, ends the process or reads the environment, files stay small.

usage: check_layers.py ROOT; status 1 and one line per offence."""
import pathlib
import re
import sys

MAY_INCLUDE = {
    "base": {"base"},
    "kernel": {"kernel", "base"},
    "io": {"io", "base"},
    "text": {"text", "io", "base"},
    "model": {"model", "kernel", "io", "base"},
    "rl": {"rl", "model", "text", "kernel", "io", "base"},
    "train": {"train", "rl", "model", "text", "kernel", "io", "base"},
}
DOORS = {
    "blis.h": "lib/kernel/blis.c",
    "zlib.h": "lib/io/zstream.c",
    "jansson.h": "lib/io/json.c",
    "pcre2.h": "lib/text/regex.c",
    "utf8proc.h": "lib/text/unicode.c",
}
PLATFORM = {"sched.h", "sys/syscall.h", "cpuid.h", "pthread.h", "sys/mman.h", "signal.h"}
# pool.c and thread.c are the threads; everything else about the platform is behind base/os.h.
PLATFORM_FILES = {"lib/base/os_posix.c", "lib/base/os_cpu.c", "lib/base/pool.c", "lib/base/thread.c"}
FORBIDDEN = re.compile(
    r"\b(abort|exit|_exit|assert|printf|fprintf|vfprintf|puts|putchar|perror|getenv|setenv|secure_getenv"
    r"|signal|sigaction|setlocale|system|popen|rand|srand|strtok|atoi|atof|strtod|malloc|calloc|realloc)\s*\(")
ALLOWED = {("lib/base/alloc.c", "malloc")}
MAX_LINES = 800


def without_comments(text):
    text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text)


def offences(root):
    for path in sorted((root / "lib").rglob("*.[ch]")):
        name = path.relative_to(root).as_posix()
        layer = path.relative_to(root / "lib").parts[0]
        raw = path.read_text()
        lines = raw.splitlines()
        if len(lines) > MAX_LINES:
            yield f"{name}: {len(lines)} lines, at most {MAX_LINES}"
        for number, line in enumerate(lines, 1):
            if len(line.expandtabs(8)) > 100:
                yield f"{name}:{number}: line of {len(line)} columns"
            match = re.match(r'\s*#\s*include\s+([<"])([^>"]+)[>"]', line)
            if not match:
                continue
            kind, target = match.groups()
            if kind == '"':
                if "/" not in target:
                    yield f"{name}:{number}: include \"{target}\" by its layer: \"{layer}/{target}\""
                elif target.split("/")[0] not in MAY_INCLUDE[layer]:
                    yield f"{name}:{number}: {layer} may not include {target}"
            door = DOORS.get(target)
            if door and name != door:
                yield f"{name}:{number}: only {door} may include <{target}>"
            if target in PLATFORM and name not in PLATFORM_FILES:
                yield f"{name}:{number}: only lib/base/os*.c, pool.c and thread.c may include <{target}>"
        code = without_comments(raw)
        for number, line in enumerate(code.splitlines(), 1):
            for word in FORBIDDEN.findall(line):
                if (name, word) not in ALLOWED:
                    yield f"{name}:{number}: {word}() has no place in the library"


def top_level(root):
    allowed = {"meson.build", "meson_options.txt", "README.md", "COPYING", "lib", "include", "examples", "tests",
               "docs", "pkgconfig"}
    for path in sorted(root.iterdir()):
        if path.name not in allowed and not path.name.startswith(".") and not path.name.startswith(("build", "quickstart-out")):
            yield f"{path.name}: does not belong to the top level"


def main():
    root = pathlib.Path(sys.argv[1])
    found = list(offences(root)) + list(top_level(root))
    print("\n".join(found) if found else "layers, doors and words: fine")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
