#include "io/gguf.h"

#include <math.h>

#include "io_test.h"

enum { U8, I8, U16, I16, U32, I32, F32, BOOL, STRING, ARRAY, U64, I64, F64 };
enum { T_F32 = 0, T_Q4_1 = 3, T_Q8_0 = 8, T_IQ4_XS = 23, T_I8 = 24, T_BF16 = 30 };

/* ---- files put together by hand ---- */

static void put_string(bytes *b, const char *text)
{
    put_number(b, strlen(text), 8);
    put_text(b, text);
}

static void put_head(bytes *b, uint32_t version, uint64_t n_tensors, uint64_t n_keys)
{
    put_text(b, "GGUF");
    put_number(b, version, 4);
    put_number(b, n_tensors, 8);
    put_number(b, n_keys, 8);
}

static void put_key(bytes *b, const char *key, uint32_t type)
{
    put_string(b, key);
    put_number(b, type, 4);
}

static void put_integer(bytes *b, const char *key, uint32_t type, uint64_t value)
{
    static const unsigned char SIZES[] = {1, 1, 2, 2, 4, 4, 4, 1, 0, 0, 8, 8, 8};
    put_key(b, key, type);
    put_number(b, value, SIZES[type]);
}

static void put_array(bytes *b, const char *key, uint32_t element, uint64_t count)
{
    put_key(b, key, ARRAY);
    put_number(b, element, 4);
    put_number(b, count, 8);
}

static void put_tensor(bytes *b, const char *name, uint32_t n_dims, const uint64_t *dims,
                       uint32_t type, uint64_t offset)
{
    put_string(b, name);
    put_number(b, n_dims, 4);
    for (uint32_t i = 0; i < n_dims; i++)
        put_number(b, dims[i], 8);
    put_number(b, type, 4);
    put_number(b, offset, 8);
}

static void pad_to(bytes *b, size_t alignment)
{
    while (b->size % alignment != 0)
        put_number(b, 0, 1);
}

/* Opens, and drops the bytes. */
static pgrad_status open_bytes(bytes *b, pgrad__gguf **out)
{
    const char *path = put_file("f.gguf", b->data, b->size);
    drop(b);
    return pgrad__gguf_open(context, path, out);
}

static void refused(const char *row, bytes *b, pgrad_status code, const char *text)
{
    pgrad__gguf *gguf = NULL;
    pgrad_status status = open_bytes(b, &gguf);
    ck_assert_msg(status == code, "%s: %s instead of %s: %s", row, pgrad_status_name(status),
                  pgrad_status_name(code), pgrad_error_message());
    ck_assert_msg(strstr(pgrad_error_message(), text) != NULL, "%s: '%s' is not in '%s'", row, text,
                  pgrad_error_message());
    ck_assert_ptr_null(gguf);
}

/* Some 2 KiB with everything in it: every type of value, arrays, two tensors, 64-byte alignment. */
static void put_sample(bytes *b)
{
    static const double PI = 3.141592653589793;
    const float half = 0.5f;
    put_head(b, 3, 3, 17);
    put_key(b, "general.architecture", STRING);
    put_string(b, "llama");
    put_integer(b, "general.alignment", U32, 64);
    put_integer(b, "u8", U8, 200);
    put_integer(b, "i8", I8, (uint64_t)-2);
    put_integer(b, "u16", U16, 65535);
    put_integer(b, "i16", I16, (uint64_t)-3);
    put_integer(b, "i32", I32, (uint64_t)-4);
    put_integer(b, "u64", U64, (uint64_t)1 << 40);
    put_integer(b, "i64", I64, 77);
    put_integer(b, "yes", BOOL, 1);
    put_key(b, "f32", F32);
    put(b, &half, 4);
    put_key(b, "f64", F64);
    put(b, &PI, 8);
    put_array(b, "strings", STRING, 5);
    put_string(b, "one");
    put_string(b, "");
    put_string(b, "three");
    put_number(b, 3, 8);
    put(b, "a\0b", 3);
    put_string(b, "\xff\xfe"); /* tokens may be any bytes */
    put_array(b, "i32s", I32, 3);
    put_number(b, 1, 4), put_number(b, (uint32_t)-1, 4), put_number(b, 7, 4);
    put_array(b, "u64s", U64, 2);
    put_number(b, 5, 8), put_number(b, (uint64_t)1 << 33, 8);
    put_array(b, "flags", BOOL, 2);
    put_number(b, 1, 1), put_number(b, 0, 1);
    put_array(b, "f32s", F32, 1);
    put(b, &half, 4);
    put_tensor(b, "embed", 2, (uint64_t[]){3, 2}, T_F32, 0);
    put_tensor(b, "quant", 2, (uint64_t[]){32, 2}, T_Q8_0, 64);
    put_tensor(b, "other", 1, (uint64_t[]){256}, T_IQ4_XS, 192);
    pad_to(b, 64);
    for (uint32_t i = 0; i < 6; i++) {
        const float value = (float)i;
        put(b, &value, 4);
    }
    pad_to(b, 64);
    for (int block = 0; block < 2; block++) {
        put_number(b, block == 0 ? 0x3c00 : 0xc000, 2); /* 1, -2 */
        for (unsigned i = 0; i < 32; i++)
            put_number(b, i - 16, 1);
    }
    pad_to(b, 64);
    for (int i = 0; i < 136; i++)
        put_number(b, 0, 1);
}

