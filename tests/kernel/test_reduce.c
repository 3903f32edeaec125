#include "kernel_test.h"

static const size_t SIZES[] = {0, 1, 255, 256, 257, 1000, 70000};
enum { N_SIZES = 7 };

/* The definition, spelled out: blocks of 256 ascending in double, then a pairwise tree. */
static double tree(double *sums, size_t n)
{
    if (n == 0)
        return 0.0;
    for (; n > 1; n = (n + 1) / 2)
        for (size_t i = 0; i < (n + 1) / 2; i++)
            sums[i] = 2 * i + 1 < n ? sums[2 * i] + sums[2 * i + 1] : sums[2 * i];
    return sums[0];
}

START_TEST(sums_of_squares)
{
    const size_t n = SIZES[_i % N_SIZES];
    if (!begin(_i / N_SIZES, 3))
        return;
    float *x = random_floats(n);
    long double exact = 0;
    double *blocks = doubles(n / 256 + 1);
    for (size_t i = 0; i < n; i++) {
        exact += (long double)x[i] * x[i];
        blocks[i / 256] += (double)x[i] * x[i];
    }
    const double found = pgrad__vector_sumsq(context, x, n);
    ck_assert_double_eq_tol(found, (double)exact, 1e-12 * (double)exact + 1e-300);
    ck_assert_double_eq_tol(found, tree(blocks, (n + 255) / 256), 1e-14 * (double)exact + 1e-300);
    for (size_t i = 0; i < n; i++)
        x[i] *= 0x1p100f; /* squares beyond f32 */
    ck_assert_double_eq_tol(pgrad__vector_sumsq(context, x, n) * 0x1p-200, (double)exact, 1e-12 * (double)exact + 1e-300);
    end();
}
END_TEST

START_TEST(sums_of_squares_of_matrices)
{
    enum { OUT = 77, IN = 301 };
    if (!begin(_i, 3))
        return;
    float *rows = random_floats(OUT * IN);
    long double exact = 0;
    for (size_t i = 0; i < OUT * IN; i++)
        exact += (long double)rows[i] * rows[i];
    pgrad__matrix m = make_matrix(OUT, IN, rows);
    ck_assert_double_eq_tol(pgrad__matrix_sumsq(context, &m), (double)exact, 1e-12 * (double)exact + 1e-300);
    rows[5000] = NAN;
    pgrad__matrix_set_rows(kernels, &m, 0, OUT, rows);
    ck_assert(isnan(pgrad__matrix_sumsq(context, &m)));
    free_matrix(&m);
    end();
}
END_TEST

START_TEST(finds_what_is_not_finite)
{
    enum { N = 3000 };
    static const float bad[] = {NAN, INFINITY, -INFINITY};
    if (!begin(_i, 3))
        return;
    float *x = random_floats(N);
    x[5] = 3.4e38f;
    x[6] = -3.4e38f;
    x[7] = 1e-45f;
    ck_assert_int_eq(pgrad__all_finite(context, x, N), 1);
    ck_assert_int_eq(pgrad__all_finite(context, x, 0), 1);
    for (size_t at = 0; at < N; at += 1 + at / 7)
        for (int k = 0; k < 3; k++) {
            const float old = x[at];
            x[at] = bad[k];
            ck_assert_int_eq(pgrad__all_finite(context, x, N), 0);
            ck_assert(!isfinite(pgrad__vector_sumsq(context, x, N)));
            x[at] = old;
        }
    x[N - 1] = NAN;
    ck_assert_int_eq(pgrad__all_finite(context, x, N), 0);
    ck_assert_int_eq(pgrad__all_finite(context, x, N - 1), 1);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, sums_of_squares, 0, N_SETS * N_SIZES);
    tcase_add_loop_test(tests, sums_of_squares_of_matrices, 0, N_SETS);
    tcase_add_loop_test(tests, finds_what_is_not_finite, 0, N_SETS);
}

int main(void)
{
    return run_case("kernel/reduce", NULL, NULL, 60, add);
}
