/* Rotary frequencies and their scalings: read from config.json and GGUF, computed, written. */
#include "model/arch.h"

#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "base/real.h"

#define TWO_PI 6.283185307179586
#define MAX_FACTOR 1e6

/* ---- frequencies ---- */

/* llama3: 1 for wavelengths the original context holds high_factor times, 0 for those it holds
 * fewer than low_factor times, between them linear in that number. */
static double kept(const pgrad__rope_scaling *scaling, double frequency)
{
    double turns = (double)scaling->original_context * frequency / TWO_PI;
    double s = (turns - scaling->low_factor) / (scaling->high_factor - scaling->low_factor);
    return s < 0.0 ? 0.0 : s > 1.0 ? 1.0 : s;
}

static double scaled(const pgrad__rope_scaling *scaling, double frequency)
{
    if (scaling->type == PGRAD__ROPE_DEFAULT)
        return frequency;
    if (scaling->type == PGRAD__ROPE_LINEAR)
        return frequency / scaling->factor;
    double s = kept(scaling, frequency);
    return (1.0 - s) * frequency / scaling->factor + s * frequency;
}

static double plain_frequency(const pgrad__config *config, size_t j)
{
    return pgrad__pow(config->rope_theta, -2.0 * (double)j / (double)config->head_dim);
}

void pgrad__rope_frequencies(const pgrad__config *config, double *out)
{
    for (size_t j = 0; j < config->head_dim / 2; j++)
        out[j] = scaled(&config->rope_scaling, plain_frequency(config, j));
}

/* ---- config.json ---- */

/* Parameters by the kind of layer: another family's. */
static pgrad_status refuse_nested_rope(const pgrad__json *rope, const char *origin,
                                       const char *name)
{
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *value;
    while (pgrad__json_next(rope, &iterator, &key, &length, &value))
        if (pgrad__json_type(value) == PGRAD__JSON_OBJECT)
            return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: %s.%.64s: rope by layers is not supported",
                               origin, name, key);
    return PGRAD_OK;
}

/* name: that of the object, "" for the root. */
static pgrad_status refuse_partial_rope(const pgrad__json *object, const char *origin,
                                        const char *name)
{
    static const char KEY[] = "partial_rotary_factor";
    double part;
    PGRAD__TRY(pgrad__json_optional_real(object, origin, KEY, 0.0, 1.0, 1.0, &part));
    if (part == 1.0)
        return PGRAD_OK;
    (void)pgrad__json_wrong(NULL, KEY, "1, as a part is not supported",
                            pgrad__json_get(object, KEY));
    return pgrad__fail_in(PGRAD_E_UNSUPPORTED, "%s: %s%s", origin, name,
                          name[0] == '\0' ? "" : ".");
}

/* Readers of a scaling's keys; their messages begin with the key. */

static pgrad_status require_real(const pgrad__json *rope, const char *key, double min, double *out)
{
    if (pgrad__json_get(rope, key) == NULL)
        return pgrad__json_wrong(NULL, key, "a number", NULL);
    return pgrad__json_optional_real(rope, NULL, key, min, MAX_FACTOR, 0.0, out);
}

static pgrad_status read_linear(pgrad__config *config, const pgrad__json *rope)
{
    return require_real(rope, "factor", 1.0, &config->rope_scaling.factor);
}

static const char ORIGINAL_CONTEXT[] = "original_max_position_embeddings";

static pgrad_status read_llama3(pgrad__config *config, const pgrad__json *rope)
{
    pgrad__rope_scaling *scaling = &config->rope_scaling;
    PGRAD__TRY(require_real(rope, "factor", 1.0, &scaling->factor));
    PGRAD__TRY(require_real(rope, "low_freq_factor", 1e-6, &scaling->low_factor));
    PGRAD__TRY(require_real(rope, "high_freq_factor", 1e-6, &scaling->high_factor));
    if (scaling->high_factor <= scaling->low_factor)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "high_freq_factor: expected more than low_freq_factor = %g, found %g",
                           scaling->low_factor, scaling->high_factor);
    if (scaling->original_context > 0) /* from beside the scaling */
        return PGRAD_OK;
    return pgrad__json_optional_u32(rope, NULL, ORIGINAL_CONTEXT, 1, PGRAD__MAX_CONTEXT,
                                    config->n_context, &scaling->original_context);
}

static const struct {
    const char *name;
    pgrad_status (*read)(pgrad__config *config, const pgrad__json *rope); /* NULL: no more keys */
} TYPES[] = {
    [PGRAD__ROPE_DEFAULT] = {"default", NULL},
    [PGRAD__ROPE_LINEAR] = {"linear", read_linear},
    [PGRAD__ROPE_LLAMA3] = {"llama3", read_llama3},
};

