/* Weights in several files, named by an index. Names carry the row (SH) of the catalogue of bad files. */
#include <sys/resource.h>

#include "safetensors_test.h"

#define SHARD(name) "{\"" name "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}"

static pgrad_status open_index(const char *text, pgrad__tensor_set *set)
{
    return pgrad__safetensors_open_index(context, test_folder, put_text_file("index.json", text),
                                         set);
}

static int warnings;

static void count_warnings(void *user, int32_t level, const char *line)
{
    (void)user, (void)line;
    warnings += level == PGRAD_LOG_WARNING;
}

START_TEST(sh_reads_shards)
{
    pgrad__tensor_set set;
    float out;
    const uint32_t expected = 0x03020100;
    put_st("one", SHARD("a"), 4);
    put_st("two", SHARD("b"), 4);
    pgrad_context_set_log(context, count_warnings, NULL, PGRAD_LOG_WARNING);
    warnings = 0;
    OK(open_index("{\"metadata\":{\"total_size\":8},\"weight_map\":{\"a\":\"one\",\"b\":\"two\"}}",
                  &set));
    ck_assert_int_eq(warnings, 0);
    ck_assert(set.n_tensors == 2 && set.n_files == 2);
    const pgrad__tensor_view *a = pgrad__tensor_find(&set, "a"), *b = pgrad__tensor_find(&set, "b");
    ck_assert(a != NULL && b != NULL && a->file != b->file);
    OK(pgrad__tensor_read(&set, b, 0, 1, &out));
    ck_assert_mem_eq(&out, &expected, 4);
    pgrad__tensor_set_free(&set);
}
END_TEST

START_TEST(sh04_wrong_total_size_is_a_warning)
{
    pgrad__tensor_set set;
    put_st("one", SHARD("a"), 4);
    pgrad_context_set_log(context, count_warnings, NULL, PGRAD_LOG_WARNING);
    warnings = 0;
    OK(open_index("{\"metadata\":{\"total_size\":9},\"weight_map\":{\"a\":\"one\"}}", &set));
    ck_assert_int_eq(warnings, 1);
    pgrad__tensor_set_free(&set);
}
END_TEST

static const struct {
    const char *row, *index, *text;
    pgrad_status code;
} INDEXES[] = {
    {"SH01 no JSON", "weights", "index.json", PGRAD_E_FORMAT},
    {"SH01 no object", "[]", "weight_map", PGRAD_E_FORMAT},
    {"SH01 missing", "{}", "weight_map", PGRAD_E_FORMAT},
    {"SH01 empty", "{\"weight_map\":{}}", "weight_map", PGRAD_E_FORMAT},
    {"SH01 array", "{\"weight_map\":[\"one\"]}", "weight_map", PGRAD_E_FORMAT},
    {"SH01 number", "{\"weight_map\":{\"a\":1}}", "weight_map", PGRAD_E_FORMAT},
    {"SH01 twice", "{\"weight_map\":{\"a\":\"one\",\"a\":\"two\"}}", "duplicate", PGRAD_E_FORMAT},
    {"SH02 parent", "{\"weight_map\":{\"a\":\"../one\"}}", "../one", PGRAD_E_FORMAT},
    {"SH02 absolute", "{\"weight_map\":{\"a\":\"/etc/passwd\"}}", "/etc/passwd", PGRAD_E_FORMAT},
    {"SH02 sub-folder", "{\"weight_map\":{\"a\":\"x/one\"}}", "x/one", PGRAD_E_FORMAT},
    {"SH02 NUL", "{\"weight_map\":{\"a\":\"one\\u0000\"}}", "weight_map", PGRAD_E_FORMAT},
    {"SH02 empty", "{\"weight_map\":{\"a\":\"\"}}", "weight_map", PGRAD_E_FORMAT},
    {"SH03 shard missing", "{\"weight_map\":{\"a\":\"one\",\"b\":\"three\"}}", "three", PGRAD_E_IO},
    {"SH03 not in its shard", "{\"weight_map\":{\"a\":\"one\",\"b\":\"one\"}}", "'b'",
     PGRAD_E_FORMAT},
    {"SH03 in the other shard", "{\"weight_map\":{\"a\":\"two\",\"b\":\"one\"}}",
     "tensor 'a' is not in its shard 'two'", PGRAD_E_FORMAT},
    {"SH03 in two shards", "{\"weight_map\":{\"a\":\"one\",\"c\":\"too\"}}", "'a'", PGRAD_E_FORMAT},
};

START_TEST(sh_refuses)
{
    pgrad__tensor_set set;
    put_st("one", SHARD("a"), 4);
    put_st("two", SHARD("b"), 4);
    put_st("too",
           "{\"a\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]},"
           "\"c\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[4,8]}}",
           8);
    pgrad_status status = open_index(INDEXES[_i].index, &set);
    ck_assert_msg(status == INDEXES[_i].code, "%s: %s: %s", INDEXES[_i].row,
                  pgrad_status_name(status), pgrad_error_message());
    ck_assert_msg(strstr(pgrad_error_message(), INDEXES[_i].text) != NULL, "%s: %s",
                  INDEXES[_i].row, pgrad_error_message());
}
END_TEST

