#include "io/tensor_file.h"

#include "base/alloc.h"
#include "io_test.h"

/* A set of one file and the given tensors. */
static void make_set(pgrad__tensor_set *set, const char *path, const pgrad__tensor_view *views,
                     size_t n)
{
    memset(set, 0, sizeof *set);
    set->context = context;
    OK(pgrad__alloc(context, 1, sizeof *set->files, &set->files));
    OK(pgrad__file_open(context, path, &set->files[0]));
    set->n_files = 1;
    OK(pgrad__alloc(context, n, sizeof *views, &set->tensors));
    memcpy(set->tensors, views, n * sizeof *views);
    set->n_tensors = n;
}

START_TEST(finds_by_name)
{
    static const char *const NAMES[] = {"z",         "a.b",      "a",        "",
                                        "layers.10", "layers.9", "\xc3\xa9", "A"};
    enum { N = sizeof NAMES / sizeof NAMES[0] };
    pgrad__tensor_view views[N] = {{0}};
    pgrad__tensor_set set;
    for (size_t i = 0; i < N; i++)
        views[i] = (pgrad__tensor_view){.name = NAMES[i], .type_name = "F32"};
    for (size_t n = 0; n <= N; n++) {
        make_set(&set, put_text_file("f", ""), views, n);
        OK(pgrad__tensor_set_finish(&set));
        for (size_t i = 0; i < N; i++)
            ck_assert_ptr_eq(pgrad__tensor_find(&set, NAMES[i]), i < n ? &set.tensors[i] : NULL);
        ck_assert_ptr_null(pgrad__tensor_find(&set, "layers"));
        pgrad__tensor_set_free(&set);
    }
    memset(&set, 0, sizeof set);
    ck_assert_ptr_null(pgrad__tensor_find(&set, "a"));
    pgrad__tensor_set_free(&set);
}
END_TEST

START_TEST(refuses_a_name_that_is_there_twice)
{
    pgrad__tensor_set set;
    pgrad__tensor_view views[3] = {{.name = "a"}, {.name = "b"}, {.name = "a"}};
    make_set(&set, put_text_file("f", ""), views, 3);
    FAILS(PGRAD_E_FORMAT, "/f: tensor 'a' is there twice", pgrad__tensor_set_finish(&set));
    pgrad__tensor_set_free(&set);
}
END_TEST

/* Q8_0 blocks of more than a chunk of reading: parts are the same as the whole. */
START_TEST(reads_parts_of_quantised_tensors)
{
    enum { BLOCKS = 20000 };
    pgrad__tensor_set set;
    bytes b = {0};
    put_text(&b, "odd"); /* no alignment */
    for (unsigned i = 0; i < BLOCKS; i++) {
        put_number(&b, 0x3800, 2); /* 0.5 */
        for (unsigned k = 0; k < 32; k++)
            put_number(&b, (i * 7 + k) % 251, 1);
    }
    pgrad__tensor_view view = {.name = "t",
                               .type = PGRAD__ELEMENT_Q8_0,
                               .type_name = "Q8_0",
                               .n_dims = 2,
                               .dims = {BLOCKS, 32},
                               .n_elements = 32 * BLOCKS,
                               .n_bytes = 34 * BLOCKS,
                               .offset = 3};
    make_set(&set, put_file("f", b.data, b.size), &view, 1);
    float *all = malloc(32 * BLOCKS * sizeof *all), part[96];
    OK(pgrad__tensor_read(&set, &set.tensors[0], 0, 32 * BLOCKS, all));
    for (unsigned i = 0; i < BLOCKS; i++)
        for (unsigned k = 0; k < 32; k++)
            ck_assert(all[32 * i + k] == 0.5f * (float)(int8_t)(uint8_t)((i * 7 + k) % 251));
    for (uint64_t first = 0; first + 96 <= 32 * BLOCKS; first += 32 * 401) {
        OK(pgrad__tensor_read(&set, &set.tensors[0], first, 96, part));
        ck_assert_mem_eq(part, all + first, sizeof part);
    }
    OK(pgrad__tensor_read(&set, &set.tensors[0], 32 * BLOCKS, 0, part));
    FAILS(PGRAD_E_INTERNAL, "'t'", pgrad__tensor_read(&set, &set.tensors[0], 16, 32, part));
    FAILS(PGRAD_E_INTERNAL, "'t'", pgrad__tensor_read(&set, &set.tensors[0], 0, 33, part));
    FAILS(PGRAD_E_INTERNAL, "'t'",
          pgrad__tensor_read(&set, &set.tensors[0], 32 * BLOCKS, 32, part));
    FAILS(PGRAD_E_INTERNAL, "'t'",
          pgrad__tensor_read(&set, &set.tensors[0], 32, UINT64_MAX - 31, part));
    free(all);
    pgrad__tensor_set_free(&set);
    drop(&b);
}
END_TEST

START_TEST(tells_file_and_tensor)
{
    pgrad__tensor_set set;
    float out[4];
    pgrad__tensor_view views[2] = {
        {.name = "short",
         .type = PGRAD__ELEMENT_F32,
         .type_name = "F32",
         .n_elements = 4,
         .n_bytes = 16},
        {.name = "other", .type = PGRAD__ELEMENT_OTHER, .type_name = "Q4_K", .n_elements = 4}};
    make_set(&set, put_text_file("f", "0123456789"), views, 2);
    FAILS(PGRAD_E_FORMAT, "tensor 'short': ", pgrad__tensor_read(&set, &set.tensors[0], 0, 4, out));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "/f: truncated"));
    FAILS(PGRAD_E_UNSUPPORTED, "/f: tensor 'other': type Q4_K",
          pgrad__tensor_read(&set, &set.tensors[1], 0, 4, out));
    pgrad__tensor_set_free(&set);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, finds_by_name);
    tcase_add_test(tests, refuses_a_name_that_is_there_twice);
    tcase_add_test(tests, reads_parts_of_quantised_tensors);
    tcase_add_test(tests, tells_file_and_tensor);
}

int main(void)
{
    return run_case("io/tensor_file", setup, teardown, 60, add);
}
