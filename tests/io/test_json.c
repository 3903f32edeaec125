#include "io/json.h"

#include "../decimal_comma.h"
#include "base/alloc.h"
#include "base/strbuf.h"
#include "io_test.h"

static pgrad__json *parse(const char *text)
{
    pgrad__json *root = NULL;
    OK(pgrad__json_parse(context, text, strlen(text), "test.json", &root));
    return root;
}

static void refused(const char *what, const char *data, size_t length, const char *text)
{
    pgrad__json *root = NULL;
    pgrad_status status = pgrad__json_parse(context, data, length, "test.json", &root);
    ck_assert_msg(status == PGRAD_E_FORMAT, "%s: %s", what, pgrad_status_name(status));
    ck_assert_msg(strncmp(pgrad_error_message(), "test.json: ", 11) == 0, "%s",
                  pgrad_error_message());
    ck_assert_msg(strstr(pgrad_error_message(), text) != NULL, "%s: '%s' is not in '%s'", what,
                  text, pgrad_error_message());
    ck_assert_ptr_null(root);
}

static const struct {
    const char *what, *data;
    size_t length; /* 0: up to the NUL */
    const char *text;
} REFUSED[] = {
    {"nothing", "", 0, ""},
    {"white space only", " \n", 0, ""},
    {"cut", "{\"a\":[1,2", 0, "line 1"},
    {"cut in a string", "{\"a\\", 0, ""},
    {"text behind", "{} x", 0, ""},
    {"two values", "1 2", 0, ""},
    {"two values and a comma", "1,2", 0, "JSON: expected one value, found 2"},
    {"NUL behind", "{}\0", 3, ""},
    {"byte order mark", "\xef\xbb\xbf{}", 0, "byte order mark"},
    {"duplicate", "{\"a\":1,\"b\":{\"x\":1,\"x\":2}}", 0, "duplicate"},
    {"duplicate, escaped", "{\"a\":1,\"\\u0061\":2}", 0, "duplicate"},
    {"invalid UTF-8", "\"\x80\"", 0, ""},
    {"overlong", "\"\xc0\xaf\"", 0, ""},
    {"surrogate", "\"\xed\xa0\x80\"", 0, ""},
    {"lone escape", "\"\\ud83d\"", 0, ""},
    {"control byte", "\"\x01\"", 0, ""},
    {"NaN", "NaN", 0, ""},
    {"infinity", "[Infinity]", 0, ""},
    {"leading zero", "[01]", 0, ""},
    {"plus", "[+1]", 0, ""},
    {"bare point", "[.5]", 0, ""},
    {"point at the end", "[1.]", 0, ""},
    {"comment", "{} // x", 0, ""},
    {"single quotes", "{'a':1}", 0, ""},
    {"comma at the end", "[1,]", 0, ""},
    {"beyond double", "[1e400]", 0, ""},
    {"minus alone", "[-]", 0, ""},
};

START_TEST(refuses)
{
    const size_t length = REFUSED[_i].length != 0 ? REFUSED[_i].length : strlen(REFUSED[_i].data);
    refused(REFUSED[_i].what, REFUSED[_i].data, length, REFUSED[_i].text);
}
END_TEST

/* 64 levels are read, one more is not; brackets inside strings are none. */
START_TEST(depth)
{
    char text[256];
    for (int levels = 64; levels <= 65; levels++) {
        memset(text, '[', (size_t)levels);
        memset(text + levels, ']', (size_t)levels);
        text[2 * levels] = '\0';
        if (levels == 64)
            pgrad__json_free(parse(text));
        else
            refused("65 levels", text, 130, "deeper than 64");
    }
    strcpy(text, "[\"");
    memset(text + 2, '[', 100);
    strcpy(text + 102, "\\\"[[\", 1]");
    pgrad__json *root = parse(text);
    ck_assert_uint_eq(pgrad__json_count(root), 2);
    pgrad__json_free(root);
}
END_TEST

START_TEST(whole_numbers)
{
    static const struct {
        const char *text;
        int whole;
        int64_t value;
        int is_real;
    } CASES[] = {
        {"0", 1, 0, 0},
        {"-0", 1, 0, 0},
        {"2.0", 1, 2, 1},
        {"2e3", 1, 2000, 1},
        {"-7.0", 1, -7, 1},
        {"768.5", 0, 0, 1},
        {"9007199254740993", 1, 9007199254740993, 0}, /* 2^53 + 1: not through a double */
        {"9223372036854775807", 1, INT64_MAX, 0},
        {"-9223372036854775807", 1, -INT64_MAX, 0},
        {"9223372036854775808", 0, 0, 1}, /* 2^63 */
        {"1180591620717411303424", 0, 0, 1},
        {"1000000000000000019884624838656", 0, 0, 1}, /* as tokenizer_config.json has it */
        {"1e300", 0, 0, 1},
        {"true", 0, 0, 0},
        {"\"2\"", 0, 0, 0},
        {"null", 0, 0, 0},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        pgrad__json *root = parse(CASES[i].text);
        int64_t value = 99;
        ck_assert_msg(pgrad__json_integer(root, &value) == CASES[i].whole, "%s", CASES[i].text);
        ck_assert_msg(value == (CASES[i].whole ? CASES[i].value : 99), "%s", CASES[i].text);
        ck_assert_int_eq(pgrad__json_is_real(root), CASES[i].is_real);
        pgrad__json_free(root);
    }
}
END_TEST

