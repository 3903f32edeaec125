/* Narrow storage: what is kept of a weight, and that every product is the product of the widened weights
 * in F32, to the bit. */
#include "kernel_test.h"

#include "base/half.h"
#include "io/dequant.h"

enum { BF16 = PGRAD_STORAGE_BF16, Q8_0 = PGRAD_STORAGE_Q8_0, TWO_BLOCKS = 361, N_SHAPES = 6 };
static const uint32_t SHAPES[N_SHAPES][2] = {{1, 1}, {33, 31}, {130, 64}, {70, 300}, {257, 33}, {96, 513}};

/* Check writes down every assertion: too slow for those of each element. */
#define NEED(condition)                                                                                       \
    do {                                                                                                      \
        if (!(condition))                                                                                     \
            ck_abort_msg("%s: not %s", kernels == NULL ? "" : kernels->name, #condition);                     \
    } while (0)

/* Each pair of kernel set and storage: 0 when this machine lacks the set. */
static int begin_pair(int index, uint32_t n_threads, uint32_t *storage)
{
    *storage = index % 2 == 0 ? BF16 : Q8_0;
    return begin(index / 2, n_threads);
}

/* ---- one value ---- */

START_TEST(every_f16_comes_back)
{
    for (uint32_t half = 0; half < 65536; half++) {
        float value = pgrad__f16_to_f32((uint16_t)half);
        if (isnan(value))
            NEED(isnan(pgrad__f16_to_f32(pgrad__f32_to_f16(value))));
        else
            NEED(pgrad__f32_to_f16(value) == half);
        if (half % 0x8000 >= 0x7bff)
            continue;
        /* To the nearer neighbour, halves to the even one. */
        float next = pgrad__f16_to_f32((uint16_t)(half + 1)), middle = 0.5f * (value + next);
        NEED(pgrad__f32_to_f16(middle) == half + half % 2);
        NEED(pgrad__f32_to_f16(nextafterf(middle, value)) == half);
        NEED(pgrad__f32_to_f16(nextafterf(middle, next)) == half + 1);
    }
    ck_assert_uint_eq(pgrad__f32_to_f16(65519.996f), 0x7bff);
    ck_assert_uint_eq(pgrad__f32_to_f16(65520.0f), 0x7c00);
    ck_assert_uint_eq(pgrad__f32_to_f16(-INFINITY), 0xfc00);
    ck_assert_uint_eq(pgrad__f32_to_f16(-1e-8f), 0x8000);
}
END_TEST

/* ---- what is stored ---- */

/* The weights by their definition, in rows. */
static float *narrowed(uint32_t storage, uint32_t n_out, uint32_t n_in, const float *rows)
{
    float *out = zeros((size_t)n_out * n_in);
    for (size_t o = 0; o < n_out; o++)
        for (size_t first = 0; first < n_in; first += 32) {
            const size_t n = n_in - first < 32 ? n_in - first : 32;
            const float *x = rows + o * n_in + first;
            float largest = 0.0f, *y = out + o * n_in + first;
            for (size_t i = 0; i < n; i++)
                largest = fmaxf(largest, fabsf(x[i]));
            const float d = largest / 127.0f, inverse = d == 0.0f ? 0.0f : 1.0f / d;
            for (size_t i = 0; i < n; i++)
                y[i] = storage == BF16 ? pgrad__bf16_to_f32(pgrad__f32_to_bf16(x[i]))
                                       : roundf(x[i] * inverse) * pgrad__f16_to_f32(pgrad__f32_to_f16(d));
        }
    return out;
}

START_TEST(weights_by_definition)
{
    uint32_t storage;
    if (!begin_pair(_i, 1, &storage))
        return;
    for (int shape = 0; shape < N_SHAPES; shape++) {
        const uint32_t n_out = SHAPES[shape][0], n_in = SHAPES[shape][1];
        const size_t n = (size_t)n_out * n_in;
        float *rows = random_floats(n), *columns = zeros(n), *back = zeros(n);
        for (size_t i = 0; i < n_in && i < 32; i++)
            rows[i] = 0.0f; /* a block of nothing */
        float *wanted = narrowed(storage, n_out, n_in, rows);
        pgrad__matrix m = make_matrix_in(storage, n_out, n_in, rows);
        float *stored = rows_of(&m);
        for (size_t i = 0; i < n; i++)
            NEED(stored[i] == wanted[i]); /* the zero of a zero block has no sign */
        /* By columns, in two pieces, the same bytes; and once more from what is stored. */
        for (size_t o = 0; o < n_out; o++)
            for (size_t i = 0; i < n_in; i++)
                columns[i * n_out + o] = rows[o * n_in + i];
        pgrad__matrix c = make_matrix_in(storage, n_out, n_in, NULL);
        const uint32_t half = n_in > 32 ? 32 : n_in;
        pgrad__matrix_set_columns(kernels, &c, 0, half, columns);
        pgrad__matrix_set_columns(kernels, &c, half, n_in - half, columns + half * n_out);
        const size_t bytes = pgrad__matrix_bytes(kernels, storage, n_out, n_in);
        ck_assert(memcmp(c.data, m.data, bytes) == 0);
        pgrad__matrix_get_columns(kernels, &c, 0, n_in, back);
        for (size_t o = 0; o < n_out; o++)
            for (size_t i = 0; i < n_in; i++)
                NEED(back[i * n_out + o] == stored[o * n_in + i]);
        pgrad__matrix_set_rows(kernels, &c, 0, n_out, stored);
        ck_assert(memcmp(c.data, m.data, bytes) == 0);
        ck_assert(pgrad__matrix_all_finite(context, &m));
        rows[n - 1] = NAN;
        pgrad__matrix_set_rows(kernels, &m, 0, n_out, rows);
        ck_assert(!pgrad__matrix_all_finite(context, &m));
        rows[n - 1] = storage == BF16 ? 3.4e38f : 1e7f; /* beyond the largest */
        pgrad__matrix_set_rows(kernels, &m, 0, n_out, rows);
        ck_assert(!pgrad__matrix_all_finite(context, &m));
        rows[n - 1] = 1e-40f; /* without a reciprocal */
        pgrad__matrix_set_rows(kernels, &m, 0, n_out, rows);
        ck_assert(pgrad__matrix_all_finite(context, &m));
        free_matrix(&c);
        free_matrix(&m);
    }
    end();
}
END_TEST

/* Blocks as a GGUF file has them, any scale with a quant of 127 or -127: the file's own values. */
START_TEST(blocks_of_files_are_kept)
{
    enum { OUT = 40, IN = 128, BLOCK_BYTES = 34 };
    if (!begin(_i, 1))
        return;
    static unsigned char file[OUT * IN / 32 * BLOCK_BYTES];
    float *rows = zeros(OUT * IN);
    uint32_t state = 7;
    for (size_t b = 0; b < OUT * IN / 32; b++) {
        unsigned char *block = file + b * BLOCK_BYTES;
        const uint16_t scale = (uint16_t)(1 + b * 0x7bfe / (OUT * IN / 32 - 1)); /* subnormals too */
        memcpy(block, &scale, sizeof scale);
        for (size_t i = 0; i < 32; i++) {
            state = state * 1664525u + 1013904223u;
            block[2 + i] = (unsigned char)(int8_t)((int)(state >> 24) % 255 - 127);
        }
        block[2 + b % 32] = (unsigned char)(b % 2 == 0 ? 127 : -127);
    }
    pgrad__dequantize(PGRAD__ELEMENT_Q8_0, file, OUT * IN, rows);
    pgrad__matrix m = make_matrix_in(Q8_0, OUT, IN, rows);
    for (size_t o = 0; o < OUT; o++)
        for (size_t k = 0; k < IN; k++) {
            const unsigned char *from = file + (o * IN + k) / 32 * BLOCK_BYTES;
            const unsigned char *panel =
                (const unsigned char *)m.data +
                o / kernels->wide * pgrad__panel_bytes(kernels, Q8_0, IN) + k / 32 * BLOCK_BYTES * kernels->wide;
            const size_t lane = o % kernels->wide;
            NEED(memcmp(panel + 2 * lane, from, 2) == 0);
            NEED(panel[(2 + k % 32) * kernels->wide + lane] == from[2 + k % 32]);
        }
    check_same("values", rows_of(&m), rows, OUT * IN);
    free_matrix(&m);
    end();
}
END_TEST

/* ---- products ---- */

static void same_products(const pgrad__matrix *narrow, const pgrad__matrix *wide, size_t n_rows)
{
    const size_t n_out = wide->n_out, n_in = wide->n_in;
    float *x = random_floats(n_rows * n_in), *dy = random_floats(n_rows * n_out), *b = random_floats(n_out);
    float *y = random_floats(n_rows * n_out), *wanted = copy_of(y, n_rows * n_out);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        const pgrad__product product = {narrow, b, y, n_out, accumulate}, same = {wide, b, wanted, n_out, accumulate};
        OK(pgrad__matmul(context, &workspace, x, n_in, n_rows, &product, 1));
        OK(pgrad__matmul(context, &workspace, x, n_in, n_rows, &same, 1));
        check_same("y", y, wanted, n_rows * n_out);
    }
    float *dx = random_floats(n_rows * n_in), *wanted_dx = copy_of(dx, n_rows * n_in);
    for (int accumulate = 0; accumulate < 2; accumulate++) {
        OK(pgrad__matmul_grad_input(context, &workspace, dy, n_out, n_rows, narrow, dx, n_in, accumulate));
        OK(pgrad__matmul_grad_input(context, &workspace, dy, n_out, n_rows, wide, wanted_dx, n_in, accumulate));
        check_same("dx", dx, wanted_dx, n_rows * n_in);
    }
}

