#include "base/params_check.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/fail.h"
#include "base/number.h"
#include "base/os.h"
#include "base/params_tables.h"

enum { MAX_STRUCT_SIZE = 1 << 20 };

const pgrad__params_table *pgrad__params_find(const char *name)
{
    for (size_t i = 0; name != NULL && i < pgrad__n_params_tables; i++)
        if (strcmp(pgrad__params_tables[i].name, name) == 0)
            return &pgrad__params_tables[i];
    return NULL;
}

pgrad_status pgrad__options_find(const char *name, const pgrad__params_table **out)
{
    const pgrad__params_table *table = pgrad__params_find(name);
    if (table == NULL || table->fields == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "no option struct is called '%.64s'",
                           name == NULL ? "(NULL)" : name);
    *out = table;
    return PGRAD_OK;
}

void pgrad__params_load(const pgrad__field *field, const void *params, uint64_t *whole,
                        double *real)
{
    const unsigned char *at = (const unsigned char *)params + field->offset;
    uint32_t narrow;
    *whole = 0;
    *real = 0.0;
    switch (field->type) {
    case PGRAD__FIELD_F64:
        memcpy(real, at, sizeof *real);
        break;
    case PGRAD__FIELD_U64:
    case PGRAD__FIELD_SIZE:
        memcpy(whole, at, sizeof *whole);
        break;
    case PGRAD__FIELD_POINTER:
        break;
    default:
        memcpy(&narrow, at, sizeof narrow);
        *whole = narrow;
    }
}

static void write_value(const pgrad__field *field, uint64_t whole, double real, void *params)
{
    unsigned char *at = (unsigned char *)params + field->offset;
    uint32_t narrow = (uint32_t)whole;
    switch (field->type) {
    case PGRAD__FIELD_F64:
        memcpy(at, &real, sizeof real);
        break;
    case PGRAD__FIELD_U64:
    case PGRAD__FIELD_SIZE:
        memcpy(at, &whole, sizeof whole);
        break;
    case PGRAD__FIELD_POINTER:
        memset(at, 0, sizeof(void *));
        break;
    default:
        memcpy(at, &narrow, sizeof narrow);
    }
}

static pgrad_status out_of_range(const pgrad__params_table *table, const pgrad__field *field,
                                 const char *found)
{
    char low[32], high[32];
    if (field->type == PGRAD__FIELD_RESERVED)
        return pgrad__fail(PGRAD_E_INVALID, "%s.%s: expected 0, found %s", table->name, field->name,
                           found);
    if (field->type == PGRAD__FIELD_CHOICE || field->type == PGRAD__FIELD_FLAG)
        return pgrad__fail(PGRAD_E_INVALID, "%s.%s: expected 0 to %g, found %s", table->name,
                           field->name, field->max, found);
    (void)pgrad__format_real(low, field->min);
    if (field->type != PGRAD__FIELD_F64 && field->max >= 0x1p64)
        return pgrad__fail(PGRAD_E_INVALID, "%s.%s: expected at least %s, found %s", table->name,
                           field->name, low, found);
    (void)pgrad__format_real(high, field->max);
    return pgrad__fail(PGRAD_E_INVALID, "%s.%s: expected a number in %c%s, %s%c, found %s",
                       table->name, field->name, field->open_min ? '(' : '[', low, high,
                       field->open_max ? ')' : ']', found);
}

/* The bounds of wide integers are compared as such: 2^64 - 1 is no double. */
static pgrad_status judge_value(const pgrad__params_table *table, const pgrad__field *field,
                                uint64_t whole, double real)
{
    char found[32];
    if (field->type == PGRAD__FIELD_POINTER)
        return PGRAD_OK;
    if (field->type == PGRAD__FIELD_F64) {
        int low = field->open_min ? real > field->min : real >= field->min;
        int high = field->open_max ? real < field->max : real <= field->max;
        if (low && high)
            return PGRAD_OK;
        (void)pgrad__format_real(found, real);
        return out_of_range(table, field, found);
    }
    if (whole >= (uint64_t)field->min && (field->max >= 0x1p64 || whole <= (uint64_t)field->max))
        return PGRAD_OK;
    (void)snprintf(found, sizeof found, "%llu", (unsigned long long)whole);
    return out_of_range(table, field, found);
}

