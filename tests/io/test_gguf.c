/* GGUF: the head of a file, its keys and values. Names carry the row (GG) of the catalogue of bad files they
 * check. */
#include "gguf_test.h"

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
    put_head(&b, 3, 0, 1);
    put_array(&b, "numbers", U64, (uint64_t)1 << 27);
    path = put_file("sparse", b.data, b.size);
    drop(&b);
    ck_assert_int_eq(truncate(path, (off_t)3 << 30), 0);
    FAILS(PGRAD_E_LIMIT, "/sparse: more than 1073741824 bytes of metadata", pgrad__gguf_open(context, path, &gguf));
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
    tcase_add_test(tests, gg16_long_token);
    tcase_add_test(tests, gg17_memory_runs_out);
    tcase_add_test(tests, gg17_any_byte_changed);
    tcase_add_test(tests, gg18_values_by_type);
    tcase_add_test(tests, gg18_bool_of_2);
    tcase_add_test(tests, gg18_wrong_type_at_the_end);
    tcase_add_test(tests, gg20_split_file);
}

int main(void)
{
    return run_case("io/gguf", setup, teardown, 60, add);
}
