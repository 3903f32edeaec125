"""libpolicygrad through ctypes."""
from __future__ import annotations

import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "examples" / "python"))
import policygrad as pg  # noqa: E402

from common import Phases, learned_ids, main, now, prompts_of, reward_of  # noqa: E402

LEAN_BYTES = 1750 << 20  # what the lean line may take: the library chooses the rest


def context_of(case: dict) -> pg.Context:
    return pg.Context(os.environ.get("POLICYGRAD_LIBRARY"), n_threads=case["threads"],
                      memory_limit=LEAN_BYTES if case.get("lean") else 0)


def model_of(case: dict, context: pg.Context) -> pg.Model:
    if "config" in case:
        return pg.Model.create(context, json.dumps(case["config"]), 1)
    storage = case.get("storage", "f32")
    return pg.Model.load(context, case["model"], **({} if storage == "f32" else {
        "storage": storage, "frozen": 1}))


def prompts_for(case: dict, n_vocab: int) -> list:
    if "config" in case:
        return [[(i * 7919 + t * 104729) % n_vocab for t in range(case["prompt_tokens"])]
                for i in range(case["prompts"])]
    return [prompt["ids"] for prompt in prompts_of(case)]


def set_reward(rollout: pg.Rollout, i: int) -> None:
    rollout.set_array(pg.REWARDS, i, reward_of([int(token) for token in rollout.tokens(i)]))


def describe(context: pg.Context, model: pg.Model, report: pg.Report = None) -> dict:
    """What report.py counts work from. Recomputed: all of a layer but its last product, of all layers but the last."""
    info, size = context.info(), model.info()
    head, contract = size.n_vocab * size.n_embd, size.n_layers * size.n_ff * size.n_embd
    numbers = report.numbers() if report else {}
    return {"kernel_set": info.kernel_set_name, "library_bytes": info.memory_peak,
            "n_parameters": size.n_parameters, "head_parameters": head,
            "recomputed_parameters": (size.n_parameters - head - contract) * (size.n_layers - 1) // size.n_layers,
            "kv_floats": 2 * size.n_layers * size.n_kv_heads * size.head_dim,
            "query_floats": size.n_layers * size.n_heads * size.head_dim,
            "micro_batches": numbers.get("num_micro_batches"),
            **{name: numbers[name] for name in ("micro_batch_tokens", "recompute", "kept_rows") if name in numbers}}


def grpo(case: dict) -> dict:
    context = context_of(case)
    model = model_of(case, context)
    new = case["new_tokens"]
    ids = prompts_for(case, model.info().n_vocab)
    of_rollout = {"group_size": case["group"], "max_prompts": len(ids), "max_new_tokens": new,
                  "max_prompt_tokens": case["prompt_tokens"]}
    of_objective, of_optimizer = {}, {"learning_rate": 1e-6}
    if "micro_batch_tokens" in case:
        of_objective["micro_batch_tokens"] = case["micro_batch_tokens"]
    if case.get("lean"):
        of_optimizer["moments"] = pg.MOMENTS_Q8
        plan = model.estimate(rollout=of_rollout, objective=of_objective, optimizer=of_optimizer)
        of_rollout["batch_size"] = plan.batch_size
        of_objective = {"micro_batch_tokens": plan.micro_batch_tokens, "recompute": plan.recompute}
    rollout = pg.Rollout(model, None, **of_rollout)
    sampler = pg.Sampler(context, seed=1, min_new_tokens=new)
    advantage = pg.Advantage(context)
    objective = pg.Objective(model, **of_objective)
    optimizer = pg.Optimizer(model, **of_optimizer)
    for _ in range(1 + case.get("warm", 1)):  # the last is measured
        phases, report, started = Phases(), pg.Report(), now()
        with phases.of("generate"):
            rollout.clear()
            for prompt in ids:
                rollout.add_prompt(prompt)
            rollout.generate(sampler)
        with phases.of("other"):
            for i in range(len(rollout)):
                set_reward(rollout, i)
            advantage.apply(rollout)
        with phases.of("backward"):
            model.zero_grad()
            objective.backward(rollout, report)
        with phases.of("optimizer"):
            optimizer.step(report)
        seconds = now() - started
    tokens = sum(len(rollout.tokens(i)) for i in range(len(rollout)))
    assert tokens == len(ids) * case["group"] * new, tokens
    return {"seconds": seconds, "phases": dict(phases), "tokens": tokens, "batch_size": of_rollout.get("batch_size"),
            "moments": "q8" if case.get("lean") else "f32", **describe(context, model, report)}


def generate(case: dict) -> dict:
    context = context_of(case)
    try:
        model = model_of(case, context)
    except pg.Error as error:
        if case.get("storage", "f32") != "f32":
            return {"skipped": f"no storage {case['storage']}: {error}"}
        raise
    ids = prompts_for(case, model.info().n_vocab)
    rollout = pg.Rollout(model, None, group_size=1, max_prompts=len(ids), max_new_tokens=case["new_tokens"],
                         max_prompt_tokens=case["prompt_tokens"],
                         kv_storage={"f32": pg.KV_F32, "f16": pg.KV_F16}[case.get("kv", "f32")])
    sampler = pg.Sampler(context, seed=1, min_new_tokens=case["new_tokens"])
    prefilled = []

    def on_event(kind, sequence, token, text):
        if kind == 1 and len(prefilled) < len(ids):
            prefilled.append(now())
        return True

    for warm in range(case.get("warm", 1), -1, -1):
        prefilled.clear()
        rollout.clear()
        for prompt in ids:  # others to warm up with: the keys and values of a prompt are kept for the next rollout
            rollout.add_prompt(prompt[::-1] if warm else prompt)
        started = now()
        rollout.generate(sampler, on_event)
        last = now()
    return {"seconds": last - started, "prefill": prefilled[-1] - started, "decode": last - prefilled[-1],
            "tokens": len(ids) * case["new_tokens"], **describe(context, model)}


def train(case: dict) -> dict:
    context = context_of(case)
    model = model_of(case, context)
    rollout = pg.Rollout(model, None, group_size=1, max_prompts=case["sequences"], max_prompt_tokens=1,
                         max_new_tokens=case["tokens"], batch_size=1)
    for ids in learned_ids(case):
        group = rollout.add_prompt(ids[:1])
        rollout.add_sequence(group, ids[1:])
    objective = pg.Objective(model, loss=2)
    optimizer = pg.Optimizer(model, learning_rate=1e-6)
    for _ in range(1 + case.get("warm", 1)):
        phases, report, started = Phases(), pg.Report(), now()
        with phases.of("backward"):  # forward too
            model.zero_grad()
            objective.backward(rollout, report)
        with phases.of("optimizer"):
            optimizer.step(report)
        seconds = now() - started
    return {"seconds": seconds, "phases": dict(phases), "tokens": case["sequences"] * case["tokens"],
            **describe(context, model, report)}


def start(case: dict) -> dict:
    context = context_of(case)
    model = model_of(case, context)
    ids = prompts_of(case)[0]["ids"]
    with pg.Rollout(model, None, group_size=1, max_prompts=1, max_new_tokens=1,
                    max_prompt_tokens=len(ids)) as rollout, pg.Sampler(context, temperature=0) as sampler:
        rollout.add_prompt(ids)
        rollout.generate(sampler)
        return {"token": int(rollout.tokens(0)[0])}


if __name__ == "__main__":
    main({"grpo": grpo, "generate": generate, "train": train, "start": start})
