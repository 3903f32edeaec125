#include "model/config.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/fail.h"
#include "model/arch.h"

/* ---- what both sources share ---- */

/* What a size is called in the file it came from. */
static const char *name_of(const pgrad__config *config, size_t field, int is_gguf)
{
    for (size_t i = 0; i < config->arch->n_sizes; i++)
        if (config->arch->sizes[i].field == field)
            return is_gguf ? config->arch->sizes[i].gguf : config->arch->sizes[i].json;
    return "";
}
#define NAME_OF(size) name_of(config, offsetof(pgrad__config, size), is_gguf)

pgrad_status pgrad__config_finish(pgrad__config *config, const char *origin, int is_gguf)
{
    if (config->n_kv_heads == 0)
        config->n_kv_heads = config->n_heads;
    if (config->head_dim == 0) {
        if (config->n_embd % config->n_heads != 0)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected a multiple of %s = %u, found %u",
                               origin, NAME_OF(n_embd), NAME_OF(n_heads), config->n_heads,
                               config->n_embd);
        config->head_dim = config->n_embd / config->n_heads;
    }
    if (config->n_ff == 0)
        config->n_ff = 4 * config->n_embd; /* at most 2^22 by the limit of n_embd */
    if (config->n_heads % config->n_kv_heads != 0)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected a multiple of %s = %u, found %u",
                           origin, NAME_OF(n_heads), NAME_OF(n_kv_heads), config->n_kv_heads,
                           config->n_heads);
    if (!config->learned_positions && config->head_dim % 2 != 0)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: head_dim: expected an even number for rotary positions, found %u",
                           origin, config->head_dim);
    if (config->head_dim > PGRAD__MAX_HEAD_DIM)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: head_dim: expected at most %u, found %u", origin,
                           PGRAD__MAX_HEAD_DIM, config->head_dim);
    uint64_t query = (uint64_t)config->n_heads * config->head_dim;
    if (query > PGRAD__MAX_EMBD)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: %u heads of %u: expected at most %u together",
                           origin, config->n_heads, config->head_dim, PGRAD__MAX_EMBD);
    if (config->attention_scale == 0.0f)
        config->attention_scale = 1.0f / sqrtf((float)config->head_dim);
    return PGRAD_OK;
}

static pgrad_status add_eos(pgrad__config *config, int64_t id, const char *origin, const char *key)
{
    if (id < 0 || id >= (int64_t)config->n_vocab)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected a token below %u, found %lld", origin,
                           key, config->n_vocab, (long long)id);
    for (uint32_t i = 0; i < config->n_eos; i++) {
        if (config->eos[i] == (pgrad_token)id)
            return PGRAD_OK;
    }
    if (config->n_eos == sizeof config->eos / sizeof config->eos[0])
        return pgrad__fail(PGRAD_E_LIMIT, "%s: %s: more than %u end tokens", origin, key,
                           config->n_eos);
    config->eos[config->n_eos++] = (pgrad_token)id;
    return PGRAD_OK;
}

/* ---- config.json ---- */

static const struct {
    const char *name;
    pgrad__activation kind;
} activations[] = {
    /* The first name of a kind is the one written. */
    {"gelu_new", PGRAD__ACTIVATION_GELU_TANH},
    {"gelu_pytorch_tanh", PGRAD__ACTIVATION_GELU_TANH},
    {"gelu_fast", PGRAD__ACTIVATION_GELU_TANH},
    {"gelu", PGRAD__ACTIVATION_GELU_ERF},
    {"gelu_python", PGRAD__ACTIVATION_GELU_ERF},
    {"relu", PGRAD__ACTIVATION_RELU},
    {"silu", PGRAD__ACTIVATION_SILU},
    {"swish", PGRAD__ACTIVATION_SILU},
};
#define N_ACTIVATIONS (sizeof activations / sizeof activations[0])

const char *pgrad__activation_name(pgrad__activation kind)
{
    for (size_t i = 0; i < N_ACTIVATIONS; i++) {
        if (activations[i].kind == kind)
            return activations[i].name;
    }
    return "";
}

