/* Estimators and losses without sampling noise: all completions of a tabular policy are enumerated, so the
 * expected gradient is exact (algorithms.md 12.3, 12.8, 12.10). The library's own per-token functions make
 * every number; only probabilities and the gradient of a log-softmax are written out here. */
#include <check.h>
#include <math.h>

#include <policygrad/advantage.h>

#include "../suite.h"
#include "../reference/reference.h"

#include "base/rng.h"
#include "rl/advantage.h"
#include "rl/loss.h"

static void softmax(const double *z, int n, double *log_p)
{
    double sum = 0.0;
    for (int i = 0; i < n; i++)
        sum += exp(z[i]);
    for (int i = 0; i < n; i++)
        log_p[i] = z[i] - log(sum);
}

/* out += c d log p(y) / dz. */
static void add_score(double *out, double c, const double *log_p, int n, int y)
{
    for (int i = 0; i < n; i++)
        out[i] += c * ((i == y ? 1.0 : 0.0) - exp(log_p[i]));
}

static double derivative(uint32_t loss, double l, double advantage)
{
    return pgrad__loss_token(loss, l, l, advantage, 0.2, 0.2).derivative;
}

static void near(const char *what, const double *found, const double *expected, int n, double tolerance)
{
    for (int i = 0; i < n; i++)
        ck_assert_msg(fabs(found[i] - expected[i]) <= tolerance, "%s, %d: expected %.12g, found %.12g", what, i,
                      expected[i], found[i]);
}

/* ---- 12.3: one token ---- */

START_TEST(kl_in_the_loss)
{
    static const double P[3] = {.5, .3, .2}, Q[3] = {.4, .4, .2};
    static const double WANTED[3] = {0.0989381987, -0.09388476791, -0.005053430784};
    for (uint32_t kl = PGRAD_KL_K3_RATIO; kl <= PGRAD_KL_K2; kl++) {
        double gradient[3] = {0}, log_p[3], value = 0.0;
        for (int y = 0; y < 3; y++)
            log_p[y] = log(P[y]);
        for (int y = 0; y < 3; y++) {
            pgrad__kl_term term = pgrad__kl_token(kl, log_p[y], log(Q[y]), 1.0);
            add_score(gradient, P[y] * term.derivative, log_p, 3, y);
            value += P[y] * term.value;
        }
        near("gradient of KL(P||Q)", gradient, WANTED, 3, 1e-9);
        if (kl == PGRAD_KL_K3_RATIO) /* k2 is biased in its value */
            ck_assert_double_eq_tol(value, 0.02526715392, 1e-9);
    }
}
END_TEST

/* ---- 12.8: two tokens of three symbols ---- */

enum { SYMBOLS = 3, SEQUENCES = SYMBOLS * SYMBOLS, LOGITS = SYMBOLS + SYMBOLS * SYMBOLS };

static const double FIRST[SYMBOLS] = {.2, -.1, .4};
static const double SECOND[SYMBOLS][SYMBOLS] = {{0, .3, -.2}, {.5, .1, -.4}, {-.3, .2, .6}};
static const double REWARD[SEQUENCES] = {1, 0, .5, -1, 2, 0, .3, .7, -.5};
static const double GRAD_J[LOGITS] = {0.07950599762,  -0.01131996677, -0.06818603085, 0.05915231681,
                                      -0.06396796212, 0.004815645311, -0.1401648674,  0.1481945441,
                                      -0.008029676752, 0.02067077,    0.08731202248,  -0.1079827925};

typedef struct table {
    double first[SYMBOLS], second[SYMBOLS][SYMBOLS]; /* log-probabilities */
    double p[SEQUENCES];
} table;

static table make_table(void)
{
    table t;
    softmax(FIRST, SYMBOLS, t.first);
    for (int i = 0; i < SYMBOLS; i++)
        softmax(SECOND[i], SYMBOLS, t.second[i]);
    for (int s = 0; s < SEQUENCES; s++)
        t.p[s] = exp(t.first[s / SYMBOLS] + t.second[s / SYMBOLS][s % SYMBOLS]);
    return t;
}

