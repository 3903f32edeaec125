/* Hyper-parameters of a model, read from config.json or GGUF metadata and checked. Not its weights.
 */
#ifndef PGRAD_MODEL_CONFIG_H
#define PGRAD_MODEL_CONFIG_H

#include "io/gguf.h"
#include "io/json.h"
#include "kernel/kernel.h"

typedef enum pgrad__norm_kind { PGRAD__NORM_LAYER, PGRAD__NORM_RMS } pgrad__norm_kind;

typedef enum pgrad__rope_type {
    PGRAD__ROPE_DEFAULT,
    PGRAD__ROPE_LINEAR,
    PGRAD__ROPE_LLAMA3
} pgrad__rope_type;

/* How rotary frequencies are slowed down: algorithms.md 9. */
typedef struct pgrad__rope_scaling {
    pgrad__rope_type type;
    double factor;                  /* at least 1 */
    double low_factor, high_factor; /* of LLAMA3 */
    uint32_t original_context;      /* of LLAMA3 */
} pgrad__rope_scaling;

/* One transformer decoder: norm, attention, add, norm, MLP, add. */
typedef struct pgrad__config {
    const struct pgrad__arch *arch; /* arch.h: names and readers of the family */
    uint32_t n_layers, n_heads, n_kv_heads, head_dim, n_embd, n_ff, n_vocab, n_context;
    pgrad__norm_kind norm;
    float norm_epsilon;
    pgrad__activation activation;
    int gated; /* act(gate) * up, else act(up) */
    int qkv_bias, output_bias, mlp_bias;
    int learned_positions; /* else rope */
    double rope_theta;
    pgrad__rope_scaling rope_scaling;
    int tied_head;
    float attention_scale; /* of q.k; 0 until it is filled in from head_dim */
    int scale_by_layer;    /* GPT-2 scale_attn_by_inverse_layer_idx */
    float initializer_range;
    pgrad_token eos[8]; /* of config and generation config */
    uint32_t n_eos;
    pgrad_token bos; /* -1: none */
} pgrad__config;

/* Reads config.json and checks it whole; origin names it in messages. A number that is missing and
 * has a default is told in the log. *out is left alone on failure. */
pgrad_status pgrad__config_read_json(pgrad_context *context, const pgrad__json *json,
                                     const char *origin, pgrad__config *out);
/* Adds the end tokens of a generation_config.json. */
pgrad_status pgrad__config_read_generation(pgrad__config *config, const pgrad__json *json,
                                           const char *origin);
/* The same from GGUF metadata. */
pgrad_status pgrad__config_read_gguf(pgrad_context *context, const pgrad__gguf *gguf,
                                     pgrad__config *out);
/* Makes a config.json that says the same; free *text with pgrad__free. */
pgrad_status pgrad__config_write(pgrad_context *context, const pgrad__config *config, char **text,
                                 size_t *length);

/* The frequencies of rotary positions, scaled, [head_dim / 2]: rope.c. */
void pgrad__rope_frequencies(const pgrad__config *config, double *out);

#endif
