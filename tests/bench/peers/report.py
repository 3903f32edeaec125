#!/usr/bin/env python3
"""report.json to report.md and SVG plots.   report.py REPORT.json FOLDER"""
from __future__ import annotations

import json
import pathlib
import re
import sys

import svg

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


def work_of(entry: dict) -> dict:
    """FLOP and bytes of ours by phase. 2 FLOP per weight and token forward, 6 with backward, 4 where activations were
    kept; a prompt counts once for its group; the head counts where it is computed. Bytes: every weight once per decoded token and once for the
    prompts, keys and values as they are read; gradients and moments of AdamW read and written once."""
    weights, head = entry["n_parameters"] - entry["head_parameters"], entry["head_parameters"]
    if entry["kind"] == "train":
        rows = sampled = entry["sequences"] * entry["tokens"]
    else:
        group = entry.get("group", 1)
        sequences, new, prompt = entry["prompts"] * group, entry["new_tokens"], entry["prompt_tokens"]
        sampled = sequences * new
        rows = entry["prompts"] * prompt + sequences * (new - 1)
    forward = 2.0 * (weights * rows + head * sampled)
    passes = entry.get("micro_batches") or 1
    kept = 2.0 * weights * (entry.get("kept_rows") or 0)  # computed by generate already
    out = {"backward": {"flop": 3 * forward - kept, "bytes": 4.0 * entry["n_parameters"] * 4 * passes},
           "optimizer": {"flop": 12.0 * entry["n_parameters"], "bytes": 28.0 * entry["n_parameters"]}}
    if entry["kind"] != "train":
        shared = entry["prompts"] * prompt * (new - 1)  # a prompt's keys are read once for its group
        own = sequences * new * (new - 1) / 2
        size = {"f32": 4.0, "bf16": 2.0, "q8_0": 34 / 32}[entry.get("storage", "f32")]
        out["generate"] = {"flop": forward, "bytes": size * entry["n_parameters"] * new
                           + 4.0 * entry["kv_floats"] * (shared + own)}
    return out


def roofline(document: dict, entries: list) -> list:
    limits, rows = document["machine"]["limits"], []
    for entry in entries:
        if not entry["peer"].startswith("ours") or "seconds" not in entry or "n_parameters" not in entry:
            continue
        work = work_of(entry)
        for phase, seconds in (entry.get("phases") or {"generate": entry["seconds"]}).items():
            if phase not in work or not seconds or not limits["gflops"] or not limits["bandwidth"]:
                continue
            flop, count = work[phase]["flop"], work[phase]["bytes"]
            bound = max(flop / limits["gflops"], count / limits["bandwidth"]) * 1e-9
            rows.append([entry["line"] + (f" {entry['x']}" if "x" in entry else ""), entry["peer"], phase,
                         f"{flop * 1e-9:.1f}", f"{count * 1e-9:.2f}", f"{seconds:.3f}",
                         f"{flop / seconds * 1e-9:.0f}", f"{count / seconds * 1e-9:.1f}", f"{bound / seconds:.2f}"])
    return table(["line", "peer", "phase", "GFLOP", "GB", "s", "GFLOP/s", "GB/s", "share of the roofline"],
                 rows) if rows else []


