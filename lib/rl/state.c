#include "rl/state.h"

#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "base/real.h"

void pgrad__state_init(pgrad__state *state, pgrad_context *context)
{
    *state = (pgrad__state){.context = context, .kernels = pgrad__kernels_of(context)};
}

void pgrad__state_free(pgrad__state *state)
{
    if (state->context == NULL)
        return;
    for (size_t i = 0; i < state->n_arrays; i++)
        pgrad__free(state->context, state->arrays[i].staged);
    for (size_t i = 0; i < state->n_owned; i++)
        pgrad__free(state->context, state->owned[i]);
    pgrad__free(state->context, state->owned);
    pgrad__free(state->context, state->arrays);
    pgrad__free(state->context, state->records);
    memset(state, 0, sizeof *state);
}

pgrad__record *pgrad__state_record(const pgrad__state *state, const char *name)
{
    for (size_t i = 0; i < state->n_records; i++)
        if (strcmp(state->records[i].name, name) == 0)
            return &state->records[i];
    return NULL;
}

const pgrad__array *pgrad__state_find(const pgrad__state *state, const char *name)
{
    for (size_t i = 0; i < state->n_arrays; i++)
        if (strcmp(state->arrays[i].name, name) == 0)
            return &state->arrays[i];
    return NULL;
}

/* ---- building ---- */

static pgrad_status add_record(pgrad__state *state, const pgrad__record *record)
{
    if (pgrad__state_record(state, record->name) != NULL)
        return pgrad__fail(PGRAD_E_INTERNAL, "two numbers are called '%s'", record->name);
    PGRAD__TRY(pgrad__reserve(state->context, &state->records, &state->record_capacity,
                              state->n_records + 1, sizeof *record));
    state->records[state->n_records++] = *record;
    return PGRAD_OK;
}

pgrad_status pgrad__state_u64(pgrad__state *state, const char *name, uint64_t *at, uint32_t flags)
{
    return add_record(
        state, &(pgrad__record){
                   .name = name, .flags = flags, .bits = *at, .target = at, .width = sizeof *at});
}

pgrad_status pgrad__state_u32(pgrad__state *state, const char *name, uint32_t *at, uint32_t flags)
{
    return add_record(
        state, &(pgrad__record){
                   .name = name, .flags = flags, .bits = *at, .target = at, .width = sizeof *at});
}

pgrad_status pgrad__state_f64(pgrad__state *state, const char *name, double *at, uint32_t flags)
{
    return add_record(state, &(pgrad__record){.name = name,
                                              .is_real = 1,
                                              .flags = flags,
                                              .bits = pgrad__bits_of_real(*at),
                                              .target = at,
                                              .width = sizeof *at});
}

pgrad_status pgrad__state_match(pgrad__state *state, const char *name, uint64_t value)
{
    return add_record(state, &(pgrad__record){.name = name, .flags = PGRAD__MATCH, .bits = value});
}

pgrad_status pgrad__state_match_real(pgrad__state *state, const char *name, double value)
{
    return add_record(state, &(pgrad__record){.name = name,
                                              .is_real = 1,
                                              .flags = PGRAD__MATCH | PGRAD__NOT_FINITE,
                                              .bits = pgrad__bits_of_real(value)});
}

pgrad_status pgrad__state_params(pgrad__state *state, const char *params_name, void *params,
                                 const char *but)
{
    const pgrad__params_table *table = pgrad__params_find(params_name);
    for (size_t i = 0; i < table->n_fields; i++) {
        const pgrad__field *field = &table->fields[i];
        uint64_t whole = 0;
        double real = 0.0;
        if (field->type == PGRAD__FIELD_POINTER || field->type == PGRAD__FIELD_RESERVED)
            continue;
        pgrad__params_load(field, params, &whole, &real);
        if (but != NULL && strcmp(field->name, but) == 0)
            PGRAD__TRY(pgrad__state_f64(state, field->name,
                                        (double *)(void *)((char *)params + field->offset), 0));
        else if (field->type == PGRAD__FIELD_F64)
            PGRAD__TRY(pgrad__state_match_real(state, field->name, real));
        else
            PGRAD__TRY(pgrad__state_match(state, field->name, whole));
    }
    return PGRAD_OK;
}

pgrad_status pgrad__state_array(pgrad__state *state, const pgrad__array *array)
{
    PGRAD__TRY(pgrad__reserve(state->context, &state->arrays, &state->array_capacity,
                              state->n_arrays + 1, sizeof *array));
    state->arrays[state->n_arrays++] = *array;
    return PGRAD_OK;
}

pgrad_status pgrad__state_own(pgrad__state *state, size_t count, size_t size, void *out)
{
    void *block;
    PGRAD__TRY(pgrad__reserve(state->context, &state->owned, &state->owned_capacity,
                              state->n_owned + 1, sizeof *state->owned));
    PGRAD__TRY(pgrad__calloc(state->context, count, size, &block));
    state->owned[state->n_owned++] = block;
    memcpy(out, &block, sizeof block);
    return PGRAD_OK;
}

/* ---- a copy of it ---- */

enum { ALIGNMENT = 64, PIECE = 1 << 22 };

static size_t aligned(size_t bytes)
{
    return (bytes + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
}

size_t pgrad__state_copy_bytes(const pgrad__state *state)
{
    size_t bytes = 0; /* all of it is in memory once already: no overflow */
    for (size_t i = 0; i < state->n_arrays; i++)
        bytes += aligned(state->arrays[i].bytes);
    return bytes;
}

typedef struct copy_job {
    unsigned char *to;
    const unsigned char *from;
    size_t bytes;
} copy_job;

static void copy_piece(void *argument, size_t task, uint32_t worker)
{
    const copy_job *job = argument;
    const size_t first = task * PIECE, left = job->bytes - first;
    (void)worker;
    memcpy(job->to + first, job->from + first, left < PIECE ? left : PIECE);
}

void pgrad__state_copy(pgrad__state *state, unsigned char *block)
{
    for (size_t i = 0; i < state->n_arrays; i++) {
        pgrad__array *array = &state->arrays[i];
        copy_job job = {block, array->data, array->bytes};
        pgrad__parallel(state->context, (array->bytes + PIECE - 1) / PIECE, copy_piece, &job);
        array->data = block;
        block += aligned(array->bytes);
    }
}