/* Integers beyond int64 are read as reals, wherever they stand; strings are not touched. */
START_TEST(integers_beyond_int64)
{
    pgrad__json *root = parse(
        "{\"99999999999999999999\":[99999999999999999999,-99999999999999999999,1],"
        "\"b\":\"99999999999999999999\",\"c\":99999999999999999999e2,\"d\":18446744073709551616}");
    double value;
    const pgrad__json *list = pgrad__json_get(root, "99999999999999999999");
    ck_assert(pgrad__json_real(pgrad__json_at(list, 0), &value) && value == 1e20);
    ck_assert(pgrad__json_real(pgrad__json_at(list, 1), &value) && value == -1e20);
    ck_assert(pgrad__json_real(pgrad__json_at(list, 2), &value) && value == 1.0);
    ck_assert_str_eq(pgrad__json_string(pgrad__json_get(root, "b"), NULL), "99999999999999999999");
    ck_assert(pgrad__json_real(pgrad__json_get(root, "c"), &value) && value == 1e22);
    ck_assert(pgrad__json_real(pgrad__json_get(root, "d"), &value) && value == 0x1p64);
    pgrad__json_free(root);
}
END_TEST

/* CF09: whatever the host's locale says of the decimal point. */
START_TEST(cf09_decimal_comma)
{
    const int taken = take_decimal_comma();
    pgrad__json *root = parse("[0.5, 1e-05, 12.25]");
    double value;
    char *text;
    size_t length;
    ck_assert(pgrad__json_real(pgrad__json_at(root, 0), &value) && value == 0.5);
    ck_assert(pgrad__json_real(pgrad__json_at(root, 2), &value) && value == 12.25);
    OK(pgrad__json_write(context, root, 0, &text, &length));
    ck_assert_str_eq(text, "[0.5,1e-05,12.25]");
    pgrad__free(context, text);
    pgrad__json_free(root);
    drop_decimal_comma(taken);
}
END_TEST

START_TEST(reads_values)
{
    static const char TEXT[] =
        " {\"s\":\"a\\u0000b\\u00e9\\ud83d\\ude00\",\"t\":true,\"f\":false,\"n\":null,"
        "\"list\":[1,[2],{}],\"o\":{\"x\":0.1}} \r\n";
    pgrad__json *root = parse(TEXT);
    size_t length;
    double real;
    ck_assert_int_eq(pgrad__json_type(root), PGRAD__JSON_OBJECT);
    const char *s = pgrad__json_string(pgrad__json_get(root, "s"), &length);
    ck_assert_uint_eq(length, 9);
    ck_assert_mem_eq(s, "a\0b\xc3\xa9\xf0\x9f\x98\x80", 9);
    ck_assert_int_eq(pgrad__json_bool(pgrad__json_get(root, "t"), 7), 1);
    ck_assert_int_eq(pgrad__json_bool(pgrad__json_get(root, "f"), 7), 0);
    ck_assert_int_eq(pgrad__json_bool(pgrad__json_get(root, "s"), 7), 7);
    ck_assert_ptr_null(pgrad__json_get(root, "n"));
    ck_assert_ptr_null(pgrad__json_get(root, "missing"));
    ck_assert_ptr_null(pgrad__json_get(NULL, "s"));
    const pgrad__json *list = pgrad__json_get(root, "list");
    ck_assert_uint_eq(pgrad__json_count(list), 3);
    ck_assert_ptr_null(pgrad__json_at(list, 3));
    ck_assert_ptr_null(pgrad__json_get(list, "x"));
    ck_assert_ptr_null(pgrad__json_at(root, 0));
    ck_assert_int_eq(pgrad__json_type(pgrad__json_at(list, 1)), PGRAD__JSON_ARRAY);
    ck_assert(pgrad__json_real(pgrad__json_get(pgrad__json_get(root, "o"), "x"), &real) &&
              real == 0.1);
    ck_assert_ptr_null(pgrad__json_string(list, &length));
    ck_assert_uint_eq(length, 0);
    ck_assert_uint_eq(pgrad__json_count(pgrad__json_get(root, "s")), 0);
    pgrad__json_free(root);
    pgrad__json_free(NULL);
}
END_TEST

