/* Bytes to uint32: an open-addressing hash table. Keys are not copied: they must outlive the map.
 */
#ifndef PGRAD_BASE_HASHMAP_H
#define PGRAD_BASE_HASHMAP_H

#include <policygrad/types.h>

typedef struct pgrad__hashmap_entry {
    const char *key;
    uint32_t length, value;
} pgrad__hashmap_entry;

typedef struct pgrad__hashmap {
    pgrad_context *context;
    pgrad__hashmap_entry *entries; /* key NULL: free */
    size_t count, capacity;        /* capacity: a power of two, or 0 */
} pgrad__hashmap;

pgrad_status pgrad__hashmap_init(pgrad__hashmap *map, pgrad_context *context, size_t expected);
void pgrad__hashmap_free(pgrad__hashmap *map);
/* Puts a key; *existing (may be NULL) is set to 1, and the old value kept, when it was there. */
pgrad_status pgrad__hashmap_put(pgrad__hashmap *map, const char *key, size_t length, uint32_t value,
                                int *existing);
/* Returns 1 and *value when found. */
int pgrad__hashmap_get(const pgrad__hashmap *map, const char *key, size_t length, uint32_t *value);

#endif
