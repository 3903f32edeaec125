/* Every rule of the format is checked on the header before a tensor is placed: entries cover the
 * data without hole, overlap or rest, so that a file has one meaning only. */
#include "io/safetensors.h"

#include <stdlib.h>
#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/context.h"
#include "base/fail.h"
#include "base/hashmap.h"
#include "io/json.h"
#include "io/little_endian.h"

enum {
    MAX_HEADER = 100 * 1000 * 1000,
    MAX_TENSORS = 1000 * 1000,
    MAX_NAME = 4096,
    MAX_TYPE_NAME = 64,
    MAX_NESTED = 2 /* below a member of an entry */
};

/* Sizes in bits: some types are half a byte. */
static const struct dtype {
    const char *name;
    pgrad__element_type type;
    uint32_t bits;
} DTYPES[] = {
    {"F32", PGRAD__ELEMENT_F32, 32},          {"F16", PGRAD__ELEMENT_F16, 16},
    {"BF16", PGRAD__ELEMENT_BF16, 16},        {"F64", PGRAD__ELEMENT_F64, 64},
    {"BOOL", PGRAD__ELEMENT_OTHER, 8},        {"F4", PGRAD__ELEMENT_OTHER, 4},
    {"F6_E2M3", PGRAD__ELEMENT_OTHER, 6},     {"F6_E3M2", PGRAD__ELEMENT_OTHER, 6},
    {"U8", PGRAD__ELEMENT_OTHER, 8},          {"I8", PGRAD__ELEMENT_OTHER, 8},
    {"F8_E5M2", PGRAD__ELEMENT_OTHER, 8},     {"F8_E4M3", PGRAD__ELEMENT_OTHER, 8},
    {"F8_E8M0", PGRAD__ELEMENT_OTHER, 8},     {"F8_E4M3FNUZ", PGRAD__ELEMENT_OTHER, 8},
    {"F8_E5M2FNUZ", PGRAD__ELEMENT_OTHER, 8}, {"I16", PGRAD__ELEMENT_OTHER, 16},
    {"U16", PGRAD__ELEMENT_OTHER, 16},        {"I32", PGRAD__ELEMENT_OTHER, 32},
    {"U32", PGRAD__ELEMENT_OTHER, 32},        {"C64", PGRAD__ELEMENT_OTHER, 64},
    {"I64", PGRAD__ELEMENT_OTHER, 64},        {"U64", PGRAD__ELEMENT_OTHER, 64},
};

/* ---- one entry of the header ---- */

typedef struct reader {
    const char *path; /* shortened */
    pgrad_context *context;
    pgrad__tensor_set *set;
    size_t capacity;
    char *names; /* all names, one behind another; offsets until the end, then pointers */
    size_t names_length, names_capacity;
    uint32_t file;
    uint64_t data_start;
    uint64_t data_size;
    size_t first; /* index of this file's first tensor */
} reader;

static pgrad_status bad_field(const reader *r, const char *name, const char *what)
{
    return pgrad__fail(PGRAD_E_FORMAT, "%s: tensor '%.64s': %s", r->path, name, what);
}

static pgrad_status wrong_member(const reader *r, const char *name, const char *key,
                                 const char *expected, const pgrad__json *found)
{
    return pgrad__fail_in(pgrad__json_wrong(NULL, key, expected, found),
                          "%s: tensor '%.64s': ", r->path, name);
}

/* Gives NULL for a type that is not known: a later one of the format, say. Its tensor may be one
 * that nobody reads. */
static pgrad_status read_dtype(const reader *r, const char *name, const pgrad__json *entry,
                               const struct dtype **out, const char **text)
{
    size_t length;
    const pgrad__json *value = pgrad__json_get(entry, "dtype");
    *text = pgrad__json_string(value, &length);
    if (*text == NULL || length > MAX_TYPE_NAME || strlen(*text) != length)
        return wrong_member(r, name, "dtype", "a short string", value);
    *out = NULL;
    for (size_t i = 0; i < sizeof DTYPES / sizeof DTYPES[0]; i++)
        if (strcmp(DTYPES[i].name, *text) == 0)
            *out = &DTYPES[i];
    return PGRAD_OK;
}

static const char SIZES[] = "whole numbers that are not negative";

