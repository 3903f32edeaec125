/* Safetensors written: the reference's layout, and everything read back. */
#include "io/safetensors.h"

#include "io_test.h"

static pgrad_status counted_rows(void *user, size_t i, uint64_t first, uint64_t count, float *out)
{
    const pgrad__safetensors_entry *entry = (const pgrad__safetensors_entry *)user + i;
    uint64_t width = entry->n_dims == 0 ? 1 : entry->dims[entry->n_dims - 1];
    for (uint64_t k = 0; k < count * width; k++)
        out[k] = (float)(first * width + k) + 0.5f * (float)i;
    return PGRAD_OK;
}

static void write_entries(const char *path, pgrad__safetensors_entry *entries, size_t n,
                          int as_bf16)
{
    pgrad__writer writer = {.descriptor = -1};
    OK(pgrad__writer_open(context, path, &writer));
    OK(pgrad__safetensors_write(&writer, entries, n, as_bf16, counted_rows, entries));
    OK(pgrad__writer_commit(&writer));
}

START_TEST(writes_the_reference_layout)
{
    pgrad__safetensors_entry entry = {"attn.0", 3, {1, 2, 3}};
    const char *path = in_folder("f");
    const float values[6] = {0, 1, 2, 3, 4, 5};
    size_t size;
    uint64_t header;
    write_entries(path, &entry, 1, 0);
    char *data = get_file(path, &size);
    memcpy(&header, data, 8);
    static const char EXPECTED[] =
        "{\"__metadata__\":{\"format\":\"pt\"},"
        "\"attn.0\":{\"dtype\":\"F32\",\"shape\":[1,2,3],\"data_offsets\":[0,24]}}";
    ck_assert_uint_eq(header % 8, 0);
    ck_assert_mem_eq(data + 8, EXPECTED, sizeof EXPECTED - 1);
    for (size_t i = 8 + sizeof EXPECTED - 1; i < 8 + header; i++)
        ck_assert_int_eq(data[i], ' ');
    ck_assert_uint_eq(size, 8 + header + 24);
    ck_assert_mem_eq(data + 8 + header, values, 24);
    free(data);
}
END_TEST

START_TEST(reads_what_it_wrote)
{
    pgrad__safetensors_entry entries[] = {{"z", 2, {300, 1000}},
                                          {"a\"\\\n\xc3\xa9", 1, {7}},
                                          {"scalar", 0, {0}},
                                          {"empty", 2, {0, 4}},
                                          {"deep", 4, {2, 3, 4, 5}}};
    for (int as_bf16 = 0; as_bf16 < 2; as_bf16++) {
        pgrad__tensor_set set;
        const char *path = in_folder(as_bf16 ? "bf16" : "f32");
        static float out[300000];
        write_entries(path, entries, 5, as_bf16);
        OK(pgrad__safetensors_open(context, path, &set));
        ck_assert_uint_eq(set.n_tensors, 5);
        for (size_t i = 0; i < 5; i++) {
            const pgrad__tensor_view *t = pgrad__tensor_find(&set, entries[i].name);
            ck_assert(t != NULL && t->n_dims == entries[i].n_dims);
            ck_assert_str_eq(t->type_name, as_bf16 ? "BF16" : "F32");
            for (uint32_t d = 0; d < t->n_dims; d++)
                ck_assert_uint_eq(t->dims[d], entries[i].dims[d]);
            OK(pgrad__tensor_read(&set, t, 0, t->n_elements, out));
            for (size_t k = 0; k < t->n_elements; k++) {
                float expected = (float)k + 0.5f * (float)i;
                if (as_bf16)
                    expected = pgrad__bf16_to_f32(pgrad__f32_to_bf16(expected));
                ck_assert(out[k] == expected);
            }
        }
        /* parts give the same as the whole: across the border of a chunk */
        const pgrad__tensor_view *z = pgrad__tensor_find(&set, "z");
        OK(pgrad__tensor_read(&set, z, 1234, 200001, out));
        float last = (float)(1234 + 200000);
        ck_assert(out[200000] == (as_bf16 ? pgrad__bf16_to_f32(pgrad__f32_to_bf16(last)) : last));
        pgrad__tensor_set_free(&set);
    }
}
END_TEST

