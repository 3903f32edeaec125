/* A GGUF file: its metadata, tensors, the model's config and the config.json made of it. */
#include "fuzz_tensors.h"

#include "base/alloc.h"
#include "io/gguf.h"
#include "model/config.h"

/* A config that was accepted is written as one that is accepted. */
static void write_config(pgrad_context *context, const pgrad__config *config)
{
    char *text = NULL;
    size_t length;
    pgrad__json *json = NULL;
    pgrad__config again;
    PROMISE(pgrad__config_write(context, config, &text, &length) == PGRAD_OK);
    PROMISE(pgrad__json_parse(context, text, length, "made", &json) == PGRAD_OK);
    PROMISE(pgrad__config_read_json(context, json, "made", &again) == PGRAD_OK);
    PROMISE(again.n_layers == config->n_layers && again.n_vocab == config->n_vocab);
    PROMISE(again.head_dim == config->head_dim && again.rope_scaling.type == config->rope_scaling.type);
    pgrad__json_free(json);
    pgrad__free(context, text);
}

/* Every getter on keys of every type. */
static void get_values(const pgrad__gguf *gguf)
{
    static const char *const KEYS[] = {"general.architecture", "general.alignment", "llama.block_count",
                                       "llama.attention.head_count", "tokenizer.ggml.tokens",
                                       "tokenizer.ggml.scores", "llama.rope.freq_base"};
    for (size_t i = 0; i < sizeof KEYS / sizeof KEYS[0]; i++) {
        uint32_t number;
        float real;
        int flag;
        int32_t item;
        const char *text;
        size_t length, count = 0;
        (void)pgrad__gguf_u32(gguf, KEYS[i], &number);
        (void)pgrad__gguf_f32(gguf, KEYS[i], &real);
        (void)pgrad__gguf_bool(gguf, KEYS[i], &flag);
        if (pgrad__gguf_string(gguf, KEYS[i], &text, &length) == PGRAD_OK && length > 0)
            PROMISE(memchr(text, text[length - 1], length) != NULL); /* reads both ends */
        if (pgrad__gguf_array_count(gguf, KEYS[i], &count) != PGRAD_OK || count == 0)
            continue;
        (void)pgrad__gguf_array_i32(gguf, KEYS[i], count - 1, &item);
        (void)pgrad__gguf_array_f32(gguf, KEYS[i], count - 1, &real);
        if (pgrad__gguf_array_string(gguf, KEYS[i], count - 1, &text, &length) == PGRAD_OK && length > 0)
            PROMISE(memchr(text, text[length - 1], length) != NULL);
        PROMISE(pgrad__gguf_array_i32(gguf, KEYS[i], count, &item) == PGRAD_E_FORMAT);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = input_begin(data, size);
    pgrad__gguf *gguf = NULL;
    pgrad__config config;
    pgrad_status status = pgrad__gguf_open(in.context, in.path, &gguf);
    if (status == PGRAD_OK) {
        get_values(gguf);
        read_tensors(pgrad__gguf_tensors(gguf));
        status = pgrad__config_read_gguf(in.context, gguf, &config);
        if (status == PGRAD_OK)
            write_config(in.context, &config);
        pgrad__gguf_free(gguf);
    }
    PROMISE(status == PGRAD_OK || is_refusal(status));
    input_end(&in);
    return 0;
}
