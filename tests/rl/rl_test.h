/* What the tests of lib/rl share: tiny models over bytes, a tokenizer of bytes, comparisons bit by bit. */
#ifndef PGRAD_TESTS_RL_TEST_H
#define PGRAD_TESTS_RL_TEST_H

#include "../model/model_test.h"

#include <policygrad.h>

#include "base/rng.h"
#include "rl/rollout.h"

/* Ids 0 .. 255 are bytes; the model's rows from N_TOKENS on have no token. */
enum { ID_END = 256, ID_HELLO, ID_IM_END, N_TOKENS, N_VOCAB = 272 };

static const char LLAMA_CONFIG[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,"
    "\"intermediate_size\":48,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"max_position_embeddings\":256,\"vocab_size\":272,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"initializer_range\":0.3}";
static const char GPT2_CONFIG[] =
    "{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":32,\"n_layer\":2,"
    "\"n_head\":4,\"n_positions\":96,\"vocab_size\":272,\"activation_function\":\"gelu_new\","
    "\"layer_norm_epsilon\":1e-5,\"initializer_range\":0.3}";
/* The same with room for 1024 positions. */
static const char LLAMA_LONG[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,"
    "\"intermediate_size\":48,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"max_position_embeddings\":1024,\"vocab_size\":272,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"initializer_range\":0.3}";
static const char GPT2_LONG[] =
    "{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":32,\"n_layer\":2,"
    "\"n_head\":4,\"n_positions\":1024,\"vocab_size\":272,\"activation_function\":\"gelu_new\","
    "\"layer_norm_epsilon\":1e-5,\"initializer_range\":0.3}";

/* Of the models made from now on; Q8_0 makes them frozen. */
static uint32_t model_storage = PGRAD_STORAGE_F32;

static inline pgrad_model *make_model(pgrad_context *context, const char *config)
{
    pgrad_model *model = NULL;
    pgrad_model_params params;
    pgrad_model_params_init(&params, sizeof params);
    params.storage = model_storage;
    params.frozen = model_storage == PGRAD_STORAGE_Q8_0;
    OK(pgrad_model_create(context, config, 7, &params, &model));
    return model;
}

/* A byte as byte-level BPE writes it, in JSON. */
static inline void put_byte(FILE *to, unsigned byte)
{
    unsigned code = byte, others = 0;
    for (unsigned b = 0; b <= byte; b++) {
        const int printable = (b >= 0x21 && b <= 0x7e) || (b >= 0xa1 && b != 0xad);
        code = printable ? b : 256 + others;
        others += !printable;
    }
    fprintf(to, "\"\\u%04x\":%u", code, byte);
}

/* more_tokens: entries of added_tokens beside those there are, each with a comma in front. */
static inline pgrad_tokenizer *make_tokenizer_with(pgrad_context *context, const char *more_tokens)
{
    char folder[512], path[600];
    pgrad_tokenizer *tokenizer = NULL;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/tokenizer.json", folder);
    FILE *file = fopen(path, "w");
    ck_assert_ptr_nonnull(file);
    fprintf(file, "{\"version\":\"1.0\",\"added_tokens\":["
                  "{\"id\":256,\"content\":\"<|endoftext|>\",\"special\":true,\"normalized\":false},"
                  "{\"id\":258,\"content\":\"<|im_end|>\",\"special\":true,\"normalized\":false}%s],"
                  "\"normalizer\":null,\"pre_tokenizer\":{\"type\":\"ByteLevel\",\"add_prefix_space\":false},"
                  "\"post_processor\":null,\"decoder\":{\"type\":\"ByteLevel\"},"
                  "\"model\":{\"type\":\"BPE\",\"vocab\":{", more_tokens);
    for (unsigned byte = 0; byte < 256; byte++) {
        put_byte(file, byte);
        fputc(',', file);
    }
    fprintf(file, "\"he\":257},\"merges\":[\"h e\"]}}");
    ck_assert_int_eq(fclose(file), 0);
    static const char roles[] = "{\"eos_token\":\"<|endoftext|>\"}";
    put_file(folder, "tokenizer_config.json", roles, sizeof roles - 1);
    OK(pgrad_tokenizer_load(context, folder, &tokenizer));
    remove_folder(folder);
    return tokenizer;
}

static inline pgrad_tokenizer *make_tokenizer(pgrad_context *context)
{
    return make_tokenizer_with(context, "");
}

static inline uint64_t memory_now(pgrad_context *context)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    OK(pgrad_context_get_info(context, &info));
    return info.memory_now;
}

static inline uint64_t allocations(pgrad_context *context)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    OK(pgrad_context_get_info(context, &info));
    return info.n_allocations;
}

