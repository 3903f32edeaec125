/* A model in memory: its sizes, tensors in and out, copies, one made from a seed; what is refused. */
#include "model_fixture.h"

START_TEST(context_of_params)
{
    char path[512];
    pgrad_model *model = NULL;
    pgrad_model_params params;
    pgrad_model_params_init(&params, sizeof params);
    data_path(path, "tiny_llama");
    params.n_context = 257;
    FAILS(PGRAD_E_INVALID, "256", pgrad_model_load(context, path, &params, &model));
    params.n_context = 20;
    params.frozen = 1;
    OK(pgrad_model_load(context, path, &params, &model));
    pgrad_model_info info = {.struct_size = sizeof info};
    OK(pgrad_model_get_info(model, &info));
    ck_assert_uint_eq(info.n_context, 20);
    ck_assert_uint_eq(info.n_layers, 2);
    ck_assert_uint_eq(info.n_kv_heads, 2);
    ck_assert_uint_eq(info.n_tensors, 21);
    ck_assert_uint_eq(info.n_parameters,
                      2 * 101 * 32 + 32 + 2 * (64 + 2 * 1024 + 2 * 512 + 3 * 1536));
    ck_assert_int_eq(info.eos_token, 2);
    ck_assert_int_eq(info.bos_token, 1);
    ck_assert_str_eq(info.architecture, "llama");
    pgrad_token tokens[21] = {1, 2, 3};
    float *out = malloc(21 * 101 * sizeof *out);
    FAILS(PGRAD_E_LIMIT, "20", pgrad_model_logits(model, tokens, 21, 0, out, 21 * 101));
    FAILS(PGRAD_E_BUFFER, "2020", pgrad_model_logits(model, tokens, 20, 0, out, 2019));
    tokens[7] = 101;
    FAILS(PGRAD_E_INVALID, "token 7: id 101", pgrad_model_logits(model, tokens, 20, 0, out, 2020));
    tokens[7] = -1;
    FAILS(PGRAD_E_INVALID, "token 7", pgrad_model_logits(model, tokens, 20, 0, out, 2020));
    FAILS(PGRAD_E_STATE, "frozen", pgrad_model_zero_grad(model));
    pgrad__pass *pass = NULL;
    test_batch b = {0};
    batch_add(&b, (pgrad_token[]){1, 2, 3}, 3);
    OK(pgrad__pass_create(model, &pass));
    FAILS(PGRAD_E_STATE, "frozen",
          pgrad__model_backward(model, pass, &b.batch, &(pgrad__backward){.loss = mean_loss_fn}));
    pgrad__pass_free(pass);
    free(out);
    pgrad_model_free(model);
}
END_TEST

START_TEST(tensors_in_and_out)
{
    static const char *const names[] = {"tiny_gpt2", "tiny_llama_tied"};
    pgrad_model *model = golden_model(context, names[_i]);
    pgrad__tensor_set set = {0};
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s/model.safetensors", PGRAD_TEST_DATA, names[_i]);
    OK(pgrad__safetensors_open(context, path, &set));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        uint32_t n_dims;
        uint64_t dims[4] = {1, 1, 1, 1};
        size_t n, m;
        const char *name = pgrad_model_tensor_name(model, i, &n_dims, dims);
        float *expected = golden_read(&set, name, &n), *found = malloc(n * sizeof *found);
        ck_assert_uint_eq(dims[0] * dims[1], n);
        OK(pgrad_model_tensor_read(model, name, found, n, &m));
        ck_assert(memcmp(expected, found, n * sizeof *found) == 0);
        for (size_t j = 0; j < n; j++)
            found[j] = (float)j * 0.5f;
        uint64_t version = model->weight_version;
        OK(pgrad_model_tensor_write(model, name, found, n));
        ck_assert_uint_gt(model->weight_version, version);
        memset(expected, 0, n * sizeof *expected);
        OK(pgrad_model_tensor_read(model, name, expected, n, &m));
        ck_assert(memcmp(expected, found, n * sizeof *found) == 0);
        FAILS(PGRAD_E_MISMATCH, name, pgrad_model_tensor_write(model, name, found, n - 1));
        found[n / 2] = (float)INFINITY;
        FAILS(PGRAD_E_NUMERIC, name, pgrad_model_tensor_write(model, name, found, n));
        FAILS(PGRAD_E_BUFFER, name, pgrad_model_tensor_read(model, name, found, n - 1, &m));
        ck_assert_uint_eq(m, n);
        free(expected);
        free(found);
    }
    ck_assert_ptr_null(pgrad_model_tensor_name(model, model->n_tensors, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "nothing", pgrad_model_tensor_write(model, "nothing", (float[]){0}, 1));
    pgrad__tensor_set_free(&set);
    pgrad_model_free(model);
}
END_TEST

