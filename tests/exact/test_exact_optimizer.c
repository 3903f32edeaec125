/* Five updates with moments in f32, bf16 and 8-bit blocks, of weights in f32 and bf16: the same weights for any number of threads
 * and every kernel set, whose panels are of different widths. */
#include "../model/model_test.h"

#include <policygrad.h>

/* Rows that end inside a block of 64 and inside four inputs; a learned table of positions. */
static const char *const configs[] = {
    "{\"model_type\":\"llama\",\"hidden_size\":72,\"intermediate_size\":150,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":64,\"vocab_size\":97,"
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"initializer_range\":0.2}",
    "{\"model_type\":\"gpt2\",\"n_embd\":66,\"n_layer\":1,\"n_head\":3,\"n_positions\":61,\"vocab_size\":97,"
    "\"activation_function\":\"gelu_new\",\"layer_norm_epsilon\":1e-5,\"initializer_range\":0.2}"};

enum { N_CONFIGS = 2, N_KINDS = 2, N_MOMENTS = 3, N_STORAGES = 2, STEPS = 5, TOKENS = 50 };

typedef struct weights {
    size_t n;
    float *values;
} weights;

static weights read_weights(pgrad_model *model)
{
    weights out = {0};
    size_t at = 0, n;
    for (uint32_t i = 0; i < model->n_tensors; i++)
        out.n += model->tensors[i].dims[0] * model->tensors[i].dims[1];
    out.values = malloc(out.n * sizeof *out.values);
    for (uint32_t i = 0; i < model->n_tensors; i++, at += n)
        OK(pgrad_model_tensor_read(model, model->tensors[i].name, out.values + at, out.n - at, &n));
    ck_assert_uint_eq(at, out.n);
    return out;
}

static weights run(int number, uint32_t kernel_set, uint32_t n_threads)
{
    weights out = {0};
    pgrad_context *context = test_context(kernel_set, n_threads);
    if (context == NULL)
        return out; /* this machine cannot run the kernel set */
    pgrad_model *model;
    pgrad__pass *pass;
    pgrad_optimizer *optimizer;
    pgrad_optimizer_params params;
    pgrad_model_params model_params;
    pgrad_model_params_init(&model_params, sizeof model_params);
    if (number / N_CONFIGS / N_KINDS / N_MOMENTS > 0)
        model_params.storage = PGRAD_STORAGE_BF16;
    OK(pgrad_model_create(context, configs[number % N_CONFIGS], 7, &model_params, &model));
    OK(pgrad__pass_create(model, &pass));
    pgrad_optimizer_params_init(&params, sizeof params);
    params.kind = number / N_CONFIGS % N_KINDS == 0 ? PGRAD_OPTIMIZER_ADAMW : PGRAD_OPTIMIZER_SGD;
    params.momentum = params.kind == PGRAD_OPTIMIZER_SGD ? 0.9 : 0.0;
    params.moments = (uint32_t)(number / N_CONFIGS / N_KINDS % N_MOMENTS);
    params.learning_rate = 0.01;
    params.weight_decay = 0.1;
    params.seed = 0xfedcba9876543210u;
    OK(pgrad_optimizer_create(model, &params, &optimizer));
    for (int step = 0; step < STEPS; step++) {
        test_batch b = {0};
        pgrad_token tokens[TOKENS];
        for (int i = 0; i < TOKENS; i++)
            tokens[i] = (step * 13 + i * 31 + i * i % 7) % 97;
        batch_add(&b, tokens, TOKENS);
        OK(pgrad_model_zero_grad(model));
        (void)run_backward(model, pass, &b);
        OK(pgrad_optimizer_step(optimizer, NULL));
    }
    out = read_weights(model);
    pgrad_optimizer_free(optimizer);
    pgrad__pass_free(pass);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return out;
}

static void same(const char *what, uint32_t which, const weights *a, const weights *b)
{
    ck_assert_uint_eq(a->n, b->n);
    for (size_t i = 0; i < a->n; i++)
        if (memcmp(&a->values[i], &b->values[i], sizeof a->values[i]) != 0)
            ck_abort_msg("%s %u: weight %zu: %.9g and %.9g", what, which, i, (double)a->values[i],
                         (double)b->values[i]);
}

START_TEST(threads_and_kernel_sets_do_not_show)
{
    static const uint32_t threads[] = {2, 3, 8};
    static const uint32_t sets[] = {PGRAD_KERNELS_HASWELL, PGRAD_KERNELS_SKX, PGRAD_KERNELS_ARMV8A};
    weights plain = run(_i, PGRAD_KERNELS_GENERIC, 1);
    for (size_t i = 0; i < 3; i++) {
        weights other = run(_i, PGRAD_KERNELS_AUTO, threads[i]);
        same("threads", threads[i], &plain, &other);
        free(other.values);
    }
    for (size_t i = 0; i < 3; i++) {
        weights other = run(_i, sets[i], 2);
        if (other.values != NULL)
            same("kernel set", sets[i], &plain, &other);
        free(other.values);
    }
    free(plain.values);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact/optimizer");
    TCase *tests = tcase_create("optimizer");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, threads_and_kernel_sets_do_not_show, 0,
                       N_CONFIGS * N_KINDS * N_MOMENTS * N_STORAGES);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
