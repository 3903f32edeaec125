/* The reading half of checkpoint_file.h. */
#include "io/checkpoint_file.h"

#include <string.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/fail.h"
#include "base/utf8.h"
#include "io/checkpoint_layout.h"
#include "io/little_endian.h"
#include "io/zstream.h"

/* ---- a part ---- */

void pgrad__checkpoint_stream_begin(pgrad__checkpoint_stream *stream, pgrad__checkpoint_file *file,
                                    const pgrad__checkpoint_part *part)
{
    *stream = (pgrad__checkpoint_stream){
        .file = file, .part = part, .at = part->offset, .left = part->size};
}

static pgrad_status damaged(const pgrad__checkpoint_stream *stream, const char *what)
{
    char path[PGRAD__PATH_MAX];
    return pgrad__fail(PGRAD_E_FORMAT, "%s: part '%s', chunk at offset %llu: %s",
                       pgrad__path_text(path, stream->file->file.path), stream->part->name,
                       (unsigned long long)stream->at, what);
}

/* Reads the next chunk. Its size is what the part's says: all are full but the last. */
static pgrad_status next_chunk(pgrad__checkpoint_stream *stream)
{
    pgrad__checkpoint_file *file = stream->file;
    const uint64_t end = stream->part->offset + stream->part->stored;
    const size_t expected =
        stream->left < PGRAD__CHECKPOINT_CHUNK ? (size_t)stream->left : PGRAD__CHECKPOINT_CHUNK;
    unsigned char head[CHUNK_HEAD];
    if (end - stream->at < CHUNK_HEAD)
        return damaged(stream, "the part ends too early");
    PGRAD__TRY(pgrad__file_read(&file->file, stream->at, head, sizeof head));
    const size_t size = pgrad__get_u32(head), stored = pgrad__get_u32(head + 4);
    if (size != expected || stored == 0 || stored > size || stored > end - stream->at - CHUNK_HEAD)
        return damaged(stream, "its sizes are wrong");
    unsigned char *to = stored == size ? file->chunk : file->packed;
    PGRAD__TRY(pgrad__file_read(&file->file, stream->at + CHUNK_HEAD, to, stored));
    if (pgrad__crc32(pgrad__crc32(0, head, 8), to, stored) != pgrad__get_u32(head + 8))
        return damaged(stream, "the checksum is wrong");
    if (stored != size && !pgrad__inflate(file->inflater, to, stored, file->chunk, size))
        return damaged(stream, "it cannot be unpacked");
    stream->crc = pgrad__crc32(stream->crc, head, sizeof head);
    stream->at += CHUNK_HEAD + stored;
    stream->used = 0;
    stream->unpacked = size;
    return PGRAD_OK;
}

pgrad_status pgrad__checkpoint_stream_read(pgrad__checkpoint_stream *stream, void *out, size_t size)
{
    unsigned char *to = out;
    if (size > stream->left)
        return damaged(stream, "the part ends too early");
    while (size > 0) {
        if (stream->used == stream->unpacked)
            PGRAD__TRY(next_chunk(stream));
        const size_t there = stream->unpacked - stream->used, n = size < there ? size : there;
        if (to != NULL) {
            memcpy(to, stream->file->chunk + stream->used, n);
            to += n;
        }
        stream->used += n;
        stream->left -= n;
        size -= n;
    }
    return PGRAD_OK;
}

static pgrad_status verify_part(pgrad__checkpoint_file *file, const pgrad__checkpoint_part *part)
{
    pgrad__checkpoint_stream stream;
    pgrad__checkpoint_stream_begin(&stream, file, part);
    while (stream.left > 0) {
        const size_t n =
            stream.left < PGRAD__CHECKPOINT_CHUNK ? (size_t)stream.left : PGRAD__CHECKPOINT_CHUNK;
        PGRAD__TRY(pgrad__checkpoint_stream_read(&stream, NULL, n));
        PGRAD__TRY(pgrad__check_cancel(file->context));
    }
    if (stream.at != part->offset + part->stored)
        return damaged(&stream, "there is more than the part's bytes");
    return stream.crc == part->crc ? PGRAD_OK : damaged(&stream, "the part's checksum is wrong");
}

/* ---- the file ---- */

static pgrad_status bad(const pgrad__checkpoint_file *file, const char *what)
{
    char path[PGRAD__PATH_MAX];
    return pgrad__fail(PGRAD_E_FORMAT, "%s: %s", pgrad__path_text(path, file->file.path), what);
}

static pgrad_status read_header(pgrad__checkpoint_file *file)
{
    unsigned char header[HEADER_SIZE];
    char path[PGRAD__PATH_MAX];
    if (file->file.size < HEADER_SIZE + TRAILER_SIZE)
        return bad(file, "too short for a checkpoint");
    PGRAD__TRY(pgrad__file_read(&file->file, 0, header, sizeof header));
    if (memcmp(header, MAGIC, 8) != 0)
        return bad(file, "not a checkpoint: it does not begin with " MAGIC);
    const uint32_t version = pgrad__get_u32(header + 8);
    if (version == 0 || version > PGRAD__CHECKPOINT_VERSION)
        return pgrad__fail(
            PGRAD_E_UNSUPPORTED, "%s: checkpoint version %u, this library reads up to %d",
            pgrad__path_text(path, file->file.path), version, PGRAD__CHECKPOINT_VERSION);
    return pgrad__get_u32(header + 12) == 0 ? PGRAD_OK : bad(file, "a reserved field is not 0");
}