static pgrad_status read_activation(pgrad__config *config, const pgrad__json *json,
                                    const char *origin)
{
    const char *key = config->arch->activation_key;
    const pgrad__json *value = pgrad__json_get(json, key);
    if (value == NULL)
        return PGRAD_OK;
    size_t length;
    const char *name = pgrad__json_string(value, &length);
    if (name == NULL)
        return pgrad__json_wrong(origin, key, "a string", value);
    for (size_t i = 0; i < N_ACTIVATIONS; i++) {
        if (strlen(activations[i].name) == length &&
            memcmp(activations[i].name, name, length) == 0) {
            config->activation = activations[i].kind;
            return PGRAD_OK;
        }
    }
    return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: %s: '%.*s' is not supported", origin, key,
                       (int)(length < 64 ? length : 64), name);
}

static pgrad_status find_family(const pgrad__json *json, const char *origin,
                                const pgrad__arch **out)
{
    char list[256];
    size_t length;
    const char *key = "model_type";
    const pgrad__json *value = pgrad__json_get(json, key);
    const char *name = pgrad__json_string(value, &length);
    if (value != NULL && name == NULL)
        return pgrad__json_wrong(origin, key, "a string", value);
    const pgrad__arch *arch = name == NULL ? NULL : pgrad__arch_find(name, length);
    if (name == NULL) {
        key = "architectures";
        name = pgrad__json_string(pgrad__json_at(pgrad__json_get(json, key), 0), &length);
        if (name == NULL)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: model_type: missing, and architectures too",
                               origin);
        arch = pgrad__arch_find_class(name, length);
    }
    if (arch == NULL)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: %s: '%.*s' is not supported; supported: %s",
                           origin, key, (int)(length < 64 ? length : 64), name,
                           pgrad__arch_list(list));
    *out = arch;
    return PGRAD_OK;
}

/* Whatever the family: things in a config that change the weights or the block. */
static pgrad_status refuse_foreign(const pgrad__json *json, const char *origin)
{
    const pgrad__json *quantization = pgrad__json_get(json, "quantization_config");
    if (quantization != NULL) {
        size_t length;
        const char *method =
            pgrad__json_string(pgrad__json_get(quantization, "quant_method"), &length);
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: quantization_config (%.*s) is not supported",
                           origin, method == NULL ? 1 : (int)(length < 64 ? length : 64),
                           method == NULL ? "?" : method);
    }
    int encoder;
    PGRAD__TRY(pgrad__json_optional_bool(json, origin, "is_encoder_decoder", 0, &encoder));
    if (encoder)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: is_encoder_decoder is not supported", origin);
    return PGRAD_OK;
}

static pgrad_status read_sizes(pgrad__config *config, const pgrad__json *json, const char *origin)
{
    const pgrad__arch *arch = config->arch;
    for (size_t i = 0; i < arch->n_sizes; i++) {
        const pgrad__size_key *key = &arch->sizes[i];
        const char *name = key->json;
        if (pgrad__json_get(json, name) == NULL && key->alias != NULL &&
            pgrad__json_get(json, key->alias) != NULL)
            name = key->alias;
        uint32_t *field = pgrad__size_field(config, key);
        if (key->optional)
            PGRAD__TRY(pgrad__json_optional_u32(json, origin, name, 1, key->max, *field, field));
        else
            PGRAD__TRY(pgrad__json_require_u32(json, origin, name, 1, key->max, field));
    }
    return PGRAD_OK;
}

static pgrad_status read_ends(pgrad__config *config, const pgrad__json *json, const char *origin)
{
    const char *key = "eos_token_id";
    const pgrad__json *eos = pgrad__json_get(json, key);
    if (eos == NULL)
        return PGRAD_OK;
    int is_list = pgrad__json_type(eos) == PGRAD__JSON_ARRAY;
    size_t n = is_list ? pgrad__json_count(eos) : 1;
    if (n == 0)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected a token, found an empty list", origin,
                           key);
    for (size_t i = 0; i < n; i++) {
        int64_t id;
        const pgrad__json *value = is_list ? pgrad__json_at(eos, i) : eos;
        if (!pgrad__json_integer(value, &id))
            return pgrad__json_wrong(origin, key, "a whole number or a list of them", value);
        PGRAD__TRY(add_eos(config, id, origin, key));
    }
    return PGRAD_OK;
}

