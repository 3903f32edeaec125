/* Scalings of rotary positions: frequencies against transformers, what GGUF makes of them, what is refused. */
#include "model_fixture.h"

#include "../golden/rope.inc"
#include "base/alloc.h"

static pgrad_status read_text(const char *text, pgrad__config *config)
{
    pgrad__json *json = NULL;
    pgrad_status status = pgrad__json_parse(context, text, strlen(text), "config.json", &json);
    if (status == PGRAD_OK)
        status = pgrad__config_read_json(context, json, "config.json", config);
    pgrad__json_free(json);
    return status;
}

/* The reference raises theta to a rounded power in f32: some 1e-6 at theta 1e6. The smallest step of a
 * factor would be a thousand times that. */
START_TEST(frequencies_equal)
{
    pgrad__config config;
    double frequency[64];
    OK(read_text(ROPES[_i].config, &config));
    ck_assert_uint_eq(config.head_dim / 2, ROPES[_i].half);
    pgrad__rope_frequencies(&config, frequency);
    for (uint32_t j = 0; j < ROPES[_i].half; j++) {
        float expected;
        memcpy(&expected, &ROPES[_i].frequency[j], sizeof expected);
        ck_assert_msg(fabs(frequency[j] - (double)expected) <= 2e-6 * (double)expected,
                      "%s: frequency %u is %.9g instead of %.9g", ROPES[_i].name, j, frequency[j],
                      (double)expected);
    }
}
END_TEST

static void same_config(const pgrad__config *a, const pgrad__config *b)
{
    const pgrad__rope_scaling *x = &a->rope_scaling, *y = &b->rope_scaling;
    ck_assert_int_eq(x->type, y->type);
    ck_assert(x->factor == y->factor && x->low_factor == y->low_factor && x->high_factor == y->high_factor);
    ck_assert_uint_eq(x->original_context, y->original_context);
}

/* Written as a config.json and read again it is the same. */
START_TEST(written_and_read)
{
    pgrad__config config, again;
    char *text;
    size_t length;
    OK(read_text(ROPES[_i].config, &config));
    OK(pgrad__config_write(context, &config, &text, &length));
    ck_assert_ptr_nonnull(strstr(text, "rope_scaling"));
    OK(read_text(text, &again));
    pgrad__free(context, text);
    same_config(&config, &again);
}
END_TEST

/* rope_freqs.weight of a converter becomes the scaling that it was made from. */
START_TEST(divisors_of_a_gguf_file)
{
    pgrad_model *folder = golden_model(context, "tiny_llama3"), *gguf = golden_model(context, "tiny_llama3.gguf");
    ck_assert_int_eq(folder->config.rope_scaling.type, PGRAD__ROPE_LLAMA3);
    same_config(&folder->config, &gguf->config);
    pgrad__config again;
    OK(read_text(gguf->config_text, &again));
    same_config(&folder->config, &again);
    const size_t bytes = folder->n_context * folder->config.head_dim / 2 * sizeof(float);
    ck_assert_mem_eq(folder->rope_cos, gguf->rope_cos, bytes);
    ck_assert_mem_eq(folder->rope_sin, gguf->rope_sin, bytes);
    pgrad_model_free(gguf);
    pgrad_model_free(folder);
}
END_TEST

/* The golden GGUF file with float `index` of its divisors changed: they begin with 1, 1, 2.339. */
static pgrad_status load_changed(size_t index, float value)
{
    char path[512], changed[] = "/tmp/pgrad-rope-XXXXXX";
    static unsigned char data[1 << 17];
    static const float BEGIN[2] = {1.0f, 1.0f};
    pgrad_model *model = NULL;
    FILE *in = fopen(data_path(path, "tiny_llama3.gguf"), "rb");
    ck_assert_ptr_nonnull(in);
    const size_t n = fread(data, 1, sizeof data, in);
    fclose(in);
    unsigned char *at = data;
    float third = 0.0f;
    for (; at + 32 <= data + n; at += 4) {
        memcpy(&third, at + 8, 4);
        if (memcmp(at, BEGIN, sizeof BEGIN) == 0 && third > 2.3f && third < 2.4f)
            break;
    }
    ck_assert(at + 32 <= data + n);
    memcpy(at + 4 * index, &value, 4);
    int descriptor = mkstemp(changed);
    ck_assert_int_eq(write(descriptor, data, n), (ssize_t)n);
    close(descriptor);
    pgrad_status status = pgrad_model_load(context, changed, NULL, &model);
    unlink(changed);
    pgrad_model_free(model);
    return status;
}

