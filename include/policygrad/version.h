/* Version of the header and of the library that was loaded.
 *
 * Threads: safe. */
#ifndef POLICYGRAD_VERSION_H
#define POLICYGRAD_VERSION_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. meson.build reads these three and the number below. */
#define PGRAD_VERSION_MAJOR 0
#define PGRAD_VERSION_MINOR 1
#define PGRAD_VERSION_PATCH 0

/* The number in the library's soname. It rises only when an existing call changes, never with a
 * release that adds. While it is 0, nothing is promised. */
#define PGRAD_SOVERSION 0

/* Gives the version of the loaded library as 0x00MMmmpp. */
PGRAD_API uint32_t pgrad_version(void);

/* Gives the same as text, "0.1.0". */
PGRAD_API const char *pgrad_version_string(void);

#ifdef __cplusplus
}
#endif
#endif
