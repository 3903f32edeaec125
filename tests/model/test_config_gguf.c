/* Hyper-parameters from GGUF metadata: what is taken, what is refused. The files are made here. */
#include "model_test.h"

#include "model/arch.h"

static pgrad_context *context;
static char folder[512], path[700];

static void setup(void)
{
    context = test_context(PGRAD_KERNELS_AUTO, 1);
    ck_assert_ptr_nonnull(context);
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/x.gguf", folder);
}

static void teardown(void)
{
    remove_folder(folder);
    pgrad_context_free(context);
}

/* ---- a small writer ---- */

enum { U32 = 4, I32 = 5, F32 = 6, TEXT = 8, ARRAY = 9 };

typedef struct entry {
    const char *key;
    uint32_t type;
    double number;    /* or the length of an array of I32 */
    const char *text; /* TEXT */
    int32_t items[4];
} entry;

typedef struct bytes {
    unsigned char data[8192];
    size_t n;
} bytes;

static void put(bytes *out, const void *data, size_t n)
{
    ck_assert(out->n + n <= sizeof out->data);
    memcpy(out->data + out->n, data, n);
    out->n += n;
}

static void put_u32(bytes *out, uint32_t value)
{
    put(out, &value, 4);
}

static void put_text(bytes *out, const char *text)
{
    uint64_t n = strlen(text);
    put(out, &n, 8);
    put(out, text, n);
}

static void put_value(bytes *out, const entry *e)
{
    float real = (float)e->number;
    put_text(out, e->key);
    put_u32(out, e->type);
    switch (e->type) {
    case F32:
        put(out, &real, 4);
        break;
    case TEXT:
        put_text(out, e->text);
        break;
    case ARRAY: {
        uint64_t n = (uint64_t)e->number;
        put_u32(out, I32);
        put(out, &n, 8);
        put(out, e->items, n * 4);
        break;
    }
    default:
        put_u32(out, (uint32_t)(int64_t)e->number);
    }
}

static const entry base[] = {
    {"general.architecture", TEXT, 0, "llama", {0}},
    {"llama.block_count", U32, 2, NULL, {0}},
    {"llama.context_length", U32, 64, NULL, {0}},
    {"llama.embedding_length", U32, 32, NULL, {0}},
    {"llama.feed_forward_length", U32, 48, NULL, {0}},
    {"llama.attention.head_count", U32, 4, NULL, {0}},
    {"llama.attention.head_count_kv", U32, 2, NULL, {0}},
    {"llama.attention.layer_norm_rms_epsilon", F32, 1e-5, NULL, {0}},
    {"llama.rope.freq_base", F32, 100000.0, NULL, {0}},
};
#define N_BASE (sizeof base / sizeof base[0])

static const entry *beside; /* one more entry */

/* Reads the base with one entry put in its place, or behind, or left out (type 0). The tensors are
 * token_embd [50, 32] and, with `more`, another of 8 floats. */
static pgrad_status read_with(const entry *change, const char *more, pgrad__config *config)
{
    static bytes out;
    uint64_t n_entries = 0, n_tensors = more == NULL ? 1 : 2, dims[2] = {32, 50}, offset = 0,
             eight = 8;
    int replaced = 0;
    out.n = 0;
    put(&out, "GGUF", 4);
    put_u32(&out, 3);
    put(&out, &n_tensors, 8);
    size_t count_at = out.n;
    put(&out, &n_entries, 8);
    for (size_t i = 0; i < N_BASE; i++) {
        const entry *e = &base[i];
        if (change != NULL && strcmp(change->key, e->key) == 0) {
            e = change;
            replaced = 1;
        }
        if (e->type == 0)
            continue;
        put_value(&out, e);
        n_entries++;
    }
    if (change != NULL && !replaced) {
        put_value(&out, change);
        n_entries++;
    }
    if (beside != NULL) {
        put_value(&out, beside);
        n_entries++;
    }
    memcpy(out.data + count_at, &n_entries, 8);
    put_text(&out, "token_embd.weight");
    put_u32(&out, 2);
    put(&out, dims, 16);
    put_u32(&out, 0); /* F32 */
    put(&out, &offset, 8);
    if (more != NULL) {
        offset = 32 * 50 * 4;
        put_text(&out, more);
        put_u32(&out, 1);
        put(&out, &eight, 8);
        put_u32(&out, 0);
        put(&out, &offset, 8);
    }
    while (out.n % 32 != 0)
        put(&out, "", 1);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(out.data, 1, out.n, file), out.n);
    for (int i = 0; i < 32 * 50 + 8; i++)
        fwrite("\0\0\0", 1, 4, file);
    fclose(file);
    pgrad__gguf *gguf = NULL;
    pgrad_status status = pgrad__gguf_open(context, path, &gguf);
    if (status == PGRAD_OK)
        status = pgrad__config_read_gguf(context, gguf, config);
    pgrad__gguf_free(gguf);
    return status;
}

