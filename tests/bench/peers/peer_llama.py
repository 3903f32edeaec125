"""llama.cpp through llama-cpp-python's low-level calls: several sequences in one llama_batch."""
from __future__ import annotations

import os

import llama_cpp as lc

from common import main, now, prompts_of


class Session:
    def __init__(self, case: dict, n: int):
        lc.llama_backend_init()
        params = lc.llama_model_default_params()
        params.n_gpu_layers = 0
        path = os.path.join(case["data"], f"smollm2-{case.get('storage', 'f32')}.gguf")
        self.model = lc.llama_model_load_from_file(path.encode(), params)
        assert self.model, path
        context = lc.llama_context_default_params()
        context.n_seq_max = n
        context.n_ctx = n * (case["prompt_tokens"] + case.get("new_tokens", 1) + 1)
        context.n_batch = max(512, n)
        context.n_threads = context.n_threads_batch = case["threads"]
        if hasattr(context, "kv_unified"):
            context.kv_unified = False
        self.context = lc.llama_init_from_model(self.model, context)
        assert self.context
        self.capacity = context.n_batch
        self.batch = lc.llama_batch_init(self.capacity, 0, 1)
        self.samplers = []
        for i in range(n):
            chain = lc.llama_sampler_chain_init(lc.llama_sampler_chain_default_params())
            lc.llama_sampler_chain_add(chain, lc.llama_sampler_init_dist(i))
            self.samplers.append(chain)

    def clear(self) -> None:
        lc.llama_memory_clear(lc.llama_get_memory(self.context), True)

    def decode(self, rows: list) -> None:
        """rows: (token, position, sequence, wants logits)."""
        for i, (token, position, sequence, wanted) in enumerate(rows):
            self.batch.token[i], self.batch.pos[i] = token, position
            self.batch.n_seq_id[i], self.batch.seq_id[i][0] = 1, sequence
            self.batch.logits[i] = wanted
        self.batch.n_tokens = len(rows)
        status = lc.llama_decode(self.context, self.batch)
        assert status == 0, status

    def prefill(self, prompts: list) -> list:
        """As many whole and part prompts a batch as fit; the first token of each sequence."""
        rows = [(token, at, i, at == len(ids) - 1) for i, ids in enumerate(prompts) for at, token in enumerate(ids)]
        first = {}
        for at in range(0, len(rows), self.capacity):
            part = rows[at:at + self.capacity]
            self.decode(part)
            for i, (_, _, sequence, wanted) in enumerate(part):
                if wanted:
                    first[sequence] = self.pick(sequence, i)
        return [first[i] for i in range(len(prompts))]

    def pick(self, sequence: int, row: int) -> int:
        return lc.llama_sampler_sample(self.samplers[sequence], self.context, row)


def generate(case: dict) -> dict:
    ids = [prompt["ids"] for prompt in prompts_of(case)]
    n, new = len(ids), case["new_tokens"]
    session = Session(case, n)
    for _ in range(1 + case.get("warm", 1)):
        session.clear()
        started = now()
        tokens = session.prefill(ids)
        first = now()
        for t in range(1, new):
            session.decode([(tokens[i], case["prompt_tokens"] + t - 1, i, True) for i in range(n)])
            tokens = [session.pick(i, i) for i in range(n)]
        ended = now()
    return {"seconds": ended - started, "prefill": first - started, "decode": ended - first, "tokens": n * new,
            "system": lc.llama_print_system_info().decode().strip()}


def start(case: dict) -> dict:
    session = Session(case, 1)
    return {"token": session.prefill([prompts_of(case)[0]["ids"]])[0]}


if __name__ == "__main__":
    main({"generate": generate, "start": start})
