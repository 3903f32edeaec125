/* Safetensors read: what a file has, and each way in which one may lie. Names carry the row (ST) of the
 * catalogue of bad files they check. */
#include <inttypes.h>
#include <pthread.h>

#include "safetensors_test.h"

static void loads(const char *header, size_t data_size, pgrad__tensor_set *set)
{
    OK(pgrad__safetensors_open(context, put_st("f", header, data_size), set));
}

static void refused(const char *row, const char *header, size_t data_size, pgrad_status code,
                    const char *text)
{
    pgrad__tensor_set set;
    pgrad_status status = pgrad__safetensors_open(context, put_st("f", header, data_size), &set);
    ck_assert_msg(status == code, "%s: %.100s: %s instead of %s: %s", row, header,
                  pgrad_status_name(status), pgrad_status_name(code), pgrad_error_message());
    ck_assert_msg(strstr(pgrad_error_message(), text) != NULL, "%s: %.100s: '%s' is not in '%s'",
                  row, header, text, pgrad_error_message());
}

#define TWO                                                                                        \
    "{\"b\":{\"dtype\":\"F32\",\"shape\":[2],\"data_offsets\":[4,12]},"                            \
    "\"a\":{\"dtype\":\"BF16\",\"shape\":[1,2],\"data_offsets\":[0,4]}}"

START_TEST(reads_names_types_shapes_places)
{
    pgrad__tensor_set set;
    float out[2];
    const uint32_t expected[2] = {0x07060504, 0x0b0a0908};
    loads(TWO, 12, &set);
    ck_assert_uint_eq(set.n_tensors, 2);
    const pgrad__tensor_view *a = pgrad__tensor_find(&set, "a"), *b = pgrad__tensor_find(&set, "b");
    ck_assert(a != NULL && b != NULL && pgrad__tensor_find(&set, "c") == NULL);
    ck_assert(a->type == PGRAD__ELEMENT_BF16 && a->n_dims == 2 && a->dims[0] == 1 &&
              a->dims[1] == 2);
    ck_assert(a->n_elements == 2 && a->n_bytes == 4 && a->offset == 8 + strlen(TWO));
    ck_assert_str_eq(a->type_name, "BF16");
    OK(pgrad__tensor_read(&set, b, 0, 2, out));
    ck_assert_mem_eq(out, expected, sizeof out);
    OK(pgrad__tensor_read(&set, a, 1, 1, out));
    ck_assert_mem_eq(out, &(uint32_t){0x03020000}, 4);
    pgrad__tensor_set_free(&set);
    pgrad__tensor_set_free(&set);
}
END_TEST

/* Opens the first `size` bytes of b. */
static pgrad_status open_cut(const bytes *b, size_t size)
{
    pgrad__tensor_set set;
    pgrad_status status = pgrad__safetensors_open(context, put_file("cut", b->data, size), &set);
    if (status == PGRAD_OK)
        pgrad__tensor_set_free(&set);
    return status;
}

START_TEST(st01_cut_at_every_byte)
{
    bytes b = {0};
    char header[2048] = "{", entry[128];
    for (unsigned i = 0; i < 17; i++) {
        snprintf(entry, sizeof entry,
                 "%s\"layers.%u.weight\":{\"dtype\":\"F32\",\"shape\":[4,3],"
                 "\"data_offsets\":[%u,%u]}",
                 i > 0 ? "," : "", i, 48 * i, 48 * i + 48);
        strcat(header, entry);
    }
    strcat(header, "}");
    put_number(&b, strlen(header), 8);
    put_text(&b, header);
    for (unsigned i = 0; i < 48 * 17; i++)
        put_number(&b, i, 1);
    ck_assert_uint_gt(b.size, 2000);
    OK(open_cut(&b, b.size));
    for (size_t size = 0; size < b.size; size++) {
        pgrad_status status = open_cut(&b, size);
        ck_assert_msg(status == PGRAD_E_FORMAT, "%zu bytes: %s", size, pgrad_status_name(status));
    }
    drop(&b);
}
END_TEST