def grpo_section(document: dict, case: str, plots: dict) -> list:
    out = []
    for line, entries in lines_of(document, case).items():
        rows, bars = [], []
        for entry in entries:
            if "seconds" not in entry:
                rows.append([entry["peer"], missing(entry)] + [""] * 7)
                continue
            phases = entry.get("phases", {})
            rows.append([entry["peer"], f"{entry['seconds']:.2f}", spread(entry), times_ours(entries, entry),
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
                rows.append([line, entry["peer"], missing(entry)] + [""] * 6)
                continue
            speed = entry["tokens"] / entry["seconds"]
            after = (entry["tokens"] - entry["prompts"]) / entry["decode"] if entry.get("decode") else 0.0
            rows.append([line, entry["peer"], f"{speed:.1f}", f"{entry['seconds']:.2f}", spread(entry),
                         times_ours(entries, entry), f"{entry.get('prefill', 0.0):.3f}", f"{after:.1f}",
                         gigabytes(entry["peak_rss"])])
            bars.append((entry["peer"], speed, []))
        groups.append((line, bars))
        shares += roofline(document, entries) if not shares else roofline(document, entries)[2:]
    plots["C-generation"] = svg.bars("Generation, 128-token prompts, 64 new tokens", groups, "tokens/s")
    shares = [row for row in shares if row]
    return table(["batch", "peer", "tokens/s", "s", "spread", "time in ours' times", "prompts, s",
                  "tokens/s after the prompts", "peak GB"], rows) + ["![generation](C-generation.svg)", ""] + shares + [""]


def simple_section(document: dict, case: str, plots: dict) -> list:
    out, groups = [], []
    for line, entries in lines_of(document, case).items():
        rows = [[entry["peer"], f"{entry['seconds']:.3f}", spread(entry), times_ours(entries, entry),
                 ", ".join(f"{name} {value:.2f}" for name, value in entry.get("phases", {}).items()),
                 gigabytes(entry["peak_rss"]) if "peak_rss" in entry else ""]
                if "seconds" in entry else [entry["peer"], missing(entry)] + [""] * 4 for entry in entries]
        groups.append((line, [(entry["peer"], entry["seconds"], []) for entry in entries if "seconds" in entry]))
        out += [f"### {line}", ""] + table(["peer", "s", "spread", "times ours", "phases, s", "peak GB"], rows)
        out += roofline(document, entries)
    plots[f"{case}-seconds"] = svg.bars(TITLES[case], groups, "s")
    out += [f"![{TITLES[case]}]({case}-seconds.svg)", ""]
    if case == "E" and document.get("sizes"):
        out += ["### Installed size", ""] + table(["what", "MB"], [[name, f"{size / 1e6:.1f}"]
                                                                  for name, size in document["sizes"].items()])
    return out


def growth_section(document: dict, case: str, plots: dict) -> list:
    out = []
    for axis, entries in lines_of(document, case).items():
        rows, seconds, memory = [], {}, {}
        for entry in entries:
            if "seconds" not in entry:
                rows.append([entry["x"], entry["peer"], missing(entry), "", "", ""])
                continue
            rows.append([entry["x"], entry["peer"], f"{entry['seconds']:.3f}", spread(entry),
                         ", ".join(f"{name} {value:.2f}" for name, value in entry["phases"].items()),
                         gigabytes(entry["peak_rss"])])
            seconds.setdefault(entry["peer"], []).append((entry["x"], entry["seconds"]))
            memory.setdefault(entry["peer"], []).append((entry["x"], entry["peak_rss"] / 1e9))
        name = re.sub(r"[^a-z]+", "-", axis.lower()).strip("-")
        plots[f"F-{name}-seconds"] = svg.lines(f"GRPO step by {axis}", axis, "s", seconds)
        plots[f"F-{name}-memory"] = svg.lines(f"Peak of resident memory by {axis}", axis, "GB", memory)
        out += [f"### By {axis}", ""] + table([axis, "peer", "s", "spread", "phases, s", "peak GB"], rows)
        out += [f"![seconds](F-{name}-seconds.svg)", "", f"![memory](F-{name}-memory.svg)", ""]
        out += roofline(document, entries)
    return out


SECTIONS = {"A": grpo_section, "B": grpo_section, "C": generation_section, "D": simple_section, "E": simple_section,
            "F": growth_section}


def write(document: dict, folder: pathlib.Path) -> None:
    machine, plots = document["machine"], {}
    kernels = sorted({line["kernel_set"] for line in document["lines"] if "kernel_set" in line})
    limits = machine["limits"]
    out = ["# libpolicygrad and its peers", "",
           f"{document['date']}; {machine['cpu']}, cores {machine['cores']}, {machine['threads']} threads each; kernel "
           f"set {', '.join(kernels) or 'unknown'}; commit {machine['commit'] or 'unknown'}; {machine['system']}; load "
           f"before the run {machine['load_before']:.2f}. Medians of {document['rounds']} interleaved rounds, each run "
           "in a process of its own.", "",
           f"Limits in the same run: best `bli_sgemm` {limits['gflops']:.0f} GFLOP/s, reading memory "
           f"{limits['bandwidth']:.1f} GB/s.", "",
           "Peers: " + ", ".join(f"{name} {version}" for name, version in document["versions"].items()) + ".", ""]
    for case, section in SECTIONS.items():
        if lines_of(document, case):
            out += [f"## {TITLES[case]}", ""] + section(document, case, plots)
    (folder / "report.md").write_text("\n".join(out))
    for name, plot in plots.items():
        (folder / f"{name}.svg").write_text(plot)


if __name__ == "__main__":
    target = pathlib.Path(sys.argv[2])
    target.mkdir(parents=True, exist_ok=True)
    write(json.loads(pathlib.Path(sys.argv[1]).read_text()), target)
