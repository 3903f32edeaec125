/* Loading and saving: folders, single files, shards, GGUF, other element types; what is refused. */
#include "model_fixture.h"

#include "io/gguf.h"
#include "model/weights.h"

START_TEST(shards_are_the_same_model)
{
    pgrad_model *whole = golden_model(context, "tiny_llama");
    pgrad_model *file = golden_model(context, "tiny_llama/model.safetensors");
    pgrad_model *shards = golden_model(context, "tiny_llama_sharded");
    same_weights(whole, file);
    same_weights(whole, shards);
    pgrad_model_free(shards);
    pgrad_model_free(file);
    pgrad_model_free(whole);
}
END_TEST

START_TEST(gguf_is_the_same_model)
{
    pgrad_model *whole = golden_model(context, "tiny_llama");
    pgrad_model *gguf = golden_model(context, "tiny_llama.gguf");
    ck_assert_int_eq(gguf->config.tied_head, 0);
    ck_assert(gguf->config.norm_epsilon == whole->config.norm_epsilon);
    same_weights(whole, gguf); /* query and key rows are in another order in the file */
    same_logits(whole, gguf);
    /* The config made for it says the same. */
    pgrad__json *json = NULL;
    pgrad__config config;
    OK(pgrad__json_parse(context, gguf->config_text, gguf->config_length, "made", &json));
    OK(pgrad__config_read_json(context, json, "made", &config));
    pgrad__json_free(json);
    ck_assert(config.norm_epsilon == whole->config.norm_epsilon);
    ck_assert(config.rope_theta == whole->config.rope_theta);
    ck_assert_uint_eq(config.n_ff, whole->config.n_ff);
    ck_assert_uint_eq(config.n_kv_heads, whole->config.n_kv_heads);
    ck_assert_int_eq(config.tied_head, 0);
    pgrad_model_free(gguf);
    pgrad_model_free(whole);
}
END_TEST

START_TEST(gguf_of_gpt2_is_transposed)
{
    pgrad_model *whole = golden_model(context, "tiny_gpt2");
    pgrad_model *gguf = golden_model(context, "tiny_gpt2_f16.gguf");
    ck_assert_uint_eq(whole->n_tensors, gguf->n_tensors);
    for (uint32_t i = 0; i < whole->n_tensors; i++) {
        const pgrad__tensor *a = &whole->tensors[i], *b = &gguf->tensors[i];
        ck_assert_str_eq(a->name, b->name);
        ck_assert_uint_eq(a->floats, b->floats);
        for (size_t j = 0; j < a->floats; j++) { /* f16: 11 bits, subnormal below 6e-5 */
            double error = fabs((double)weights_of(a)[j] - (double)weights_of(b)[j]);
            ck_assert_msg(error <= fabs((double)weights_of(a)[j]) / 2048.0 + 3e-8, "%s: %g", a->name,
                          error);
        }
    }
    pgrad_model_free(gguf);
    pgrad_model_free(whole);
}
END_TEST

static void save_into(pgrad_model *model, const char *path, uint32_t dtype)
{
    pgrad__folder folder = {0};
    pgrad_save_params params = {.struct_size = sizeof params, .dtype = dtype};
    OK(pgrad__folder_open(model->context, path, &folder));
    OK(pgrad__model_write(model, &params, &folder));
    OK(pgrad__folder_commit(&folder));
}

START_TEST(saved_is_the_same_model)
{
    static const char *const names[] = {"tiny_gpt2", "tiny_llama", "tiny_llama_tied",
                                        "tiny_llama.gguf", "tiny_gpt2_f16.gguf"};
    char folder[512], path[600], text[700];
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/saved", folder);
    pgrad_model *model = golden_model(context, names[_i]), *again = NULL;
    save_into(model, path, PGRAD_DTYPE_F32);
    OK(pgrad_model_load(context, path, NULL, &again));
    same_weights(model, again);
    same_logits(model, again);
    ck_assert_int_eq(again->config.bos, model->config.bos);
    ck_assert_uint_eq(again->config.n_eos, model->config.n_eos);
    /* generation_config.json, where there is one, holds more end tokens than config.json. */
    ck_assert_uint_eq(again->generation_config_length, model->generation_config_length);
    ck_assert((model->generation_config_text != NULL) == (_i < 3));
    if (model->generation_config_text != NULL)
        ck_assert_str_eq(again->generation_config_text, model->generation_config_text);
    /* The head of a tied model is written once, and the file is the same each time. */
    pgrad__tensor_set set = {0};
    snprintf(text, sizeof text, "%s/model.safetensors", path);
    OK(pgrad__safetensors_open(context, text, &set));
    ck_assert_uint_eq(set.n_tensors, model->n_tensors);
    pgrad__tensor_set_free(&set);
    pgrad_model_free(again);
    pgrad_model_free(model);
    remove_folder(folder);
}
END_TEST