START_TEST(plain_one_is_read)
{
    pgrad__config config;
    OK(read_with(NULL, NULL, &config));
    ck_assert_str_eq(config.arch->name, "llama");
    ck_assert_uint_eq(config.n_vocab, 50); /* from the embedding: no key says it */
    ck_assert_uint_eq(config.head_dim, 8);
    ck_assert_uint_eq(config.n_ff, 48);
    ck_assert(config.norm_epsilon == 1e-5f && config.rope_theta == 100000.0);
    ck_assert(config.tied_head && !config.qkv_bias); /* no output.weight, no attn_q.bias */
}
END_TEST

START_TEST(accepted)
{
    static const entry changes[] = {
        {"llama.attention.head_count", ARRAY, 2, NULL, {4, 4}},
        {"llama.rope.dimension_count", U32, 8, NULL, {0}},
        {"llama.rope.scaling.type", TEXT, 0, "none", {0}},
        {"llama.attention.key_length", U32, 8, NULL, {0}},
        {"general.type", TEXT, 0, "model", {0}},
        {"llama.expert_count", U32, 0, NULL, {0}},
        {"tokenizer.ggml.eos_token_id", U32, 50, NULL, {0}}, /* outside: told and ignored */
        {"llama.attention.head_count_kv", 0, 0, NULL, {0}},  /* left out: = heads */
    };
    pgrad__config config;
    OK(read_with(&changes[_i], NULL, &config));
    ck_assert_uint_eq(config.n_heads, 4);
    ck_assert_uint_eq(config.n_eos, 0);
    ck_assert_uint_eq(config.n_kv_heads, _i == 7 ? 4 : 2);
    entry eos = {"tokenizer.ggml.eot_token_id", U32, 49, NULL, {0}};
    OK(read_with(&eos, NULL, &config));
    ck_assert_uint_eq(config.n_eos, 1);
    ck_assert_int_eq(config.eos[0], 49);
}
END_TEST

START_TEST(linear_scaling)
{
    static const char *const KEYS[] = {"llama.rope.scaling.factor", "llama.rope.scale_linear"};
    pgrad__config config;
    double frequency[4];
    for (size_t i = 0; i < 2; i++) {
        entry factor = {KEYS[i], F32, 4, NULL, {0}};
        OK(read_with(&factor, NULL, &config));
        ck_assert_int_eq(config.rope_scaling.type, PGRAD__ROPE_LINEAR);
        pgrad__rope_frequencies(&config, frequency);
        ck_assert(frequency[0] == 0.25);
        factor.number = 0; /* says that there is none */
        OK(read_with(&factor, NULL, &config));
        ck_assert_int_eq(config.rope_scaling.type, PGRAD__ROPE_DEFAULT);
    }
}
END_TEST

