/* GGUF metadata is read into memory once and indexed there; every count is compared with the bytes
 * that remain before anything is made of it. */
#include "io/gguf.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "base/half.h"
#include "base/hashmap.h"
#include "base/real.h"
#include "base/utf8.h"
#include "io/little_endian.h"

enum {
    MAX_ENTRIES = 65536,
    MAX_TENSOR_NAME = 64,
    MAX_METADATA = 1 << 30,
    MAX_STRING = 1 << 26,
    MAX_ARRAY = 1 << 27,
    MAX_KEY = 65535,
    MAX_ALIGNMENT = 1 << 20,
    DEFAULT_ALIGNMENT = 32,
    FIRST_READ = 1 << 20
};

/* Types of key-values. */
enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64, N_TYPES };
static const uint32_t TYPE_BYTES[N_TYPES] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
static const char *const TYPE_NAMES[N_TYPES] = {
    "u8", "i8", "u16", "i16", "u32", "i32", "f32", "bool", "string", "array", "u64", "i64", "f64"};

/* ggml's tensor types: block size and bytes of all known ones, so that sizes can be checked. */
static const struct tensor_type {
    uint32_t id;
    const char *name;
    uint32_t block, bytes;
    pgrad__element_type type;
} TENSOR_TYPES[] = {
    {0, "F32", 1, 4, PGRAD__ELEMENT_F32},           {1, "F16", 1, 2, PGRAD__ELEMENT_F16},
    {2, "Q4_0", 32, 18, PGRAD__ELEMENT_Q4_0},       {3, "Q4_1", 32, 20, PGRAD__ELEMENT_Q4_1},
    {6, "Q5_0", 32, 22, PGRAD__ELEMENT_Q5_0},       {7, "Q5_1", 32, 24, PGRAD__ELEMENT_Q5_1},
    {8, "Q8_0", 32, 34, PGRAD__ELEMENT_Q8_0},       {9, "Q8_1", 32, 36, PGRAD__ELEMENT_OTHER},
    {10, "Q2_K", 256, 84, PGRAD__ELEMENT_Q2_K},     {11, "Q3_K", 256, 110, PGRAD__ELEMENT_Q3_K},
    {12, "Q4_K", 256, 144, PGRAD__ELEMENT_Q4_K},    {13, "Q5_K", 256, 176, PGRAD__ELEMENT_Q5_K},
    {14, "Q6_K", 256, 210, PGRAD__ELEMENT_Q6_K},    {15, "Q8_K", 256, 292, PGRAD__ELEMENT_OTHER},
    {16, "IQ2_XXS", 256, 66, PGRAD__ELEMENT_OTHER}, {17, "IQ2_XS", 256, 74, PGRAD__ELEMENT_OTHER},
    {18, "IQ3_XXS", 256, 98, PGRAD__ELEMENT_OTHER}, {19, "IQ1_S", 256, 50, PGRAD__ELEMENT_OTHER},
    {20, "IQ4_NL", 32, 18, PGRAD__ELEMENT_OTHER},   {21, "IQ3_S", 256, 110, PGRAD__ELEMENT_OTHER},
    {22, "IQ2_S", 256, 82, PGRAD__ELEMENT_OTHER},   {23, "IQ4_XS", 256, 136, PGRAD__ELEMENT_OTHER},
    {24, "I8", 1, 1, PGRAD__ELEMENT_OTHER},         {25, "I16", 1, 2, PGRAD__ELEMENT_OTHER},
    {26, "I32", 1, 4, PGRAD__ELEMENT_OTHER},        {27, "I64", 1, 8, PGRAD__ELEMENT_OTHER},
    {28, "F64", 1, 8, PGRAD__ELEMENT_F64},          {29, "IQ1_M", 256, 56, PGRAD__ELEMENT_OTHER},
    {30, "BF16", 1, 2, PGRAD__ELEMENT_BF16},        {34, "TQ1_0", 256, 54, PGRAD__ELEMENT_OTHER},
    {35, "TQ2_0", 256, 66, PGRAD__ELEMENT_OTHER},   {39, "MXFP4", 32, 17, PGRAD__ELEMENT_OTHER},
    {40, "NVFP4", 64, 36, PGRAD__ELEMENT_OTHER},    {41, "Q1_0", 128, 18, PGRAD__ELEMENT_OTHER},
};