/* All gradients, or weights, one tensor behind another; for the caller to free. */
static inline float *all_values(pgrad_model *model, int gradients, size_t *n)
{
    float *values = NULL;
    const char *name;
    *n = 0;
    for (uint32_t i = 0; (name = pgrad_model_tensor_name(model, i, NULL, NULL)) != NULL; i++) {
        size_t more = 0;
        ck_assert_int_eq(pgrad_model_tensor_read(model, name, NULL, 0, &more), PGRAD_E_BUFFER);
        values = realloc(values, (*n + more) * sizeof *values);
        if (gradients)
            OK(pgrad_model_grad_read(model, name, values + *n, more, &more));
        else
            OK(pgrad_model_tensor_read(model, name, values + *n, more, &more));
        *n += more;
    }
    return values;
}

typedef struct world {
    pgrad_context *context;
    uint64_t memory; /* of the context alone */
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
} world;

static inline world begin_world_with(const char *config, uint32_t n_threads)
{
    world w = {.context = test_context(PGRAD_KERNELS_AUTO, n_threads)};
    ck_assert_ptr_nonnull(w.context);
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, config);
    w.tokenizer = make_tokenizer(w.context);
    return w;
}

static inline world begin_world(const char *config)
{
    return begin_world_with(config, 2);
}

/* Everything is given back. */
static inline void end_world(world *w)
{
    pgrad_tokenizer_free(w->tokenizer);
    pgrad_model_free(w->model);
    ck_assert_uint_eq(memory_now(w->context), w->memory);
    pgrad_context_free(w->context);
}

static inline pgrad_rollout *make_rollout_over(const world *w, uint32_t group_size, uint32_t max_prompts,
                                               uint32_t max_new_tokens, uint32_t batch_size,
                                               uint32_t kv_storage)
{
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = group_size;
    params.max_prompts = max_prompts;
    params.max_prompt_tokens = 200;
    params.max_new_tokens = max_new_tokens;
    params.batch_size = batch_size;
    params.kv_storage = kv_storage;
    OK(pgrad_rollout_create(w->model, w->tokenizer, &params, &rollout));
    return rollout;
}

static inline pgrad_rollout *make_rollout(const world *w, uint32_t group_size, uint32_t max_prompts,
                                          uint32_t max_new_tokens, uint32_t batch_size)
{
    return make_rollout_over(w, group_size, max_prompts, max_new_tokens, batch_size, PGRAD_KV_F32);
}

static inline pgrad_sampler_params sampler_defaults(void)
{
    pgrad_sampler_params params;
    pgrad_sampler_params_init(&params, sizeof params);
    params.seed = 11;
    return params;
}

static inline pgrad_sampler *make_sampler(pgrad_context *context, const pgrad_sampler_params *params)
{
    pgrad_sampler *sampler = NULL;
    OK(pgrad_sampler_create(context, params, &sampler));
    return sampler;
}

/* Bytes as ids. */
static inline uint32_t add_text_prompt(pgrad_rollout *rollout, const char *text,
                                       const pgrad_prompt_params *params)
{
    pgrad_token ids[256];
    uint32_t group = UINT32_MAX;
    size_t n = strlen(text);
    ck_assert(n <= 256);
    for (size_t i = 0; i < n; i++)
        ids[i] = (unsigned char)text[i];
    OK(pgrad_rollout_add_prompt(rollout, ids, n, params, &group));
    return group;
}

