/* Rows of docs/formats.md that take a whole model: files beside each other that disagree, or hold more, less
 * or something else. */
#include "model_test.h"

#include "io/gguf.h"

static pgrad_context *context;
static char folder[512], log_text[4096];

static void keep_log(void *user, int32_t level, const char *line)
{
    (void)user, (void)level;
    const size_t used = strlen(log_text);
    snprintf(log_text + used, sizeof log_text - used, "%s\n", line);
}

static void setup(void)
{
    context = test_context(PGRAD_KERNELS_AUTO, 1);
    ck_assert_ptr_nonnull(context);
    temporary_folder(folder);
    log_text[0] = '\0';
    OK(pgrad_context_set_log(context, keep_log, NULL, PGRAD_LOG_WARNING));
}

static void teardown(void)
{
    remove_folder(folder);
    pgrad_context_free(context);
}

/* Copies a golden file into the folder; `from` in it becomes `to`, when they are given. */
static void copy_file(const char *name, const char *as, const char *from, const char *to)
{
    char path[512];
    size_t size;
    char *data = get_file(data_path(path, name), &size);
    if (from == NULL) {
        put_file(folder, as, data, size);
    } else {
        char *text, *at = strstr(data, from);
        ck_assert_msg(at != NULL, "'%s' is not in %s", from, name);
        const int n = asprintf(&text, "%.*s%s%s", (int)(at - data), data, to, at + strlen(from));
        ck_assert_int_gt(n, 0);
        put_file(folder, as, text, (size_t)n);
        free(text);
    }
    free(data);
}

static void logged(const char *text)
{
    ck_assert_msg(strstr(log_text, text) != NULL, "'%s' is not in '%s'", text, log_text);
}

START_TEST(cf01_config_of_a_gigabyte)
{
    char path[600];
    pgrad_model *model = NULL;
    copy_file("tiny_llama/model.safetensors", "model.safetensors", NULL, NULL);
    put_file(folder, "config.json", "{", 1);
    snprintf(path, sizeof path, "%s/config.json", folder);
    ck_assert_int_eq(truncate(path, (off_t)1 << 30), 0);
    const uint64_t peak = context->memory_peak;
    FAILS(PGRAD_E_LIMIT, "config.json: 1073741824 bytes", pgrad_model_load(context, folder, NULL, &model));
    ck_assert_uint_le(context->memory_peak - peak, 1 << 16);
}
END_TEST

/* ST14: a type that a file may have, for a tensor that is looked at: named, not read as something else. */
START_TEST(st14_weights_of_whole_numbers)
{
    static const char FROM[] = "\"model.norm.weight\":{\"dtype\":\"F32\"";
    char path[512];
    size_t size;
    pgrad_model *model = NULL;
    char *data = get_file(data_path(path, "tiny_llama/model.safetensors"), &size);
    char *at = memmem(data, size, FROM, sizeof FROM - 1);
    ck_assert_ptr_nonnull(at);
    at[sizeof FROM - 5] = 'I';
    copy_file("tiny_llama/config.json", "config.json", NULL, NULL);
    put_file(folder, "model.safetensors", data, size);
    free(data);
    FAILS(PGRAD_E_UNSUPPORTED, "tensor 'model.norm.weight': element type I32 is not supported",
          pgrad_model_load(context, folder, NULL, &model));
    ck_assert_ptr_null(model);
}
END_TEST

/* Layers the config does not know: as many as are named, and how many there are. */
START_TEST(cf06_extra_tensors)
{
    pgrad_model *model = NULL;
    copy_file("tiny_llama/model.safetensors", "model.safetensors", NULL, NULL);
    copy_file("tiny_llama/config.json", "config.json", "\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1");
    OK(pgrad_model_load(context, folder, NULL, &model));
    logged("tensor 'model.layers.1.");
    logged("9 unknown tensors are ignored");
    size_t n = 0;
    for (const char *at = log_text; (at = strstr(at, "is unknown; ignored")) != NULL; at++)
        n++;
    ck_assert_uint_eq(n, 8);
    pgrad_model_free(model);
}
END_TEST

