/* Reads size-prefixed option structs by their field tables. The tables are in params_tables.c, one
 * per public struct; the same table serves validation, setting by text, JSON and documentation. */
#ifndef PGRAD_BASE_PARAMS_CHECK_H
#define PGRAD_BASE_PARAMS_CHECK_H

#include <policygrad/types.h>

typedef enum pgrad__field_type {
    PGRAD__FIELD_U32,
    PGRAD__FIELD_U64,
    PGRAD__FIELD_F64,
    PGRAD__FIELD_SIZE,
    PGRAD__FIELD_POINTER,
    PGRAD__FIELD_FLAG,    /* uint32_t, 0 or 1 */
    PGRAD__FIELD_CHOICE,  /* uint32_t, one of `choices` */
    PGRAD__FIELD_RESERVED /* must be 0 */
} pgrad__field_type;

/* Bounds: value >= min (or > min with open_min), value <= max (or <). NaN is refused always. */
typedef struct pgrad__field {
    const char *name;
    pgrad__field_type type;
    size_t offset;
    double initial; /* the default */
    double min, max;
    int open_min, open_max;
    const char *const *choices; /* names of a CHOICE by value, NULL-terminated */
    const char *help;
} pgrad__field;

typedef struct pgrad__params_table {
    const char *name; /* "sampler" */
    size_t size;
    const pgrad__field *fields;
    size_t n_fields;
} pgrad__params_table;

/* Looks a struct up by its name ("sampler"); NULL for an unknown one. */
const pgrad__params_table *pgrad__params_find(const char *name);
/* The same for those with fields: E_INVALID for an unknown one. */
pgrad_status pgrad__options_find(const char *name, const pgrad__params_table **out);

/* Fills `out` (of the table's size) from the caller's struct (NULL: all defaults) and checks every
 * field. E_INVALID names struct, field, range and value. */
pgrad_status pgrad__params_read(const char *name, const void *params, void *out);

/* No option struct is larger. */
#define PGRAD__PARAMS_MAX 512

/* Reads one field; writes one after checking it (E_INVALID, E_UNSUPPORTED for a struct that ends
 * before it). Whole numbers go through `whole`, doubles through `real`. */
void pgrad__params_load(const pgrad__field *field, const void *params, uint64_t *whole,
                        double *real);
pgrad_status pgrad__params_store(const pgrad__params_table *table, const pgrad__field *field,
                                 uint64_t whole, double real, void *params);

/* Writes size and defaults, no more than `size` bytes. */
void pgrad__params_init(const char *name, void *params, size_t size);

/* Copies an out struct (info, report) of `full` bytes to the caller's, at most its own struct_size;
 * E_INVALID when that is 0 or smaller than a size_t. */
pgrad_status pgrad__struct_write(const char *name, const void *from, size_t full, void *to);

#endif
