#!/usr/bin/env python3
"""Makes the tiny models of tests/golden and the numbers PyTorch gives for them.

    python3 tests/golden/make_models.py

needs torch, transformers, safetensors, gguf and numpy; the versions used last are in versions.json. Each
model is a Hugging Face folder with random weights (norms and biases too, so that a forgotten one shows),
and beside it golden.safetensors, all f32:

    tokens.0, tokens.1   the ids of two sequences of different length
    logits.0, logits.1   of each
    loss                 mean over all next tokens of both of -log p
    grad.NAME            its gradient for every tensor
    losses               the same loss before each of ten steps of AdamW (lr 1e-3, betas 0.9 and 0.999,
                         eps 1e-8, no decay, no clipping)

and for two of them objective.safetensors: the whole policy gradient objective, computed in f64 by
autograd from its definition, so that nobody's derivative stands in it (letters: docs/algorithms.md 3, 4):

    prompt.G             the ids of the two prompts
    tokens.I             the ids of the four completions, two to a prompt; and per token
    advantages.I, old.I, reference.I, mask.I
    report               loss, policy_loss, kl, entropy, ratio_mean, ratio_min, ratio_max, approx_kl,
                         clip_low_ratio, clip_high_ratio
    grad.NAME            d loss / d tensor
"""
import importlib.metadata
import json
import pathlib

import gguf
import numpy as np
import torch
import transformers
from safetensors.torch import save_file

HERE = pathlib.Path(__file__).resolve().parent


def randomize(model, seed):
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            if parameter.dim() > 1:
                parameter.copy_(0.15 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.1 * noise)
            else:
                parameter.copy_(1.0 + 0.2 * noise)


def mean_loss(model, sequences):
    total, count = 0.0, 0
    for tokens in sequences:
        logits = model(tokens[None, :]).logits[0]
        total = total + torch.nn.functional.cross_entropy(logits[:-1], tokens[1:], reduction="sum")
        count += len(tokens) - 1
    return total / count


def make(name, model, lengths, seed):
    randomize(model, seed)
    model.eval()
    folder = HERE / name
    model.save_pretrained(folder)
    generator = torch.Generator().manual_seed(seed + 1)
    vocab = model.config.vocab_size
    sequences = [torch.randint(0, vocab, (n,), generator=generator) for n in lengths]
    golden = {}
    for i, tokens in enumerate(sequences):
        golden[f"tokens.{i}"] = tokens.float()
        with torch.no_grad():
            golden[f"logits.{i}"] = model(tokens[None, :]).logits[0].clone()
    loss = mean_loss(model, sequences)
    loss.backward()
    golden["loss"] = loss.detach().reshape(1)
    for parameter_name, parameter in model.named_parameters():
        golden[f"grad.{parameter_name}"] = parameter.grad.clone()
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, betas=(0.9, 0.999), eps=1e-8,
                                  weight_decay=0.0)
    losses = []
    for _ in range(10):
        optimizer.zero_grad()
        loss = mean_loss(model, sequences)
        loss.backward()
        losses.append(loss.item())
        optimizer.step()
    golden["losses"] = torch.tensor(losses)
    save_file({k: v.contiguous() for k, v in golden.items()}, folder / "golden.safetensors")


TAU, CLIP_LOW, CLIP_HIGH, BETA, ENTROPY = 0.8, 0.2, 0.28, 0.5, 0.3


def completion_statistics(model, prompt, tokens):
    """Log-probability and entropy at tau of every token of a completion."""
    logits = model(torch.cat([prompt, tokens])[None, :]).logits[0]
    logp = torch.log_softmax(logits[len(prompt) - 1:-1] / TAU, -1)
    return logp[torch.arange(len(tokens)), tokens], -(logp.exp() * logp).sum(-1)