static pgrad_status read_type(pgrad__config *config, const pgrad__json *rope)
{
    const char *key = pgrad__json_get(rope, "rope_type") != NULL ? "rope_type" : "type";
    const pgrad__json *type = pgrad__json_get(rope, key);
    size_t length = 0;
    const char *text = type == NULL ? "" : pgrad__json_string(type, &length);
    if (type == NULL)
        return PGRAD_OK;
    if (text == NULL)
        return pgrad__json_wrong(NULL, key, "a string", type);
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        if (strlen(TYPES[i].name) != length || memcmp(TYPES[i].name, text, length) != 0)
            continue;
        config->rope_scaling.type = (pgrad__rope_type)i;
        return TYPES[i].read == NULL ? PGRAD_OK : TYPES[i].read(config, rope);
    }
    return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: '%.*s' is not supported", key,
                       (int)(length < 64 ? length : 64), text);
}

/* One of rope_scaling (old spelling) and rope_parameters (new). */
static pgrad_status read_rope(pgrad__config *config, const pgrad__json *rope, const char *origin,
                              const char *name)
{
    if (pgrad__json_type(rope) != PGRAD__JSON_OBJECT)
        return pgrad__json_wrong(origin, name, "an object", rope);
    PGRAD__TRY(refuse_nested_rope(rope, origin, name));
    PGRAD__TRY(refuse_partial_rope(rope, origin, name));
    pgrad_status status = pgrad__json_optional_real(rope, NULL, "rope_theta", 1.0, 1e15,
                                                    config->rope_theta, &config->rope_theta);
    if (status == PGRAD_OK)
        status = read_type(config, rope);
    return status == PGRAD_OK ? PGRAD_OK : pgrad__fail_in(status, "%s: %s.", origin, name);
}

pgrad_status pgrad__config_rope_json(pgrad__config *config, const pgrad__json *json,
                                     const char *origin)
{
    static const char *const names[] = {"rope_scaling", "rope_parameters"};
    PGRAD__TRY(refuse_partial_rope(json, origin, ""));
    PGRAD__TRY(pgrad__json_optional_u32(json, origin, ORIGINAL_CONTEXT, 1, PGRAD__MAX_CONTEXT, 0,
                                        &config->rope_scaling.original_context));
    for (size_t i = 0; i < 2; i++) {
        const pgrad__json *rope = pgrad__json_get(json, names[i]);
        const int empty =
            pgrad__json_type(rope) == PGRAD__JSON_OBJECT && pgrad__json_count(rope) == 0;
        if (rope != NULL && !empty)
            return read_rope(config, rope, origin, names[i]);
    }
    return PGRAD_OK;
}

/* ---- GGUF ---- */

/* The factor under one of its keys: 0 and absent are none. */
static pgrad_status read_factor(pgrad__config *config, const pgrad__gguf *gguf, const char *origin,
                                const char *name)
{
    char key[PGRAD__KEY_MAX];
    float factor = 0.0f;
    if (!pgrad__gguf_has(gguf, pgrad__arch_key(key, config->arch, name)))
        return PGRAD_OK;
    PGRAD__TRY(pgrad__gguf_f32(gguf, key, &factor));
    if (factor == 0.0f || factor == 1.0f)
        return PGRAD_OK;
    if (!(factor >= 1.0f && (double)factor <= MAX_FACTOR))
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected 1 to %g, found %g", origin, key,
                           MAX_FACTOR, (double)factor);
    config->rope_scaling = (pgrad__rope_scaling){PGRAD__ROPE_LINEAR, (double)factor, 0.0, 0.0, 0};
    return PGRAD_OK;
}

static pgrad_status read_linear_gguf(pgrad__config *config, const pgrad__gguf *gguf,
                                     const char *origin)
{
    char key[PGRAD__KEY_MAX];
    const char *type = "linear"; /* when no key says it */
    size_t length = 6;
    if (pgrad__gguf_has(gguf, pgrad__arch_key(key, config->arch, "rope.scaling.type")))
        PGRAD__TRY(pgrad__gguf_string(gguf, key, &type, &length));
    if (length == 4 && memcmp(type, "none", 4) == 0)
        return PGRAD_OK;
    if (length != 6 || memcmp(type, "linear", 6) != 0)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: %s: '%.*s' is not supported", origin, key,
                           (int)(length < 64 ? length : 64), type);
    PGRAD__TRY(read_factor(config, gguf, origin, "rope.scale_linear"));
    return read_factor(config, gguf, origin, "rope.scaling.factor");
}

/* Finds Llama 3's scaling in the divisors a converter made of it: 1 for short wavelengths, the
 * factor for long ones, and between them what the original context follows from. Its releases all
 * have 1 and 4 as low and high factor. 0 when the divisors are something else. */
