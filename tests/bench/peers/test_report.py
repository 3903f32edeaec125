#!/usr/bin/env python3
"""The peers' report from a stored result, and the list of cases. usage: test_report.py"""
import json
import pathlib
import re
import sys
import tempfile
import unittest
import xml.etree.ElementTree

HERE = pathlib.Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
import cases  # noqa: E402
import report  # noqa: E402


class Test(unittest.TestCase):
    def setUp(self):
        self.document = json.loads((HERE / "sample.json").read_text())
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
        entries = report.lines_of(self.document, "A")["step"]
        self.assertEqual([report.times_ours(entries, entry) for entry in entries], ["1.00", "8.00"])
        self.assertIn("| 8.00 |", self.text)

    def test_roofline(self):
        """10 weights, 4 of them the head; 2 prompts of 3 tokens, groups of 2, 5 new tokens."""
        work = report.work_of({"kind": "grpo", "n_parameters": 10, "head_parameters": 4, "kv_floats": 1, "prompts": 2,
                               "group": 2, "prompt_tokens": 3, "new_tokens": 5, "micro_batches": 1})
        self.assertEqual(work["generate"]["flop"], 2 * (6 * (2 * 3 + 4 * 4) + 4 * 4 * 5))
        self.assertEqual(work["backward"]["flop"], 3 * work["generate"]["flop"])
        self.assertEqual(work["generate"]["bytes"], 4 * 10 * 5 + 4 * (2 * 3 * 4 + 4 * 10))

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
        keys = [(run["case"], run["line"], run.get("x"), run["peer"]) for run in everything]
        self.assertEqual(len(keys), len(set(keys)))


if __name__ == "__main__":
    unittest.main()