/* Any byte of length and header changed to 0, 255, its complement or a neighbour: refused, or a file whose
 * tensors lie inside it and can be read. */
START_TEST(any_byte_changed)
{
    bytes b = {0};
    int refusals = 0;
    put_number(&b, strlen(TWO), 8);
    put_text(&b, TWO);
    const size_t n_header = b.size;
    for (int i = 0; i < 12; i++)
        put_number(&b, 0, 1);
    for (size_t i = 0; i < n_header; i++)
        for (int how = 0; how < 5; how++) {
            const unsigned char before = b.data[i];
            const unsigned char to[5] = {0, 255, (unsigned char)~before, (unsigned char)(before + 1),
                                         (unsigned char)(before - 1)};
            pgrad__tensor_set set;
            b.data[i] = to[how];
            pgrad_status status = pgrad__safetensors_open(context, put_file("f", b.data, b.size), &set);
            ck_assert_msg(status == PGRAD_OK || status == PGRAD_E_FORMAT || status == PGRAD_E_LIMIT ||
                              status == PGRAD_E_UNSUPPORTED,
                          "byte %zu to %u: %s", i, to[how], pgrad_status_name(status));
            refusals += status != PGRAD_OK;
            for (size_t t = 0; status == PGRAD_OK && t < set.n_tensors; t++) {
                const pgrad__tensor_view *tensor = &set.tensors[t];
                float out[8];
                ck_assert_uint_le(tensor->n_bytes, 12);
                ck_assert_uint_le(tensor->offset + tensor->n_bytes, b.size);
                if (tensor->type == PGRAD__ELEMENT_F32)
                    OK(pgrad__tensor_read(&set, tensor, 0, tensor->n_elements, out));
            }
            if (status == PGRAD_OK)
                pgrad__tensor_set_free(&set);
            b.data[i] = before;
        }
    ck_assert_int_gt(refusals, (int)n_header);
    drop(&b);
}
END_TEST

START_TEST(st01_header_of_0_or_1_bytes)
{
    refused("ST01", "", 0, PGRAD_E_FORMAT, "");
    refused("ST01", "{", 0, PGRAD_E_FORMAT, "");
    pgrad__tensor_set set;
    loads("{}", 0, &set);
    ck_assert_uint_eq(set.n_tensors, 0);
    pgrad__tensor_set_free(&set);
}
END_TEST

static const uint64_t WRONG_LENGTHS[] = {11,         (uint64_t)1 << 31, (uint64_t)1 << 63,
                                         UINT64_MAX, UINT64_MAX - 7,    UINT64_MAX - 8};

START_TEST(st02_header_length_beyond_the_file)
{
    bytes b = {0};
    put_number(&b, WRONG_LENGTHS[_i], 8);
    put_text(&b, "{}        "); /* 18 bytes: at most 10 are left */
    uint64_t before = context->n_allocations, peak = context->memory_peak;
    ck_assert_int_eq(open_cut(&b, b.size), PGRAD_E_FORMAT);
    ck_assert_uint_le(context->n_allocations - before, 4); /* nothing for the header */
    ck_assert_uint_le(context->memory_peak - peak, 4096);
    drop(&b);
}
END_TEST

START_TEST(st03_header_too_long)
{
    pgrad__tensor_set set;
    bytes b = {0};
    put_number(&b, 100000001, 8);
    const char *path = put_file("sparse", b.data, b.size);
    ck_assert_int_eq(truncate(path, 200 * 1000 * 1000), 0);
    FAILS(PGRAD_E_LIMIT, "100000000", pgrad__safetensors_open(context, path, &set));
    drop(&b);
}
END_TEST

#define ONE_BODY "\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}"

START_TEST(st04_white_space_around_the_header)
{
    pgrad__tensor_set set;
    loads(" \n\t\r{" ONE_BODY "}  \n", 4, &set);
    pgrad__tensor_set_free(&set);
}
END_TEST

