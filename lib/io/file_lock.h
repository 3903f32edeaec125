/* Locks of a run on its files, against other runs of any process. They end with the process,
 * however that ends. Not for handles: base/context.h. */
#ifndef PGRAD_IO_FILE_LOCK_H
#define PGRAD_IO_FILE_LOCK_H

#include <policygrad/types.h>

/* Locks an open file: E_BUSY when another holds it. What is not a regular file is not locked; nor
 * is one of a file system that has no locks, which the log tells. */
pgrad_status pgrad__file_lock(pgrad_context *context, int descriptor, const char *path);
/* To be called before it is closed: a child of the process, which has the descriptor too, must not
 * keep the lock. In the child it does nothing. */
void pgrad__file_unlock(pgrad_context *context, int descriptor);

/* For a file that is replaced again and again: the lock is on PATH.lock beside it. */
typedef struct pgrad__lock_file {
    pgrad_context *context; /* NULL: none is held */
    int descriptor;
    char *path;
} pgrad__lock_file;

pgrad_status pgrad__lock_file_take(pgrad_context *context, const char *path,
                                   pgrad__lock_file *lock);
/* Removes it. One whose process was killed stays, and is no obstacle. */
void pgrad__lock_file_drop(pgrad__lock_file *lock); /* a zeroed one too */

#endif