static int fit_llama3(const pgrad__config *config, const float *divisor,
                      pgrad__rope_scaling *scaling)
{
    const size_t half = config->head_dim / 2;
    const double factor = (double)divisor[half - 1];
    *scaling = (pgrad__rope_scaling){PGRAD__ROPE_LLAMA3, factor, 1.0, 4.0, 8192};
    if (!(factor >= 1.0 && factor <= MAX_FACTOR))
        return 0;
    for (size_t j = 0; j < half; j++) {
        const double d = (double)divisor[j];
        if (!(d > 1.0 && d < factor))
            continue;
        const double s = (factor / d - 1.0) / (factor - 1.0); /* 1 / d = (1 - s) / factor + s */
        const double context = (1.0 + 3.0 * s) * TWO_PI / plain_frequency(config, j);
        if (!(context >= 1.0 && context <= (double)PGRAD__MAX_CONTEXT))
            return 0;
        scaling->original_context = (uint32_t)(context + 0.5);
        break;
    }
    for (size_t j = 0; j < half; j++) {
        const double f = plain_frequency(config, j);
        if (!(fabs((double)divisor[j] * scaled(scaling, f) - f) <= 1e-5 * f))
            return 0;
    }
    return 1;
}

static pgrad_status read_divisors(pgrad__config *config, const pgrad__gguf *gguf,
                                  const pgrad__tensor_view *view, const char *origin)
{
    float divisor[PGRAD__MAX_HEAD_DIM / 2];
    pgrad__rope_scaling scaling;
    if (view->n_dims != 1 || view->dims[0] != config->head_dim / 2 ||
        view->type != PGRAD__ELEMENT_F32)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "%s: rope_freqs.weight: expected F32 of %u elements, found %s of %llu",
                           origin, config->head_dim / 2, view->type_name,
                           (unsigned long long)view->n_elements);
    PGRAD__TRY(
        pgrad__tensor_read(pgrad__gguf_tensors(gguf), view, 0, config->head_dim / 2, divisor));
    if (config->rope_scaling.type != PGRAD__ROPE_DEFAULT || !fit_llama3(config, divisor, &scaling))
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s: rope_freqs.weight: a scaling other than that of Llama 3 is not "
                           "supported",
                           origin);
    if (scaling.factor > 1.0)
        config->rope_scaling = scaling;
    return PGRAD_OK;
}

pgrad_status pgrad__config_rope_gguf(pgrad__config *config, const pgrad__gguf *gguf)
{
    static const char *const lengths[] = {"rope.dimension_count", "attention.value_length"};
    char origin[PGRAD__PATH_MAX], key[PGRAD__KEY_MAX];
    pgrad__path_text(origin, pgrad__gguf_path(gguf));
    for (size_t i = 0; i < 2; i++) {
        uint32_t n = config->head_dim;
        if (pgrad__gguf_has(gguf, pgrad__arch_key(key, config->arch, lengths[i])))
            PGRAD__TRY(pgrad__gguf_u32(gguf, key, &n));
        if (n != config->head_dim)
            return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: %s: expected the head's %u, found %u",
                               origin, key, config->head_dim, n);
    }
    PGRAD__TRY(read_linear_gguf(config, gguf, origin));
    const pgrad__tensor_view *view =
        pgrad__tensor_find(pgrad__gguf_tensors(gguf), "rope_freqs.weight");
    return view == NULL ? PGRAD_OK : read_divisors(config, gguf, view, origin);
}

/* ---- writing ---- */

void pgrad__config_rope_write(pgrad__strbuf *out, const pgrad__config *config)
{
    const pgrad__rope_scaling *scaling = &config->rope_scaling;
    if (scaling->type == PGRAD__ROPE_DEFAULT)
        return;
    pgrad__strbuf_format(out, ",\n  \"rope_scaling\": {\n    \"rope_type\": \"%s\"",
                         TYPES[scaling->type].name);
    pgrad__strbuf_text(out, ",\n    \"factor\": ");
    pgrad__config_append_real(out, scaling->factor);
    if (scaling->type == PGRAD__ROPE_LLAMA3) {
        pgrad__strbuf_text(out, ",\n    \"low_freq_factor\": ");
        pgrad__config_append_real(out, scaling->low_factor);
        pgrad__strbuf_text(out, ",\n    \"high_freq_factor\": ");
        pgrad__config_append_real(out, scaling->high_factor);
        pgrad__strbuf_format(out, ",\n    \"original_max_position_embeddings\": %u",
                             scaling->original_context);
    }
    pgrad__strbuf_text(out, "\n  }");
}
