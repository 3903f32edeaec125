/* config.json read strictly: every key, every wrong value, what is not built. */
#include "model_fixture.h"

#include "../decimal_comma.h"
#include "base/alloc.h"
#include "model/arch.h"

static pgrad_status read_text(const char *text, size_t length, pgrad__config *config)
{
    pgrad__json *json = NULL;
    pgrad_status status = pgrad__json_parse(context, text, length, "config.json", &json);
    if (status == PGRAD_OK)
        status = pgrad__config_read_json(context, json, "config.json", config);
    pgrad__json_free(json);
    return status;
}

/* A config as pairs of key and value; `key` has its value replaced, or is left out (value NULL), or
 * is put behind the others. */
typedef struct pair {
    const char *key, *value;
} pair;

static const pair llama[] = {{"model_type", "\"llama\""},
                             {"vocab_size", "101"},
                             {"hidden_size", "32"},
                             {"intermediate_size", "48"},
                             {"num_hidden_layers", "2"},
                             {"num_attention_heads", "4"},
                             {"num_key_value_heads", "2"},
                             {"max_position_embeddings", "256"},
                             {"rms_norm_eps", "1e-05"},
                             {"rope_theta", "10000.0"},
                             {"hidden_act", "\"silu\""},
                             {"tie_word_embeddings", "false"},
                             {NULL, NULL}};
static const pair gpt2[] = {{"model_type", "\"gpt2\""},
                            {"vocab_size", "97"},
                            {"n_positions", "64"},
                            {"n_embd", "32"},
                            {"n_layer", "2"},
                            {"n_head", "4"},
                            {"n_inner", "null"},
                            {"activation_function", "\"gelu_new\""},
                            {"layer_norm_epsilon", "1e-05"},
                            {NULL, NULL}};

static pgrad_status read_with(const pair *pairs, const char *key, const char *value,
                              pgrad__config *config)
{
    static char text[8192];
    size_t used = 1;
    int replaced = 0;
    text[0] = '{';
    for (; pairs->key != NULL; pairs++) {
        int same = key != NULL && strcmp(pairs->key, key) == 0;
        const char *now = same ? value : pairs->value;
        replaced |= same;
        if (now != NULL)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s\"%s\": %s",
                                     used > 1 ? "," : "", pairs->key, now);
    }
    if (key != NULL && !replaced && value != NULL)
        used += (size_t)snprintf(text + used, sizeof text - used, ",\"%s\": %s", key, value);
    text[used++] = '}';
    return read_text(text, used, config);
}

START_TEST(plain_ones_are_read)
{
    pgrad__config config;
    OK(read_with(llama, NULL, NULL, &config));
    ck_assert_str_eq(config.arch->name, "llama");
    ck_assert_uint_eq(config.head_dim, 8);
    ck_assert_uint_eq(config.n_kv_heads, 2);
    ck_assert_uint_eq(config.n_context, 256);
    ck_assert(config.rope_theta == 10000.0 && config.norm_epsilon == 1e-5f);
    ck_assert(config.gated && !config.qkv_bias && !config.tied_head && !config.learned_positions);
    ck_assert(config.attention_scale == 1.0f / sqrtf(8.0f));
    ck_assert_uint_eq(config.n_eos, 0);
    ck_assert_int_eq(config.bos, -1);
    OK(read_with(gpt2, NULL, NULL, &config));
    ck_assert_uint_eq(config.n_ff, 128);
    ck_assert_uint_eq(config.n_kv_heads, 4);
    ck_assert(config.tied_head && config.learned_positions && config.qkv_bias && !config.gated);
}
END_TEST

/* CF02: null is absent, for what may be absent. */
START_TEST(null_is_absent)
{
    static const char *const optional[] = {
        "num_key_value_heads", "head_dim",      "rope_scaling",        "rope_parameters",
        "eos_token_id",        "bos_token_id",  "quantization_config", "max_position_embeddings",
        "rms_norm_eps",        "rope_theta",    "hidden_act",          "tie_word_embeddings",
        "attention_bias",      "sliding_window"};
    pgrad__config config;
    OK(read_with(llama, optional[_i], "null", &config));
    OK(read_with(llama, optional[_i], NULL, &config));
    if (_i == 0)
        ck_assert_uint_eq(config.n_kv_heads, 4);
}
END_TEST

