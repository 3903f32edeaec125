#include "kernel_test.h"

#include "kernel/vec.h"

enum { ROWS = 17 };
static const size_t WIDTHS[] = {1, 2, 15, 64, 1000, 4099};
enum { N_WIDTHS = sizeof WIDTHS / sizeof WIDTHS[0] };

START_TEST(statistics_and_gradient)
{
    const size_t n = WIDTHS[_i % N_WIDTHS], ldz = n + 3;
    if (!begin(_i / N_WIDTHS, 2))
        return;
    float *z = random_floats(ROWS * ldz), *inverse_tau = zeros(ROWS), *c = random_floats(ROWS);
    float *logprob = zeros(ROWS), *lse = zeros(ROWS), *entropy = zeros(ROWS), *e = random_floats(ROWS);
    pgrad_token *y = array(ROWS, sizeof *y);
    double wanted[3][ROWS];
    for (size_t t = 0; t < ROWS; t++) {
        inverse_tau[t] = t % 3 == 0 ? 1.0f : t % 3 == 1 ? 2.0f : 0.625f;
        y[t] = (pgrad_token)(t * 31 % n);
        for (size_t j = 0; j < ldz; j++)
            z[t * ldz + j] *= 4;
        double *Z = to_double(z + t * ldz, n);
        ref_softmax(Z, n, 1.0 / inverse_tau[t], (size_t)y[t], &wanted[0][t], &wanted[1][t], &wanted[2][t]);
    }
    pgrad__softmax_stats(context, z, ldz, ROWS, n, inverse_tau, y, logprob, lse, entropy);
    /* u of size up to 30: rounding of u times a few; sums of n terms in blocks */
    check_near("logprob", logprob, wanted[0], ROWS, 1e-5, 1e-6);
    check_near("lse", lse, wanted[1], ROWS, 1e-5, 1e-6);
    check_near("entropy", entropy, wanted[2], ROWS, 2e-5, 1e-6);
    float *again = zeros(ROWS);
    pgrad__softmax_stats(context, z, ldz, ROWS, n, inverse_tau, NULL, NULL, again, NULL);
    check_same("lse alone", again, lse, ROWS);

    for (int with_entropy = 0; with_entropy < 2; with_entropy++) {
        float *grad = copy_of(z, ROWS * ldz);
        pgrad__softmax_grad(context, grad, ldz, ROWS, n, inverse_tau, y, lse, entropy, c,
                            with_entropy ? e : NULL);
        for (size_t t = 0; t < ROWS; t++) {
            double *DZ = doubles(n);
            ref_softmax_grad(to_double(z + t * ldz, n), n, 1.0 / inverse_tau[t], (size_t)y[t], c[t],
                             with_entropy ? e[t] : 0.0, DZ);
            check_near("dz", grad + t * ldz, DZ, n, 6e-5, 1e-5);
            check_same("beside", grad + t * ldz + n, z + t * ldz + n, ldz - n);
        }
    }
    end();
}
END_TEST

/* algorithms.md 12.4. */
START_TEST(worked_example)
{
    static const double d_loss[] = {0.3787350143, 0.04443287605, -0.5624967158, 0.1393288254};
    static const double d_entropy[] = {0.2383810252, 0.0914422003, -0.5104045875, 0.180581362};
    if (!begin(_i, 1))
        return;
    float z[4] = {1, -0.5f, 2, 0.3f}, inverse_tau = (float)(1 / 0.7), logprob, lse, entropy;
    const float original[4] = {1, -0.5f, 2, 0.3f}, zero = 0, minus_one = -1, c = -1.5f;
    const pgrad_token y = 2;
    pgrad__softmax_stats(context, z, 4, 1, 4, &inverse_tau, &y, &logprob, &lse, &entropy);
    check_near("logprob", &logprob, (const double[]){-0.3044871126}, 1, 5e-6, 0);
    check_near("lse", &lse, (const double[]){3.16162997}, 1, 5e-6, 0);
    check_near("entropy", &entropy, (const double[]){0.7889379177}, 1, 5e-6, 0);
    pgrad__softmax_grad(context, z, 4, 1, 4, &inverse_tau, &y, &lse, &entropy, &c, NULL);
    check_near("d(-A l)/dz", z, d_loss, 4, 5e-6, 0);
    memcpy(z, original, sizeof z);
    pgrad__softmax_grad(context, z, 4, 1, 4, &inverse_tau, &y, &lse, &entropy, &zero, &minus_one);
    check_near("dH/dz", z, d_entropy, 4, 5e-6, 0);
    end();
}
END_TEST

