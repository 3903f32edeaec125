/* Models whose matrices are kept in bf16 or Q8_0: what is in memory, how much of it, what is saved, copied
 * and refused. */
#include "model_fixture.h"

#include <policygrad/optimizer.h>

#include "model/weights.h"

static int is_matrix(const pgrad__tensor *tensor)
{
    return tensor->kind == PGRAD__TENSOR_MATRIX || tensor->kind == PGRAD__TENSOR_MATRIX_TRANSPOSED;
}

/* A tensor's values as a host reads them; free() them. */
static float *values_of(pgrad_model *model, const char *name, size_t *n)
{
    (void)pgrad_model_tensor_read(model, name, NULL, 0, n);
    float *values = malloc(*n * sizeof *values);
    OK(pgrad_model_tensor_read(model, name, values, *n, n));
    return values;
}

static void same_tensor(pgrad_model *a, pgrad_model *b, const char *name)
{
    size_t n, m;
    float *left = values_of(a, name, &n), *right = values_of(b, name, &m);
    ck_assert_uint_eq(n, m);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(left[i] == right[i], "%s[%zu]: %.9g and %.9g", name, i, (double)left[i], (double)right[i]);
    free(left);
    free(right);
}

/* A block of 32 inputs is off by half a step of 1 / 127 of its largest, and by that of a scale in f16. */
static void near_tensor(pgrad_model *exact, pgrad_model *narrow, const pgrad__tensor *tensor)
{
    size_t n, m;
    float *left = values_of(exact, tensor->name, &n), *right = values_of(narrow, tensor->name, &m);
    float largest = 0.0f;
    for (size_t i = 0; i < n; i++)
        largest = fmaxf(largest, fabsf(left[i]));
    size_t differing = 0;
    for (size_t i = 0; i < n; i++) {
        float error = fabsf(left[i] - right[i]);
        float allowed = !is_matrix(tensor)                          ? 0.0f
                        : narrow->storage == PGRAD_STORAGE_BF16 ? fabsf(left[i]) / 256.0f
                                                                : largest * (0.5f / 127.0f + 1.0f / 2048.0f);
        ck_assert_msg(error <= allowed, "%s[%zu]: %g and %g", tensor->name, i, (double)left[i], (double)right[i]);
        differing += error > 0.0f;
    }
    ck_assert(!is_matrix(tensor) || differing > n / 4);
    free(left);
    free(right);
}

static const struct {
    const char *name;
    uint32_t storage;
} CASES[] = {{"tiny_gpt2", PGRAD_STORAGE_BF16},  {"tiny_gpt2", PGRAD_STORAGE_Q8_0},
             {"tiny_llama", PGRAD_STORAGE_BF16}, {"tiny_llama", PGRAD_STORAGE_Q8_0},
             {"tiny_llama_tied", PGRAD_STORAGE_BF16}, {"tiny_llama_tied", PGRAD_STORAGE_Q8_0}};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

START_TEST(rounded_and_smaller)
{
    const uint32_t storage = CASES[_i].storage;
    pgrad_model *exact = stored_model(context, CASES[_i].name, PGRAD_STORAGE_F32);
    pgrad_context_info before = {.struct_size = sizeof before}, after = before;
    OK(pgrad_context_get_info(context, &before));
    pgrad_model *model = stored_model(context, CASES[_i].name, storage);
    OK(pgrad_context_get_info(context, &after));
    pgrad_model_info info = {.struct_size = sizeof info}, whole = info;
    OK(pgrad_model_get_info(model, &info));
    OK(pgrad_model_get_info(exact, &whole));
    ck_assert_uint_eq(info.storage, storage);
    ck_assert_uint_eq(whole.storage, PGRAD_STORAGE_F32);
    ck_assert_uint_le(info.weight_bytes, after.memory_now - before.memory_now);
    uint64_t bytes = 0, plain = 0;
    const size_t slack = PGRAD__SLACK * sizeof(float);
    for (uint32_t i = 0; i < exact->n_tensors; i++) {
        const pgrad__tensor *tensor = &exact->tensors[i];
        const uint64_t n_in = tensor->matrix.n_in, blocks = (n_in + 31) / 32;
        near_tensor(exact, model, tensor);
        plain += tensor->floats * 4 + slack;
        if (!is_matrix(tensor))
            bytes += tensor->floats * 4 + slack;
        else if (storage == PGRAD_STORAGE_BF16)
            bytes += tensor->floats * 2 + slack;
        else
            bytes += tensor->floats + tensor->floats / n_in * blocks * 2 + slack;
    }
    ck_assert_uint_eq(info.weight_bytes, bytes);
    ck_assert_uint_eq(whole.weight_bytes, plain);
    ck_assert_int_eq(model->frozen, storage == PGRAD_STORAGE_Q8_0);
    pgrad_model_free(model);
    pgrad_model_free(exact);
}
END_TEST