/* Whole, not negative, written as an integer: "1.0" and "1e3" are not. */
static int read_size(const pgrad__json *value, uint64_t *out)
{
    int64_t number;
    if (!pgrad__json_integer(value, &number) || number < 0 || pgrad__json_is_real(value))
        return 0;
    *out = (uint64_t)number;
    return 1;
}

static pgrad_status read_shape(const reader *r, const char *name, const pgrad__json *entry,
                               const struct dtype *dtype, pgrad__tensor_view *view)
{
    const pgrad__json *shape = pgrad__json_get(entry, "shape");
    size_t n = pgrad__json_count(shape), elements = 1, bits;
    if (pgrad__json_type(shape) != PGRAD__JSON_ARRAY)
        return wrong_member(r, name, "shape", "an array", shape);
    if (n > PGRAD__MAX_DIMS)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: tensor '%.64s': shape: at most %d dimensions, found %zu", r->path,
                           name, PGRAD__MAX_DIMS, n);
    for (size_t i = 0; i < n; i++) {
        const pgrad__json *dim = pgrad__json_at(shape, i);
        if (!read_size(dim, &view->dims[i]))
            return wrong_member(r, name, "shape", SIZES, dim);
        if (!pgrad__mul(elements, view->dims[i], &elements))
            return bad_field(r, name, "shape: the product of the dimensions overflows");
    }
    view->n_dims = (uint32_t)n;
    view->n_elements = elements;
    if (dtype == NULL)
        return PGRAD_OK;
    if (!pgrad__mul(elements, dtype->bits, &bits) || bits % 8 != 0)
        return bad_field(r, name,
                         "shape and dtype: no whole number of bytes, or one that overflows");
    view->n_bytes = bits / 8;
    return PGRAD_OK;
}

static pgrad_status read_offsets(const reader *r, const char *name, const pgrad__json *entry,
                                 const struct dtype *dtype, pgrad__tensor_view *view)
{
    const pgrad__json *offsets = pgrad__json_get(entry, "data_offsets");
    const pgrad__json *first = pgrad__json_at(offsets, 0), *second = pgrad__json_at(offsets, 1);
    uint64_t begin, end;
    if (pgrad__json_type(offsets) != PGRAD__JSON_ARRAY || pgrad__json_count(offsets) != 2)
        return wrong_member(r, name, "data_offsets", "an array of two numbers", offsets);
    if (!read_size(first, &begin))
        return wrong_member(r, name, "data_offsets", SIZES, first);
    if (!read_size(second, &end))
        return wrong_member(r, name, "data_offsets", SIZES, second);
    if (begin > end || end > r->data_size)
        return pgrad__fail(
            PGRAD_E_FORMAT,
            "%s: tensor '%.64s': data_offsets: expected at most %llu, found %llu to %llu", r->path,
            name, (unsigned long long)r->data_size, (unsigned long long)begin,
            (unsigned long long)end);
    if (dtype == NULL)
        view->n_bytes = end - begin; /* nothing to hold it against */
    if (end - begin != view->n_bytes)
        return pgrad__fail(
            PGRAD_E_FORMAT,
            "%s: tensor '%.64s': dtype and shape need %llu bytes, data_offsets give %llu", r->path,
            name, (unsigned long long)view->n_bytes, (unsigned long long)(end - begin));
    view->offset = r->data_start + begin;
    return PGRAD_OK;
}

/* 1 when value holds arrays and objects at most `levels` deep. */
static int is_shallow(const pgrad__json *value, int levels)
{
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *member;
    const int type = pgrad__json_type(value);
    if (type != PGRAD__JSON_ARRAY && type != PGRAD__JSON_OBJECT)
        return 1;
    if (levels == 0)
        return 0;
    for (size_t i = 0; type == PGRAD__JSON_ARRAY && i < pgrad__json_count(value); i++)
        if (!is_shallow(pgrad__json_at(value, i), levels - 1))
            return 0;
    while (type == PGRAD__JSON_OBJECT && pgrad__json_next(value, &iterator, &key, &length, &member))
        if (!is_shallow(member, levels - 1))
            return 0;
    return 1;
}

/* Keeps a name, and behind it the name of its type when that is not known. Both are offsets until
 * settle_names makes them pointers. */
