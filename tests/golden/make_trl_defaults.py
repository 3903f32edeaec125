#!/usr/bin/env python3
"""Writes trl_defaults.json: what the fields of TRL's configs that docs/profiles.md names hold by default. The sources are
read, not run:

    python3 -m pip download --no-deps trl==1.10.0 transformers==5.24.0
    python3 tests/golden/make_trl_defaults.py trl-*.whl transformers-*.whl >tests/golden/trl_defaults.json

A field that a class does not give a default of its own has that of TRL's base class, or of transformers'
TrainingArguments."""
import ast
import json
import re
import sys
import zipfile

CONFIGS = {"GRPOConfig": "grpo_config.py", "RLOOConfig": "rloo_config.py", "SFTConfig": "sft_config.py"}
FIELDS = """
    adam_beta1 adam_beta2 adam_epsilon beta entropy_coef epsilon epsilon_high gradient_accumulation_steps learning_rate
    loss_type lr_scheduler_type max_completion_length max_grad_norm min_p num_generations num_iterations optim
    per_device_train_batch_size repetition_penalty scale_rewards temperature top_k top_p use_bias_correction_kl
    warmup_steps weight_decay
""".split()


def defaults(source, name):
    """Field -> default of a dataclass, where that is written out, or is the first value of a name beside it."""
    body = next(node for node in ast.parse(source).body if isinstance(node, ast.ClassDef) and node.name == name).body
    names = {node.targets[0].id: node.value for node in reversed(body)
             if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name)}
    found = {}
    for node in body:
        if not isinstance(node, ast.AnnAssign) or node.target.id not in FIELDS:
            continue
        value = node.value
        if isinstance(value, ast.Call):  # field(default=.., ..)
            value = next(word.value for word in value.keywords if word.arg == "default")
        found[node.target.id] = ast.literal_eval(names.get(value.id) if isinstance(value, ast.Name) else value)
    return found


def main():
    trl, transformers = map(zipfile.ZipFile, sys.argv[1:])
    version = [re.match(r"\w+-([\d.]+)-", path.split("/")[-1]).group(1) for path in sys.argv[1:]]
    base = defaults(transformers.read("transformers/training_args.py"), "TrainingArguments")
    base.update(defaults(trl.read("trl/trainer/base_config.py"), "_BaseConfig"))
    out = {"by": "tests/golden/make_trl_defaults.py", "trl": version[0], "transformers": version[1]}
    for name, file in CONFIGS.items():
        out[name] = dict(sorted({**base, **defaults(trl.read(f"trl/trainer/{file}"), name)}.items()))
    print(json.dumps(out, indent=2))


if __name__ == "__main__":
    main()
