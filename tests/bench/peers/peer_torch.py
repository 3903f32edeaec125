"""PyTorch by hand: transformers' model and `generate` with its cache, one forward and backward, torch's fused AdamW."""
from __future__ import annotations

import torch
import transformers

from common import Phases, learned_ids, main, now, prompts_of, reward_of

transformers.logging.set_verbosity_error()


def model_of(case: dict):
    torch.set_num_threads(case["threads"])
    torch.manual_seed(1)
    dtype = {"f32": torch.float32, "bf16": torch.bfloat16}[case.get("storage", "f32")]
    if "config" in case:
        config = transformers.AutoConfig.for_model(**case["config"])
        return transformers.AutoModelForCausalLM.from_config(config, dtype=dtype)
    return transformers.AutoModelForCausalLM.from_pretrained(case["model"], dtype=dtype)


def prompts_for(case: dict, model) -> torch.Tensor:
    if "config" in case:
        return torch.tensor([[(i * 7919 + t * 104729) % model.config.vocab_size
                              for t in range(case["prompt_tokens"])] for i in range(case["prompts"])])
    return torch.tensor([prompt["ids"] for prompt in prompts_of(case)])


def sample(model, ids: torch.Tensor, new_tokens: int, **more) -> torch.Tensor:
    with torch.no_grad():
        return model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=True, temperature=1.0,
                              top_k=0, top_p=1.0, min_new_tokens=new_tokens, max_new_tokens=new_tokens,
                              pad_token_id=0, use_cache=True, **more)


def grpo(case: dict) -> dict:
    model = model_of(case)
    new, group, micro = case["new_tokens"], case["group"], case.get("micro", 8)
    ids = prompts_for(case, model).repeat_interleave(group, 0)
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    n = ids.shape[0]
    for _ in range(1 + case.get("warm", 1)):
        phases, started = Phases(), now()
        with phases.of("generate"):
            model.eval()
            sequences = sample(model, ids, new)
            assert sequences.shape[1] == ids.shape[1] + new, sequences.shape
        with phases.of("other"):
            completions = sequences[:, -new:]
            rewards = torch.tensor([reward_of(row) for row in completions.tolist()]).view(-1, group)
            advantages = (rewards - rewards.mean(1, True)) / (rewards.std(1, keepdim=True).nan_to_num() + 1e-4)
            advantages = advantages.view(-1, 1)
            optimizer.zero_grad(set_to_none=False)
            model.train()
        for at in range(0, n, micro):
            with phases.of("forward"):
                rows = slice(at, at + micro)
                logits = model(input_ids=sequences[rows], logits_to_keep=new + 1, use_cache=False).logits[:, :-1]
                logprobs = -torch.nn.functional.cross_entropy(
                    logits.transpose(1, 2), completions[rows], reduction="none")
                ratio = torch.exp(logprobs - logprobs.detach())  # one optimizer step per rollout: old is current
                loss = -torch.min(ratio * advantages[rows], ratio.clamp(0.8, 1.2) * advantages[rows]).sum() / (n * new)
            with phases.of("backward"):
                loss.backward()
                del logits, logprobs, ratio, loss
        with phases.of("optimizer"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        seconds = now() - started
    return {"seconds": seconds, "phases": dict(phases), "tokens": n * new, "micro": micro,
            "n_parameters": sum(p.numel() for p in model.parameters())}


class Clock(transformers.StoppingCriteria):
    """Notes when the first token of all sequences is there."""

    def __init__(self):
        self.first = None

    def __call__(self, input_ids, scores, **ignored):
        self.first = self.first or now()
        return torch.zeros(input_ids.shape[0], dtype=torch.bool)


def generate(case: dict) -> dict:
    model = model_of(case).eval()
    ids = prompts_for(case, model)
    for _ in range(1 + case.get("warm", 1)):
        clock, started = Clock(), now()
        sequences = sample(model, ids, case["new_tokens"],
                           stopping_criteria=transformers.StoppingCriteriaList([clock]))
        ended = now()
        assert sequences.shape[1] == ids.shape[1] + case["new_tokens"], sequences.shape
    return {"seconds": ended - started, "prefill": clock.first - started, "decode": ended - clock.first,
            "tokens": ids.shape[0] * case["new_tokens"]}


def train(case: dict) -> dict:
    model = model_of(case).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-6, weight_decay=0.0, fused=True)
    run = torch.compile(model) if case.get("compile") else model
    ids = torch.tensor(learned_ids(case))
    for _ in range(1 + case.get("warm", 1)):
        phases, started = Phases(), now()
        with phases.of("forward"):
            optimizer.zero_grad(set_to_none=False)
            logits = run(input_ids=ids[:, :-1], use_cache=False).logits
            loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids[:, 1:].flatten())
        with phases.of("backward"):
            loss.backward()
            del logits, loss
        with phases.of("optimizer"):
            torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        seconds = now() - started
    return {"seconds": seconds, "phases": dict(phases), "tokens": case["sequences"] * case["tokens"]}


def start(case: dict) -> dict:
    model = model_of(case).eval()
    ids = prompts_for(case, model)[:1]
    with torch.no_grad():
        out = model.generate(input_ids=ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=1,
                             pad_token_id=0)
    return {"token": int(out[0, -1])}


if __name__ == "__main__":
    main({"grpo": grpo, "generate": generate, "train": train, "start": start})