START_TEST(bad_arguments)
{
    pgrad_model *model = golden_model(context, "tiny_gpt2"), *none = NULL;
    const pgrad_token token = 1;
    pgrad_token *many = calloc(model->n_context + 1, sizeof *many);
    pgrad_model_info info = {.struct_size = sizeof info};
    float out[1];
    size_t n = 7;
    FAILS(PGRAD_E_INVALID, "model_load: path or out is NULL", pgrad_model_load(context, NULL, NULL, &none));
    FAILS(PGRAD_E_INVALID, "model_load: path: expected a file or folder", pgrad_model_load(context, "", NULL, &none));
    FAILS(PGRAD_E_INVALID, "model_create: config_json or out is NULL",
          pgrad_model_create(context, NULL, 1, NULL, &none));
    FAILS(PGRAD_E_INVALID, "model_snapshot: model or out is NULL", pgrad_model_snapshot(NULL, &none));
    FAILS(PGRAD_E_INVALID, "model_snapshot: model or out is NULL", pgrad_model_snapshot(model, NULL));
    FAILS(PGRAD_E_INVALID, "model_get_info: model or out is NULL", pgrad_model_get_info(NULL, &info));
    FAILS(PGRAD_E_INVALID, "model_get_info: model or out is NULL", pgrad_model_get_info(model, NULL));
    FAILS(PGRAD_E_INVALID, "tensor_read: an argument is NULL", pgrad_model_tensor_read(model, NULL, out, 1, &n));
    FAILS(PGRAD_E_INVALID, "tensor_read: an argument is NULL", pgrad_model_tensor_read(model, "x", NULL, 1, &n));
    FAILS(PGRAD_E_INVALID, "tensor_write: an argument is NULL", pgrad_model_tensor_write(NULL, "x", out, 1));
    FAILS(PGRAD_E_INVALID, "the model has no tensor 'x'", pgrad_model_tensor_read(model, "x", out, 1, &n));
    FAILS(PGRAD_E_INVALID, "zero_grad: model is NULL", pgrad_model_zero_grad(NULL));
    FAILS(PGRAD_E_INVALID, "model_logits: an argument is NULL", pgrad_model_logits(model, NULL, 1, 0, out, 1));
    FAILS(PGRAD_E_INVALID, "model_logits: n 0, flags 0: expected tokens",
          pgrad_model_logits(model, &token, 0, PGRAD_LOGITS_ALL, out, 1));
    FAILS(PGRAD_E_INVALID, "flags 9: expected tokens and a flag of at most 1",
          pgrad_model_logits(model, &token, 1, 9, out, 1));
    FAILS(PGRAD_E_LIMIT, "more than the context of",
          pgrad_model_logits(model, many, model->n_context + 1, PGRAD_LOGITS_LAST, out, 1));
    FAILS(PGRAD_E_BUFFER, "floats, found 1", pgrad_model_logits(model, &token, 1, PGRAD_LOGITS_LAST, out, 1));
    ck_assert_ptr_null(none);
    ck_assert_uint_eq(n, 7);
    free(many);
    pgrad_model_free(model);
}
END_TEST

