#!/usr/bin/env python3
"""report.json to report.md and SVG plots.   report.py REPORT.json FOLDER"""
from __future__ import annotations

import json
import pathlib
import sys

import cases
import svg
from work import work_of

TITLES = {"A": "A GRPO step", "B": "A GRPO step, long prompts", "C": "Generation", "D": "A supervised training step",
          "E": "Start-up", "F": "Growth"}


def gigabytes(value: float) -> str:
    return f"{value / 1e9:.2f}"


def table(head: list, rows: list) -> list:
    return ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)] + [
        "| " + " | ".join(map(str, row)) + " |" for row in rows] + [""]


def lines_of(document: dict, case: str) -> dict:
    """{line: [its entries]} in the order of the report."""
    out: dict = {}
    for entry in document["lines"]:
        if entry["case"] == case:
            out.setdefault(entry["line"], []).append(entry)
    return out


def loaded(text: str) -> dict:
    """A report.json. Each line has the date of its run, and "runs" tells by date where and how it was; a file from
    before lines had dates is of one run."""
    document = json.loads(text)
    if "runs" not in document:
        run = {key: document.pop(key) for key in ("machine", "rounds", "versions") if key in document}
        document["runs"] = {document["date"]: run}
        for entry in document["lines"]:
            entry["date"] = document["date"]
        del document["date"]
    return document


def limits_of(document: dict, entry: dict) -> dict:
    return document["runs"][entry["date"]]["machine"]["limits"]


def name_of(document: dict, entry: dict) -> str:
    """The peer, with the number of the run where there are several."""
    if len(document["runs"]) == 1:
        return entry["peer"]
    return f"{entry['peer']} [{1 + list(document['runs']).index(entry['date'])}]"


def ours_of(entries: list, like: dict):
    """The entry of ours to compare with: of the same storage where there are several, f32 else."""
    measured = [entry for entry in entries if entry["peer"].startswith("ours") and "seconds" in entry]
    same = [entry for entry in measured if entry.get("storage", "f32") == like.get("storage", "f32")]
    return (same or [None])[0]


def times_ours(entries: list, entry: dict, field: str = "seconds") -> str:
    ours = ours_of(entries, entry)
    return f"{entry[field] / ours[field]:.2f}" if ours and ours.get(field) else ""


def spread(entry: dict) -> str:
    return f"{entry['lowest']:.2f} to {entry['highest']:.2f}"


def missing(entry: dict) -> str:
    return "skipped: " + entry["skipped"] if "skipped" in entry else "failed: " + entry.get("failed", "?")


def phases_of(entry: dict) -> dict:
    if "prefill" in entry:
        return {"prompts": entry["prefill"], "decoding": entry["decode"]}
    return entry.get("phases", {})


def roofline(document: dict, entries: list) -> list:
    rows = []
    for entry in entries:
        if not entry["peer"].startswith("ours") or "seconds" not in entry or "n_parameters" not in entry:
            continue
        limits, work = limits_of(document, entry), work_of(entry)
        for phase, seconds in phases_of(entry).items():
            if phase not in work or not seconds or not limits["gflops"] or not limits["bandwidth"]:
                continue
            flop, count = (sum(part[i] for part in work[phase]) for i in (0, 1))
            bound = sum(max(part[0] / limits["gflops"], part[1] / limits["bandwidth"]) for part in work[phase]) * 1e-9
            rows.append([entry["line"] + (f", {entry['x']}" if "x" in entry else ""), name_of(document, entry), phase,
                         f"{flop * 1e-9:.1f}", f"{count * 1e-9:.2f}", f"{seconds:.3f}", f"{flop / seconds * 1e-9:.0f}",
                         f"{count / seconds * 1e-9:.1f}", f"{bound / seconds:.2f}"])
    return table(["line", "peer", "phase", "GFLOP", "GB", "s", "GFLOP/s", "GB/s", "share of the roofline"],
                 rows) if rows else []


def grpo_section(document: dict, case: str, plots: dict) -> list:
    out = []
    for line, entries in lines_of(document, case).items():
        rows, bars = [], []
        for entry in entries:
            if "seconds" not in entry:
                rows.append([name_of(document, entry), missing(entry)] + [""] * 7)
                continue
            phases = entry.get("phases", {})
            rows.append([name_of(document, entry), f"{entry['seconds']:.2f}", spread(entry), times_ours(entries, entry),
                         f"{entry['tokens'] / entry['seconds']:.0f}",
                         ", ".join(f"{name} {value:.2f}" for name, value in phases.items()),
                         gigabytes(entry["peak_rss"]), times_ours(entries, entry, "peak_rss"),
                         entry.get("micro", "")])
            bars.append((entry["peer"], entry["seconds"], list(phases.items())))
        out += [f"### {line}", ""] + table(["peer", "s", "spread", "times ours", "tokens/s", "phases, s",
                                            "peak GB", "times ours", "micro-batch"], rows)
        plots[f"{case}-step"] = svg.bars(f"{TITLES[case]}: {line}", [("seconds", bars)], "s")
        plots[f"{case}-memory"] = svg.bars(f"{TITLES[case]}: {line}", [("peak of resident memory", [
            (entry["peer"], entry["peak_rss"] / 1e9, []) for entry in entries if "seconds" in entry])], "GB")
        out += [f"![step]({case}-step.svg)", "", f"![memory]({case}-memory.svg)", ""]
        out += roofline(document, entries)
    return out