START_TEST(reads_a_sample)
{
    pgrad__gguf *gguf;
    bytes b = {0};
    float out[64];
    put_sample(&b);
    OK(open_bytes(&b, &gguf));
    ck_assert_str_eq(pgrad__gguf_path(gguf), in_folder("f.gguf"));
    const pgrad__tensor_set *set = pgrad__gguf_tensors(gguf);
    ck_assert_uint_eq(set->n_tensors, 3);
    const pgrad__tensor_view *embed = pgrad__tensor_find(set, "embed"),
                             *quant = pgrad__tensor_find(set, "quant");
    ck_assert(embed->n_dims == 2 && embed->dims[0] == 2 &&
              embed->dims[1] == 3); /* outermost first */
    OK(pgrad__tensor_read(set, embed, 0, 6, out));
    for (int i = 0; i < 6; i++)
        ck_assert(out[i] == (float)i);
    ck_assert(quant->type == PGRAD__ELEMENT_Q8_0 && quant->n_bytes == 68 &&
              quant->offset % 64 == 0);
    OK(pgrad__tensor_read(set, quant, 0, 64, out));
    for (int i = 0; i < 64; i++)
        ck_assert(out[i] == (i < 32 ? 1.0f : -2.0f) * (float)(i % 32 - 16));
    OK(pgrad__tensor_read(set, quant, 32, 32, out));
    ck_assert(out[0] == 32.0f);
    const pgrad__tensor_view *other = pgrad__tensor_find(set, "other");
    ck_assert_str_eq(other->type_name, "IQ4_XS");
    FAILS(PGRAD_E_UNSUPPORTED, "tensor 'other': type IQ4_XS",
          pgrad__tensor_read(set, other, 0, 256, out));
    pgrad__gguf_free(gguf);
    pgrad__gguf_free(NULL);
}
END_TEST