static void forget_arrays(size_t kept)
{
    while (n_arrays > kept)
        free(arrays[--n_arrays]);
}

START_TEST(products_of_the_widened)
{
    uint32_t storage;
    if (!begin_pair(_i / N_SHAPES, 1, &storage)) /* threads: tests/exact */
        return;
    const uint32_t n_out = SHAPES[_i % N_SHAPES][0], n_in = SHAPES[_i % N_SHAPES][1];
    float *rows = random_floats((size_t)n_out * n_in);
    pgrad__matrix narrow = make_matrix_in(storage, n_out, n_in, rows);
    pgrad__matrix wide = make_matrix(n_out, n_in, rows_of(&narrow));
    const size_t kept = n_arrays;
    /* Few rows, which are not packed; then every tail of a tile with none, one and two full ones before it. */
    for (size_t n_rows = 1; n_rows <= kernels->rows_max + 3 * kernels->narrow; n_rows++) {
        same_products(&narrow, &wide, n_rows);
        forget_arrays(kept);
    }
    same_products(&narrow, &wide, TWO_BLOCKS);
    free_matrix(&narrow);
    free_matrix(&wide);
    end();
}
END_TEST

/* Products of one x whose weights differ in storage. */
START_TEST(storages_mixed)
{
    enum { OUT = 70, IN = 100 };
    if (!begin(_i / 2, 2))
        return;
    const size_t n_rows = _i % 2 == 0 ? 3 : 40;
    float *x = random_floats(n_rows * IN), *y = zeros(3 * n_rows * OUT), *alone = zeros(n_rows * OUT);
    float *rows = random_floats(OUT * IN);
    pgrad__matrix m[3];
    pgrad__product products[3];
    for (uint32_t storage = 0; storage < 3; storage++) {
        m[storage] = make_matrix_in(storage, OUT, IN, rows);
        products[storage] = (pgrad__product){&m[storage], NULL, y + storage * OUT, 3 * OUT, 0};
    }
    OK(pgrad__matmul(context, &workspace, x, IN, n_rows, products, 3));
    for (uint32_t storage = 0; storage < 3; storage++) {
        pgrad__matrix wide = make_matrix(OUT, IN, rows_of(&m[storage]));
        const pgrad__product product = {&wide, NULL, alone, OUT, 0};
        OK(pgrad__matmul(context, &workspace, x, IN, n_rows, &product, 1));
        for (size_t t = 0; t < n_rows; t++)
            check_same("mixed", y + t * 3 * OUT + storage * OUT, alone + t * OUT, OUT);
        free_matrix(&wide);
        free_matrix(&m[storage]);
    }
    end();
}
END_TEST