/* A key-value: where its value, or its array's elements, begin in the metadata. */
typedef struct entry {
    size_t key_at, key_length;
    uint32_t type, element;
    size_t at, count;
    size_t strings; /* index of its first element in string_at, for arrays of strings */
} entry;

struct pgrad__gguf {
    pgrad_context *context;
    pgrad__tensor_set set;
    unsigned char *data; /* the file's beginning, up to the tensors' data */
    size_t size;         /* bytes of it in memory */
    size_t at;           /* reading position */
    char path[PGRAD__PATH_MAX];
    entry *entries;
    size_t n_entries;
    pgrad__hashmap keys; /* to entries; made when the metadata does not move any more */
    size_t *string_at;   /* offsets of all strings of all arrays */
    size_t n_strings, string_capacity;
    uint32_t alignment;
};

/* ---- reading forward ---- */

static pgrad_status truncated(const pgrad__gguf *g, const char *what)
{
    return pgrad__fail(PGRAD_E_FORMAT, "%s: truncated in %s at byte %zu of %llu", g->path, what,
                       g->at, (unsigned long long)g->set.files[0].size);
}

/* Makes n more bytes of the file available behind the position. */
static pgrad_status need(pgrad__gguf *g, size_t n, const char *what)
{
    const uint64_t file_size = g->set.files[0].size;
    size_t end;
    if (n <= g->size - g->at)
        return PGRAD_OK;
    if (!pgrad__add(g->at, n, &end) || end > file_size)
        return truncated(g, what);
    if (end > MAX_METADATA)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: more than %d bytes of metadata", g->path,
                           MAX_METADATA);
    size_t grown = g->size < FIRST_READ ? FIRST_READ : 2 * g->size;
    grown = grown < end ? end : grown;
    grown = grown > file_size ? (size_t)file_size : grown;
    PGRAD__TRY(pgrad__realloc(g->context, &g->data, grown, 1));
    PGRAD__TRY(pgrad__file_read(&g->set.files[0], g->size, g->data + g->size, grown - g->size));
    g->size = grown;
    return PGRAD_OK;
}

static pgrad_status read_number(pgrad__gguf *g, size_t n, const char *what, uint64_t *out)
{
    PGRAD__TRY(need(g, n, what));
    *out = pgrad__get_bytes(g->data + g->at, n);
    g->at += n;
    return PGRAD_OK;
}

/* A string: its length, then its bytes, which *at points to. */
static pgrad_status read_string(pgrad__gguf *g, const char *what, size_t *at, size_t *length)
{
    uint64_t n;
    PGRAD__TRY(read_number(g, 8, what, &n));
    if (n > g->set.files[0].size - g->at)
        return truncated(g, what);
    if (n > MAX_STRING)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: %s: a string of %llu bytes, at most %d are read",
                           g->path, what, (unsigned long long)n, MAX_STRING);
    PGRAD__TRY(need(g, (size_t)n, what));
    *at = g->at;
    *length = (size_t)n;
    g->at += (size_t)n;
    return PGRAD_OK;
}

/* ---- key-values ---- */

