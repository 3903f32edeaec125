#include "kernel_test.h"

static const size_t WIDTHS[] = {1, 2, 7, 16, 33, 576, 768};
enum { N_WIDTHS = sizeof WIDTHS / sizeof WIDTHS[0], ROWS = 300 };

/* Rows are of unit variance times 3 plus 1, so results are of size 1 and errors some u: 1e-5 is ten
 * times what the sums of 768 may lose. Gradients of w and b are sums over 300 rows. */
START_TEST(layernorm)
{
    const size_t n = WIDTHS[_i % N_WIDTHS], nx = ROWS * n;
    if (!begin(_i / N_WIDTHS, 2))
        return;
    float *x = random_floats(nx), *w = random_floats(n), *b = random_floats(n), *dy = random_floats(nx);
    for (size_t i = 0; i < nx; i++)
        x[i] = 3 * x[i] + 1;
    float *y = zeros(nx), *mean = zeros(ROWS), *rstd = zeros(ROWS);
    float *dx = random_floats(nx), *dw = random_floats(n), *db = random_floats(n);
    double *before = to_double(dx, nx), *wb = to_double(dw, n), *bb = to_double(db, n);
    double *Y = doubles(nx), *DX = doubles(nx), *DW = doubles(n), *DB = doubles(n);
    double *X = to_double(x, nx), *W = to_double(w, n), *DY = to_double(dy, nx);
    const double eps = n == 1 ? 0.5 : 1e-5f;
    pgrad__layernorm_forward(context, x, ROWS, n, w, b, (float)eps, y, mean, rstd);
    ref_layernorm(X, ROWS, n, W, to_double(b, n), eps, Y);
    /* two values that nearly agree leave few digits of their difference */
    const double tolerance = n <= 2 ? 2e-2 : 1e-5;
    check_near("y", y, Y, nx, tolerance, 1e-5);
    pgrad__layernorm_backward(context, dy, x, ROWS, n, w, mean, rstd, dx, dw, db);
    ref_layernorm_grad(DY, X, ROWS, n, W, eps, DX, DW, DB);
    for (size_t i = 0; i < nx; i++)
        DX[i] += before[i];
    for (size_t i = 0; i < n; i++) {
        DW[i] += wb[i];
        DB[i] += bb[i];
    }
    if (n > 2)
        check_near("dx", dx, DX, nx, 2e-5, 1e-5);
    check_near("dw", dw, DW, n, n <= 2 ? 1e-1 : 2e-4, 1e-5);
    check_near("db", db, DB, n, 2e-4, 1e-5);
    end();
}
END_TEST

START_TEST(rmsnorm)
{
    const size_t n = WIDTHS[_i % N_WIDTHS], nx = ROWS * n;
    if (!begin(_i / N_WIDTHS, 2))
        return;
    float *x = random_floats(nx), *w = random_floats(n), *dy = random_floats(nx);
    float *y = zeros(nx), *rstd = zeros(ROWS), *dx = random_floats(nx), *dw = random_floats(n);
    double *before = to_double(dx, nx), *wb = to_double(dw, n);
    double *Y = doubles(nx), *DX = doubles(nx), *DW = doubles(n);
    double *X = to_double(x, nx), *W = to_double(w, n), *DY = to_double(dy, nx);
    const double eps = n == 1 ? 0.5 : 1e-5f;
    pgrad__rmsnorm_forward(context, x, ROWS, n, w, (float)eps, y, rstd);
    ref_rmsnorm(X, ROWS, n, W, eps, Y);
    check_near("y", y, Y, nx, 1e-6, 1e-5);
    pgrad__rmsnorm_backward(context, dy, x, ROWS, n, w, rstd, dx, dw);
    ref_rmsnorm_grad(DY, X, ROWS, n, W, eps, DX, DW);
    for (size_t i = 0; i < nx; i++)
        DX[i] += before[i];
    for (size_t i = 0; i < n; i++)
        DW[i] += wb[i];
    if (n > 2)
        check_near("dx", dx, DX, nx, 2e-5, 1e-5);
    check_near("dw", dw, DW, n, 2e-4, 1e-5);
    end();
}
END_TEST

/* A row that is all the same has variance 0: eps keeps it finite. */
START_TEST(constant_rows)
{
    enum { N = 40 };
    if (!begin(_i, 1))
        return;
    float *x = zeros(N), *w = random_floats(N), *b = random_floats(N), *y = zeros(N), mean, rstd;
    for (int i = 0; i < N; i++)
        x[i] = 2.5f;
    pgrad__layernorm_forward(context, x, 1, N, w, b, 1e-5f, y, &mean, &rstd);
    check_same("y", y, b, N);
    ck_assert(mean == 2.5f);
    memset(x, 0, N * sizeof *x);
    pgrad__rmsnorm_forward(context, x, 1, N, w, 1e-5f, y, &rstd);
    for (int i = 0; i < N; i++)
        ck_assert(y[i] == 0.0f);
    ck_assert(isfinite(rstd));
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, layernorm, 0, N_SETS * N_WIDTHS);
    tcase_add_loop_test(tests, rmsnorm, 0, N_SETS * N_WIDTHS);
    tcase_add_loop_test(tests, constant_rows, 0, N_SETS);
}

int main(void)
{
    return run_case("kernel/norm", NULL, NULL, 60, add);
}
