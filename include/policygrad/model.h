/* A language model: its weights, gradients, and passes forward and backward.
 *
 *     pgrad_model_load(context, "SmolLM2-135M-Instruct", NULL, &model);
 *     ... train ...
 *     pgrad_model_save(model, "tuned", NULL);
 *     pgrad_model_free(model);
 *
 * Read: Hugging Face folders (config.json with model.safetensors, single or sharded) and GGUF files,
 * of the families GPT-2 and Llama (SmolLM2, TinyLlama, Llama 2 and 3). Weights become f32 on load, or
 * what params.storage asks for; one that is not finite is E_NUMERIC.
 *
 * Tensors are named as in the Hugging Face checkpoint of the family ("model.norm.weight") and have
 * its shapes, whatever the file was: GPT-2's Conv1D matrices are [in, out], all others [out, in].
 *
 * Threads: reads may run in parallel; what changes weights or gradients needs the model alone. A
 * clash is reported as E_BUSY. */
#ifndef POLICYGRAD_MODEL_H
#define POLICYGRAD_MODEL_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* How matrices are kept in memory. Vectors and learned positions are f32 always, and so is all that
 * is computed: a product is that of the widened weights, to the bit. BF16 rounds to nearest even.
 * Q8_0 has 8 bits a weight and a scale for 32 inputs of an output, quantised as GGUF files are: the
 * weights of such a file are kept as they are. A value too large for it (65504 times 127) becomes
 * infinite. */
enum { PGRAD_STORAGE_F32 = 0, PGRAD_STORAGE_BF16 = 1, PGRAD_STORAGE_Q8_0 = 2 };

typedef struct pgrad_model_params {
    size_t struct_size;
    uint32_t n_context; /* positions to allow, 0: as many as the model has; more is E_INVALID */
    uint32_t frozen;    /* 1: no gradients, cannot be trained; default 0 */
    uint32_t storage;   /* PGRAD_STORAGE_*, default F32; Q8_0 of frozen models only */
    uint32_t reserved;
} pgrad_model_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_model_params_init(pgrad_model_params *params, size_t size);

typedef struct pgrad_model_info {
    size_t struct_size;
    const char *architecture; /* "gpt2", "llama"; static */
    uint32_t n_layers;
    uint32_t n_heads;        /* of queries */
    uint32_t n_kv_heads;     /* of keys and values: n_heads, or fewer that are shared */
    uint32_t head_dim;       /* of a head's query, key and value */
    uint32_t n_embd;         /* of the residual stream */
    uint32_t n_ff;           /* of the MLP's inner layer */
    uint32_t n_vocab;        /* rows of the token embedding */
    uint32_t n_context;      /* positions allowed */
    uint32_t tied_head;      /* 1: the output head is the token embedding */
    uint32_t n_tensors;      /* that pgrad_model_tensor_name names */
    uint64_t n_parameters;   /* a tied head counts once */
    uint64_t weight_version; /* rises with every change of the weights */
    pgrad_token eos_token;   /* of the model's config, -1 when it names none */
    pgrad_token bos_token;
    uint64_t weight_bytes;   /* memory held by the weights */
    uint32_t storage;        /* PGRAD_STORAGE_* of its matrices */
    uint32_t reserved;
} pgrad_model_info;

/* How a model is written. */
enum { PGRAD_DTYPE_F32 = 0, PGRAD_DTYPE_BF16 = 1 };

typedef struct pgrad_save_params {
    size_t struct_size;
    uint32_t dtype;             /* PGRAD_DTYPE_*: of matrices and vectors alike; default F32 */
    uint32_t reserved;
    pgrad_tokenizer *tokenizer; /* its files go into the folder; NULL: none */
    uint64_t max_shard_bytes;   /* of tensors in a file: larger models are several files with an index. A
                                   tensor is never cut. 0: one file whatever its size, the default */
} pgrad_save_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_save_params_init(pgrad_save_params *params, size_t size);

/* Flags of pgrad_model_logits. */
enum { PGRAD_LOGITS_ALL = 0, PGRAD_LOGITS_LAST = 1 };

/* Loads a model. path is a folder, a .safetensors file beside its config.json, or a .gguf file.
 * Reports progress as "load".
 * Errors: E_IO, E_FORMAT, E_UNSUPPORTED (a family, rope scaling or tensor type that is not built,
 * by name), E_MISMATCH (a tensor's shape against the config), E_NUMERIC (a weight is not finite),
 * E_INVALID (params), E_LIMIT, E_NOMEM, E_CANCELLED, E_CALLBACK. */
