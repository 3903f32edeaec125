/* The GGUF side of config.h, and the config.json made of it. */
#include "model/arch.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/context.h"
#include "base/fail.h"

const char *pgrad__arch_key(char buffer[PGRAD__KEY_MAX], const pgrad__arch *arch, const char *name)
{
    snprintf(buffer, PGRAD__KEY_MAX, "%s.%s", arch->name, name);
    return buffer;
}

/* A number, or an array of one number repeated (some writers give head counts by layer). */
static pgrad_status read_size(const pgrad__gguf *gguf, const char *key, const char *origin,
                              uint32_t n_layers, uint32_t max, uint32_t *out)
{
    size_t n;
    uint32_t value;
    if (pgrad__gguf_array_count(gguf, key, &n) == PGRAD_OK) {
        int32_t first = 0;
        if (n != n_layers)
            return pgrad__fail(PGRAD_E_FORMAT,
                               "%s: %s: expected a number, or one for each of %u layers, "
                               "found %zu",
                               origin, key, n_layers, n);
        for (size_t i = 0; i < n; i++) {
            int32_t item;
            PGRAD__TRY(pgrad__gguf_array_i32(gguf, key, i, &item));
            if (i > 0 && item != first)
                return pgrad__fail(PGRAD_E_UNSUPPORTED,
                                   "%s: %s: different numbers by layer are not supported", origin,
                                   key);
            first = item;
        }
        if (first < 0)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected 1 to %u, found %d", origin, key,
                               max, first);
        value = (uint32_t)first;
    } else {
        PGRAD__TRY(pgrad__gguf_u32(gguf, key, &value));
    }
    if (value < 1 || value > max)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected 1 to %u, found %u", origin, key, max,
                           value);
    *out = value;
    return PGRAD_OK;
}

static pgrad_status read_sizes(pgrad_context *context, pgrad__config *config,
                               const pgrad__gguf *gguf, const char *origin)
{
    char name[PGRAD__KEY_MAX];
    const pgrad__arch *arch = config->arch;
    for (size_t i = 0; i < arch->n_sizes; i++) {
        const pgrad__size_key *key = &arch->sizes[i];
        uint32_t *field = pgrad__size_field(config, key);
        pgrad__arch_key(name, arch, key->gguf);
        if (pgrad__gguf_has(gguf, name)) {
            PGRAD__TRY(read_size(gguf, name, origin, config->n_layers, key->max, field));
            continue;
        }
        if (key->field == offsetof(pgrad__config, n_vocab)) {
            /* Many writers leave the vocabulary's size to the embedding. */
            const pgrad__tensor_view *view =
                pgrad__tensor_find(pgrad__gguf_tensors(gguf), "token_embd.weight");
            if (view != NULL && view->n_dims == 2 && view->dims[0] >= 1 &&
                view->dims[0] <= key->max) {
                *field = (uint32_t)view->dims[0];
                continue;
            }
        }
        if (!key->optional)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: missing", origin, name);
        if (*field != 0) /* 0 is filled in later */
            pgrad__log_line(context, PGRAD_LOG_WARNING, "%s: %s: missing, %u is used", origin, name,
                            *field);
    }
    return PGRAD_OK;
}

static pgrad_status read_reals(pgrad_context *context, pgrad__config *config,
                               const pgrad__gguf *gguf, const char *origin)
{
    char name[PGRAD__KEY_MAX];
    for (size_t i = 0; i < config->arch->n_reals; i++) {
        const pgrad__real_key *key = &config->arch->reals[i];
        float value;
        if (key->gguf == NULL)
            continue;
        if (!pgrad__gguf_has(gguf, pgrad__arch_key(name, config->arch, key->gguf))) {
            pgrad__log_line(context, PGRAD_LOG_WARNING, "%s: %s: missing, %g is used", origin, name,
                            pgrad__real_get(config, key));
            continue;
        }
        PGRAD__TRY(pgrad__gguf_f32(gguf, name, &value));
        if (!((double)value >= key->min && (double)value <= key->max))
            return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected %g to %g, found %g", origin, name,
                               key->min, key->max, (double)value);
        pgrad__real_set(config, key, (double)value);
    }
    return PGRAD_OK;
}

