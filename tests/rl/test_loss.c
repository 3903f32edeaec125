/* Per-token losses and KL terms against the worked numbers of algorithms 12.2, 12.3 and the
 * composite 12.9. */
#include <check.h>
#include <math.h>
#include <string.h>

#include <policygrad.h>

#include "../suite.h"
#include "kernel/kernel.h"
#include "rl/loss.h"

typedef struct row {
    double l, advantage, clip_high, ratio, value, derivative;
    int clipped;
} row;

static const row PPO[] = {
    {-1.4, 2, .2, 1.105170918, -2.210341836, -2.210341836, 0},
    {-1.2, 2, .2, 1.349858808, -2.4, 0, 1},
    {-1.8, 2, .2, 0.7408182207, -1.481636441, -1.481636441, 0},
    {-1.4, -2, .2, 1.105170918, 2.210341836, 2.210341836, 0},
    {-1.2, -2, .2, 1.349858808, 2.699717615, 2.699717615, 0},
    {-1.8, -2, .2, 0.7408182207, 1.6, 0, -1},
    {-1.26, 2, .28, 1.27124915, -2.542498301, -2.542498301, 0},
    {-1.26, 2, .2, 1.27124915, -2.4, 0, 1},
    {-0.1, -2, .2, 4.055199967, 8.110399934, 8.110399934, 0},
};

static void close_to(double found, double expected)
{
    ck_assert_msg(fabs(found - expected) <= 1e-8 * fmax(1.0, fabs(expected)),
                  "expected %.10g, found %.10g", expected, found);
}

START_TEST(ppo_rows)
{
    const row *r = &PPO[_i];
    pgrad__token_loss loss =
        pgrad__loss_token(PGRAD_LOSS_PPO_CLIP, r->l, -1.5, r->advantage, .2, r->clip_high);
    close_to(loss.ratio, r->ratio);
    close_to(loss.value, r->value);
    close_to(loss.derivative, r->derivative);
    ck_assert_int_eq(loss.clipped, r->clipped);
}
END_TEST

/* On policy the ratio is exactly 1 and every loss has the gradient -A. */
START_TEST(on_policy)
{
    for (uint32_t loss = PGRAD_LOSS_REINFORCE; loss <= PGRAD_LOSS_PPO_CLIP; loss++) {
        pgrad__token_loss out = pgrad__loss_token(loss, -0.731, -0.731, 1.25, .2, .2);
        ck_assert(out.ratio == 1.0);
        ck_assert(out.derivative == -1.25);
        ck_assert_int_eq(out.clipped, 0);
    }
}
END_TEST

/* At the border itself the whole gradient flows. */
START_TEST(border_is_not_clipped)
{
    pgrad__token_loss out = pgrad__loss_token(PGRAD_LOSS_PPO_CLIP, -1.5, -1.5, 2.0, .2, 0.0);
    ck_assert_int_eq(out.clipped, 0);
    ck_assert(out.derivative == -2.0);
}
END_TEST

/* OP04: far log-ratios are clamped, and give no gradient there. */
START_TEST(log_ratio_clamp)
{
    pgrad__token_loss out = pgrad__loss_token(PGRAD_LOSS_PPO_CLIP, -1.0, -1e4, -1.0, .2, .2);
    close_to(out.ratio, exp(20.0));
    ck_assert(out.derivative == 0.0);
    ck_assert(isfinite(out.value));
}
END_TEST

START_TEST(kl_terms)
{
    pgrad__kl_term k2 = pgrad__kl_token(PGRAD_KL_K2, -1.0, -1.3, 1.0);
    close_to(k2.value, 0.045);
    close_to(k2.derivative, 0.3);
    pgrad__kl_term k3 = pgrad__kl_token(PGRAD_KL_K3_RATIO, -1.0, -1.3, 1.0);
    close_to(k3.value, 0.04081822068);
    k3 = pgrad__kl_token(PGRAD_KL_K3_RATIO, -1.3, -1.0, 1.0);
    close_to(k3.value, 0.04985880758);
    close_to(k3.derivative, -0.3);
    k3 = pgrad__kl_token(PGRAD_KL_K3_RATIO, -1.2, -1.6, 1.349858808);
    close_to(k3.value, 0.09492213349);
    close_to(k3.derivative, 0.539943523);
    k2 = pgrad__kl_token(PGRAD_KL_K2, -1.0, -2.0, 1.0);
    close_to(k2.value, 0.5);
    close_to(k2.derivative, 1.0);
    k3 = pgrad__kl_token(PGRAD_KL_K3_RATIO, -1.0, -2.0, 1.0);
    close_to(k3.value, 0.3678794412);
    close_to(k3.derivative, 1.0);
    ck_assert(pgrad__kl_token(PGRAD_KL_NONE, -1.2, -1.6, 1.0).value == 0.0);
}
END_TEST

