#!/usr/bin/env python3
"""Holds the shared library against what was decided: its soname, exports = version map = headers, each export bound to
the map's version, NEEDED within the list, nothing imported that prints, ends the process or reads the environment.

usage: symbols.py [--blis kernels|shared] ROOT LIBRARY [ARCHIVE]"""
import argparse
import pathlib
import re
import subprocess
import sys

NEEDED = {"libc.so.6", "libm.so.6", "libz.so.1", "libjansson.so.4", "libpcre2-8.so.0", "libutf8proc.so.2",
          "libutf8proc.so.3", "ld-linux-x86-64.so.2", "ld-linux-aarch64.so.1"}
BLIS = "libblis.so.4"  # with -Dblis=shared it must be there, else it must not
# What our objects may call although it can end the process: the compiler's own checks.
ALLOWED = {"__stack_chk_fail", "__vsnprintf_chk", "__snprintf_chk", "__memcpy_chk", "__memset_chk",
           "__memmove_chk", "__strcpy_chk", "__read_chk", "__pread_chk"}
FORBIDDEN = re.compile(
    r"^(abort|exit|_exit|_Exit|quick_exit|atexit|__assert_fail|.*printf.*|puts|putchar|fputs|fputc|fwrite|perror"
    r"|getenv|secure_getenv|setenv|putenv|unsetenv|longjmp|siglongjmp|rand|srand|strtok|setlocale"
    r"|signal|sigaction|system|popen|raise|kill|stdout|stderr|environ|__environ|putc|_IO_putc|v?err[cx]?|v?warn[cx]?"
    r"|v?syslog|__longjmp_chk|put(c|char)?_unlocked|f(puts|putc|write)_unlocked|error|error_at_line|psignal|psiginfo"
    r"|on_exit|pthread_exit|pthread_kill|pthread_cancel)$")
PRINTS_TO_BUFFER = {"snprintf", "vsnprintf"}
SANITIZER = re.compile(r"^(__asan|__ubsan|__tsan|__sanitizer)")


def run(*command):
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--blis", choices=("kernels", "shared"), default="kernels")
    parser.add_argument("root", type=pathlib.Path)
    parser.add_argument("library")
    parser.add_argument("archives", nargs="*")
    given = parser.parse_args()
    root, library = given.root, given.library
    bad = []
    text = (root / "lib/policygrad.map").read_text()
    mapped = set(re.findall(r"^\s+(pgrad_\w+);", text, re.M))
    declared = set()
    for header in (root / "include").rglob("*.h"):
        body = re.sub(r"/\*.*?\*/", " ", header.read_text(), flags=re.S)
        declared |= set(re.findall(r"PGRAD_API\b[^;]*?\b(pgrad_\w+)\s*\(", body))
    version = re.search(r"^(\w+) \{", text, re.M).group(1)
    exported = set()
    for line in run("nm", "-D", "--defined-only", library).splitlines():
        kind, symbol = line.split()[-2:]
        if kind == "A":
            continue
        name, _, bound = symbol.partition("@")
        exported.add(name)
        if bound != f"@{version}":  # two @: the version that a new program links
            bad.append(f"{symbol}: expected {name}@@{version}")
    for label, ours, theirs in (("in the headers, not in the map", declared, mapped),
                                ("in the map, not in the headers", mapped, declared),
                                ("in the map, not exported", mapped, exported),
                                ("exported, not in the map", exported, mapped)):
        for name in sorted(ours - theirs):
            bad.append(f"{name}: {label}")
    dynamic = run("readelf", "-d", library)
    soversion = run("sh", str(root / "lib/version.sh"), "soversion").strip()
    soname = re.findall(r"\(SONAME\).*\[(.*?)\]", dynamic)
    if soname != [f"libpolicygrad.so.{soversion}"] or not soversion:
        bad.append(f"SONAME {soname}: expected libpolicygrad.so.{soversion}")
    needed = set(re.findall(r"\(NEEDED\).*\[(.*?)\]", dynamic))
    sanitized = any("asan" in name or "ubsan" in name for name in needed)
    if not sanitized:
        bad += [f"NEEDED {name}: not one of those decided" for name in sorted(needed - NEEDED - {BLIS})]
        if (BLIS in needed) != (given.blis == "shared"):
            bad.append(f"NEEDED {BLIS}: {'there' if BLIS in needed else 'not there'} with -Dblis={given.blis}")
        undefined = run("nm", "-D", "--undefined-only", library).splitlines()
        for archive in given.archives:
            undefined += [line for line in run("nm", "--undefined-only", archive).splitlines()
                          if re.match(r"\s+U ", line)]
        for name in sorted({line.split()[-1].split("@")[0] for line in undefined}):
            if name in ALLOWED or name in PRINTS_TO_BUFFER or SANITIZER.match(name):
                continue
            if FORBIDDEN.match(name):
                bad.append(f"{name}: imported; the library must not")
        for archive in given.archives:
            for line in run("nm", "-g", "--defined-only", archive).splitlines():
                if len(line.split()) == 3 and not line.split()[2].startswith("pgrad_"):
                    bad.append(f"{line.split()[2]}: a global of the static library, not pgrad_*")
        if "TEXTREL" in dynamic:
            bad.append("text relocations")
        if re.search(r"GNU_STACK.*\n?.*RWE", run("readelf", "-lW", library)):
            bad.append("executable stack")
    print("\n".join(bad) if bad else f"{len(exported)} symbols: map, headers and library agree")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