PGRAD_API pgrad_status pgrad_model_load(pgrad_context *context, const char *path,
                                        const pgrad_model_params *params, pgrad_model **out);

/* Creates a model with random weights from a config.json's text. The same seed gives the same bits
 * everywhere. Initialisation: matrices and embeddings N(0, initializer_range^2) (0.02 when the
 * config does not say), projections into the residual stream scaled by 1/sqrt(2 n_layers), norms
 * one, biases zero (Radford et al. 2019).
 * Errors: E_INVALID (params), E_FORMAT, E_UNSUPPORTED, E_LIMIT, E_NOMEM, E_CANCELLED, E_CALLBACK. */
PGRAD_API pgrad_status pgrad_model_create(pgrad_context *context, const char *config_json,
                                          uint64_t seed, const pgrad_model_params *params,
                                          pgrad_model **out);

/* Makes a frozen copy of the weights as they are now, in the same storage: the reference policy of a
 * KL term.
 * Errors: E_NOMEM, E_LIMIT, E_BUSY. */
PGRAD_API pgrad_status pgrad_model_snapshot(pgrad_model *model, pgrad_model **out);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_model_free(pgrad_model *model);

/* Tells sizes and names. Set out->struct_size first; no more than that is written.
 * Threads: at any time, while another thread changes the model too.
 * Errors: E_INVALID. */
PGRAD_API pgrad_status pgrad_model_get_info(pgrad_model *model, pgrad_model_info *out);

/* Names tensor `index` of info.n_tensors, NULL beyond. *n_dims (1 or 2) and dims are written when not
 * NULL. Valid as long as the model. */
PGRAD_API const char *pgrad_model_tensor_name(pgrad_model *model, uint32_t index, uint32_t *n_dims,
                                              uint64_t dims[4]);

/* Copies a tensor out, row-major. *n is its number of elements; E_BUFFER when capacity is smaller.
 * out may be NULL when capacity is 0. Errors: E_INVALID (no such name), E_BUFFER, E_BUSY. */
PGRAD_API pgrad_status pgrad_model_tensor_read(pgrad_model *model, const char *name, float *out,
                                               size_t capacity, size_t *n);

/* Copies a tensor in; n must be its number of elements. A narrow storage rounds them.
 * Errors: E_INVALID, E_MISMATCH (n), E_NUMERIC (a value is not finite), E_BUSY. */
PGRAD_API pgrad_status pgrad_model_tensor_write(pgrad_model *model, const char *name,
                                                const float *in, size_t n);

/* Copies the gradient of a tensor out, as pgrad_model_tensor_read does; zeros before any backward,
 * which is when their memory is taken.
 * Errors: as tensor_read; E_STATE for a frozen model. */
PGRAD_API pgrad_status pgrad_model_grad_read(pgrad_model *model, const char *name, float *out,
                                             size_t capacity, size_t *n);

/* Sets all gradients to zero. Errors: E_STATE for a frozen model, E_BUSY. */
PGRAD_API pgrad_status pgrad_model_zero_grad(pgrad_model *model);

/* Runs n tokens through the model and writes logits: [n, n_vocab] row-major, or only the last row
 * with PGRAD_LOGITS_LAST. capacity counts floats.
 * Errors: E_INVALID (a token outside the vocabulary, with its index), E_LIMIT (n beyond n_context),
 * E_BUFFER, E_BUSY, E_NOMEM, E_CANCELLED. */
PGRAD_API pgrad_status pgrad_model_logits(pgrad_model *model, const pgrad_token *tokens, size_t n,
                                          uint32_t flags, float *out, size_t capacity);

/* Writes a Hugging Face folder: config.json, model.safetensors (or, under max_shard_bytes,
 * model-00001-of-0000N.safetensors and so on with model.safetensors.index.json),
 * generation_config.json where there was one, and the tokenizer's files when params name it. The
 * folder is built beside the old one and put in its place when it is complete: a reader sees the old
 * model or the new one, never half. Files of other names in an old folder stay, but for weights by
 * the names above. Reports progress as "save".
 * Errors: E_INVALID (max_shard_bytes makes more than 10000 files); E_IO (the old folder is untouched,
 * unless the message says that the new one is already in place and only its neighbours or the parent
 * folder could not be seen to), E_NUMERIC (a weight is not finite), E_NOMEM, E_CANCELLED. */
PGRAD_API pgrad_status pgrad_model_save(pgrad_model *model, const char *path,
                                        const pgrad_save_params *params);

#ifdef __cplusplus
}
#endif
#endif