START_TEST(gg18_values_by_type)
{
    pgrad__gguf *gguf;
    bytes b = {0};
    uint32_t u = 0;
    float f = 0;
    int flag = 7;
    const char *text = NULL;
    size_t n = 0;
    int32_t i = 0;
    put_sample(&b);
    OK(open_bytes(&b, &gguf));
    static const struct {
        const char *key;
        uint32_t value;
    } INTEGERS[] = {{"u8", 200}, {"u16", 65535}, {"general.alignment", 64}, {"i64", 77}};
    for (size_t k = 0; k < sizeof INTEGERS / sizeof INTEGERS[0]; k++) {
        OK(pgrad__gguf_u32(gguf, INTEGERS[k].key, &u));
        ck_assert_uint_eq(u, INTEGERS[k].value);
    }
    static const char *const NO_U32[] = {"i8",     "i16", "i32",     "u64",  "yes",
                                         "f32",    "f64", "strings", "i32s", "general.architecture",
                                         "missing"};
    for (size_t k = 0; k < sizeof NO_U32 / sizeof NO_U32[0]; k++)
        FAILS(PGRAD_E_FORMAT, NO_U32[k], pgrad__gguf_u32(gguf, NO_U32[k], &u));
    ck_assert_uint_eq(u, 77); /* left alone */
    OK(pgrad__gguf_f32(gguf, "f32", &f));
    ck_assert(f == 0.5f);
    OK(pgrad__gguf_f32(gguf, "f64", &f));
    ck_assert(f == 3.14159274f);
    FAILS(PGRAD_E_FORMAT, "u8", pgrad__gguf_f32(gguf, "u8", &f));
    FAILS(PGRAD_E_FORMAT, "general.architecture",
          pgrad__gguf_f32(gguf, "general.architecture", &f));
    OK(pgrad__gguf_bool(gguf, "yes", &flag));
    ck_assert_int_eq(flag, 1);
    FAILS(PGRAD_E_FORMAT, "u8", pgrad__gguf_bool(gguf, "u8", &flag));
    OK(pgrad__gguf_string(gguf, "general.architecture", &text, &n));
    ck_assert(n == 5 && memcmp(text, "llama", 5) == 0);
    FAILS(PGRAD_E_FORMAT, "expected a string", pgrad__gguf_string(gguf, "u8", &text, &n));
    FAILS(PGRAD_E_FORMAT, "missing", pgrad__gguf_string(gguf, "missing", &text, &n));
    OK(pgrad__gguf_array_count(gguf, "strings", &n));
    ck_assert_uint_eq(n, 5);
    OK(pgrad__gguf_array_string(gguf, "strings", 2, &text, &n));
    ck_assert(n == 5 && memcmp(text, "three", 5) == 0);
    OK(pgrad__gguf_array_string(gguf, "strings", 3, &text, &n));
    ck_assert(n == 3 && memcmp(text, "a\0b", 3) == 0);
    OK(pgrad__gguf_array_string(gguf, "strings", 1, &text, &n));
    ck_assert_uint_eq(n, 0);
    OK(pgrad__gguf_array_string(gguf, "strings", 4, &text, &n));
    ck_assert(n == 2 && memcmp(text, "\xff\xfe", 2) == 0);
    FAILS(PGRAD_E_FORMAT, "strings", pgrad__gguf_array_string(gguf, "strings", 5, &text, &n));
    FAILS(PGRAD_E_FORMAT, "strings",
          pgrad__gguf_array_string(gguf, "strings", SIZE_MAX, &text, &n));
    FAILS(PGRAD_E_FORMAT, "i32s", pgrad__gguf_array_string(gguf, "i32s", 0, &text, &n));
    FAILS(PGRAD_E_FORMAT, "u8", pgrad__gguf_array_string(gguf, "u8", 0, &text, &n));
    OK(pgrad__gguf_array_i32(gguf, "i32s", 1, &i));
    ck_assert_int_eq(i, -1);
    OK(pgrad__gguf_array_i32(gguf, "u64s", 0, &i));
    ck_assert_int_eq(i, 5);
    OK(pgrad__gguf_array_i32(gguf, "flags", 0, &i));
    ck_assert_int_eq(i, 1);
    FAILS(PGRAD_E_FORMAT, "u64s", pgrad__gguf_array_i32(gguf, "u64s", 1, &i)); /* too large */
    FAILS(PGRAD_E_FORMAT, "i32s", pgrad__gguf_array_i32(gguf, "i32s", 3, &i));
    FAILS(PGRAD_E_FORMAT, "f32s", pgrad__gguf_array_i32(gguf, "f32s", 0, &i));
    FAILS(PGRAD_E_FORMAT, "strings", pgrad__gguf_array_i32(gguf, "strings", 0, &i));
    OK(pgrad__gguf_array_f32(gguf, "f32s", 0, &f));
    ck_assert(f == 0.5f);
    FAILS(PGRAD_E_FORMAT, "flags", pgrad__gguf_array_f32(gguf, "flags", 1, &f));
    FAILS(PGRAD_E_FORMAT, "missing", pgrad__gguf_array_count(gguf, "missing", &n));
    ck_assert(pgrad__gguf_has(gguf, "yes") && !pgrad__gguf_has(gguf, "ye") &&
              !pgrad__gguf_has(gguf, ""));
    pgrad__gguf_free(gguf);
}
END_TEST

/* GG01, GG17: also with memory that runs out at every allocation. */
START_TEST(gg01_cut_at_every_byte)
{
    bytes b = {0};
    put_sample(&b);
    for (size_t size = 0; size <= b.size; size++) {
        pgrad__gguf *gguf = NULL;
        pgrad_status status = pgrad__gguf_open(context, put_file("cut", b.data, size), &gguf);
        if (size == b.size)
            OK(status);
        else
            ck_assert_msg(status == PGRAD_E_FORMAT || status == PGRAD_E_LIMIT, "%zu bytes: %s",
                          size, pgrad_status_name(status));
        pgrad__gguf_free(gguf);
    }
    drop(&b);
}
END_TEST

START_TEST(gg17_memory_runs_out)
{
    bytes b = {0};
    put_sample(&b);
    const char *path = put_file("f", b.data, b.size);
    drop(&b);
    int failures = 0;
    for (uint64_t limit = 64;; limit += 64) {
        pgrad__gguf *gguf = NULL;
        context->memory_limit = context->memory_now + limit;
        pgrad_status status = pgrad__gguf_open(context, path, &gguf);
        context->memory_limit = 0;
        pgrad__gguf_free(gguf);
        ck_assert_uint_eq(context->memory_now, memory_before);
        if (status == PGRAD_OK)
            break;
        ck_assert_int_eq(status, PGRAD_E_LIMIT);
        failures++;
    }
    ck_assert_int_gt(failures, 5);
}
END_TEST

/* Any byte of the sample changed to 0, 255 or its complement: an error or a file, never worse. */
START_TEST(gg17_any_byte_changed)
{
    bytes b = {0};
    put_sample(&b);
    for (size_t i = 0; i < b.size; i++)
        for (int how = 0; how < 3; how++) {
            const unsigned char before = b.data[i];
            pgrad__gguf *gguf = NULL;
            b.data[i] = how == 0 ? 0 : how == 1 ? 255 : (unsigned char)~before;
            pgrad_status status = pgrad__gguf_open(context, put_file("f", b.data, b.size), &gguf);
            ck_assert(status == PGRAD_OK || status == PGRAD_E_FORMAT || status == PGRAD_E_LIMIT ||
                      status == PGRAD_E_UNSUPPORTED);
            pgrad__gguf_free(gguf);
            b.data[i] = before;
        }
    drop(&b);
}
END_TEST

