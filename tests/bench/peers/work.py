"""What ours computes, reads and writes, for the roofline of the report.

FLOP: 2 for each weight and row forward, 4 backward, where they are really computed: a prompt once for its group in a
micro-batch, kept rows backward alone, recomputed ones forward again; the head where it is; attention's products 4 for
each pair of tokens and float of a query forward, 8 backward.

Bytes, activations apart: weights once for the prompts and for each step of decoding, keys and values as they are read
and written; in a micro-batch weights once forward and once backward, gradients read and written, which were zeroed
before; in an update the gradient twice, for its norm and for itself, weights and moments read and written."""
from __future__ import annotations

MICRO_BATCH_TOKENS, BATCH_SIZE = 2048, 64  # the library's defaults
KV_BYTES = {"f32": 4.0, "f16": 2.0, "bf16": 2.0}
WEIGHT_BYTES = {"f32": 4.0, "bf16": 2.0, "q8_0": 34 / 32}
MOMENT_BYTES = {"f32": 4.0, "bf16": 2.0, "q8": 1 + 1 / 64}  # an exponent for 64


def shape_of(entry: dict) -> tuple:
    """Prompts, completions of each, tokens of a prompt and of a completion. A sequence all of which is learned is a
    completion of its first token."""
    if entry["kind"] == "train":
        return entry["sequences"], 1, 1, entry["tokens"]
    return entry["prompts"], entry.get("group", 1), entry["prompt_tokens"], entry["new_tokens"]


def micro_batches_of(entry: dict) -> list:
    """How many completions of each group each micro-batch has, as lib/rl/objective.c cuts them: whole sequences, as
    many as fit into its rows, a group's prompt once."""
    prompts, group, prompt, new = shape_of(entry)
    limit = entry.get("micro_batch_tokens") or MICRO_BATCH_TOKENS
    out: list = []
    rows = 0
    for i in range(prompts * group):
        more = new - 1 + (prompt if i % group == 0 else 0)
        if not out or rows + more > limit:
            out.append([0])
            rows, more = 0, prompt + new - 1
        elif i % group == 0:
            out[-1].append(0)
        out[-1][-1] += 1
        rows += more
    return out


def pairs_of(prompts: int, completions: int, prompt: int, new: int) -> float:
    """Of attention: each token of a prompt and of a completion, but its last, with itself and all before it."""
    return prompts * prompt * (prompt + 1) / 2 + completions * (new - 1) * (prompt + new / 2)


def sizes_of(entry: dict) -> tuple:
    """Weights but the head's, the head's, and floats of a token's queries in all layers."""
    return entry["n_parameters"] - entry["head_parameters"], entry["head_parameters"], entry.get("query_floats", 0)


def backward_of(entry: dict) -> tuple:
    """FLOP and bytes of the way there and back, for all micro-batches."""
    weights, head, query = sizes_of(entry)
    prompts, group, prompt, new = shape_of(entry)
    micro_batches = micro_batches_of(entry)
    groups = sum(map(len, micro_batches))
    rows = groups * prompt + prompts * group * (new - 1)
    fresh = 1 - (entry.get("kept_rows") or 0) / rows  # the share that is computed forward, and perhaps again
    again = (entry.get("recomputed_parameters") or 0) * fresh if entry.get("recompute") else 0
    passes = fresh * (2 if again else 1)
    flop = (rows * (2 * weights * fresh + 4 * weights + 2 * again) + 6 * head * prompts * group * new
            + pairs_of(groups, prompts * group, prompt, new) * query * (4 * passes + 8))
    count = len(micro_batches) * (16 * (weights + head) - 4 * weights * (1 - fresh) + 4 * again)
    return flop, count + 4 * (weights + head)


def generate_of(entry: dict) -> tuple:
    """FLOP and bytes of the prompts, and of decoding."""
    weights, head, query = sizes_of(entry)
    prompts, group, prompt, new = shape_of(entry)
    size = WEIGHT_BYTES[entry.get("storage", "f32")] * (weights + head)
    cache = KV_BYTES[entry.get("kv", "f32")] * entry["kv_floats"]
    completions, rows = prompts * group, prompts * group * (new - 1)
    steps = -(-completions // (entry.get("batch_size") or BATCH_SIZE)) * (new - 1)
    first = (2 * (weights * prompt + head) * prompts + 4 * query * pairs_of(prompts, 0, prompt, 1),
             size + cache * prompts * prompt)
    then = (2 * (weights + head) * rows + 4 * query * pairs_of(0, completions, prompt, new),
            size * steps + cache * (prompts * prompt * (new - 1) + completions * new * (new - 1) / 2 + rows))
    return first, then


def work_of(entry: dict) -> dict:
    """[(FLOP, bytes)] by phase, part after part."""
    out = {"backward": [backward_of(entry)],
           "optimizer": [(14.0 * entry["n_parameters"],
                          (16.0 + 4 * MOMENT_BYTES[entry.get("moments", "f32")]) * entry["n_parameters"])]}
    if entry["kind"] != "train":
        out["prompts"], out["decoding"] = ([part] for part in generate_of(entry))
        out["generate"] = out["prompts"] + out["decoding"]
    return out