def objective(name, kl, aggregation, seed):
    """PPO clip + KL to the reference - entropy bonus, with a mask, off policy."""
    model = transformers.AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float64,
                                                              attn_implementation="eager").eval()
    generator = torch.Generator().manual_seed(seed)
    vocab = model.config.vocab_size
    prompts = [torch.randint(0, vocab, (n,), generator=generator) for n in (5, 9)]
    completions = [torch.randint(0, vocab, (n,), generator=generator) for n in (12, 7, 1, 16)]
    golden, l, h, host = {f"prompt.{g}": p.float() for g, p in enumerate(prompts)}, [], [], []
    for i, tokens in enumerate(completions):
        logprob, entropy = completion_statistics(model, prompts[i // 2], tokens)
        noise = torch.randn(3, len(tokens), generator=generator)
        mask = (torch.rand(len(tokens), generator=generator) < 0.75).float()
        mask[0] = 1.0
        arrays = {"advantages": noise[0], "old": logprob.detach().float() + 0.3 * noise[1],
                  "reference": logprob.detach().float() + 0.4 * noise[2], "mask": mask}
        golden[f"tokens.{i}"] = tokens.float()
        golden |= {f"{key}.{i}": value for key, value in arrays.items()}
        host.append({key: value.double() for key, value in arrays.items()})
        l.append(logprob)
        h.append(entropy)
    learned = sum(x["mask"].sum() for x in host)
    sums = {key: 0.0 for key in ("policy", "kl_weighted", "kl", "entropy", "ratio", "approx_kl",
                                 "low", "high")}
    ratios = []
    for logprob, entropy, x in zip(l, h, host):
        a, m = x["advantages"], x["mask"]
        rho = torch.exp(logprob - x["old"])
        policy = torch.maximum(-a * rho, -a * torch.clamp(rho, 1 - CLIP_LOW, 1 + CLIP_HIGH))
        d = logprob - x["reference"]
        penalty = rho * (torch.exp(-d) - 1 + d) if kl == "k3_ratio" else d * d / 2
        w = m / learned if aggregation == "token_mean" else m / (len(l) * m.sum())
        sums["policy"] += (w * policy).sum()
        sums["kl_weighted"] += (w * penalty).sum()
        sums["kl"] += (m * penalty).sum() / learned
        sums["entropy"] += (m * entropy).sum() / learned
        sums["ratio"] += (m * rho).sum() / learned
        sums["approx_kl"] += (m * (rho - 1 - rho.log())).sum() / learned
        sums["low"] += (m * ((a < 0) & (rho < 1 - CLIP_LOW))).sum() / learned
        sums["high"] += (m * ((a > 0) & (rho > 1 + CLIP_HIGH))).sum() / learned
        ratios.append(rho[m > 0])
    loss = sums["policy"] + BETA * sums["kl_weighted"] - ENTROPY * sums["entropy"]
    loss.backward()
    ratios = torch.cat(ratios)
    golden["report"] = torch.stack([loss, sums["policy"], sums["kl"], sums["entropy"], sums["ratio"],
                                    ratios.min(), ratios.max(), sums["approx_kl"], sums["low"],
                                    sums["high"]]).detach().float()
    for parameter_name, parameter in model.named_parameters():
        golden[f"grad.{parameter_name}"] = parameter.grad.float()
    save_file({k: v.contiguous() for k, v in golden.items()}, HERE / name / "objective.safetensors")


def shard(name, out):
    """The same model in several files."""
    model = transformers.AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32)
    model.save_pretrained(HERE / out, max_shard_size="40KB")


LLAMA_NAMES = {
    "model.embed_tokens": "token_embd", "model.norm": "output_norm", "lm_head": "output",
    "input_layernorm": "attn_norm", "post_attention_layernorm": "ffn_norm",
    "self_attn.q_proj": "attn_q", "self_attn.k_proj": "attn_k", "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output", "mlp.gate_proj": "ffn_gate", "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down"}
GPT2_NAMES = {
    "wte": "token_embd", "wpe": "position_embd", "ln_f": "output_norm", "ln_1": "attn_norm",
    "ln_2": "ffn_norm", "attn.c_attn": "attn_qkv", "attn.c_proj": "attn_output",
    "mlp.c_fc": "ffn_up", "mlp.c_proj": "ffn_down"}


def gguf_name(name, names, layer_prefix):
    stem, _, kind = name.rpartition(".")
    if stem.startswith(layer_prefix):
        layer, _, part = stem[len(layer_prefix):].partition(".")
        return f"blk.{layer}.{names[part]}.{kind}"
    return f"{names[stem.removeprefix('transformer.')]}.{kind}"


def permute(weight, n_heads):
    """Rows of a head from halves to pairs, as the format's own converter does."""
    rows = weight.shape[0]
    return (weight.reshape(n_heads, 2, rows // n_heads // 2, *weight.shape[1:])
            .swapaxes(1, 2).reshape(weight.shape))


def rope_divisors(config):
    """What the format's converter makes of Llama 3's scaling: each frequency is divided by one of them."""
    rope = config.rope_parameters
    dim, factor = config.head_dim, rope["factor"]
    frequency = 1.0 / rope["rope_theta"] ** (np.arange(0, dim, 2, dtype=np.float32) / np.float32(dim))
    turns = rope["original_max_position_embeddings"] * frequency / (2 * np.pi)
    smooth = (turns - rope["low_freq_factor"]) / (rope["high_freq_factor"] - rope["low_freq_factor"])
    return (1 / ((1 - smooth.clip(0, 1)) / factor + smooth.clip(0, 1))).astype(np.float32)


def llama_gguf(name, out, q8_0=False):
    model = transformers.AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(str(HERE / out), "llama")
    writer.add_context_length(config.max_position_embeddings)
    writer.add_embedding_length(config.hidden_size)
    writer.add_block_count(config.num_hidden_layers)
    writer.add_feed_forward_length(config.intermediate_size)
    writer.add_head_count(config.num_attention_heads)
    writer.add_head_count_kv(config.num_key_value_heads)
    writer.add_layer_norm_rms_eps(config.rms_norm_eps)
    writer.add_rope_freq_base(10000.0)
    writer.add_rope_dimension_count(config.head_dim)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_Q8_0 if q8_0 else gguf.LlamaFileType.ALL_F32)
    if config.rope_parameters["rope_type"] == "llama3":
        writer.add_tensor("rope_freqs.weight", rope_divisors(config))
    for tensor_name, tensor in model.state_dict().items():
        if tensor_name == "lm_head.weight" and config.tie_word_embeddings:
            continue
        array = tensor.numpy()
        if ".q_proj." in tensor_name:
            array = permute(array, config.num_attention_heads)
        if ".k_proj." in tensor_name:
            array = permute(array, config.num_key_value_heads)
        array = np.ascontiguousarray(array)
        kind = gguf.GGMLQuantizationType.F32
        if q8_0 and array.ndim == 2 and array.shape[1] % 32 == 0:
            kind = gguf.GGMLQuantizationType.Q8_0
            array = gguf.quants.quantize(array, kind)
        writer.add_tensor(gguf_name(tensor_name, LLAMA_NAMES, "model.layers."), array, raw_dtype=kind)
    finish_gguf(writer)


def gpt2_gguf(name, out):
    """Matrices in f16, [out, in]; vectors and positions in f32, as the format's converter leaves them."""
    model = transformers.AutoModelForCausalLM.from_pretrained(HERE / name, dtype=torch.float32)
    config = model.config
    writer = gguf.GGUFWriter(str(HERE / out), "gpt2")
    writer.add_context_length(config.n_positions)
    writer.add_embedding_length(config.n_embd)
    writer.add_block_count(config.n_layer)
    writer.add_feed_forward_length(4 * config.n_embd)
    writer.add_head_count(config.n_head)
    writer.add_layer_norm_eps(config.layer_norm_epsilon)
    writer.add_file_type(gguf.LlamaFileType.MOSTLY_F16)
    for tensor_name, tensor in model.state_dict().items():
        if tensor_name == "lm_head.weight":
            continue
        array = tensor.numpy()
        if any(part in tensor_name for part in ("c_attn.w", "c_proj.w", "c_fc.w")):
            array = array.T
        if array.ndim == 2 and "wpe" not in tensor_name:
            array = array.astype(np.float16)
        writer.add_tensor(gguf_name(tensor_name, GPT2_NAMES, "transformer.h."),
                          np.ascontiguousarray(array))
    finish_gguf(writer)


def finish_gguf(writer):
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


# What the models above leave at its default.
GPT2_SMALL = dict(vocab_size=41, n_positions=48, n_embd=32, n_layer=2, n_head=2, resid_pdrop=0.0, embd_pdrop=0.0,
                  attn_pdrop=0.0)
VARIANTS = (
    ("tiny_gpt2_gelu", dict(GPT2_SMALL, n_inner=40, activation_function="gelu", scale_attn_by_inverse_layer_idx=True,
                            tie_word_embeddings=False, layer_norm_epsilon=1e-3), 21),
    ("tiny_gpt2_relu", dict(GPT2_SMALL, activation_function="relu", scale_attn_weights=False), 22),
    ("tiny_llama_wide", dict(vocab_size=43, hidden_size=32, intermediate_size=40, num_hidden_layers=2,
                             num_attention_heads=4, num_key_value_heads=1, head_dim=16, max_position_embeddings=64,
                             rms_norm_eps=1e-3, tie_word_embeddings=False,
                             rope_parameters={"rope_type": "default", "rope_theta": 50.0}), 23),
)


def main():
    transformers.logging.set_verbosity_error()
    torch.set_num_threads(1)
    gpt2 = transformers.GPT2Config(vocab_size=97, n_positions=64, n_embd=32, n_layer=2, n_head=4,
                                   bos_token_id=96, eos_token_id=96, attn_implementation="eager",
                                   resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0)
    make("tiny_gpt2", transformers.GPT2LMHeadModel(gpt2), (64, 9), 1)
    for name, tied in (("tiny_llama", False), ("tiny_llama_tied", True)):
        llama = transformers.LlamaConfig(vocab_size=101, hidden_size=32, intermediate_size=48,
                                         num_hidden_layers=2, num_attention_heads=4,
                                         num_key_value_heads=2, head_dim=8,
                                         max_position_embeddings=256, rms_norm_eps=1e-5,
                                         bos_token_id=1, eos_token_id=2, tie_word_embeddings=tied,
                                         attention_bias=tied, mlp_bias=tied,
                                         attn_implementation="eager")
        make(name, transformers.LlamaForCausalLM(llama), (75, 13), 3 + tied)
    for name, options, seed in VARIANTS:
        family = transformers.GPT2Config if "n_embd" in options else transformers.LlamaConfig
        config = family(bos_token_id=1, eos_token_id=2, attn_implementation="eager", **options)
        make(name, transformers.AutoModelForCausalLM.from_config(config), (40, 9), seed)
    # Of eight frequencies two stay, one is slowed down in part, five wholly.
    llama3 = transformers.LlamaConfig(vocab_size=61, hidden_size=32, intermediate_size=32,
                                      num_hidden_layers=2, num_attention_heads=2,
                                      num_key_value_heads=1, head_dim=16, max_position_embeddings=512,
                                      rms_norm_eps=1e-5, bos_token_id=1, eos_token_id=2,
                                      tie_word_embeddings=True, attn_implementation="eager",
                                      rope_parameters={"rope_type": "llama3", "rope_theta": 10000.0,
                                                       "factor": 8.0, "low_freq_factor": 1.0,
                                                       "high_freq_factor": 4.0,
                                                       "original_max_position_embeddings": 128})
    make("tiny_llama3", transformers.LlamaForCausalLM(llama3), (160, 13), 5)
    objective("tiny_gpt2", "k3_ratio", "token_mean", 11)
    objective("tiny_llama", "k2", "sequence_mean_token_mean", 12)
    shard("tiny_llama", "tiny_llama_sharded")
    llama_gguf("tiny_llama", "tiny_llama.gguf")
    llama_gguf("tiny_llama", "tiny_llama_q8_0.gguf", q8_0=True)
    llama_gguf("tiny_llama3", "tiny_llama3.gguf")
    gpt2_gguf("tiny_gpt2", "tiny_gpt2_f16.gguf")
    versions = {name: importlib.metadata.version(name)
                for name in ("torch", "transformers", "safetensors", "gguf", "numpy")}
    for path in HERE.glob("*/*.safetensors"):
        path.chmod(0o644)
    (HERE / "versions.json").write_text(json.dumps(versions, indent=2) + "\n")


if __name__ == "__main__":
    main()