static pgrad_status keep_names(reader *r, const char *name, const char *type,
                               pgrad__tensor_view *view)
{
    const size_t length = strlen(name) + 1, more = type == NULL ? 0 : strlen(type) + 1;
    PGRAD__TRY(pgrad__reserve(r->context, &r->names, &r->names_capacity,
                              r->names_length + length + more, 1));
    view->name = (const char *)(uintptr_t)r->names_length;
    memcpy(r->names + r->names_length, name, length);
    if (type != NULL)
        memcpy(r->names + r->names_length + length, type, more);
    r->names_length += length + more;
    return PGRAD_OK;
}

static pgrad_status check_name(const reader *r, const char *name, size_t length)
{
    if (length == 0 || memchr(name, '\0', length) != NULL)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: a tensor name is empty or holds a NUL", r->path);
    if (length > MAX_NAME)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: a tensor name of %zu bytes, at most %d are read",
                           r->path, length, MAX_NAME);
    if (r->set->n_tensors >= MAX_TENSORS)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: more than %d tensors", r->path, MAX_TENSORS);
    return PGRAD_OK;
}

static pgrad_status read_entry(reader *r, const char *name, size_t length, const pgrad__json *entry)
{
    pgrad__tensor_view view = {.file = r->file, .type = PGRAD__ELEMENT_OTHER};
    const struct dtype *dtype = NULL;
    const char *type_name;
    PGRAD__TRY(check_name(r, name, length));
    if (pgrad__json_type(entry) != PGRAD__JSON_OBJECT)
        return bad_field(r, name, "expected an object");
    if (!is_shallow(entry, MAX_NESTED + 1))
        return bad_field(r, name, "arrays and objects are nested too deep");
    PGRAD__TRY(read_dtype(r, name, entry, &dtype, &type_name));
    PGRAD__TRY(read_shape(r, name, entry, dtype, &view));
    PGRAD__TRY(read_offsets(r, name, entry, dtype, &view));
    if (dtype != NULL) {
        view.type = dtype->type;
        view.type_name = dtype->name;
    }
    PGRAD__TRY(keep_names(r, name, dtype == NULL ? type_name : NULL, &view));
    PGRAD__TRY(pgrad__reserve(r->context, &r->set->tensors, &r->capacity, r->set->n_tensors + 1,
                              sizeof view));
    r->set->tensors[r->set->n_tensors++] = view;
    return PGRAD_OK;
}

/* ---- the whole header ---- */

static int by_offset(const void *a, const void *b)
{
    const pgrad__tensor_view *x = a, *y = b;
    if (x->offset != y->offset)
        return x->offset < y->offset ? -1 : 1;
    return x->n_bytes < y->n_bytes ? -1 : x->n_bytes > y->n_bytes;
}

/* The tensors, in the order of their data, touch one another from the first byte to the last. */
static pgrad_status check_coverage(const reader *r)
{
    const size_t n = r->set->n_tensors - r->first;
    uint64_t at = r->data_start;
    pgrad__tensor_view *tensors = n > 0 ? r->set->tensors + r->first : NULL;
    if (n > 0)
        qsort(tensors, n, sizeof *tensors, by_offset);
    for (size_t i = 0; i < n; i++) {
        if (tensors[i].offset != at)
            return pgrad__fail(
                PGRAD_E_FORMAT,
                "%s: tensor '%.64s': data_offsets: a %s before it: expected %llu, found %llu",
                r->path, r->names + (uintptr_t)tensors[i].name,
                tensors[i].offset > at ? "hole" : "tensor overlaps",
                (unsigned long long)(at - r->data_start),
                (unsigned long long)(tensors[i].offset - r->data_start));
        at += tensors[i].n_bytes;
    }
    if (at != r->data_start + r->data_size)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: %llu bytes behind the last tensor belong to none",
                           r->path, (unsigned long long)(r->data_start + r->data_size - at));
    return PGRAD_OK;
}

static pgrad_status check_metadata(const reader *r, const pgrad__json *metadata)
{
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *value;
    if (pgrad__json_type(metadata) == PGRAD__JSON_NULL)
        return PGRAD_OK;
    if (pgrad__json_type(metadata) != PGRAD__JSON_OBJECT)
        return pgrad__fail_in(
            pgrad__json_wrong(NULL, "__metadata__", "an object of strings", metadata),
            "%s: ", r->path);
    while (pgrad__json_next(metadata, &iterator, &key, &length, &value))
        if (pgrad__json_type(value) != PGRAD__JSON_STRING)
            return pgrad__fail(PGRAD_E_FORMAT, "%s: __metadata__.%.64s: expected a string", r->path,
                               key);
    return PGRAD_OK;
}