START_TEST(gg01_wrong_magic)
{
    static const char *const WRONG[] = {"GGJT", "PK\3\4", "gguf", "FUGG"};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        bytes b = {0};
        put_head(&b, 3, 0, 0);
        memcpy(b.data, WRONG[i], 4);
        refused("GG01", &b, PGRAD_E_FORMAT, "GGUF");
    }
    bytes zeros = {0};
    for (int i = 0; i < 64; i++)
        put_number(&zeros, 0, 1);
    refused("GG01 zeros", &zeros, PGRAD_E_FORMAT, "GGUF");
}
END_TEST

START_TEST(gg02_versions)
{
    static const struct {
        uint32_t version;
        const char *text;
    } WRONG[] = {
        {0, ""}, {1, "version"}, {4, "version"}, {3u << 24, "endian"}, {0x10000, "endian"}};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        bytes b = {0};
        put_head(&b, WRONG[i].version, 0, 0);
        refused("GG02", &b, PGRAD_E_UNSUPPORTED, WRONG[i].text);
    }
    for (uint32_t version = 2; version <= 3; version++) {
        bytes b = {0};
        pgrad__gguf *gguf;
        put_head(&b, version, 0, 0);
        OK(open_bytes(&b, &gguf)); /* GG20: no tensors is the model's business */
        ck_assert_uint_eq(pgrad__gguf_tensors(gguf)->n_tensors, 0);
        ck_assert_ptr_null(pgrad__tensor_find(pgrad__gguf_tensors(gguf), "x"));
        pgrad__gguf_free(gguf);
    }
}
END_TEST

START_TEST(gg03_counts_beyond_the_file)
{
    static const uint64_t COUNTS[] = {UINT64_MAX, (uint64_t)1 << 63, 0x7fffffff, 65537, 4};
    for (size_t i = 0; i < sizeof COUNTS / sizeof COUNTS[0]; i++)
        for (int keys = 0; keys < 2; keys++) {
            bytes b = {0};
            put_head(&b, 3, keys ? 0 : COUNTS[i], keys ? COUNTS[i] : 0);
            for (int k = 0; k < 40; k++)
                put_number(&b, 0, 1);
            uint64_t peak = context->memory_peak;
            refused("GG03", &b, PGRAD_E_LIMIT, keys ? "keys" : "tensors");
            ck_assert_uint_le(context->memory_peak, peak + 8192);
        }
}
END_TEST

START_TEST(gg04_keys)
{
    static const struct {
        const char *key;
        size_t length;
    } WRONG[] = {{"", 0}, {"\xff", 1}, {"\xc0\x80", 2}, {"a\0b", 3}, {NULL, 65536}, {NULL, 70000}};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        bytes b = {0};
        put_head(&b, 3, 0, 1);
        put_number(&b, WRONG[i].length, 8);
        if (WRONG[i].key != NULL)
            put(&b, WRONG[i].key, WRONG[i].length);
        for (size_t k = 0; WRONG[i].key == NULL && k < WRONG[i].length; k++)
            put_text(&b, "k");
        put_number(&b, U8, 4);
        put_number(&b, 0, 1);
        refused("GG04", &b, PGRAD_E_FORMAT, "key");
    }
    bytes b = {0};
    put_head(&b, 3, 0, 2);
    put_integer(&b, "twice", U8, 1);
    put_integer(&b, "twice", U8, 1);
    refused("GG04 twice", &b, PGRAD_E_FORMAT, "'twice'");
}
END_TEST

/* GG04: as many keys as are allowed, in no more than a moment; one more is refused. */
START_TEST(gg04_many_keys)
{
    for (uint64_t n = 65536; n <= 65537; n++) {
        bytes b = {0};
        char key[32];
        pgrad__gguf *gguf;
        uint32_t value = 0;
        put_head(&b, 3, 0, n);
        for (uint64_t i = 0; i < n; i++) {
            snprintf(key, sizeof key, "key.%u", (unsigned)i);
            put_integer(&b, key, U32, i);
        }
        if (n > 65536) {
            refused("GG04", &b, PGRAD_E_LIMIT, "65536");
            continue;
        }
        OK(open_bytes(&b, &gguf));
        OK(pgrad__gguf_u32(gguf, "key.54321", &value));
        ck_assert_uint_eq(value, 54321);
        pgrad__gguf_free(gguf);
    }
}
END_TEST