/* What the layers above put together is looked at before anything is computed. */
START_TEST(batches_that_contradict_themselves)
{
    static const char *const expected[] = {
        "sequence 0: its prefix is number 1", "sequence 0: 257 tokens behind 0, more than the context of 256",
        "sequence 1: expected rows from 4 on, found 3 from 5 on", "expected sequences over 8 rows, found 7",
        "target 0: row 7 of 7"};
    static const pgrad_token ids[] = {1, 2, 3, 4};
    pgrad_model *model = golden_model(context, "tiny_llama");
    pgrad__pass *pass = NULL;
    float logprob[8];
    OK(pgrad__pass_create(model, &pass));
    for (int k = 0; k < 5; k++) {
        test_batch b = {0};
        batch_add(&b, ids, 4);
        batch_add(&b, ids, 3);
        OK(pgrad__model_score(model, pass, &b.batch, logprob, NULL));
        if (k == 0)
            b.sequences[0].prefix = 1;
        if (k == 1)
            b.sequences[0].n_rows = 257;
        if (k == 2)
            b.sequences[1].first_row = 5;
        if (k == 3)
            b.batch.n_rows = 8;
        if (k == 4)
            b.rows[0] = 7;
        FAILS(k == 1 ? PGRAD_E_LIMIT : PGRAD_E_INTERNAL, expected[k],
              pgrad__model_score(model, pass, &b.batch, logprob, NULL));
    }
    test_batch b = {0};
    batch_add(&b, ids, 4);
    pgrad__pass_set_deadline(pass, 0.0);
    FAILS(PGRAD_E_DEADLINE, "the time of the pass is over", pgrad__model_score(model, pass, &b.batch, logprob, NULL));
    pgrad__pass_free(pass);
    pgrad_model_free(model);
}
END_TEST

START_TEST(spans_that_contradict_themselves)
{
    static const char *const expected[] = {"span 0: 0 tokens at position 0, context 256", "span 0: page 1 of 1",
                                           "span 0: logits of 5 tokens of 4",
                                           "span 0: 1 shared pages in front of position 0"};
    static const pgrad_token ids[] = {1, 2, 3, 4};
    pgrad_model *model = golden_model(context, "tiny_llama");
    pgrad__pass *pass = NULL;
    pgrad__kv_cache *cache = NULL;
    float logits[101];
    uint32_t page, more;
    OK(pgrad__pass_create(model, &pass));
    OK(pgrad__kv_cache_create(model, 1, PGRAD_KV_F32, &cache));
    OK(pgrad__kv_cache_take(cache, &page));
    FAILS(PGRAD_E_INTERNAL, "the cache of 1 pages is full", pgrad__kv_cache_take(cache, &more));
    for (int k = 0; k < 4; k++) {
        pgrad__decode_span span = {.tokens = ids, .n_tokens = 4, .pages = &page, .n_logits = 1};
        const uint32_t beyond = 1;
        OK(pgrad__model_decode(model, pass, cache, &span, 1, logits));
        if (k == 0)
            span.n_tokens = 0;
        if (k == 1)
            span.pages = &beyond;
        if (k == 2)
            span.n_logits = 5;
        if (k == 3)
            span.n_shared_pages = 1;
        FAILS(k == 0 ? PGRAD_E_LIMIT : PGRAD_E_INTERNAL, expected[k],
              pgrad__model_decode(model, pass, cache, &span, 1, logits));
    }
    pgrad__kv_cache_free(cache);
    pgrad__pass_free(pass);
    pgrad_model_free(model);
}
END_TEST

START_TEST(snapshot_stays)
{
    pgrad_model *model = golden_model(context, "tiny_gpt2"), *copy = NULL;
    OK(pgrad_model_snapshot(model, &copy));
    same_weights(model, copy);
    same_logits(model, copy);
    ck_assert_int_eq(copy->frozen, 1);
    ck_assert_ptr_null(copy->tensors[0].grad);
    float before = weights_of(&copy->tensors[0])[0];
    weights_of(&model->tensors[0])[0] += 1.0f;
    ck_assert(weights_of(&copy->tensors[0])[0] == before);
    pgrad_model_free(model); /* in any order */
    size_t n;
    free(logits_of(copy, &n));
    pgrad_model_free(copy);
}
END_TEST

