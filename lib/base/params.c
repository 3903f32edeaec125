/* The public calls over the tables. */
#include <policygrad.h>

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/ascii.h"
#include "base/fail.h"
#include "base/number.h"
#include "base/params_check.h"
#include "base/sink.h"

void pgrad_context_params_init(pgrad_context_params *params, size_t size)
{
    pgrad__params_init("context", params, size);
}

void pgrad_model_params_init(pgrad_model_params *params, size_t size)
{
    pgrad__params_init("model", params, size);
}

void pgrad_save_params_init(pgrad_save_params *params, size_t size)
{
    pgrad__params_init("save", params, size);
}

void pgrad_rollout_params_init(pgrad_rollout_params *params, size_t size)
{
    pgrad__params_init("rollout", params, size);
}

void pgrad_prompt_params_init(pgrad_prompt_params *params, size_t size)
{
    pgrad__params_init("prompt", params, size);
}

void pgrad_sequence_params_init(pgrad_sequence_params *params, size_t size)
{
    pgrad__params_init("sequence", params, size);
}

void pgrad_generate_params_init(pgrad_generate_params *params, size_t size)
{
    pgrad__params_init("generate", params, size);
}

void pgrad_sampler_params_init(pgrad_sampler_params *params, size_t size)
{
    pgrad__params_init("sampler", params, size);
}

void pgrad_advantage_params_init(pgrad_advantage_params *params, size_t size)
{
    pgrad__params_init("advantage", params, size);
}

void pgrad_objective_params_init(pgrad_objective_params *params, size_t size)
{
    pgrad__params_init("objective", params, size);
}

void pgrad_backward_params_init(pgrad_backward_params *params, size_t size)
{
    pgrad__params_init("backward", params, size);
}

void pgrad_optimizer_params_init(pgrad_optimizer_params *params, size_t size)
{
    pgrad__params_init("optimizer", params, size);
}

void pgrad_checkpoint_params_init(pgrad_checkpoint_params *params, size_t size)
{
    pgrad__params_init("checkpoint", params, size);
}

void pgrad_train_params_init(pgrad_train_params *params, size_t size)
{
    pgrad__params_init("train", params, size);
}

void pgrad_prompts_init(pgrad_prompts *prompts, size_t size)
{
    if (prompts == NULL || size < sizeof prompts->struct_size)
        return;
    memset(prompts, 0, size);
    prompts->struct_size = size;
}

size_t pgrad_struct_size(const char *params_name)
{
    const pgrad__params_table *table = pgrad__params_find(params_name);
    return table == NULL ? 0 : table->size;
}

/* What a field of this type holds can be written as text. */
static int has_text(const pgrad__field *field)
{
    return field->type != PGRAD__FIELD_POINTER && field->type != PGRAD__FIELD_RESERVED;
}

/* A choice by its name; -1 when there is none. */
static int64_t choice_named(const pgrad__field *field, const char *value)
{
    for (int64_t i = 0; field->choices != NULL && field->choices[i] != NULL; i++)
        if (strcmp(field->choices[i], value) == 0)
            return i;
    return -1;
}

/* Whole numbers are read as such: a double does not hold every uint64_t. */
static int parse_whole(const char *text, uint64_t *out)
{
    uint64_t value = 0;
    if (*text == '\0')
        return 0;
    for (; *text != '\0'; text++) {
        if (!pgrad__is_digit(*text) || __builtin_mul_overflow(value, 10u, &value) ||
            __builtin_add_overflow(value, (uint64_t)(*text - '0'), &value))
            return 0;
    }
    *out = value;
    return 1;
}

static int parse_field(const pgrad__field *field, const char *value, uint64_t *whole, double *real)
{
    int64_t choice = choice_named(field, value);
    if (field->type == PGRAD__FIELD_F64)
        return pgrad__parse_real(value, real);
    if (choice >= 0) {
        *whole = (uint64_t)choice;
        return 1;
    }
    return parse_whole(value, whole);
}

/* What may stand where `value` was found. */
static pgrad_status no_value(const pgrad__params_table *table, const pgrad__field *field,
                             const char *value)
{
    char choices[160] = "";
    pgrad__sink list = {.text = choices, .capacity = sizeof choices};
    for (size_t i = 0; field->choices != NULL && field->choices[i] != NULL; i++) {
        pgrad__sink_put(&list, i == 0 ? "one of " : ", ");
        pgrad__sink_put(&list, field->choices[i]);
    }
    return pgrad__fail(PGRAD_E_INVALID, "%s.%s: expected %s, found '%.64s'", table->name,
                       field->name,
                       list.length > 0                   ? choices
                       : field->type == PGRAD__FIELD_F64 ? "a number"
                                                         : "a whole number",
                       value);
}

enum { LONGEST_NAME = 64 };