START_TEST(gg05_string_lengths)
{
    static const uint64_t LENGTHS[] = {UINT64_MAX, UINT64_MAX - 7, (uint64_t)1 << 63, 5,
                                       ((uint64_t)1 << 30) + 1};
    for (size_t i = 0; i < sizeof LENGTHS / sizeof LENGTHS[0]; i++)
        for (int where = 0; where < 3; where++) {
            bytes b = {0};
            put_head(&b, 3, where == 2 ? 1 : 0, where == 2 ? 0 : 1);
            if (where == 0)
                put_key(&b, "s", STRING);
            put_number(&b, LENGTHS[i], 8);
            put(&b, "abcd", 4); /* one byte less than 5 */
            if (where != 0)     /* a key, a tensor's name: enough for the count to pass */
                while (b.size < 24 + 32 && LENGTHS[i] != 5)
                    put_number(&b, 0, 1);
            refused("GG05", &b,
                    where == 2 && LENGTHS[i] == 5   ? PGRAD_E_LIMIT
                    : where == 1 && LENGTHS[i] == 5 ? PGRAD_E_LIMIT
                                                    : PGRAD_E_FORMAT,
                    "");
        }
}
END_TEST

START_TEST(gg05_gg06_limits_of_size)
{
    pgrad__gguf *gguf = NULL;
    bytes b = {0};
    put_head(&b, 3, 0, 1);
    put_key(&b, "s", STRING);
    put_number(&b, ((uint64_t)1 << 26) + 1, 8);
    const char *path = put_file("sparse", b.data, b.size);
    drop(&b);
    ck_assert_int_eq(truncate(path, (off_t)3 << 30), 0);
    FAILS(PGRAD_E_LIMIT, "string", pgrad__gguf_open(context, path, &gguf));
    put_head(&b, 3, 0, 1);
    put_array(&b, "strings", STRING, ((uint64_t)1 << 27) + 1);
    path = put_file("sparse", b.data, b.size);
    drop(&b);
    ck_assert_int_eq(truncate(path, (off_t)3 << 30), 0);
    uint64_t peak = context->memory_peak;
    FAILS(PGRAD_E_LIMIT, "strings", pgrad__gguf_open(context, path, &gguf));
    ck_assert_uint_le(context->memory_peak, peak + (4 << 20));
}
END_TEST

START_TEST(gg06_arrays)
{
    static const struct {
        uint32_t element;
        uint64_t count;
        const char *text;
    } WRONG[] = {
        {ARRAY, 1, "type"},
        {13, 1, "type"},
        {UINT32_MAX, 1, "type"},
        {U64, (uint64_t)1 << 61, ""},
        {U64, UINT64_MAX, ""},
        {U32, ((uint64_t)1 << 62) + 1, ""},
        {STRING, UINT64_MAX, ""},
        {STRING, 1 << 30, ""},
        {U8, 33, ""},
        {F64, 5, ""},
    };
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        bytes b = {0};
        put_head(&b, 3, 0, 1);
        put_array(&b, "list", WRONG[i].element, WRONG[i].count);
        for (int k = 0; k < 32; k++)
            put_number(&b, 0, 1);
        uint64_t peak = context->memory_peak;
        refused("GG06", &b, PGRAD_E_FORMAT, "list");
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), WRONG[i].text));
        ck_assert_uint_le(context->memory_peak, peak + 8192);
    }
    bytes b = {0};
    put_head(&b, 3, 0, 1);
    put_integer(&b, "x", U8, 0);
    b.data[b.size - 5] = 13;
    refused("GG06 type of a value", &b, PGRAD_E_FORMAT, "type 13");
}
END_TEST

START_TEST(gg18_bool_of_2)
{
    bytes b = {0};
    put_head(&b, 3, 0, 1);
    put_integer(&b, "flag", BOOL, 2);
    refused("GG18", &b, PGRAD_E_FORMAT, "flag");
}
END_TEST

/* The last value of a file is narrower than what is asked for: nothing behind it is read. */
START_TEST(gg18_wrong_type_at_the_end)
{
    bytes b = {0};
    pgrad__gguf *gguf;
    float f;
    uint32_t u;
    int flag;
    const char *text;
    size_t n;
    put_head(&b, 3, 0, 1);
    put_integer(&b, "x", BOOL, 1);
    OK(open_bytes(&b, &gguf));
    FAILS(PGRAD_E_FORMAT, "found bool", pgrad__gguf_f32(gguf, "x", &f));
    FAILS(PGRAD_E_FORMAT, "found bool", pgrad__gguf_u32(gguf, "x", &u));
    FAILS(PGRAD_E_FORMAT, "found bool", pgrad__gguf_string(gguf, "x", &text, &n));
    FAILS(PGRAD_E_FORMAT, "found bool", pgrad__gguf_array_f32(gguf, "x", 0, &f));
    OK(pgrad__gguf_bool(gguf, "x", &flag));
    pgrad__gguf_free(gguf);
}
END_TEST