static pgrad_status read_array(pgrad__gguf *g, const char *key, entry *e)
{
    uint64_t element, count;
    size_t bytes;
    PGRAD__TRY(read_number(g, 4, key, &element));
    PGRAD__TRY(read_number(g, 8, key, &count));
    if (element >= N_TYPES || element == ARRAY)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %.64s: an array of type %llu is not known", g->path,
                           key, (unsigned long long)element);
    e->element = (uint32_t)element;
    e->at = g->at;
    const uint64_t rest = g->set.files[0].size - g->at;
    const uint32_t least = element == STRING ? 8 : TYPE_BYTES[element];
    if (count > rest / least)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: %.64s: %llu elements announced, the file ends before them", g->path,
                           key, (unsigned long long)count);
    if (count > MAX_ARRAY)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: %.64s: %llu elements, at most %d are read", g->path,
                           key, (unsigned long long)count, MAX_ARRAY);
    e->count = (size_t)count;
    if (element != STRING) {
        bytes = e->count * TYPE_BYTES[element];
        PGRAD__TRY(need(g, bytes, key));
        g->at += bytes;
        return PGRAD_OK;
    }
    e->strings = g->n_strings;
    PGRAD__TRY(pgrad__reserve(g->context, &g->string_at, &g->string_capacity,
                              g->n_strings + e->count, sizeof(size_t)));
    for (size_t i = 0; i < e->count; i++) {
        size_t at, length;
        g->string_at[g->n_strings++] = g->at;
        PGRAD__TRY(read_string(g, key, &at, &length));
    }
    return PGRAD_OK;
}

static pgrad_status read_value(pgrad__gguf *g, const char *key, entry *e)
{
    uint64_t type;
    size_t at, length;
    PGRAD__TRY(read_number(g, 4, key, &type));
    if (type >= N_TYPES)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %.64s: type %llu is not known", g->path, key,
                           (unsigned long long)type);
    e->type = (uint32_t)type;
    e->at = g->at;
    if (type == ARRAY)
        return read_array(g, key, e);
    if (type == STRING)
        return read_string(g, key, &at, &length);
    PGRAD__TRY(need(g, TYPE_BYTES[type], key));
    if (type == BOOL && g->data[g->at] > 1)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %.64s: expected a bool of 0 or 1, found %u",
                           g->path, key, g->data[g->at]);
    g->at += TYPE_BYTES[type];
    return PGRAD_OK;
}

static int is_name(const char *text, size_t length)
{
    return memchr(text, '\0', length) == NULL && pgrad__utf8_is_valid(text, length);
}

static pgrad_status read_key_value(pgrad__gguf *g)
{
    char name[PGRAD__PATH_MAX];
    size_t at, length;
    PGRAD__TRY(read_string(g, "a key", &at, &length));
    const char *key = (const char *)g->data + at;
    if (length == 0 || length > MAX_KEY || !is_name(key, length))
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: a key of %zu bytes: expected 1 to %d of UTF-8 without a NUL",
                           g->path, length, MAX_KEY);
    size_t shown = length < sizeof name - 1 ? length : sizeof name - 1;
    memcpy(name, key, shown);
    name[shown] = '\0';
    entry *e = &g->entries[g->n_entries++];
    *e = (entry){.key_at = at, .key_length = length};
    return read_value(g, name, e);
}

static pgrad_status index_keys(pgrad__gguf *g)
{
    PGRAD__TRY(pgrad__hashmap_init(&g->keys, g->context, g->n_entries));
    for (size_t i = 0; i < g->n_entries; i++) {
        const char *key = (const char *)g->data + g->entries[i].key_at;
        int existing;
        PGRAD__TRY(
            pgrad__hashmap_put(&g->keys, key, g->entries[i].key_length, (uint32_t)i, &existing));
        if (existing)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: key '%.*s' is there twice", g->path,
                               pgrad__shown(g->entries[i].key_length), key);
    }
    return PGRAD_OK;
}

static const entry *find(const pgrad__gguf *g, const char *key)
{
    uint32_t index;
    return pgrad__hashmap_get(&g->keys, key, strlen(key), &index) ? &g->entries[index] : NULL;
}

static pgrad_status wrong_type(const pgrad__gguf *g, const char *key, const char *expected,
                               const entry *e)
{
    if (e == NULL)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected %s, found nothing", g->path, key,
                           expected);
    return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected %s, found %s%s%s", g->path, key, expected,
                       TYPE_NAMES[e->type], e->type == ARRAY ? " of " : "",
                       e->type == ARRAY ? TYPE_NAMES[e->element] : "");
}

/* ---- tensors ---- */

