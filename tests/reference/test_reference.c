/* The reference is right: every backward against central differences, worked numbers against a second
 * source. */
#include "../base/base_test.h"

#include <math.h>

#include "base/rng.h"
#include "kernel/kernel.h"
#include "reference.h"

enum { MAX = 512 };

static double numbers[8][MAX];

static void fill(double *x, size_t n, uint64_t stream)
{
    for (size_t i = 0; i < n; i++)
        x[i] = pgrad__normal(11, stream, i);
}

/* A scalar function of everything a test holds in `numbers`. */
typedef double (*scalar_fn)(void);

/* The gradient found equals (f(x + h) - f(x - h)) / 2h for each element. */
static void check_gradient(const char *what, scalar_fn f, double *x, size_t n, const double *gradient)
{
    const double h = 1e-5;
    for (size_t i = 0; i < n; i++) {
        const double old = x[i];
        x[i] = old + h;
        const double above = f();
        x[i] = old - h;
        const double below = f();
        x[i] = old;
        const double wanted = (above - below) / (2 * h);
        ck_assert_msg(fabs(gradient[i] - wanted) <= 1e-8 + 1e-7 * fabs(wanted), "%s[%zu]: %.12g, not %.12g",
                      what, i, gradient[i], wanted);
    }
}

static double dot(const double *a, const double *b, size_t n)
{
    double sum = 0;
    for (size_t i = 0; i < n; i++)
        sum += a[i] * b[i];
    return sum;
}

static double *const X = numbers[0], *const W = numbers[1], *const B = numbers[2], *const DY = numbers[3];
static double y[MAX], dx[MAX], dw[MAX], db[MAX];

static double f_product(void)
{
    ref_product(X, 3, 5, W, 4, B, y);
    return dot(y, DY, 12);
}

static double f_layernorm(void)
{
    ref_layernorm(X, 3, 7, W, B, 1e-5, y);
    return dot(y, DY, 21);
}

static double f_rmsnorm(void)
{
    ref_rmsnorm(X, 3, 7, W, 1e-6, y);
    return dot(y, DY, 21);
}

/* Some tokens and positions often, one token never. */
static const int TOKENS[7] = {2, 0, 2, 4, 1, 2, 0};
static const unsigned POSITIONS[7] = {0, 1, 2, 0, 1, 2, 3};
static int with_positions;

static double f_embedding(void)
{
    ref_embedding(X, with_positions ? W : NULL, TOKENS, POSITIONS, 7, 3, y);
    return dot(y, DY, 21);
}

static void fill_all(void)
{
    for (uint64_t i = 0; i < 8; i++)
        fill(numbers[i], MAX, i);
}

START_TEST(product)
{
    fill_all();
    ref_product_grad(DY, X, 3, 5, W, 4, dx, dw, db);
    check_gradient("dx", f_product, X, 15, dx);
    check_gradient("dw", f_product, W, 20, dw);
    check_gradient("db", f_product, B, 4, db);
}
END_TEST

START_TEST(embedding)
{
    fill_all();
    for (with_positions = 0; with_positions < 2; with_positions++) {
        ref_embedding_grad(DY, TOKENS, POSITIONS, 7, 3, 5, 4, dx, with_positions ? dw : NULL);
        check_gradient("de", f_embedding, X, 15, dx);
        for (int i = 0; i < 3; i++)
            ck_assert(dx[3 * 3 + i] == 0.0);
    }
    check_gradient("dp", f_embedding, W, 12, dw);
}
END_TEST

START_TEST(norms)
{
    fill_all();
    ref_layernorm_grad(DY, X, 3, 7, W, 1e-5, dx, dw, db);
    check_gradient("layernorm dx", f_layernorm, X, 21, dx);
    check_gradient("layernorm dw", f_layernorm, W, 7, dw);
    check_gradient("layernorm db", f_layernorm, B, 7, db);
    ref_rmsnorm_grad(DY, X, 3, 7, W, 1e-6, dx, dw);
    check_gradient("rmsnorm dx", f_rmsnorm, X, 21, dx);
    check_gradient("rmsnorm dw", f_rmsnorm, W, 7, dw);
}
END_TEST