/* Special tokens: one outside the vocabulary is told and ignored, as the format's other readers do.
 */
static pgrad_status read_token(pgrad_context *context, const pgrad__gguf *gguf, const char *key,
                               uint32_t n_vocab, pgrad_token *out)
{
    char path[PGRAD__PATH_MAX];
    uint32_t id;
    *out = -1;
    if (!pgrad__gguf_has(gguf, key))
        return PGRAD_OK;
    PGRAD__TRY(pgrad__gguf_u32(gguf, key, &id));
    if (id < n_vocab)
        *out = (pgrad_token)id;
    else
        pgrad__log_line(context, PGRAD_LOG_WARNING,
                        "%s: %s: %u is outside the vocabulary of %u; ignored",
                        pgrad__path_text(path, pgrad__gguf_path(gguf)), key, id, n_vocab);
    return PGRAD_OK;
}

static pgrad_status read_tokens(pgrad_context *context, pgrad__config *config,
                                const pgrad__gguf *gguf)
{
    static const char *const ends[] = {"tokenizer.ggml.eos_token_id", "tokenizer.ggml.eot_token_id",
                                       "tokenizer.ggml.eom_token_id"};
    PGRAD__TRY(
        read_token(context, gguf, "tokenizer.ggml.bos_token_id", config->n_vocab, &config->bos));
    for (size_t i = 0; i < sizeof ends / sizeof ends[0]; i++) {
        pgrad_token id;
        PGRAD__TRY(read_token(context, gguf, ends[i], config->n_vocab, &id));
        int known = id < 0;
        for (uint32_t j = 0; j < config->n_eos; j++)
            known |= config->eos[j] == id;
        if (!known)
            config->eos[config->n_eos++] = id;
    }
    return PGRAD_OK;
}

static pgrad_status find_family(const pgrad__gguf *gguf, const char *origin,
                                const pgrad__arch **out)
{
    char list[256];
    const char *name;
    size_t length;
    PGRAD__TRY(pgrad__gguf_string(gguf, "general.architecture", &name, &length));
    *out = pgrad__arch_find(name, length);
    if (*out == NULL)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: general.architecture: '%.*s' is not supported; supported: %s",
                           origin, (int)(length < 64 ? length : 64), name, pgrad__arch_list(list));
    if (!pgrad__gguf_has(gguf, "general.type"))
        return PGRAD_OK;
    PGRAD__TRY(pgrad__gguf_string(gguf, "general.type", &name, &length));
    if (length != 5 || memcmp(name, "model", 5) != 0)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: general.type: '%.*s' is not a model", origin,
                           (int)(length < 64 ? length : 64), name);
    return PGRAD_OK;
}

pgrad_status pgrad__config_read_gguf(pgrad_context *context, const pgrad__gguf *gguf,
                                     pgrad__config *out)
{
    char origin[PGRAD__PATH_MAX];
    const pgrad__arch *arch = NULL;
    pgrad__path_text(origin, pgrad__gguf_path(gguf));
    PGRAD__TRY(find_family(gguf, origin, &arch));
    pgrad__config config = arch->initial;
    config.arch = arch;
    PGRAD__TRY(read_sizes(context, &config, gguf, origin));
    PGRAD__TRY(read_reals(context, &config, gguf, origin));
    for (size_t i = 0; i < arch->n_flags; i++) {
        const pgrad__flag_key *key = &arch->flags[i];
        if (key->gguf_tensor != NULL)
            *pgrad__flag_field(&config, key) =
                pgrad__tensor_find(pgrad__gguf_tensors(gguf), key->gguf_tensor) != NULL;
    }
    config.tied_head = pgrad__tensor_find(pgrad__gguf_tensors(gguf), "output.weight") == NULL;
    PGRAD__TRY(pgrad__config_finish(&config, origin, 1));
    PGRAD__TRY(arch->check_gguf(&config, gguf));
    PGRAD__TRY(read_tokens(context, &config, gguf));
    *out = config;
    return PGRAD_OK;
}