START_TEST(bf16_copy_loads)
{
    char folder[512], path[600];
    size_t size;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/saved", folder);
    pgrad_model *model = golden_model(context, "tiny_llama_tied"), *again = NULL, *third = NULL;
    save_into(model, path, PGRAD_DTYPE_BF16);
    OK(pgrad_model_load(context, path, NULL, &again));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor *a = &model->tensors[i], *b = &again->tensors[i];
        for (size_t j = 0; j < a->floats; j++)
            ck_assert(weights_of(b)[j] == pgrad__bf16_to_f32(pgrad__f32_to_bf16(weights_of(a)[j])));
    }
    /* Keys of the source stay, in their order; the element type is told under the key it had. */
    strcat(path, "/config.json");
    char *config = get_file(path, &size);
    const char *first = strstr(config, "\"architectures\""),
               *last = strstr(config, "\"vocab_size\"");
    ck_assert(first != NULL && last != NULL && first < last);
    ck_assert_ptr_nonnull(strstr(config, "\"transformers_version\""));
    ck_assert_ptr_nonnull(strstr(config, "\"dtype\": \"bfloat16\""));
    ck_assert_ptr_null(strstr(config, "torch_dtype"));
    free(config);
    *strrchr(path, '/') = '\0';
    /* Saving over it what is representable changes nothing. */
    save_into(again, path, PGRAD_DTYPE_BF16);
    OK(pgrad_model_load(context, path, NULL, &third));
    same_weights(again, third);
    pgrad_model_free(third);
    pgrad_model_free(again);
    pgrad_model_free(model);
    remove_folder(folder);
}
END_TEST

START_TEST(not_finite_is_not_saved)
{
    char folder[512], path[600];
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/saved", folder);
    pgrad_model *model = golden_model(context, "tiny_llama");
    pgrad__tensor *tensor = pgrad__tensor_by_name(model, "model.layers.1.mlp.up_proj.weight");
    pgrad__folder out = {0};
    pgrad_save_params params = {.struct_size = sizeof params};
    weights_of(tensor)[5] = (float)NAN;
    OK(pgrad__folder_open(context, path, &out));
    FAILS(PGRAD_E_NUMERIC, "model.layers.1.mlp.up_proj.weight",
          pgrad__model_write(model, &params, &out));
    pgrad__folder_abort(&out);
    ck_assert_int_ne(access(path, F_OK), 0);
    pgrad_model_free(model);
    remove_folder(folder);
}
END_TEST

/* ---- files that are cut or lie ---- */

/* A copy of tiny_llama whose config has `from` replaced by `to`. */
static void copy_with(const char *folder, const char *from, const char *to)
{
    char path[512], text[4096];
    size_t size;
    char *config = get_file(data_path(path, "tiny_llama/config.json"), &size);
    char *at = strstr(config, from);
    ck_assert_msg(at != NULL, "'%s' is not in the config", from);
    int n =
        snprintf(text, sizeof text, "%.*s%s%s", (int)(at - config), config, to, at + strlen(from));
    put_file(folder, "config.json", text, (size_t)n);
    free(config);
    char *weights = get_file(data_path(path, "tiny_llama/model.safetensors"), &size);
    put_file(folder, "model.safetensors", weights, size);
    free(weights);
}

