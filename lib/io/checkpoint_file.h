/* The container of a checkpoint: named parts, each a stream of bytes, cut into chunks with
 * checksums (docs/formats.md). Not what is in the parts.
 *
 * Little-endian. Header, chunks, table and trailer follow one another without a gap, and each byte
 * is under a checksum or has one value only: a bit that fell over is found wherever it is. */
#ifndef PGRAD_IO_CHECKPOINT_FILE_H
#define PGRAD_IO_CHECKPOINT_FILE_H

#include "io/atomic_file.h"
#include "io/file.h"

struct pgrad__zstream;

enum {
    PGRAD__CHECKPOINT_VERSION = 1,
    PGRAD__CHECKPOINT_CHUNK = 1 << 18, /* bytes of all chunks of a part but the last */
    PGRAD__CHECKPOINT_PARTS = 1024,    /* at most */
    PGRAD__CHECKPOINT_NAME = 64        /* bytes of a name, its NUL included */
};

typedef struct pgrad__checkpoint_part {
    char name[PGRAD__CHECKPOINT_NAME];
    uint32_t kind;   /* PGRAD_KIND_* */
    uint64_t offset; /* of its first chunk */
    uint64_t stored; /* bytes of its chunks in the file */
    uint64_t size;   /* of what is in them */
    uint32_t crc;    /* of the chunks' heads */
} pgrad__checkpoint_part;

/* ---- writing ----
 * All memory is taken by open and given back by close: what is between may run on a thread of ours.
 * close without finish removes what was written. */
typedef struct pgrad__checkpoint_writer {
    pgrad_context *context;
    pgrad__writer file;
    struct pgrad__zstream *deflater;
    unsigned char *chunk, *packed;
    size_t filled;
    pgrad__checkpoint_part *parts;
    uint32_t n_parts;
    void (*pace)(void *user); /* called after each chunk; NULL: none */
    void *pace_user;
} pgrad__checkpoint_writer;

/* For up to n_parts parts. */
pgrad_status pgrad__checkpoint_writer_open(pgrad_context *context, const char *path,
                                           uint32_t n_parts, pgrad__checkpoint_writer *writer);
pgrad_status pgrad__checkpoint_writer_begin(pgrad__checkpoint_writer *writer, uint32_t kind,
                                            const char *name);
pgrad_status pgrad__checkpoint_writer_put(pgrad__checkpoint_writer *writer, const void *data,
                                          size_t size);
pgrad_status pgrad__checkpoint_writer_end(pgrad__checkpoint_writer *writer);
/* Table, trailer; then the file is put in place and the last `keep` are kept. */
pgrad_status pgrad__checkpoint_writer_finish(pgrad__checkpoint_writer *writer, uint32_t keep);
void pgrad__checkpoint_writer_close(pgrad__checkpoint_writer *writer); /* a zeroed one too */

/* ---- reading ---- */

typedef struct pgrad__checkpoint_file {
    pgrad_context *context;
    pgrad__file file;
    struct pgrad__zstream *inflater;
    unsigned char *chunk, *packed;
    pgrad__checkpoint_part *parts;
    uint32_t n_parts;
    uint32_t library_version; /* of the library that wrote it */
} pgrad__checkpoint_file;

/* Opens a file and reads it once from end to end: E_FORMAT names the part and the offset of what is
 * wrong; E_UNSUPPORTED for a version that is not built. */
pgrad_status pgrad__checkpoint_file_open(pgrad_context *context, const char *path,
                                         pgrad__checkpoint_file *file);
void pgrad__checkpoint_file_close(pgrad__checkpoint_file *file); /* a zeroed one too */

/* A part being read from its beginning; one at a time of a file. */
typedef struct pgrad__checkpoint_stream {
    pgrad__checkpoint_file *file;
    const pgrad__checkpoint_part *part;
    uint64_t at;           /* in the file, of the next chunk */
    uint64_t left;         /* bytes yet to be given */
    size_t used, unpacked; /* of the chunk in memory */
    uint32_t crc;
} pgrad__checkpoint_stream;

void pgrad__checkpoint_stream_begin(pgrad__checkpoint_stream *stream, pgrad__checkpoint_file *file,
                                    const pgrad__checkpoint_part *part);
/* Exactly size bytes, into nowhere where out is NULL; E_FORMAT when the part has fewer. */
pgrad_status pgrad__checkpoint_stream_read(pgrad__checkpoint_stream *stream, void *out,
                                           size_t size);

#endif