/* CF02: every required number, with everything that is no number of its range. */
START_TEST(numbers_are_checked)
{
    static const char *const llama_keys[] = {"vocab_size", "hidden_size", "intermediate_size",
                                             "num_hidden_layers", "num_attention_heads"};
    static const char *const gpt2_keys[] = {"vocab_size", "n_positions", "n_embd", "n_layer",
                                            "n_head"};
    static const char *const bad[] = {NULL,
                                      "null",
                                      "\"768\"",
                                      "true",
                                      "768.5",
                                      "1e400",
                                      "-1",
                                      "0",
                                      "2147483648",
                                      "[1]",
                                      "9223372036854775808",
                                      "1180591620717411303424",
                                      "{}"};
    for (size_t i = 0; i < 2; i++) {
        for (size_t k = 0; k < 5; k++) {
            const char *key = (i ? gpt2_keys : llama_keys)[k];
            for (size_t v = 0; v < sizeof bad / sizeof bad[0]; v++) {
                pgrad__config config = {.n_layers = 77};
                pgrad_status status = read_with(i ? gpt2 : llama, key, bad[v], &config);
                ck_assert_msg(status == PGRAD_E_FORMAT || status == PGRAD_E_LIMIT, "%s = %s: %s",
                              key, bad[v] ? bad[v] : "nothing", pgrad_status_name(status));
                /* A number no machine type holds is the parser's to refuse, by its place in the
                 * text. */
                if (bad[v] == NULL || (strcmp(bad[v], "1e400") != 0 && strlen(bad[v]) < 19))
                    ck_assert_msg(strstr(pgrad_error_message(), key) != NULL, "%s = %s: %s", key,
                                  bad[v] ? bad[v] : "nothing", pgrad_error_message());
                ck_assert_msg(config.n_layers == 77, "written on failure");
            }
        }
    }
    /* A whole number may be written as a real one. */
    pgrad__config config;
    OK(read_with(llama, "hidden_size", "32.0", &config));
    ck_assert_uint_eq(config.n_embd, 32);
}
END_TEST

/* CF03: sizes that do not fit together. CF04: epsilon and theta. CF05: what is not built. CF08: end tokens.
 * CF10: a context of 1e30. */
