/* GPT-2 124M with random weights, for the benchmarks. */
#ifndef PGRAD_TESTS_BENCH_GPT2_H
#define PGRAD_TESTS_BENCH_GPT2_H

#include "bench.h"

#define GPT2_CONFIG                                                                                \
    "{\"model_type\":\"gpt2\",\"vocab_size\":50257,\"n_positions\":1024,\"n_embd\":768,"           \
    "\"n_layer\":12,\"n_head\":12,\"activation_function\":\"gelu_new\","                           \
    "\"layer_norm_epsilon\":1e-5,\"eos_token_id\":50256}"

/* Weights that a product reads for a token: blocks and head; the gather of an embedding is no
 * product. */
#define GPT2_MATRIX_WEIGHTS (12.0 * (4.0 * 768 * 768 + 2.0 * 768 * 3072) + 50257.0 * 768)

static inline pgrad_model *gpt2_create(pgrad_context *context)
{
    pgrad_model *model;
    CHECK(pgrad_model_create(context, GPT2_CONFIG, 1, NULL, &model));
    return model;
}

static inline pgrad_model *gpt2_create_with(pgrad_context *context, uint32_t storage, uint32_t frozen)
{
    pgrad_model *model;
    pgrad_model_params params;
    pgrad_model_params_init(&params, sizeof params);
    params.frozen = frozen;
    params.storage = storage;
    CHECK(pgrad_model_create(context, GPT2_CONFIG, 1, &params, &model));
    return model;
}

static inline pgrad_model *gpt2_create_in(pgrad_context *context, uint32_t storage)
{
    return gpt2_create_with(context, storage, 1);
}

static inline pgrad_context *two_threads(void)
{
    pgrad_context *context;
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    CHECK(pgrad_context_create(&params, &context));
    return context;
}

#endif