static const struct tensor_type *find_tensor_type(uint64_t id)
{
    for (size_t i = 0; i < sizeof TENSOR_TYPES / sizeof TENSOR_TYPES[0]; i++)
        if (TENSOR_TYPES[i].id == id)
            return &TENSOR_TYPES[i];
    return NULL;
}

/* Dimensions come innermost first and are turned round. */
static pgrad_status read_dims(pgrad__gguf *g, const char *name, pgrad__tensor_view *view)
{
    uint64_t n_dims, dim;
    size_t elements = 1;
    PGRAD__TRY(read_number(g, 4, "a tensor's dimensions", &n_dims));
    if (n_dims < 1 || n_dims > 4)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: tensor '%s': expected 1 to 4 dimensions, found %llu", g->path, name,
                           (unsigned long long)n_dims);
    view->n_dims = (uint32_t)n_dims;
    for (uint32_t i = 0; i < view->n_dims; i++) {
        PGRAD__TRY(read_number(g, 8, "a tensor's dimensions", &dim));
        if (dim == 0 || dim > INT64_MAX || !pgrad__mul(elements, (size_t)dim, &elements) ||
            elements > INT64_MAX)
            return pgrad__fail(PGRAD_E_FORMAT,
                               "%s: tensor '%s': dimension %u is %llu: zero, or the product "
                               "overflows",
                               g->path, name, i, (unsigned long long)dim);
        view->dims[view->n_dims - 1 - i] = dim;
    }
    view->n_elements = elements;
    return PGRAD_OK;
}

static pgrad_status read_tensor_type(pgrad__gguf *g, const char *name, pgrad__tensor_view *view)
{
    uint64_t id;
    size_t bytes;
    PGRAD__TRY(read_number(g, 4, "a tensor's type", &id));
    const struct tensor_type *type = find_tensor_type(id);
    if (type == NULL)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: tensor '%s': type %llu is not known", g->path, name,
                           (unsigned long long)id);
    if (view->dims[view->n_dims - 1] % type->block != 0)
        return pgrad__fail(
            PGRAD_E_FORMAT, "%s: tensor '%s': rows of %llu are no whole blocks of %u (%s)", g->path,
            name, (unsigned long long)view->dims[view->n_dims - 1], type->block, type->name);
    if (!pgrad__mul(view->n_elements / type->block, type->bytes, &bytes))
        return pgrad__fail(PGRAD_E_FORMAT, "%s: tensor '%s': its size overflows", g->path, name);
    view->type = type->type;
    view->type_name = type->name;
    view->n_bytes = bytes;
    return PGRAD_OK;
}

/* The name is kept as its offset until the metadata does not move any more. */
static pgrad_status read_tensor(pgrad__gguf *g)
{
    pgrad__tensor_view view = {0};
    char name[MAX_TENSOR_NAME];
    size_t at, length;
    uint64_t offset;
    PGRAD__TRY(read_string(g, "a tensor's name", &at, &length));
    if (length == 0 || length >= MAX_TENSOR_NAME || !is_name((const char *)g->data + at, length))
        return pgrad__fail(
            PGRAD_E_FORMAT,
            "%s: tensor name: expected 1 to %d bytes of UTF-8 without a NUL, found %zu", g->path,
            MAX_TENSOR_NAME - 1, length);
    memcpy(name, g->data + at, length);
    name[length] = '\0';
    PGRAD__TRY(read_dims(g, name, &view));
    PGRAD__TRY(read_tensor_type(g, name, &view));
    PGRAD__TRY(read_number(g, 8, "a tensor's offset", &offset));
    view.offset = offset;
    view.name = (const char *)(uintptr_t)at;
    g->set.tensors[g->set.n_tensors++] = view;
    return PGRAD_OK;
}