static pgrad_status read_begin(pgrad__config *config, const pgrad__json *json, const char *origin)
{
    const pgrad__json *value = pgrad__json_get(json, "bos_token_id");
    if (value == NULL)
        return PGRAD_OK;
    int64_t id;
    if (!pgrad__json_integer(value, &id) || id < 0 || id >= (int64_t)config->n_vocab) {
        char expected[32];
        (void)snprintf(expected, sizeof expected, "a token below %u", config->n_vocab);
        return pgrad__json_wrong(origin, "bos_token_id", expected, value);
    }
    config->bos = (pgrad_token)id;
    return PGRAD_OK;
}

/* A number that shapes the function has a default and is not there. */
static void tell_defaults(pgrad_context *context, const pgrad__arch *arch, const pgrad__json *json,
                          const char *origin)
{
    const pgrad__json *rope = pgrad__json_get(json, "rope_parameters");
    pgrad__config initial = arch->initial;
    for (size_t i = 0; i < arch->n_sizes; i++) {
        const pgrad__size_key *key = &arch->sizes[i];
        const uint32_t size = *pgrad__size_field(&initial, key);
        if (key->optional && size != 0 && pgrad__json_get(json, key->json) == NULL)
            pgrad__log_line(context, PGRAD_LOG_WARNING, "%s: %s: missing, %u is used", origin,
                            key->json, size);
    }
    for (size_t i = 0; i < arch->n_reals; i++) {
        const pgrad__real_key *key = &arch->reals[i];
        const int in_rope = key->field == offsetof(pgrad__config, rope_theta) &&
                            pgrad__json_get(rope, key->json) != NULL;
        if (key->gguf != NULL && !in_rope && pgrad__json_get(json, key->json) == NULL)
            pgrad__log_line(context, PGRAD_LOG_WARNING, "%s: %s: missing, %g is used", origin,
                            key->json, pgrad__real_get(&initial, key));
    }
}

pgrad_status pgrad__config_read_json(pgrad_context *context, const pgrad__json *json,
                                     const char *origin, pgrad__config *out)
{
    if (pgrad__json_type(json) != PGRAD__JSON_OBJECT)
        return pgrad__json_wrong(NULL, origin, "a JSON object", json);
    const pgrad__arch *arch = NULL;
    PGRAD__TRY(find_family(json, origin, &arch));
    PGRAD__TRY(refuse_foreign(json, origin));
    pgrad__config config = arch->initial;
    config.arch = arch;
    PGRAD__TRY(read_sizes(&config, json, origin));
    for (size_t i = 0; i < arch->n_reals; i++) {
        const pgrad__real_key *key = &arch->reals[i];
        double value;
        PGRAD__TRY(pgrad__json_optional_real(json, origin, key->json, key->min, key->max,
                                             pgrad__real_get(&config, key), &value));
        pgrad__real_set(&config, key, value);
    }
    for (size_t i = 0; i < arch->n_flags; i++) {
        int *field = pgrad__flag_field(&config, &arch->flags[i]);
        PGRAD__TRY(pgrad__json_optional_bool(json, origin, arch->flags[i].json, *field, field));
    }
    PGRAD__TRY(read_activation(&config, json, origin));
    PGRAD__TRY(arch->check_json(&config, json, origin));
    PGRAD__TRY(pgrad__config_finish(&config, origin, 0));
    tell_defaults(context, arch, json, origin);
    PGRAD__TRY(read_ends(&config, json, origin));
    PGRAD__TRY(read_begin(&config, json, origin));
    *out = config;
    return PGRAD_OK;
}

pgrad_status pgrad__config_read_generation(pgrad__config *config, const pgrad__json *json,
                                           const char *origin)
{
    if (pgrad__json_type(json) != PGRAD__JSON_OBJECT)
        return pgrad__json_wrong(NULL, origin, "a JSON object", json);
    return read_ends(config, json, origin);
}
