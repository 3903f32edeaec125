/* JSON documents: jansson behind limits (size, depth 64 checked before it sees the bytes, duplicate
 * keys refused). Values are borrowed from their document. */
#ifndef PGRAD_IO_JSON_H
#define PGRAD_IO_JSON_H

#include <policygrad/types.h>

typedef struct pgrad__json pgrad__json; /* a document, or a value in one */

enum {
    PGRAD__JSON_NULL,
    PGRAD__JSON_BOOL,
    PGRAD__JSON_NUMBER,
    PGRAD__JSON_STRING,
    PGRAD__JSON_ARRAY,
    PGRAD__JSON_OBJECT
};

/* origin names the document in messages (a path). The root; free it with pgrad__json_free. */
pgrad_status pgrad__json_parse(pgrad_context *context, const char *text, size_t length,
                               const char *origin, pgrad__json **out);
pgrad_status pgrad__json_load(pgrad_context *context, const char *path, size_t limit,
                              pgrad__json **out);
void pgrad__json_free(pgrad__json *root);

int pgrad__json_type(const pgrad__json *value);

/* A member of an object, NULL when it is absent (or the value is no object). JSON null counts as
 * absent. */
const pgrad__json *pgrad__json_get(const pgrad__json *object, const char *key);
size_t pgrad__json_count(const pgrad__json *value); /* of an array or object; 0 for others */
const pgrad__json *pgrad__json_at(const pgrad__json *array, size_t index);

/* Goes through an object in the order of the text: start with *iterator = NULL; 0 at the end. */
int pgrad__json_next(const pgrad__json *object, void **iterator, const char **key,
                     size_t *key_length, const pgrad__json **value);

/* Plain values; the type must be right (NULL and zero else). Strings are UTF-8 and may hold NULs.
 */
const char *pgrad__json_string(const pgrad__json *value, size_t *length);
int pgrad__json_bool(const pgrad__json *value, int otherwise);
int pgrad__json_integer(const pgrad__json *value, int64_t *out); /* 1 when whole, "2.0" too */
int pgrad__json_real(const pgrad__json *value, double *out);
int pgrad__json_is_real(const pgrad__json *value); /* written with a point or exponent */

/* "ORIGIN: KEY: expected EXPECTED, found ..." of a value (NULL: nothing), with E_FORMAT. */
pgrad_status pgrad__json_wrong(const char *origin, const char *key, const char *expected,
                               const pgrad__json *value);

/* Members with checks: absent (or null) gives `otherwise` for the optional ones, E_FORMAT for the
 * required; a wrong type or range is E_FORMAT naming origin, key, expected, found.
 * Without an origin (NULL) the message begins with the key, and the caller says where that is. */
pgrad_status pgrad__json_require_u32(const pgrad__json *object, const char *origin, const char *key,
                                     uint32_t min, uint32_t max, uint32_t *out);
pgrad_status pgrad__json_optional_u32(const pgrad__json *object, const char *origin,
                                      const char *key, uint32_t min, uint32_t max,
                                      uint32_t otherwise, uint32_t *out);
pgrad_status pgrad__json_optional_real(const pgrad__json *object, const char *origin,
                                       const char *key, double min, double max, double otherwise,
                                       double *out);
pgrad_status pgrad__json_optional_bool(const pgrad__json *object, const char *origin,
                                       const char *key, int otherwise, int *out);

/* Changing and writing. set_* puts or replaces a member, keeping the order of the others. */
pgrad_status pgrad__json_set_string(pgrad__json *object, const char *key, const char *text);
pgrad_status pgrad__json_set_integer(pgrad__json *object, const char *key, int64_t number);
/* The text of a value, indented when indent > 0; free with pgrad__free. */
pgrad_status pgrad__json_write(pgrad_context *context, const pgrad__json *value, int indent,
                               char **text, size_t *length);

/* Appends a string as a JSON literal, quotes included; invalid UTF-8 becomes U+FFFD. */
struct pgrad__strbuf;
void pgrad__json_quote(struct pgrad__strbuf *buffer, const char *text, size_t length);

#endif