def generation_section(document: dict, case: str, plots: dict) -> list:
    rows, groups, shares = [], [], []
    for line, entries in lines_of(document, case).items():
        bars = []
        for entry in entries:
            if "seconds" not in entry:
                rows.append([line, name_of(document, entry), missing(entry)] + [""] * 6)
                continue
            speed = entry["tokens"] / entry["seconds"]
            after = (entry["tokens"] - entry["prompts"]) / entry["decode"] if entry.get("decode") else 0.0
            rows.append([line, name_of(document, entry), f"{speed:.1f}", f"{entry['seconds']:.2f}", spread(entry),
                         times_ours(entries, entry), f"{entry.get('prefill', 0.0):.3f}", f"{after:.1f}",
                         gigabytes(entry["peak_rss"])])
            bars.append((entry["peer"], speed, []))
        groups.append((line, bars))
        shares += roofline(document, entries) if not shares else roofline(document, entries)[2:]
    plots["C-generation"] = svg.bars("Generation, 128-token prompts, 64 new tokens", groups, "tokens/s")
    shares = [row for row in shares if row]
    return (table(["batch", "peer", "tokens/s", "s", "spread", "time in ours' times", "prompts, s",
                   "tokens/s after the prompts", "peak GB"], rows)
            + ["![generation](C-generation.svg)", "", *shares, ""])


def simple_section(document: dict, case: str, plots: dict) -> list:
    out, groups = [], []
    for line, entries in lines_of(document, case).items():
        rows = [[name_of(document, entry), f"{entry['seconds']:.3f}", spread(entry), times_ours(entries, entry),
                 ", ".join(f"{name} {value:.2f}" for name, value in entry.get("phases", {}).items()),
                 gigabytes(entry["peak_rss"]) if "peak_rss" in entry else ""]
                if "seconds" in entry else [name_of(document, entry), missing(entry)] + [""] * 4 for entry in entries]
        groups.append((line, [(entry["peer"], entry["seconds"], []) for entry in entries if "seconds" in entry]))
        out += [f"### {line}", ""] + table(["peer", "s", "spread", "times ours", "phases, s", "peak GB"], rows)
        out += roofline(document, entries)
    plots[f"{case}-seconds"] = svg.bars(TITLES[case], groups, "s")
    out += [f"![{TITLES[case]}]({case}-seconds.svg)", ""]
    if case == "E" and document.get("sizes"):
        out += ["### Installed size", ""] + table(["what", "MB"], [[name, f"{size / 1e6:.1f}"]
                                                                  for name, size in document["sizes"].items()])
    return out


def axes_of(document: dict) -> dict:
    """{axis: its entries}, in all of them that of the step where they cross."""
    measured = lines_of(document, "F")
    crossing = [entry for entries in measured.values() for entry in entries
                if all(entry.get(field) == value for field, value in cases.BASE.items())]
    out = {}
    for axis, entries in measured.items():
        field = cases.AXES[axis][0]
        more = [{**entry, "line": axis, "x": entry[field]} for entry in crossing if entry not in entries]
        out[axis] = sorted(entries + more, key=lambda entry: entry["x"])
    return out


def growth_section(document: dict, case: str, plots: dict) -> list:
    out = []
    for axis, entries in axes_of(document).items():
        rows, seconds, memory = [], {}, {}
        for entry in entries:
            if "seconds" not in entry:
                rows.append([entry["x"], name_of(document, entry), missing(entry), "", "", ""])
                continue
            rows.append([entry["x"], name_of(document, entry), f"{entry['seconds']:.3f}", spread(entry),
                         ", ".join(f"{name} {value:.2f}" for name, value in entry["phases"].items()),
                         gigabytes(entry["peak_rss"])])
            seconds.setdefault(entry["peer"], []).append((entry["x"], entry["seconds"]))
            memory.setdefault(entry["peer"], []).append((entry["x"], entry["peak_rss"] / 1e9))
        name = axis.split(",")[0].replace(" ", "-")
        plots[f"F-{name}-seconds"] = svg.lines(f"GRPO step by {axis}", axis, "seconds", seconds)
        plots[f"F-{name}-memory"] = svg.lines(f"Peak of resident memory by {axis}", axis, "GB", memory)
        out += [f"### By {axis}", ""] + table([axis, "peer", "s", "spread", "phases, s", "peak GB"], rows)
        out += [f"![seconds](F-{name}-seconds.svg)", "", f"![memory](F-{name}-memory.svg)", ""]
        out += roofline(document, entries)
    return out


SECTIONS = {"A": grpo_section, "B": grpo_section, "C": generation_section, "D": simple_section, "E": simple_section,
            "F": growth_section}


