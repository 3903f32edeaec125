/* Products and their gradients. A sum of n products in f32 is off by at most n u sum |a b|, here n = the
 * block of 256 and some more: the bound every element is held to. */
#include "kernel_test.h"

static const struct {
    uint32_t n_out, n_in;
    size_t rows;
} SHAPES[] = {{1, 1, 1},   {5, 3, 2},    {16, 16, 16}, {77, 300, 101}, {33, 256, 6},
              {96, 257, 7}, {130, 64, 40}, {48, 513, 1}, {65, 12, 300}};
enum { N_SHAPES = sizeof SHAPES / sizeof SHAPES[0], TERMS = 300 };

static void check_shape(uint32_t n_out, uint32_t n_in, size_t rows)
{
    const size_t nx = rows * n_in, ny = rows * n_out, nw = (size_t)n_out * n_in;
    float *x = random_floats(nx), *w = random_floats(nw), *b = random_floats(n_out), *dy = random_floats(ny);
    float *y = zeros(ny), *dx = zeros(nx), *db = random_floats(n_out);
    double *X = to_double(x, nx), *W = to_double(w, nw), *B = to_double(b, n_out), *DY = to_double(dy, ny);
    double *wanted = doubles(ny), *bound = doubles(ny);
    pgrad__matrix matrix = make_matrix(n_out, n_in, w);
    check_same("set and get", rows_of(&matrix), w, nw);

    const pgrad__product product = {&matrix, b, y, n_out, 0};
    OK(pgrad__matmul(context, &workspace, x, n_in, rows, &product, 1));
    ref_product(X, rows, n_in, W, n_out, B, wanted);
    ref_product(magnitudes(X, nx), rows, n_in, magnitudes(W, nw), n_out, magnitudes(B, n_out), bound);
    check_bound("y", y, wanted, bound, ny, TERMS * U);

    double *DX = doubles(nx), *DW = doubles(nw), *DB = doubles(n_out);
    double *bx = doubles(nx), *bw = doubles(nw), *bb = doubles(n_out);
    ref_product_grad(DY, X, rows, n_in, W, n_out, DX, DW, DB);
    ref_product_grad(magnitudes(DY, ny), magnitudes(X, nx), rows, n_in, magnitudes(W, nw), n_out, bx, bw, bb);
    OK(pgrad__matmul_grad_input(context, &workspace, dy, n_out, rows, &matrix, dx, n_in, 0));
    check_bound("dx", dx, DX, bx, nx, TERMS * U);

    pgrad__matrix grad = make_matrix(n_out, n_in, NULL);
    OK(pgrad__matmul_grad_weight(context, &workspace, dy, n_out, x, n_in, rows, &grad));
    check_bound("dw", rows_of(&grad), DW, bw, nw, TERMS * U);
    check_padding(&grad);
    /* once more: gradients add up */
    OK(pgrad__matmul_grad_weight(context, &workspace, dy, n_out, x, n_in, rows, &grad));
    for (size_t i = 0; i < nw; i++)
        DW[i] *= 2;
    check_bound("dw twice", rows_of(&grad), DW, bw, nw, 2 * TERMS * U);

    for (size_t o = 0; o < n_out; o++) {
        DB[o] += db[o];
        bb[o] += fabs(db[o]);
    }
    pgrad__bias_grad(context, dy, n_out, rows, n_out, db);
    check_bound("db", db, DB, bb, n_out, TERMS * U);
    free_matrix(&grad);
    free_matrix(&matrix);
}

START_TEST(products_and_gradients)
{
    if (!begin(_i / N_SHAPES, 2))
        return;
    check_shape(SHAPES[_i % N_SHAPES].n_out, SHAPES[_i % N_SHAPES].n_in, SHAPES[_i % N_SHAPES].rows);
    end();
}
END_TEST

