/* The writing half of state.h. A part: u32 records, u32 arrays; each record a name behind a u16 of
 * its length, a byte that is 1 for a real, and the 8 bytes of the number; each array a name
 * likewise, a byte for its element and two u64 dimensions; then the arrays' values one after
 * another. */
#include "rl/state_values.h"

#include <string.h>

#include "base/context.h"
#include "base/fail.h"
#include "io/little_endian.h"

pgrad__rows pgrad__array_rows(const pgrad__state *state, const pgrad__array *array, size_t n_in)
{
    if (array->n_out > 0)
        return (pgrad__rows){state->kernels->wide, n_in, array->n_out};
    const size_t piece = n_in < PGRAD__FLAT_PIECE ? n_in : PGRAD__FLAT_PIECE;
    return (pgrad__rows){1, piece, piece == 0 ? 0 : (n_in + piece - 1) / piece};
}

/* ---- values ---- */

static int finite_f32(const unsigned char *values, size_t n, int signed_too)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, values + 4 * i, sizeof bits);
        bad |= (bits & 0x7f800000u) == 0x7f800000u;
        bad |= !signed_too && bits > 0x80000000u; /* -0 is 0 */
    }
    return !bad;
}

static int finite_bf16(const unsigned char *values, size_t n, int signed_too)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++) {
        uint16_t bits;
        memcpy(&bits, values + 2 * i, sizeof bits);
        bad |= (bits & 0x7f80u) == 0x7f80u;
        bad |= !signed_too && bits > 0x8000u;
    }
    return !bad;
}

static int finite_scales(const unsigned char *row, size_t n_in)
{
    for (size_t k = 0; k < n_in; k += PGRAD__Q8_BLOCK) {
        uint16_t scale;
        memcpy(&scale, row + k / PGRAD__Q8_BLOCK * (PGRAD__Q8_BLOCK + sizeof scale), sizeof scale);
        if ((scale & 0x7c00u) == 0x7c00u)
            return 0;
    }
    return 1;
}

static int good_exponents(const unsigned char *values, size_t n)
{
    uint32_t bad = 0;
    for (size_t i = 0; i < n; i++)
        bad |= values[i] > 253;
    return !bad;
}

const char *pgrad__values_refused(const pgrad__array *array, const void *rows, size_t n,
                                  size_t n_in)
{
    static const char NOT_FINITE[] = "a value that is not finite",
                      NOT_GOOD[] = "a value that is negative or not finite";
    const unsigned char *values = rows;
    const int any_sign = array->check != PGRAD__NOT_NEGATIVE;
    if (array->check == PGRAD__ANY_VALUES)
        return NULL;
    if (array->check == PGRAD__EXPONENTS)
        return good_exponents(values, n * n_in) ? NULL : "an exponent that no number has";
    int good = 1;
    for (size_t i = 0; array->element == PGRAD__CANONICAL_Q8_0 && i < n; i++)
        good &= finite_scales(values + i * pgrad__canonical_bytes(array->element, n_in), n_in);
    if (array->element == PGRAD__CANONICAL_F32)
        good = finite_f32(values, n * n_in, any_sign);
    if (array->element == PGRAD__CANONICAL_BF16)
        good = finite_bf16(values, n * n_in, any_sign);
    return good ? NULL : any_sign ? NOT_FINITE : NOT_GOOD;
}

/* ---- the part ---- */

size_t pgrad__state_scratch(const pgrad__state *state)
{
    size_t most = 0;
    for (size_t i = 0; i < state->n_arrays; i++) {
        const pgrad__array *array = &state->arrays[i];
        const pgrad__rows rows = pgrad__array_rows(state, array, array->n_in);
        const size_t bytes = rows.at_once * pgrad__canonical_bytes(array->element, rows.n_in);
        most = array->n_out > 0 && bytes > most ? bytes : most;
    }
    return most;
}

