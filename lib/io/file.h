/* Regular files read with checked positional reads: never mapped, so a file cut short while it is
 * read is an error and not a signal. */
#ifndef PGRAD_IO_FILE_H
#define PGRAD_IO_FILE_H

#include <policygrad/types.h>

typedef struct pgrad__file {
    pgrad_context *context;
    int descriptor; /* -1: closed */
    uint64_t size;
    char *path;
} pgrad__file;

/* Opens for reading: E_IO with the system's words; E_FORMAT for what is not a regular file. */
pgrad_status pgrad__file_open(pgrad_context *context, const char *path, pgrad__file *file);
void pgrad__file_close(pgrad__file *file); /* safe on a zeroed or closed one */

/* Reads exactly size bytes at offset: E_FORMAT (truncated, with offset and sizes) or E_IO. */
pgrad_status pgrad__file_read(pgrad__file *file, uint64_t offset, void *out, size_t size);

/* Reads a whole file of at most limit bytes, a NUL behind it. Free with pgrad__free. */
pgrad_status pgrad__file_load(pgrad_context *context, const char *path, size_t limit, char **out,
                              size_t *size);

/* PGRAD__PATH_*: what stands at a path. Errors count as NONE. */
enum { PGRAD__PATH_NONE, PGRAD__PATH_FILE, PGRAD__PATH_FOLDER, PGRAD__PATH_OTHER };
int pgrad__path_kind(const char *path);
const char *pgrad__path_kind_name(int kind); /* "a folder" */

/* Makes "folder/name"; free with pgrad__free. */
pgrad_status pgrad__path_join(pgrad_context *context, const char *folder, const char *name,
                              char **out);

/* Where what is written to a path goes: absolute, so that it stays the same when the process
 * changes its folder, and behind symbolic links, so that a link stays one. A path that does not
 * exist is its own target. Free with pgrad__free. */
pgrad_status pgrad__path_target(pgrad_context *context, const char *path, char **out);

/* 1 when name is a plain file name: 1 to 255 bytes, no slash of either kind, no control bytes, not
 * "." and without "..". */
int pgrad__path_is_plain(const char *name, size_t length);

#endif