START_TEST(goes_through_objects_in_order)
{
    static const char *const KEYS[] = {"z", "a", "m", "b", "0"};
    pgrad__json *root = parse("{\"z\":0,\"a\":1,\"m\":2,\"b\":3,\"0\":4}");
    void *iterator = NULL;
    const char *key;
    size_t length;
    const pgrad__json *value;
    int64_t n = 0, number;
    while (pgrad__json_next(root, &iterator, &key, &length, &value)) {
        ck_assert(length == 1 && strcmp(key, KEYS[n]) == 0);
        ck_assert(pgrad__json_integer(value, &number) && number == n);
        n++;
    }
    ck_assert_int_eq(n, 5);
    pgrad__json_free(root);
}
END_TEST

/* CF02: what is not a number in range is refused with key, expected and found. */
START_TEST(cf02_members_with_checks)
{
    pgrad__json *root =
        parse("{\"good\":8,\"real\":8.0,\"half\":768.5,\"text\":\"768\",\"flag\":true,\"minus\":-1,"
              "\"large\":4294967296,\"huge\":1180591620717411303424,\"nil\":null,\"list\":[]}");
    uint32_t u = 5;
    double d = 5;
    int b = 5;
    OK(pgrad__json_require_u32(root, "o", "good", 1, 8, &u));
    ck_assert_uint_eq(u, 8);
    u = 0;
    OK(pgrad__json_require_u32(root, "o", "real", 8, 8, &u));
    ck_assert_uint_eq(u, 8);
    static const char *const WRONG[][2] = {
        {"half", "768.5"}, {"text", "\"768\""},     {"flag", "boolean"},
        {"minus", "-1"},   {"large", "4294967296"}, {"huge", "1.180591620717411"},
        {"list", "array"}, {"nil", "nothing"},      {"missing", "nothing"},
    };
    for (size_t i = 0; i < sizeof WRONG / sizeof WRONG[0]; i++) {
        FAILS(PGRAD_E_FORMAT, WRONG[i][0],
              pgrad__json_require_u32(root, "some.json", WRONG[i][0], 0, UINT32_MAX, &u));
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "some.json: "));
        ck_assert_msg(strstr(pgrad_error_message(), WRONG[i][1]) != NULL, "%s",
                      pgrad_error_message());
    }
    FAILS(PGRAD_E_FORMAT, "", pgrad__json_require_u32(root, NULL, "missing", 0, 8, &u));
    ck_assert_str_eq(pgrad_error_message(), "missing: expected a whole number, found nothing");
    ck_assert_uint_eq(u, 8); /* left alone */
    FAILS(PGRAD_E_FORMAT, "from 1 to 7", pgrad__json_require_u32(root, "o", "good", 1, 7, &u));
    FAILS(PGRAD_E_FORMAT, "from 9 to 9", pgrad__json_optional_u32(root, "o", "good", 9, 9, 9, &u));
    OK(pgrad__json_optional_u32(root, "o", "nil", 0, 9, 3, &u));
    ck_assert_uint_eq(u, 3);
    OK(pgrad__json_optional_real(root, "o", "half", 0, 1000, 1, &d));
    ck_assert(d == 768.5);
    OK(pgrad__json_optional_real(root, "o", "good", 0, 8, 1, &d));
    ck_assert(d == 8.0);
    OK(pgrad__json_optional_real(root, "o", "missing", 0, 8, 0.25, &d));
    ck_assert(d == 0.25);
    FAILS(PGRAD_E_FORMAT, "from 0 to 0.5",
          pgrad__json_optional_real(root, "o", "half", 0, 0.5, 1, &d));
    FAILS(PGRAD_E_FORMAT, "text", pgrad__json_optional_real(root, "o", "text", 0, 1, 1, &d));
    OK(pgrad__json_optional_bool(root, "o", "flag", 0, &b));
    ck_assert_int_eq(b, 1);
    OK(pgrad__json_optional_bool(root, "o", "nil", 9, &b));
    ck_assert_int_eq(b, 9);
    FAILS(PGRAD_E_FORMAT, "good", pgrad__json_optional_bool(root, "o", "good", 0, &b));
    pgrad__json_free(root);
}
END_TEST

