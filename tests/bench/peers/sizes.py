"""Installed size: the files of a package and of all that it requires, the interpreter apart."""
from __future__ import annotations

import json
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOTS = {"transformers on PyTorch": ["torch", "transformers"], "TRL": ["trl", "torch"],
         "llama.cpp, Python": ["llama-cpp-python"]}
SYSTEM = ("linux-vdso", "libc.so", "libm.so", "ld-linux", "libpthread", "libdl", "libgcc_s")


def closure(roots: list) -> set:
    from importlib import metadata

    from packaging.requirements import Requirement
    seen, todo = set(), list(roots)
    while todo:
        name = re.sub(r"[-_.]+", "-", todo.pop()).lower()
        try:
            requirements = metadata.requires(name) or [] if name not in seen else []
        except metadata.PackageNotFoundError:
            continue
        seen.add(name)
        for text in requirements:
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                todo.append(requirement.name)
    return seen


def size_of(name: str) -> int:
    from importlib import metadata
    files = [path.locate() for path in metadata.files(name) or [] if "__pycache__" not in str(path)]
    return sum(os.path.getsize(path) for path in files if os.path.exists(path))


def ours(library: pathlib.Path) -> dict:
    """The stripped library, and with the shared libraries that it needs beyond libc."""
    with tempfile.TemporaryDirectory() as folder:
        stripped = pathlib.Path(folder) / "stripped.so"
        subprocess.run(["strip", "-o", stripped, library.resolve()], check=True)
        alone = stripped.stat().st_size
    listed = subprocess.run(["ldd", library], capture_output=True, text=True, check=True).stdout
    needed = [line.split("=>")[1].split()[0] for line in listed.splitlines()
              if "=> /" in line and not any(word in line for word in SYSTEM)]
    return {"ours": alone, "ours with jansson, PCRE2, utf8proc, zlib":
            alone + sum(os.path.getsize(os.path.realpath(path)) for path in needed)}


def installed_sizes(options) -> dict:
    out = ours(options.build / "lib" / "libpolicygrad.so") if shutil.which("strip") else {}
    done = subprocess.run([options.venv / "bin" / "python", __file__], capture_output=True, text=True)
    return {**out, **(json.loads(done.stdout) if done.returncode == 0 else {})}


if __name__ == "__main__":
    if sys.argv[1:] == ["versions"]:
        from importlib import metadata
        names = ("torch", "transformers", "trl", "peft", "accelerate", "llama-cpp-python", "gguf", "numpy")
        print(json.dumps({d: metadata.version(d) for d in names if closure([d])}))
    else:
        sizes = {}
        for title, roots in ROOTS.items():
            names = closure(roots)
            if names:
                sizes[title] = sum(map(size_of, names))
        print(json.dumps(sizes))