/* The descent direction of one sequence: c[0] and c[1] are df/dl of its tokens. */
static void add_sequence(const table *t, int s, const double c[2], double weight, double *out)
{
    add_score(out, -weight * c[0], t->first, SYMBOLS, s / SYMBOLS);
    add_score(out + SYMBOLS * (1 + s / SYMBOLS), -weight * c[1], t->second[s / SYMBOLS], SYMBOLS, s % SYMBOLS);
}

/* E over all groups of G sequences of (1/G) sum_i (-df_i): sequence_mean_token_sum. */
static void expected_gradient(uint32_t estimator, uint32_t loss, int size, double *out)
{
    const table t = make_table();
    int groups = 1;
    for (int i = 0; i < LOGITS; i++)
        out[i] = 0.0;
    for (int i = 0; i < size; i++)
        groups *= SEQUENCES;
    for (int group = 0; group < groups; group++) {
        double reward[3], advantage[3], p = 1.0;
        int member[3];
        for (int i = 0, rest = group; i < size; i++, rest /= SEQUENCES) {
            member[i] = rest % SEQUENCES;
            reward[i] = REWARD[member[i]];
            p *= t.p[member[i]];
        }
        pgrad__advantage_group(estimator, 1e-4, reward, (uint32_t)size, advantage);
        for (int i = 0; i < size; i++) {
            const int y = member[i] / SYMBOLS;
            const double c[2] = {derivative(loss, t.first[y], advantage[i]),
                                 derivative(loss, t.second[y][member[i] % SYMBOLS], advantage[i])};
            add_sequence(&t, member[i], c, p / size, out);
        }
    }
}

static double cosine(const double *a, const double *b)
{
    double ab = 0.0, aa = 0.0, bb = 0.0;
    for (int i = 0; i < LOGITS; i++) {
        ab += a[i] * b[i];
        aa += a[i] * a[i];
        bb += b[i] * b[i];
    }
    return ab / sqrt(aa * bb);
}

/* grad J by the definition, without any estimator: E[R sum_t grad l_t]. */
static double exact_gradient(double *out)
{
    const table t = make_table();
    double j = 0.0;
    for (int i = 0; i < LOGITS; i++)
        out[i] = 0.0;
    for (int s = 0; s < SEQUENCES; s++) {
        const double c[2] = {-REWARD[s], -REWARD[s]};
        j += t.p[s] * REWARD[s];
        add_sequence(&t, s, c, t.p[s], out);
    }
    return j;
}

START_TEST(group_estimators)
{
    static const double GRPO_COSINE[] = {0.9676919463, 0.971749675};
    double exact[LOGITS], found[LOGITS];
    ck_assert_double_eq_tol(exact_gradient(exact), 0.2092783251, 1e-10);
    near("grad J", exact, GRAD_J, LOGITS, 1e-9);
    for (uint32_t loss = PGRAD_LOSS_REINFORCE; loss <= PGRAD_LOSS_PPO_CLIP; loss++)
        for (int size = 2; size <= 3; size++) {
            expected_gradient(PGRAD_ADVANTAGE_RLOO, loss, size, found);
            near("E[rloo]", found, exact, LOGITS, 1e-12);
            expected_gradient(PGRAD_ADVANTAGE_DR_GRPO, loss, size, found);
            for (int i = 0; i < LOGITS; i++)
                found[i] *= size / (size - 1.0);
            near("E[dr_grpo] G / (G - 1)", found, exact, LOGITS, 1e-12);
            expected_gradient(PGRAD_ADVANTAGE_GRPO, loss, size, found);
            ck_assert_double_eq_tol(cosine(found, exact), GRPO_COSINE[size - 2], 1e-9);
        }
}
END_TEST