/* Gives tensors their names, refuses one that comes twice. */
static pgrad_status settle_names(pgrad__gguf *g)
{
    char *names;
    PGRAD__TRY(pgrad__alloc(g->context, g->set.n_tensors, MAX_TENSOR_NAME, &names));
    g->set.owned = names;
    for (size_t i = 0; i < g->set.n_tensors; i++) {
        char *name = names + i * MAX_TENSOR_NAME;
        size_t at = (uintptr_t)g->set.tensors[i].name,
               length = (size_t)pgrad__get_u64(g->data + at - 8);
        memcpy(name, g->data + at, length);
        name[length] = '\0';
        g->set.tensors[i].name = name;
    }
    return pgrad__tensor_set_finish(&g->set);
}

/* Tensors lie in their order, each at the end of the one before, rounded up: ends are in the file,
 * so no sum wraps. */
static pgrad_status place_tensors(pgrad__gguf *g)
{
    const uint64_t file_size = g->set.files[0].size;
    const size_t mask = g->alignment - 1, start = (g->at + mask) & ~mask;
    size_t at = 0;
    for (size_t i = 0; i < g->set.n_tensors; i++) {
        pgrad__tensor_view *view = &g->set.tensors[i];
        if (view->offset != at)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: tensor '%s': offset: expected %zu, found %llu",
                               g->path, view->name, at, (unsigned long long)view->offset);
        if (start + at > file_size || view->n_bytes > file_size - (start + at))
            return pgrad__fail(PGRAD_E_FORMAT,
                               "%s: tensor '%s': truncated: %llu bytes at %zu, the file has %llu",
                               g->path, view->name, (unsigned long long)view->n_bytes, start + at,
                               (unsigned long long)file_size);
        view->offset = start + at;
        at = (at + (size_t)view->n_bytes + mask) & ~mask;
    }
    return PGRAD_OK;
}

/* ---- the file ---- */

static pgrad_status read_counts(pgrad__gguf *g, uint64_t *n_tensors, uint64_t *n_entries)
{
    uint64_t magic, version;
    PGRAD__TRY(read_number(g, 4, "the magic number", &magic));
    if (magic != 0x46554747u) {
        const char bytes[5] = {(char)magic, (char)(magic >> 8), (char)(magic >> 16),
                               (char)(magic >> 24), '\0'};
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: expected a file that begins with \"GGUF\", found \"%s\"", g->path,
                           bytes);
    }
    PGRAD__TRY(read_number(g, 4, "the version", &version));
    if ((version & 0xffff) == 0)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: a GGUF file of the other endianness", g->path);
    if (version != 2 && version != 3)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: GGUF version: expected 2 or 3, found %llu",
                           g->path, (unsigned long long)version);
    PGRAD__TRY(read_number(g, 8, "the tensor count", n_tensors));
    PGRAD__TRY(read_number(g, 8, "the key count", n_entries));
    const uint64_t rest = g->set.files[0].size - g->at;
    /* An entry takes at least 13 bytes, a tensor at least 32. */
    if (*n_entries > MAX_ENTRIES || *n_entries > rest / 13)
        return pgrad__fail(
            PGRAD_E_LIMIT, "%s: %llu keys announced: more than %d, or than %llu bytes hold",
            g->path, (unsigned long long)*n_entries, MAX_ENTRIES, (unsigned long long)rest);
    if (*n_tensors > MAX_ENTRIES || *n_tensors > rest / 32)
        return pgrad__fail(
            PGRAD_E_LIMIT, "%s: %llu tensors announced: more than %d, or than %llu bytes hold",
            g->path, (unsigned long long)*n_tensors, MAX_ENTRIES, (unsigned long long)rest);
    return PGRAD_OK;
}

static pgrad_status check_split(const pgrad__gguf *g)
{
    uint32_t split = 0;
    if (!pgrad__gguf_has(g, "split.count"))
        return PGRAD_OK;
    PGRAD__TRY(pgrad__gguf_u32(g, "split.count", &split));
    if (split > 1)
        return pgrad__fail(PGRAD_E_UNSUPPORTED, "%s: one of %u split files: join them first",
                           g->path, split);
    return PGRAD_OK;
}