/* One entry of the table; *at moves behind it. Parts stand in the order of the table, without gap.
 */
static pgrad_status read_entry(pgrad__checkpoint_file *file, const unsigned char *table,
                               size_t size, size_t *at, uint64_t *offset)
{
    pgrad__checkpoint_part *part = &file->parts[file->n_parts];
    const unsigned char *entry = table + *at;
    if (size - *at < TABLE_ENTRY)
        return bad(file, "the table of parts is cut short");
    const size_t length = pgrad__get_u32(entry + 4);
    if (length >= sizeof part->name || length > size - *at - TABLE_ENTRY)
        return bad(file, "a name in the table of parts is too long");
    *part = (pgrad__checkpoint_part){.kind = pgrad__get_u32(entry),
                                     .offset = pgrad__get_u64(entry + 8),
                                     .stored = pgrad__get_u64(entry + 16),
                                     .size = pgrad__get_u64(entry + 24),
                                     .crc = pgrad__get_u32(entry + 32)};
    memcpy(part->name, entry + TABLE_ENTRY, length);
    if (!pgrad__utf8_is_name(part->name, length))
        return bad(file, "a name in the table of parts is empty, not UTF-8, or has control bytes");
    for (uint32_t i = 0; i < file->n_parts; i++)
        if (strcmp(file->parts[i].name, part->name) == 0)
            return bad(file, "two parts have the same name");
    if (part->offset != *offset || part->stored > file->file.size - *offset)
        return bad(file, "the parts do not follow one another");
    *offset += part->stored;
    *at += TABLE_ENTRY + length;
    file->n_parts++;
    return PGRAD_OK;
}

static pgrad_status read_entries(pgrad__checkpoint_file *file, const unsigned char *table,
                                 size_t size, uint64_t end, uint32_t n_parts)
{
    uint64_t offset = HEADER_SIZE;
    size_t at = 0;
    PGRAD__TRY(pgrad__alloc(file->context, n_parts, sizeof *file->parts, &file->parts));
    for (uint32_t i = 0; i < n_parts; i++)
        PGRAD__TRY(read_entry(file, table, size, &at, &offset));
    if (at != size || offset != end)
        return bad(file, "the table of parts has other sizes than the file");
    return PGRAD_OK;
}

static pgrad_status read_table(pgrad__checkpoint_file *file)
{
    unsigned char trailer[TRAILER_SIZE], *table = NULL;
    const uint64_t end = file->file.size - TRAILER_SIZE;
    PGRAD__TRY(pgrad__file_read(&file->file, end, trailer, sizeof trailer));
    if (memcmp(trailer + 24, END_MAGIC, 8) != 0)
        return bad(file, "cut short: it does not end with " END_MAGIC);
    if (pgrad__crc32(0, trailer, 20) != pgrad__get_u32(trailer + 20))
        return bad(file, "the checksum of the last 32 bytes is wrong");
    const uint64_t offset = pgrad__get_u64(trailer);
    const uint32_t n_parts = pgrad__get_u32(trailer + 8);
    file->library_version = pgrad__get_u32(trailer + 16);
    if (n_parts > PGRAD__CHECKPOINT_PARTS || offset < HEADER_SIZE || offset > end ||
        end - offset > PGRAD__CHECKPOINT_PARTS * (TABLE_ENTRY + PGRAD__CHECKPOINT_NAME))
        return bad(file, "the place of the table of parts is wrong");
    const size_t size = (size_t)(end - offset);
    PGRAD__TRY(pgrad__alloc(file->context, size, 1, &table));
    pgrad_status status = pgrad__file_read(&file->file, offset, table, size);
    if (status == PGRAD_OK && pgrad__crc32(0, table, size) != pgrad__get_u32(trailer + 12))
        status = bad(file, "the checksum of the table of parts is wrong");
    if (status == PGRAD_OK)
        status = read_entries(file, table, size, offset, n_parts);
    pgrad__free(file->context, table);
    return status;
}

pgrad_status pgrad__checkpoint_file_open(pgrad_context *context, const char *path,
                                         pgrad__checkpoint_file *file)
{
    pgrad__checkpoint_file opened = {.context = context, .file = {.descriptor = -1}};
    pgrad_status status;
    PGRAD__GO(pgrad__file_open(context, path, &opened.file));
    PGRAD__GO(read_header(&opened));
    PGRAD__GO(read_table(&opened));
    PGRAD__GO(pgrad__alloc(context, PGRAD__CHECKPOINT_CHUNK, 1, &opened.chunk));
    PGRAD__GO(pgrad__alloc(context, PGRAD__CHECKPOINT_CHUNK, 1, &opened.packed));
    PGRAD__GO(pgrad__inflater_create(context, &opened.inflater));
    for (uint32_t i = 0; i < opened.n_parts; i++)
        PGRAD__GO(verify_part(&opened, &opened.parts[i]));
    *file = opened;
    return PGRAD_OK;
fail:
    pgrad__checkpoint_file_close(&opened);
    return status;
}

void pgrad__checkpoint_file_close(pgrad__checkpoint_file *file)
{
    if (file->context == NULL)
        return;
    pgrad__zstream_free(file->inflater);
    pgrad__free(file->context, file->packed);
    pgrad__free(file->context, file->chunk);
    pgrad__free(file->context, file->parts);
    pgrad__file_close(&file->file);
    memset(file, 0, sizeof *file);
}