static int kind;

static double f_gated(void)
{
    ref_gated(kind, X, W, 40, y);
    return dot(y, DY, 40);
}

START_TEST(activations)
{
    fill_all();
    kind = _i;
    for (size_t i = 0; i < 40; i++)
        X[i] = 3 * X[i] + (fabs(X[i]) < 1e-3);
    ref_gated_grad(kind, DY, X, W, 40, dx, dw);
    check_gradient("dgate", f_gated, X, 40, dx);
    check_gradient("dup", f_gated, W, 40, dw);
}
END_TEST

/* Values from another source: torch.nn.functional, double. */
START_TEST(activation_values)
{
    static const double wanted[4][2] = {
        {0.8411919906082768, -0.15428599017485988},
        {0.8413447460685429, -0.15426876936299344},
        {1.0, 0.0},
        {0.7310585786300049, -0.18877033439907273},
    };
    for (int k = 0; k < 4; k++) {
        ck_assert_double_eq_tol(ref_activation(k, 1.0), wanted[k][0], 1e-12);
        ck_assert_double_eq_tol(ref_activation(k, -0.5), wanted[k][1], 1e-12);
    }
}
END_TEST

START_TEST(rope)
{
    const double angle[3] = {0.3, -2.0, 1.1};
    double x[6], turned[6], norm = 0, old = 0;
    fill(x, 6, 1);
    memcpy(turned, x, sizeof x);
    ref_rope(turned, 6, angle, 1);
    for (int j = 0; j < 6; j++) {
        norm += turned[j] * turned[j];
        old += x[j] * x[j];
    }
    ck_assert_double_eq_tol(norm, old, 1e-12);
    ck_assert_double_eq_tol(turned[0], x[0] * cos(0.3) - x[3] * sin(0.3), 1e-12);
    ck_assert_double_eq_tol(turned[3], x[3] * cos(0.3) + x[0] * sin(0.3), 1e-12);
    ref_rope(turned, 6, angle, -1); /* the transposed rotation: the backward */
    for (int j = 0; j < 6; j++)
        ck_assert_double_eq_tol(turned[j], x[j], 1e-12);
}
END_TEST

static double f_softmax(void)
{
    double logprob, lse, entropy;
    ref_softmax(X, 9, 0.7, 4, &logprob, &lse, &entropy);
    return 1.5 * logprob - 0.3 * entropy;
}

START_TEST(softmax)
{
    fill_all();
    ref_softmax_grad(X, 9, 0.7, 4, 1.5, 0.3, dx);
    check_gradient("dz", f_softmax, X, 9, dx);
}
END_TEST

START_TEST(softmax_worked_example)
{
    const double z[] = {1, -0.5, 2, 0.3};
    const double d_loss[] = {0.3787350143, 0.04443287605, -0.5624967158, 0.1393288254};
    const double d_entropy[] = {0.2383810252, 0.0914422003, -0.5104045875, 0.180581362};
    double logprob, lse, entropy, dz[4];
    ref_softmax(z, 4, 0.7, 2, &logprob, &lse, &entropy);
    ck_assert_double_eq_tol(logprob, -0.3044871126, 1e-9);
    ck_assert_double_eq_tol(lse, 3.16162997, 1e-8);
    ck_assert_double_eq_tol(entropy, 0.7889379177, 1e-9);
    ref_softmax_grad(z, 4, 0.7, 2, -1.5, 0, dz);
    for (int j = 0; j < 4; j++)
        ck_assert_double_eq_tol(dz[j], d_loss[j], 1e-9);
    ref_softmax_grad(z, 4, 0.7, 2, 0, -1, dz);
    for (int j = 0; j < 4; j++)
        ck_assert_double_eq_tol(dz[j], d_entropy[j], 1e-9);
    ref_softmax(z, 4, 1.0, 2, &logprob, &lse, &entropy);
    ck_assert_double_eq_tol(logprob, -0.4902032144, 1e-9);
    ck_assert_double_eq_tol(entropy, 1.031442936, 1e-8);
}
END_TEST