/* Strides, accumulation, several products of one x. */
START_TEST(strides_and_accumulation)
{
    enum { ROWS = 9, IN = 20, OUT = 37, MORE = 18, LDX = 23, LDY = 64 };
    if (!begin(_i, 1))
        return;
    float *x = random_floats(ROWS * LDX), *w = random_floats(OUT * IN), *w2 = random_floats(MORE * IN);
    float *y = random_floats(ROWS * LDY), *before = copy_of(y, ROWS * LDY);
    pgrad__matrix a = make_matrix(OUT, IN, w), b = make_matrix(MORE, IN, w2);
    const pgrad__product both[] = {{&a, NULL, y, LDY, 1}, {&b, NULL, y + OUT, LDY, 0}};
    OK(pgrad__matmul(context, &workspace, x, LDX, ROWS, both, 2));
    for (size_t t = 0; t < ROWS; t++)
        for (size_t o = 0; o < LDY; o++) {
            double wanted = o < OUT || o >= OUT + MORE ? before[t * LDY + o] : 0;
            for (size_t i = 0; i < IN && o < OUT + MORE; i++)
                wanted += (double)x[t * LDX + i] * (o < OUT ? w[o * IN + i] : w2[(o - OUT) * IN + i]);
            ck_assert_msg(fabs(y[t * LDY + o] - wanted) < 1e-5, "y[%zu, %zu]", t, o);
            if (o >= OUT + MORE) /* between the rows nothing is touched */
                ck_assert(y[t * LDY + o] == before[t * LDY + o]);
        }
    float *dy = random_floats(ROWS * LDY), *dx = random_floats(ROWS * LDX), *old = copy_of(dx, ROWS * LDX);
    OK(pgrad__matmul_grad_input(context, &workspace, dy, LDY, ROWS, &a, dx, LDX, 1));
    for (size_t t = 0; t < ROWS; t++)
        for (size_t i = 0; i < LDX; i++) {
            double wanted = old[t * LDX + i];
            for (size_t o = 0; o < OUT && i < IN; o++)
                wanted += (double)dy[t * LDY + o] * w[o * IN + i];
            ck_assert_msg(fabs(dx[t * LDX + i] - wanted) < 2e-5, "dx[%zu, %zu]", t, i);
        }
    free_matrix(&a);
    free_matrix(&b);
    end();
}
END_TEST

START_TEST(rows_and_columns_of_matrices)
{
    enum { OUT = 45, IN = 19 };
    if (!begin(_i, 1))
        return;
    float *columns = random_floats(IN * OUT), *back = zeros(IN * OUT), *part = zeros(3 * IN);
    pgrad__matrix m = make_matrix(OUT, IN, NULL);
    pgrad__matrix_set_columns(kernels, &m, 0, 7, columns);
    pgrad__matrix_set_columns(kernels, &m, 7, IN - 7, columns + 7 * OUT);
    check_padding(&m);
    pgrad__matrix_get_columns(kernels, &m, 0, IN, back);
    check_same("columns", back, columns, IN * OUT);
    pgrad__matrix_get_rows(kernels, &m, 30, 3, part);
    for (size_t r = 0; r < 3; r++)
        for (size_t i = 0; i < IN; i++)
            ck_assert(part[r * IN + i] == columns[i * OUT + 30 + r]);
    for (size_t i = 0; i < 3 * IN; i++)
        part[i] = (float)i;
    pgrad__matrix_set_rows(kernels, &m, 42, 3, part);
    pgrad__matrix_get_columns(kernels, &m, 0, IN, back);
    for (size_t i = 0; i < IN; i++)
        for (size_t o = 0; o < OUT; o++)
            ck_assert(back[i * OUT + o] == (o < 42 ? columns[i * OUT + o] : part[(o - 42) * IN + i]));
    free_matrix(&m);
    end();
}
END_TEST

/* AL01: no workspace, no result, and an error. */
START_TEST(al01_without_memory)
{
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1;
    params.memory_limit = 1 << 20;
    OK(pgrad_context_create(&params, &context));
    kernels = pgrad__kernels_of(context);
    workspace = (pgrad__workspace){.context = context};
    enum { N = 256, ROWS = 4000 };
    float *x = zeros(ROWS * N), *y = zeros(ROWS * N);
    pgrad__matrix m = make_matrix(N, N, NULL);
    const pgrad__product product = {&m, NULL, y, N, 0};
    pgrad_status status = pgrad__matmul(context, &workspace, x, N, ROWS, &product, 1);
    ck_assert(status == PGRAD_OK || status == PGRAD_E_LIMIT);
    pgrad__matrix grad = {.n_out = N, .n_in = N, .data = m.data};
    status = pgrad__matmul_grad_weight(context, &workspace, y, N, x, N, ROWS, &grad);
    ck_assert(status == PGRAD_OK || status == PGRAD_E_LIMIT);
    float *room;
    ck_assert_int_eq(pgrad__workspace_reserve(&workspace, 1 << 20, &room), PGRAD_E_LIMIT);
    ck_assert_int_ne(pgrad__workspace_reserve(&workspace, SIZE_MAX - 3, &room), PGRAD_OK);
    free_matrix(&m);
    pgrad__workspace_free(&workspace);
    pgrad_context_free(context);
    for (size_t i = 0; i < n_arrays; i++)
        free(arrays[i]);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, products_and_gradients, 0, N_SETS * N_SHAPES);
    tcase_add_loop_test(tests, strides_and_accumulation, 0, N_SETS);
    tcase_add_loop_test(tests, rows_and_columns_of_matrices, 0, N_SETS);
    tcase_add_test(tests, al01_without_memory);
}

int main(void)
{
    return run_case("kernel/gemm", NULL, NULL, 60, add);
}