START_TEST(refused)
{
    static const struct {
        const pair *base;
        const char *key, *value;
        pgrad_status code;
        const char *text;
    } cases[] = {
        {llama, "num_attention_heads", "5", PGRAD_E_FORMAT,
         "hidden_size: expected a multiple of num_attention_heads = 5, found 32"},
        {llama, "num_attention_heads", "32", PGRAD_E_FORMAT, "even"},
        {llama, "num_key_value_heads", "3", PGRAD_E_FORMAT,
         "num_attention_heads: expected a multiple of num_key_value_heads = 3, found 4"},
        {llama, "num_key_value_heads", "8", PGRAD_E_FORMAT, "num_key_value_heads = 8"},
        {llama, "head_dim", "7", PGRAD_E_FORMAT, "head_dim"},
        {llama, "head_dim", "0", PGRAD_E_FORMAT, "head_dim"},
        {llama, "head_dim", "1048576", PGRAD_E_FORMAT, "head_dim"},
        {llama, "hidden_size", "8192", PGRAD_E_LIMIT, "head_dim: expected at most 1024, found 2048"},
        {gpt2, "n_embd", "1048576", PGRAD_E_LIMIT, "head_dim: expected at most 1024, found 262144"},
        {llama, "num_attention_heads", "65536,\"head_dim\":32", PGRAD_E_LIMIT,
         "65536 heads of 32: expected at most 1048576 together"},
        {llama, "num_hidden_layers", "1025", PGRAD_E_FORMAT, "num_hidden_layers"},
        {llama, "num_hidden_layers", "1000000000", PGRAD_E_FORMAT, "1000000000"},
        {llama, "vocab_size", "4194305", PGRAD_E_FORMAT, "vocab_size"},
        {llama, "max_position_embeddings", "1e30", PGRAD_E_FORMAT, "max_position_embeddings"},
        {llama, "rms_norm_eps", "0", PGRAD_E_FORMAT, "rms_norm_eps"},
        {llama, "rms_norm_eps", "-1e-5", PGRAD_E_FORMAT, "rms_norm_eps"},
        {llama, "rms_norm_eps", "1e-400", PGRAD_E_FORMAT, ""},
        {llama, "rms_norm_eps", "\"1e-5\"", PGRAD_E_FORMAT, "rms_norm_eps"},
        {llama, "rope_theta", "0", PGRAD_E_FORMAT, "rope_theta"},
        {llama, "rope_theta", "-10000", PGRAD_E_FORMAT, "rope_theta"},
        {llama, "rope_theta", "1e300", PGRAD_E_FORMAT, "rope_theta"},
        {llama, "tie_word_embeddings", "1", PGRAD_E_FORMAT, "tie_word_embeddings"},
        {llama, "rope_scaling", "{\"type\": \"dynamic\", \"factor\": 2.0}", PGRAD_E_UNSUPPORTED,
         "'dynamic'"},
        {llama, "rope_scaling", "{\"rope_type\": \"longrope\", \"factor\": 8.0}", PGRAD_E_UNSUPPORTED,
         "'longrope'"},
        {llama, "rope_scaling", "{\"rope_type\": 3}", PGRAD_E_FORMAT,
         "rope_scaling.rope_type: expected a string, found 3"},
        {llama, "rope_scaling", "{\"type\": []}", PGRAD_E_FORMAT,
         "rope_scaling.type: expected a string, found an array"},
        {llama, "rope_parameters", "{\"partial_rotary_factor\": 0.25}", PGRAD_E_UNSUPPORTED,
         "rope_parameters.partial_rotary_factor: expected 1, as a part is not supported, found 0.25"},
        {llama, "rope_scaling", "[1]", PGRAD_E_FORMAT, "rope_scaling"},
        {llama, "rope_scaling", "\"llama3\"", PGRAD_E_FORMAT, "rope_scaling"},
        {llama, "rope_scaling", "3", PGRAD_E_FORMAT, "rope_scaling"},
        {llama, "rope_parameters", "\"yarn\"", PGRAD_E_FORMAT, "rope_parameters"},
        {llama, "rope_parameters", "{\"full_attention\": {\"rope_type\": \"yarn\"}}", PGRAD_E_UNSUPPORTED,
         "rope_parameters.full_attention"},
        {llama, "rope_parameters", "{\"rope_type\": \"yarn\"}", PGRAD_E_UNSUPPORTED, "'yarn'"},
        {llama, "rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 0}",
         PGRAD_E_FORMAT, "rope_theta"},
        {llama, "rope_parameters",
         "{\"factor\": 1.0, \"rope_type\": \"proportional\"}",
         PGRAD_E_UNSUPPORTED, "'proportional'"},
        {llama, "partial_rotary_factor", "0.5", PGRAD_E_UNSUPPORTED,
         "config.json: partial_rotary_factor: expected 1, as a part is not supported, found 0.5"},
        {llama, "hidden_act", "\"relu6\"", PGRAD_E_UNSUPPORTED, "'relu6'"},
        {llama, "hidden_act", "7", PGRAD_E_FORMAT, "hidden_act: expected a string, found 7"},
        {llama, "quantization_config", "{\"quant_method\": \"gptq\"}", PGRAD_E_UNSUPPORTED, "gptq"},
        {llama, "num_local_experts", "8", PGRAD_E_UNSUPPORTED, "num_local_experts = 8"},
        {llama, "is_encoder_decoder", "true", PGRAD_E_UNSUPPORTED, "is_encoder_decoder"},
        {llama, "model_type", "\"mixtral\"", PGRAD_E_UNSUPPORTED, "supported: gpt2, llama"},
        {llama, "model_type", "12", PGRAD_E_FORMAT, "model_type"},
        {llama, "model_type", NULL, PGRAD_E_FORMAT, "model_type"},
        {llama, "eos_token_id", "101", PGRAD_E_FORMAT, "eos_token_id"},
        {llama, "eos_token_id", "-1", PGRAD_E_FORMAT, "eos_token_id"},
        {llama, "eos_token_id", "[]", PGRAD_E_FORMAT, "eos_token_id"},
        {llama, "eos_token_id", "[1, \"2\"]", PGRAD_E_FORMAT, "eos_token_id: expected a whole number or a list "
                                                               "of them, found \"2\""},
        {llama, "eos_token_id", "[1,2,3,4,5,6,7,8,9]", PGRAD_E_LIMIT, "eos_token_id"},
        {llama, "bos_token_id", "101", PGRAD_E_FORMAT, "bos_token_id: expected a token below 101, found 101"},
        {llama, "bos_token_id", "1.5", PGRAD_E_FORMAT, "bos_token_id"},
        {gpt2, "add_cross_attention", "true", PGRAD_E_UNSUPPORTED, "add_cross_attention"},
        {gpt2, "n_inner", "0", PGRAD_E_FORMAT, "n_inner"},
        {gpt2, "n_head", "5", PGRAD_E_FORMAT, "n_embd: expected a multiple of n_head = 5, found 32"},
        {gpt2, "activation_function", "\"quick_gelu\"", PGRAD_E_UNSUPPORTED, "quick_gelu"},
        {gpt2, "n_embd", "1048577", PGRAD_E_FORMAT, "n_embd"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        pgrad__config config;
        FAILS(cases[i].code, cases[i].text,
              read_with(cases[i].base, cases[i].key, cases[i].value, &config));
    }
}
END_TEST

START_TEST(another_root_is_told)
{
    pgrad__config config;
    pgrad__json *json = NULL;
    FAILS(PGRAD_E_FORMAT, "config.json: expected a JSON object, found an array", read_text("[1]", 3, &config));
    OK(pgrad__json_parse(context, "[1]", 3, "generation_config.json", &json));
    FAILS(PGRAD_E_FORMAT, "generation_config.json: expected a JSON object, found an array",
          pgrad__config_read_generation(&config, json, "generation_config.json"));
    pgrad__json_free(json);
}
END_TEST

START_TEST(accepted)
{
    pgrad__config config;
    OK(read_with(llama, "rope_scaling", "{\"rope_type\": \"default\"}", &config));
    OK(read_with(llama, "rope_parameters", "{\"rope_type\": \"default\", \"rope_theta\": 500000.0}",
                 &config));
    ck_assert(config.rope_theta == 500000.0);
    OK(read_with(llama, "eos_token_id", "[2, 3, 2]", &config));
    ck_assert_uint_eq(config.n_eos, 2);
    ck_assert_int_eq(config.eos[1], 3);
    OK(read_with(llama, "pad_token_id", "-1", &config)); /* Llama 1; not used here */
    OK(read_with(llama, "head_dim", "16", &config));
    ck_assert_uint_eq(config.head_dim, 16);
    OK(read_with(llama, "attention_bias", "true", &config));
    ck_assert(config.qkv_bias && config.output_bias && !config.mlp_bias);
    OK(read_with(gpt2, "scale_attn_weights", "false", &config));
    ck_assert(config.attention_scale == 1.0f);
    OK(read_with(gpt2, "scale_attn_by_inverse_layer_idx", "true", &config));
    ck_assert_int_eq(config.scale_by_layer, 1);
    OK(read_with(gpt2, "activation_function", "\"relu\"", &config));
    ck_assert_int_eq(config.activation, PGRAD__ACTIVATION_RELU);
    const char *text =
        "{\"architectures\": [\"GPT2LMHeadModel\"], \"vocab_size\": 5, \"hidden_size\": 4,"
        "\"num_hidden_layers\": 1, \"num_attention_heads\": 1,"
        "\"max_position_embeddings\": 9}";
    OK(read_text(text, strlen(text), &config));
    ck_assert_uint_eq(config.n_context, 9);
    ck_assert_uint_eq(config.n_embd, 4);
}
END_TEST

START_TEST(generation_adds_ends)
{
    pgrad__config config;
    pgrad__json *json = NULL;
    const char *text = "{\"eos_token_id\": [2, 50], \"temperature\": 0.6}";
    OK(read_with(llama, "eos_token_id", "2", &config));
    OK(pgrad__json_parse(context, text, strlen(text), "generation_config.json", &json));
    OK(pgrad__config_read_generation(&config, json, "generation_config.json"));
    pgrad__json_free(json);
    ck_assert_uint_eq(config.n_eos, 2);
    ck_assert_int_eq(config.eos[1], 50);
}
END_TEST

/* CF09: a host whose decimal point is a comma. */
START_TEST(locale_does_not_matter)
{
    pgrad__config config, again;
    char *text = NULL;
    size_t length;
    const int taken = take_decimal_comma();
    OK(read_with(llama, "rms_norm_eps", "1.25e-05", &config));
    ck_assert(config.norm_epsilon == 1.25e-5f);
    OK(pgrad__config_write(context, &config, &text, &length));
    OK(read_text(text, length, &again)); /* what was written has a point, and reads so */
    drop_decimal_comma(taken);
    ck_assert(again.norm_epsilon == config.norm_epsilon);
    pgrad__free(context, text);
}
END_TEST

/* What is written for a config reads as the same config. */
START_TEST(written_and_read)
{
    static const char *const values[] = {"1e-05",      "1e-06", "9.999999747378752e-06", "0.1",
                                         "0.00012207", "1.0",   "3.1415927e-7",          "1e-30"};
    static const char *const thetas[] = {"10000.0", "500000", "1000000.0", "10000.5",
                                         "1e12",    "8000",   "1",         "123456.789"};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        pgrad__config config, again;
        char *text = NULL;
        size_t length;
        OK(read_with(llama, "rms_norm_eps", values[i], &config));
        config.rope_theta = (double)(float)strtod(thetas[i], NULL); /* as GGUF has it */
        config.n_eos = (uint32_t)i % 3;
        config.eos[0] = 3;
        config.eos[1] = 9;
        config.bos = (pgrad_token)i - 1;
        config.activation = PGRAD__ACTIVATION_GELU_ERF;
        OK(pgrad__config_write(context, &config, &text, &length));
        OK(read_text(text, length, &again));
        ck_assert_msg(again.norm_epsilon == config.norm_epsilon, "%s", text);
        ck_assert_msg((float)again.rope_theta == (float)config.rope_theta, "%s", text);
        ck_assert(again.n_layers == config.n_layers && again.n_heads == config.n_heads &&
                  again.n_kv_heads == config.n_kv_heads && again.head_dim == config.head_dim &&
                  again.n_embd == config.n_embd && again.n_ff == config.n_ff &&
                  again.n_vocab == config.n_vocab && again.n_context == config.n_context);
        ck_assert(again.bos == config.bos && again.n_eos == config.n_eos &&
                  again.activation == config.activation && again.tied_head == config.tied_head);
        pgrad__free(context, text);
    }
}
END_TEST