/* Against a uniform reference: k1 in the reward, per sequence or to go, gives the gradient of the sequence's
 * KL; in the loss k2 and k3 times the ratio ignore what a prefix does to later tokens. */
START_TEST(sequence_kl)
{
    static const double WANTED[LOGITS] = {-0.01168089665,  -0.07342503278,  0.08510592944, -0.008110517523,
                                          0.03219651787,   -0.02408600035,  0.03676075985, -0.007645174361,
                                          -0.02911558549,  -0.04800348511,  -0.01260476159, 0.06060824669};
    static const double IN_LOSS[SYMBOLS] = {-0.002511191495, -0.0768869694, 0.0793981609};
    const table t = make_table();
    const double reference = -log(SYMBOLS);
    double kl = 0.0, sums[LOGITS] = {0}, to_go[LOGITS] = {0}, in_loss[2][LOGITS] = {{0}};
    for (int s = 0; s < SEQUENCES; s++) {
        const double l[2] = {t.first[s / SYMBOLS], t.second[s / SYMBOLS][s % SYMBOLS]};
        const double d[2] = {l[0] - reference, l[1] - reference};
        const double whole[2] = {derivative(PGRAD_LOSS_REINFORCE, l[0], d[0] + d[1]),
                                 derivative(PGRAD_LOSS_REINFORCE, l[1], d[0] + d[1])};
        const double later[2] = {whole[0], derivative(PGRAD_LOSS_REINFORCE, l[1], d[1])};
        kl += t.p[s] * (d[0] + d[1]);
        add_sequence(&t, s, whole, t.p[s], sums);
        add_sequence(&t, s, later, t.p[s], to_go);
        for (uint32_t k = 0; k < 2; k++) {
            const double c[2] = {-pgrad__kl_token(PGRAD_KL_K3_RATIO + k, l[0], reference, 1.0).derivative,
                                 -pgrad__kl_token(PGRAD_KL_K3_RATIO + k, l[1], reference, 1.0).derivative};
            add_sequence(&t, s, c, t.p[s], in_loss[k]);
        }
    }
    ck_assert_double_eq_tol(kl, 0.06872592559, 1e-10);
    near("k1 of the sequence", sums, WANTED, LOGITS, 1e-9);
    near("k1 to go", to_go, WANTED, LOGITS, 1e-9);
    for (int k = 0; k < 2; k++) {
        near("in the loss, first token", in_loss[k], IN_LOSS, SYMBOLS, 1e-9);
        near("in the loss, second token", in_loss[k] + SYMBOLS, WANTED + SYMBOLS, LOGITS - SYMBOLS, 1e-9);
    }
}
END_TEST

/* ---- 12.10: where learning with KL ends ---- */

enum { ARMS = 4, K1_IN_REWARD = -1 };

/* Exact ascent on E[R] - beta KL from the uniform policy. */
static void converge(int kl, double beta, double *pi, double *objective)
{
    static const double REF[ARMS] = {.1, .2, .3, .4}, R[ARMS] = {0, .5, 1, .2};
    double z[ARMS] = {0}, log_p[ARMS];
    for (int step = 0; step < 20000; step++) {
        double gradient[ARMS] = {0};
        softmax(z, ARMS, log_p);
        for (int a = 0; a < ARMS; a++) {
            const double l = log_p[a], d = l - log(REF[a]);
            double c = derivative(PGRAD_LOSS_REINFORCE, l, kl == K1_IN_REWARD ? R[a] - beta * d : R[a]);
            if (kl != K1_IN_REWARD)
                c += beta * pgrad__kl_token((uint32_t)kl, l, log(REF[a]), 1.0).derivative;
            add_score(gradient, -exp(l) * c, log_p, ARMS, a);
        }
        for (int a = 0; a < ARMS; a++)
            z[a] += 0.5 * gradient[a];
    }
    softmax(z, ARMS, log_p);
    *objective = 0.0;
    for (int a = 0; a < ARMS; a++) {
        pi[a] = exp(log_p[a]);
        *objective += pi[a] * (R[a] - beta * (log_p[a] - log(REF[a])));
    }
}

