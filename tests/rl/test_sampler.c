/* Draws against exact probabilities and against a plain implementation; bad input, by row of the catalogue
 * (SP). */
#include "rl_test.h"

#include "base/alloc.h"
#include "kernel/vec.h"
#include "rl/sampler.h"

/* ---- the linker has lib/ call this (--wrap): a draw's uniform number, where one is forced ---- */

double __real_pgrad__uniform(uint64_t seed, uint64_t stream, uint64_t position, uint32_t draw);
double __wrap_pgrad__uniform(uint64_t seed, uint64_t stream, uint64_t position, uint32_t draw);

static double forced = -1.0; /* below 0: none */

double __wrap_pgrad__uniform(uint64_t seed, uint64_t stream, uint64_t position, uint32_t draw)
{
    return forced >= 0.0 ? forced : __real_pgrad__uniform(seed, stream, position, draw);
}

static pgrad_context *context;
static uint64_t memory_at_start;

static void setup(void)
{
    context = test_context(PGRAD_KERNELS_AUTO, 1);
    ck_assert_ptr_nonnull(context);
    memory_at_start = memory_now(context);
}

static void teardown(void)
{
    ck_assert_uint_eq(memory_now(context), memory_at_start);
    pgrad_context_free(context);
}

static double normal(uint64_t stream, uint64_t i)
{
    return pgrad__normal(99, stream, i);
}

/* ---- a plain implementation ---- */

typedef struct naive {
    size_t n;
    double p[1024]; /* of the distribution drawn from */
} naive;

static const double *sort_key;

static int by_probability(const void *a, const void *b)
{
    uint32_t x = *(const uint32_t *)a, y = *(const uint32_t *)b;
    if (sort_key[x] != sort_key[y])
        return sort_key[x] > sort_key[y] ? -1 : 1;
    return x < y ? -1 : 1;
}

/* u: the logits after all rules, divided by the temperature. */
static void naive_cut(naive *to, const double *u, size_t n, uint32_t top_k, double top_p, double min_p)
{
    uint32_t order[1024];
    double max = -INFINITY, mass = 0.0, sum = 0.0, total = 0.0;
    to->n = n;
    for (size_t j = 0; j < n; j++)
        max = fmax(max, u[j]);
    for (size_t j = 0; j < n; j++) {
        order[j] = (uint32_t)j;
        to->p[j] = exp(u[j] - max);
    }
    sort_key = to->p;
    qsort(order, n, sizeof *order, by_probability);
    size_t k = top_k == 0 || top_k > n ? n : top_k, kept = 0;
    for (size_t i = 0; i < k; i++)
        mass += to->p[order[i]];
    while (kept < k && (kept == 0 || sum < top_p * mass))
        sum += to->p[order[kept++]];
    for (size_t i = kept; i < n; i++)
        to->p[order[i]] = 0.0;
    for (size_t j = 0; j < n; j++)
        if (to->p[j] < min_p)
            to->p[j] = 0.0;
    for (size_t j = 0; j < n; j++)
        total += to->p[j];
    for (size_t j = 0; j < n; j++)
        to->p[j] /= total;
}

/* The token at r, or SIZE_MAX when r is too near to a border for single precision. */
static size_t naive_token(const naive *d, double r)
{
    double sum = 0.0;
    for (size_t j = 0; j < d->n; j++) {
        if (d->p[j] == 0.0)
            continue;
        if (fabs(r - sum) < 2e-6 || fabs(r - (sum + d->p[j])) < 2e-6)
            return SIZE_MAX;
        sum += d->p[j];
        if (r < sum)
            return j;
    }
    return SIZE_MAX;
}

/* ---- distribution ---- */

static void chi_square(const pgrad_sampler_params *params, const float *z, size_t n, const double *u)
{
    enum { DRAWS = 100000 };
    pgrad_sampler *sampler = make_sampler(context, params);
    naive d;
    unsigned count[64] = {0};
    naive_cut(&d, u, n, params->top_k, params->top_p, params->min_p);
    for (uint64_t i = 0; i < DRAWS; i++) {
        pgrad_token token = -1;
        OK(pgrad_sampler_pick(sampler, z, n, i % 1000, i / 1000, &token, NULL, NULL, NULL));
        ck_assert(token >= 0 && (size_t)token < n);
        count[token]++;
    }
    double chi = 0.0;
    for (size_t j = 0; j < n; j++) {
        if (d.p[j] == 0.0) {
            ck_assert_uint_eq(count[j], 0);
            continue;
        }
        double expected = d.p[j] * DRAWS;
        chi += ((double)count[j] - expected) * ((double)count[j] - expected) / expected;
    }
    ck_assert_msg(chi < 50.8, "chi-square %g with at most 19 degrees of freedom (p = 1e-4)", chi);
    ck_assert_msg(chi > 0.0, "chi-square is 0");
    pgrad_sampler_free(sampler);
}

START_TEST(draws_follow_the_probabilities)
{
    float z[20];
    double u[20];
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.7;
    params.seed = 5 + (uint64_t)_i;
    for (size_t j = 0; j < 20; j++) {
        z[j] = (float)(1.2 * normal(1, j));
        u[j] = (double)z[j] / 0.7;
    }
    if (_i == 1)
        params.top_k = 7;
    if (_i == 2)
        params.top_p = 0.8;
    if (_i == 3)
        params.min_p = 0.1;
    chi_square(&params, z, 20, u);
}
END_TEST