/* ---- tensors ---- */

#define MAX_I64 ((uint64_t)INT64_MAX)

static const struct {
    const char *row;
    uint32_t n_dims;
    uint64_t dims[5];
    uint32_t type;
    uint64_t offset;
    const char *text;
} TENSORS[] = {
    {"GG07 none", 0, {0}, T_F32, 0, "dimensions"},
    {"GG07 five", 5, {1, 1, 1, 1, 1}, T_F32, 0, "dimensions"},
    {"GG08 zero", 2, {4, 0}, T_F32, 0, "'t'"},
    {"GG08 product beyond int64", 2, {MAX_I64, 2}, T_I8, 0, "'t'"},
    {"GG08 product wraps", 2, {((uint64_t)1 << 42) + 1, (uint64_t)1 << 30}, T_F32, 0, "'t'"},
    {"GG08 product wraps to 0", 4, {(uint64_t)1 << 32, (uint64_t)1 << 31, 2, 1}, T_F32, 0, "'t'"},
    {"GG08 negative", 1, {(uint64_t)-32}, T_F32, 0, "'t'"},
    {"GG08 bytes wrap", 1, {(uint64_t)1 << 62}, T_F32, 0, "'t'"},
    {"GG08 no whole block", 1, {33}, T_Q8_0, 0, "'t'"},
    {"GG08 half a block", 1, {128}, 12, 0, "rows of 128 are no whole blocks of 256 (Q4_K)"},
    {"GG08 no whole block", 2, {16, 2}, 6, 0, "blocks of 32 (Q5_0)"},
    {"GG08 type removed", 1, {32}, 4, 0, "'t'"},
    {"GG08 type removed", 1, {32}, 38, 0, "'t'"},
    {"GG08 type 255", 1, {32}, 255, 0, "type 255"},
    {"GG08 type -1", 1, {32}, UINT32_MAX, 0, "'t'"},
    {"GG09 padding wraps", 1, {UINT64_MAX - 3}, T_I8, 0, "'t'"},
    {"GG09 nbytes near the end", 1, {MAX_I64 - 3}, T_I8, 0, "'t'"},
    {"GG10 first of two", 1, {0x7FFFFFFFFFFFFFC0}, T_I8, 0, "'t'"},
    {"GG12 unaligned", 1, {4}, T_F32, 4, "offset"},
    {"GG12 not at the start", 1, {4}, T_F32, 32, "offset"},
    {"GG12 past the end", 1, {4}, T_F32, (uint64_t)1 << 63, "offset"},
    {"GG12 data too short", 1, {200}, T_F32, 0, "'t'"},
};

START_TEST(gg_tensors_refused)
{
    bytes b = {0};
    put_head(&b, 3, 1, 0);
    put_tensor(&b, "t", TENSORS[_i].n_dims, TENSORS[_i].dims, TENSORS[_i].type, TENSORS[_i].offset);
    pad_to(&b, 32);
    for (int i = 0; i < 512; i++)
        put_number(&b, 0, 1);
    refused(TENSORS[_i].row, &b, PGRAD_E_FORMAT, TENSORS[_i].text);
}
END_TEST

START_TEST(gg07_dimension_count_is_no_index)
{
    bytes b = {0};
    put_head(&b, 3, 1, 0);
    put_string(&b, "t");
    put_number(&b, UINT32_MAX, 4);
    for (int i = 0; i < 64; i++)
        put_number(&b, 1, 8);
    refused("GG07", &b, PGRAD_E_FORMAT, "4294967295");
}
END_TEST

static const struct {
    const char *row;
    uint64_t size_a, offset_b, size_b;
    const char *name_b;
    const char *text;
} PAIRS[] = {
    {"GG10 sum wraps", 0x7FFFFFFFFFFFFFC0, 0x7FFFFFFFFFFFFFC0, 0x7FFFFFFFFFFFFFC0, "b", "'a'"},
    {"GG12 overlap", 64, 32, 32, "b", "'b'"},
    {"GG12 hole", 32, 64, 32, "b", "'b'"},
    {"GG12 padding forgotten", 33, 33, 32, "b", "'b'"},
    {"GG12 both at 0", 32, 0, 32, "b", "'b'"},
    {"GG12 second cut", 32, 32, 97, "b", "'b'"},
    {"GG13 same name", 32, 32, 32, "a", "'a' is there twice"},
};

START_TEST(gg_pairs_refused)
{
    bytes b = {0};
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "a", 1, &PAIRS[_i].size_a, T_I8, 0);
    put_tensor(&b, PAIRS[_i].name_b, 1, &PAIRS[_i].size_b, T_I8, PAIRS[_i].offset_b);
    pad_to(&b, 32);
    for (int i = 0; i < 128; i++)
        put_number(&b, 0, 1);
    refused(PAIRS[_i].row, &b, PGRAD_E_FORMAT, PAIRS[_i].text);
}
END_TEST

