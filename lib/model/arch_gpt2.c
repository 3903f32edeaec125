#include "base/fail.h"
#include "model/arch.h"

#define FIELD(name) offsetof(pgrad__config, name)
#define LAYER(part) offsetof(pgrad__layer, part)
#define STEM(part) offsetof(pgrad__stem, part)

static const pgrad__size_key sizes[] = {
    {"n_layer", "num_hidden_layers", "block_count", FIELD(n_layers), PGRAD__MAX_LAYERS, 0},
    {"vocab_size", NULL, "vocab_size", FIELD(n_vocab), PGRAD__MAX_VOCAB, 0},
    {"n_positions", "max_position_embeddings", "context_length", FIELD(n_context),
     PGRAD__MAX_CONTEXT, 0},
    {"n_embd", "hidden_size", "embedding_length", FIELD(n_embd), PGRAD__MAX_EMBD, 0},
    {"n_head", "num_attention_heads", "attention.head_count", FIELD(n_heads), PGRAD__MAX_HEADS, 0},
    {"n_inner", NULL, "feed_forward_length", FIELD(n_ff), PGRAD__MAX_FF, 1},
};

static const pgrad__real_key reals[] = {
    {"layer_norm_epsilon", "attention.layer_norm_epsilon", FIELD(norm_epsilon), 0, 1e-30, 1.0},
    {"initializer_range", NULL, FIELD(initializer_range), 0, 0.0, 100.0},
};

static const pgrad__flag_key flags[] = {
    {"scale_attn_by_inverse_layer_idx", NULL, FIELD(scale_by_layer)},
    {"tie_word_embeddings", NULL, FIELD(tied_head)},
};

#define VECTOR(hf, gguf, extent, place, initial)                                                   \
    {                                                                                              \
        hf, gguf, PGRAD__TENSOR_VECTOR, {extent, PGRAD__EXTENT_NONE}, 1, place, PGRAD__ALWAYS,     \
            initial, 0                                                                             \
    }
#define CONV1D(hf, gguf, in, out, place, initial)                                                  \
    {                                                                                              \
        hf, gguf, PGRAD__TENSOR_MATRIX_TRANSPOSED, {in, out}, 1, place, PGRAD__ALWAYS, initial, 0  \
    }