START_TEST(cf10_context_absent)
{
    pgrad_model *model = NULL;
    copy_file("tiny_llama/model.safetensors", "model.safetensors", NULL, NULL);
    copy_file("tiny_llama/config.json", "config.json", "\"max_position_embeddings\"", "\"max_position\"");
    OK(pgrad_model_load(context, folder, NULL, &model));
    logged("max_position_embeddings: missing, 2048 is used");
    ck_assert_uint_eq(model->n_context, 2048);
    pgrad_model_free(model);
}
END_TEST

/* The single file is read, as the reference does, and the index is not even opened. */
START_TEST(sh06_file_and_index)
{
    pgrad_model *model = NULL, *whole = golden_model(context, "tiny_llama");
    copy_file("tiny_llama/config.json", "config.json", NULL, NULL);
    copy_file("tiny_llama/model.safetensors", "model.safetensors", NULL, NULL);
    put_file(folder, "model.safetensors.index.json", "{\"weight_map\": {\"lm_head.weight\": \"other\"}}", 42);
    OK(pgrad_model_load(context, folder, NULL, &model));
    logged("model.safetensors is read, the index beside it is not");
    same_weights(model, whole);
    pgrad_model_free(model);
    pgrad_model_free(whole);
}
END_TEST

/* A block's scale that is no number is told by the tensor, whatever the storage the model goes into. */
START_TEST(gg19_scale_of_a_model)
{
    static const char NAME[] = "blk.1.ffn_up.weight";
    static const uint16_t HALVES[] = {0x7c00, 0xfc00, 0x7e00};
    char path[512], changed[600];
    size_t size;
    pgrad__gguf *gguf = NULL;
    OK(pgrad__gguf_open(context, data_path(path, "tiny_llama_q8_0.gguf"), &gguf));
    const pgrad__tensor_view *view = pgrad__tensor_find(pgrad__gguf_tensors(gguf), NAME);
    ck_assert(view != NULL && view->type == PGRAD__ELEMENT_Q8_0);
    const size_t at = (size_t)view->offset + 2 * 34; /* row 2 */
    pgrad__gguf_free(gguf);
    char *data = get_file(path, &size);
    snprintf(changed, sizeof changed, "%s/m.gguf", folder);
    for (size_t i = 0; i < 3; i++)
        for (uint32_t storage = PGRAD_STORAGE_F32; storage <= PGRAD_STORAGE_Q8_0; storage++) {
            pgrad_model *model = NULL;
            pgrad_model_params params;
            pgrad_model_params_init(&params, sizeof params);
            params.storage = storage;
            params.frozen = 1;
            memcpy(data + at, &HALVES[i], 2);
            put_file(folder, "m.gguf", data, size);
            FAILS(PGRAD_E_NUMERIC, NAME, pgrad_model_load(context, changed, &params, &model));
            ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "row 2"));
        }
    free(data);
}
END_TEST

/* GG20: metadata of a model, and no tensors. */
START_TEST(gg20_no_tensors)
{
    char path[600], file[512];
    size_t size;
    pgrad_model *model = NULL;
    char *data = get_file(data_path(file, "tiny_llama.gguf"), &size);
    memset(data + 8, 0, 8); /* the tensor count */
    put_file(folder, "m.gguf", data, size);
    snprintf(path, sizeof path, "%s/m.gguf", folder);
    FAILS(PGRAD_E_FORMAT, "vocab_size: missing", pgrad_model_load(context, path, NULL, &model));
    free(data);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bad_files");
    TCase *tests = tcase_create("bad_files");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, cf01_config_of_a_gigabyte);
    tcase_add_test(tests, st14_weights_of_whole_numbers);
    tcase_add_test(tests, cf06_extra_tensors);
    tcase_add_test(tests, cf10_context_absent);
    tcase_add_test(tests, sh06_file_and_index);
    tcase_add_test(tests, gg19_scale_of_a_model);
    tcase_add_test(tests, gg20_no_tensors);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
