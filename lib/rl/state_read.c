/* The reading half of state.h. Every count and size is compared with the bytes that are left. */
#include "rl/state_values.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/number.h"
#include "base/real.h"
#include "io/little_endian.h"

typedef struct reading {
    pgrad__state *state;
    pgrad__checkpoint_stream stream;
    char name[PGRAD__STATE_NAME];
    unsigned char *scratch;
} reading;

static pgrad_status malformed(const reading *r, const char *what)
{
    char path[PGRAD__PATH_MAX];
    return pgrad__fail(PGRAD_E_FORMAT, "%s: part '%s': '%.200s': %s",
                       pgrad__path_text(path, r->stream.file->file.path), r->stream.part->name,
                       r->name, what);
}

static pgrad_status differs(const reading *r, const char *file, const char *handle)
{
    char path[PGRAD__PATH_MAX];
    return pgrad__fail(PGRAD_E_MISMATCH,
                       "%s: part '%s': '%.200s': the checkpoint has %s, here is %s",
                       pgrad__path_text(path, r->stream.file->file.path), r->stream.part->name,
                       r->name, file, handle);
}

static pgrad_status read_name(reading *r)
{
    unsigned char length[2];
    r->name[0] = '\0';
    PGRAD__TRY(pgrad__checkpoint_stream_read(&r->stream, length, sizeof length));
    const size_t n = length[0] | (size_t)length[1] << 8;
    if (n >= sizeof r->name)
        return malformed(r, "a name is too long");
    PGRAD__TRY(pgrad__checkpoint_stream_read(&r->stream, r->name, n));
    r->name[n] = '\0';
    return strlen(r->name) == n ? PGRAD_OK : malformed(r, "a name has a NUL in it");
}

/* ---- records ---- */

static const char *number_text(char text[40], int is_real, uint64_t bits)
{
    if (is_real)
        (void)pgrad__format_real(text, pgrad__real_of_bits(bits));
    else
        (void)snprintf(text, 40, "%llu", (unsigned long long)bits);
    return text;
}

static pgrad_status check_record(const reading *r, const pgrad__record *record)
{
    static const uint64_t MOST = (uint64_t)1 << 53;
    char theirs[40], ours[40];
    if ((record->flags & PGRAD__MATCH) && record->restored != record->bits)
        return differs(r, number_text(theirs, record->is_real, record->restored),
                       number_text(ours, record->is_real, record->bits));
    if (record->is_real && !(record->flags & PGRAD__NOT_FINITE) &&
        !isfinite(pgrad__real_of_bits(record->restored)))
        return malformed(r, "it is not finite");
    if ((record->flags & PGRAD__COUNTER) && record->restored > MOST)
        return malformed(r, "a count beyond 2^53");
    if (record->width == sizeof(uint32_t) && record->restored > UINT32_MAX)
        return malformed(r, "a number beyond 32 bits");
    return PGRAD_OK;
}

static pgrad_status read_record(reading *r)
{
    unsigned char rest[PGRAD__RECORD_BYTES];
    PGRAD__TRY(read_name(r));
    PGRAD__TRY(pgrad__checkpoint_stream_read(&r->stream, rest, sizeof rest));
    pgrad__record *record = pgrad__state_record(r->state, r->name);
    if (record == NULL)
        return pgrad__fail(PGRAD_E_UNSUPPORTED,
                           "part '%s' has '%.200s', which this library does not know",
                           r->stream.part->name, r->name);
    if (record->found || rest[0] != record->is_real)
        return malformed(r, record->found ? "it stands there twice" : "another kind of number");
    record->found = 1;
    record->restored = pgrad__get_u64(rest + 1);
    return check_record(r, record);
}

/* ---- arrays ---- */

static const char *array_text(char text[96], pgrad__canonical element, const uint64_t dims[2])
{
    static const char *const NAMES[] = {"f32", "bf16", "q8_0", "bytes"};
    (void)snprintf(text, 96, "%s [%llu, %llu]",
                   element > PGRAD__CANONICAL_BYTE ? "?" : NAMES[element],
                   (unsigned long long)dims[0], (unsigned long long)dims[1]);
    return text;
}

static pgrad_status read_array_head(reading *r, pgrad__array *array)
{
    unsigned char rest[PGRAD__ARRAY_BYTES];
    char theirs[96], ours[96];
    const size_t before = strlen(array->prefix);
    PGRAD__TRY(read_name(r));
    PGRAD__TRY(pgrad__checkpoint_stream_read(&r->stream, rest, sizeof rest));
    if (strncmp(r->name, array->prefix, before) != 0 || strcmp(r->name + before, array->name) != 0)
        return differs(r, "this array", array->name);
    const uint64_t dims[2] = {pgrad__get_u64(rest + 1), pgrad__get_u64(rest + 9)};
    const int same = dims[0] == array->dims[0] && dims[1] == array->dims[1];
    const int fits = array->variable && dims[0] <= array->most && dims[1] == array->dims[1];
    if (rest[0] != array->element || (!same && !fits))
        return differs(r, array_text(theirs, (pgrad__canonical)rest[0], dims),
                       array_text(ours, array->element, array->dims));
    array->n_staged = array->variable ? (size_t)dims[0] : array->n_in;
    return PGRAD_OK;
}

