/* Calls of the operating system: a signal does not end them, and failures are told in its words. */
#ifndef PGRAD_IO_SYSTEM_CALL_H
#define PGRAD_IO_SYSTEM_CALL_H

#include <stddef.h>

#include <policygrad/types.h>

/* From errno: "PATH: cannot WHAT: No space left on device". E_NOMEM where that was memory, else
 * E_IO. */
pgrad_status pgrad__fail_system(const char *path, const char *what);

/* As open, write, fsync and close: 0 or a descriptor; -1 and errno. write goes on until all is
 * written, and tells how much was when it fails. A descriptor whose close was interrupted is
 * closed.
 */
int pgrad__open(const char *path, int flags, unsigned mode);
int pgrad__write(int descriptor, const void *data, size_t size, size_t *written);
int pgrad__sync(int descriptor);
int pgrad__close(int descriptor);

#endif
