/* JSON: as a document that is written again, a config.json, a generation_config.json and an index of
 * shards. */
#include "fuzz.h"

#include "base/alloc.h"
#include "io/safetensors.h"
#include "model/config.h"

/* What is written is read, and written the same. */
static void write_again(pgrad_context *context, const pgrad__json *json)
{
    char *first = NULL, *second = NULL;
    size_t n, m;
    pgrad__json *again = NULL;
    PROMISE(pgrad__json_write(context, json, 0, &first, &n) == PGRAD_OK);
    PROMISE(pgrad__json_parse(context, first, n, "again", &again) == PGRAD_OK);
    PROMISE(pgrad__json_write(context, again, 0, &second, &m) == PGRAD_OK);
    PROMISE(n == m && memcmp(first, second, n) == 0);
    pgrad__json_free(again);
    pgrad__free(context, second);
    pgrad__free(context, first);
}

static void read_config(pgrad_context *context, const pgrad__json *json)
{
    pgrad__config config;
    pgrad_status status = pgrad__config_read_json(context, json, "config.json", &config);
    if (status == PGRAD_OK) {
        PROMISE(config.n_heads % config.n_kv_heads == 0 && config.head_dim > 0 && config.n_vocab > 0);
        PROMISE(config.n_eos <= 8 && config.rope_scaling.factor >= 0.0);
        status = pgrad__config_read_generation(&config, json, "generation_config.json");
    }
    PROMISE(status == PGRAD_OK || is_refusal(status));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = input_begin(data, size);
    pgrad__json *json = NULL;
    pgrad__tensor_set set;
    pgrad_status status = pgrad__json_parse(in.context, (const char *)data, size, "config.json", &json);
    if (status == PGRAD_OK) {
        if (pgrad__json_type(json) >= PGRAD__JSON_ARRAY)
            write_again(in.context, json);
        read_config(in.context, json);
        pgrad__json_free(json);
        status = pgrad__safetensors_open_index(in.context, "/proc/self/fd/none", in.path, &set);
    }
    PROMISE(status != PGRAD_OK && is_refusal(status)); /* no shard is there */
    input_end(&in);
    return 0;
}
