#include "base/hashmap.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"

/* FNV-1a, finished by a multiplication so that the low bits are mixed. */
static size_t hash_of(const char *key, size_t length)
{
    uint64_t hash = 0xcbf29ce484222325u;
    for (size_t i = 0; i < length; i++)
        hash = (hash ^ (unsigned char)key[i]) * 0x100000001b3u;
    hash ^= hash >> 32;
    return (size_t)(hash * 0x9E3779B97F4A7C15u >> 16);
}

/* The entry of a key, or the free one where it would go. */
static pgrad__hashmap_entry *find(const pgrad__hashmap *map, const char *key, size_t length)
{
    size_t mask = map->capacity - 1;
    for (size_t i = hash_of(key, length) & mask;; i = (i + 1) & mask) {
        pgrad__hashmap_entry *entry = &map->entries[i];
        if (entry->key == NULL ||
            (entry->length == length && (length == 0 || memcmp(entry->key, key, length) == 0)))
            return entry; /* an empty key may be NULL */
    }
}

static pgrad_status resize(pgrad__hashmap *map, size_t capacity)
{
    pgrad__hashmap grown = {map->context, NULL, map->count, capacity};
    PGRAD__TRY(pgrad__calloc(map->context, capacity, sizeof *grown.entries, &grown.entries));
    for (size_t i = 0; i < map->capacity; i++) {
        const pgrad__hashmap_entry *entry = &map->entries[i];
        if (entry->key != NULL)
            *find(&grown, entry->key, entry->length) = *entry;
    }
    pgrad__free(map->context, map->entries);
    *map = grown;
    return PGRAD_OK;
}

pgrad_status pgrad__hashmap_init(pgrad__hashmap *map, pgrad_context *context, size_t expected)
{
    size_t capacity = 16;
    memset(map, 0, sizeof *map);
    map->context = context;
    while (capacity / 2 < expected) /* at most half full */
        if (!pgrad__mul(capacity, 2, &capacity))
            return pgrad__fail(PGRAD_E_LIMIT, "a table of %zu keys is too large", expected);
    return resize(map, capacity);
}

void pgrad__hashmap_free(pgrad__hashmap *map)
{
    if (map->context != NULL)
        pgrad__free(map->context, map->entries);
    map->entries = NULL;
    map->count = map->capacity = 0;
}

pgrad_status pgrad__hashmap_put(pgrad__hashmap *map, const char *key, size_t length, uint32_t value,
                                int *existing)
{
    if (length > UINT32_MAX)
        return pgrad__fail(PGRAD_E_LIMIT, "a key of %zu bytes is too long", length);
    if (map->count >= map->capacity / 2)
        PGRAD__TRY(resize(map, map->capacity == 0 ? 16 : map->capacity * 2));
    pgrad__hashmap_entry *entry = find(map, key, length);
    if (existing != NULL)
        *existing = entry->key != NULL;
    if (entry->key == NULL) {
        *entry = (pgrad__hashmap_entry){key, (uint32_t)length, value};
        map->count++;
    }
    return PGRAD_OK;
}

int pgrad__hashmap_get(const pgrad__hashmap *map, const char *key, size_t length, uint32_t *value)
{
    if (map->capacity == 0)
        return 0;
    const pgrad__hashmap_entry *entry = find(map, key, length);
    if (entry->key == NULL)
        return 0;
    *value = entry->value;
    return 1;
}