/* Bytes put in, left out or changed that make one name of another. */
static size_t edit_distance(const char *from, const char *to)
{
    size_t row[LONGEST_NAME + 1];
    const size_t n = strlen(to);
    for (size_t j = 0; j <= n; j++)
        row[j] = j;
    for (size_t i = 0; from[i] != '\0'; i++) {
        size_t diagonal = row[0];
        row[0] = i + 1;
        for (size_t j = 0; j < n; j++) {
            const size_t changed = diagonal + (from[i] != to[j]);
            const size_t moved = 1 + (row[j] < row[j + 1] ? row[j] : row[j + 1]);
            diagonal = row[j + 1];
            row[j + 1] = changed < moved ? changed : moved;
        }
    }
    return row[n];
}

/* The field that was meant, at most two bytes off, and one where there are few; NULL: none. */
static const char *nearest_name(const pgrad__params_table *table, const char *asked)
{
    const size_t length = strnlen(asked, LONGEST_NAME + 1);
    size_t below = length < 4 ? 2 : 3;
    const char *found = NULL;
    for (size_t i = 0; i < table->n_fields && length <= LONGEST_NAME; i++) {
        const pgrad__field *field = &table->fields[i];
        const size_t distance = edit_distance(field->name, asked);
        if (has_text(field) && distance < below) {
            below = distance;
            found = field->name;
        }
    }
    return found;
}

static pgrad_status no_field(const pgrad__params_table *table, const char *asked)
{
    const char *meant = nearest_name(table, asked);
    return pgrad__fail(PGRAD_E_INVALID, "%s.%.64s: there is no field of this name%s%s%s",
                       table->name, asked, meant == NULL ? "" : "; did you mean '",
                       meant == NULL ? "" : meant, meant == NULL ? "" : "'?");
}

pgrad_status pgrad_params_set(const char *params_name, void *params, const char *field_name,
                              const char *value)
{
    const pgrad__params_table *table = NULL;
    uint64_t whole = 0;
    double real = 0.0;
    PGRAD__TRY(pgrad__options_find(params_name, &table));
    if (params == NULL || field_name == NULL || value == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "params_set: an argument is NULL");
    const pgrad__field *field = NULL;
    for (size_t i = 0; i < table->n_fields; i++)
        if (strcmp(table->fields[i].name, field_name) == 0)
            field = &table->fields[i];
    if (field == NULL)
        return no_field(table, field_name);
    if (!has_text(field))
        return pgrad__fail(PGRAD_E_INVALID, "%s.%s: %s", table->name, field->name,
                           field->type == PGRAD__FIELD_POINTER ? "a pointer cannot be set by text"
                                                               : "a reserved field stays 0");
    if (!parse_field(field, value, &whole, &real))
        return no_value(table, field, value);
    return pgrad__params_store(table, field, whole, real, params);
}

static void put_field(pgrad__sink *out, const pgrad__field *field, const void *params)
{
    char number[40];
    uint64_t whole;
    double real;
    pgrad__params_load(field, params, &whole, &real);
    pgrad__sink_put(out, "\"");
    pgrad__sink_put(out, field->name);
    pgrad__sink_put(out, "\":");
    if (field->type == PGRAD__FIELD_F64) {
        (void)pgrad__format_real(number, real);
        pgrad__sink_put(out, isfinite(real) ? "" : "\"");
        pgrad__sink_put(out, number);
        pgrad__sink_put(out, isfinite(real) ? "" : "\"");
    } else if (field->type == PGRAD__FIELD_CHOICE) {
        pgrad__sink_put(out, "\"");
        pgrad__sink_put(out, field->choices[whole]);
        pgrad__sink_put(out, "\"");
    } else {
        (void)snprintf(number, sizeof number, "%llu", (unsigned long long)whole);
        pgrad__sink_put(out, number);
    }
}

static void put_fields(pgrad__sink *out, const pgrad__params_table *table, const void *params)
{
    const char *before = "";
    pgrad__sink_put(out, "{");
    for (size_t i = 0; i < table->n_fields; i++)
        if (has_text(&table->fields[i])) {
            pgrad__sink_put(out, before);
            put_field(out, &table->fields[i], params);
            before = ",";
        }
    pgrad__sink_put(out, "}");
}

/* The size first: nothing is written when it is too small. */
pgrad_status pgrad_params_describe(const char *params_name, const void *params, char *json,
                                   size_t capacity, size_t *length)
{
    const pgrad__params_table *table = NULL;
    _Alignas(16) unsigned char full[PGRAD__PARAMS_MAX];
    pgrad__sink size = {NULL, 0, 0}, out = {json, capacity, 0};
    PGRAD__TRY(pgrad__options_find(params_name, &table));
    if (length == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "params_describe: length is NULL");
    PGRAD__TRY(pgrad__params_read(params_name, params, full));
    put_fields(&size, table, full);
    *length = size.length;
    if (json == NULL || capacity <= size.length)
        return pgrad__fail(PGRAD_E_BUFFER, "params_describe: %zu bytes are needed, capacity is %zu",
                           size.length + 1, capacity);
    put_fields(&out, table, full);
    return PGRAD_OK;
}
