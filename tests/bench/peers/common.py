"""What the workers share. A worker is one program for one peer: it gets a case as JSON in argv[1], warms up, measures
one step, and writes one line of JSON. Each runs in a process of its own, so that its peak of resident memory is its
own too."""
from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections import defaultdict

now = time.perf_counter


def peak_rss(process="self") -> int:
    """Bytes: the most a process ever held, this one unless told another's id."""
    with open(f"/proc/{process}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


class Phases(defaultdict):
    """Seconds by name, added up."""

    def __init__(self):
        super().__init__(float)

    @contextlib.contextmanager
    def of(self, name: str):
        started = now()
        yield
        self[name] += now() - started


def reward_of(ids) -> float:
    """The same reward in every peer: the mean token id. No two completions of a group have the same one, so that every
    completion has an advantage to learn from."""
    return sum(ids) / len(ids)


def prompts_of(case: dict) -> list:
    """The case's first n prompts: {"text", "ids"}, written by prepare.py."""
    with open(os.path.join(case["data"], "prompts.json")) as file:
        prompts = json.load(file)[str(case["prompt_tokens"])]
    return prompts[:case["prompts"]]


def learned_ids(case: dict) -> list:
    """Sequences for the supervised step: tokens + 1 ids each, of which all but the first are learned."""
    return [[(i * 7919 + t * 104729) % case["vocabulary"] for t in range(case["tokens"] + 1)]
            for i in range(case["sequences"])]


def main(kinds: dict) -> None:
    """Runs kinds[case["kind"]](case) and writes its result. Whatever else the peer prints goes to stderr."""
    case = json.loads(sys.argv[1])
    out = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    result = kinds[case["kind"]](case)
    result.setdefault("peak_rss", peak_rss())
    out.write(json.dumps(result) + "\n")
    out.flush()
    os._exit(0)  # a peer's threads may hang in their destructors; nothing is left to be saved
