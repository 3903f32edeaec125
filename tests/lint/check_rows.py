#!/usr/bin/env python3
"""Holds the table of bad files in docs/formats.md against the tests: every row is there, and each test file it
names exists and has the row's id in it.

usage: check_rows.py ROOT; status 1 and one line per offence."""
import pathlib
import re
import sys

ROWS = {"ST": 23, "SH": 6, "CF": 10, "GG": 20}


def offences(root):
    table = {}
    for line in (root / "docs/formats.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not re.fullmatch(r"[A-Z]{2}\d{2}", cells[0]):
            continue
        if len(cells) != 4 or not all(cells):
            yield f"{cells[0]}: expected 4 cells, found {len(cells)}"
        if cells[0] in table:
            yield f"{cells[0]}: is there twice"
        table[cells[0]] = [name.strip() for name in cells[-1].split(",")]
    for family, n in ROWS.items():
        for row in (f"{family}{i:02}" for i in range(1, n + 1)):
            if row not in table:
                yield f"{row}: not in the table of docs/formats.md"
    for row, names in table.items():
        for name in names:
            path = root / "tests" / (name + ".c")
            if not path.exists():
                yield f"{row}: tests/{name}.c does not exist"
            elif not re.search(rf"\b{row}\b|[(_ ]{row}_", path.read_text(), re.I):
                yield f"{row}: tests/{name}.c does not name it"


def main():
    found = list(offences(pathlib.Path(sys.argv[1])))
    print("\n".join(found) if found else "rows: each has its tests")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
