/* GGUF: where tensors lie and what they are made of. Names carry the row (GG) of the catalogue of bad files
 * they check. */
#include "gguf_test.h"

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
    tcase_add_test(tests, gg07_dimension_count_is_no_index);
    tcase_add_loop_test(tests, gg_tensors_refused, 0, sizeof TENSORS / sizeof TENSORS[0]);
    tcase_add_loop_test(tests, gg_pairs_refused, 0, sizeof PAIRS / sizeof PAIRS[0]);
    tcase_add_test(tests, gg11_alignment);
    tcase_add_test(tests, gg12_out_of_order);
    tcase_add_test(tests, gg13_names);
    tcase_add_test(tests, types_that_are_read);
    tcase_add_test(tests, types_that_cannot_be_read_keep_their_names);
}

int main(void)
{
    return run_case("io/gguf_tensors", setup, teardown, 60, add);
}