/* The format says u32 here, and nothing else. */
static pgrad_status read_alignment(pgrad__gguf *g)
{
    static const char KEY[] = "general.alignment";
    const entry *e = find(g, KEY);
    g->alignment = DEFAULT_ALIGNMENT;
    if (e == NULL)
        return PGRAD_OK;
    if (e->type != U32)
        return wrong_type(g, KEY, "u32", e);
    const uint32_t value = pgrad__get_u32(g->data + e->at);
    if (value == 0 || (value & (value - 1)) != 0 || value > MAX_ALIGNMENT)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected a power of two up to %d, found %u",
                           g->path, KEY, MAX_ALIGNMENT, value);
    g->alignment = value;
    return PGRAD_OK;
}

static pgrad_status read_all(pgrad__gguf *g, const char *path)
{
    uint64_t n_tensors = 0, n_entries = 0;
    PGRAD__TRY(pgrad__alloc(g->context, 1, sizeof *g->set.files, &g->set.files));
    PGRAD__TRY(pgrad__file_open(g->context, path, &g->set.files[0]));
    g->set.n_files = 1;
    PGRAD__TRY(read_counts(g, &n_tensors, &n_entries));
    PGRAD__TRY(pgrad__calloc(g->context, (size_t)n_entries, sizeof *g->entries, &g->entries));
    for (uint64_t i = 0; i < n_entries; i++)
        PGRAD__TRY(read_key_value(g));
    PGRAD__TRY(
        pgrad__calloc(g->context, (size_t)n_tensors, sizeof *g->set.tensors, &g->set.tensors));
    for (uint64_t i = 0; i < n_tensors; i++)
        PGRAD__TRY(read_tensor(g));
    PGRAD__TRY(index_keys(g));
    PGRAD__TRY(settle_names(g));
    PGRAD__TRY(check_split(g));
    PGRAD__TRY(read_alignment(g));
    return place_tensors(g);
}

pgrad_status pgrad__gguf_open(pgrad_context *context, const char *path, pgrad__gguf **out)
{
    pgrad__gguf *g;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *g, &g));
    g->context = context;
    g->set.context = context;
    pgrad__path_text(g->path, path);
    pgrad_status status = read_all(g, path);
    if (status != PGRAD_OK) {
        pgrad__gguf_free(g);
        return status;
    }
    *out = g;
    return PGRAD_OK;
}

void pgrad__gguf_free(pgrad__gguf *g)
{
    if (g == NULL)
        return;
    pgrad__hashmap_free(&g->keys);
    pgrad__free(g->context, g->entries);
    pgrad__free(g->context, g->string_at);
    pgrad__free(g->context, g->data);
    pgrad__tensor_set_free(&g->set);
    pgrad__free(g->context, g);
}

const pgrad__tensor_set *pgrad__gguf_tensors(const pgrad__gguf *g)
{
    return &g->set;
}

const char *pgrad__gguf_path(const pgrad__gguf *g)
{
    return g->set.files[0].path;
}

/* ---- key-values by type ---- */

/* An integer of any type; 0 when the type is none, or the value is beyond int64. */
static int integer_at(const unsigned char *p, uint32_t type, int64_t *out)
{
    uint64_t bits;
    switch (type) {
    case BOOL: /* in arrays of flags; alone it is read as what it is */
    case U8:
    case U16:
    case U32:
    case U64:
        bits = pgrad__get_bytes(p, TYPE_BYTES[type]);
        *out = (int64_t)bits;
        return bits <= INT64_MAX;
    case I8:
        *out = (signed char)p[0];
        return 1;
    case I16:
        *out = (int16_t)pgrad__get_u16(p);
        return 1;
    case I32:
        *out = (int32_t)pgrad__get_u32(p);
        return 1;
    case I64:
        *out = (int64_t)pgrad__get_u64(p);
        return 1;
    default:
        return 0;
    }
}

static int real_at(const unsigned char *p, uint32_t type, float *out)
{
    if (type == F32)
        *out = pgrad__float_of_bits(pgrad__get_u32(p));
    else if (type == F64)
        *out = (float)pgrad__real_of_bits(pgrad__get_u64(p));
    return type == F32 || type == F64;
}