static const ref_shape SHAPE = {5, 4, 2, 3, 0.6};

static double f_attention(void)
{
    ref_attention(&SHAPE, X, W, B, y, NULL);
    return dot(y, DY, 60);
}

START_TEST(attention)
{
    fill_all();
    ref_attention_grad(&SHAPE, X, W, B, DY, dx, dw, db);
    check_gradient("dq", f_attention, X, 60, dx);
    check_gradient("dk", f_attention, W, 30, dw);
    check_gradient("dv", f_attention, B, 30, db);
}
END_TEST

START_TEST(optimizer_worked_examples)
{
    static const double g[2][2] = {{0.5, -0.1}, {0.2, 0.3}};
    static const struct {
        ref_adam adam;
        double wanted[2][2], m[2], v[2];
    } adams[] = {
        {{0.1, 0.9, 0.999, 1e-8, 0, 0},
         {{0.900000002, -1.90000001}, {0.810142483903, -1.94941899112}},
         {0.065, 0.021},
         {0.00028975, 9.999e-05}},
        {{0.1, 0.9, 0.999, 1e-8, 0, 0.1},
         {{0.890000002, -1.88000001}, {0.791242483883, -1.91061899102}},
         {0.065, 0.021},
         {0.00028975, 9.999e-05}},
        {{0.1, 0.9, 0.999, 1e-8, 0.1, 0},
         {{0.900000001667, -1.90000000333}, {0.807281460507, -1.86272210781}},
         {0.08300000002, -0.01600000003},
         {0.0004437400001, 0.0001020099999}},
    };
    for (int a = 0; a < 3; a++) {
        double theta[2] = {1, -2}, m[2] = {0}, v[2] = {0};
        for (unsigned t = 1; t <= 2; t++) {
            ref_adam_update(&adams[a].adam, 2, t, theta, g[t - 1], m, v);
            for (int i = 0; i < 2; i++)
                ck_assert_double_eq_tol(theta[i], adams[a].wanted[t - 1][i], 1e-10);
        }
        for (int i = 0; i < 2; i++) {
            ck_assert_double_eq_tol(m[i], adams[a].m[i], 1e-11);
            ck_assert_double_eq_tol(v[i], adams[a].v[i], 1e-13);
        }
    }
    static const double sgd[2][2][2] = {{{0.95, -1.99}, {0.885, -2.011}}, {{0.905, -1.981}, {0.8265, -2.0299}}};
    for (int nesterov = 0; nesterov < 2; nesterov++) {
        double theta[2] = {1, -2}, b[2] = {0};
        for (unsigned t = 1; t <= 2; t++) {
            ref_sgd_update(0.1, 0.9, nesterov, 0, 2, t, theta, g[t - 1], b);
            for (int i = 0; i < 2; i++)
                ck_assert_double_eq_tol(theta[i], sgd[nesterov][t - 1][i], 1e-12);
        }
    }
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, product);
    tcase_add_test(tests, embedding);
    tcase_add_test(tests, norms);
    tcase_add_loop_test(tests, activations, 0, 4);
    tcase_add_test(tests, activation_values);
    tcase_add_test(tests, rope);
    tcase_add_test(tests, softmax);
    tcase_add_test(tests, softmax_worked_example);
    tcase_add_test(tests, attention);
    tcase_add_test(tests, optimizer_worked_examples);
}

int main(void)
{
    return run_case("reference", NULL, NULL, 60, add);
}
