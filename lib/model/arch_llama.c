#include "base/fail.h"
#include "model/arch.h"

#define FIELD(name) offsetof(pgrad__config, name)
#define LAYER(part) offsetof(pgrad__layer, part)
#define STEM(part) offsetof(pgrad__stem, part)

static const pgrad__size_key sizes[] = {
    {"num_hidden_layers", NULL, "block_count", FIELD(n_layers), PGRAD__MAX_LAYERS, 0},
    {"vocab_size", NULL, "vocab_size", FIELD(n_vocab), PGRAD__MAX_VOCAB, 0},
    {"max_position_embeddings", NULL, "context_length", FIELD(n_context), PGRAD__MAX_CONTEXT, 1},
    {"hidden_size", NULL, "embedding_length", FIELD(n_embd), PGRAD__MAX_EMBD, 0},
    {"intermediate_size", NULL, "feed_forward_length", FIELD(n_ff), PGRAD__MAX_FF, 0},
    {"num_attention_heads", NULL, "attention.head_count", FIELD(n_heads), PGRAD__MAX_HEADS, 0},
    {"num_key_value_heads", NULL, "attention.head_count_kv", FIELD(n_kv_heads), PGRAD__MAX_HEADS,
     1},
    {"head_dim", NULL, "attention.key_length", FIELD(head_dim), PGRAD__MAX_HEAD_DIM, 1},
};

static const pgrad__real_key reals[] = {
    {"rms_norm_eps", "attention.layer_norm_rms_epsilon", FIELD(norm_epsilon), 0, 1e-30, 1.0},
    {"rope_theta", "rope.freq_base", FIELD(rope_theta), 1, 1.0, 1e15},
    {"initializer_range", NULL, FIELD(initializer_range), 0, 0.0, 100.0},
};

static const pgrad__flag_key flags[] = {
    {"attention_bias", "blk.0.attn_q.bias", FIELD(qkv_bias)},
    {"attention_bias", "blk.0.attn_output.bias", FIELD(output_bias)},
    {"mlp_bias", "blk.0.ffn_down.bias", FIELD(mlp_bias)},
    {"tie_word_embeddings", NULL, FIELD(tied_head)},
};

#define NORM(hf, gguf, place)                                                                      \
    {                                                                                              \
        hf, gguf, PGRAD__TENSOR_VECTOR, {PGRAD__EXTENT_EMBD, PGRAD__EXTENT_NONE}, 1, place,        \
            PGRAD__ALWAYS, PGRAD__INITIAL_ONE, 0                                                   \
    }
#define LINEAR(hf, gguf, out, in, part, condition, initial, order)                                 \
    {hf ".weight",                                                                                 \
     gguf ".weight",                                                                               \
     PGRAD__TENSOR_MATRIX,                                                                         \
     {out, in},                                                                                    \
     1,                                                                                            \
     LAYER(part.weight),                                                                           \
     PGRAD__ALWAYS,                                                                                \
     initial,                                                                                      \
     order},                                                                                       \
    {                                                                                              \
        hf ".bias", gguf ".bias", PGRAD__TENSOR_VECTOR, {out, PGRAD__EXTENT_NONE}, 1,              \
            LAYER(part.bias), condition, PGRAD__INITIAL_ZERO, order                                \
    }