/* CF01: empty, a byte order mark, cut, no object, a key twice, a depth bomb. */
START_TEST(broken_documents)
{
    static const char *const texts[] = {"",
                                        "\xef\xbb\xbf",
                                        "{",
                                        "[]",
                                        "7",
                                        "{\"model_type\": \"llama\"",
                                        "{\"model_type\": \"llama\", \"model_type\": \"llama\"}"};
    pgrad__config config;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        FAILS(PGRAD_E_FORMAT, "config.json", read_text(texts[i], strlen(texts[i]), &config));
    char *bomb = malloc(100001);
    memset(bomb, '[', 100000);
    pgrad_status status = read_text(bomb, 100000, &config);
    ck_assert(status == PGRAD_E_FORMAT || status == PGRAD_E_LIMIT);
    free(bomb);
}
END_TEST

/* CF08: a list as long as a file may be is read in no time: one end token a million times, or many. */
START_TEST(cf08_long_lists)
{
    enum { N = 1000000 };
    char *list = malloc(2 * N + 64);
    pgrad__config config;
    for (int many = 0; many < 2; many++) {
        size_t used = (size_t)sprintf(list, "{\"eos_token_id\": [");
        for (int i = 0; i < N; i++)
            used += (size_t)sprintf(list + used, "%s%d", i > 0 ? "," : "", many ? i % 9 : 2);
        used += (size_t)sprintf(list + used, "]}");
        pgrad__json *json = NULL;
        OK(read_with(llama, NULL, NULL, &config));
        OK(pgrad__json_parse(context, list, used, "generation_config.json", &json));
        pgrad_status status = pgrad__config_read_generation(&config, json, "generation_config.json");
        ck_assert_int_eq(status, many ? PGRAD_E_LIMIT : PGRAD_OK);
        ck_assert_uint_eq(config.n_eos, many ? 8 : 1);
        pgrad__json_free(json);
    }
    free(list);
}
END_TEST

