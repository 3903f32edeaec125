#include "io/zstream.h"

#include <limits.h>
#include <zlib.h>

#include "base/alloc.h"
#include "base/fail.h"

struct pgrad__zstream {
    pgrad_context *context;
    z_stream z;
    int packs;
};

/* zlib's own state is the context's memory too. */
static voidpf take(voidpf user, uInt count, uInt size)
{
    void *block = NULL;
    return pgrad__calloc(user, count, size, &block) == PGRAD_OK ? block : NULL;
}

static void give(voidpf user, voidpf block)
{
    pgrad__free(user, block);
}

uint32_t pgrad__crc32(uint32_t crc, const void *data, size_t size)
{
    return size == 0 ? crc : (uint32_t)crc32_z(crc, data, size);
}

static pgrad_status create(pgrad_context *context, int packs, struct pgrad__zstream **out)
{
    struct pgrad__zstream *stream;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *stream, &stream));
    stream->context = context;
    stream->packs = packs;
    stream->z.zalloc = take;
    stream->z.zfree = give;
    stream->z.opaque = context;
    const int result = packs ? deflateInit(&stream->z, Z_BEST_SPEED) : inflateInit(&stream->z);
    if (result != Z_OK) {
        pgrad__free(context, stream);
        return pgrad__fail(result == Z_MEM_ERROR ? PGRAD_E_NOMEM : PGRAD_E_INTERNAL,
                           "zlib does not start (%d)", result);
    }
    *out = stream;
    return PGRAD_OK;
}

pgrad_status pgrad__deflater_create(pgrad_context *context, struct pgrad__zstream **out)
{
    return create(context, 1, out);
}

pgrad_status pgrad__inflater_create(pgrad_context *context, struct pgrad__zstream **out)
{
    return create(context, 0, out);
}

void pgrad__zstream_free(struct pgrad__zstream *stream)
{
    if (stream == NULL)
        return;
    (void)(stream->packs ? deflateEnd(&stream->z) : inflateEnd(&stream->z));
    pgrad__free(stream->context, stream);
}

/* zlib counts in 32 bits, and reads what it is told through a pointer that may be to const. */
static int set(z_stream *z, const void *in, size_t in_size, void *out, size_t out_size)
{
    if (in_size > UINT_MAX || out_size > UINT_MAX)
        return 0;
    z->next_in = (z_const Bytef *)in;
    z->avail_in = (uInt)in_size;
    z->next_out = out;
    z->avail_out = (uInt)out_size;
    return 1;
}

size_t pgrad__deflate(struct pgrad__zstream *stream, const void *data, size_t size, void *out,
                      size_t capacity)
{
    if (deflateReset(&stream->z) != Z_OK || !set(&stream->z, data, size, out, capacity) ||
        deflate(&stream->z, Z_FINISH) != Z_STREAM_END)
        return 0;
    return capacity - stream->z.avail_out;
}

int pgrad__inflate(struct pgrad__zstream *stream, const void *packed, size_t packed_size, void *out,
                   size_t size)
{
    return inflateReset(&stream->z) == Z_OK && set(&stream->z, packed, packed_size, out, size) &&
           inflate(&stream->z, Z_FINISH) == Z_STREAM_END && stream->z.avail_in == 0 &&
           stream->z.avail_out == 0;
}