static pgrad_status read_array(reading *r, pgrad__array *array)
{
    const pgrad__rows rows = pgrad__array_rows(r->state, array, array->n_staged);
    const size_t row_bytes = pgrad__canonical_bytes(array->element, array->n_staged);
    const size_t bytes = array->variable ? row_bytes : array->bytes;
    (void)snprintf(r->name, sizeof r->name, "%s%s", array->prefix, array->name);
    if (array->variable && row_bytes > r->stream.left)
        return malformed(r, "more values than the part has");
    PGRAD__TRY(pgrad__calloc(r->state->context, bytes, 1, &array->staged));
    for (size_t first = 0; first < rows.n_rows; first += rows.at_once) {
        size_t n = rows.n_rows - first < rows.at_once ? rows.n_rows - first : rows.at_once;
        size_t n_in = rows.n_in;
        unsigned char *values = r->scratch;
        if (array->n_out == 0) {
            n_in = array->n_staged - first * rows.n_in;
            n_in = n_in < rows.n_in ? n_in : rows.n_in;
            values = (unsigned char *)array->staged +
                     pgrad__canonical_bytes(array->element, first * rows.n_in);
        }
        PGRAD__TRY(pgrad__checkpoint_stream_read(&r->stream, values,
                                                 n * pgrad__canonical_bytes(array->element, n_in)));
        const char *refused = pgrad__values_refused(array, values, n, n_in);
        if (refused != NULL)
            return malformed(r, refused);
        if (array->n_out > 0)
            pgrad__canonical_put(r->state->kernels, array->element, n_in, array->staged, first, n,
                                 values);
    }
    return PGRAD_OK;
}

/* ---- the part ---- */

static pgrad_status read_part(reading *r)
{
    pgrad__state *state = r->state;
    unsigned char counts[8];
    PGRAD__TRY(pgrad__checkpoint_stream_read(&r->stream, counts, sizeof counts));
    const uint32_t n_records = pgrad__get_u32(counts), n_arrays = pgrad__get_u32(counts + 4);
    for (uint32_t i = 0; i < n_records; i++)
        PGRAD__TRY(read_record(r));
    for (size_t i = 0; i < state->n_records; i++) {
        (void)snprintf(r->name, sizeof r->name, "%s", state->records[i].name);
        if (!state->records[i].found)
            return malformed(r, "missing");
    }
    (void)snprintf(r->name, sizeof r->name, "arrays");
    if (n_arrays != state->n_arrays) {
        char theirs[40], ours[40];
        return differs(r, number_text(theirs, 0, n_arrays), number_text(ours, 0, state->n_arrays));
    }
    for (size_t i = 0; i < state->n_arrays; i++)
        PGRAD__TRY(read_array_head(r, &state->arrays[i]));
    for (size_t i = 0; i < state->n_arrays; i++)
        PGRAD__TRY(read_array(r, &state->arrays[i]));
    return r->stream.left == 0 ? PGRAD_OK : malformed(r, "there is more than its arrays");
}

pgrad_status pgrad__state_stage(pgrad__state *state, pgrad__checkpoint_file *file,
                                const pgrad__checkpoint_part *part)
{
    reading r = {.state = state};
    PGRAD__TRY(pgrad__alloc(state->context, pgrad__state_scratch(state), 1, &r.scratch));
    pgrad__checkpoint_stream_begin(&r.stream, file, part);
    pgrad_status status = read_part(&r);
    pgrad__free(state->context, r.scratch);
    return status;
}

void pgrad__state_commit(pgrad__state *state)
{
    for (size_t i = 0; i < state->n_records; i++) {
        const pgrad__record *record = &state->records[i];
        const uint32_t narrow = (uint32_t)record->restored;
        if (record->width == sizeof narrow)
            memcpy(record->target, &narrow, sizeof narrow);
        else if (record->target != NULL)
            memcpy(record->target, &record->restored, sizeof record->restored);
    }
    for (size_t i = 0; i < state->n_arrays; i++) {
        pgrad__array *array = &state->arrays[i];
        if (array->keeps)
            continue;
        pgrad__free(state->context, array->data);
        for (int k = 0; k < 2; k++)
            if (array->slots[k] != NULL)
                memcpy(array->slots[k], &array->staged, sizeof array->staged);
        array->staged = NULL;
    }
}