static pgrad_status read_entries(reader *r, const pgrad__json *root)
{
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *value;
    if (pgrad__json_type(root) != PGRAD__JSON_OBJECT)
        return pgrad__fail_in(pgrad__json_wrong(NULL, "header", "an object", root),
                              "%s: ", r->path);
    while (pgrad__json_next(root, &iterator, &key, &length, &value)) {
        if (strcmp(key, "__metadata__") == 0)
            PGRAD__TRY(check_metadata(r, value));
        else
            PGRAD__TRY(read_entry(r, key, length, value));
    }
    return check_coverage(r);
}

static pgrad_status read_header(reader *r, pgrad__file *file)
{
    unsigned char prefix[8];
    char *text = NULL;
    pgrad__json *root = NULL;
    if (file->size < sizeof prefix)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: too small: expected at least 8 bytes, found %llu",
                           r->path, (unsigned long long)file->size);
    PGRAD__TRY(pgrad__file_read(file, 0, prefix, sizeof prefix));
    const uint64_t size = pgrad__get_u64(prefix);
    if (size > file->size - sizeof prefix)
        return pgrad__fail(PGRAD_E_FORMAT,
                           "%s: header length %llu is more than the file's %llu bytes hold",
                           r->path, (unsigned long long)size, (unsigned long long)file->size);
    if (size > MAX_HEADER)
        return pgrad__fail(PGRAD_E_LIMIT, "%s: header length: at most %d, found %llu", r->path,
                           MAX_HEADER, (unsigned long long)size);
    PGRAD__TRY(pgrad__alloc(r->context, (size_t)size + 1, 1, &text));
    pgrad_status status = pgrad__file_read(file, sizeof prefix, text, (size_t)size);
    if (status == PGRAD_OK)
        status = pgrad__json_parse(r->context, text, (size_t)size, file->path, &root);
    pgrad__free(r->context, text);
    PGRAD__TRY(status);
    r->data_start = sizeof prefix + size;
    r->data_size = file->size - r->data_start;
    r->first = r->set->n_tensors;
    status = read_entries(r, root);
    pgrad__json_free(root);
    return status;
}

/* The names do not move any more: offsets become pointers, and the set takes the names over. */
static pgrad_status settle_names(reader *r)
{
    for (size_t i = 0; i < r->set->n_tensors; i++) {
        pgrad__tensor_view *view = &r->set->tensors[i];
        view->name = r->names + (uintptr_t)view->name;
        if (view->type_name == NULL)
            view->type_name = view->name + strlen(view->name) + 1;
    }
    r->set->owned = r->names;
    r->names = NULL;
    return pgrad__tensor_set_finish(r->set);
}

static pgrad_status read_file(reader *r, const char *path)
{
    char text[PGRAD__PATH_MAX];
    pgrad__file *file = &r->set->files[r->set->n_files];
    r->path = pgrad__path_text(text, path);
    PGRAD__TRY(pgrad__file_open(r->context, path, file));
    r->file = r->set->n_files++;
    return read_header(r, file);
}

pgrad_status pgrad__safetensors_open(pgrad_context *context, const char *path,
                                     pgrad__tensor_set *set)
{
    pgrad_status status = PGRAD_OK;
    memset(set, 0, sizeof *set);
    set->context = context;
    reader r = {.context = context, .set = set};
    PGRAD__GO(pgrad__alloc(context, 1, sizeof *set->files, &set->files));
    PGRAD__GO(read_file(&r, path));
    PGRAD__GO(settle_names(&r));
    return PGRAD_OK;
fail:
    pgrad__free(context, r.names);
    pgrad__tensor_set_free(set);
    return status;
}

/* ---- shards ---- */

typedef struct index_reader {
    reader *r;
    const char *path; /* of the index, shortened */
    const char *folder;
    const pgrad__json *map;
    pgrad__hashmap shards; /* names, borrowed from the JSON, to files of the set */
} index_reader;

/* Opens the shard unless it is open already. */
static pgrad_status open_shard(index_reader *in, const char *name, size_t length)
{
    reader *r = in->r;
    uint32_t number;
    char *path;
    if (pgrad__hashmap_get(&in->shards, name, length, &number))
        return PGRAD_OK;
    if (r->set->n_files >= PGRAD__MAX_SHARDS)
        return pgrad__fail(PGRAD_E_LIMIT, "more than %d shards", PGRAD__MAX_SHARDS);
    number = r->set->n_files;
    PGRAD__TRY(
        pgrad__realloc(r->context, &r->set->files, (size_t)number + 1, sizeof *r->set->files));
    PGRAD__TRY(pgrad__path_join(r->context, in->folder, name, &path));
    pgrad_status status = read_file(r, path);
    pgrad__free(r->context, path);
    PGRAD__TRY(status);
    return pgrad__hashmap_put(&in->shards, name, length, number, NULL);
}

