#!/usr/bin/env python3
"""Runs the cases in interleaved rounds, each run in a process of its own, and writes report.json; then report.py.
Called by run.sh, which installs and builds what this needs."""
from __future__ import annotations

import argparse
import datetime
import json
import os
import pathlib
import platform
import statistics
import subprocess
import sys
import time

import cases
import report
from sizes import installed_sizes

HERE = pathlib.Path(__file__).resolve().parent


def command_of(run: dict, options) -> list:
    case = {**run, "warm": options.warm, "data": str(options.data), "model": str(options.data / "smollm2")}
    if run["worker"] == "start":
        prompts = json.loads((options.data / "prompts.json").read_text())[str(run["prompt_tokens"])]
        command = [str(options.build / "tests/bench/peer_start"), case["model"], *map(str, prompts[0]["ids"])]
    else:
        python = sys.executable if run["worker"] == "ours" else str(options.venv / "bin" / "python")
        command = [python, str(HERE / f"peer_{run['worker']}.py"), json.dumps(case)]
    return ["taskset", "-c", options.cores, *command]


def measure(run: dict, options) -> dict:
    """One run; {"failed": why} when it has no result."""
    environment = {**os.environ, "OMP_NUM_THREADS": str(run["threads"]), "HF_HUB_OFFLINE": "1",
                   "TOKENIZERS_PARALLELISM": "false", "HF_HUB_DISABLE_PROGRESS_BARS": "1",
                   "TORCHINDUCTOR_CACHE_DIR": str(options.data / "inductor"),
                   "POLICYGRAD_LIBRARY": str(options.build / "lib/libpolicygrad.so")}
    started = time.perf_counter()
    try:
        done = subprocess.run(command_of(run, options), env=environment, capture_output=True, text=True,
                              timeout=options.timeout)
    except subprocess.TimeoutExpired:
        return {"failed": f"no end after {options.timeout} s"}
    seconds = time.perf_counter() - started
    if done.returncode != 0 or not done.stdout.strip():
        why = done.stderr.strip().splitlines() or [f"status {done.returncode}"]
        return {"failed": why[-1][:300]}
    result = json.loads(done.stdout.strip().splitlines()[-1])
    if run["kind"] == "start":  # the process as a whole, its interpreter and its imports included
        result["seconds"] = seconds
    return result


def tune(runs: list, options) -> None:
    """Gives runs with a choice of micro-batches the fastest of them, by one run each before the rounds."""
    for run in runs:
        choices = run.pop("tuned", None)
        if not choices:
            continue
        run["micro"] = min(choices, key=lambda micro: abs(micro - 8))
        if not options.tune:
            continue
        tried = {micro: measure({**run, "micro": micro}, options) for micro in choices}
        run["tuning"] = {micro: result.get("seconds", result.get("failed")) for micro, result in tried.items()}
        fit = {micro: result["seconds"] for micro, result in tried.items() if "seconds" in result}
        if fit:
            run["micro"] = min(fit, key=fit.get)
        print(f"  {run['peer']}: micro-batch {run['micro']} of {run['tuning']}", flush=True)


def summary(run: dict, results: list) -> dict:
    """Medians and spread over the rounds."""
    kept = {key: value for key, value in run.items() if key not in ("config", "threads")}
    good = [result for result in results if "seconds" in result]
    if not good:
        return {**kept, **results[-1]}
    out = {**kept, "rounds": len(good), "lowest": min(r["seconds"] for r in good),
           "highest": max(r["seconds"] for r in good)}
    for field in ("seconds", "prefill", "decode", "peak_rss", "library_bytes"):
        if field in good[0]:
            out[field] = statistics.median(result[field] for result in good)
    if "phases" in good[0]:
        out["phases"] = {name: statistics.median(result["phases"].get(name, 0.0) for result in good)
                         for name in good[0]["phases"]}
    for field, value in good[-1].items():
        out.setdefault(field, value)
    if len(good) < len(results):
        out["failed_rounds"] = len(results) - len(good)
    return out