/* CF06: shapes and missing tensors. */
START_TEST(shapes_must_match)
{
    static const struct {
        const char *from, *to;
        pgrad_status code;
        const char *text;
    } cases[] = {
        {"\"vocab_size\": 101", "\"vocab_size\": 102", PGRAD_E_MISMATCH,
         "'model.embed_tokens.weight': expected shape [102, 32] from the config, found [101, 32]"},
        {"\"intermediate_size\": 48", "\"intermediate_size\": 47", PGRAD_E_MISMATCH, "[47, 32]"},
        {"\"num_key_value_heads\": 2", "\"num_key_value_heads\": 4", PGRAD_E_MISMATCH, "k_proj"},
        {"\"head_dim\": 8", "\"head_dim\": 16", PGRAD_E_MISMATCH, "q_proj"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 3", PGRAD_E_MISMATCH,
         "9 of 30 tensors are missing: 'model.layers.2.input_layernorm.weight'"},
        {"\"mlp_bias\": false", "\"mlp_bias\": true", PGRAD_E_MISMATCH,
         "6 of 27 tensors are missing"},
        {"\"num_hidden_layers\": 2", "\"num_hidden_layers\": 1024", PGRAD_E_MISMATCH, ", ..."},
    };
    char folder[512];
    temporary_folder(folder);
    pgrad_model *model = NULL;
    copy_with(folder, cases[_i].from, cases[_i].to);
    FAILS(cases[_i].code, cases[_i].text, pgrad_model_load(context, folder, NULL, &model));
    ck_assert_ptr_null(model);
    remove_folder(folder);
}
END_TEST

/* ST19: a value that is no number is told with its tensor and place. */
START_TEST(not_finite_is_not_loaded)
{
    static const uint32_t bad[] = {0x7fc00000u, 0x7f800000u, 0xff800000u};
    char folder[512], path[512];
    size_t size;
    temporary_folder(folder);
    char *weights = get_file(data_path(path, "tiny_llama/model.safetensors"), &size);
    uint64_t header;
    memcpy(&header, weights, sizeof header);
    char *entry = strstr(weights + 8, "\"model.layers.1.mlp.down_proj.weight\"");
    ck_assert_ptr_nonnull(entry);
    size_t offset = strtoul(strchr(strstr(entry, "data_offsets"), '[') + 1, NULL, 10);
    memcpy(weights + 8 + header + offset + 4 * (48 * 3 + 5), &bad[_i], 4);
    copy_with(folder, "\"vocab_size\": 101", "\"vocab_size\": 101");
    put_file(folder, "model.safetensors", weights, size);
    free(weights);
    pgrad_model *model = NULL;
    FAILS(PGRAD_E_NUMERIC, "tensor 'model.layers.1.mlp.down_proj.weight': row 3, column 5 is",
          pgrad_model_load(context, folder, NULL, &model));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "model.safetensors: "));
    ck_assert_ptr_null(model);
    remove_folder(folder);
}
END_TEST

/* Of several shards the one at fault is named. */
START_TEST(the_shard_at_fault_is_named)
{
    static const char *const files[] = {"config.json", "model.safetensors.index.json",
                                        "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors",
                                        "model-00003-of-00003.safetensors"};
    char folder[512], path[512], name[64];
    size_t size;
    temporary_folder(folder);
    for (int i = 0; i < 5; i++) {
        snprintf(name, sizeof name, "tiny_llama_sharded/%s", files[i]);
        char *data = get_file(data_path(path, name), &size);
        char *norm = i == 4 ? memmem(data, size, "\"model.norm.weight\"", 19) : NULL;
        if (i == 4) {
            ck_assert_ptr_nonnull(norm);
            char *shape = strstr(norm, "[32]");
            ck_assert_ptr_nonnull(shape);
            memcpy(shape, "[ 4]", 4); /* a shape that its bytes do not have */
        }
        put_file(folder, files[i], data, size);
        free(data);
    }
    pgrad_model *model = NULL;
    pgrad_status status = pgrad_model_load(context, folder, NULL, &model);
    ck_assert_msg(status == PGRAD_E_FORMAT || status == PGRAD_E_MISMATCH, "%s", pgrad_error_message());
    ck_assert_msg(strstr(pgrad_error_message(), "00003-of-00003") != NULL, "%s", pgrad_error_message());
    ck_assert_ptr_null(strstr(pgrad_error_message(), "00001-of-00003"));
    /* The config's own width, which the first tensor of the second shard has too, is told of its file. */
    char *config = get_file(data_path(path, "tiny_llama_sharded/config.json"), &size);
    char *at = strstr(config, "\"intermediate_size\": 48");
    ck_assert_ptr_nonnull(at);
    at[22] = '7';
    put_file(folder, "config.json", config, size);
    free(config);
    for (int i = 4; i < 5; i++) {
        snprintf(name, sizeof name, "tiny_llama_sharded/%s", files[i]);
        char *data = get_file(data_path(path, name), &size);
        put_file(folder, files[i], data, size);
        free(data);
    }
    FAILS(PGRAD_E_MISMATCH, "expected shape", pgrad_model_load(context, folder, NULL, &model));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "-of-00003.safetensors: tensor '"));
    remove_folder(folder);
}
END_TEST

