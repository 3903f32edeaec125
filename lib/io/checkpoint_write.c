/* The writing half of checkpoint_file.h. */
#include "io/checkpoint_file.h"

#include <string.h>

#include <policygrad/version.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "io/checkpoint_layout.h"
#include "io/little_endian.h"
#include "io/zstream.h"

/* Weights hardly shrink, and a look at the beginning of a chunk tells: it is packed when that saves
 * an eighth. */
enum { PROBE = 1 << 13 };

pgrad_status pgrad__checkpoint_writer_open(pgrad_context *context, const char *path,
                                           uint32_t n_parts, pgrad__checkpoint_writer *writer)
{
    pgrad__checkpoint_writer made = {.context = context, .file = {.descriptor = -1}};
    unsigned char header[HEADER_SIZE] = MAGIC;
    pgrad_status status;
    pgrad__put_u32(header + 8, PGRAD__CHECKPOINT_VERSION);
    PGRAD__GO(pgrad__alloc(context, n_parts, sizeof *made.parts, &made.parts));
    PGRAD__GO(pgrad__alloc(context, PGRAD__CHECKPOINT_CHUNK, 1, &made.chunk));
    PGRAD__GO(pgrad__alloc(context, PGRAD__CHECKPOINT_CHUNK, 1, &made.packed));
    PGRAD__GO(pgrad__deflater_create(context, &made.deflater));
    pgrad__writer_clean(context, path);
    PGRAD__GO(pgrad__writer_open(context, path, &made.file));
    PGRAD__GO(pgrad__writer_write(&made.file, header, sizeof header));
    *writer = made;
    return PGRAD_OK;
fail:
    pgrad__checkpoint_writer_close(&made);
    return status;
}

void pgrad__checkpoint_writer_close(pgrad__checkpoint_writer *writer)
{
    if (writer->context == NULL)
        return;
    pgrad__writer_abort(&writer->file);
    pgrad__zstream_free(writer->deflater);
    pgrad__free(writer->context, writer->packed);
    pgrad__free(writer->context, writer->chunk);
    pgrad__free(writer->context, writer->parts);
    memset(writer, 0, sizeof *writer);
}

pgrad_status pgrad__checkpoint_writer_begin(pgrad__checkpoint_writer *writer, uint32_t kind,
                                            const char *name)
{
    pgrad__checkpoint_part *part = &writer->parts[writer->n_parts++];
    const size_t length = strlen(name);
    if (length >= sizeof part->name)
        return pgrad__fail(PGRAD_E_INTERNAL, "a part's name of %zu bytes", length);
    *part = (pgrad__checkpoint_part){.kind = kind, .offset = writer->file.size};
    memcpy(part->name, name, length + 1);
    return PGRAD_OK;
}

static pgrad_status flush_chunk(pgrad__checkpoint_writer *writer)
{
    pgrad__checkpoint_part *part = &writer->parts[writer->n_parts - 1];
    const size_t size = writer->filled;
    unsigned char head[CHUNK_HEAD];
    const void *stored = writer->chunk;
    size_t n = 0;
    if (size <= PROBE ||
        pgrad__deflate(writer->deflater, writer->chunk, PROBE, writer->packed, PROBE / 8 * 7) != 0)
        n = pgrad__deflate(writer->deflater, writer->chunk, size, writer->packed, size / 8 * 7);
    if (n == 0)
        n = size;
    else
        stored = writer->packed;
    pgrad__put_u32(head, (uint32_t)size);
    pgrad__put_u32(head + 4, (uint32_t)n);
    pgrad__put_u32(head + 8, pgrad__crc32(pgrad__crc32(0, head, 8), stored, n));
    part->crc = pgrad__crc32(part->crc, head, sizeof head);
    part->stored += sizeof head + n;
    part->size += size;
    writer->filled = 0;
    PGRAD__TRY(pgrad__writer_write(&writer->file, head, sizeof head));
    PGRAD__TRY(pgrad__writer_write(&writer->file, stored, n));
    if (writer->pace != NULL)
        writer->pace(writer->pace_user);
    return PGRAD_OK;
}

pgrad_status pgrad__checkpoint_writer_put(pgrad__checkpoint_writer *writer, const void *data,
                                          size_t size)
{
    const unsigned char *from = data;
    while (size > 0) {
        const size_t room = PGRAD__CHECKPOINT_CHUNK - writer->filled;
        const size_t n = size < room ? size : room;
        memcpy(writer->chunk + writer->filled, from, n);
        writer->filled += n;
        from += n;
        size -= n;
        if (writer->filled == PGRAD__CHECKPOINT_CHUNK)
            PGRAD__TRY(flush_chunk(writer));
    }
    return PGRAD_OK;
}

pgrad_status pgrad__checkpoint_writer_end(pgrad__checkpoint_writer *writer)
{
    return writer->filled == 0 ? PGRAD_OK : flush_chunk(writer);
}

static pgrad_status write_table(pgrad__checkpoint_writer *writer, uint32_t *crc)
{
    *crc = 0;
    for (uint32_t i = 0; i < writer->n_parts; i++) {
        const pgrad__checkpoint_part *part = &writer->parts[i];
        unsigned char entry[TABLE_ENTRY + PGRAD__CHECKPOINT_NAME];
        const size_t length = strlen(part->name);
        pgrad__put_u32(entry, part->kind);
        pgrad__put_u32(entry + 4, (uint32_t)length);
        pgrad__put_u64(entry + 8, part->offset);
        pgrad__put_u64(entry + 16, part->stored);
        pgrad__put_u64(entry + 24, part->size);
        pgrad__put_u32(entry + 32, part->crc);
        memcpy(entry + TABLE_ENTRY, part->name, length);
        *crc = pgrad__crc32(*crc, entry, TABLE_ENTRY + length);
        PGRAD__TRY(pgrad__writer_write(&writer->file, entry, TABLE_ENTRY + length));
    }
    return PGRAD_OK;
}

pgrad_status pgrad__checkpoint_writer_finish(pgrad__checkpoint_writer *writer, uint32_t keep)
{
    unsigned char trailer[TRAILER_SIZE];
    const uint64_t table = writer->file.size;
    uint32_t crc;
    PGRAD__TRY(write_table(writer, &crc));
    pgrad__put_u64(trailer, table);
    pgrad__put_u32(trailer + 8, writer->n_parts);
    pgrad__put_u32(trailer + 12, crc);
    pgrad__put_u32(trailer + 16, pgrad_version());
    pgrad__put_u32(trailer + 20, pgrad__crc32(0, trailer, 20));
    memcpy(trailer + 24, END_MAGIC, 8);
    PGRAD__TRY(pgrad__writer_write(&writer->file, trailer, sizeof trailer));
    return pgrad__writer_place(&writer->file, keep);
}
