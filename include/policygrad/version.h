/* Version of the header and of the library that was loaded.
 *
 *     if (pgrad_version() < PGRAD_VERSION_MAJOR << 16 | PGRAD_VERSION_MINOR << 8)
 *         ... the library is older than the header: what was added since returns E_UNSUPPORTED ...
 *
 * The macros say what the host was compiled against, the functions what it runs with. They may
 * differ: option structs carry their size, so that a program built against fewer fields goes on with
 * a newer library, and one built against more is refused only if it sets a field that the older
 * library does not know (docs/abi.md).
 *
 * Threads: safe, before any context too. */
#ifndef POLICYGRAD_VERSION_H
#define POLICYGRAD_VERSION_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The version of this header. meson.build reads these three and the number below. */
#define PGRAD_VERSION_MAJOR 0 /* rises when programs must be changed, from 1.0 on */
#define PGRAD_VERSION_MINOR 1 /* rises with what is added; before 1.0 with any change */
#define PGRAD_VERSION_PATCH 0 /* rises with what is mended */

/* The number in the library's soname. It rises only when an existing call changes, never with a
 * release that adds. While it is 0, nothing is promised. */
#define PGRAD_SOVERSION 0

/* Gives the version of the loaded library as 0x00MMmmpp: major, minor and patch in a byte each, so
 * that versions compare as numbers. */
PGRAD_API uint32_t pgrad_version(void);

/* Gives the same as text, "0.1.0". The text is the library's, and never freed. */
PGRAD_API const char *pgrad_version_string(void);

#ifdef __cplusplus
}
#endif
#endif