static const pgrad__tensor_rule rules[] = {
    {"embed_tokens.weight",
     "token_embd.weight",
     PGRAD__TENSOR_MATRIX,
     {PGRAD__EXTENT_VOCAB, PGRAD__EXTENT_EMBD},
     0,
     STEM(embedding),
     PGRAD__ALWAYS,
     PGRAD__INITIAL_NORMAL,
     0},
    NORM("layers.#.input_layernorm.weight", "blk.#.attn_norm.weight", LAYER(attention_norm.weight)),
    LINEAR("layers.#.self_attn.q_proj", "blk.#.attn_q", PGRAD__EXTENT_QUERY, PGRAD__EXTENT_EMBD,
           qkv[0], PGRAD__IF_QKV_BIAS, PGRAD__INITIAL_NORMAL, PGRAD__ROWS_INTERLEAVED),
    LINEAR("layers.#.self_attn.k_proj", "blk.#.attn_k", PGRAD__EXTENT_KEY, PGRAD__EXTENT_EMBD,
           qkv[1], PGRAD__IF_QKV_BIAS, PGRAD__INITIAL_NORMAL, PGRAD__ROWS_INTERLEAVED),
    LINEAR("layers.#.self_attn.v_proj", "blk.#.attn_v", PGRAD__EXTENT_KEY, PGRAD__EXTENT_EMBD,
           qkv[2], PGRAD__IF_QKV_BIAS, PGRAD__INITIAL_NORMAL, PGRAD__ROWS_PLAIN),
    LINEAR("layers.#.self_attn.o_proj", "blk.#.attn_output", PGRAD__EXTENT_EMBD,
           PGRAD__EXTENT_QUERY, output, PGRAD__IF_OUTPUT_BIAS, PGRAD__INITIAL_RESIDUAL,
           PGRAD__ROWS_PLAIN),
    NORM("layers.#.post_attention_layernorm.weight", "blk.#.ffn_norm.weight",
         LAYER(mlp_norm.weight)),
    LINEAR("layers.#.mlp.gate_proj", "blk.#.ffn_gate", PGRAD__EXTENT_FF, PGRAD__EXTENT_EMBD,
           expand[0], PGRAD__IF_MLP_BIAS, PGRAD__INITIAL_NORMAL, PGRAD__ROWS_PLAIN),
    LINEAR("layers.#.mlp.up_proj", "blk.#.ffn_up", PGRAD__EXTENT_FF, PGRAD__EXTENT_EMBD, expand[1],
           PGRAD__IF_MLP_BIAS, PGRAD__INITIAL_NORMAL, PGRAD__ROWS_PLAIN),
    LINEAR("layers.#.mlp.down_proj", "blk.#.ffn_down", PGRAD__EXTENT_EMBD, PGRAD__EXTENT_FF,
           contract, PGRAD__IF_MLP_BIAS, PGRAD__INITIAL_RESIDUAL, PGRAD__ROWS_PLAIN),
    {"norm.weight",
     "output_norm.weight",
     PGRAD__TENSOR_VECTOR,
     {PGRAD__EXTENT_EMBD, PGRAD__EXTENT_NONE},
     0,
     STEM(norm.weight),
     PGRAD__ALWAYS,
     PGRAD__INITIAL_ONE,
     0},
    {"lm_head.weight",
     "output.weight",
     PGRAD__TENSOR_MATRIX,
     {PGRAD__EXTENT_VOCAB, PGRAD__EXTENT_EMBD},
     0,
     STEM(head),
     PGRAD__IF_UNTIED,
     PGRAD__INITIAL_NORMAL,
     0},
};

static const char *const ignored[] = {"rotary_emb.inv_freq", "rope_freqs.weight", NULL};

/* Mixtures of experts under this family's name. */
static pgrad_status check_json(pgrad__config *config, const pgrad__json *json, const char *origin)
{
    static const char *const experts[] = {"num_local_experts", "num_experts", "n_routed_experts"};
    for (size_t i = 0; i < sizeof experts / sizeof experts[0]; i++) {
        uint32_t n;
        PGRAD__TRY(pgrad__json_optional_u32(json, origin, experts[i], 0, UINT32_MAX, 0, &n));
        if (n > 0)
            return pgrad__fail(PGRAD_E_UNSUPPORTED,
                               "%s: %s = %u: mixtures of experts are not supported", origin,
                               experts[i], n);
    }
    return pgrad__config_rope_json(config, json, origin);
}

static pgrad_status check_gguf(pgrad__config *config, const pgrad__gguf *gguf)
{
    char path[PGRAD__PATH_MAX];
    uint32_t value = 0;
    if (pgrad__gguf_has(gguf, "llama.expert_count"))
        PGRAD__TRY(pgrad__gguf_u32(gguf, "llama.expert_count", &value));
    if (value > 0)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: llama.expert_count = %u: mixtures of experts are not supported",
                           pgrad__path_text(path, pgrad__gguf_path(gguf)), value);
    if (pgrad__gguf_has(gguf, "llama.attention.sliding_window"))
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: llama.attention.sliding_window: sliding attention is not supported",
                           pgrad__path_text(path, pgrad__gguf_path(gguf)));
    if (config->qkv_bias != config->output_bias)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: biases on some of the attention projections only are not supported",
                           pgrad__path_text(path, pgrad__gguf_path(gguf)));
    return pgrad__config_rope_gguf(config, gguf);
}

const pgrad__arch pgrad__arch_llama = {
    .name = "llama",
    .class_name = "LlamaForCausalLM",
    .prefix = "model.",
    .activation_key = "hidden_act",
    .initial =
        {
            .n_context = 2048,
            .norm = PGRAD__NORM_RMS,
            .norm_epsilon = 1e-6f,
            .activation = PGRAD__ACTIVATION_SILU,
            .gated = 1,
            .rope_theta = 10000.0,
            .initializer_range = 0.02f,
            .bos = -1,
        },
    .sizes = sizes,
    .n_sizes = sizeof sizes / sizeof sizes[0],
    .reals = reals,
    .n_reals = sizeof reals / sizeof reals[0],
    .flags = flags,
    .n_flags = sizeof flags / sizeof flags[0],
    .rules = rules,
    .n_rules = sizeof rules / sizeof rules[0],
    .ignored = ignored,
    .check_json = check_json,
    .check_gguf = check_gguf,
};