START_TEST(st05_raw_nul)
{
    static const char HEADER[] =
        "{\"a\0b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    bytes b = {0};
    put_number(&b, sizeof HEADER - 1, 8);
    put(&b, HEADER, sizeof HEADER - 1);
    put_number(&b, 0, 4);
    ck_assert_int_eq(open_cut(&b, b.size), PGRAD_E_FORMAT);
    drop(&b);
}
END_TEST

/* ST06: 50 MB of brackets, on a thread whose stack is small: what a call promises to do with (context.h), or room for
 * a sanitizer's frames, not for a bomb's. */
#ifdef PGRAD_SANITIZED
enum { SMALL_STACK = 256 * 1024 };
#else
enum { SMALL_STACK = 64 * 1024 };
#endif

static void *open_bomb(void *path)
{
    pgrad__tensor_set set;
    return (void *)(intptr_t)pgrad__safetensors_open(context, path, &set);
}

START_TEST(st06_depth_bomb)
{
    const size_t size = 50 * 1000 * 1000;
    bytes b = {0};
    char *brackets = malloc(size);
    memset(brackets, '[', size);
    put_number(&b, size, 8);
    put(&b, brackets, size);
    free(brackets);
    const char *path = put_file("bomb", b.data, b.size);
    drop(&b);
    pthread_attr_t attributes;
    pthread_t thread;
    void *result;
    pthread_attr_init(&attributes);
    ck_assert_int_eq(pthread_attr_setstacksize(&attributes, SMALL_STACK), 0);
    ck_assert_int_eq(pthread_create(&thread, &attributes, open_bomb, (void *)(uintptr_t)path), 0);
    pthread_join(thread, &result);
    pthread_attr_destroy(&attributes);
    ck_assert_int_eq((intptr_t)result, PGRAD_E_FORMAT);
}
END_TEST

#define WITH_OFFSETS(o) "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":" o "}}"
#define WITH_SHAPE(s, o) "{\"t\":{\"dtype\":\"F32\",\"shape\":" s ",\"data_offsets\":" o "}}"
#define WITH_DTYPE(d, s, o) "{\"t\":{\"dtype\":" d ",\"shape\":" s ",\"data_offsets\":" o "}}"