/* Sizes around the blocks of 256, ties, every combination of cuts. */
START_TEST(cuts_are_those_of_a_plain_implementation)
{
    static const size_t sizes[] = {1, 2, 7, 255, 256, 257, 1000};
    static const uint32_t ks[] = {0, 1, 5, 300, 5000};
    static const double ps[] = {1.0, 0.95, 0.5, 1e-9}, ms[] = {0.0, 0.05, 0.9}, taus[] = {1.0, 0.4};
    const size_t n = sizes[_i];
    unsigned compared = 0;
    for (unsigned c = 0; c < 5 * 4 * 3 * 2; c++) {
        static float z[1024];
        static double u[1024];
        pgrad_sampler_params params = sampler_defaults();
        params.top_k = ks[c % 5];
        params.top_p = ps[c / 5 % 4];
        params.min_p = ms[c / 20 % 3];
        params.temperature = taus[c / 60];
        for (size_t j = 0; j < n; j++) {
            double x = 2.0 * normal(c, j);
            z[j] = (float)(c % 2 ? x : rint(x * 4.0) / 4.0); /* even ones: many ties */
            u[j] = (double)z[j] / params.temperature;
        }
        naive d;
        naive_cut(&d, u, n, params.top_k, params.top_p, params.min_p);
        pgrad_sampler *sampler = make_sampler(context, &params);
        for (uint64_t i = 0; i < 20; i++) {
            pgrad_token token = -1;
            float sampled = NAN;
            OK(pgrad_sampler_pick(sampler, z, n, c, i, &token, NULL, &sampled, NULL));
            ck_assert_msg(d.p[token] > 0.0, "%zu tokens, cut %u: %d was cut", n, c, token);
            ck_assert_double_eq_tol((double)sampled, log(d.p[token]), 1e-5);
            size_t expected = naive_token(&d, pgrad__uniform(params.seed, c, i, 0));
            compared += expected != SIZE_MAX;
            ck_assert_msg(expected == SIZE_MAX || expected == (size_t)token, "%zu tokens, cut %u: %d, not %zu",
                          n, c, token, expected);
        }
        pgrad_sampler_free(sampler);
    }
    ck_assert_uint_gt(compared, 500);
}
END_TEST

/* ---- kept sets, token by token ---- */

enum { MOST_WEIGHTS = 4000 };
typedef enum row_kind {
    PEAKED, FLAT, TIES, EQUAL, MINUS_INFINITIES, SPREAD, SUBNORMAL, ONE_TOKEN, ROW_KINDS
} row_kind;

static void fill_row(row_kind kind, uint64_t stream, float *z, size_t n)
{
    for (size_t j = 0; j < n; j++) {
        const double x = normal(stream, j);
        switch (kind) {
        case PEAKED: z[j] = (float)(x + (j % 97 == 13 ? 9.0 : 0.0)); break;
        case FLAT: z[j] = (float)(0.1 * x); break;
        case TIES: z[j] = (float)(rint(2.0 * x) / 2.0); break;
        case EQUAL: z[j] = -3.25f; break;
        case MINUS_INFINITIES: z[j] = j % 3 != 1 && n > 2 ? -INFINITY : (float)x; break;
        case SPREAD: z[j] = (float)(40.0 * x); break;
        case SUBNORMAL: z[j] = j % 50 == 7 ? 0.0f : (float)(-95.0 + 6.0 * x); break;
        default: z[j] = j == n / 2 ? 1.0f : -INFINITY; break;
        }
    }
}

/* One of the values, or now and then any in (0, 1). */
static double one_of(const double *values, uint64_t n, uint64_t stream, uint64_t what)
{
    const uint64_t i = pgrad__uniform_below(17, stream, what, n + 1);
    return i < n ? values[i] : 1.0 - pgrad__uniform(17, stream, 100 + what, 0);
}

typedef struct reference_cut {
    uint32_t order[MOST_WEIGHTS];
    size_t least, most; /* how many of them are kept: not the same where rounding in double decides */
} reference_cut;

/* By a full sort and sums in extended precision, from the same weights. */
static void cut_by_sorting(reference_cut *to, const float *w, size_t n, uint32_t top_k, double top_p, double min_p)
{
    static double keys[MOST_WEIGHTS];
    const size_t k = top_k == 0 || top_k > n ? n : top_k;
    long double mass = 0, sum = 0;
    for (size_t j = 0; j < n; j++) {
        keys[j] = (double)w[j];
        to->order[j] = (uint32_t)j;
    }
    sort_key = keys;
    qsort(to->order, n, sizeof *to->order, by_probability);
    for (size_t i = 0; i < k; i++)
        mass += w[to->order[i]];
    const long double error = 1e-14L * mass, target = top_p * mass;
    to->least = 0;
    for (to->most = 0; to->most < k && sum < target + error && top_p < 1.0; to->most++) {
        to->least += to->most == 0 || sum < target - error;
        sum += w[to->order[to->most]];
    }
    if (top_p == 1.0)
        to->least = to->most = k;
    while (to->most > 0 && (w[to->order[to->most - 1]] == 0.0f || keys[to->order[to->most - 1]] < min_p))
        to->most--;
    to->least = to->least < to->most ? to->least : to->most;
}

/* The same draw with every kernel set: the same bits; and what is kept is what sorting keeps. Returns 1 when the
 * reference leaves no choice. */
