"""TRL's GRPOTrainer with transformers' generation, as a user gets it ("default") or at equal settings ("equal")."""
from __future__ import annotations

import tempfile

import torch
import transformers
from datasets import Dataset
from trl import GRPOConfig, GRPOTrainer

from common import Phases, main, now, prompts_of, reward_of

phases = Phases()


class Timed(GRPOTrainer):
    """The trainer with a clock around its phases; what is computed is untouched."""

    def _generate_single_turn(self, prompt_ids, *arguments, **named):
        assert {len(ids) for ids in prompt_ids} == {self.case["prompt_tokens"]}, "prompts of another length"
        with phases.of("generate"):
            completions, logprobs = super()._generate_single_turn(prompt_ids, *arguments, **named)
        self.tokens = sum(map(len, completions))
        return completions, logprobs

    def _get_per_token_logps_and_entropies(self, *arguments, **named):
        if torch.is_grad_enabled():
            return super()._get_per_token_logps_and_entropies(*arguments, **named)
        with phases.of("logprobs"):
            return super()._get_per_token_logps_and_entropies(*arguments, **named)

    def compute_loss(self, *arguments, **named):
        with phases.of("forward"):
            return super().compute_loss(*arguments, **named)


class Clock(transformers.TrainerCallback):
    def on_step_begin(self, *ignored, **named):
        phases.clear()
        self.started = now()

    def on_pre_optimizer_step(self, *ignored, **named):
        self.before = now()

    def on_optimizer_step(self, *ignored, **named):
        phases["optimizer"] += now() - self.before

    def on_step_end(self, *ignored, **named):
        self.seconds = now() - self.started


def grpo(case: dict) -> dict:
    torch.set_num_threads(case["threads"])
    prompts = [prompt["text"] for prompt in prompts_of(case)]
    n = len(prompts) * case["group"]
    # The batch that is asked for, at TRL's own micro-batch of 8; all else as it comes, bf16 autocast and gradient
    # checkpointing included.
    settings = dict(per_device_train_batch_size=8, gradient_accumulation_steps=n // 8)
    if case["variant"] == "equal":
        micro = case.get("micro", 8)
        settings = dict(per_device_train_batch_size=micro, gradient_accumulation_steps=n // micro, bf16=False,
                        gradient_checkpointing=False, beta=0.0, weight_decay=0.0)
    with tempfile.TemporaryDirectory() as folder:
        args = GRPOConfig(output_dir=folder, report_to="none", save_strategy="no", disable_tqdm=True, use_cpu=True,
                          max_steps=1 + case.get("warm", 1), learning_rate=1e-6, num_generations=case["group"],
                          max_completion_length=case["new_tokens"],
                          generation_kwargs={"min_new_tokens": case["new_tokens"]}, **settings)
        clock = Clock()
        trainer = Timed(model=case["model"], args=args, train_dataset=Dataset.from_dict({"prompt": prompts}),
                        reward_funcs=lambda completion_ids, **ignored: [reward_of(ids) for ids in completion_ids],
                        callbacks=[clock])
        trainer.case = case
        backward = trainer.accelerator.backward

        def timed_backward(*arguments, **named):
            with phases.of("backward"):
                backward(*arguments, **named)

        trainer.accelerator.backward = timed_backward
        trainer.train()
    assert trainer.tokens == n * case["new_tokens"], trainer.tokens
    measured = dict(phases)
    measured["other"] = clock.seconds - sum(measured.values())
    return {"seconds": clock.seconds, "phases": measured, "tokens": trainer.tokens,
            "micro": settings["per_device_train_batch_size"]}


def start(case: dict) -> dict:
    """TRL's own start is that of its imports and of transformers' model."""
    import peer_torch
    return peer_torch.start(case)


if __name__ == "__main__":
    main({"grpo": grpo, "start": start})