/* ---- writing ---- */

void pgrad__config_append_real(pgrad__strbuf *out, double value)
{
    if (value == 0.0) {
        pgrad__strbuf_text(out, "0.0");
        return;
    }
    int exponent = (int)floor(log10(value));
    for (int digits = 1; digits <= 9; digits++) {
        int shift = digits - 1 - exponent;
        double scale = 1.0;
        for (int i = 0; i < (shift < 0 ? -shift : shift); i++)
            scale *= 10.0;
        double mantissa = nearbyint(shift < 0 ? value / scale : value * scale);
        double back = shift < 0 ? mantissa * scale : mantissa / scale;
        if ((float)back == (float)value || digits == 9) {
            if (shift <= 0 && shift > -15 && back < 1e15)
                pgrad__strbuf_format(out, "%lld.0", (long long)back);
            else
                pgrad__strbuf_format(out, "%llde%d", (long long)mantissa, -shift);
            return;
        }
    }
}

static void append_ends(pgrad__strbuf *out, const pgrad__config *config)
{
    if (config->bos >= 0)
        pgrad__strbuf_format(out, ",\n  \"bos_token_id\": %d", config->bos);
    if (config->n_eos == 1)
        pgrad__strbuf_format(out, ",\n  \"eos_token_id\": %d", config->eos[0]);
    for (uint32_t i = 0; i < config->n_eos && config->n_eos > 1; i++)
        pgrad__strbuf_format(out, "%s%d%s", i == 0 ? ",\n  \"eos_token_id\": [" : ", ",
                             config->eos[i], i + 1 == config->n_eos ? "]" : "");
}

pgrad_status pgrad__config_write(pgrad_context *context, const pgrad__config *config, char **text,
                                 size_t *length)
{
    const pgrad__arch *arch = config->arch;
    pgrad__config copy = *config; /* fields are reached by pointers */
    pgrad__strbuf out = {.context = context};
    pgrad__strbuf_format(&out, "{\n  \"architectures\": [\"%s\"],\n  \"model_type\": \"%s\"",
                         arch->class_name, arch->name);
    for (size_t i = 0; i < arch->n_sizes; i++)
        pgrad__strbuf_format(&out, ",\n  \"%s\": %u", arch->sizes[i].json,
                             *pgrad__size_field(&copy, &arch->sizes[i]));
    for (size_t i = 0; i < arch->n_reals; i++) {
        pgrad__strbuf_format(&out, ",\n  \"%s\": ", arch->reals[i].json);
        pgrad__config_append_real(&out, pgrad__real_get(config, &arch->reals[i]));
    }
    for (size_t i = 0; i < arch->n_flags; i++) {
        const pgrad__flag_key *key = &arch->flags[i];
        if (i > 0 && strcmp(key->json, arch->flags[i - 1].json) == 0)
            continue; /* one key for two fields */
        pgrad__strbuf_format(&out, ",\n  \"%s\": %s", key->json,
                             *pgrad__flag_field(&copy, key) ? "true" : "false");
    }
    pgrad__strbuf_format(&out, ",\n  \"%s\": \"%s\"", arch->activation_key,
                         pgrad__activation_name(config->activation));
    pgrad__config_rope_write(&out, config);
    append_ends(&out, config);
    pgrad__strbuf_text(&out, "\n}\n");
    if (out.status != PGRAD_OK) {
        pgrad__strbuf_free(&out);
        return out.status;
    }
    *text = out.data;
    *length = out.length;
    return PGRAD_OK;
}