static pgrad_status put_name(pgrad__checkpoint_writer *writer, const char *prefix, const char *name)
{
    unsigned char length[2];
    const size_t before = strlen(prefix), n = before + strlen(name);
    if (n >= PGRAD__STATE_NAME)
        return pgrad__fail(PGRAD_E_LIMIT, "'%.64s': a name of %zu bytes is too long", name, n);
    length[0] = (unsigned char)n;
    length[1] = (unsigned char)(n >> 8);
    PGRAD__TRY(pgrad__checkpoint_writer_put(writer, length, sizeof length));
    PGRAD__TRY(pgrad__checkpoint_writer_put(writer, prefix, before));
    return pgrad__checkpoint_writer_put(writer, name, n - before);
}

static pgrad_status put_head(const pgrad__state *state, pgrad__checkpoint_writer *writer)
{
    unsigned char counts[8], rest[PGRAD__ARRAY_BYTES];
    pgrad__put_u32(counts, (uint32_t)state->n_records);
    pgrad__put_u32(counts + 4, (uint32_t)state->n_arrays);
    PGRAD__TRY(pgrad__checkpoint_writer_put(writer, counts, sizeof counts));
    for (size_t i = 0; i < state->n_records; i++) {
        const pgrad__record *record = &state->records[i];
        rest[0] = (unsigned char)record->is_real;
        pgrad__put_u64(rest + 1, record->bits);
        PGRAD__TRY(put_name(writer, "", record->name));
        PGRAD__TRY(pgrad__checkpoint_writer_put(writer, rest, PGRAD__RECORD_BYTES));
    }
    for (size_t i = 0; i < state->n_arrays; i++) {
        const pgrad__array *array = &state->arrays[i];
        rest[0] = (unsigned char)array->element;
        pgrad__put_u64(rest + 1, array->dims[0]);
        pgrad__put_u64(rest + 9, array->dims[1]);
        PGRAD__TRY(put_name(writer, array->prefix, array->name));
        PGRAD__TRY(pgrad__checkpoint_writer_put(writer, rest, PGRAD__ARRAY_BYTES));
    }
    return PGRAD_OK;
}

static pgrad_status put_array(const pgrad__state *state, const pgrad__array *array,
                              pgrad__checkpoint_writer *writer, unsigned char *scratch)
{
    const pgrad__rows rows = pgrad__array_rows(state, array, array->n_in);
    for (size_t first = 0; first < rows.n_rows; first += rows.at_once) {
        size_t n = rows.n_rows - first < rows.at_once ? rows.n_rows - first : rows.at_once;
        size_t n_in = rows.n_in;
        const void *values = scratch;
        if (array->n_out > 0) {
            pgrad__canonical_get(state->kernels, array->element, n_in, array->data, first, n,
                                 scratch);
        } else {
            n_in = array->n_in - first * rows.n_in;
            n_in = n_in < rows.n_in ? n_in : rows.n_in;
            values = (const unsigned char *)array->data +
                     pgrad__canonical_bytes(array->element, first * rows.n_in);
        }
        const char *refused = pgrad__values_refused(array, values, n, n_in);
        if (refused != NULL)
            return pgrad__fail(PGRAD_E_NUMERIC, "'%s%.200s' has %s: not written", array->prefix,
                               array->name, refused);
        PGRAD__TRY(pgrad__checkpoint_writer_put(writer, values,
                                                n * pgrad__canonical_bytes(array->element, n_in)));
    }
    return PGRAD_OK;
}

pgrad_status pgrad__state_write(const pgrad__state *state, uint32_t kind, const char *name,
                                pgrad__checkpoint_writer *writer, unsigned char *scratch, int tell)
{
    PGRAD__TRY(pgrad__checkpoint_writer_begin(writer, kind, name));
    PGRAD__TRY(put_head(state, writer));
    for (size_t i = 0; i < state->n_arrays; i++) {
        PGRAD__TRY(put_array(state, &state->arrays[i], writer, scratch));
        if (tell)
            PGRAD__TRY(pgrad__progress(state->context, "save", i + 1, state->n_arrays));
    }
    return pgrad__checkpoint_writer_end(writer);
}
