#!/usr/bin/env python3
"""What the library weighs: its bytes when stripped, and how long a process waits until it is open and has a context.

usage: footprint.py LIBRARY                 both within their limits, by the fastest of some openings: the test
       footprint.py LIBRARY size|open       one as a JSON object, by the median: the benchmark"""
import json
import pathlib
import subprocess
import sys
import tempfile

LIMITS = {"size": (1_000_000, "bytes"), "open": (20.0, "ms")}
TIMES = 9
OPEN = """
import ctypes, sys, time
start = time.perf_counter()
library = ctypes.CDLL(sys.argv[1])
context = ctypes.c_void_p()
assert library.pgrad_context_create(None, ctypes.byref(context)) == 0
print((time.perf_counter() - start) * 1e3)
"""


def size(library):
    with tempfile.TemporaryDirectory() as folder:
        stripped = pathlib.Path(folder, "stripped")
        subprocess.run(["strip", "-o", stripped, library.resolve()], check=True)
        return [stripped.stat().st_size]


def opening(library):
    return sorted(float(subprocess.run([sys.executable, "-c", OPEN, library], capture_output=True, text=True,
                                       check=True).stdout) for _ in range(TIMES))


MEASURES = {"size": size, "open": opening}


def main():
    library = pathlib.Path(sys.argv[1])
    if len(sys.argv) > 2:
        name = sys.argv[2]
        values = MEASURES[name](library)
        limit, unit = LIMITS[name]
        value = round(values[len(values) // 2], 3)
        print(json.dumps({"name": name, "value": value, "unit": unit, "limit": limit,
                          "share": round(value / limit, 3)}))
        return 0
    bad = 0
    for name, (limit, unit) in LIMITS.items():
        best = min(MEASURES[name](library))
        print(f"{name}: {best:.10g} {unit}, expected less than {limit:g}")
        bad += not best < limit
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