static char log_text[4096];

static void keep_log(void *user, int32_t level, const char *line)
{
    (void)user;
    (void)level;
    strncat(log_text, line, sizeof log_text - strlen(log_text) - 2);
    strcat(log_text, "\n");
}

/* Renames tensors of a safetensors file of GPT-2 to those of a bare base model; all but the last `keep`. */
static void strip_prefix(char *weights, int keep)
{
    uint64_t header;
    memcpy(&header, weights, sizeof header);
    int n = 0;
    for (char *at = weights + 8; (at = memmem(at, (size_t)(weights + 8 + header - at), "\"transformer.", 13)) != NULL;)
        n++, at++;
    for (char *at = weights + 8;
         n-- > keep && (at = memmem(at, (size_t)(weights + 8 + header - at), "\"transformer.", 13)) != NULL;) {
        char *end = strchr(at + 1, '"'); /* the name moves to the front, blanks fill the rest */
        size_t length = (size_t)(end + 1 - (at + 13));
        memmove(at + 1, at + 13, length);
        memset(at + 1 + length, ' ', 12);
        at++;
    }
}

/* Names of a bare base model are kept for saving; the two ways of writing are not mixed. */
START_TEST(bare_names_are_kept)
{
    char folder[512], path[512], out[600];
    size_t size;
    temporary_folder(folder);
    char *config = get_file(data_path(path, "tiny_gpt2/config.json"), &size);
    put_file(folder, "config.json", config, size);
    free(config);
    for (int keep = 0; keep < 2; keep++) {
        char *weights = get_file(data_path(path, "tiny_gpt2/model.safetensors"), &size);
        strip_prefix(weights, keep);
        put_file(folder, "model.safetensors", weights, size);
        free(weights);
        pgrad_model *model = NULL;
        if (keep == 1) {
            FAILS(PGRAD_E_MISMATCH, "tensors are missing", pgrad_model_load(context, folder, NULL, &model));
            continue;
        }
        OK(pgrad_model_load(context, folder, NULL, &model));
        ck_assert_int_eq(strncmp(pgrad_model_tensor_name(model, 0, NULL, NULL), "transformer.", 12), 0);
        snprintf(out, sizeof out, "%s/saved", folder);
        pgrad_model *copy;
        OK(pgrad_model_snapshot(model, &copy));
        OK(pgrad_model_save(copy, out, NULL));
        char *saved = get_file(strcat(strcpy(path, out), "/model.safetensors"), &size);
        ck_assert_ptr_nonnull(memmem(saved, size, "\"wte.weight\"", 12));
        ck_assert_ptr_null(memmem(saved, size, "transformer.", 12));
        free(saved);
        pgrad_model_free(copy);
        pgrad_model_free(model);
    }
    pgrad_model *model = golden_model(context, "tiny_gpt2");
    FAILS(PGRAD_E_INVALID, "path", pgrad_model_save(model, "", NULL));
    pgrad_model_free(model);
    remove_folder(out);
    remove_folder(folder);
}
END_TEST