START_TEST(cf01_limits)
{
    pgrad__json *root = NULL;
    FAILS(PGRAD_E_LIMIT, "at most 4",
          pgrad__json_load(context, put_text_file("f", "[1,2]"), 4, &root));
    FAILS(PGRAD_E_IO, strerror(ENOENT), pgrad__json_load(context, in_folder("none"), 4, &root));
    FAILS(PGRAD_E_FORMAT, "/f: ", pgrad__json_load(context, put_text_file("f", "[1,2"), 9, &root));
    const char *path = put_text_file("large", "[");
    ck_assert_int_eq(truncate(path, 1 << 30), 0);
    FAILS(PGRAD_E_LIMIT, "100000000", pgrad__json_load(context, path, 100000000, &root));
    FAILS(PGRAD_E_LIMIT, "test.json: at most 100000000 bytes of JSON, found 100000001",
          pgrad__json_parse(context, "", 100000001, "test.json", &root));
    ck_assert_ptr_null(root);
    OK(pgrad__json_load(context, put_text_file("f", "[1,2]"), 5, &root));
    ck_assert_uint_eq(pgrad__json_count(root), 2);
    pgrad__json_free(root);
}
END_TEST

START_TEST(writes)
{
    static const char COMPACT[] =
        "{\"a\":[],\"b\":{},\"c\":[1,-2.5,1e-05,100000.0,0.1,true,false,null],"
        "\"d\":{\"x\":\"\\\"\\\\\\u0001\\u0000\xc3\xa9/\"},\"e\":9223372036854775807}";
    pgrad__json *root = parse(COMPACT);
    char *text;
    size_t length;
    OK(pgrad__json_write(context, root, 0, &text, &length));
    ck_assert_str_eq(text, COMPACT);
    ck_assert_uint_eq(length, strlen(COMPACT));
    pgrad__free(context, text);
    pgrad__json_free(root);
    root = parse("{\"a\":[],\"b\":{},\"c\":[1,{\"d\":2}]}");
    OK(pgrad__json_write(context, root, 2, &text, &length));
    ck_assert_str_eq(
        text,
        "{\n  \"a\": [],\n  \"b\": {},\n  \"c\": [\n    1,\n    {\n      \"d\": 2\n    }\n  ]\n}");
    pgrad__free(context, text);
    context->memory_limit = context->memory_now + 64;
    FAILS(PGRAD_E_LIMIT, "memory", pgrad__json_write(context, root, 2, &text, &length));
    context->memory_limit = 0;
    pgrad__json_free(root);
}
END_TEST

START_TEST(changes_keep_the_order)
{
    pgrad__json *root = parse("{\"z\":1,\"dtype\":\"old\",\"a\":2}");
    char *text;
    size_t length;
    OK(pgrad__json_set_string(root, "dtype", "n\xc3\xa9w"));
    OK(pgrad__json_set_integer(root, "z", -5));
    OK(pgrad__json_set_integer(root, "last", 7));
    FAILS(PGRAD_E_INVALID, "UTF-8", pgrad__json_set_string(root, "dtype", "\xff"));
    OK(pgrad__json_write(context, root, 0, &text, &length));
    ck_assert_str_eq(text, "{\"z\":-5,\"dtype\":\"n\xc3\xa9w\",\"a\":2,\"last\":7}");
    pgrad__free(context, text);
    pgrad__json_free(root);
}
END_TEST

/* Whatever is quoted can be read again; broken UTF-8 becomes U+FFFD, a byte at a time. */
START_TEST(quotes)
{
    static const struct {
        const char *from;
        size_t length;
        const char *to;
    } CASES[] = {
        {"", 0, "\"\""},
        {"a\"b\\c", 5, "\"a\\\"b\\\\c\""},
        {"\n\t\x1f\x7f", 4, "\"\\u000a\\u0009\\u001f\x7f\""},
        {"a\0b", 3, "\"a\\u0000b\""},
        {"\xf0\x9f\x98\x80", 4, "\"\xf0\x9f\x98\x80\""},
        {"\xf0\x9f\x98", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xc0\xaf", 2, "\"\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xed\xa0\x80", 3, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"\xf4\x90\x80\x80", 4, "\"\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\xef\xbf\xbd\""},
        {"x\xffy", 3, "\"x\xef\xbf\xbdy\""},
    };
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        pgrad__strbuf buffer = {.context = context};
        pgrad__json_quote(&buffer, CASES[i].from, CASES[i].length);
        OK(buffer.status);
        ck_assert_str_eq(buffer.data, CASES[i].to);
        pgrad__json_free(parse(buffer.data));
        pgrad__strbuf_free(&buffer);
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, refuses, 0, sizeof REFUSED / sizeof REFUSED[0]);
    tcase_add_test(tests, depth);
    tcase_add_test(tests, whole_numbers);
    tcase_add_test(tests, integers_beyond_int64);
    tcase_add_test(tests, cf09_decimal_comma);
    tcase_add_test(tests, reads_values);
    tcase_add_test(tests, goes_through_objects_in_order);
    tcase_add_test(tests, cf02_members_with_checks);
    tcase_add_test(tests, cf01_limits);
    tcase_add_test(tests, writes);
    tcase_add_test(tests, changes_keep_the_order);
    tcase_add_test(tests, quotes);
}

int main(void)
{
    return run_case("io/json", setup, teardown, 60, add);
}
