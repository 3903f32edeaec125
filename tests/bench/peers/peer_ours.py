"""libpolicygrad through ctypes."""
from __future__ import annotations

import ctypes
import json
import os
import pathlib
import sys

sys.path.insert(0, str(pathlib.Path(__file__).resolve().parents[3] / "examples" / "python"))
import policygrad as pg  # noqa: E402

from common import Phases, learned_ids, main, now, prompts_of, reward_of  # noqa: E402

STORAGE = {"f32": 0, "bf16": 1, "q8_0": 2}
EVENT_TOKEN = 1


class Event(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("kind", ctypes.c_uint32)]


class GenerateParams(ctypes.Structure):
    _fields_ = [("struct_size", ctypes.c_size_t), ("event", ctypes.c_void_p), ("user", ctypes.c_void_p),
                ("max_seconds", ctypes.c_double)]


EventFunction = ctypes.CFUNCTYPE(ctypes.c_int32, ctypes.c_void_p, ctypes.c_void_p, ctypes.POINTER(Event))


def context_of(case: dict) -> pg.Context:
    return pg.Context(os.environ.get("POLICYGRAD_LIBRARY"), n_threads=case["threads"])


def model_of(case: dict, context: pg.Context) -> pg.Model:
    if "config" in case:
        return pg.Model.create(context, json.dumps(case["config"]), 1)
    storage = case.get("storage", "f32")
    return pg.Model.load(context, case["model"], **({} if storage == "f32" else {
        "storage": STORAGE[storage], "frozen": 1}))


def prompts_for(case: dict, n_vocab: int) -> list:
    if "config" in case:
        return [[(i * 7919 + t * 104729) % n_vocab for t in range(case["prompt_tokens"])]
                for i in range(case["prompts"])]
    return [prompt["ids"] for prompt in prompts_of(case)]


def set_reward(rollout: pg.Rollout, i: int) -> None:
    value = (ctypes.c_float * 1)(reward_of([int(token) for token in rollout.tokens(i)]))
    pg._check(pg._library.pgrad_rollout_set_array(rollout.pointer, ctypes.c_uint32(pg.REWARDS), ctypes.c_uint32(i),
                                                  value, ctypes.c_size_t(1)))


def describe(context: pg.Context, model: pg.Model) -> dict:
    info, size = context.info(), model.info()
    return {"kernel_set": info.kernel_set_name.decode(), "library_bytes": info.memory_peak,
            "n_parameters": size.n_parameters, "head_parameters": size.n_vocab * size.n_embd,
            "kv_floats": 2 * size.n_layers * size.n_kv_heads * size.head_dim}


def grpo(case: dict) -> dict:
    context = context_of(case)
    model = model_of(case, context)
    new = case["new_tokens"]
    ids = prompts_for(case, model.info().n_vocab)
    rollout = pg.Rollout(model, None, group_size=case["group"], max_prompts=len(ids), max_new_tokens=new,
                         max_prompt_tokens=case["prompt_tokens"])
    sampler = pg.Sampler(context, seed=1, min_new_tokens=new)
    advantage, objective = pg.Advantage(context), pg.Objective(model)
    optimizer = pg.Optimizer(model, learning_rate=1e-6)
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
    return {"seconds": seconds, "phases": dict(phases), "tokens": tokens,
            "micro_batches": report.numbers().get("n_micro_batches"), **describe(context, model)}


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
                         max_prompt_tokens=case["prompt_tokens"])
    sampler = pg.Sampler(context, seed=1, min_new_tokens=case["new_tokens"])
    prefilled, last = [], [0.0]

    def on_event(user, handle, event):
        if event.contents.kind == EVENT_TOKEN and len(prefilled) < len(ids):
            prefilled.append(now())
        return 1

    callback = EventFunction(on_event)
    params = GenerateParams(ctypes.sizeof(GenerateParams))
    pg._library.pgrad_generate_params_init(ctypes.byref(params), ctypes.c_size_t(ctypes.sizeof(params)))
    params.event = ctypes.cast(callback, ctypes.c_void_p)
    for _ in range(1 + case.get("warm", 1)):
        prefilled.clear()
        rollout.clear()
        for prompt in ids:
            rollout.add_prompt(prompt)
        started = now()
        pg._check(pg._library.pgrad_rollout_generate(rollout.pointer, sampler.pointer, ctypes.byref(params)))
        last[0] = now()
    return {"seconds": last[0] - started, "prefill": prefilled[-1] - started, "decode": last[0] - prefilled[-1],
            "tokens": len(ids) * case["new_tokens"], **describe(context, model)}


def train(case: dict) -> dict:
    context = context_of(case)
    model = model_of(case, context)
    rollout = pg.Rollout(model, None, group_size=1, max_prompts=case["sequences"], max_prompt_tokens=1,
                         max_new_tokens=case["tokens"], batch_size=1)
    for ids in learned_ids(case):
        group = rollout.add_prompt(ids[:1])
        pg._check(pg._library.pgrad_rollout_add_sequence(
            rollout.pointer, ctypes.c_uint32(group), (ctypes.c_int32 * case["tokens"])(*ids[1:]),
            ctypes.c_size_t(case["tokens"]), None))
    objective = pg.Objective(model, loss=2)
    optimizer = pg.Optimizer(model, learning_rate=1e-6)
    for _ in range(1 + case.get("warm", 1)):
        phases, started = Phases(), now()
        with phases.of("backward"):  # forward too
            model.zero_grad()
            objective.backward(rollout)
        with phases.of("optimizer"):
            optimizer.step()
        seconds = now() - started
    return {"seconds": seconds, "phases": dict(phases), "tokens": case["sequences"] * case["tokens"],
            **describe(context, model)}


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