static const struct {
    const char *row, *header;
    size_t data_size;
    const char *text;
} REFUSED[] = {
    {"ST04 byte order mark", "\xef\xbb\xbf{" ONE_BODY "}", 4, ""},
    {"ST04 array", "[" ONE_BODY "]", 4, ""},
    {"ST04 array of nothing", "[]", 0, "object"},
    {"ST04 string", "\"{}\"", 0, "object"},
    {"ST04 text behind", "{" ONE_BODY "}x", 4, ""},
    {"ST04 second value", "{" ONE_BODY "}{}", 4, ""},
    {"ST05 invalid", "{\"\xff\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ""},
    {"ST05 overlong", "{\"\xc0\xaf\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     ""},
    {"ST05 surrogate",
     "{\"\xed\xa0\xbd\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ""},
    {"ST05 lone escape", "{\"\\ud83d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
     4, ""},
    {"ST05 cut", "{\"\xf0\x9f\x98\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     ""},
    {"ST07 tensor twice", "{" ONE_BODY "," ONE_BODY "}", 4, "duplicate"},
    {"ST07 tensor twice, escaped",
     "{" ONE_BODY ",\"\\u0061\":{\"dtype\":\"F32\",\"shape\":[1],"
     "\"data_offsets\":[4,8]}}",
     8, "duplicate"},
    {"ST07 dtype twice",
     "{\"t\":{\"dtype\":\"F32\",\"dtype\":\"F32\",\"shape\":[1],"
     "\"data_offsets\":[0,4]}}",
     4, "duplicate"},
    {"ST07 offsets twice",
     "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],"
     "\"data_offsets\":[0,4]}}",
     4, "duplicate"},
    {"ST08 missing", "{\"t\":{\"dtype\":\"F32\",\"shape\":[1]}}", 4, "data_offsets"},
    {"ST08 none", WITH_OFFSETS("[]"), 4, "data_offsets"},
    {"ST08 one", WITH_OFFSETS("[0]"), 4, "array of two numbers, found an array"},
    {"ST08 three", WITH_OFFSETS("[0,4,8]"), 4, "data_offsets"},
    {"ST08 negative", WITH_OFFSETS("[-4,0]"), 4, "data_offsets"},
    {"ST08 exponent", WITH_OFFSETS("[0,4e0]"), 4, "data_offsets"},
    {"ST08 point", WITH_OFFSETS("[0,4.0]"), 4, "not negative, found 4.0"},
    {"ST08 > 2^53", WITH_OFFSETS("[0,9007199254740993]"), 4, "data_offsets"},
    {"ST08 > 2^63", WITH_OFFSETS("[0,9223372036854775808]"), 4, ""},
    {"ST08 > 2^64", WITH_OFFSETS("[0,18446744073709551620]"), 4, ""},
    {"ST08 string", WITH_OFFSETS("[\"0\",\"4\"]"), 4, "data_offsets"},
    {"ST08 object", WITH_OFFSETS("{}"), 4, "data_offsets"},
    {"ST08 null", WITH_OFFSETS("null"), 4, "data_offsets"},
    {"ST09 begin > end", WITH_OFFSETS("[4,0]"), 4, "data_offsets"},
    {"ST09 end past the file", WITH_OFFSETS("[0,4]"), 3, "'t'"},
    {"ST09 first not 0", WITH_OFFSETS("[4,8]"), 8, "'t'"},
    {"ST09 hole", "{" ONE_BODY ",\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[8,12]}}",
     12, "'t'"},
    {"ST09 trailing bytes", WITH_OFFSETS("[0,4]"), 5, ""},
    {"ST09 data and no tensor", "{}", 4, ""},
    {"ST10 overlap",
     "{" ONE_BODY ",\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[2,6]}}", 6, ""},
    {"ST10 same range",
     "{" ONE_BODY ",\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ""},
    {"ST12 product wraps to 4", WITH_SHAPE("[4194305,4194305,211106198978564]", "[0,16]"), 16,
     "overflow"},
    {"ST12 product wraps, then 0", WITH_SHAPE("[4611686018427387904,4,0]", "[0,0]"), 0, "overflow"},
    {"ST12 2^63", WITH_SHAPE("[9223372036854775808,4,0]", "[0,0]"), 0, ""},
    {"ST12 bits wrap", WITH_SHAPE("[1152921504606846976]", "[0,0]"), 0, ""},
    {"ST13 range too short", WITH_SHAPE("[2]", "[0,4]"), 4, "8 bytes"},
    {"ST13 range too long", WITH_SHAPE("[1]", "[0,8]"), 8, "8"},
    {"ST13 half a byte", WITH_DTYPE("\"F4\"", "[3]", "[0,2]"), 2, "'t'"},
    {"ST13 rank 9", WITH_SHAPE("[1,1,1,1,1,1,1,1,1]", "[0,4]"), 4, "shape"},
    {"ST13 negative", WITH_SHAPE("[-1]", "[0,4]"), 4, "shape: expected whole numbers"},
    {"ST13 real", WITH_SHAPE("[1.0]", "[0,4]"), 4, "not negative, found 1.0"},
    {"ST13 missing", "{\"t\":{\"dtype\":\"F32\",\"data_offsets\":[0,4]}}", 4, "shape"},
    {"ST13 no array", WITH_SHAPE("1", "[0,4]"), 4, "tensor 't': shape: expected an array, found 1"},
    {"ST14 number", WITH_DTYPE("7", "[1]", "[0,4]"), 4, "short string, found 7"},
    {"ST14 missing", "{\"t\":{\"shape\":[1],\"data_offsets\":[0,4]}}", 4, "dtype"},
    {"ST16 empty name", "{\"\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "name"},
    {"ST16 NUL", "{\"a\\u0000b\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4, ""},
    {"ST16 newline is shown escaped", "{\"a\\n\\u001b[31m\":7}", 0, "a\\x0a\\x1b[31m"},
    {"ST17 array", "{\"__metadata__\":[]}", 0, "__metadata__: expected an object of strings, found an array"},
    {"ST17 number", "{\"__metadata__\":{\"x\":1}}", 0, "__metadata__"},
    {"ST17 nested", "{\"__metadata__\":{\"x\":{}}}", 0, "__metadata__"},
    {"ST17 like a tensor",
     "{\"__metadata__\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", 4,
     "__metadata__"},
    {"entry is no object", "{\"t\":[]}", 0, "'t'"},
    {"depth beyond 4",
     "{\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4],\"x\":[[[[[]]]]]}}", 4, ""},
};

START_TEST(refuses)
{
    refused(REFUSED[_i].row, REFUSED[_i].header, REFUSED[_i].data_size, PGRAD_E_FORMAT,
            REFUSED[_i].text);
}
END_TEST

/* ST10: 100,000 tensors that all claim one range. */
START_TEST(st10_amplification)
{
    pgrad__tensor_set set;
    bytes b = {0};
    char entry[128];
    put_number(&b, 0, 8);
    put_text(&b, "{");
    for (int i = 0; i < 100000; i++) {
        snprintf(entry, sizeof entry,
                 "%s\"%d\":{\"dtype\":\"F32\",\"shape\":[40000],\"data_offsets\":[0,160000]}",
                 i > 0 ? "," : "", i);
        put_text(&b, entry);
    }
    put_text(&b, "}");
    const uint64_t header = b.size - 8;
    for (size_t i = 0; i < 8; i++)
        b.data[i] = (unsigned char)(header >> 8 * i);
    char *data = calloc(1, 160000);
    put(&b, data, 160000);
    FAILS(PGRAD_E_FORMAT, "data_offsets",
          pgrad__safetensors_open(context, put_file("f", b.data, b.size), &set));
    free(data);
    drop(&b);
}
END_TEST

START_TEST(st11_empty_tensors_share_an_offset)
{
    pgrad__tensor_set set;
    loads("{\"z\":{\"dtype\":\"F32\",\"shape\":[0,5],\"data_offsets\":[4,4]},"
          "\"y\":{\"dtype\":\"F32\",\"shape\":[],\"data_offsets\":[0,4]},"
          "\"x\":{\"dtype\":\"F32\",\"shape\":[5,0],\"data_offsets\":[4,4]},"
          "\"w\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]},"
          "\"v\":{\"dtype\":\"F32\",\"shape\":[0],\"data_offsets\":[0,0]}}",
          8, &set);
    const pgrad__tensor_view *scalar = pgrad__tensor_find(&set, "y"),
                             *empty = pgrad__tensor_find(&set, "z");
    ck_assert(set.n_tensors == 5 && scalar->n_dims == 0 && scalar->n_elements == 1);
    ck_assert(empty->n_elements == 0 && empty->n_dims == 2);
    float none[1];
    OK(pgrad__tensor_read(&set, empty, 0, 0, none));
    pgrad__tensor_set_free(&set);
}
END_TEST

/* ST14: types that are no weights are carried, and refused by name when they are read as such; so
 * is a type this library has never heard of. */
START_TEST(st14_other_types)
{
    static const struct {
        const char *name;
        unsigned bytes;
    } TYPES[] = {{"I64", 16}, {"BOOL", 2}, {"F8_E4M3", 2}, {"F4", 1},
                 {"C64", 16}, {"U16", 4},  {"F7", 5},      {"f32", 9}};
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        pgrad__tensor_set set;
        char header[256];
        float out[2];
        snprintf(header, sizeof header,
                 "{\"t\":{\"dtype\":\"%s\",\"shape\":[2],\"data_offsets\":[0,%u]}}", TYPES[i].name,
                 TYPES[i].bytes);
        loads(header, TYPES[i].bytes, &set);
        const pgrad__tensor_view *t = pgrad__tensor_find(&set, "t");
        ck_assert_int_eq(t->type, PGRAD__ELEMENT_OTHER);
        ck_assert_str_eq(t->type_name, TYPES[i].name);
        FAILS(PGRAD_E_UNSUPPORTED, "tensor 't'", pgrad__tensor_read(&set, t, 0, 2, out));
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), TYPES[i].name));
        pgrad__tensor_set_free(&set);
    }
}
END_TEST

/* ST15: as many tensors as a header of 100 MB holds are beyond the limit; 50,000 are read and
 * found. */
START_TEST(st15_many_tensors)
{
    pgrad__tensor_set set;
    bytes b = {0};
    char entry[128];
    const int n = 50000;
    put_text(&b, "{");
    for (int i = 0; i < n; i++) {
        snprintf(entry, sizeof entry,
                 "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                 i > 0 ? "," : "", i, n - 1 - i, n - i); /* last first */
        put_text(&b, entry);
    }
    put_text(&b, "}");
    put_number(&b, 0, 1);
    loads((char *)b.data, (size_t)n, &set);
    ck_assert_uint_eq(set.n_tensors, (size_t)n);
    for (int i = 0; i < n; i += 7) {
        snprintf(entry, sizeof entry, "%d", i);
        const pgrad__tensor_view *t = pgrad__tensor_find(&set, entry);
        ck_assert(t != NULL && t->offset == 8 + b.size - 1 + (uint64_t)(n - 1 - i));
    }
    pgrad__tensor_set_free(&set);
    drop(&b);
}
END_TEST

START_TEST(st16_long_names)
{
    static const char BODY[] = "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}";
    for (int longer = 0; longer < 3; longer++) {
        pgrad__tensor_set set;
        const size_t length = longer == 2 ? 1 << 20 : (size_t)4096 + (size_t)longer;
        char *header = calloc(1, length + sizeof BODY + 2);
        ck_assert_ptr_nonnull(header);
        strcpy(header, "{\"");
        memset(header + 2, 'n', length);
        strcpy(header + 2 + length, BODY);
        const char *path = put_st("f", header, 4);
        free(header);
        if (longer == 0) {
            OK(pgrad__safetensors_open(context, path, &set));
            pgrad__tensor_set_free(&set);
        } else {
            FAILS(PGRAD_E_LIMIT, "name", pgrad__safetensors_open(context, path, &set));
        }
    }
}
END_TEST

START_TEST(st17_metadata)
{
    pgrad__tensor_set set;
    loads("{\"__metadata__\":null," ONE_BODY "}", 4, &set);
    pgrad__tensor_set_free(&set);
    loads("{\"__metadata__\":{\"format\":\"pt\",\"\":\"\\u0000\"}," ONE_BODY "}", 4, &set);
    ck_assert_uint_eq(set.n_tensors, 1);
    pgrad__tensor_set_free(&set);
}
END_TEST

/* ST18, ST19: data at an odd address, values that are no numbers: both are read. */
START_TEST(st18_st19_unaligned_and_not_finite)
{
    static const char HEADER[] = "{\"b\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[0,1]},"
                                 "\"t\":{\"dtype\":\"F64\",\"shape\":[2],\"data_offsets\":[1,17]}}";
    const double values[2] = {0.0 / 0.0, 1.0 / 0.0};
    pgrad__tensor_set set;
    bytes b = {0};
    float out[2];
    ck_assert_uint_ne((sizeof HEADER - 1) % 8, 7);
    put_number(&b, sizeof HEADER - 1, 8);
    put_text(&b, HEADER);
    put_number(&b, 0, 1);
    put(&b, values, sizeof values);
    OK(pgrad__safetensors_open(context, put_file("f", b.data, b.size), &set));
    OK(pgrad__tensor_read(&set, pgrad__tensor_find(&set, "t"), 0, 2, out));
    ck_assert(out[0] != out[0] && out[1] > 3e38f);
    pgrad__tensor_set_free(&set);
    drop(&b);
}
END_TEST

START_TEST(unknown_members_of_an_entry_are_ignored)
{
    pgrad__tensor_set set;
    loads("{\"t\":{\"dtype\":\"F32\",\"x\":[1],\"shape\":[1],\"data_offsets\":[0,4]}}", 4, &set);
    pgrad__tensor_set_free(&set);
}
END_TEST

/* ST20: the file grows, then is cut, after its header was read. */
START_TEST(st20_grown_and_cut_while_loading)
{
    pgrad__tensor_set set;
    float out[2];
    const char *path = put_st("f", TWO, 12);
    OK(pgrad__safetensors_open(context, path, &set));
    ck_assert_int_eq(truncate(path, (off_t)(8 + strlen(TWO) + 12 + 4096)), 0);
    OK(pgrad__tensor_read(&set, pgrad__tensor_find(&set, "b"), 0, 2, out));
    ck_assert_int_eq(truncate(path, (off_t)(8 + strlen(TWO) + 5)), 0);
    FAILS(PGRAD_E_FORMAT, "tensor 'b'",
          pgrad__tensor_read(&set, pgrad__tensor_find(&set, "b"), 0, 2, out));
    OK(pgrad__tensor_read(&set, pgrad__tensor_find(&set, "a"), 0, 2, out));
    pgrad__tensor_set_free(&set);
}
END_TEST

/* ST22: a tensor beyond 2^32. */
START_TEST(st22_tensor_beyond_4_gib)
{
    pgrad__tensor_set set;
    float out;
    const uint64_t far = (uint64_t)5 << 30;
    char header[256];
    snprintf(header, sizeof header,
             "{\"a\":{\"dtype\":\"U8\",\"shape\":[%" PRIu64 "],\"data_offsets\":[0,%" PRIu64
             "]},\"t\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[%" PRIu64 ",%" PRIu64
             "]}}",
             far, far, far, far + 4);
    const char *path = put_st("f", header, 0);
    int descriptor = open(path, O_WRONLY);
    const float one = 1.0f;
    const int written = pwrite(descriptor, &one, 4, (off_t)(8 + strlen(header) + far)) == 4;
    close(descriptor);
    if (!written) {
        fprintf(stderr, "skipped: a file system without large files\n");
        return;
    }
    OK(pgrad__safetensors_open(context, path, &set));
    OK(pgrad__tensor_read(&set, pgrad__tensor_find(&set, "t"), 0, 1, &out));
    ck_assert(out == 1.0f);
    pgrad__tensor_set_free(&set);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, reads_names_types_shapes_places);
    tcase_add_test(tests, st01_cut_at_every_byte);
    tcase_add_test(tests, any_byte_changed);
    tcase_add_test(tests, st01_header_of_0_or_1_bytes);
    tcase_add_loop_test(tests, st02_header_length_beyond_the_file, 0,
                        sizeof WRONG_LENGTHS / sizeof WRONG_LENGTHS[0]);
    tcase_add_test(tests, st03_header_too_long);
    tcase_add_test(tests, st04_white_space_around_the_header);
    tcase_add_test(tests, st05_raw_nul);
    tcase_add_test(tests, st06_depth_bomb);
    tcase_add_loop_test(tests, refuses, 0, sizeof REFUSED / sizeof REFUSED[0]);
    tcase_add_test(tests, st10_amplification);
    tcase_add_test(tests, st11_empty_tensors_share_an_offset);
    tcase_add_test(tests, st14_other_types);
    tcase_add_test(tests, st15_many_tensors);
    tcase_add_test(tests, st16_long_names);
    tcase_add_test(tests, st17_metadata);
    tcase_add_test(tests, st18_st19_unaligned_and_not_finite);
    tcase_add_test(tests, unknown_members_of_an_entry_are_ignored);
    tcase_add_test(tests, st20_grown_and_cut_while_loading);
    tcase_add_test(tests, st22_tensor_beyond_4_gib);
}

int main(void)
{
    return run_case("io/safetensors", setup, teardown, 60, add);
}
