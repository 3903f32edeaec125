#!/usr/bin/env python3
"""The peers' report from a stored result, and the list of cases. usage: test_report.py"""
import json
import os
import pathlib
import re
import shutil
import sys
import tempfile
import unittest
import unittest.mock
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import cases  # noqa: E402
import peer_llmc  # noqa: E402
import peers  # noqa: E402
import report  # noqa: E402
import work  # noqa: E402

# 10 weights, 4 of them the head; 2 prompts of 3 tokens, groups of 2, 5 new tokens.
STEP = {"kind": "grpo", "n_parameters": 10, "head_parameters": 4, "recomputed_parameters": 3, "kv_floats": 1,
        "query_floats": 2, "prompts": 2, "group": 2, "prompt_tokens": 3, "new_tokens": 5}
LINE = cases.runs("A")[0]["line"]
# Lines as the trainer of llm.c prints them.
LLMC = """[GPT-2]
max_seq_len: 1024
num_parameters: 124475904
train dataset num_batches: 298
val dataset num_batches: 32
num_activations: 292341760
val loss 5.325413
step 0: train loss 5.356189 (took 2250.500000 ms)
step 1: train loss 4.301069 (took 2125.250000 ms)
step 2: train loss 4.623322 (took 2030.000000 ms)
"""


