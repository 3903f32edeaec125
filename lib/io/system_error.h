/* Failures of the operating system, in its words. */
#ifndef PGRAD_IO_SYSTEM_ERROR_H
#define PGRAD_IO_SYSTEM_ERROR_H

#include <policygrad/types.h>

/* E_IO from errno: "PATH: cannot WHAT: No space left on device". */
pgrad_status pgrad__fail_system(const char *path, const char *what);

#endif
