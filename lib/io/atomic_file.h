/* Files and folders written so that a reader sees the old or the new, never half: temporary beside
 * the target, fsync, rename, fsync of the folder. On failure the temporary is removed. */
#ifndef PGRAD_IO_ATOMIC_FILE_H
#define PGRAD_IO_ATOMIC_FILE_H

#include <policygrad/types.h>

/* One file being written, by itself or inside a new folder. */
typedef struct pgrad__writer {
    pgrad_context *context;
    int descriptor; /* -1: closed */
    int lock;       /* of the temporary until it is in place, where it still has one; -1: none */
    uint64_t size;  /* bytes written so far */
    char *path;     /* the final path: pgrad__path_target */
    char *parent;   /* the folder it stands in */
    char *temporary;
    unsigned char *buffer; /* collects small writes */
    size_t buffered;
} pgrad__writer;

pgrad_status pgrad__writer_open(pgrad_context *context, const char *path, pgrad__writer *writer);
pgrad_status pgrad__writer_write(pgrad__writer *writer, const void *data, size_t size);
/* Durable and in place, or an error and the old file untouched. Closed in both cases. */
pgrad_status pgrad__writer_commit(pgrad__writer *writer);
void pgrad__writer_abort(pgrad__writer *writer); /* safe on a zeroed or committed one */

/* The older versions of a file stand beside it: "PATH.1" is the one before, "PATH.2" that before
 * it. Puts the new file in place, and then moves the old ones on, so that the last `keep` are
 * there, the new one included; the oldest goes when the new one is durable, not before. On an error
 * the old file stands, at PATH or, where the file system cannot exchange two, at PATH.1; after one
 * of the folder's last sync the new one does. Neither this nor write takes or gives memory, so that
 * a thread of ours may do it; abort, which does, ends the writer. */
pgrad_status pgrad__writer_place(pgrad__writer *writer, uint32_t keep);
enum { PGRAD__MAX_KEPT = 100 };

/* Removes what writers of this path have left behind whose process was killed. */
void pgrad__writer_clean(pgrad_context *context, const char *path);

/* A folder being built: open writers on paths inside `temporary`, then commit, which ends it in any
 * case. What an old folder at the target holds and the new one lacks is kept, sub-folders included,
 * but for files whose names `replaces` (NULL: none) says the new ones stand for.
 */
typedef struct pgrad__folder {
    pgrad_context *context;
    char *path;
    char *temporary;
    int (*replaces)(const char *name);
} pgrad__folder;

pgrad_status pgrad__folder_open(pgrad_context *context, const char *path, pgrad__folder *folder);
pgrad_status pgrad__folder_commit(pgrad__folder *folder);
void pgrad__folder_abort(pgrad__folder *folder);

/* Writes a small file at once into a folder being built. */
pgrad_status pgrad__folder_put(pgrad__folder *folder, const char *name, const void *data,
                               size_t size);

#endif