START_TEST(busy_is_told)
{
    pgrad_model *model = golden_model(context, "tiny_llama"), *copy = NULL;
    float value[101 * 32];
    size_t n;
    OK(pgrad__lock_read(&model->lock, "test"));
    OK(pgrad_model_tensor_read(model, "model.norm.weight", value, 32, &n));
    FAILS(PGRAD_E_BUSY, "", pgrad_model_tensor_write(model, "model.norm.weight", value, 32));
    FAILS(PGRAD_E_BUSY, "", pgrad_model_zero_grad(model));
    pgrad__unlock_read(&model->lock);
    OK(pgrad__lock_write(&model->lock, "test"));
    FAILS(PGRAD_E_BUSY, "", pgrad_model_tensor_read(model, "model.norm.weight", value, 32, &n));
    FAILS(PGRAD_E_BUSY, "", pgrad_model_snapshot(model, &copy));
    FAILS(PGRAD_E_BUSY, "", pgrad_model_logits(model, (pgrad_token[]){1}, 1, 0, value, 101));
    pgrad__unlock_write(&model->lock);
    pgrad_model_free(model);
}
END_TEST

/* ---- creating ---- */

static const char *const small =
    "{\"model_type\": \"llama\", \"vocab_size\": 61, \"hidden_size\": 40, \"intermediate_size\": "
    "72,"
    "\"num_hidden_layers\": 3, \"num_attention_heads\": 5, \"num_key_value_heads\": 1,"
    "\"tie_word_embeddings\": true, \"attention_bias\": true, \"initializer_range\": 0.5}";

START_TEST(created_from_a_seed)
{
    pgrad_model *a = NULL, *b = NULL;
    pgrad_context *other = test_context(PGRAD_KERNELS_GENERIC, 1);
    OK(pgrad_model_create(context, small, 7, NULL, &a));
    OK(pgrad_model_create(other, small, 7, NULL, &b));
    double sum = 0.0, squares = 0.0;
    size_t n_all = 0;
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        const pgrad__tensor *tensor = &a->tensors[i];
        size_t n = (size_t)pgrad__tensor_elements(tensor), m;
        float *x = malloc(n * sizeof *x), *y = malloc(n * sizeof *y);
        OK(pgrad_model_tensor_read(a, tensor->name, x, n, &m));
        OK(pgrad_model_tensor_read(b, tensor->name, y, n, &m));
        ck_assert_msg(memcmp(x, y, n * sizeof *x) == 0, "%s", tensor->name);
        int residual =
            strstr(tensor->name, "o_proj.weight") || strstr(tensor->name, "down_proj.weight");
        int matrix = tensor->n_dims == 2;
        for (size_t j = 0; j < n; j++) {
            double scale = residual ? 0.5 / sqrt(6.0) : 0.5;
            if (!matrix) {
                ck_assert(x[j] == (strstr(tensor->name, "norm") ? 1.0f : 0.0f));
                continue;
            }
            sum += (double)x[j] / scale;
            squares += (double)x[j] * (double)x[j] / (scale * scale);
            n_all++;
        }
        free(x);
        free(y);
    }
    /* 40,000 normal numbers: mean and variance within four standard errors. */
    double n = (double)n_all;
    ck_assert_msg(fabs(sum / n) < 4.0 / sqrt(n), "mean %g of %g", sum / n, n);
    ck_assert_msg(fabs(squares / n - 1.0) < 4.0 * sqrt(2.0 / n), "variance %g", squares / n);
    pgrad_model *c = NULL;
    OK(pgrad_model_create(context, small, 8, NULL, &c));
    ck_assert(weights_of(&c->tensors[0])[0] != weights_of(&a->tensors[0])[0]);
    pgrad_model_free(c);
    pgrad_model_free(b);
    pgrad_model_free(a);
    pgrad_context_free(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("model");
    TCase *tests = tcase_create("model");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, context_of_params);
    tcase_add_loop_test(tests, tensors_in_and_out, 0, 2);
    tcase_add_test(tests, bad_arguments);
    tcase_add_test(tests, batches_that_contradict_themselves);
    tcase_add_test(tests, spans_that_contradict_themselves);
    tcase_add_test(tests, snapshot_stays);
    tcase_add_test(tests, busy_is_told);
    tcase_add_test(tests, created_from_a_seed);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