START_TEST(gg12_out_of_order)
{
    bytes b = {0};
    put_head(&b, 3, 2, 0);
    put_tensor(&b, "a", 1, (uint64_t[]){32}, T_I8, 32);
    put_tensor(&b, "b", 1, (uint64_t[]){32}, T_I8, 0);
    pad_to(&b, 32);
    for (int i = 0; i < 64; i++)
        put_number(&b, 0, 1);
    refused("GG12", &b, PGRAD_E_FORMAT, "'a'");
}
END_TEST

START_TEST(gg13_names)
{
    for (size_t length = 0; length <= 66; length++) {
        bytes b = {0};
        char name[67] = "";
        pgrad__gguf *gguf;
        memset(name, 'n', length);
        put_head(&b, 3, 1, 0);
        put_tensor(&b, name, 1, (uint64_t[]){1}, T_F32, 0);
        pad_to(&b, 32);
        put_number(&b, 0, 4);
        if (length == 0 || length > 63) {
            refused("GG13", &b, PGRAD_E_FORMAT, "name");
            continue;
        }
        OK(open_bytes(&b, &gguf));
        ck_assert_ptr_nonnull(pgrad__tensor_find(pgrad__gguf_tensors(gguf), name));
        pgrad__gguf_free(gguf);
    }
    bytes b = {0};
    put_head(&b, 3, 1, 0);
    put_number(&b, 1 << 20, 8);
    for (int i = 0; i < 1 << 20; i++)
        put_text(&b, "n");
    refused("GG13 1 MB", &b, PGRAD_E_FORMAT, "name");
}
END_TEST

START_TEST(gg11_alignment)
{
    static const struct {
        uint32_t type;
        uint64_t value;
    } WRONG[] = {{U32, 0}, {U32, 13}, {U32, 0x80000000}, {U32, 1 << 21}, {I32, 64}, {U64, 64}};
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        bytes b = {0};
        put_head(&b, 3, 0, 1);
        put_integer(&b, "general.alignment", WRONG[i].type, WRONG[i].value);
        refused("GG11", &b, PGRAD_E_FORMAT, "general.alignment");
    }
    bytes twice = {0};
    put_head(&twice, 3, 0, 2);
    put_integer(&twice, "general.alignment", U32, 32);
    put_integer(&twice, "general.alignment", U32, 64);
    refused("GG11 twice", &twice, PGRAD_E_FORMAT, "general.alignment");
    for (uint32_t alignment = 1; alignment <= 4096; alignment *= 2) {
        bytes b = {0};
        pgrad__gguf *gguf;
        float out;
        const float value = 2.5f;
        put_head(&b, 3, 1, 1);
        put_integer(&b, "general.alignment", U32, alignment);
        put_tensor(&b, "t", 1, (uint64_t[]){1}, T_F32, 0);
        pad_to(&b, alignment);
        put(&b, &value, 4);
        OK(open_bytes(&b, &gguf));
        const pgrad__tensor_set *set = pgrad__gguf_tensors(gguf);
        OK(pgrad__tensor_read(set, pgrad__tensor_find(set, "t"), 0, 1, &out));
        ck_assert(out == value);
        pgrad__gguf_free(gguf);
    }
}
END_TEST

/* GG16: a token of 2^20 bytes comes back whole, borrowed. */
START_TEST(gg16_long_token)
{
    bytes b = {0};
    pgrad__gguf *gguf;
    const char *text;
    size_t length;
    put_head(&b, 3, 0, 1);
    put_array(&b, "tokens", STRING, 2);
    put_number(&b, 1 << 20, 8);
    for (int i = 0; i < 1 << 20; i++)
        put_number(&b, (uint64_t)i % 251, 1);
    put_string(&b, "last");
    OK(open_bytes(&b, &gguf));
    OK(pgrad__gguf_array_string(gguf, "tokens", 0, &text, &length));
    ck_assert_uint_eq(length, 1 << 20);
    for (int i = 0; i < 1 << 20; i++)
        ck_assert((unsigned char)text[i] == i % 251);
    OK(pgrad__gguf_array_string(gguf, "tokens", 1, &text, &length));
    ck_assert(length == 4 && memcmp(text, "last", 4) == 0);
    pgrad__gguf_free(gguf);
}
END_TEST

START_TEST(gg20_split_file)
{
    bytes b = {0};
    pgrad__gguf *gguf;
    put_head(&b, 3, 0, 1);
    put_integer(&b, "split.count", U16, 3);
    refused("GG20", &b, PGRAD_E_UNSUPPORTED, "3 split files");
    put_head(&b, 3, 0, 1);
    put_integer(&b, "split.count", U16, 1);
    OK(open_bytes(&b, &gguf));
    pgrad__gguf_free(gguf);
}
END_TEST