class Test(unittest.TestCase):
    def setUp(self):
        self.document = report.loaded((HERE / "sample.json").read_text())
        self.folder = tempfile.TemporaryDirectory()
        self.path = pathlib.Path(self.folder.name)
        report.write(self.document, self.path)
        self.text = (self.path / "report.md").read_text()

    def tearDown(self):
        self.folder.cleanup()

    def test_every_case_is_told(self):
        for case, title in report.TITLES.items():
            self.assertTrue(report.lines_of(self.document, case), f"sample.json has no case {case}")
            self.assertIn(f"## {title}\n", self.text)
        for line in self.document["lines"]:
            self.assertIn(line["peer"], self.text)
            if "skipped" in line:
                self.assertIn(line["skipped"], self.text)

    def test_ratios_are_to_ours(self):
        entries = report.lines_of(self.document, "A")[LINE]
        self.assertEqual([report.times_ours(entries, entry) for entry in entries],
                         ["1.00", "1.60", "6.00", "7.00", "8.00"])
        self.assertIn("| 8.00 |", self.text)

    def test_ratios_of_the_aims(self):
        written = json.loads((self.path / "report.json").read_text())["ratios"]
        self.assertEqual(written, report.ratios_of(self.document))
        found = {(ratio["case"], ratio["line"], ratio["peer"], ratio["ours"]): ratio for ratio in written}
        step = found["A", LINE, "TRL, defaults", "ours"]
        self.assertEqual((step["seconds"], step["peak_rss"]), (6.0, 1.35))
        self.assertEqual(step["aim"], {"seconds": 6.0, "peak_rss": 3.0})
        self.assertEqual(found["A", LINE, "TRL, defaults", "ours, lean"]["peak_rss"], 5.4 / 1.6)
        self.assertEqual(found["C", "batch 32", "transformers f32", "ours f32"]["aim"], {"seconds": 6.0})
        narrow = found["C", "batch 8", "llama.cpp f32", "ours f32, f16 cache"]
        self.assertEqual((narrow["seconds"], narrow["decode"]), (2.5 / 1.9, 1.8 / 1.4))
        self.assertNotIn(("C", "batch 8", "llama.cpp q8_0", "ours q8_0"), found)  # ours was skipped
        self.assertNotIn(("B", "long step", "TRL, defaults", "ours"), found)  # the peer failed
        self.assertIn("TRL, defaults / ours | 6.00 |  | 1.35 | time 6, memory 3 |", self.text)

    def test_pairs_are_of_cases(self):
        there = {(run["case"], run["peer"]) for run in cases.everything()}
        for case, pairs in report.PAIRS.items():
            self.assertLessEqual({(case, peer) for pair in pairs for peer in pair}, there)
        pairs = {(case, *pair) for case, pairs in report.PAIRS.items() for pair in pairs}
        self.assertLessEqual(set(report.AIMS), pairs)

    def test_roofline(self):
        done = work.work_of(STEP)
        pairs = {"prompts": 2 * (1 + 2 + 3), "completions": 4 * (4 + 5 + 6 + 7)}
        self.assertEqual(done["prompts"], [(2 * 2 * (6 * 3 + 4) + 4 * 2 * pairs["prompts"], 4 * (10 + 2 * 3))])
        self.assertEqual(done["decoding"], [(2 * 16 * 10 + 4 * 2 * pairs["completions"],
                                             4 * 10 * 4 + 4 * (2 * 3 * 4 + 4 * (1 + 2 + 3 + 4) + 16))])
        self.assertEqual(done["generate"], done["prompts"] + done["decoding"])
        self.assertEqual(done["backward"], [(6 * (6 * 22 + 4 * 20) + 12 * 2 * sum(pairs.values()), 16 * 10 + 4 * 10)])
        self.assertEqual(done["optimizer"][0][1], 32 * 10)

    def test_roofline_of_kept_rows(self):
        """Nothing forward but the head, and of the other weights one reading less."""
        self.assertEqual(work.work_of({**STEP, "kept_rows": 22})["backward"],
                         [(4 * 6 * 22 + 6 * 4 * 20 + 8 * 2 * 100, 16 * 10 - 4 * 6 + 4 * 10)])

    def test_roofline_of_lean(self):
        """A completion in each micro-batch, with its prompt; two decoded at once."""
        lean = {**STEP, "micro_batch_tokens": 10, "recompute": 1, "kept_rows": 0, "moments": "q8", "batch_size": 2}
        done = work.work_of(lean)
        self.assertEqual(work.micro_batches_of(lean), [[1], [1], [1], [1]])
        self.assertEqual(done["backward"], [((6 * 6 + 2 * 3) * 28 + 6 * 4 * 20 + 16 * 2 * (4 * 6 + 88),
                                             4 * (16 * 10 + 4 * 3) + 4 * 10)])
        self.assertEqual(done["optimizer"][0][1], (16 + 4 * (1 + 1 / 64)) * 10)
        self.assertEqual(work.work_of({**lean, "moments": "bf16"})["optimizer"][0][1], 24 * 10)
        self.assertEqual(done["decoding"][0][1] - work.work_of(STEP)["decoding"][0][1], 4 * 10 * 4)

    def test_roofline_of_training(self):
        self.assertEqual(work.work_of({**STEP, "kind": "train", "sequences": 2, "tokens": 3})["backward"],
                         [(6 * 10 * 6 + 12 * 2 * 2 * (1 + 2 + 3), 16 * 10 + 4 * 10)])

    def test_roofline_of_narrow_storage(self):
        wide, narrow = (work.work_of({**STEP, **more}) for more in ({}, {"storage": "bf16", "kv": "f16"}))
        for phase in ("prompts", "decoding"):
            self.assertEqual(narrow[phase], [(wide[phase][0][0], wide[phase][0][1] / 2)])

    def test_micro_batches(self):
        """As the library cuts them: rows 7, 11 | 18 with the second prompt."""
        self.assertEqual(work.micro_batches_of({**STEP, "micro_batch_tokens": 17}), [[2], [2]])
        self.assertEqual(work.micro_batches_of({**STEP, "micro_batch_tokens": 18}), [[2, 1], [1]])
        self.assertEqual(work.micro_batches_of({**STEP, "micro_batch_tokens": 1}), [[1]] * 4)
        self.assertEqual(work.micro_batches_of(STEP), [[2, 2]])

    def test_bounds_are_added_part_by_part(self):
        """Prompts are bound by FLOP, 184 at 2.5, decoding by bytes, 480: 553.6 ns."""
        document = {"runs": {"day": {"machine": {"limits": {"gflops": 2.5, "bandwidth": 1.0}}}}}
        entry = {**STEP, "line": "step", "peer": "ours", "date": "day", "seconds": 1.0,
                 "phases": {"generate": 1107.2e-9}}
        self.assertTrue(report.roofline(document, [entry])[2].endswith("| 0.50 |"))

    def test_generation_has_two_phases(self):
        self.assertIn("| batch 8 | ours f32 | prompts |", self.text)
        self.assertIn("| batch 8 | ours f32 | decoding |", self.text)

    def test_lines_of_another_run_stay(self):
        runs = [dict(entry) for entry in self.document["lines"]]
        now = [{**entry, "seconds": 1.0, "date": "2026-02-02T00:00+00:00"} for entry in runs
               if entry["case"] == "A" and entry["peer"] == "ours, lean"]
        lines = peers.merged(runs, now, "A", "lean")
        self.assertEqual(len(lines), len(runs))
        self.assertEqual([entry["seconds"] for entry in lines if entry["case"] == "A"], [5.0, 1.0, 30.0, 35.0, 40.0])
        whole = peers.merged(runs, now, "A", "")
        self.assertEqual([entry["peer"] for entry in whole if entry["case"] == "A"], ["ours, lean"])
        old, machine = next(iter(self.document["runs"].items()))
        limits = {"gflops": 100.0, "bandwidth": 50.0}
        other = {**machine, "machine": {**machine["machine"], "commit": "abcdef0", "limits": limits}}
        report.write({"runs": {old: machine, now[0]["date"]: other, "unused": machine}, "lines": lines}, self.path)
        text = (self.path / "report.md").read_text()
        self.assertIn(f"[2] {now[0]['date']}", text)
        self.assertIn("commit abcdef0", text)
        self.assertNotIn("unused", text)
        self.assertIn("| ours, lean [2] | 1.00 |", text)
        self.assertIn("| TRL, defaults [1] | 30.00 |", text)
        self.assertIn("TRL, defaults / ours, lean (of two runs)", text)
        self.assertIs(report.limits_of({"runs": {old: machine, now[0]["date"]: other}}, now[0]), limits)

    def test_a_report_without_runs(self):
        """As it was written before lines had dates."""
        run = next(iter(self.document["runs"].values()))
        lines = [{key: value for key, value in entry.items() if key != "date"} for entry in self.document["lines"]]
        old = report.loaded(json.dumps({"date": "2026-01-01T00:00+00:00", **run, "lines": lines}))
        self.assertEqual((old["runs"], old["lines"]), (self.document["runs"], self.document["lines"]))

    def test_growth_crosses(self):
        axes = report.axes_of(self.document)
        for axis, x in (("prompt length", [128, 256, 512, 2048, 8160]), ("group size", [2, 4, 8, 16, 32])):
            self.assertEqual([entry["x"] for entry in axes[axis] if entry["peer"] == "ours"], x)
        self.assertEqual(len({id(entry) for entry in axes["model size, million parameters"]}), 8)

    def test_llmc(self):
        text = "int main() {\n    int B = 4; // batch\n    int T = 64; // length\n    int n = B;\n"
        self.assertIn("int T = 256; // length", peer_llmc.source_of(text, 4, 256))
        with self.assertRaisesRegex(SystemExit, "int T = NUMBER"):
            peer_llmc.source_of(text.replace("int T", "long T"), 4, 256)
        with unittest.mock.patch.dict(os.environ, {"PEERS_LLMC": ""}):
            self.assertEqual(peer_llmc.train({}), {"skipped": "no PEERS_LLMC"})

    @unittest.skipUnless(shutil.which("cc") and shutil.which("stdbuf"), "needs cc and stdbuf")
    @unittest.mock.patch.object(peer_llmc, "FLAGS", [])  # a compiler may lack OpenMP
    def test_llmc_runs(self):
        """A program that prints what the trainer prints, and goes on; then one that ends early."""
        case = {"sequences": 4, "tokens": 256, "warm": 1}
        program = ("#include <stdio.h>\n#include <unistd.h>\nint main(void) {\n    int B = 4;\n    int T = 64;\n"
                   "    printf(%s, B, T);\n    %s;\n    return 1;\n}\n")
        with unittest.mock.patch.dict(os.environ, {"PEERS_LLMC": str(self.path), "CC": "cc"}):
            (self.path / "train_gpt2.c").write_text(program % (json.dumps("%d %d\n" + LLMC), "sleep(600)"))
            result = peer_llmc.train(case)
            self.assertEqual((result["seconds"], result["tokens"]), (2.12525, 1024))
            self.assertGreater(result["peak_rss"], 0)
            said = json.dumps("%d x %d: Error: no such file\n")
            (self.path / "train_gpt2.c").write_text(program % (said, "sleep(0)"))
            with self.assertRaisesRegex(SystemExit, "after 0 steps: 4 x 256: Error: no such file"):
                peer_llmc.train(case)

    def test_tables_are_whole(self):
        width = 0
        for line in self.text.splitlines():
            columns = line.count("|") if line.startswith("|") else 0
            self.assertTrue(columns == width or width == 0 or columns == 0, line)
            width = columns

    def test_plots_are_drawn(self):
        named = set(re.findall(r"\]\(([^)]+\.svg)\)", self.text))
        self.assertEqual(named, {path.name for path in self.path.glob("*.svg")})
        for name in named:
            root = xml.etree.ElementTree.parse(self.path / name).getroot()
            self.assertTrue(list(root), name)
            self.assertNotIn("nan", (self.path / name).read_text())

    def test_cases(self):
        everything = cases.runs("A,B,C,D,E,F")
        for run in everything:
            worker = HERE / ("peer_start.c" if run["worker"] == "start" else f"peer_{run['worker']}.py")
            self.assertTrue(worker.exists(), worker)
            if run["worker"] != "start":
                self.assertIn(f'"{run["kind"]}": {run["kind"]}', worker.read_text())
        keys = [cases.key_of(run) for run in everything]
        self.assertEqual(len(keys), len(set(keys)))
        steps = [json.dumps([run["config"], *(run[field] for field in cases.BASE), run["peer"]])
                 for run in everything if run["case"] == "F"]
        self.assertEqual(len(steps), len(set(steps)))  # where axes cross they share a run


if __name__ == "__main__":
    unittest.main()
