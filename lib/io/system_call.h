/* Calls of the operating system: a signal does not end them, and failures are told in its words. */
#ifndef PGRAD_IO_SYSTEM_CALL_H
#define PGRAD_IO_SYSTEM_CALL_H

#include <policygrad/types.h>

/* From errno: "PATH: cannot WHAT: No space left on device". E_NOMEM where that was memory, else
 * E_IO. */
pgrad_status pgrad__fail_system(const char *path, const char *what);

/* As open, fsync and close. A descriptor whose close was interrupted is closed. */
int pgrad__open(const char *path, int flags, unsigned mode);
int pgrad__sync(int descriptor);
int pgrad__close(int descriptor);

#endif