static int check_cut(pgrad_context *const *contexts, const pgrad_sampler_params *params, const float *z, size_t n,
                     uint64_t stream)
{
    static float w[MOST_WEIGHTS];
    static reference_cut wanted;
    pgrad__drawn first = {.token = -1};
    double first_sums[MOST_WEIGHTS / 256 + 1];
    for (int set = 0; set < 4; set++) {
        if (contexts[set] == NULL)
            continue;
        const pgrad__kernels *kernels = pgrad__kernels_of(contexts[set]);
        const float inverse_tau = (float)(1.0 / params->temperature);
        pgrad_sampler *sampler = make_sampler(contexts[set], params);
        pgrad__draw_scratch scratch;
        pgrad__softmax_row stats;
        size_t kept = 0;
        long double left = 0;
        OK(pgrad__draw_scratch_init(&scratch, contexts[set], (uint32_t)n));
        const pgrad__draw draw = {.logits = z, .sequence = stream};
        const pgrad__drawn drawn = pgrad__sampler_draw(sampler, kernels, &scratch, &draw);
        ck_assert_int_eq(drawn.failure, PGRAD__DRAW_OK);
        kernels->vec->softmax_row_stats(z, n, inverse_tau, &stats, NULL);
        for (size_t j = 0; j < n; j++)
            w[j] = z[j] * inverse_tau - stats.max;
        kernels->vec->exp(w, n, w);
        cut_by_sorting(&wanted, w, n, params->top_k, params->top_p, params->min_p);
        for (size_t i = 0; i < n; i++) {
            const uint32_t j = wanted.order[i];
            const float found = scratch.sums[j / 256] > 0.0 ? scratch.weight[j] : 0.0f;
            ck_assert_msg(found == 0.0f || (found == w[j] && kept == i), "%zu tokens, %g %u %g: %u is kept without %u",
                          n, params->top_p, params->top_k, params->min_p, j, wanted.order[kept]);
            kept += found > 0.0f;
            left += found;
        }
        ck_assert_msg(kept >= wanted.least && kept <= wanted.most,
                      "%zu tokens, top_p %.17g, top_k %u, min_p %g: %zu kept, not %zu to %zu", n, params->top_p,
                      params->top_k, params->min_p, kept, wanted.least, wanted.most);
        ck_assert(scratch.sums[drawn.token / 256] > 0.0 && scratch.weight[drawn.token] > 0.0f);
        const double logprob = (double)logl(w[drawn.token] / left);
        ck_assert_double_eq_tol((double)drawn.logprob_sampled, logprob, 1e-7 * (1.0 - logprob));
        if (first.token < 0) {
            first = drawn;
            memcpy(first_sums, scratch.sums, (n + 255) / 256 * sizeof *first_sums);
        }
        ck_assert_int_eq(drawn.token, first.token);
        ck_assert(memcmp(&drawn.logprob_sampled, &first.logprob_sampled, sizeof(float)) == 0);
        ck_assert(memcmp(scratch.sums, first_sums, (n + 255) / 256 * sizeof *first_sums) == 0);
        pgrad__draw_scratch_free(&scratch);
        pgrad_sampler_free(sampler);
    }
    return wanted.least == wanted.most;
}

START_TEST(kept_sets_are_those_of_sorting)
{
    enum { ROWS = 1000 };
    static const double ps[] = {1.0, 1.0, 0.9, 0.5, 0.999, 1e-9, 1.0 - 1e-12, 1.0 - 0x1p-53};
    static const double ms[] = {0.0, 0.0, 0.0, 0.05, 0.9, 1e-30}, taus[] = {1.0, 0.3, 5.0};
    static const size_t sizes[] = {1, 2, 17, 255, 256, 257, 700, MOST_WEIGHTS};
    static float z[MOST_WEIGHTS];
    pgrad_context *contexts[4];
    unsigned decided = 0;
    for (uint32_t set = 0; set < 4; set++)
        contexts[set] = test_context(set + 1, 1);
    for (uint64_t row = 0; row < ROWS; row++) {
        const uint64_t stream = row * ROW_KINDS + (uint64_t)_i;
        const size_t n = sizes[pgrad__uniform_below(17, stream, 1, row % 20 == 0 ? 8 : 7)];
        const uint32_t ks[] = {0, 0, 1, 2, 5, 50, 300, (uint32_t)n - 1, (uint32_t)n, (uint32_t)n + 1, UINT32_MAX};
        pgrad_sampler_params params = sampler_defaults();
        params.top_k = ks[pgrad__uniform_below(17, stream, 2, sizeof ks / sizeof *ks)];
        params.top_p = one_of(ps, sizeof ps / sizeof *ps, stream, 3);
        params.min_p = one_of(ms, sizeof ms / sizeof *ms, stream, 4);
        params.temperature = taus[pgrad__uniform_below(17, stream, 5, 3)];
        if (params.top_k == 0 && params.top_p == 1.0 && params.min_p == 0.0)
            params.top_p = 0.75;
        if (params.min_p == 1.0)
            params.min_p = 0.5;
        fill_row((row_kind)_i, stream, z, n);
        decided += (unsigned)check_cut(contexts, &params, z, n, stream);
    }
    ck_assert_msg(decided > ROWS * 6 / 10, "%u of %u", decided, ROWS);
    for (int set = 0; set < 4; set++)
        pgrad_context_free(contexts[set]);
}
END_TEST