/* GG14: sizes, epsilon, the architecture. GG20: files that hold something else. */
START_TEST(refused)
{
    static const struct {
        entry change;
        pgrad_status code;
        const char *text;
    } cases[] = {
        {{"general.architecture", 0, 0, NULL, {0}}, PGRAD_E_FORMAT, "general.architecture"},
        {{"general.architecture", U32, 1, NULL, {0}}, PGRAD_E_FORMAT, "general.architecture"},
        {{"general.architecture", TEXT, 0, "mamba", {0}}, PGRAD_E_UNSUPPORTED, "'mamba'"},
        {{"general.architecture", TEXT, 0, "clip", {0}}, PGRAD_E_UNSUPPORTED, "'clip' is not supported; supported:"},
        {{"general.type", TEXT, 0, "mmproj", {0}}, PGRAD_E_UNSUPPORTED, "'mmproj' is not a model"},
        {{"general.type", TEXT, 0, "adapter", {0}}, PGRAD_E_UNSUPPORTED, "'adapter'"},
        {{"llama.block_count", U32, 1025, NULL, {0}}, PGRAD_E_FORMAT, "llama.block_count"},
        {{"llama.block_count", U32, 1e9, NULL, {0}}, PGRAD_E_FORMAT, "1000000000"},
        {{"llama.block_count", U32, 0, NULL, {0}}, PGRAD_E_FORMAT, "llama.block_count"},
        {{"llama.block_count", TEXT, 0, "2", {0}}, PGRAD_E_FORMAT, "llama.block_count"},
        {{"llama.block_count", I32, -2, NULL, {0}}, PGRAD_E_FORMAT, "llama.block_count"},
        {{"llama.block_count", 0, 0, NULL, {0}}, PGRAD_E_FORMAT, "llama.block_count"},
        {{"llama.embedding_length", 0, 0, NULL, {0}}, PGRAD_E_FORMAT, "llama.embedding_length"},
        {{"llama.embedding_length", U32, 33, NULL, {0}}, PGRAD_E_FORMAT, "multiple"},
        {{"llama.attention.head_count", U32, 0, NULL, {0}}, PGRAD_E_FORMAT, "head_count"},
        {{"llama.attention.head_count", ARRAY, 3, NULL, {4, 4, 4}}, PGRAD_E_FORMAT, "head_count"},
        {{"llama.attention.head_count", ARRAY, 0, NULL, {0}}, PGRAD_E_FORMAT, "head_count"},
        {{"llama.attention.head_count", ARRAY, 2, NULL, {4, 2}}, PGRAD_E_UNSUPPORTED, "head_count"},
        {{"llama.attention.head_count", ARRAY, 2, NULL, {-4, -4}}, PGRAD_E_FORMAT, "head_count"},
        {{"llama.attention.head_count_kv", U32, 3, NULL, {0}}, PGRAD_E_FORMAT, "attention.head_count_kv = 3"},
        {{"llama.attention.key_length", U32, 9, NULL, {0}}, PGRAD_E_FORMAT, "even"},
        {{"llama.attention.value_length", U32, 16, NULL, {0}}, PGRAD_E_UNSUPPORTED, "value_length"},
        {{"llama.attention.layer_norm_rms_epsilon", F32, NAN, NULL, {0}},
         PGRAD_E_FORMAT,
         "epsilon"},
        {{"llama.attention.layer_norm_rms_epsilon", F32, 0, NULL, {0}}, PGRAD_E_FORMAT, "epsilon"},
        {{"llama.attention.layer_norm_rms_epsilon", U32, 1, NULL, {0}}, PGRAD_E_FORMAT, "epsilon"},
        {{"llama.rope.freq_base", F32, INFINITY, NULL, {0}}, PGRAD_E_FORMAT, "freq_base"},
        {{"llama.rope.dimension_count", U32, 4, NULL, {0}}, PGRAD_E_UNSUPPORTED, "dimension_count"},
        {{"llama.rope.scaling.type", TEXT, 0, "yarn", {0}}, PGRAD_E_UNSUPPORTED, "'yarn'"},
        {{"llama.rope.scaling.factor", F32, 0.5, NULL, {0}}, PGRAD_E_FORMAT, "scaling.factor"},
        {{"llama.rope.scaling.factor", F32, NAN, NULL, {0}}, PGRAD_E_FORMAT, "scaling.factor"},
        {{"llama.rope.scaling.factor", U32, 2, NULL, {0}}, PGRAD_E_FORMAT, "scaling.factor"},
        {{"llama.rope.scale_linear", F32, INFINITY, NULL, {0}}, PGRAD_E_FORMAT, "scale_linear"},
        {{"llama.expert_count", U32, 8, NULL, {0}}, PGRAD_E_UNSUPPORTED, "expert_count = 8"},
        {{"llama.attention.sliding_window", U32, 8, NULL, {0}}, PGRAD_E_UNSUPPORTED, "sliding"},
        {{"llama.vocab_size", U32, 4194305, NULL, {0}}, PGRAD_E_FORMAT, "vocab_size"},
        {{"llama.context_length", U32, 16777217, NULL, {0}}, PGRAD_E_FORMAT, "context_length"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgrad__config config = {.n_layers = 77};
        FAILS(cases[i].code, cases[i].text, read_with(&cases[i].change, NULL, &config));
        ck_assert_uint_eq(config.n_layers, 77);
    }
    pgrad__config config;
    FAILS(PGRAD_E_MISMATCH, "rope_freqs.weight: expected F32 of 4 elements, found F32 of 8",
          read_with(NULL, "rope_freqs.weight", &config));
    FAILS(PGRAD_E_UNSUPPORTED, "biases", read_with(NULL, "blk.0.attn_q.bias", &config));
}
END_TEST

START_TEST(linear_rope_of_factor_one_is_none)
{
    static const entry factors[] = {{"llama.rope.scaling.factor", F32, 1, NULL, {0}},
                                    {"llama.rope.scaling.factor", F32, 2, NULL, {0}}};
    const entry linear = {"llama.rope.scaling.type", TEXT, 0, "linear", {0}};
    pgrad__config config;
    OK(read_with(&linear, NULL, &config));
    OK(read_with(&factors[0], NULL, &config));
    beside = &factors[0];
    OK(read_with(&linear, NULL, &config));
    ck_assert(config.rope_theta == 100000.0);
    ck_assert_int_eq(config.rope_scaling.type, PGRAD__ROPE_DEFAULT);
    beside = &factors[1];
    OK(read_with(&linear, NULL, &config));
    ck_assert(config.rope_scaling.type == PGRAD__ROPE_LINEAR && config.rope_scaling.factor == 2.0);
    beside = NULL;
}
END_TEST

static char lines[512];

static void keep_line(void *user, int32_t level, const char *line)
{
    (void)user;
    ck_assert_int_eq(level, PGRAD_LOG_WARNING);
    snprintf(lines + strlen(lines), sizeof lines - strlen(lines), "%s\n", line);
}

/* As of a config.json: what shapes the function and is not there. */
START_TEST(defaults_are_told)
{
    static const struct {
        const char *key, *line;
    } cases[] = {{"llama.rope.freq_base", "llama.rope.freq_base: missing, 10000 is used"},
                 {"llama.attention.layer_norm_rms_epsilon",
                  "llama.attention.layer_norm_rms_epsilon: missing, 1e-06 is used"},
                 {"llama.context_length", "llama.context_length: missing, 2048 is used"},
                 {"llama.attention.head_count_kv", NULL}}; /* as many as heads: no number is made up */
    pgrad__config config;
    OK(pgrad_context_set_log(context, keep_line, NULL, PGRAD_LOG_WARNING));
    OK(read_with(NULL, NULL, &config));
    ck_assert_str_eq(lines, "");
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const entry without = {cases[i].key, 0, 0, NULL, {0}};
        lines[0] = '\0';
        OK(read_with(&without, NULL, &config));
        if (cases[i].line == NULL)
            ck_assert_str_eq(lines, "");
        else
            ck_assert_msg(strstr(lines, cases[i].line) != NULL && strchr(lines, '\n') == strrchr(lines, '\n'),
                          "'%s' is not '%s'", lines, cases[i].line);
    }
    OK(pgrad_context_set_log(context, NULL, NULL, PGRAD_LOG_WARNING));
}
END_TEST

START_TEST(tensors_are_checked)
{
    pgrad__config config;
    pgrad_model *model = NULL;
    OK(read_with(NULL, NULL, &config)); /* writes the file */
    FAILS(PGRAD_E_MISMATCH, "19 of 20 tensors are missing: 'model.layers.0.input_layernorm.weight'",
          pgrad_model_load(context, path, NULL, &model));
    entry vocab = {"llama.vocab_size", U32, 51, NULL, {0}};
    OK(read_with(&vocab, NULL, &config));
    FAILS(PGRAD_E_MISMATCH,
          "'token_embd.weight': expected shape [51, 32] from the config, found [50, 32]",
          pgrad_model_load(context, path, NULL, &model));
    ck_assert_ptr_null(model);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config_gguf");
    TCase *tests = tcase_create("config_gguf");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, plain_one_is_read);
    tcase_add_loop_test(tests, accepted, 0, 8);
    tcase_add_test(tests, linear_scaling);
    tcase_add_test(tests, refused);
    tcase_add_test(tests, linear_rope_of_factor_one_is_none);
    tcase_add_test(tests, defaults_are_told);
    tcase_add_test(tests, tensors_are_checked);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
