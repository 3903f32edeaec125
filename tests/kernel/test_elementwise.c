#include "kernel_test.h"

enum { N = 20011 };

/* From the far left, where gradients vanish, to the far right, every kind; and the edges. */
static float *values(void)
{
    static const float edges[] = {0.0f, -0.0f, 1e-30f, -1e-30f, 88.0f, -88.0f, 100.0f, -100.0f, 1e4f, -1e4f, 3e38f, -3e38f};
    float *x = random_floats(N);
    for (size_t i = 0; i < N; i++)
        x[i] *= i % 3 == 0 ? 10.0f : i % 3 == 1 ? 1.0f : 0.01f;
    memcpy(x + 1000, edges, sizeof edges);
    return x;
}

/* Off by some u of the result, or, where 1 + tanh and 1 + erf cancel, by some u of x. */
START_TEST(activations)
{
    const int kind = _i % 4;
    if (!begin(_i / 4, 3))
        return;
    float *x = values(), *dy = random_floats(N), *y = zeros(N), *dx = zeros(N);
    double *Y = doubles(N), *DX = doubles(N), *bound = doubles(N), *dbound = doubles(N);
    for (size_t i = 0; i < N; i++) {
        Y[i] = ref_activation(kind, x[i]);
        DX[i] = dy[i] * ref_activation_grad(kind, x[i]);
        bound[i] = fabs(Y[i]) + fmin(fabs(x[i]), 1.0);
        /* 1 - tanh^2 is off by u, and is multiplied by the slope inside tanh until it is 0 */
        const double near = fmin(fabs(x[i]), 6.0);
        dbound[i] = fabs(DX[i]) + fabs(dy[i]) * (1.0 + near * (1.0 + 0.134 * near * near));
    }
    pgrad__activation_forward(context, (pgrad__activation)kind, x, N, y);
    check_bound("y", y, Y, bound, N, 8 * U);
    pgrad__activation_backward(context, (pgrad__activation)kind, dy, x, N, dx);
    for (size_t i = 0; i < N; i++)
        if (fabs(x[i]) < 1e30)
            check_bound("dx", dx + i, DX + i, dbound + i, 1, 16 * U);
    /* in place over dy */
    pgrad__activation_backward(context, (pgrad__activation)kind, dy, x, N, dy);
    check_same("in place", dy, dx, N);
    end();
}
END_TEST

START_TEST(gated)
{
    const int kind = _i % 4;
    if (!begin(_i / 4, 3))
        return;
    float *gate = random_floats(N), *up = random_floats(N), *dy = random_floats(N), *y = zeros(N);
    float *dgate = zeros(N), *dup = zeros(N);
    double *Y = doubles(N), *DG = doubles(N), *DU = doubles(N);
    double *G = to_double(gate, N), *UP = to_double(up, N);
    ref_gated(kind, G, UP, N, Y);
    ref_gated_grad(kind, to_double(dy, N), G, UP, N, DG, DU);
    pgrad__gated_forward(context, (pgrad__activation)kind, gate, up, N, y);
    check_near("y", y, Y, N, 4e-6, 1e-6);
    pgrad__gated_backward(context, (pgrad__activation)kind, dy, gate, up, N, dgate, dup);
    check_near("dgate", dgate, DG, N, 1e-5, 1e-6);
    check_near("dup", dup, DU, N, 4e-6, 1e-6);
    pgrad__gated_backward(context, (pgrad__activation)kind, dy, gate, up, N, gate, up);
    check_same("dgate in place", gate, dgate, N);
    check_same("dup in place", up, dup, N);
    end();
}
END_TEST

START_TEST(not_a_number_comes_through)
{
    if (!begin(_i, 1))
        return;
    float x[3] = {NAN, INFINITY, 1.0f}, one[3] = {1, 1, 1}, y[3];
    for (int kind = 0; kind < 4; kind++) {
        pgrad__activation_forward(context, (pgrad__activation)kind, x, 3, y);
        ck_assert_msg(isnan(y[0]), "kind %d hides a NaN", kind);
        ck_assert_msg(!isfinite(y[1]), "kind %d hides an infinity", kind);
        ck_assert(isfinite(y[2]));
        pgrad__gated_forward(context, (pgrad__activation)kind, one, x, 3, y);
        ck_assert(isnan(y[0]) && isinf(y[1]));
    }
    end();
}
END_TEST

START_TEST(sums)
{
    if (!begin(_i, 3))
        return;
    float *x = random_floats(N), *y = random_floats(N), *wanted = zeros(N);
    for (size_t i = 0; i < N; i++)
        wanted[i] = y[i] + x[i];
    pgrad__add_to(context, x, N, y);
    check_same("y", y, wanted, N);
    pgrad__add_to(context, x, 0, y);
    check_same("y", y, wanted, N);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, activations, 0, N_SETS * 4);
    tcase_add_loop_test(tests, gated, 0, N_SETS * 4);
    tcase_add_loop_test(tests, not_a_number_comes_through, 0, N_SETS);
    tcase_add_loop_test(tests, sums, 0, N_SETS);
}

int main(void)
{
    return run_case("kernel/elementwise", NULL, NULL, 60, add);
}