/* Sums of equal weights are exact: no token more or less than the words say. */
START_TEST(equal_weights_are_counted)
{
    static const struct {
        size_t n;
        uint32_t top_k;
        double top_p;
        size_t kept;
    } cases[] = {{8, 0, 0.5, 4},          {10, 0, 0.3, 3},         {10, 0, 0.31, 4},          {1000, 0, 0.25, 250},
                 {1000, 400, 0.25, 100},  {1000, 400, 1.0, 400},   {1000, 0, 1e-9, 1},        {1000, 7, 1e-300, 1},
                 {1000, 0, 0x1.fffffffffffffp-1, 1000}, {4000, 0, 0.75, 3000}, {4000, 4001, 0.75, 3000}};
    static const float z[MOST_WEIGHTS];
    for (size_t c = 0; c < sizeof cases / sizeof *cases; c++) {
        pgrad_sampler_params params = sampler_defaults();
        params.top_k = cases[c].top_k;
        params.top_p = cases[c].top_p;
        pgrad_sampler *sampler = make_sampler(context, &params);
        pgrad__draw_scratch scratch;
        OK(pgrad__draw_scratch_init(&scratch, context, (uint32_t)cases[c].n));
        const pgrad__draw draw = {.logits = z};
        const pgrad__drawn drawn = pgrad__sampler_draw(sampler, pgrad__kernels_of(context), &scratch, &draw);
        ck_assert_uint_lt((size_t)drawn.token, cases[c].kept);
        ck_assert_double_eq_tol((double)drawn.logprob_sampled, -log((double)cases[c].kept), 1e-6);
        for (size_t j = 0; j < cases[c].n; j++)
            ck_assert_msg((scratch.sums[j / 256] > 0.0 && scratch.weight[j] > 0.0f) == (j < cases[c].kept),
                          "case %zu: %zu", c, j);
        pgrad__draw_scratch_free(&scratch);
        pgrad_sampler_free(sampler);
    }
}
END_TEST

/* ---- the numbers of a draw ---- */

START_TEST(logprob_has_the_bits_of_scoring)
{
    static float z[1000];
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.6;
    const float inverse_tau = (float)(1.0 / 0.6);
    pgrad_sampler *sampler = make_sampler(context, &params);
    for (uint64_t i = 0; i < 50; i++) {
        pgrad_token token;
        float logprob, sampled, entropy, wanted, wanted_entropy;
        for (size_t j = 0; j < 1000; j++)
            z[j] = (float)(3.0 * normal(i, j));
        OK(pgrad_sampler_pick(sampler, z, 1000, 0, i, &token, &logprob, &sampled, &entropy));
        pgrad__softmax_stats(context, z, 1000, 1, 1000, &inverse_tau, &token, &wanted, NULL, &wanted_entropy);
        ck_assert(memcmp(&logprob, &wanted, sizeof wanted) == 0);
        ck_assert(memcmp(&sampled, &wanted, sizeof wanted) == 0);
        ck_assert(memcmp(&entropy, &wanted_entropy, sizeof wanted) == 0);
    }
    pgrad_sampler_free(sampler);
}
END_TEST

/* The order of the rules: forbid, bias, penalty, temperature, cuts. */
START_TEST(rules_apply_in_their_order)
{
    const float z[6] = {1.0f, -0.5f, 2.0f, 0.3f, 5.0f, -INFINITY};
    const pgrad_token forbidden[] = {4}, biased[] = {1, 4, 2, 1};
    const float bias[] = {1.0f, 100.0f, -0.5f, 0.25f};
    const pgrad_token prompt[] = {0, 0, 3}, completion[] = {1, 3, 5};
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.5;
    params.repetition_penalty = 1.5;
    params.forbidden_tokens = forbidden;
    params.n_forbidden_tokens = 1;
    params.bias_tokens = biased;
    params.logit_bias = bias;
    params.n_bias_tokens = 4;
    pgrad_sampler *sampler = make_sampler(context, &params);
    /* token 1: -0.5 + 1 + 0.25 = 0.75 / 1.5; 0: 1 / 1.5; 3: 0.3 / 1.5; 2: 2 - 0.5; once each */
    const double u[6] = {1.0 / 1.5 / 0.5, 0.75 / 1.5 / 0.5, 1.5 / 0.5, 0.2 / 0.5, -INFINITY, -INFINITY};
    naive d;
    naive_cut(&d, u, 6, 0, 1.0, 0.0);
    pgrad__draw_scratch scratch;
    OK(pgrad__draw_scratch_init(&scratch, context, 6));
    unsigned seen = 0;
    for (uint64_t i = 0; i < 300; i++) {
        pgrad__draw draw = {.logits = z, .position = i, .history = {prompt, completion}, .n_history = {3, 3}};
        pgrad__drawn drawn = pgrad__sampler_draw(sampler, pgrad__kernels_of(context), &scratch, &draw);
        ck_assert_int_eq(drawn.failure, PGRAD__DRAW_OK);
        ck_assert(drawn.token >= 0 && drawn.token < 4);
        ck_assert_double_eq_tol((double)drawn.logprob_sampled, log(d.p[drawn.token]), 1e-5);
        seen |= 1u << drawn.token;
    }
    ck_assert_uint_eq(seen, 15);
    /* negative logits are multiplied */
    const float low[2] = {-1.0f, -1.0f};
    const pgrad_token zero[] = {0};
    pgrad__draw draw = {.logits = low, .history = {zero, NULL}, .n_history = {1, 0}};
    pgrad__draw_scratch two;
    OK(pgrad__draw_scratch_init(&two, context, 2));
    pgrad__drawn drawn = pgrad__sampler_draw(sampler, pgrad__kernels_of(context), &two, &draw);
    const double w[2] = {exp(-1.5 / 0.5), exp((-1.0 + 1.25) / 0.5)};
    ck_assert_double_eq_tol((double)drawn.logprob_sampled, log(w[drawn.token] / (w[0] + w[1])), 1e-5);
    pgrad__draw_scratch_free(&two);
    pgrad__draw_scratch_free(&scratch);
    pgrad_sampler_free(sampler);
}
END_TEST