/* SP03: -infinity is a token that cannot come; a row that is no distribution says so. */
START_TEST(sp03_infinities)
{
    if (!begin(_i, 1))
        return;
    enum { N = 40 };
    const float inverse_tau = 1.0f;
    const pgrad_token y = 3;
    float *z = random_floats(N), logprob, lse, entropy, c = 1.0f, e = 0.5f;
    double want_logprob, want_lse, want_entropy;
    z[0] = z[20] = -INFINITY;
    pgrad__softmax_stats(context, z, N, 1, N, &inverse_tau, &y, &logprob, &lse, &entropy);
    ref_softmax(to_double(z, N), N, 1.0, 3, &want_logprob, &want_lse, &want_entropy);
    check_near("logprob", &logprob, &want_logprob, 1, 1e-6, 1e-6);
    check_near("entropy", &entropy, &want_entropy, 1, 2e-6, 1e-6);
    float *grad = copy_of(z, N);
    pgrad__softmax_grad(context, grad, N, 1, N, &inverse_tau, &y, &lse, &entropy, &c, &e);
    ck_assert(grad[0] == 0.0f && grad[20] == 0.0f);
    for (int j = 0; j < N; j++)
        ck_assert(isfinite(grad[j]));
    static const float poison[] = {NAN, INFINITY, -NAN};
    for (int k = 0; k < 3; k++)
        for (size_t at = 0; at < N; at += 13) {
            float *bad = copy_of(z, N);
            bad[at] = poison[k];
            pgrad__softmax_stats(context, bad, N, 1, N, &inverse_tau, &y, &logprob, &lse, &entropy);
            ck_assert_msg(isnan(logprob) && isnan(lse) && isnan(entropy), "%g at %zu: %g %g %g", poison[k],
                          at, logprob, lse, entropy);
        }
    for (int j = 0; j < N; j++)
        z[j] = -INFINITY;
    pgrad__softmax_stats(context, z, N, 1, N, &inverse_tau, &y, &logprob, &lse, &entropy);
    ck_assert(isnan(logprob) && isnan(lse) && isnan(entropy));
    end();
}
END_TEST

/* The definition, spelled out: blocks of 256, 16 lanes in double, a tree. */
static double sum_of_blocks(const float *x, size_t n)
{
    double total = 0.0;
    for (size_t first = 0; first < n; first += 256) {
        double lanes[16] = {0};
        for (size_t i = first; i < n && i < first + 256; i++)
            lanes[i % 16] += (double)x[i];
        for (size_t half = 8; half >= 1; half /= 2)
            for (size_t i = 0; i < half; i++)
                lanes[i] += lanes[i + half];
        total += lanes[0];
    }
    return total;
}

/* The weights a token is drawn by have the bits of exp, and the statistics beside them those they have alone. */
START_TEST(weights)
{
    const size_t n = WIDTHS[_i % N_WIDTHS];
    const float inverse_tau = 1.25f;
    if (!begin(_i / N_WIDTHS, 1))
        return;
    float *z = random_floats(n), *u = zeros(n), *w = zeros(n + 1), *largest = zeros(n / 256 + 2);
    pgrad__softmax_row alone, beside;
    for (size_t j = 0; j < n; j++)
        z[j] = j % 37 == 5 ? -INFINITY : 4.0f * z[j];
    w[n] = largest[(n + 255) / 256] = 7.0f;
    kernels->vec->softmax_row_stats(z, n, inverse_tau, &alone, NULL);
    const double sum = kernels->vec->softmax_row_weights(z, n, inverse_tau, &beside, w, largest);
    check_same("max", &beside.max, &alone.max, 1);
    check_same("lse", &beside.lse, &alone.lse, 1);
    check_same("entropy", &beside.entropy, &alone.entropy, 1);
    ck_assert(beside.total == alone.total);
    for (size_t j = 0; j < n; j++)
        u[j] = z[j] * inverse_tau - alone.max;
    kernels->vec->exp(u, n, u);
    check_same("weights", w, u, n);
    ck_assert(sum == sum_of_blocks(u, n));
    for (size_t first = 0; first < n; first += 256) {
        float most = 0.0f;
        for (size_t j = first; j < n && j < first + 256; j++)
            most = fmaxf(most, u[j]);
        check_same("largest", &largest[first / 256], &most, 1);
    }
    ck_assert(w[n] == 7.0f && largest[(n + 255) / 256] == 7.0f);
    ck_assert(kernels->vec->softmax_row_weights(z, n, inverse_tau, &beside, z, largest) == sum);
    check_same("in place", z, u, n);

    const float threshold = u[n / 2]; /* kept itself */
    const size_t block = n < 256 ? n : 256;
    uint32_t *ids = array(block + 1, sizeof *ids);
    ids[block] = 7;
    const size_t found = kernels->vec->gather_block(w, block, threshold, 1000, ids);
    size_t wanted = 0;
    for (size_t j = 0; j < block; j++)
        if (u[j] >= threshold) {
            ck_assert_uint_lt(wanted, found);
            ck_assert_uint_eq(ids[wanted++], 1000 + j);
        }
    ck_assert_uint_eq(found, wanted);
    ck_assert_uint_eq(kernels->vec->gather_block(w, block, 1.5f, 1000, ids), 0);
    ck_assert_uint_eq(kernels->vec->gather_block(w, block, 0.0f, 0, ids), block);
    ck_assert_uint_eq(ids[block], 7);
    for (size_t j = 0; j < n; j++)
        u[j] = j < block && u[j] < threshold ? 0.0f : u[j];
    ck_assert(kernels->vec->cut_block(w, block, threshold) == sum_of_blocks(u, block));
    check_same("cut", w, u, n);
    ck_assert(w[n] == 7.0f);
    end();
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, weights, 0, N_SETS * N_WIDTHS);
    tcase_add_loop_test(tests, statistics_and_gradient, 0, N_SETS * N_WIDTHS);
    tcase_add_loop_test(tests, worked_example, 0, N_SETS);
    tcase_add_loop_test(tests, sp03_infinities, 0, N_SETS);
}

int main(void)
{
    return run_case("kernel/softmax", NULL, NULL, 60, add);
}
