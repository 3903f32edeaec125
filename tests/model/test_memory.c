/* The memory of a training pass: flat in the vocabulary, less with recomputation, and no gradients before the
 * first backward pass. */
#include "model_test.h"

enum { TARGETS = 200 };

static uint64_t memory_now(pgrad_context *context)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    OK(pgrad_context_get_info(context, &info));
    return info.memory_now;
}

static void long_batch(test_batch *b)
{
    pgrad_token tokens[TARGETS + 1];
    for (int i = 0; i <= TARGETS; i++)
        tokens[i] = (pgrad_token)(i * 31 % 97);
    memset(b, 0, sizeof *b);
    batch_add(b, tokens, TARGETS + 1);
}

static pgrad_model *wide_model(pgrad_context *context, unsigned vocab, unsigned layers)
{
    char config[512];
    pgrad_model *model = NULL;
    snprintf(config, sizeof config,
             "{\"model_type\":\"llama\",\"vocab_size\":%u,\"hidden_size\":16,\"intermediate_size\":64,"
             "\"num_hidden_layers\":%u,\"num_attention_heads\":2,\"num_key_value_heads\":1,"
             "\"max_position_embeddings\":256,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true}",
             vocab, layers);
    OK(pgrad_model_create(context, config, 3, NULL, &model));
    return model;
}

/* Bytes that a pass holds after a backward pass, gradients not counted. */
static uint64_t pass_bytes(unsigned vocab, unsigned layers, int recompute, uint64_t *gradients)
{
    test_batch b;
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 2);
    pgrad_model *model = wide_model(context, vocab, layers);
    pgrad__pass *pass = NULL;
    mean_loss loss = {TARGETS, 0.0};
    long_batch(&b);
    const uint64_t before = memory_now(context);
    OK(pgrad__gradients_allocate(model));
    const uint64_t with_gradients = memory_now(context);
    *gradients = with_gradients - before;
    OK(pgrad__pass_create(model, &pass));
    OK(pgrad__model_backward(
        model, pass, &b.batch,
        &(pgrad__backward){.loss = mean_loss_fn, .user = &loss, .recompute = recompute}));
    ck_assert(isfinite(loss.sum));
    const uint64_t bytes = memory_now(context) - with_gradients;
    pgrad__pass_free(pass);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return bytes;
}

START_TEST(flat_in_the_vocabulary)
{
    static const unsigned vocabularies[] = {1u << 17, 393217, 1u << 20};
    for (size_t i = 0; i < 3; i++) {
        uint64_t gradients;
        uint64_t bytes = pass_bytes(vocabularies[i], 1, 0, &gradients);
        ck_assert_uint_ge(gradients, (uint64_t)vocabularies[i] * 16 * sizeof(float));
        ck_assert_msg(bytes > (64u << 20) && bytes < (104u << 20), "vocabulary %u: %llu bytes", vocabularies[i],
                      (unsigned long long)bytes);
    }
}
END_TEST

/* A layer costs its input: 16 floats a row, of 8 times as much. */
START_TEST(recomputation_keeps_inputs)
{
    uint64_t gradients;
    const uint64_t row = (TARGETS + 1) * sizeof(float);
    for (int recompute = 0; recompute < 2; recompute++) {
        const uint64_t few = pass_bytes(97, 2, recompute, &gradients);
        const uint64_t many = pass_bytes(97, 42, recompute, &gradients);
        const uint64_t per_layer = (many - few) / 40;
        if (recompute)
            ck_assert_uint_le(per_layer, row * 16 + 1024);
        else
            ck_assert_uint_ge(per_layer, row * (16 + 16 + 32 + 16 + 2 + 64 + 64));
    }
}
END_TEST

/* A model that is not trained holds no gradients; reading them gives zeros. */
START_TEST(gradients_on_demand)
{
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 2);
    pgrad_model *model = wide_model(context, 97, 2);
    float values[97 * 16];
    size_t n;
    const uint64_t before = memory_now(context);
    memset(values, 1, sizeof values);
    OK(pgrad_model_zero_grad(model));
    OK(pgrad_model_grad_read(model, "model.embed_tokens.weight", values, 97 * 16, &n));
    for (size_t i = 0; i < n; i++)
        ck_assert(values[i] == 0.0f);
    ck_assert_uint_eq(memory_now(context), before);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("memory");
    TCase *tests = tcase_create("memory");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, flat_in_the_vocabulary);
    tcase_add_test(tests, recomputation_keeps_inputs);
    tcase_add_test(tests, gradients_on_demand);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
