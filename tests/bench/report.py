"""Passes the lines of a benchmark program on: report.py WORK PROGRAM [NAME...] <lines

Only what was asked for by figure or by program, everything when no name is given; a line without cpu or
kernel_set gets this machine's, which stand in WORK/machine. The allocations of generate and of a step come from
two programs: they wait in WORK/allocations, and PROGRAM "allocations" prints their sum as one line, or what there
is of them.
"""
import json
import pathlib
import sys

ALLOCATIONS = {"allocations_generate": "generate", "allocations_step": "step"}


def asked_for(name, program, names):
    return not names or program in names or program == "peak" or name in names


def emit(line, machine):
    for key in ("cpu", "kernel_set"):
        line.setdefault(key, machine[key])
    print(json.dumps(line, separators=(",", ":")), flush=True)


def print_allocations(path, machine):
    lines = [json.loads(text) for text in path.read_text().splitlines()] if path.exists() else []
    if len(lines) < len(ALLOCATIONS):
        for line in lines:
            emit(line, machine)
        return
    total = {**lines[0], "name": "allocations", "unit": "calls per rollout and step",
             "value": sum(line["value"] for line in lines)}
    for line in lines:
        total[ALLOCATIONS[line["name"]]] = line["value"]
    emit(total, machine)


def main():
    work, program, names = pathlib.Path(sys.argv[1]), sys.argv[2], sys.argv[3:]
    machine = json.loads((work / "machine").read_text())
    waiting = work / "allocations"
    if program == "allocations":
        return print_allocations(waiting, machine)
    status = 0
    for text in sys.stdin:
        line = json.loads(text)
        status |= "error" in line
        if line["name"] in ALLOCATIONS:
            if asked_for("allocations", program, names):
                with waiting.open("a") as file:
                    file.write(text)
        elif "error" in line or asked_for(line["name"], program, names):
            emit(line, machine)
    return status


if __name__ == "__main__":
    sys.exit(main())
