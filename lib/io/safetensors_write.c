#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "base/half.h"
#include "base/strbuf.h"
#include "io/json.h"
#include "io/little_endian.h"
#include "io/safetensors.h"

enum { ROWS_BYTES = 1 << 20 };

typedef struct sorted {
    const pgrad__safetensors_entry *entry;
    size_t index;
} sorted;

static int by_name(const void *a, const void *b)
{
    return strcmp(((const sorted *)a)->entry->name, ((const sorted *)b)->entry->name);
}

/* Elements of a row (the last dimension) and the number of rows. */
static pgrad_status shape_of(const pgrad__safetensors_entry *entry, size_t *row, size_t *rows)
{
    *row = entry->n_dims == 0 ? 1 : (size_t)entry->dims[entry->n_dims - 1];
    *rows = 1;
    size_t all;
    for (uint32_t i = 0; i + 1 < entry->n_dims; i++)
        if (!pgrad__mul(*rows, (size_t)entry->dims[i], rows))
            return pgrad__fail(PGRAD_E_LIMIT, "tensor '%.64s' is too large to write", entry->name);
    if (!pgrad__mul(*rows, *row, &all) || !pgrad__mul(all, sizeof(float), &all))
        return pgrad__fail(PGRAD_E_LIMIT, "tensor '%.64s' is too large to write", entry->name);
    return PGRAD_OK;
}

static pgrad_status make_header(pgrad__strbuf *header, const sorted *order, size_t n, int as_bf16)
{
    const size_t width = as_bf16 ? 2 : 4;
    uint64_t at = 0;
    pgrad__strbuf_text(header, "{\"__metadata__\":{\"format\":\"pt\"}");
    for (size_t i = 0; i < n; i++) {
        const pgrad__safetensors_entry *entry = order[i].entry;
        size_t row, rows;
        PGRAD__TRY(shape_of(entry, &row, &rows));
        pgrad__strbuf_text(header, ",");
        pgrad__json_quote(header, entry->name, strlen(entry->name));
        pgrad__strbuf_format(header, ":{\"dtype\":\"%s\",\"shape\":[", as_bf16 ? "BF16" : "F32");
        for (uint32_t d = 0; d < entry->n_dims; d++)
            pgrad__strbuf_format(header, "%s%llu", d > 0 ? "," : "",
                                 (unsigned long long)entry->dims[d]);
        uint64_t end = at + (uint64_t)row * rows * width;
        pgrad__strbuf_format(header, "],\"data_offsets\":[%llu,%llu]}", (unsigned long long)at,
                             (unsigned long long)end);
        at = end;
    }
    pgrad__strbuf_text(header, "}");
    while (header->status == PGRAD_OK && header->length % 8 != 0)
        pgrad__strbuf_text(header, " ");
    return header->status;
}

static void narrow(const float *from, size_t n, uint16_t *to)
{
    for (size_t i = 0; i < n; i++)
        to[i] = pgrad__f32_to_bf16(from[i]);
}

static pgrad_status write_tensor(pgrad__writer *writer, const sorted *item, int as_bf16,
                                 pgrad__safetensors_rows_fn rows_fn, void *user)
{
    size_t row, rows;
    PGRAD__TRY(shape_of(item->entry, &row, &rows));
    if (row == 0 || rows == 0)
        return PGRAD_OK;
    size_t at_once = ROWS_BYTES / sizeof(float) / row;
    at_once = at_once < 1 ? 1 : at_once > rows ? rows : at_once;
    float *values = NULL;
    uint16_t *halves = NULL;
    pgrad_status status = PGRAD_OK;
    PGRAD__GO(pgrad__alloc(writer->context, at_once * row, sizeof *values, &values));
    if (as_bf16)
        PGRAD__GO(pgrad__alloc(writer->context, at_once * row, sizeof *halves, &halves));
    for (size_t first = 0; first < rows; first += at_once) {
        size_t count = rows - first < at_once ? rows - first : at_once;
        PGRAD__GO(rows_fn(user, item->index, first, count, values));
        if (as_bf16) {
            const size_t wide = pgrad__bf16_overflow(values, count * row);
            if (wide < count * row) {
                status = pgrad__fail(
                    PGRAD_E_NUMERIC, "tensor '%.120s': row %zu, column %zu is %g, beyond bf16",
                    item->entry->name, first + wide / row, wide % row, (double)values[wide]);
                goto fail;
            }
            narrow(values, count * row, halves);
            PGRAD__GO(pgrad__writer_write(writer, halves, count * row * sizeof *halves));
        } else {
            PGRAD__GO(pgrad__writer_write(writer, values, count * row * sizeof *values));
        }
    }
fail:
    pgrad__free(writer->context, halves);
    pgrad__free(writer->context, values);
    return status;
}

pgrad_status pgrad__safetensors_write(pgrad__writer *writer,
                                      const pgrad__safetensors_entry *entries, size_t n,
                                      int as_bf16, pgrad__safetensors_rows_fn rows, void *user)
{
    pgrad__strbuf header = {.context = writer->context};
    sorted *order = NULL;
    unsigned char prefix[8];
    pgrad_status status = PGRAD_OK;
    PGRAD__GO(pgrad__alloc(writer->context, n, sizeof *order, &order));
    for (size_t i = 0; i < n; i++)
        order[i] = (sorted){&entries[i], i};
    if (n > 0)
        qsort(order, n, sizeof *order, by_name);
    PGRAD__GO(make_header(&header, order, n, as_bf16));
    pgrad__put_u64(prefix, header.length);
    PGRAD__GO(pgrad__writer_write(writer, prefix, sizeof prefix));
    PGRAD__GO(pgrad__writer_write(writer, header.data, header.length));
    for (size_t i = 0; i < n; i++)
        PGRAD__GO(write_tensor(writer, &order[i], as_bf16, rows, user));
fail:
    pgrad__strbuf_free(&header);
    pgrad__free(writer->context, order);
    return status;
}