START_TEST(defaults_are_told)
{
    char folder[512];
    pgrad_model *model = NULL;
    log_text[0] = '\0';
    OK(pgrad_context_set_log(context, keep_log, NULL, PGRAD_LOG_WARNING));
    temporary_folder(folder);
    copy_with(folder, "\"rms_norm_eps\"", "\"rms_norm_eps_\"");
    OK(pgrad_model_load(context, folder, NULL, &model));
    ck_assert_msg(strstr(log_text, "config.json: rms_norm_eps: missing, 1e-06 is used") != NULL, "'%s'", log_text);
    ck_assert_ptr_null(strstr(log_text, "rope_theta"));
    ck_assert_ptr_null(strstr(log_text, "initializer_range"));
    pgrad_model_free(model);
    remove_folder(folder);
}
END_TEST

/* CF07 */
START_TEST(tied_head_rules)
{
    char folder[512], path[512];
    size_t size;
    pgrad_model *model = NULL;
    log_text[0] = '\0';
    OK(pgrad_context_set_log(context, keep_log, NULL, PGRAD_LOG_WARNING));
    temporary_folder(folder);
    /* Tied, and a head beside: the embedding wins, with a word about it. */
    copy_with(folder, "\"tie_word_embeddings\": false", "\"tie_word_embeddings\": true");
    OK(pgrad_model_load(context, folder, NULL, &model));
    ck_assert_ptr_eq(model->stem->head, model->stem->embedding);
    ck_assert_msg(strstr(log_text, "lm_head.weight") != NULL, "'%s'", log_text);
    pgrad_model_free(model);
    model = NULL;
    /* Not tied and no head: refused, with a hint. */
    char *weights = get_file(data_path(path, "tiny_llama_tied/model.safetensors"), &size);
    char *config = get_file(data_path(path, "tiny_llama_tied/config.json"), &size);
    char *at = strstr(config, "\"tie_word_embeddings\": true");
    memcpy(at, "\"tie_word_embeddings\":false", 26);
    put_file(folder, "config.json", config, strlen(config));
    free(weights);
    weights = get_file(data_path(path, "tiny_llama_tied/model.safetensors"), &size);
    put_file(folder, "model.safetensors", weights, size);
    FAILS(PGRAD_E_MISMATCH, "'lm_head.weight' is missing; set tie_word_embeddings",
          pgrad_model_load(context, folder, NULL, &model));
    free(weights);
    free(config);
    remove_folder(folder);
}
END_TEST

START_TEST(cut_files_are_refused)
{
    static const char *const names[] = {"tiny_llama/model.safetensors", "tiny_llama.gguf"};
    char folder[512], path[512], target[700];
    size_t size, config_size;
    temporary_folder(folder);
    char *data = get_file(data_path(path, names[_i]), &size);
    char *config = get_file(data_path(path, "tiny_llama/config.json"), &config_size);
    put_file(folder, "config.json", config, config_size);
    const char *name = _i == 0 ? "model.safetensors" : "model.gguf";
    snprintf(target, sizeof target, "%s/%s", folder, name);
    for (size_t cut = 0; cut < size; cut += cut < 3000 ? 97 : 4001) {
        pgrad_model *model = NULL;
        put_file(folder, name, data, cut);
        pgrad_status status = pgrad_model_load(context, target, NULL, &model);
        ck_assert_msg(status == PGRAD_E_FORMAT || status == PGRAD_E_LIMIT, "cut at %zu: %s: %s",
                      cut, pgrad_status_name(status), pgrad_error_message());
        ck_assert_ptr_null(model);
    }
    free(config);
    free(data);
    remove_folder(folder);
}
END_TEST

/* CF01: no config.json. */
START_TEST(paths_that_are_no_model)
{
    char folder[512], path[700];
    pgrad_model *model = NULL;
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/none", folder);
    FAILS(PGRAD_E_IO, "none", pgrad_model_load(context, path, NULL, &model));
    FAILS(PGRAD_E_IO, "config.json", pgrad_model_load(context, folder, NULL, &model));
    size_t size;
    char *config = get_file(data_path(path, "tiny_llama/config.json"), &size);
    put_file(folder, "config.json", config, size);
    FAILS(PGRAD_E_IO, "model.safetensors", pgrad_model_load(context, folder, NULL, &model));
    put_file(folder, "pytorch_model.bin", "x", 1);
    FAILS(PGRAD_E_UNSUPPORTED, "pytorch_model.bin",
          pgrad_model_load(context, folder, NULL, &model));
    FAILS(PGRAD_E_INVALID, "NULL", pgrad_model_load(context, NULL, NULL, &model));
    ck_assert_ptr_null(model);
    free(config);
    remove_folder(folder);
}
END_TEST

