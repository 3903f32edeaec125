#!/usr/bin/env python3
"""Holds docs/profiles.md against the library: every row of a profile's table is what the profile sets, and a field
that no row names stays as it was; and the same through the Python module. Where a row names a field of TRL's, the
profile's value is what TRL's default means, as golden/trl_defaults.json has it.

usage: check_profiles.py LIBRARY ROOT"""
import ctypes
import json
import pathlib
import re
import sys

sys.path.insert(0, str(pathlib.Path(sys.argv[2]) / "examples" / "python"))
import policygrad  # noqa: E402

library = policygrad.load(sys.argv[1])
library.pgrad_struct_size.restype = ctypes.c_size_t
text = (pathlib.Path(sys.argv[2]) / "docs/profiles.md").read_text()
TRL = json.loads((pathlib.Path(sys.argv[2]) / "tests/golden/trl_defaults.json").read_text())
CONFIGS = {"trl-1.10": "GRPOConfig", "trl-1.10-rloo": "RLOOConfig", "trl-1.10-sft": "SFTConfig"}
# A field of TRL's whose value is not ours as it stands: what it says here.
MEANS = {
    "min_p": lambda trl: trl["min_p"] or 0,
    "epsilon_high": lambda trl: trl["epsilon"] if trl["epsilon_high"] is None else trl["epsilon_high"],
    "scale_rewards": lambda trl: {"group": "grpo"}[trl["scale_rewards"]],
    "loss_type": lambda trl: {"dapo": "token_mean", None: "supervised"}[trl["loss_type"]],
    "use_bias_correction_kl": lambda trl: {True: "k3_ratio"}[trl["use_bias_correction_kl"]],
    "optim": lambda trl: {"adamw_torch": "adamw"}[trl["optim"]],
    "per_device_train_batch_size": lambda trl: (trl["per_device_train_batch_size"] * trl["gradient_accumulation_steps"] //
                                                trl["num_generations"]),
}
STRUCTS = ["sampler", "rollout", "advantage", "objective", "optimizer", "train", "generate", "context"]


def described(name, params):
    out, length = ctypes.create_string_buffer(8192), ctypes.c_size_t()
    status = library.pgrad_params_describe(name.encode(), params, out, ctypes.c_size_t(8192), ctypes.byref(length))
    assert status == 0, name
    return json.loads(out.value)


def others(name, fields):
    """A struct whose fields all differ from the profile's where they can: counts and reals moved a little."""
    size = library.pgrad_struct_size(name.encode())
    params = ctypes.create_string_buffer(size)
    getattr(library, f"pgrad_{name}_params_init")(params, ctypes.c_size_t(size))
    for field, value in described(name, params).items():
        for other in ("0.125", "3", "1", "0", "2"):
            if field in fields and str(fields[field]) == other:
                continue
            if library.pgrad_params_set(name.encode(), params, field.encode(), other.encode()) == 0:
                break
    return params


def same(value, expected):
    return value == expected if isinstance(value, str) else float(value) == float(expected)


for profile, table in re.findall(r"^## (\S+)\n(.*?)(?=^## |\Z)", text, re.M | re.S):
    rows, names = {}, {}
    for struct, field, value, theirs in re.findall(r"^\| (\w+) \| (\w+) \| (\S+) \| (?:`(\w+)`)?", table, re.M):
        if struct != "struct":
            rows.setdefault(struct, {})[field] = value
            names[struct, field] = theirs
    assert rows, profile
    trl = TRL[CONFIGS[profile]]
    for struct in STRUCTS:
        fields = rows.get(struct, {})
        params = others(struct, fields)
        before = described(struct, params)
        assert library.pgrad_params_profile(struct.encode(), params, profile.encode()) == 0, struct
        after = described(struct, params)
        for field, value in after.items():
            if field not in fields:
                assert value == before[field], f"{profile}: {struct}.{field} was set to {value}"
                continue
            expected = fields[field]
            assert same(value, expected), f"{profile}: {struct}.{field} is {value}, documented as {expected}"
            theirs = names[struct, field]
            if theirs:
                meant = MEANS.get(theirs, lambda trl: trl[theirs])(trl)
                assert same(value, meant), f"{profile}: {struct}.{field} is {value}, TRL's {theirs} means {meant}"
        given = policygrad._params(struct, {"seed": 7, "profile": profile} if "seed" in after else {"profile": profile})
        for field, value in described(struct, given).items():
            expected = after[field] if field in fields else 7 if field == "seed" else described(struct, None)[field]
            assert value == expected, f"{profile}: Python's {struct}.{field} is {value}, not {expected}"
        assert set(fields) <= set(after), f"{profile}: {struct}: {set(fields) - set(after)}"
    print(f"{profile}: {sum(map(len, rows.values()))} values as documented, {sum(map(bool, names.values()))} as TRL has them")