/* The composite 12.9: ppo(.2, .28) + .05 k3 ratio - .01 H, token mean over three of four tokens at tau .8;
 * from logits to the gradient of logits, through the kernels. */
START_TEST(composite)
{
    enum { TOKENS = 4, LEARNED = 3, VOCAB = 3 };
    static const double WANTED[TOKENS][VOCAB] = {{0.1505930524, 0.0623138879, -0.2129069403},
                                                 {-0.0002916087556, 0.0009423779395, -0.0006507691839},
                                                 {0.1034044124, -0.06118117073, -0.04222324169},
                                                 {0, 0, 0}};
    const double l_wanted[LEARNED] = {-0.5643995211, -0.6799576173, -0.3195332406};
    const double old[LEARNED] = {-.75, -1.0, -.2}, reference[LEARNED] = {-.8, -.7, -.5};
    const double advantage[LEARNED] = {1, 1, -1}, ratio[LEARNED] = {1.203941164, 1.377186132, 0.8873345118};
    const double h_wanted[LEARNED] = {0.9449937172, 0.9919782496, 0.7715801177};
    const pgrad_token y[TOKENS] = {2, 1, 0, 1};
    float z[TOKENS][VOCAB] = {{.5f, -.2f, 1}, {.1f, .4f, -.6f}, {1.2f, 0, -.3f}, {0, .7f, .2f}};
    float inverse_tau[TOKENS], logprob[TOKENS], lse[TOKENS], entropy[TOKENS];
    float d_logprob[TOKENS] = {0}, entropy_weight[TOKENS] = {0};
    double policy = 0.0, kl = 0.0, h = 0.0;
    pgrad_context *context = NULL;
    ck_assert_int_eq(pgrad_context_create(NULL, &context), PGRAD_OK);
    for (int t = 0; t < TOKENS; t++)
        inverse_tau[t] = 1.25f;
    pgrad__softmax_stats(context, z[0], VOCAB, TOKENS, VOCAB, inverse_tau, y, logprob, lse, entropy);
    for (int t = 0; t < LEARNED; t++) {
        const double l = (double)logprob[t];
        pgrad__token_loss loss =
            pgrad__loss_token(PGRAD_LOSS_PPO_CLIP, l, old[t], advantage[t], .2, .28);
        pgrad__kl_term term = pgrad__kl_token(PGRAD_KL_K3_RATIO, l, reference[t], loss.ratio);
        policy += loss.value / LEARNED;
        kl += term.value / LEARNED;
        h += (double)entropy[t] / LEARNED;
        d_logprob[t] = (float)((loss.derivative + .05 * term.derivative) / LEARNED);
        entropy_weight[t] = (float)(.01 / LEARNED);
        ck_assert_double_eq_tol(l, l_wanted[t], 1e-6);
        ck_assert_double_eq_tol((double)entropy[t], h_wanted[t], 1e-6);
        ck_assert_double_eq_tol(loss.ratio, ratio[t], 5e-6);
        ck_assert_int_eq(loss.clipped, t == 1 ? 1 : 0);
    }
    ck_assert_double_eq_tol(policy, -0.5322022175, 5e-6);
    ck_assert_double_eq_tol(kl, 0.01494341162, 5e-7);
    ck_assert_double_eq_tol(policy + .05 * kl - .01 * h, -0.5404835539, 5e-6);
    pgrad__softmax_grad(context, z[0], VOCAB, TOKENS, VOCAB, inverse_tau, y, lse, entropy, d_logprob,
                        entropy_weight);
    for (int t = 0; t < TOKENS; t++)
        for (int j = 0; j < VOCAB; j++)
            ck_assert_double_eq_tol((double)z[t][j], WANTED[t][j], 5e-7);
    pgrad_context_free(context);
}
END_TEST