START_TEST(embedding_of_the_widened)
{
    enum { VOCABULARY = 77, WIDTH = 37, ROWS = 60 };
    uint32_t storage;
    if (!begin_pair(_i, 2, &storage))
        return;
    float *out = zeros(ROWS * WIDTH), *wanted = zeros(ROWS * WIDTH);
    pgrad_token tokens[ROWS];
    for (int t = 0; t < ROWS; t++)
        tokens[t] = t * 31 % VOCABULARY;
    pgrad__matrix narrow = make_matrix_in(storage, VOCABULARY, WIDTH, random_floats(VOCABULARY * WIDTH));
    pgrad__matrix wide = make_matrix(VOCABULARY, WIDTH, rows_of(&narrow));
    pgrad__embedding_forward(context, &narrow, NULL, tokens, NULL, ROWS, out);
    pgrad__embedding_forward(context, &wide, NULL, tokens, NULL, ROWS, wanted);
    check_same("gathered", out, wanted, ROWS * WIDTH);
    free_matrix(&narrow);
    free_matrix(&wide);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, every_f16_comes_back);
    tcase_add_loop_test(tests, weights_by_definition, 0, 2 * N_SETS);
    tcase_add_loop_test(tests, blocks_of_files_are_kept, 0, N_SETS);
    tcase_add_loop_test(tests, products_of_the_widened, 0, 2 * N_SETS * N_SHAPES);
    tcase_add_loop_test(tests, storages_mixed, 0, 2 * N_SETS);
    tcase_add_loop_test(tests, embedding_of_the_widened, 0, 2 * N_SETS);
}

int main(void)
{
    return run_case("kernel/storage", NULL, NULL, 60, add);
}