/* Conversions of bounds and defaults may raise exception flags, which are the host's. */
static pgrad_status check_value(const pgrad__params_table *table, const pgrad__field *field,
                                uint64_t whole, double real)
{
    const uint64_t state = pgrad__os_float_begin();
    pgrad_status status = judge_value(table, field, whole, real);
    pgrad__os_float_end(state);
    return status;
}

pgrad_status pgrad__params_store(const pgrad__params_table *table, const pgrad__field *field,
                                 uint64_t whole, double real, void *params)
{
    PGRAD__TRY(check_value(table, field, whole, real));
    size_t struct_size;
    memcpy(&struct_size, params, sizeof struct_size);
    size_t width = field->type == PGRAD__FIELD_F64 || field->type == PGRAD__FIELD_U64 ||
                           field->type == PGRAD__FIELD_SIZE
                       ? 8
                       : 4;
    if (struct_size < field->offset + width)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "%s.%s: the caller's struct of %zu bytes ends before it", table->name,
                           field->name, struct_size);
    write_value(field, whole, real, params);
    return PGRAD_OK;
}

static void fill_defaults(const pgrad__params_table *table, void *params)
{
    const uint64_t state = pgrad__os_float_begin();
    memset(params, 0, table->size);
    for (size_t i = 0; i < table->n_fields; i++) {
        const pgrad__field *field = &table->fields[i];
        uint64_t whole = field->type == PGRAD__FIELD_F64 ? 0 : (uint64_t)field->initial;
        write_value(field, whole, field->initial, params);
    }
    pgrad__os_float_end(state);
    memcpy(params, &table->size, sizeof table->size);
}

void pgrad__params_init(const char *name, void *params, size_t size)
{
    _Alignas(16) unsigned char full[PGRAD__PARAMS_MAX];
    const pgrad__params_table *table = pgrad__params_find(name);
    if (params == NULL || table == NULL || size < sizeof size)
        return;
    fill_defaults(table, full);
    memset(params, 0, size);
    memcpy(params, full, size < table->size ? size : table->size);
    memcpy(params, &size, sizeof size);
}

pgrad_status pgrad__params_read(const char *name, const void *params, void *out)
{
    _Alignas(16) unsigned char full[PGRAD__PARAMS_MAX];
    const pgrad__params_table *table = pgrad__params_find(name);
    if (table == NULL)
        return pgrad__fail(PGRAD_E_INTERNAL, "no option struct is called '%s'", name);
    fill_defaults(table, full);
    if (params != NULL) {
        size_t size;
        const unsigned char *bytes = params;
        memcpy(&size, params, sizeof size);
        if (size < sizeof size || size > MAX_STRUCT_SIZE)
            return pgrad__fail(
                PGRAD_E_INVALID,
                "%s.struct_size: expected %zu (call pgrad_%s_params_init), found %zu", name,
                table->size, name, size);
        for (size_t i = table->size; i < size; i++)
            if (bytes[i] != 0)
                return pgrad__fail(
                    PGRAD_E_UNSUPPORTED,
                    "%s: the caller's struct has %zu bytes, this library knows %zu, and "
                    "byte %zu is not zero: a newer option",
                    name, size, table->size, i);
        memcpy(full, params, size < table->size ? size : table->size);
        memcpy(full, &table->size, sizeof table->size);
    }
    for (size_t i = 0; i < table->n_fields; i++) {
        uint64_t whole;
        double real;
        pgrad__params_load(&table->fields[i], full, &whole, &real);
        PGRAD__TRY(check_value(table, &table->fields[i], whole, real));
    }
    memcpy(out, full, table->size);
    return PGRAD_OK;
}

pgrad_status pgrad__struct_write(const char *name, const void *from, size_t full, void *to)
{
    size_t size;
    memcpy(&size, to, sizeof size);
    if (size < sizeof size || size > MAX_STRUCT_SIZE)
        return pgrad__fail(PGRAD_E_INVALID,
                           "%s.struct_size: expected %zu (set it before the call), found %zu", name,
                           full, size);
    memcpy((unsigned char *)to + sizeof size, (const unsigned char *)from + sizeof size,
           (size < full ? size : full) - sizeof size);
    return PGRAD_OK;
}