START_TEST(rows_without_a_token_and_barred_ones_are_not_drawn)
{
    const float z[4] = {3.0f, 1.0f, 1.0f, 4.0f};
    const uint8_t has_token[4] = {1, 1, 1, 0};
    const pgrad_token barred[] = {0};
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(context, &params);
    pgrad__draw_scratch scratch;
    OK(pgrad__draw_scratch_init(&scratch, context, 4));
    for (uint64_t i = 0; i < 100; i++) {
        pgrad__draw draw = {.logits = z, .position = i, .has_token = has_token, .barred = barred, .n_barred = 1};
        pgrad__drawn drawn = pgrad__sampler_draw(sampler, pgrad__kernels_of(context), &scratch, &draw);
        ck_assert(drawn.token == 1 || drawn.token == 2);
        ck_assert_double_eq_tol((double)drawn.logprob_sampled, log(0.5), 1e-6);
        ck_assert_double_lt((double)drawn.logprob, -2.0); /* untruncated */
    }
    pgrad__draw_scratch_free(&scratch);
    pgrad_sampler_free(sampler);
}
END_TEST

/* ---- bad input ---- */

START_TEST(sp01_temperatures)
{
    static const double bad[] = {-1.0, -0.0001, NAN, INFINITY, -INFINITY, 1e30, 1e-40};
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = NULL;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        params.temperature = bad[i];
        FAILS(PGRAD_E_INVALID, "temperature", pgrad_sampler_create(context, &params, &sampler));
        ck_assert_ptr_null(sampler);
    }
    const float z[4] = {1.0f, 3.0f, 3.0f, -2.0f};
    pgrad_token token;
    float logprob, sampled, entropy;
    params.temperature = 1e-30; /* finite: the largest, and its ties */
    sampler = make_sampler(context, &params);
    OK(pgrad_sampler_pick(sampler, z, 4, 0, 0, &token, &logprob, &sampled, &entropy));
    ck_assert(token == 1 || token == 2);
    ck_assert(isfinite(logprob) && isfinite(sampled) && isfinite(entropy));
    pgrad_sampler_free(sampler);
    params.temperature = 1e6;
    sampler = make_sampler(context, &params);
    OK(pgrad_sampler_pick(sampler, z, 4, 0, 0, &token, &logprob, NULL, NULL));
    ck_assert_double_eq_tol((double)logprob, log(0.25), 1e-4);
    pgrad_sampler_free(sampler);
    params.temperature = 0.0; /* greedy: the lowest id of the largest; tau counts as 1 */
    sampler = make_sampler(context, &params);
    OK(pgrad_sampler_pick(sampler, z, 4, 0, 0, &token, &logprob, &sampled, NULL));
    ck_assert_int_eq(token, 1);
    ck_assert_double_eq_tol((double)logprob, 3.0 - log(exp(1.0) + 2.0 * exp(3.0) + exp(-2.0)), 1e-6);
    ck_assert(sampled == 0.0f);
    pgrad_sampler_free(sampler);
}
END_TEST