START_TEST(names_are_expanded)
{
    pgrad__strbuf text = {.context = context};
    pgrad__arch_name(&text, "model.", "layers.#.mlp.up_proj.weight", 12);
    ck_assert_str_eq(text.data, "model.layers.12.mlp.up_proj.weight");
    pgrad__strbuf_free(&text);
    ck_assert(pgrad__arch_ignores(&pgrad__arch_gpt2, "h.0.attn.bias"));
    ck_assert(!pgrad__arch_ignores(&pgrad__arch_gpt2, "h.0.attn.c_attn.bias"));
    ck_assert(
        pgrad__arch_ignores(&pgrad__arch_llama, "model.layers.3.self_attn.rotary_emb.inv_freq"));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("config");
    TCase *tests = tcase_create("config");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_test(tests, plain_ones_are_read);
    tcase_add_loop_test(tests, null_is_absent, 0, 14);
    tcase_add_test(tests, numbers_are_checked);
    tcase_add_test(tests, refused);
    tcase_add_test(tests, another_root_is_told);
    tcase_add_test(tests, accepted);
    tcase_add_test(tests, generation_adds_ends);
    tcase_add_test(tests, locale_does_not_matter);
    tcase_add_test(tests, written_and_read);
    tcase_add_test(tests, broken_documents);
    tcase_add_test(tests, cf08_long_lists);
    tcase_add_test(tests, names_are_expanded);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