/* SH05: more shards than descriptors: the system's words, and nothing stays open. */
START_TEST(sh05_out_of_descriptors)
{
    pgrad__tensor_set set;
    struct rlimit before, few;
    bytes b = {0};
    char name[96];
    put_text(&b, "{\"weight_map\":{");
    for (int i = 0; i < 64; i++) {
        snprintf(name, sizeof name,
                 "{\"t%d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", i);
        char file[16];
        snprintf(file, sizeof file, "s%d", i);
        put_st(file, name, 4);
        snprintf(name, sizeof name, "%s\"t%d\":\"s%d\"", i > 0 ? "," : "", i, i);
        put_text(&b, name);
    }
    put_text(&b, "}}");
    put_number(&b, 0, 1);
    const char *path = put_text_file("index.json", (char *)b.data);
    int free_descriptor = open("/dev/null", O_RDONLY);
    close(free_descriptor);
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    few = before;
    few.rlim_cur = (rlim_t)free_descriptor + 20;
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &few), 0);
    pgrad_status status = pgrad__safetensors_open_index(context, test_folder, path, &set);
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    ck_assert_int_eq(status, PGRAD_E_IO);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), strerror(EMFILE)));
    int now = open("/dev/null", O_RDONLY);
    close(now);
    ck_assert_int_eq(now, free_descriptor);
    OK(pgrad__safetensors_open_index(context, test_folder, path, &set));
    ck_assert_uint_eq(set.n_tensors, 64);
    pgrad__tensor_set_free(&set);
    drop(&b);
}
END_TEST

/* SH05: more shards than are read, where there are descriptors for all of them. */
START_TEST(sh05_too_many_shards)
{
    enum { N = PGRAD__MAX_SHARDS + 1 };
    pgrad__tensor_set set;
    struct rlimit before, many;
    bytes b = {0};
    char file[16], text[96];
    ck_assert_int_eq(getrlimit(RLIMIT_NOFILE, &before), 0);
    many = before;
    many.rlim_cur = before.rlim_max;
    if (many.rlim_cur < N + 100 || setrlimit(RLIMIT_NOFILE, &many) != 0) {
        fprintf(stderr, "skipped: %d descriptors are not to be had\n", N);
        return;
    }
    put_text(&b, "{\"weight_map\":{");
    for (int i = 0; i < N; i++) {
        snprintf(file, sizeof file, "s%d", i);
        snprintf(text, sizeof text, "{\"t%d\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}", i);
        put_st(file, text, 4);
        snprintf(text, sizeof text, "%s\"t%d\":\"%s\"", i > 0 ? "," : "", i, file);
        put_text(&b, text);
    }
    put_text(&b, "}}");
    put_number(&b, 0, 1);
    FAILS(PGRAD_E_LIMIT, "/index.json: weight_map: 't10000': more than 10000 shards", open_index((char *)b.data, &set));
    ck_assert_int_eq(setrlimit(RLIMIT_NOFILE, &before), 0);
    drop(&b);
}
END_TEST

/* ST15: more tensors than are read, over all shards; names are compared when all are there, so one file stands for each. */
START_TEST(st15_too_many_tensors)
{
    enum { N = 50000, TIMES = 21 };
    pgrad__tensor_set set;
    bytes header = {0}, index = {0};
    char text[128], path[600];
    if (getenv("PGRAD_TEST_SHORT") != NULL)
        return; /* seconds, and minutes under valgrind */
    put_text(&header, "{");
    for (int i = 0; i < N; i++) {
        snprintf(text, sizeof text, "%s\"%d\":{\"dtype\":\"U8\",\"shape\":[1],\"data_offsets\":[%d,%d]}",
                 i > 0 ? "," : "", i, i, i + 1);
        put_text(&header, text);
    }
    put_text(&header, "}");
    put_number(&header, 0, 1);
    snprintf(path, sizeof path, "%s", put_st("s0", (char *)header.data, N));
    put_text(&index, "{\"weight_map\":{\"a\":\"s0\"");
    for (int i = 1; i < TIMES; i++) {
        snprintf(text, sizeof text, "s%d", i);
        ck_assert_int_eq(link(path, in_folder(text)), 0);
        snprintf(text, sizeof text, ",\"%d\":\"s%d\"", i, i);
        put_text(&index, text);
    }
    put_text(&index, "}}");
    put_number(&index, 0, 1);
    FAILS(PGRAD_E_LIMIT, "/s20: more than 1000000 tensors", open_index((char *)index.data, &set));
    drop(&header);
    drop(&index);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, sh_reads_shards);
    tcase_add_test(tests, sh04_wrong_total_size_is_a_warning);
    tcase_add_loop_test(tests, sh_refuses, 0, sizeof INDEXES / sizeof INDEXES[0]);
    tcase_add_test(tests, sh05_out_of_descriptors);
    tcase_add_test(tests, sh05_too_many_shards);
    tcase_add_test(tests, st15_too_many_tensors);
}

int main(void)
{
    return run_case("io/safetensors_shards", setup, teardown, 60, add);
}