/* Every type that is read has the block its reader takes. */
START_TEST(types_that_are_read)
{
    static const struct {
        uint32_t id;
        pgrad__element_type type;
    } TYPES[] = {{0, PGRAD__ELEMENT_F32},   {1, PGRAD__ELEMENT_F16},   {2, PGRAD__ELEMENT_Q4_0},
                 {3, PGRAD__ELEMENT_Q4_1},  {6, PGRAD__ELEMENT_Q5_0},  {7, PGRAD__ELEMENT_Q5_1},
                 {8, PGRAD__ELEMENT_Q8_0},  {10, PGRAD__ELEMENT_Q2_K}, {11, PGRAD__ELEMENT_Q3_K},
                 {12, PGRAD__ELEMENT_Q4_K}, {13, PGRAD__ELEMENT_Q5_K}, {14, PGRAD__ELEMENT_Q6_K},
                 {28, PGRAD__ELEMENT_F64},  {30, PGRAD__ELEMENT_BF16}};
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        bytes b = {0};
        pgrad__gguf *gguf;
        const uint32_t block = pgrad__element_block(TYPES[i].type);
        const uint32_t size = pgrad__element_block_bytes(TYPES[i].type);
        float out[512];
        put_head(&b, 3, 1, 0);
        put_tensor(&b, "t", 1, (uint64_t[]){2 * block}, TYPES[i].id, 0);
        pad_to(&b, 32);
        for (uint32_t k = 0; k < 2 * size; k++)
            put_number(&b, 0, 1);
        OK(open_bytes(&b, &gguf));
        const pgrad__tensor_view *t = pgrad__tensor_find(pgrad__gguf_tensors(gguf), "t");
        ck_assert_int_eq(t->type, TYPES[i].type);
        ck_assert_uint_eq(t->n_bytes, 2 * size);
        OK(pgrad__tensor_read(pgrad__gguf_tensors(gguf), t, block, block, out));
        pgrad__gguf_free(gguf);
    }
}
END_TEST

START_TEST(types_that_cannot_be_read_keep_their_names)
{
    static const struct {
        uint32_t id, block, bytes;
        const char *name;
    } TYPES[] = {{9, 32, 36, "Q8_1"}, {15, 256, 292, "Q8_K"}, {16, 256, 66, "IQ2_XXS"},
                 {27, 1, 8, "I64"},  {35, 256, 66, "TQ2_0"}, {39, 32, 17, "MXFP4"}};
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++) {
        bytes b = {0};
        pgrad__gguf *gguf;
        put_head(&b, 3, 1, 0);
        put_tensor(&b, "t", 1, (uint64_t[]){TYPES[i].block}, TYPES[i].id, 0);
        pad_to(&b, 32);
        for (uint32_t k = 0; k < TYPES[i].bytes; k++)
            put_number(&b, 0, 1);
        OK(open_bytes(&b, &gguf));
        const pgrad__tensor_view *t = pgrad__tensor_find(pgrad__gguf_tensors(gguf), "t");
        ck_assert_int_eq(t->type, PGRAD__ELEMENT_OTHER);
        ck_assert_str_eq(t->type_name, TYPES[i].name);
        ck_assert_uint_eq(t->n_bytes, TYPES[i].bytes);
        pgrad__gguf_free(gguf);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, reads_a_sample);
    tcase_add_test(tests, gg01_cut_at_every_byte);
    tcase_add_test(tests, gg01_wrong_magic);
    tcase_add_test(tests, gg02_versions);
    tcase_add_test(tests, gg03_counts_beyond_the_file);
    tcase_add_test(tests, gg04_keys);
    tcase_add_test(tests, gg04_many_keys);
    tcase_add_test(tests, gg05_string_lengths);
    tcase_add_test(tests, gg05_gg06_limits_of_size);
    tcase_add_test(tests, gg06_arrays);
    tcase_add_test(tests, gg07_dimension_count_is_no_index);
    tcase_add_loop_test(tests, gg_tensors_refused, 0, sizeof TENSORS / sizeof TENSORS[0]);
    tcase_add_loop_test(tests, gg_pairs_refused, 0, sizeof PAIRS / sizeof PAIRS[0]);
    tcase_add_test(tests, gg11_alignment);
    tcase_add_test(tests, gg12_out_of_order);
    tcase_add_test(tests, gg13_names);
    tcase_add_test(tests, gg16_long_token);
    tcase_add_test(tests, gg17_memory_runs_out);
    tcase_add_test(tests, gg17_any_byte_changed);
    tcase_add_test(tests, gg18_values_by_type);
    tcase_add_test(tests, gg18_bool_of_2);
    tcase_add_test(tests, gg18_wrong_type_at_the_end);
    tcase_add_test(tests, gg20_split_file);
    tcase_add_test(tests, types_that_are_read);
    tcase_add_test(tests, types_that_cannot_be_read_keep_their_names);
}

int main(void)
{
    return run_suite("io/gguf", add);
}