int pgrad__gguf_has(const pgrad__gguf *g, const char *key)
{
    return find(g, key) != NULL;
}

pgrad_status pgrad__gguf_u32(const pgrad__gguf *g, const char *key, uint32_t *out)
{
    const entry *e = find(g, key);
    int64_t value;
    if (e == NULL || e->type == BOOL || !integer_at(g->data + e->at, e->type, &value))
        return wrong_type(g, key, "an integer", e);
    if (value < 0 || value > UINT32_MAX)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: expected 0 to %u, found %lld", g->path, key,
                           UINT32_MAX, (long long)value);
    *out = (uint32_t)value;
    return PGRAD_OK;
}

pgrad_status pgrad__gguf_f32(const pgrad__gguf *g, const char *key, float *out)
{
    const entry *e = find(g, key);
    return e != NULL && real_at(g->data + e->at, e->type, out) ? PGRAD_OK
                                                               : wrong_type(g, key, "f32", e);
}

pgrad_status pgrad__gguf_bool(const pgrad__gguf *g, const char *key, int *out)
{
    const entry *e = find(g, key);
    if (e == NULL || e->type != BOOL)
        return wrong_type(g, key, "a bool", e);
    *out = g->data[e->at];
    return PGRAD_OK;
}

static void string_at(const pgrad__gguf *g, size_t at, const char **text, size_t *length)
{
    *length = (size_t)pgrad__get_u64(g->data + at);
    *text = (const char *)g->data + at + 8;
}

pgrad_status pgrad__gguf_string(const pgrad__gguf *g, const char *key, const char **text,
                                size_t *length)
{
    const entry *e = find(g, key);
    if (e == NULL || e->type != STRING)
        return wrong_type(g, key, "a string", e);
    string_at(g, e->at, text, length);
    return PGRAD_OK;
}

pgrad_status pgrad__gguf_array_count(const pgrad__gguf *g, const char *key, size_t *count)
{
    const entry *e = find(g, key);
    if (e == NULL || e->type != ARRAY)
        return wrong_type(g, key, "an array", e);
    *count = e->count;
    return PGRAD_OK;
}

/* Finds an array and checks the index. */
static pgrad_status find_element(const pgrad__gguf *g, const char *key, size_t index,
                                 const entry **out)
{
    const entry *e = find(g, key);
    if (e == NULL || e->type != ARRAY)
        return wrong_type(g, key, "an array", e);
    if (index >= e->count)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %s: element %zu is asked for, it has %zu", g->path,
                           key, index, e->count);
    *out = e;
    return PGRAD_OK;
}

pgrad_status pgrad__gguf_array_string(const pgrad__gguf *g, const char *key, size_t index,
                                      const char **text, size_t *length)
{
    const entry *e = NULL;
    PGRAD__TRY(find_element(g, key, index, &e));
    if (e->element != STRING)
        return wrong_type(g, key, "an array of strings", e);
    string_at(g, g->string_at[e->strings + index], text, length);
    return PGRAD_OK;
}

pgrad_status pgrad__gguf_array_i32(const pgrad__gguf *g, const char *key, size_t index,
                                   int32_t *out)
{
    const entry *e = NULL;
    int64_t value;
    PGRAD__TRY(find_element(g, key, index, &e));
    if (!integer_at(g->data + e->at + index * TYPE_BYTES[e->element], e->element, &value) ||
        value < INT32_MIN || value > INT32_MAX)
        return wrong_type(g, key, "an array of i32", e);
    *out = (int32_t)value;
    return PGRAD_OK;
}

pgrad_status pgrad__gguf_array_f32(const pgrad__gguf *g, const char *key, size_t index, float *out)
{
    const entry *e = NULL;
    PGRAD__TRY(find_element(g, key, index, &e));
    if (!real_at(g->data + e->at + index * TYPE_BYTES[e->element], e->element, out))
        return wrong_type(g, key, "an array of f32", e);
    return PGRAD_OK;
}