#define REFUSED(member, value)                                                                     \
    do {                                                                                           \
        pgrad_sampler_params refused_ = sampler_defaults();                                        \
        refused_.member = (value);                                                                 \
        FAILS(PGRAD_E_INVALID, #member, pgrad_sampler_create(context, &refused_, &sampler));       \
        ck_assert_ptr_null(sampler);                                                               \
    } while (0)

START_TEST(sp02_ranges)
{
    pgrad_sampler *sampler = NULL;
    REFUSED(top_p, 0.0);
    REFUSED(top_p, 1.5);
    REFUSED(top_p, NAN);
    REFUSED(min_p, 1.0);
    REFUSED(min_p, -0.1);
    REFUSED(repetition_penalty, 0.0);
    REFUSED(repetition_penalty, NAN);
    REFUSED(ignore_eos, 2);
    pgrad_sampler_params params = sampler_defaults();
    params.min_new_tokens = 10;
    params.max_new_tokens = 5;
    FAILS(PGRAD_E_INVALID, "min_new_tokens: expected at most max_new_tokens = 5, found 10",
          pgrad_sampler_create(context, &params, &sampler));
    params.max_new_tokens = 0; /* the rollout's room is not known yet */
    OK(pgrad_sampler_create(context, &params, &sampler));
    pgrad_sampler_free(sampler);
    sampler = NULL;
    params = sampler_defaults();
    params.n_stop_tokens = 3;
    FAILS(PGRAD_E_INVALID, "stop_tokens: 3", pgrad_sampler_create(context, &params, &sampler));
    params = sampler_defaults();
    params.n_stop_strings = 1;
    FAILS(PGRAD_E_INVALID, "stop_strings: 1", pgrad_sampler_create(context, &params, &sampler));
    params = sampler_defaults();
    const pgrad_token negative[] = {2, -7};
    const float nan[] = {0.0f, NAN};
    params.forbidden_tokens = negative;
    params.n_forbidden_tokens = 2;
    FAILS(PGRAD_E_INVALID, "forbidden_tokens[1]", pgrad_sampler_create(context, &params, &sampler));
    params = sampler_defaults();
    params.bias_tokens = negative;
    params.n_bias_tokens = 1;
    params.logit_bias = nan + 1;
    FAILS(PGRAD_E_INVALID, "logit_bias[0]", pgrad_sampler_create(context, &params, &sampler));
    FAILS(PGRAD_E_INVALID, "out", pgrad_sampler_create(context, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "context", pgrad_sampler_create(NULL, NULL, &sampler));
    ck_assert_ptr_null(sampler);
    params = sampler_defaults(); /* beyond the vocabulary: off */
    params.top_k = UINT32_MAX;
    sampler = make_sampler(context, &params);
    const float z[2] = {0.0f, 0.0f};
    pgrad_token token;
    OK(pgrad_sampler_pick(sampler, z, 2, 0, 0, &token, NULL, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "n_vocab", pgrad_sampler_pick(sampler, z, 0, 0, 0, &token, NULL, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "logits", pgrad_sampler_pick(sampler, NULL, 2, 0, 0, &token, NULL, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "sampler", pgrad_sampler_pick(NULL, z, 2, 0, 0, &token, NULL, NULL, NULL));
    pgrad_sampler_free(sampler);
}
END_TEST

START_TEST(sp03_logits_that_are_not_finite)
{
    static float z[600];
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = _i % 2 ? 0.0 : 1.0;
    pgrad_sampler *sampler = make_sampler(context, &params);
    static const uint32_t places[] = {0, 255, 256, 599};
    for (size_t k = 0; k < 4; k++) {
        pgrad_token token = -5;
        char index[32];
        memset(z, 0, sizeof z);
        z[places[k]] = NAN;
        snprintf(index, sizeof index, "logit %u is", places[k]);
        FAILS(PGRAD_E_NUMERIC, index, pgrad_sampler_pick(sampler, z, 600, 0, 0, &token, NULL, NULL, NULL));
        z[places[k]] = INFINITY;
        FAILS(PGRAD_E_NUMERIC, index, pgrad_sampler_pick(sampler, z, 600, 0, 0, &token, NULL, NULL, NULL));
        ck_assert_int_eq(token, -5);
    }
    for (size_t j = 0; j < 600; j++)
        z[j] = -INFINITY;
    FAILS(PGRAD_E_NUMERIC, "-infinity", pgrad_sampler_pick(sampler, z, 600, 0, 0, NULL, NULL, NULL, NULL));
    z[77] = -3e38f; /* the only one */
    pgrad_token token = -1;
    OK(pgrad_sampler_pick(sampler, z, 600, 0, 0, &token, NULL, NULL, NULL));
    ck_assert_int_eq(token, 77);
    pgrad_sampler_free(sampler);
}
END_TEST

START_TEST(sp04_all_forbidden)
{
    const float z[2] = {1.0f, 2.0f}, minus[] = {-INFINITY};
    const pgrad_token forbidden[] = {0, 5, 1}, one[] = {1};
    pgrad_sampler_params params = sampler_defaults();
    params.forbidden_tokens = forbidden;
    params.n_forbidden_tokens = 2;
    params.bias_tokens = one;
    params.logit_bias = minus;
    params.n_bias_tokens = 1;
    pgrad_sampler *sampler = make_sampler(context, &params);
    FAILS(PGRAD_E_NUMERIC, "no token", pgrad_sampler_pick(sampler, z, 2, 0, 0, NULL, NULL, NULL, NULL));
    pgrad_sampler_free(sampler);
    const float big[] = {3.4e38f}, large[2] = {3.4e38f, 3.4e38f};
    params = sampler_defaults();
    params.bias_tokens = one;
    params.logit_bias = big;
    params.n_bias_tokens = 1;
    sampler = make_sampler(context, &params);
    FAILS(PGRAD_E_NUMERIC, "bias", pgrad_sampler_pick(sampler, large, 2, 0, 0, NULL, NULL, NULL, NULL));
    pgrad_sampler_free(sampler);
}
END_TEST

START_TEST(sp05_p_zero_is_never_drawn)
{
    static float z[700];
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(context, &params);
    for (size_t j = 0; j < 700; j++)
        z[j] = j % 300 == 299 ? 0.0f : j % 2 ? -INFINITY : -200.0f; /* exp(-200) is 0 */
    unsigned count[2] = {0, 0};
    for (uint64_t i = 0; i < 3000; i++) {
        pgrad_token token;
        OK(pgrad_sampler_pick(sampler, z, 700, i, 0, &token, NULL, NULL, NULL));
        ck_assert_msg(token == 299 || token == 599, "%d has no probability", token);
        count[token == 599]++;
    }
    ck_assert_uint_gt(count[0], 1300);
    ck_assert_uint_gt(count[1], 1300);
    pgrad_sampler_free(sampler);
    static const float ties[5] = {0.5f, 2.0f, 2.0f, 2.0f, 1.0f}; /* the lowest ids of a tie stay */
    params.top_k = 2;
    sampler = make_sampler(context, &params);
    for (uint64_t i = 0; i < 200; i++) {
        pgrad_token token;
        OK(pgrad_sampler_pick(sampler, ties, 5, i, 0, &token, NULL, NULL, NULL));
        ck_assert(token == 1 || token == 2);
    }
    pgrad_sampler_free(sampler);
}
END_TEST

/* A draw depends on nothing but seed, sequence and position; the extremes of the seed are seeds too. */
START_TEST(sp06_draws_are_pure)
{
    static const uint64_t seeds[] = {0, 1, UINT64_MAX};
    float z[50];
    unsigned equal = 0;
    pgrad_token first[3][100];
    for (size_t j = 0; j < 50; j++)
        z[j] = (float)normal(3, j);
    for (size_t s = 0; s < 3; s++) {
        pgrad_sampler_params params = sampler_defaults();
        params.seed = seeds[s];
        pgrad_sampler *a = make_sampler(context, &params), *b = make_sampler(context, &params);
        for (uint64_t i = 0; i < 100; i++)
            OK(pgrad_sampler_pick(a, z, 50, i / 10, i % 10, &first[s][i], NULL, NULL, NULL));
        for (uint64_t i = 100; i-- > 0;) {
            pgrad_token token;
            OK(pgrad_sampler_pick(b, z, 50, i / 10, i % 10, &token, NULL, NULL, NULL));
            ck_assert_int_eq(token, first[s][i]);
        }
        pgrad_sampler_free(a);
        pgrad_sampler_free(b);
    }
    for (size_t i = 0; i < 100; i++)
        equal += first[0][i] == first[1][i];
    ck_assert_uint_lt(equal, 60);
}
END_TEST

/* ---- stop strings ---- */

/* The first end of any string, and the longest that ends there. */
static size_t plain_scan(const char *const *strings, size_t n, const char *text, size_t length, size_t *end)
{
    for (size_t e = 1; e <= length; e++) {
        size_t longest = 0;
        for (size_t i = 0; i < n; i++) {
            size_t m = strlen(strings[i]);
            if (m <= e && memcmp(text + e - m, strings[i], m) == 0 && m > longest)
                longest = m;
        }
        if (longest > 0) {
            *end = e;
            return longest;
        }
    }
    return 0;
}

START_TEST(stop_strings_are_found_in_pieces)
{
    unsigned found = 0, longer = 0;
    for (uint64_t round = 0; round < 2000; round++) {
        char strings[5][8], text[41];
        const char *pointers[5];
        const size_t n = 1 + pgrad__uniform_below(round, 0, 0, 5);
        for (size_t i = 0; i < n; i++) {
            size_t m = 1 + pgrad__uniform_below(round, 1, i, 7);
            for (size_t k = 0; k < m; k++)
                strings[i][k] = (char)('a' + pgrad__uniform_below(round, 2 + i, k, 2 + round % 2));
            strings[i][m] = '\0';
            pointers[i] = strings[i];
        }
        for (size_t k = 0; k < 40; k++)
            text[k] = (char)('a' + pgrad__uniform_below(round, 9, k, 2 + round % 2));
        pgrad__stop_strings stops;
        OK(pgrad__stop_strings_build(&stops, context, pointers, n));
        size_t wanted_end = 0, end = 0, matched = 0;
        size_t wanted = plain_scan(pointers, n, text, 40, &wanted_end);
        uint32_t state = 0;
        for (size_t at = 0; at < 40 && matched == 0;) {
            size_t piece = 1 + pgrad__uniform_below(round, 10, at, 6), more = 0;
            piece = piece < 40 - at ? piece : 40 - at;
            matched = pgrad__stop_strings_scan(&stops, &state, text + at, piece, &more);
            end = at + more;
            at += piece;
        }
        ck_assert_uint_eq(matched, wanted);
        if (wanted > 0)
            ck_assert_uint_eq(end, wanted_end);
        found += wanted > 0;
        longer += wanted > 2;
        pgrad__stop_strings_free(&stops, context);
    }
    ck_assert_uint_gt(found, 1000);
    ck_assert_uint_gt(longer, 50);
}
END_TEST

START_TEST(sp07_many_and_empty_stop_strings)
{
    enum { MANY = 10000 };
    static char strings[MANY][12];
    static const char *pointers[MANY];
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = NULL;
    for (unsigned i = 0; i < MANY; i++) {
        snprintf(strings[i], sizeof strings[i], "%u.", i * 7919u);
        pointers[i] = strings[i];
    }
    params.stop_strings = pointers;
    params.n_stop_strings = MANY;
    sampler = make_sampler(context, &params);
    uint32_t state = 0;
    size_t end;
    ck_assert_uint_eq(pgrad__stop_strings_scan(&sampler->stops, &state, "1 7918 79190", 12, &end), 0);
    ck_assert_uint_eq(pgrad__stop_strings_scan(&sampler->stops, &state, ".x", 2, &end), 6);
    ck_assert_uint_eq(end, 1);
    pgrad_sampler_free(sampler);
    sampler = NULL;
    pointers[17] = "";
    FAILS(PGRAD_E_INVALID, "stop_strings[17]", pgrad_sampler_create(context, &params, &sampler));
    pointers[17] = NULL;
    FAILS(PGRAD_E_INVALID, "stop_strings[17]", pgrad_sampler_create(context, &params, &sampler));
    ck_assert_ptr_null(sampler);
    enum { LENGTH = 1 << 20, TIMES = 2048 }; /* one text, again and again */
    pgrad__stop_strings stops;
    char *text = malloc(LENGTH + 1);
    memset(text, 'x', LENGTH);
    text[LENGTH] = '\0';
    for (int i = 0; i < TIMES; i++)
        pointers[i] = text;
    FAILS(PGRAD_E_LIMIT, "sampler.stop_strings: expected at most 2147483646 bytes in all, found 2147483648",
          pgrad__stop_strings_build(&stops, context, pointers, TIMES));
    free(text);
}
END_TEST

START_TEST(copies_what_it_is_given)
{
    pgrad_token stop[] = {1}, forbidden[] = {0};
    char word[] = "end";
    const char *words[] = {word};
    pgrad_sampler_params params = sampler_defaults();
    params.stop_tokens = stop;
    params.n_stop_tokens = params.n_forbidden_tokens = params.n_stop_strings = 1;
    params.forbidden_tokens = forbidden;
    params.stop_strings = words;
    pgrad_sampler *sampler = make_sampler(context, &params);
    stop[0] = forbidden[0] = 99;
    word[0] = 'x';
    words[0] = NULL;
    ck_assert_int_eq(sampler->params.stop_tokens[0], 1);
    ck_assert_str_eq(sampler->params.stop_strings[0], "end");
    const float z[2] = {9.0f, 0.0f};
    pgrad_token token;
    OK(pgrad_sampler_pick(sampler, z, 2, 0, 0, &token, NULL, NULL, NULL));
    ck_assert_int_eq(token, 1);
    ck_assert_uint_eq(pgrad_sampler_next_sequence(sampler), 0);
    OK(pgrad_sampler_set_next_sequence(sampler, 41));
    ck_assert_uint_eq(pgrad_sampler_next_sequence(sampler), 41);
    pgrad_sampler_free(sampler);
    pgrad_sampler_free(NULL);
}
END_TEST

/* The two ends of [0, 1), and the last number of single precision below 1: the first and the last token that has a
 * probability, in rows of any length that begin and end with some that have none. */
START_TEST(sp05_the_ends_of_a_draw)
{
    enum { MOST = 1100 };
    static const double ENDS[] = {0.0, 0x1p-53, 1.0 - 0x1p-24, 1.0 - 0x1p-53};
    static const pgrad_token biased[] = {0};
    static const float bias[] = {1.0f}, none = -INFINITY;
    static float z[MOST];
    for (uint32_t row = 0; row < 400; row++) {
        const size_t n = 1 + (size_t)pgrad__uniform_below(5, row, 0, MOST);
        const size_t first = (size_t)pgrad__uniform_below(5, row, 1, n);
        const size_t last = first + (size_t)pgrad__uniform_below(5, row, 2, n - first);
        for (size_t j = 0; j < n; j++) { /* outside: below the last exp, or none; inside: sums are rounded */
            z[j] = j % 2 ? none : -300.0f;
            if (j >= first && j <= last)
                z[j] = j == first || j == last ? 1.0f : -8.0f * (float)fabs(normal(row, j));
        }
        pgrad_sampler_params params = sampler_defaults();
        params.temperature = row % 2 ? 1.0 : 0.7;
        params.min_p = row % 4 == 2 ? 1e-9 : 0.0;
        params.top_k = row % 8 == 5 ? MOST : 0;
        params.n_bias_tokens = row % 8 == 3;
        params.bias_tokens = biased;
        params.logit_bias = bias;
        pgrad_sampler *sampler = make_sampler(context, &params);
        for (int i = 0; i < 4; i++) {
            pgrad_token token = -1;
            forced = ENDS[i];
            const pgrad_status status = pgrad_sampler_pick(sampler, z, n, row, 0, &token, NULL, NULL, NULL);
            forced = -1.0;
            OK(status);
            ck_assert_msg((size_t)token == (i < 2 ? first : last), "row %u, %zu of %zu to %zu, %.17g: %d", row, first, n,
                          last, ENDS[i], token);
        }
        pgrad_sampler_free(sampler);
    }
}
END_TEST

START_TEST(a_pick_without_memory_can_be_made_again)
{
    static float z[100000];
    pgrad_context_params limited;
    pgrad_context *narrow = NULL;
    pgrad_token token = -5;
    pgrad_context_params_init(&limited, sizeof limited);
    limited.n_threads = 1;
    limited.memory_limit = 1 << 20;
    OK(pgrad_context_create(&limited, &narrow));
    pgrad_sampler *sampler = make_sampler(narrow, NULL);
    for (int i = 0; i < 2; i++)
        FAILS(PGRAD_E_LIMIT, "memory", pgrad_sampler_pick(sampler, z, 100000, 0, 0, &token, NULL, NULL, NULL));
    ck_assert_int_eq(token, -5);
    z[7] = 100.0f;
    OK(pgrad_sampler_pick(sampler, z, 1000, 0, 0, &token, NULL, NULL, NULL));
    ck_assert_int_eq(token, 7);
    FAILS(PGRAD_E_LIMIT, "memory", pgrad_sampler_pick(sampler, z, 100000, 0, 0, &token, NULL, NULL, NULL));
    OK(pgrad_sampler_pick(sampler, z, 1000, 0, 0, &token, NULL, NULL, NULL));
    pgrad_sampler_free(sampler);
    pgrad_context_free(narrow);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("sampler");
    TCase *tcase = tcase_create("sampler");
    tcase_set_timeout(tcase, 120);
    tcase_add_checked_fixture(tcase, setup, teardown);
    tcase_add_loop_test(tcase, draws_follow_the_probabilities, 0, 4);
    tcase_add_loop_test(tcase, cuts_are_those_of_a_plain_implementation, 0, 7);
    tcase_add_loop_test(tcase, kept_sets_are_those_of_sorting, 0, ROW_KINDS);
    tcase_add_test(tcase, equal_weights_are_counted);
    tcase_add_test(tcase, logprob_has_the_bits_of_scoring);
    tcase_add_test(tcase, rules_apply_in_their_order);
    tcase_add_test(tcase, rows_without_a_token_and_barred_ones_are_not_drawn);
    tcase_add_test(tcase, sp01_temperatures);
    tcase_add_test(tcase, sp02_ranges);
    tcase_add_loop_test(tcase, sp03_logits_that_are_not_finite, 0, 2);
    tcase_add_test(tcase, sp04_all_forbidden);
    tcase_add_test(tcase, sp05_p_zero_is_never_drawn);
    tcase_add_test(tcase, sp05_the_ends_of_a_draw);
    tcase_add_test(tcase, sp06_draws_are_pure);
    tcase_add_test(tcase, stop_strings_are_found_in_pieces);
    tcase_add_test(tcase, sp07_many_and_empty_stop_strings);
    tcase_add_test(tcase, copies_what_it_is_given);
    tcase_add_test(tcase, a_pick_without_memory_can_be_made_again);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