/* n pseudo-random bytes; different for every seed. */
static inline uint32_t add_long_prompt(pgrad_rollout *rollout, uint64_t seed, size_t n)
{
    pgrad_token ids[256];
    uint32_t group = UINT32_MAX;
    ck_assert(n <= 256);
    for (size_t i = 0; i < n; i++)
        ids[i] = (pgrad_token)pgrad__uniform_below(seed, 1, i, 256);
    OK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, &group));
    return group;
}

static inline pgrad_sequence_info info_of(const pgrad_rollout *rollout, uint32_t i)
{
    pgrad_sequence_info info = {.struct_size = sizeof info};
    OK(pgrad_rollout_sequence(rollout, i, &info));
    return info;
}

/* Completions with everything that belongs to them, to be compared after the rollout has changed. */
typedef struct record {
    uint32_t n;
    uint32_t n_tokens[64], finish[64];
    uint64_t number[64];
    pgrad_token tokens[64][128];
    float logprobs[64][128], sampled[64][128], entropy[64][128];
    char text[64][1024];
    size_t length[64];
} record;

static inline record *take_record(const pgrad_rollout *rollout)
{
    record *r = calloc(1, sizeof *r);
    r->n = pgrad_rollout_count(rollout);
    ck_assert_uint_le(r->n, 64);
    for (uint32_t i = 0; i < r->n; i++) {
        pgrad_sequence_info info = info_of(rollout, i);
        size_t n;
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, i, &n);
        ck_assert_uint_le(n, 128);
        r->n_tokens[i] = (uint32_t)n;
        r->finish[i] = info.finish;
        r->number[i] = info.sequence;
        memcpy(r->tokens[i], tokens, n * sizeof *tokens);
        if (n > 0) {
            memcpy(r->logprobs[i], pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, NULL), n * sizeof(float));
            memcpy(r->sampled[i], pgrad_rollout_array(rollout, PGRAD_LOGPROBS_SAMPLED, i, NULL),
                   n * sizeof(float));
            memcpy(r->entropy[i], pgrad_rollout_array(rollout, PGRAD_ENTROPY, i, NULL), n * sizeof(float));
        }
        size_t length;
        const char *text = pgrad_rollout_text(rollout, i, &length);
        ck_assert_uint_lt(length, sizeof r->text[i]);
        r->length[i] = length;
        if (text != NULL)
            memcpy(r->text[i], text, length + 1);
    }
    return r;
}

static inline void same_record(const record *a, const record *b)
{
    ck_assert_uint_eq(a->n, b->n);
    for (uint32_t i = 0; i < a->n; i++) {
        ck_assert_msg(a->n_tokens[i] == b->n_tokens[i], "sequence %u: %u and %u tokens", i, a->n_tokens[i],
                      b->n_tokens[i]);
        ck_assert_uint_eq(a->finish[i], b->finish[i]);
        ck_assert_uint_eq(a->number[i], b->number[i]);
        for (uint32_t t = 0; t < a->n_tokens[i]; t++)
            if (a->tokens[i][t] != b->tokens[i][t] ||
                memcmp(&a->logprobs[i][t], &b->logprobs[i][t], sizeof(float)) != 0 ||
                memcmp(&a->sampled[i][t], &b->sampled[i][t], sizeof(float)) != 0 ||
                memcmp(&a->entropy[i][t], &b->entropy[i][t], sizeof(float)) != 0)
                ck_abort_msg("sequence %u, token %u: %d %.9g %.9g %.9g and %d %.9g %.9g %.9g", i, t,
                             a->tokens[i][t], (double)a->logprobs[i][t], (double)a->sampled[i][t],
                             (double)a->entropy[i][t], b->tokens[i][t], (double)b->logprobs[i][t],
                             (double)b->sampled[i][t], (double)b->entropy[i][t]);
        ck_assert_uint_eq(a->length[i], b->length[i]);
        ck_assert(memcmp(a->text[i], b->text[i], a->length[i]) == 0);
    }
}

#endif
