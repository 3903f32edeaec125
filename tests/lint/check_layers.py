#!/usr/bin/env python3
"""Holds lib/ against the rules of the house: layers point down only, in what they include and in what they call,
each outside library and what is the platform's has its doors, nothing prints, ends the process or reads the
environment, files stay small, and public headers are mostly comment.

usage: check_layers.py ROOT; status 1 and one line per offence."""
import fnmatch
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
# What any file may include beside the library's own headers; all else is an outside library's or the platform's.
STANDARD = {name + ".h" for name in """ctype errno fenv float inttypes limits locale math stdalign stdarg stdatomic
    stdbool stddef stdint stdio stdlib stdnoreturn string""".split()}
# The files that may include headers of the platform. pool.c and thread.c are the threads, the files of lib/io are the
# doors to files and folders, vec_*.c are the instruction sets; everything else is behind base/os.h.
PLATFORM = [
    ("lib/base/os*.c", {"cpuid.h", "fcntl.h", "sched.h", "sys/mman.h", "sys/resource.h", "time.h", "unistd.h",
                        "xmmintrin.h"}),
    ("lib/base/pool.c", {"pthread.h", "sched.h", "signal.h"}),
    ("lib/base/thread.c", {"pthread.h", "signal.h"}),
    ("lib/io/file.c", {"fcntl.h", "sys/stat.h", "unistd.h"}),
    ("lib/io/append.c", {"fcntl.h", "sys/stat.h", "unistd.h"}),
    ("lib/io/atomic_file.c", {"dirent.h", "fcntl.h", "sys/file.h", "sys/stat.h", "unistd.h"}),
    ("lib/io/file_lock.c", {"fcntl.h", "sys/file.h", "sys/stat.h", "unistd.h"}),
    ("lib/io/system_*.[ch]", {"fcntl.h", "unistd.h"}),
    ("lib/kernel/vec_*.c", {"arm_neon.h", "immintrin.h"}),
]
# Functions and tables whose names a macro or the build puts together, and the layer that has them.
PASTED = {"pgrad__vec_": "kernel", "pgrad__vector_ops_": "kernel", "pgrad__blis_": "kernel"}
FORBIDDEN = re.compile(
    r"\b(abort|exit|_exit|assert|printf|fprintf|vfprintf|puts|putchar|perror|getenv|setenv|secure_getenv"
    r"|signal|sigaction|setlocale|system|popen|rand|srand|strtok|atoi|atof|strtod|malloc|calloc|realloc)\s*\(")
ALLOWED = {("lib/base/alloc.c", "malloc")}
MAX_LINES = 800
MIN_COMMENT = 60  # percent of the lines of a public header that are not empty have a comment in them


def without_comments(text):
    text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)
    text = re.sub(r"//[^\n]*", "", text)
    return re.sub(r'"(\\.|[^"\\\n])*"', '""', text)


def comment_share(text):
    """Lines that carry a comment, or a part of one, in percent of those that are not empty: include guards, includes
    and declarations count against it."""
    marked = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", "\0", m.group()), text, flags=re.S)
    lines = [line for line in marked.split("\n") if line.strip(" \t")]
    return 100.0 * sum("\0" in line for line in lines) / max(len(lines), 1)


def header_offences(root):
    """policygrad.hpp is not among them: it is code over the C headers, which say what its calls do."""
    for path in sorted((root / "include").rglob("*.h")):
        share = comment_share(path.read_text())
        if share < MIN_COMMENT:
            yield (f"{path.relative_to(root).as_posix()}: {share:.0f} % of its lines have a comment, "
                   f"expected {MIN_COMMENT} at least")


def without_directives(code):
    return re.sub(r"^[ \t]*#(?:[^\n]*\\\n)*[^\n]*", lambda m: re.sub(r"[^\n]", " ", m.group()), code, flags=re.M)


def may_include_platform(name, target):
    return any(fnmatch.fnmatchcase(name, pattern) and target in headers for pattern, headers in PLATFORM)