static int32_t stop_at_half(void *user, const char *what, uint64_t done, uint64_t total)
{
    int *calls = user;
    ck_assert_str_eq(what, "load");
    ck_assert_uint_le(done, total);
    ++*calls;
    return 2 * done < total;
}

START_TEST(loading_can_be_stopped)
{
    char path[512];
    int calls = 0;
    pgrad_model *model = NULL;
    OK(pgrad_context_set_progress(context, stop_at_half, &calls));
    pgrad_status status = pgrad_model_load(context, data_path(path, "tiny_llama"), NULL, &model);
    ck_assert_int_eq(status, PGRAD_E_CALLBACK);
    ck_assert_int_gt(calls, 2);
    OK(pgrad_context_set_progress(context, NULL, NULL));
    pgrad_context_cancel(context);
    status = pgrad_model_load(context, path, NULL, &model);
    ck_assert_int_eq(status, PGRAD_E_CANCELLED);
    pgrad_context_clear_cancel(context);
    OK(pgrad_model_load(context, path, NULL, &model));
    pgrad_model_free(model);
}
END_TEST

START_TEST(memory_is_given_back)
{
    char path[512];
    pgrad_context_info before = {.struct_size = sizeof before},
                       after = {.struct_size = sizeof after};
    pgrad_context_params params;
    pgrad_context *limited = NULL;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1;
    params.memory_limit = (uint64_t)20 << 20;
    OK(pgrad_context_create(&params, &limited));
    OK(pgrad_context_get_info(limited, &before));
    for (int i = 0; i < 3; i++) {
        pgrad_model *model = NULL;
        OK(pgrad_model_load(limited, data_path(path, "tiny_llama_sharded"), NULL, &model));
        size_t n;
        free(logits_of(model, &n));
        pgrad_model_free(model);
        OK(pgrad_model_load(limited, data_path(path, "tiny_gpt2_f16.gguf"), NULL, &model));
        pgrad_model_free(model);
    }
    OK(pgrad_context_get_info(limited, &after));
    ck_assert_uint_eq(before.memory_now, after.memory_now);
    pgrad_model *model = NULL; /* 2^17 x 2^7 floats and their gradients: beyond 20 MiB */
    pgrad_status status = pgrad_model_create(
        limited,
        "{\"model_type\": \"gpt2\", \"vocab_size\": 131072, \"n_embd\": 128, \"n_layer\": 1,"
        "\"n_head\": 2, \"n_positions\": 8}",
        1, NULL, &model);
    ck_assert_int_eq(status, PGRAD_E_LIMIT);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "tensor transformer.wte.weight: memory: "));
    OK(pgrad_context_get_info(limited, &after));
    ck_assert_uint_eq(before.memory_now, after.memory_now);
    pgrad_context_free(limited);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("load");
    TCase *tests = tcase_create("load");
    tcase_set_timeout(tests, 120);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, shards_are_the_same_model);
    tcase_add_test(tests, gguf_is_the_same_model);
    tcase_add_test(tests, gguf_of_gpt2_is_transposed);
    tcase_add_loop_test(tests, saved_is_the_same_model, 0, 5);
    tcase_add_test(tests, bf16_copy_loads);
    tcase_add_test(tests, not_finite_is_not_saved);
    tcase_add_loop_test(tests, shapes_must_match, 0, 7);
    tcase_add_loop_test(tests, not_finite_is_not_loaded, 0, 3);
    tcase_add_test(tests, the_shard_at_fault_is_named);
    tcase_add_test(tests, bare_names_are_kept);
    tcase_add_test(tests, defaults_are_told);
    tcase_add_test(tests, tied_head_rules);
    tcase_add_loop_test(tests, cut_files_are_refused, 0, 2);
    tcase_add_test(tests, paths_that_are_no_model);
    tcase_add_test(tests, loading_can_be_stopped);
    tcase_add_test(tests, memory_is_given_back);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