START_TEST(other_divisors_are_refused)
{
    static const struct {
        size_t index;
        float value;
    } CASES[] = {{0, 1.001f}, {2, 2.34f}, {2, 1.0f}, {2, NAN},   {3, 7.9f},
                 {3, 0.0f},   {7, 0.5f},  {7, 4.0f}, {7, -8.0f}, {7, INFINITY}};
    OK(load_changed(0, 1.0f));
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++)
        FAILS(PGRAD_E_UNSUPPORTED, "rope_freqs.weight", load_changed(CASES[i].index, CASES[i].value));
}
END_TEST

#define HEAD                                                                                                 \
    "{\"model_type\": \"llama\", \"vocab_size\": 9, \"hidden_size\": 8, \"intermediate_size\": 8, "          \
    "\"num_hidden_layers\": 1, \"num_attention_heads\": 2, \"rope_scaling\": "
#define LLAMA3 "{\"rope_type\": \"llama3\", \"factor\": 8.0, \"low_freq_factor\": 1.0, "

START_TEST(cf04_scalings_out_of_range)
{
    static const struct {
        const char *rope, *text;
    } CASES[] = {
        {"{\"type\": \"linear\"}", "config.json: rope_scaling.factor: expected a number, found nothing"},
        {"{\"type\": \"linear\", \"factor\": null}", "factor"},
        {"{\"type\": \"linear\", \"factor\": 0}", "factor"},
        {"{\"type\": \"linear\", \"factor\": 0.5}", "factor"},
        {"{\"type\": \"linear\", \"factor\": -2.0}", "factor"},
        {"{\"type\": \"linear\", \"factor\": 1e300}", "factor"},
        {"{\"type\": \"linear\", \"factor\": \"2\"}", "factor"},
        {"{\"rope_type\": \"llama3\"}", "factor"},
        {"{\"rope_type\": \"llama3\", \"factor\": 8.0}", "low_freq_factor"},
        {LLAMA3 "\"high_freq_factor\": null}", "high_freq_factor"},
        {LLAMA3 "\"high_freq_factor\": 1.0}", "high_freq_factor: expected more than low_freq_factor = 1, found 1"},
        {LLAMA3 "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 0}", "original_max"},
        {LLAMA3 "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 1e9}", "original_max"},
        {LLAMA3 "\"high_freq_factor\": 4, \"original_max_position_embeddings\": \"8192\"}", "original_max"},
    };
    pgrad__config config;
    char text[1024];
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        snprintf(text, sizeof text, HEAD "%s}", CASES[i].rope);
        FAILS(PGRAD_E_FORMAT, CASES[i].text, read_text(text, &config));
    }
}
END_TEST

/* The one beside the scaling counts before the one inside, as in the reference. */
START_TEST(original_context_beside_the_scaling)
{
    pgrad__config config;
    OK(read_text(HEAD LLAMA3 "\"high_freq_factor\": 4, \"original_max_position_embeddings\": 64}, "
                             "\"original_max_position_embeddings\": 32}",
                 &config));
    ck_assert_uint_eq(config.rope_scaling.original_context, 32);
}
END_TEST

int main(void)
{
    enum { N_ROPES = sizeof ROPES / sizeof ROPES[0] };
    Suite *suite = suite_create("rope_scaling");
    TCase *tests = tcase_create("rope_scaling");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_add_loop_test(tests, frequencies_equal, 0, N_ROPES);
    tcase_add_loop_test(tests, written_and_read, 0, N_ROPES);
    tcase_add_test(tests, divisors_of_a_gguf_file);
    tcase_add_test(tests, other_divisors_are_refused);
    tcase_add_test(tests, cf04_scalings_out_of_range);
    tcase_add_test(tests, original_context_beside_the_scaling);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