def include_offence(name, layer, line):
    """What is wrong with an #include of a file of a layer; None when nothing is."""
    match = re.match(r'\s*#\s*include\s+(?:"([^"]+)"|<([^>]+)>)', line)
    if not match:
        return "an #include is \"layer/file.h\" or <header.h>"
    own, target = match.groups()
    if own:
        if own.startswith("../") or "/../" in own or "/" not in own:
            return f"include \"{own}\" by its layer: \"{layer}/{own.split('/')[-1]}\""
        if own.split("/")[0] not in MAY_INCLUDE[layer]:
            return f"{layer} may not include {own}"
        return None
    if target.split("/")[0] in MAY_INCLUDE:
        return f"<{target}>: the library's own files are included by \"\""
    if target in DOORS:
        return None if name == DOORS[target] else f"only {DOORS[target]} may include <{target}>"
    if re.fullmatch(r"policygrad(/\w+)?\.h", target) or target in STANDARD or may_include_platform(name, target):
        return None
    return f"<{target}> is neither of standard C nor of a library with a door here: see PLATFORM in check_layers.py"


def definitions(code):
    """The pgrad_ functions and tables that a file defines, by clang-format's manner: at the margin."""
    for match in re.finditer(r"^[A-Za-z_][^;{}()=]*?\b(pgrad_\w+)\([^;{}]*\)\s*^\{", code, re.M):
        yield match.group(1)
    for match in re.finditer(r"^(?!typedef |extern )[A-Za-z_][\w *]*(?<!struct )\b(pgrad_\w+)(?:\[[^\]\n]*\])*(?: =|;)", code,
                             re.M):
        yield match.group(1)


def call_offences(sources):
    """Every use of a pgrad_ function or table, in calls, declarations and tables, against the layer that defines it.
    sources: [(name, layer, code)]."""
    home = {}
    for name, layer, code in sources:
        for symbol in definitions(without_directives(code)):
            if home.setdefault(symbol, layer) != layer:
                yield f"{name}: {symbol} is defined in {home[symbol]} too"
    macros = {m for _, _, code in sources for m in re.findall(r"#\s*define\s+(pgrad_\w+)", code)}
    for name, layer, code in sources:
        for number, line in enumerate(without_directives(code).splitlines(), 1):
            for match in re.finditer(r"(?<!struct )\b(pgrad_\w+)\b(\((?!\*))?", line):
                symbol = match.group(1)
                at = home.get(symbol) or next((PASTED[p] for p in PASTED if symbol.startswith(p)), None)
                if at and at not in MAY_INCLUDE[layer]:
                    yield f"{name}:{number}: {layer} may not use {symbol}, which is of {at}"
                elif not at and match.group(2) and symbol not in macros:
                    yield f"{name}:{number}: {symbol}() is defined nowhere in lib/"


def offences(root):
    sources = []
    for path in sorted((root / "lib").rglob("*.[ch]")):
        name = path.relative_to(root).as_posix()
        layer = path.relative_to(root / "lib").parts[0]
        raw = path.read_text()
        lines = raw.splitlines()
        code = without_comments(raw)
        sources.append((name, layer, code))
        if len(lines) > MAX_LINES:
            yield f"{name}: {len(lines)} lines, at most {MAX_LINES}"
        for number, line in enumerate(lines, 1):
            if len(line.expandtabs(8)) > 100:
                yield f"{name}:{number}: line of {len(line)} columns"
            offence = include_offence(name, layer, line) if re.match(r"\s*#\s*include\b", line) else None
            if offence:
                yield f"{name}:{number}: {offence}"
        for number, line in enumerate(code.splitlines(), 1):
            for word in FORBIDDEN.findall(line):
                if (name, word) not in ALLOWED:
                    yield f"{name}:{number}: {word}() has no place in the library"
    yield from call_offences(sources)
    yield from header_offences(root)


def top_level(root):
    allowed = {"meson.build", "meson_options.txt", "README.md", "COPYING", "lib", "include", "examples", "tests",
               "docs", "pkgconfig"}
    for path in sorted(root.iterdir()):
        if path.name not in allowed and not path.name.startswith(".") and not path.name.startswith(("build", "quickstart-out")):
            yield f"{path.name}: does not belong to the top level"


def main():
    root = pathlib.Path(sys.argv[1])
    found = list(offences(root)) + list(top_level(root))
    print("\n".join(found) if found else "layers, doors, words and headers: fine")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