/* What is saved is the widened model: in f32 it gives the same logits, to the bit, and loaded into the same
 * storage the same weights. A snapshot is the same too. */
START_TEST(saved_and_copied)
{
    char path[512], saved[600];
    pgrad_model *model = stored_model(context, CASES[_i].name, CASES[_i].storage), *copy = NULL, *wide = NULL;
    pgrad_model *again = NULL;
    pgrad__folder folder = {0};
    pgrad_save_params params;
    pgrad_save_params_init(&params, sizeof params);
    temporary_folder(path);
    snprintf(saved, sizeof saved, "%s/saved", path);
    OK(pgrad__folder_open(context, saved, &folder));
    OK(pgrad__model_write(model, &params, &folder));
    OK(pgrad__folder_commit(&folder));
    OK(pgrad_model_load(context, saved, NULL, &wide));
    pgrad_model_params narrow;
    pgrad_model_params_init(&narrow, sizeof narrow);
    narrow.storage = CASES[_i].storage;
    narrow.frozen = 1;
    OK(pgrad_model_load(context, saved, &narrow, &again));
    OK(pgrad_model_snapshot(model, &copy));
    ck_assert_uint_eq(copy->storage, model->storage);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        same_tensor(model, wide, model->tensors[i].name);
        ck_assert_uint_eq(copy->tensors[i].bytes, model->tensors[i].bytes);
        ck_assert(memcmp(copy->tensors[i].data, model->tensors[i].data, model->tensors[i].bytes) == 0);
        ck_assert(memcmp(again->tensors[i].data, model->tensors[i].data, model->tensors[i].bytes) == 0);
    }
    same_logits(model, wide);
    same_logits(model, copy);
    pgrad_model_free(again);
    pgrad_model_free(copy);
    pgrad_model_free(wide);
    pgrad_model_free(model);
    remove_folder(path);
}
END_TEST

/* A Q8_0 file in Q8_0: its values, query and key rows in our order. feed_forward_down, of 48 inputs, is F32
 * in the file. */
START_TEST(q8_0_file_is_kept)
{
    pgrad_model *wide = stored_model(context, "tiny_llama_q8_0.gguf", PGRAD_STORAGE_F32);
    pgrad_model *kept = stored_model(context, "tiny_llama_q8_0.gguf", PGRAD_STORAGE_Q8_0);
    pgrad_model *made = stored_model(context, "tiny_llama", PGRAD_STORAGE_Q8_0);
    int compared = 0;
    for (uint32_t i = 0; i < wide->n_tensors; i++) {
        const char *name = wide->tensors[i].name;
        if (strstr(name, "down_proj") == NULL) {
            same_tensor(wide, kept, name);
            compared += is_matrix(&wide->tensors[i]);
        }
        same_tensor(made, kept, name); /* quantised here as ggml's writer did */
    }
    ck_assert_int_ge(compared, 14);
    same_logits(made, kept);
    pgrad_model_free(made);
    pgrad_model_free(kept);
    pgrad_model_free(wide);
}
END_TEST

START_TEST(written_tensors_are_rounded)
{
    pgrad_model *model = stored_model(context, "tiny_llama", _i == 0 ? PGRAD_STORAGE_BF16 : PGRAD_STORAGE_Q8_0);
    const char *name = "model.layers.1.mlp.up_proj.weight";
    size_t n;
    float *values = values_of(model, name, &n);
    for (size_t i = 0; i < n; i++)
        values[i] = (float)((int)(i % 255) - 127) * 0.5f;
    for (size_t i = 0; i < n; i += 32)
        values[i] = 63.5f; /* a scale of a half: all are exact */
    OK(pgrad_model_tensor_write(model, name, values, n));
    float *back = values_of(model, name, &n);
    ck_assert(memcmp(values, back, n * sizeof *values) == 0);
    ck_assert_uint_eq(model->weight_version, 1);
    free(back);
    free(values);
    pgrad_model_free(model);
}
END_TEST

