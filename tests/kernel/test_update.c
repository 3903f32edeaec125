#include "kernel_test.h"

static pgrad__adam kernel_adam(const ref_adam *a, unsigned t)
{
    return (pgrad__adam){
        .grad_scale = 1,
        .l2 = (float)a->l2,
        .decay = (float)(1 - a->learning_rate * a->decay),
        .beta1 = (float)a->beta1,
        .beta2 = (float)a->beta2,
        .step_size = (float)(a->learning_rate / (1 - pow(a->beta1, t))),
        .inverse_root = (float)(1 / sqrt(1 - pow(a->beta2, t))),
        .epsilon = (float)a->epsilon,
    };
}

static const ref_adam ADAMS[] = {
    {0.1, 0.9, 0.999, 1e-8, 0, 0}, {0.1, 0.9, 0.999, 1e-8, 0, 0.1}, {0.1, 0.9, 0.999, 1e-8, 0.1, 0}};

/* algorithms.md 12.6. */
START_TEST(worked_examples)
{
    static const float g[2][2] = {{0.5f, -0.1f}, {0.2f, 0.3f}};
    static const double adam_wanted[3][2][2] = {
        {{0.900000002, -1.90000001}, {0.810142483903, -1.94941899112}},
        {{0.890000002, -1.88000001}, {0.791242483883, -1.91061899102}},
        {{0.900000001667, -1.90000000333}, {0.807281460507, -1.86272210781}}};
    static const double sgd_wanted[2][2][2] = {{{0.95, -1.99}, {0.885, -2.011}}, {{0.905, -1.981}, {0.8265, -2.0299}}};
    if (!begin(_i, 1))
        return;
    for (int a = 0; a < 3; a++) {
        float theta[2] = {1, -2}, m[2] = {0}, v[2] = {0};
        for (unsigned t = 1; t <= 2; t++) {
            const pgrad__adam adam = kernel_adam(&ADAMS[a], t);
            ck_assert_int_eq(pgrad__adam_update(context, &adam, 2, theta, g[t - 1], m, v, 1), 1);
            check_near("adam", theta, adam_wanted[a][t - 1], 2, 0, 5e-6);
        }
        if (a < 2) {
            check_near("m", m, (const double[]){0.065, 0.021}, 2, 0, 5e-6);
            check_near("v", v, (const double[]){0.00028975, 9.999e-05}, 2, 0, 5e-5); /* 1 - 0.999 in f32 */
        }
    }
    for (int nesterov = 0; nesterov < 2; nesterov++) {
        float theta[2] = {1, -2}, b[2] = {0};
        for (unsigned t = 1; t <= 2; t++) {
            const pgrad__sgd sgd = {1, 0, 0.1f, 0.9f, nesterov, t == 1};
            ck_assert_int_eq(pgrad__sgd_update(context, &sgd, 2, theta, g[t - 1], b, 1), 1);
            check_near("sgd", theta, sgd_wanted[nesterov][t - 1], 2, 0, 5e-6);
        }
    }
    end();
}
END_TEST

enum { N = 1003 };

START_TEST(many_steps_follow_the_reference)
{
    if (!begin(_i / 3, 3))
        return;
    const ref_adam *a = &ADAMS[_i % 3];
    float *theta = random_floats(N), *m = zeros(N), *v = zeros(N), *b = zeros(N), *theta2 = copy_of(theta, N);
    double *T = to_double(theta, N), *M = doubles(N), *V = doubles(N), *T2 = to_double(theta, N), *B = doubles(N);
    for (unsigned t = 1; t <= 20; t++) {
        float *g = random_floats(N);
        double *G = to_double(g, N);
        pgrad__adam adam = kernel_adam(a, t);
        for (size_t i = 0; i < N; i++)
            g[i] *= 4;
        adam.grad_scale = 0.25f; /* of clipping */
        ck_assert_int_eq(pgrad__adam_update(context, &adam, N, theta, g, m, v, 1), 1);
        ref_adam_update(a, N, t, T, G, M, V);
        check_near("theta", theta, T, N, 1e-4, 0); /* 20 steps of 0.1, 1 - 0.999f off by 5e-5 in v */
        const pgrad__sgd sgd = {0.25f, 0.1f, 0.01f, 0.9f, _i % 2, t == 1};
        ck_assert_int_eq(pgrad__sgd_update(context, &sgd, N, theta2, g, b, 1), 1);
        ref_sgd_update(0.01, 0.9, _i % 2, 0.1, N, t, T2, G, B);
        check_near("sgd theta", theta2, T2, N, 1e-5, 0);
    }
    const pgrad__sgd plain = {1, 0, 0.5f, 0, 0, 1};
    float *g = random_floats(N), *old = copy_of(theta, N);
    ck_assert_int_eq(pgrad__sgd_update(context, &plain, N, theta, g, NULL, 1), 1);
    for (size_t i = 0; i < N; i++)
        ck_assert_double_eq_tol(theta[i], old[i] - 0.5 * g[i], 1e-6);
    end();
}
END_TEST

/* OP02: a look ahead stores nothing; a value that would not be finite is told. */
START_TEST(op02_look_ahead)
{
    static const float bad[] = {NAN, INFINITY, -INFINITY, 3e38f};
    if (!begin(_i, 2))
        return;
    float *theta = random_floats(N), *m = random_floats(N), *v = zeros(N), *g = random_floats(N), *b = random_floats(N);
    float *old_theta = copy_of(theta, N), *old_m = copy_of(m, N), *old_b = copy_of(b, N), *old_v = copy_of(v, N);
    const pgrad__adam adam = kernel_adam(&ADAMS[0], 1);
    const pgrad__sgd sgd = {1, 0, 10.0f, 0.9f, 0, 0};
    ck_assert_int_eq(pgrad__adam_update(context, &adam, N, theta, g, m, v, 0), 1);
    ck_assert_int_eq(pgrad__sgd_update(context, &sgd, N, theta, g, b, 0), 1);
    for (size_t at = 0; at < N; at += 1 + at / 3)
        for (int k = 0; k < 4; k++) {
            const float old = g[at];
            g[at] = bad[k];
            ck_assert_int_eq(pgrad__adam_update(context, &adam, N, theta, g, m, v, 0), 0);
            ck_assert_int_eq(pgrad__sgd_update(context, &sgd, N, theta, g, b, 0), 0);
            g[at] = old;
        }
    check_same("theta", theta, old_theta, N);
    check_same("m", m, old_m, N);
    check_same("v", v, old_v, N);
    check_same("b", b, old_b, N);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, worked_examples, 0, N_SETS);
    tcase_add_loop_test(tests, many_steps_follow_the_reference, 0, N_SETS * 3);
    tcase_add_loop_test(tests, op02_look_ahead, 0, N_SETS);
}

int main(void)
{
    return run_suite("kernel/update", add);
}