# A peer and what of ours it is set against, by case; what is aimed at.
GRPO_PAIRS = [("TRL, defaults", "ours"), ("TRL, defaults", "ours, lean"), ("TRL, equal settings", "ours"),
              ("PyTorch by hand", "ours")]
TRAIN_PAIRS = [(peer, "ours") for peer in ("PyTorch eager", "torch.compile", "llm.c")]
GENERATION_PAIRS = ([(f"transformers {storage}", f"ours {storage}") for storage in ("f32", "bf16")]
                    + [(f"llama.cpp {storage}", f"ours {storage}{cache}") for storage in ("f32", "bf16", "q8_0")
                       for cache in ("", ", f16 cache")])
PAIRS = {"A": GRPO_PAIRS, "B": GRPO_PAIRS, "C": GENERATION_PAIRS, "D": TRAIN_PAIRS}
AIMS = {("A", "TRL, defaults", "ours"): {"seconds": 6.0, "peak_rss": 3.0},
        ("A", "TRL, defaults", "ours, lean"): {"peak_rss": 3.0},
        ("A", "TRL, equal settings", "ours"): {"seconds": 3.0},
        ("B", "TRL, defaults", "ours"): {"seconds": 8.0},
        ("D", "PyTorch eager", "ours"): {"seconds": 1.8}}
RATIOS = {"seconds": "time", "decode": "time after the prompts", "peak_rss": "memory"}


def aim_of(case: str, line: str, peer: str, ours: str) -> dict:
    if case != "C":
        return AIMS.get((case, peer, ours), {})
    if peer.startswith("llama.cpp"):
        return {"seconds": 1.0}
    return {"seconds": 6.0} if line == "batch 32" else {}


def ratios_of(document: dict) -> list:
    """What a peer takes over what ours takes, for each pair that was measured."""
    out = []
    for case, pairs in PAIRS.items():
        for line, entries in lines_of(document, case).items():
            measured = {entry["peer"]: entry for entry in entries if "seconds" in entry}
            for peer, ours in pairs:
                if peer not in measured or ours not in measured:
                    continue
                of, to = measured[peer], measured[ours]
                out.append({"case": case, "line": line, "peer": peer, "ours": ours,
                            "aim": aim_of(case, line, peer, ours), "one_run": of["date"] == to["date"],
                            **{field: of[field] / to[field] for field in RATIOS if of.get(field) and to.get(field)}})
    return out


def ratios_section(ratios: list) -> list:
    rows = [[TITLES[ratio["case"]], ratio["line"], f"{ratio['peer']} / {ratio['ours']}"
             + ("" if ratio["one_run"] else " (of two runs)"),
             *(f"{ratio[field]:.2f}" if field in ratio else "" for field in RATIOS),
             ", ".join(f"{RATIOS[field]} {aim:g}" for field, aim in ratio["aim"].items())] for ratio in ratios]
    return ["## Ratios", ""] + table(["case", "line", "peer / ours", *RATIOS.values(), "aim"], rows) if rows else []


def told(date: str, run: dict) -> str:
    """Where, when and how a run was."""
    machine = run["machine"]
    limits = machine["limits"]
    return (f"{date}; {machine['cpu']}, cores {machine['cores']}, {machine['threads']} threads each; commit "
            f"{machine['commit'] or 'unknown'}; {machine['system']}; load before the run {machine['load_before']:.2f}. "
            f"Medians of {run['rounds']} interleaved rounds, each run in a process of its own. Limits in the same run: "
            f"best `bli_sgemm` {limits['gflops']:.0f} GFLOP/s, reading memory {limits['bandwidth']:.1f} GB/s. Peers: "
            + ", ".join(f"{name} {version}" for name, version in run["versions"].items()) + ".")


def write(document: dict, folder: pathlib.Path) -> None:
    """report.json with its ratios, report.md and the plots."""
    dates = {entry["date"] for entry in document["lines"]}
    runs = {date: run for date, run in sorted(document["runs"].items()) if date in dates}
    document = {**document, "runs": runs, "ratios": ratios_of(document)}
    plots: dict = {}
    kernels = sorted({line["kernel_set"] for line in document["lines"] if "kernel_set" in line})
    out = ["# libpolicygrad and its peers", ""]
    for number, (date, run) in enumerate(document["runs"].items(), 1):
        out += [(f"[{number}] " if len(document["runs"]) > 1 else "") + told(date, run), ""]
    out += [f"Kernel set of ours: {', '.join(kernels) or 'unknown'}.", ""] + ratios_section(document["ratios"])
    for case, section in SECTIONS.items():
        if lines_of(document, case):
            out += [f"## {TITLES[case]}", ""] + section(document, case, plots)
    (folder / "report.json").write_text(json.dumps(document, indent=1) + "\n")
    (folder / "report.md").write_text("\n".join(out))
    for name, plot in plots.items():
        (folder / f"{name}.svg").write_text(plot)


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    write(loaded(pathlib.Path(sys.argv[1]).read_text()), target)
