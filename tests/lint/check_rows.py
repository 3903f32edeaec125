#!/usr/bin/env python3
"""Holds the tables of bad files in docs/formats.md and of faults in docs/faults.md against the tests: every row is
there, and each test file it names exists and has the row's id in it. A row of what is not built has "-".

usage: check_rows.py ROOT; status 1 and one line per offence."""
import pathlib
import re
import sys

TABLES = {"docs/formats.md": {"ST": 23, "SH": 6, "CF": 10, "GG": 20},
          "docs/faults.md": {"CK": 18, "PR": 10, "SP": 8, "RW": 12, "OP": 10, "AL": 5, "TH": 9}}


def read_table(path):
    """Row id to the names of its tests; offences."""
    table, found = {}, []
    for line in path.read_text().splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if not re.fullmatch(r"[A-Z]{2}\d{2}", cells[0]):
            continue
        if len(cells) != 4 or not all(cells):
            found.append(f"{cells[0]}: expected 4 cells, found {len(cells)}")
        if cells[0] in table:
            found.append(f"{cells[0]}: is there twice")
        not_built = cells[-1] == "-" and cells[-2].startswith("not built")
        table[cells[0]] = [] if not_built else [name.strip() for name in cells[-1].split(",")]
    return table, found


def offences(root):
    for document, families in TABLES.items():
        table, found = read_table(root / document)
        yield from found
        for family, n in families.items():
            for row in (f"{family}{i:02}" for i in range(1, n + 1)):
                if row not in table:
                    yield f"{row}: not in the table of {document}"
        for row, names in table.items():
            for name in names:
                path = root / "tests" / (name if "." in name else name + ".c")
                if not path.exists():
                    yield f"{row}: tests/{path.name} does not exist"
                elif not re.search(rf"\b{row}\b|[(_ ]{row}_", path.read_text(), re.I):
                    yield f"{row}: tests/{path.name} does not name it"


def main():
    found = list(offences(pathlib.Path(sys.argv[1])))
    print("\n".join(found) if found else "rows: each has its tests")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