static const pgrad__tensor_rule rules[] = {
    {"wte.weight",
     "token_embd.weight",
     PGRAD__TENSOR_MATRIX,
     {PGRAD__EXTENT_VOCAB, PGRAD__EXTENT_EMBD},
     0,
     STEM(embedding),
     PGRAD__ALWAYS,
     PGRAD__INITIAL_NORMAL,
     0},
    {"wpe.weight",
     "position_embd.weight",
     PGRAD__TENSOR_TABLE,
     {PGRAD__EXTENT_CONTEXT, PGRAD__EXTENT_EMBD},
     0,
     STEM(positions),
     PGRAD__ALWAYS,
     PGRAD__INITIAL_NORMAL,
     0},
    VECTOR("h.#.ln_1.weight", "blk.#.attn_norm.weight", PGRAD__EXTENT_EMBD,
           LAYER(attention_norm.weight), PGRAD__INITIAL_ONE),
    VECTOR("h.#.ln_1.bias", "blk.#.attn_norm.bias", PGRAD__EXTENT_EMBD, LAYER(attention_norm.bias),
           PGRAD__INITIAL_ZERO),
    CONV1D("h.#.attn.c_attn.weight", "blk.#.attn_qkv.weight", PGRAD__EXTENT_EMBD, PGRAD__EXTENT_QKV,
           LAYER(qkv[0].weight), PGRAD__INITIAL_NORMAL),
    VECTOR("h.#.attn.c_attn.bias", "blk.#.attn_qkv.bias", PGRAD__EXTENT_QKV, LAYER(qkv[0].bias),
           PGRAD__INITIAL_ZERO),
    CONV1D("h.#.attn.c_proj.weight", "blk.#.attn_output.weight", PGRAD__EXTENT_QUERY,
           PGRAD__EXTENT_EMBD, LAYER(output.weight), PGRAD__INITIAL_RESIDUAL),
    VECTOR("h.#.attn.c_proj.bias", "blk.#.attn_output.bias", PGRAD__EXTENT_EMBD, LAYER(output.bias),
           PGRAD__INITIAL_ZERO),
    VECTOR("h.#.ln_2.weight", "blk.#.ffn_norm.weight", PGRAD__EXTENT_EMBD, LAYER(mlp_norm.weight),
           PGRAD__INITIAL_ONE),
    VECTOR("h.#.ln_2.bias", "blk.#.ffn_norm.bias", PGRAD__EXTENT_EMBD, LAYER(mlp_norm.bias),
           PGRAD__INITIAL_ZERO),
    CONV1D("h.#.mlp.c_fc.weight", "blk.#.ffn_up.weight", PGRAD__EXTENT_EMBD, PGRAD__EXTENT_FF,
           LAYER(expand[0].weight), PGRAD__INITIAL_NORMAL),
    VECTOR("h.#.mlp.c_fc.bias", "blk.#.ffn_up.bias", PGRAD__EXTENT_FF, LAYER(expand[0].bias),
           PGRAD__INITIAL_ZERO),
    CONV1D("h.#.mlp.c_proj.weight", "blk.#.ffn_down.weight", PGRAD__EXTENT_FF, PGRAD__EXTENT_EMBD,
           LAYER(contract.weight), PGRAD__INITIAL_RESIDUAL),
    VECTOR("h.#.mlp.c_proj.bias", "blk.#.ffn_down.bias", PGRAD__EXTENT_EMBD, LAYER(contract.bias),
           PGRAD__INITIAL_ZERO),
    {"ln_f.weight",
     "output_norm.weight",
     PGRAD__TENSOR_VECTOR,
     {PGRAD__EXTENT_EMBD, PGRAD__EXTENT_NONE},
     0,
     STEM(norm.weight),
     PGRAD__ALWAYS,
     PGRAD__INITIAL_ONE,
     0},
    {"ln_f.bias",
     "output_norm.bias",
     PGRAD__TENSOR_VECTOR,
     {PGRAD__EXTENT_EMBD, PGRAD__EXTENT_NONE},
     0,
     STEM(norm.bias),
     PGRAD__ALWAYS,
     PGRAD__INITIAL_ZERO,
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

/* Masks, kept in old checkpoints. */
static const char *const ignored[] = {".attn.bias", ".attn.masked_bias", NULL};

static pgrad_status check_json(pgrad__config *config, const pgrad__json *json, const char *origin)
{
    int cross, scaled;
    PGRAD__TRY(pgrad__json_optional_bool(json, origin, "add_cross_attention", 0, &cross));
    if (cross)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: add_cross_attention is not supported", origin);
    PGRAD__TRY(pgrad__json_optional_bool(json, origin, "scale_attn_weights", 1, &scaled));
    config->attention_scale = scaled ? 0.0f : 1.0f; /* 0: filled in from head_dim */
    return PGRAD_OK;
}

static pgrad_status check_gguf(pgrad__config *config, const pgrad__gguf *gguf)
{
    (void)config;
    (void)gguf;
    return PGRAD_OK;
}

const pgrad__arch pgrad__arch_gpt2 = {
    .name = "gpt2",
    .class_name = "GPT2LMHeadModel",
    .prefix = "transformer.",
    .activation_key = "activation_function",
    .initial =
        {
            .norm = PGRAD__NORM_LAYER,
            .norm_epsilon = 1e-5f,
            .activation = PGRAD__ACTIVATION_GELU_TANH,
            .qkv_bias = 1,
            .output_bias = 1,
            .mlp_bias = 1,
            .learned_positions = 1,
            .tied_head = 1,
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