/* algorithms.md 12.10 and 12.11: with an entropy bonus of .5 instead of KL a bandit learns softmax(R / .5);
 * the entropy of a uniform policy is log n and has no gradient. */
START_TEST(entropy_bonus)
{
    enum { ARMS = 4 };
    static const float R[ARMS] = {0, .5f, 1, .2f};
    const float inverse_tau = 1.0f, zero = 0.0f;
    float z[ARMS] = {0}, gradient[ARMS], lse, entropy;
    pgrad_context *context = NULL;
    ck_assert_int_eq(pgrad_context_create(NULL, &context), PGRAD_OK);
    for (int step = 0; step < 600; step++) {
        double total[ARMS] = {0}, sum = 0.0;
        pgrad__softmax_stats(context, z, ARMS, 1, ARMS, &inverse_tau, NULL, NULL, &lse, &entropy);
        for (pgrad_token a = 0; a < ARMS; a++) { /* every arm, by its probability */
            const double l = (double)(z[a] - lse), p = exp(l);
            const float weight = (float)(.5 * p),
                        c = (float)(p * pgrad__loss_token(PGRAD_LOSS_REINFORCE, l, l, (double)R[a], .2, .2)
                                            .derivative);
            memcpy(gradient, z, sizeof z);
            pgrad__softmax_grad(context, gradient, ARMS, 1, ARMS, &inverse_tau, &a, &lse, &entropy, &c,
                                &weight);
            for (int j = 0; j < ARMS; j++)
                total[j] += (double)gradient[j];
        }
        for (int j = 0; j < ARMS; j++)
            z[j] -= (float)(.5 * total[j]);
        if (step == 599) {
            pgrad__softmax_stats(context, z, ARMS, 1, ARMS, &inverse_tau, NULL, NULL, &lse, &entropy);
            for (int j = 0; j < ARMS; j++)
                sum += exp((double)R[j] / .5);
            for (int j = 0; j < ARMS; j++)
                ck_assert_double_eq_tol(exp((double)(z[j] - lse)), exp((double)R[j] / .5) / sum, 1e-5);
        }
    }
    const pgrad_token y = 0;
    for (int j = 0; j < ARMS; j++)
        z[j] = .75f;
    pgrad__softmax_stats(context, z, ARMS, 1, ARMS, &inverse_tau, NULL, NULL, &lse, &entropy);
    ck_assert_double_eq_tol((double)entropy, log(ARMS), 1e-7);
    pgrad__softmax_grad(context, z, ARMS, 1, ARMS, &inverse_tau, &y, &lse, &entropy, &zero, &inverse_tau);
    for (int j = 0; j < ARMS; j++)
        ck_assert_double_eq_tol((double)z[j], 0.0, 1e-7);
    pgrad_context_free(context);
}
END_TEST

/* The derivative is that of the value, by central differences. */
START_TEST(derivatives)
{
    const double step = 1e-5;
    for (size_t i = 0; i < sizeof PPO / sizeof PPO[0]; i++)
        for (uint32_t loss = 0; loss <= PGRAD_LOSS_SUPERVISED; loss++) {
            const row *r = &PPO[i];
            double up =
                pgrad__loss_token(loss, r->l + step, -1.5, r->advantage, .2, r->clip_high).value;
            double down =
                pgrad__loss_token(loss, r->l - step, -1.5, r->advantage, .2, r->clip_high).value;
            double exact =
                pgrad__loss_token(loss, r->l, -1.5, r->advantage, .2, r->clip_high).derivative;
            ck_assert_double_eq_tol((up - down) / (2 * step), exact, 1e-7);
        }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("loss");
    TCase *cases = tcase_create("loss");
    tcase_add_loop_test(cases, ppo_rows, 0, (int)(sizeof PPO / sizeof PPO[0]));
    tcase_add_test(cases, on_policy);
    tcase_add_test(cases, border_is_not_clipped);
    tcase_add_test(cases, log_ratio_clamp);
    tcase_add_test(cases, kl_terms);
    tcase_add_test(cases, composite);
    tcase_add_test(cases, entropy_bonus);
    tcase_add_test(cases, derivatives);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