static pgrad_status failing_rows(void *user, size_t i, uint64_t first, uint64_t count, float *out)
{
    (void)user, (void)i;
    memset(out, 0, (size_t)count * 1024 * sizeof *out);
    return first == 0 ? PGRAD_OK : PGRAD_E_CANCELLED;
}

START_TEST(a_source_that_fails_leaves_no_file)
{
    pgrad__safetensors_entry entry = {"t", 2, {4096, 1024}};
    pgrad__writer writer = {.descriptor = -1};
    OK(pgrad__writer_open(context, in_folder("f"), &writer));
    ck_assert_int_eq(pgrad__safetensors_write(&writer, &entry, 1, 0, failing_rows, NULL),
                     PGRAD_E_CANCELLED);
    pgrad__writer_abort(&writer);
    ck_assert_int_eq(rmdir(test_folder), 0); /* nothing is left in it */
    ck_assert_int_eq(mkdir(test_folder, 0700), 0);
}
END_TEST

/* Bytes that no size_t counts. */
START_TEST(tensors_beyond_all_memory)
{
    pgrad__safetensors_entry entries[] = {{"rows", 4, {(uint64_t)1 << 40, (uint64_t)1 << 40, 1, 1}},
                                          {"elements", 2, {(uint64_t)1 << 40, (uint64_t)1 << 40}},
                                          {"bytes", 1, {(uint64_t)1 << 62}}};
    for (int i = 0; i < 3; i++) {
        char text[100];
        pgrad__writer writer = {.descriptor = -1};
        OK(pgrad__writer_open(context, in_folder("f"), &writer));
        snprintf(text, sizeof text, "tensor '%s' is too large to write", entries[i].name);
        FAILS(PGRAD_E_LIMIT, text, pgrad__safetensors_write(&writer, &entries[i], 1, 0, failing_rows, NULL));
        pgrad__writer_abort(&writer);
    }
}
END_TEST

/* ST23: onto the file the tensors come from, one after the other. */
static pgrad__tensor_set source;

static pgrad_status rows_of_source(void *user, size_t i, uint64_t first, uint64_t count, float *out)
{
    const pgrad__safetensors_entry *entry = (const pgrad__safetensors_entry *)user + i;
    return pgrad__tensor_read(&source, pgrad__tensor_find(&source, entry->name),
                              first * entry->dims[1], count * entry->dims[1], out);
}

START_TEST(st23_save_over_the_file_being_read)
{
    pgrad__safetensors_entry entries[] = {{"a", 2, {64, 16}}, {"b", 2, {16, 64}}};
    const char *path = in_folder("f");
    pgrad__writer writer = {.descriptor = -1};
    size_t before_size, after_size;
    write_entries(path, entries, 2, 0);
    char *before = get_file(path, &before_size);
    OK(pgrad__safetensors_open(context, path, &source));
    OK(pgrad__writer_open(context, path, &writer));
    OK(pgrad__safetensors_write(&writer, entries, 2, 0, rows_of_source, entries));
    OK(pgrad__writer_commit(&writer));
    char *after = get_file(path, &after_size);
    ck_assert_uint_eq(before_size, after_size);
    ck_assert_mem_eq(before, after, before_size);
    pgrad__tensor_set_free(&source);
    free(before);
    free(after);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, writes_the_reference_layout);
    tcase_add_test(tests, reads_what_it_wrote);
    tcase_add_test(tests, a_source_that_fails_leaves_no_file);
    tcase_add_test(tests, tensors_beyond_all_memory);
    tcase_add_test(tests, st23_save_over_the_file_being_read);
}

int main(void)
{
    return run_case("io/safetensors_write", setup, teardown, 60, add);
}