START_TEST(bandit_fixed_points)
{
    static const int KL[] = {K1_IN_REWARD, PGRAD_KL_K3_RATIO, PGRAD_KL_K2};
    static const double WANTED[ARMS] = {0.02892595270, 0.1572577832, 0.6412064616, 0.1726098025};
    double pi[ARMS], objective;
    converge(KL[_i], 0.5, pi, &objective);
    near("ref e^(R / beta) / Z", pi, WANTED, ARMS, 1e-9);
    ck_assert_double_eq_tol(objective, 0.6202154883, 1e-9);
    converge(KL[_i], 0.0, pi, &objective); /* without KL the best arm takes all */
    ck_assert_double_gt(pi[2], 0.99);
}
END_TEST

/* The same with 256 draws a step, leave-one-out over them and Adam: with k1 in the reward the advantages
 * vanish at the end, k2 and k3 in the loss keep their noise. */
START_TEST(sampled_bandit)
{
    enum { DRAWS = 256, STEPS = 2000 };
    static const double REF[ARMS] = {.1, .2, .3, .4}, R[ARMS] = {0, .5, 1, .2};
    static const double WANTED[ARMS] = {0.02892595270, 0.1572577832, 0.6412064616, 0.1726098025};
    static const int KL[] = {K1_IN_REWARD, PGRAD_KL_K3_RATIO, PGRAD_KL_K2};
    static const ref_adam ADAM = {0.02, 0.9, 0.999, 1e-8, 0, 0};
    const int kl = KL[_i % 3];
    const uint64_t seed = 1 + (uint64_t)_i / 3;
    double z[ARMS] = {0}, m[ARMS] = {0}, v[ARMS] = {0}, log_p[ARMS], pi[ARMS];
    for (unsigned step = 1; step <= STEPS; step++) {
        double reward[DRAWS], advantage[DRAWS], gradient[ARMS] = {0};
        int arm[DRAWS];
        softmax(z, ARMS, log_p);
        for (uint32_t i = 0; i < DRAWS; i++) {
            double u = pgrad__uniform(seed, step, i, 0);
            for (arm[i] = 0; arm[i] < ARMS - 1 && u >= exp(log_p[arm[i]]); arm[i]++)
                u -= exp(log_p[arm[i]]);
            reward[i] = R[arm[i]] - (kl == K1_IN_REWARD ? 0.5 * (log_p[arm[i]] - log(REF[arm[i]])) : 0.0);
        }
        pgrad__advantage_group(PGRAD_ADVANTAGE_RLOO, 0.0, reward, DRAWS, advantage);
        for (uint32_t i = 0; i < DRAWS; i++) {
            const double l = log_p[arm[i]];
            double c = derivative(PGRAD_LOSS_REINFORCE, l, advantage[i]);
            if (kl != K1_IN_REWARD)
                c += 0.5 * pgrad__kl_token((uint32_t)kl, l, log(REF[arm[i]]), 1.0).derivative;
            add_score(gradient, c / DRAWS, log_p, ARMS, arm[i]);
        }
        ref_adam_update(&ADAM, ARMS, step, z, gradient, m, v);
    }
    softmax(z, ARMS, log_p);
    for (int a = 0; a < ARMS; a++)
        pi[a] = exp(log_p[a]);
    near("sampled", pi, WANTED, ARMS, kl == K1_IN_REWARD ? 1e-6 : 0.02);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("expectations");
    TCase *cases = tcase_create("expectations");
    tcase_set_timeout(cases, 60);
    tcase_add_test(cases, kl_in_the_loss);
    tcase_add_test(cases, group_estimators);
    tcase_add_test(cases, sequence_kl);
    tcase_add_loop_test(cases, bandit_fixed_points, 0, 3);
    tcase_add_loop_test(cases, sampled_bandit, 0, 9);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