def first_line(command: list, environment=None) -> str:
    try:
        done = subprocess.run(command, capture_output=True, text=True, env={**os.environ, **(environment or {})})
        return done.stdout.strip().splitlines()[0] if done.returncode == 0 and done.stdout.strip() else ""
    except OSError:
        return ""


def limits_of_machine(options) -> dict:
    """The peak in GFLOP/s as tests/bench/run.sh takes it, and the memory's reading rate in GB/s."""
    pin, bench, rates = ["taskset", "-c", options.cores], options.build / "tests/bench", {}
    avx512 = "avx512f" in pathlib.Path("/proc/cpuinfo").read_text()
    for kernels in ("haswell", "zen2", "zen3", *(["skx"] if avx512 else [])):
        rate = first_line([*pin, str(bench / "bench_blis")],
                          {"BLIS_ARCH_TYPE": kernels, "BLIS_NUM_THREADS": "2", "OMP_NUM_THREADS": "2"})
        if rate:
            rates[kernels] = float(rate)
    return {"gflops": max(rates.values(), default=0.0), "sgemm": rates,
            "bandwidth": float(first_line([*pin, str(bench / "bench_stream")]) or 0.0)}


def machine_of(options) -> dict:
    lines = pathlib.Path("/proc/cpuinfo").read_text().splitlines()
    cpu = next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), platform.machine())
    ours = subprocess.run(["git", "-C", str(HERE), "rev-parse", "--short", "HEAD"], capture_output=True, text=True)
    return {"cpu": cpu, "cores": options.cores, "threads": cases.THREADS, "system": platform.platform(),
            "python": platform.python_version(), "commit": ours.stdout.strip(),
            "load_before": os.getloadavg()[0], "limits": limits_of_machine(options)}


def merged(before: list, now: list, case: str, line: str) -> list:
    """The lines of a report after a run of the lines of a case that were chosen: others stay as they were."""
    place = {cases.key_of(run): i for i, run in enumerate(cases.everything())}
    stay = [entry for entry in before if entry["case"] != case or not cases.is_chosen(entry, line)]
    return sorted(stay + now, key=lambda entry: (entry["case"], place.get(cases.key_of(entry), len(place))))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", default="A,B,C,D,E,F")
    parser.add_argument("--line", default="", help="only lines or peers whose name holds this")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=pathlib.Path, default=pathlib.Path("peers-out"))
    parser.add_argument("--cores", default="0,1")
    parser.add_argument("--timeout", type=int, default=3600)
    parser.add_argument("--no-tune", dest="tune", action="store_false", help="micro-batch 8 without trying others")
    parser.add_argument("--warm", type=int, default=1, help="steps before the measured one; 0 for a quick look")
    parser.add_argument("--build", type=pathlib.Path, required=True)
    parser.add_argument("--venv", type=pathlib.Path, required=True)
    parser.add_argument("--data", type=pathlib.Path, required=True)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    path = options.out / "report.json"
    document = report.loaded(path.read_text()) if path.exists() else {"runs": {}, "lines": []}
    date = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    versions = first_line([str(options.venv / "bin" / "python"), str(HERE / "sizes.py"), "versions"])
    document["runs"][date] = {"machine": machine_of(options), "rounds": options.rounds,
                              "versions": json.loads(versions or "{}")}
    if "E" in options.cases.split(","):
        document["sizes"] = installed_sizes(options)
    for case in options.cases.split(","):
        runs = cases.runs(case, options.line)
        tune(runs, options)
        results: list = [[] for _ in runs]
        for round_number in range(options.rounds):
            for run, list_of_results in zip(runs, results):
                if any("seconds" not in result for result in list_of_results):
                    continue  # skipped or failed once: not tried again
                result = measure(run, options)
                list_of_results.append(result)
                told = f"{result['seconds']:.2f} s" if "seconds" in result else str(result)
                print(f"{case} round {round_number + 1}: {run['line']} {run.get('x', '')} {run['peer']}: {told}",
                      flush=True)
        lines = [{**summary(run, found), "date": date} for run, found in zip(runs, results)]
        document["lines"] = merged(document["lines"], lines, case, options.line)
        report.write(document, options.out)
    print(options.out / "report.md")


if __name__ == "__main__":
    main()