static pgrad_status open_shards(index_reader *in)
{
    void *iterator = NULL;
    const char *key;
    size_t key_length, length;
    const pgrad__json *value;
    while (pgrad__json_next(in->map, &iterator, &key, &key_length, &value)) {
        const char *shard = pgrad__json_string(value, &length);
        if (shard == NULL || !pgrad__path_is_plain(shard, length))
            return pgrad__fail(
                PGRAD_E_FORMAT,
                "%s: weight_map: '%.64s': expected a plain file name, found \"%.64s\"", in->path,
                key, shard == NULL ? "" : shard);
        pgrad_status status = open_shard(in, shard, length);
        if (status != PGRAD_OK)
            return pgrad__fail_in(status, "%s: weight_map: '%.64s': ", in->path, key);
    }
    return PGRAD_OK;
}

/* Every mapped tensor is in the shard the index says. */
static pgrad_status check_mapped(const index_reader *in)
{
    void *iterator = NULL;
    const char *key;
    size_t key_length, length;
    const pgrad__json *value;
    while (pgrad__json_next(in->map, &iterator, &key, &key_length, &value)) {
        const char *shard = pgrad__json_string(value, &length);
        const pgrad__tensor_view *view = pgrad__tensor_find(in->r->set, key);
        uint32_t number = 0;
        (void)pgrad__hashmap_get(&in->shards, shard, length, &number);
        if (view == NULL || view->file != number)
            return pgrad__fail(PGRAD_E_FORMAT,
                               "%s: weight_map: tensor '%.64s' is not in its shard '%.64s'",
                               in->path, key, shard);
    }
    return PGRAD_OK;
}

/* The size in the index is for people: wild files have it wrong. */
static void compare_total_size(const index_reader *in, const pgrad__json *root)
{
    int64_t told;
    uint64_t found = 0;
    const pgrad__json *metadata = pgrad__json_get(root, "metadata");
    if (!pgrad__json_integer(pgrad__json_get(metadata, "total_size"), &told))
        return;
    for (size_t i = 0; i < in->r->set->n_tensors; i++)
        found += in->r->set->tensors[i].n_bytes;
    if (told < 0 || (uint64_t)told != found)
        pgrad__log_line(in->r->context, PGRAD_LOG_WARNING,
                        "%s: metadata.total_size is %lld, the tensors have %llu bytes", in->path,
                        (long long)told, (unsigned long long)found);
}

static pgrad_status read_index(index_reader *in, const pgrad__json *root)
{
    in->map = pgrad__json_get(root, "weight_map");
    if (pgrad__json_type(in->map) != PGRAD__JSON_OBJECT || pgrad__json_count(in->map) == 0)
        return pgrad__fail(PGRAD_E_FORMAT, "%s: weight_map: expected an object that names tensors",
                           in->path);
    PGRAD__TRY(pgrad__hashmap_init(&in->shards, in->r->context, 0));
    PGRAD__TRY(open_shards(in));
    PGRAD__TRY(settle_names(in->r));
    PGRAD__TRY(check_mapped(in));
    compare_total_size(in, root);
    return PGRAD_OK;
}

pgrad_status pgrad__safetensors_open_index(pgrad_context *context, const char *folder,
                                           const char *index_path, pgrad__tensor_set *set)
{
    char text[PGRAD__PATH_MAX];
    pgrad__json *root = NULL;
    memset(set, 0, sizeof *set);
    PGRAD__TRY(pgrad__json_load(context, index_path, MAX_HEADER, &root));
    set->context = context;
    reader r = {.context = context, .set = set};
    index_reader in = {.r = &r, .path = pgrad__path_text(text, index_path), .folder = folder};
    pgrad_status status = read_index(&in, root);
    pgrad__hashmap_free(&in.shards);
    pgrad__json_free(root);
    if (status != PGRAD_OK) {
        pgrad__free(context, r.names);
        pgrad__tensor_set_free(set);
    }
    return status;
}