/* A finite float that would round to infinity is told, wherever bf16 is written. */
START_TEST(beyond_bf16)
{
    const char *name = "model.layers.1.mlp.up_proj.weight";
    pgrad_save_params save;
    pgrad_model_params load;
    pgrad_model *model = stored_model(context, "tiny_llama", PGRAD_STORAGE_F32), *narrow = NULL;
    char folder[512], path[600];
    size_t n;
    float *values = values_of(model, name, &n);
    const pgrad__tensor *tensor = pgrad__tensor_by_name(model, name);
    const size_t row = tensor->matrix.n_in, at = 2 * row + 3;
    char where[64];
    snprintf(where, sizeof where, "row 2, column 3 is 3.4e+38, beyond bf16");
    values[at] = 3.3895e38f; /* rounds down to the largest */
    OK(pgrad_model_tensor_write(model, name, values, n));
    pgrad_save_params_init(&save, sizeof save);
    save.dtype = PGRAD_DTYPE_BF16;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/saved", folder);
    OK(pgrad_model_save(model, path, &save));
    values[at] = 3.4e38f;
    OK(pgrad_model_tensor_write(model, name, values, n));
    FAILS(PGRAD_E_NUMERIC, where, pgrad_model_save(model, path, &save));
    OK(pgrad_model_load(context, path, NULL, &narrow)); /* the old one is whole */
    pgrad_model_free(narrow);
    save.dtype = PGRAD_DTYPE_F32;
    OK(pgrad_model_save(model, path, &save));
    pgrad_model_params_init(&load, sizeof load);
    load.storage = PGRAD_STORAGE_BF16;
    FAILS(PGRAD_E_NUMERIC, where, pgrad_model_load(context, path, &load, &narrow));
    narrow = stored_model(context, "tiny_llama", PGRAD_STORAGE_BF16);
    FAILS(PGRAD_E_NUMERIC, "is 3.4e+38, beyond bf16", pgrad_model_tensor_write(narrow, name, values, n));
    ck_assert_uint_eq(narrow->weight_version, 0);
    remove_folder(folder);
    free(values);
    pgrad_model_free(narrow);
    pgrad_model_free(model);
}
END_TEST

START_TEST(params_that_do_not_fit)
{
    char path[512];
    pgrad_model *model = NULL;
    pgrad_model_params params;
    pgrad_optimizer *optimizer = NULL;
    pgrad_model_params_init(&params, sizeof params);
    ck_assert_uint_eq(params.storage, PGRAD_STORAGE_F32);
    params.storage = 3;
    FAILS(PGRAD_E_INVALID, "model.storage", pgrad_model_load(context, data_path(path, "tiny_llama"), &params, &model));
    params.storage = PGRAD_STORAGE_Q8_0;
    FAILS(PGRAD_E_INVALID, "model.storage", pgrad_model_load(context, data_path(path, "tiny_llama"), &params, &model));
    FAILS(PGRAD_E_INVALID, "model.storage",
          pgrad_model_load(context, data_path(path, "tiny_llama.gguf"), &params, &model));
    model = stored_model(context, "tiny_llama", PGRAD_STORAGE_BF16);
    OK(pgrad_optimizer_create(model, NULL, &optimizer)); /* master weights in bf16 */
    pgrad_optimizer_free(optimizer);
    pgrad_model_free(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("load_narrow");
    TCase *tests = tcase_create("load_narrow");
    tcase_set_timeout(tests, 60);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, rounded_and_smaller, 0, N_CASES);
    tcase_add_loop_test(tests, saved_and_copied, 0, N_CASES);
    tcase_add_test(tests, q8_0_file_is_kept);
    tcase_add_loop_test(tests, written_tensors_are_rounded, 0, 2);
    tcase_add_test(tests, beyond_bf16);
    tcase_add_test(tests, params_that_do_not_fit);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
