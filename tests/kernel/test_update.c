/* Updates against double precision, and their storage in 16 and 8 bits: rounding without a bias, the
 * same bits in every layout. */
#include "kernel_test.h"

#include "base/rng.h"
#include "kernel/vec.h"

static int is_finite(pgrad__reach reach)
{
    return isfinite(reach.theta) && isfinite(reach.m) && isfinite(reach.v);
}

static int adam_update(const pgrad__adam *adam, size_t n, float *theta, const float *g, float *m, float *v, int write)
{
    const pgrad__update_rule rule = {.adam = adam};
    const pgrad__update_arrays what = {.n_in = n, .theta.data = theta, .g = g, .m.data = m, .v.data = v};
    return is_finite(pgrad__update(context, &rule, &what, write));
}

static int sgd_update(const pgrad__sgd *sgd, size_t n, float *theta, const float *g, float *b, int write)
{
    const pgrad__update_rule rule = {.sgd = sgd};
    const pgrad__update_arrays what = {.n_in = n, .theta.data = theta, .g = g, .m.data = b};
    return is_finite(pgrad__update(context, &rule, &what, write));
}

static pgrad__adam kernel_adam(const ref_adam *a, unsigned t)
{
    return (pgrad__adam){
        .grad_scale = 1,
        .l2 = (float)a->l2,
        .decay = (float)(1 - a->learning_rate * a->decay),
        .beta1 = (float)a->beta1,
        .beta2 = (float)a->beta2,
        .rest1 = (float)(1 - a->beta1),
        .rest2 = (float)(1 - a->beta2),
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
    static const double m_wanted[3][2] = {{0.065, 0.021}, {0.065, 0.021}, {0.08300000002, -0.01600000003}};
    static const double v_wanted[3][2] = {
        {0.00028975, 9.999e-05}, {0.00028975, 9.999e-05}, {0.0004437400001, 0.0001020099999}};
    static const double sgd_wanted[2][2][2] = {{{0.95, -1.99}, {0.885, -2.011}}, {{0.905, -1.981}, {0.8265, -2.0299}}};
    if (!begin(_i, 1))
        return;
    for (int a = 0; a < 3; a++) {
        float theta[2] = {1, -2}, m[2] = {0}, v[2] = {0};
        for (unsigned t = 1; t <= 2; t++) {
            const pgrad__adam adam = kernel_adam(&ADAMS[a], t);
            ck_assert_int_eq(adam_update(&adam, 2, theta, g[t - 1], m, v, 1), 1);
            check_near("adam", theta, adam_wanted[a][t - 1], 2, 0, 5e-6);
        }
        check_near("m", m, m_wanted[a], 2, 0, 5e-6);
        check_near("v", v, v_wanted[a], 2, 0, 5e-6);
    }
    for (int nesterov = 0; nesterov < 2; nesterov++) {
        float theta[2] = {1, -2}, b[2] = {0};
        for (unsigned t = 1; t <= 2; t++) {
            const pgrad__sgd sgd = {1, 0, 0.1f, 0.9f, nesterov, t == 1};
            ck_assert_int_eq(sgd_update(&sgd, 2, theta, g[t - 1], b, 1), 1);
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
        ck_assert_int_eq(adam_update(&adam, N, theta, g, m, v, 1), 1);
        ref_adam_update(a, N, t, T, G, M, V);
        check_near("theta", theta, T, N, 2e-5, 0); /* 20 steps of 0.1 */
        const pgrad__sgd sgd = {0.25f, 0.1f, 0.01f, 0.9f, _i % 2, t == 1};
        ck_assert_int_eq(sgd_update(&sgd, N, theta2, g, b, 1), 1);
        ref_sgd_update(0.01, 0.9, _i % 2, 0.1, N, t, T2, G, B);
        check_near("sgd theta", theta2, T2, N, 1e-5, 0);
    }
    const pgrad__sgd plain = {1, 0, 0.5f, 0, 0, 1};
    float *g = random_floats(N), *old = copy_of(theta, N);
    ck_assert_int_eq(sgd_update(&plain, N, theta, g, NULL, 1), 1);
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
    ck_assert_int_eq(adam_update(&adam, N, theta, g, m, v, 0), 1);
    ck_assert_int_eq(sgd_update(&sgd, N, theta, g, b, 0), 1);
    for (size_t at = 0; at < N; at += 1 + at / 3)
        for (int k = 0; k < 4; k++) {
            const float old = g[at];
            g[at] = bad[k];
            ck_assert_int_eq(adam_update(&adam, N, theta, g, m, v, 0), 0);
            ck_assert_int_eq(sgd_update(&sgd, N, theta, g, b, 0), 0);
            g[at] = old;
        }
    check_same("theta", theta, old_theta, N);
    check_same("m", m, old_m, N);
    check_same("v", v, old_v, N);
    check_same("b", b, old_b, N);
    end();
}
END_TEST

/* The reach is the largest magnitude of what was stored. */
START_TEST(reach_is_the_largest)
{
    if (!begin(_i, 3))
        return;
    enum { MANY = 70001 };
    float *theta = random_floats(MANY), *g = random_floats(MANY), *m = random_floats(MANY), *v = zeros(MANY);
    const pgrad__adam adam = kernel_adam(&ADAMS[2], 3);
    const pgrad__update_rule rule = {.adam = &adam};
    const pgrad__update_arrays what = {.n_in = MANY, .theta.data = theta, .g = g, .m.data = m, .v.data = v};
    const pgrad__reach ahead = pgrad__update(context, &rule, &what, 0),
                       reach = pgrad__update(context, &rule, &what, 1);
    float largest[3] = {0};
    for (size_t i = 0; i < MANY; i++) {
        largest[0] = fmaxf(largest[0], fabsf(theta[i]));
        largest[1] = fmaxf(largest[1], fabsf(m[i]));
        largest[2] = fmaxf(largest[2], fabsf(v[i]));
    }
    ck_assert(reach.theta == largest[0] && reach.m == largest[1] && reach.v == largest[2]);
    ck_assert_mem_eq(&ahead, &reach, sizeof reach);
    end();
}
END_TEST

/* ---- storage ---- */

/* The random words are Philox's, one block for four inputs of an output. */
START_TEST(random_words)
{
    static const size_t wides[] = {12, 16, 32};
    if (!begin(_i, 1))
        return;
    const pgrad__strip_random r = {.seed = 0x123456789abcdef0u, .array = 5, .update = 77, .draw = 1,
                                   .first_output = 0xfffffffcu, .first_quad = 9, .quads = 18};
    for (size_t w = 0; w < 3; w++)
        for (size_t depth = 1; depth <= PGRAD__MOMENT_BLOCK; depth += 21) {
            const size_t wide = wides[w];
            uint32_t bits[PGRAD__MOMENT_BLOCK * 32 + 1];
            bits[depth * wide] = 42;
            kernels->vec->random_bits(&r, depth, wide, bits);
            ck_assert_uint_eq(bits[depth * wide], 42);
            for (size_t k = 0; k < depth; k++)
                for (size_t l = 0; l < wide; l++) {
                    const uint64_t block = (r.first_output + l) * r.quads + r.first_quad + k / 4;
                    const uint32_t key[2] = {(uint32_t)r.seed, (uint32_t)(r.seed >> 32)};
                    const uint32_t counter[4] = {(uint32_t)block, (uint32_t)(block >> 32) ^ 1u << 24, 5, 77};
                    uint32_t words[4];
                    pgrad__philox(key, counter, words);
                    ck_assert_uint_eq(bits[k * wide + l], words[k % 4]);
                }
        }
    end();
}
END_TEST

static pgrad__stored stored_of(uint32_t n_out, size_t n_in, pgrad__storage storage)
{
    size_t n_exponents, bytes = pgrad__stored_bytes(kernels, n_out, n_in, storage, &n_exponents);
    return (pgrad__stored){storage, array(bytes, 1), n_exponents > 0 ? array(n_exponents, 1) : NULL};
}

/* A stored moment of a flat array as f32. */
static float *widened(const pgrad__stored *stored, size_t n, int root)
{
    const size_t rows = (n + 15) / 16;
    float *out = zeros(rows * 16 + 16);
    if (stored->storage == PGRAD__STORAGE_F32)
        memcpy(out, stored->data, n * sizeof *out);
    else if (stored->storage == PGRAD__STORAGE_BF16)
        kernels->vec->bf16_widen(stored->data, n, out);
    else
        for (size_t k = 0; k < rows; k += PGRAD__MOMENT_BLOCK)
            kernels->vec->q8_widen((const uint8_t *)stored->data + k * 16,
                                   stored->exponents + k / PGRAD__MOMENT_BLOCK * 16,
                                   rows - k < PGRAD__MOMENT_BLOCK ? rows - k : PGRAD__MOMENT_BLOCK, 16, root, out + k * 16);
    return out;
}

/* Momentum 1 with a gradient of 0 and then a rounding every update leaves the number where it is; a
 * first rounding of x has x as its mean, and is one of the two neighbours. */
START_TEST(rounding_has_no_bias)
{
    enum { COPIES = 1 << 16 };
    static const float values[] = {1.0f, 1.3f, -0.7071f, 0.0321f, -1.91f, 1e-3f, 3.3e-5f};
    const pgrad__storage storage = _i % 2 ? PGRAD__STORAGE_Q8 : PGRAD__STORAGE_BF16;
    if (!begin(_i / 2, 2))
        return;
    float *theta = zeros(COPIES), *g = zeros(COPIES);
    const pgrad__sgd first = {1, 0, 0, 0.5f, 0, 1};
    for (size_t x = 0; x < sizeof values / sizeof values[0]; x++) {
        pgrad__stored m = stored_of(0, COPIES, storage);
        const pgrad__update_rule rule = {.sgd = &first, .seed = 11, .array = (uint32_t)x, .update = 1};
        for (size_t i = 0; i < COPIES; i++)
            g[i] = i / 16 % PGRAD__MOMENT_BLOCK == 0 ? 1.95f : values[x]; /* one large value a block */
        const pgrad__update_arrays what = {.n_in = COPIES, .theta.data = theta, .g = g, .m = m};
        ck_assert(is_finite(pgrad__update(context, &rule, &what, 1)));
        const float *found = widened(&m, COPIES, 0);
        double sum = 0.0, low = 1e9, high = -1e9, n = 0.0;
        for (size_t i = 0; i < COPIES; i++) {
            if (i / 16 % PGRAD__MOMENT_BLOCK == 0)
                continue;
            sum += found[i];
            n++;
            low = fmin(low, found[i]);
            high = fmax(high, found[i]);
        }
        const double spacing = high - low, value = (double)values[x];
        ck_assert(low <= value && value <= high);
        ck_assert_double_le(spacing, fmax(fabs(value) * (storage == PGRAD__STORAGE_Q8 ? 0.125 : 0x1p-7), 0x1p-16));
        /* Five standard deviations of the mean of a two-valued variable. */
        ck_assert_msg(fabs(sum / n - value) <= 2.5 * spacing / sqrt(n) + 1e-5 * spacing, "%s, %g: mean %.9g",
                      kernels->name, value, sum / n);
    }
    end();
}
END_TEST

/* In 8 bits a second moment is kept within its spacing over 2^28, and never becomes 0. */
START_TEST(second_moments_keep_their_range)
{
    enum { MANY = 16 * 64 };
    if (!begin(_i, 1))
        return;
    float *theta = zeros(MANY), *g = zeros(MANY);
    pgrad__stored m = stored_of(0, MANY, PGRAD__STORAGE_Q8), v = stored_of(0, MANY, PGRAD__STORAGE_Q8);
    const ref_adam none = {0.0, 0.9, 0.0, 1e-8, 0, 0};
    const pgrad__adam adam = kernel_adam(&none, 1);
    const pgrad__update_rule rule = {.adam = &adam, .seed = 3, .update = 1};
    for (size_t i = 0; i < MANY; i++)
        g[i] = i / 16 == 63 ? 0.0f : ldexpf(i % 2 ? 1.0f : -1.37f, -(int)(i / 16));
    const pgrad__update_arrays what = {.n_in = MANY, .theta.data = theta, .g = g, .m = m, .v = v};
    ck_assert(is_finite(pgrad__update(context, &rule, &what, 1)));
    const float *found = widened(&v, MANY, 1);
    for (size_t i = 0; i < MANY; i++) {
        const double root = sqrt((double)found[i]), wanted = fabs((double)g[i]);
        if (wanted == 0.0)
            ck_assert(found[i] == 0.0f);
        else {
            ck_assert_double_gt(root, 0.0);
            ck_assert_msg(fabs(root - wanted) <= fmax(wanted / 16.0, 0x1p-17), "%s: %zu: %g, not %g", kernels->name,
                          i, root, wanted);
        }
    }
    end();
}
END_TEST

/* Adam with every storage of moments and weights follows the reference, and the dry run is what the
 * writing run says, without writing. */
START_TEST(storage_follows_the_reference)
{
    static const struct {
        pgrad__storage theta, moments;
        double tolerance; /* of 20 steps of 0.01 */
    } CASES[] = {{PGRAD__STORAGE_F32, PGRAD__STORAGE_BF16, 0.012}, {PGRAD__STORAGE_F32, PGRAD__STORAGE_Q8, 0.08},
                 {PGRAD__STORAGE_BF16, PGRAD__STORAGE_F32, 0.12}, {PGRAD__STORAGE_BF16, PGRAD__STORAGE_BF16, 0.12},
                 {PGRAD__STORAGE_BF16, PGRAD__STORAGE_Q8, 0.15}};
    if (!begin(_i / 5, 3))
        return;
    const ref_adam rule_in_double = {0.01, 0.9, 0.999, 1e-8, 0, 0.1};
    const pgrad__storage kind = CASES[_i % 5].theta;
    float *start = random_floats(N);
    pgrad__stored theta = stored_of(0, N, kind), m = stored_of(0, N, CASES[_i % 5].moments),
                  v = stored_of(0, N, CASES[_i % 5].moments);
    uint32_t none = 0, *no_bits = array(N, sizeof *no_bits);
    if (kind == PGRAD__STORAGE_F32)
        memcpy(theta.data, start, N * sizeof *start);
    else
        kernels->vec->bf16_round(start, no_bits, 0, N, theta.data, &none);
    double *T = to_double(widened(&theta, N, 0), N), *M = doubles(N), *V = doubles(N);
    double error = 0.0;
    for (unsigned t = 1; t <= 20; t++) {
        float *g = random_floats(N);
        const pgrad__adam adam = kernel_adam(&rule_in_double, t);
        const pgrad__update_rule rule = {.adam = &adam, .seed = 9, .array = 2, .update = t};
        const pgrad__update_arrays what = {.n_in = N, .theta = theta, .g = g, .m = m, .v = v};
        const float *old = widened(&theta, N, 0), *old_v = widened(&v, N, 1);
        const pgrad__reach ahead = pgrad__update(context, &rule, &what, 0);
        check_same("theta", widened(&theta, N, 0), old, N);
        check_same("v", widened(&v, N, 1), old_v, N);
        const pgrad__reach reach = pgrad__update(context, &rule, &what, 1);
        ck_assert(is_finite(reach));
        ck_assert_mem_eq(&ahead, &reach, sizeof reach);
        ref_adam_update(&rule_in_double, N, t, T, to_double(g, N), M, V);
    }
    const float *found = widened(&theta, N, 0);
    for (size_t i = 0; i < N; i++) {
        ck_assert_msg(fabs(found[i] - T[i]) <= CASES[_i % 5].tolerance * fmax(1.0, fabs(T[i])), "%s: %zu: %g, not %g",
                      kernels->name, i, (double)found[i], T[i]);
        error += found[i] - T[i];
    }
    ck_assert_double_le(fabs(error / N), 0.1 * CASES[_i % 5].tolerance);
    end();
}
END_TEST

/* Values next to the largest float: rounding up to infinity is told, in a dry run too; in 8 bits
 * already 2^126. */
START_TEST(rounding_up_to_infinity_is_told)
{
    enum { MANY = 640 };
    if (!begin(_i, 1))
        return;
    const pgrad__sgd first = {1, 0, 0, 0.5f, 0, 1};
    const pgrad__update_rule rule = {.sgd = &first, .seed = 1, .update = 1};
    float *theta = zeros(MANY), *g = zeros(MANY);
    for (size_t i = 0; i < MANY; i++)
        g[i] = 0x1.fffffep127f;
    pgrad__update_arrays what = {.n_in = MANY, .theta.data = theta, .g = g};
    for (int s = 0; s < 3; s++) {
        what.m = stored_of(0, MANY, (pgrad__storage)s);
        ck_assert_int_eq(is_finite(pgrad__update(context, &rule, &what, 0)), s == 0);
    }
    for (size_t i = 0; i < MANY; i++)
        g[i] = i == 77 ? 0x1p126f : 0x1.fffffep125f;
    ck_assert(!is_finite(pgrad__update(context, &rule, &what, 0)));
    g[77] = -0x1.fffffep125f;
    ck_assert(is_finite(pgrad__update(context, &rule, &what, 1)));
    const float *found = widened(&what.m, MANY, 0);
    for (size_t i = 0; i < MANY; i++)
        ck_assert_double_eq_tol((double)found[i], (double)g[i], 0x1p123);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, worked_examples, 0, N_SETS);
    tcase_add_loop_test(tests, many_steps_follow_the_reference, 0, N_SETS * 3);
    tcase_add_loop_test(tests, op02_look_ahead, 0, N_SETS);
    tcase_add_loop_test(tests, reach_is_the_largest, 0, N_SETS);
    tcase_add_loop_test(tests, random_words, 0, N_SETS);
    tcase_add_loop_test(tests, rounding_has_no_bias, 0, N_SETS * 2);
    tcase_add_loop_test(tests, second_moments_keep_their_range, 0, N_SETS);
    tcase_add_loop_test(tests, storage_follows_the_reference, 0, N_SETS * 5);
    tcase_add_loop_test(tests, rounding_up_to_infinity_is_told, 0, N_SETS);
}

int main(void)
{
    return run_case("kernel/update", NULL, NULL, 60, add);
}
