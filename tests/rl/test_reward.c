/* Rewards: scores of callbacks, sums of several, per token; what a callback can get wrong (RW). */
#include "failing_allocator.h"
#include "rl_test.h"

#include <fenv.h>

static const char *const answers[] = {"ab", "c", "defg", "hijklm"};

/* Two groups of two added completions, and room for more. */
static pgrad_rollout *make_scored(const world *w)
{
    pgrad_rollout *rollout = make_rollout(w, 2, 2, 8, 0);
    for (uint32_t i = 0; i < 4; i++) {
        pgrad_token ids[8];
        const size_t n = strlen(answers[i]);
        if (i % 2 == 0)
            (void)add_text_prompt(rollout, i == 0 ? "p" : "q", NULL);
        for (size_t t = 0; t < n; t++)
            ids[t] = (unsigned char)answers[i][t];
        OK(pgrad_rollout_add_sequence(rollout, i / 2, ids, n, NULL));
    }
    return rollout;
}

/* What a callback does, and what it was shown. */
typedef struct script {
    uint32_t calls, destroyed;
    uint32_t bad_at; /* the sequence that something happens to; UINT32_MAX: none */
    int what;
    pgrad_reward *self;
    pgrad_rollout *rollout;
    pgrad_context *context;
} script;

enum { LENGTH_SCORE, LEAVE_NAN, INFINITE, RETURN_ZERO, RETURN_MORE, RETURN_NEGATIVE, FAIL_TEXT, FAIL_ALL, SKIP, TOKENS, TOKENS_UNCHECKED,
       MEDDLE, DROP, CANCEL, ROUND, HUGE_SCORE, KEEP };

static void meddle(script *s, pgrad_scores *scores)
{
    const float one = 1.0f, nan[2] = {0.0f, NAN};
    FAILS(PGRAD_E_BUSY, "callback", pgrad_reward_apply(s->self, s->rollout));
    FAILS(PGRAD_E_BUSY, "callback", pgrad_rollout_set_array(s->rollout, PGRAD_REWARDS, 0, &one, 1));
    FAILS(PGRAD_E_MISMATCH, "2 tokens, found 1", pgrad_scores_set_tokens(scores, 0, &one, 1));
    FAILS(PGRAD_E_INVALID, "below 4, found 4", pgrad_scores_set_tokens(scores, 4, &one, 1));
    FAILS(PGRAD_E_NUMERIC, "token 1", pgrad_scores_set_tokens(scores, 0, nan, 2));
    FAILS(PGRAD_E_INVALID, "values", pgrad_scores_set_tokens(scores, 0, NULL, 2));
    FAILS(PGRAD_E_INVALID, "scores", pgrad_scores_set_tokens(NULL, 0, &one, 1));
    pgrad_scores_skip(scores, 99);
    pgrad_rollout *other = make_scored(&(world){s->context, 0, s->rollout->model, s->rollout->tokenizer});
    FAILS(PGRAD_E_BUSY, "running", pgrad_reward_apply(s->self, other)); /* from another rollout */
    pgrad_rollout_free(other);
}

static int32_t score(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                     pgrad_scores *scores)
{
    static const float by_token[6] = {0.5f, -1.0f, 2.0f, 0.25f, 0.0f, 1.0f};
    script *s = user;
    float *data = pgrad_scores_data(scores);
    s->calls++;
    for (uint32_t i = 0; i < count; i++) {
        size_t length;
        const char *text = pgrad_rollout_text(rollout, first + i, &length);
        ck_assert_ptr_nonnull(text);
        ck_assert(isnan(data[i]));
        data[i] = (float)length;
        if (first + i != s->bad_at && s->bad_at != UINT32_MAX)
            continue;
        if (s->what == LEAVE_NAN)
            data[i] = NAN;
        if (s->what == INFINITE)
            data[i] = -INFINITY;
        if (s->what == HUGE_SCORE)
            data[i] = 3e38f;
        if (s->what == FAIL_TEXT)
            pgrad_scores_fail(scores, first + i, "no answer in the data");
        if (s->what == FAIL_ALL)
            pgrad_scores_fail(scores, UINT32_MAX, "no answers at all");
        if (s->what == TOKENS_UNCHECKED)
            (void)pgrad_scores_set_tokens(scores, i, by_token, length);
        if (s->what == SKIP)
            pgrad_scores_skip(scores, i);
        if (s->what == TOKENS)
            OK(pgrad_scores_set_tokens(scores, i, by_token, length));
    }
    if (s->what == MEDDLE)
        meddle(s, scores);
    if (s->what == DROP) {
        pgrad_reward_free(s->self);
        pgrad_rollout_free(s->rollout);
    }
    if (s->what == KEEP)
        s->rollout = pgrad_rollout_retain(rollout);
    if (s->what == CANCEL)
        pgrad_context_cancel(s->context);
    if (s->what == ROUND)
        fesetround(FE_UPWARD);
    return s->what == RETURN_ZERO ? 0 : s->what == RETURN_MORE ? (int32_t)count + 1
           : s->what == RETURN_NEGATIVE || s->what == FAIL_TEXT ? -7 : (int32_t)count;
}

static void destroy(void *user)
{
    ((script *)user)->destroyed++;
}

static pgrad_reward *make_reward(pgrad_context *context, const char *name, script *s)
{
    OK(pgrad_reward_create(context, name, score, s, destroy, &s->self));
    s->context = context;
    return s->self;
}

static float at(const pgrad_rollout *rollout, uint32_t i, uint32_t t)
{
    const float *rewards = pgrad_rollout_array(rollout, PGRAD_REWARDS, i, NULL);
    ck_assert_ptr_nonnull(rewards);
    return rewards[t];
}

static void has_no_rewards(const pgrad_rollout *rollout)
{
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        ck_assert(isnan(info_of(rollout, i).reward));
        ck_assert_ptr_null(pgrad_rollout_array(rollout, PGRAD_REWARDS, i, NULL));
    }
    ck_assert_int_eq(rollout->has_rewards, 0);
    ck_assert_uint_eq(rollout->n_components, 0);
}

START_TEST(a_score_stands_on_the_last_token)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = UINT32_MAX};
    pgrad_reward *reward = make_reward(w.context, "length", &s);
    OK(pgrad_reward_apply(reward, rollout));
    OK(pgrad_reward_apply(reward, rollout)); /* anew, not on top */
    ck_assert_uint_eq(s.calls, 2);
    for (uint32_t i = 0; i < 4; i++) {
        const uint32_t n = (uint32_t)strlen(answers[i]);
        ck_assert(info_of(rollout, i).reward == (double)n);
        for (uint32_t t = 0; t < n; t++)
            ck_assert(at(rollout, i, t) == (t + 1 == n ? (float)n : 0.0f));
    }
    ck_assert_int_eq(rollout->has_token_rewards, 0);
    pgrad_reward_free(reward);
    ck_assert_uint_eq(s.destroyed, 1);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(sums_are_weighted_and_reported_by_name)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script a = {.bad_at = UINT32_MAX}, b = {.bad_at = 1, .what = SKIP}, c = {.bad_at = UINT32_MAX, .what = TOKENS};
    pgrad_reward *plain[3] = {make_reward(w.context, "length", &a), make_reward(w.context, "again", &b),
                              make_reward(w.context, "tokens", &c)};
    pgrad_reward *inner = NULL, *sum = NULL;
    OK(pgrad_reward_combine(w.context, plain, (const double[]){0.5, 10.0}, 2, &inner));
    OK(pgrad_reward_combine(w.context, (pgrad_reward *const[]){inner, plain[2]}, (const double[]){2.0, -1.0}, 2,
                            &sum));
    for (int i = 0; i < 3; i++) /* the sum keeps them */
        pgrad_reward_free(plain[i]);
    pgrad_reward_free(inner);
    OK(pgrad_reward_apply(sum, rollout));
    /* by_token: 0.5 -1 2 0.25 0 1; weights: length 1, again 20 (not for sequence 1), tokens -1 */
    static const double tokens[] = {-0.5, 0.5, 1.75, 2.75};
    for (uint32_t i = 0; i < 4; i++) {
        const double n = (double)strlen(answers[i]);
        ck_assert_double_eq_tol(info_of(rollout, i).reward, n + (i == 1 ? 0.0 : 20.0 * n) - tokens[i], 1e-12);
    }
    ck_assert(at(rollout, 2, 0) == -0.5f && at(rollout, 2, 1) == 1.0f && at(rollout, 2, 2) == -2.0f);
    ck_assert(at(rollout, 2, 3) == (float)(84.0 - 0.25));
    ck_assert_int_eq(rollout->has_token_rewards, 1);
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_rollout_report(rollout, &report));
    ck_assert_uint_eq(report.n_named, 6);
    ck_assert_str_eq(report.named[0].name, "rewards/length/mean");
    ck_assert_str_eq(report.named[3].name, "rewards/again/std");
    ck_assert_str_eq(report.named[4].name, "rewards/tokens/mean");
    ck_assert_double_eq_tol(report.named[0].value, 13.0 / 4.0, 1e-12);
    ck_assert_double_eq_tol(report.named[2].value, 12.0 / 3.0, 1e-12); /* of those it applies to */
    ck_assert_double_eq_tol(report.named[3].value, 2.0, 1e-12);
    ck_assert_double_eq_tol(report.named[4].value, 4.5 / 4.0, 1e-12);
    pgrad_reward_free(sum);
    ck_assert(a.destroyed == 1 && b.destroyed == 1 && c.destroyed == 1);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(the_report_is_of_what_was_scored)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = 1, .what = SKIP};
    pgrad_reward *reward = make_reward(w.context, "length", &s);
    pgrad_step_report report;
    OK(pgrad_reward_apply(reward, rollout)); /* 2, none, 4, 6 */
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_rollout_report(rollout, &report));
    ck_assert(report.reward == 4.0 && report.n_unscored == 1.0 && report.n_sequences == 4.0);
    ck_assert_double_eq_tol(report.reward_std, sqrt(2.0), 1e-12); /* of {4, 6}: a group of one has none */
    ck_assert(report.reward_min == 2.0 && report.reward_q1 == 3.0 && report.reward_median == 4.0);
    ck_assert(report.reward_q3 == 5.0 && report.reward_max == 6.0);
    ck_assert(report.frac_zero_std == 0.5); /* one reward has no spread */
    ck_assert(report.n_tokens == 13.0 && report.completion_mean_length == 3.25);
    ck_assert(report.completion_min_length == 1.0 && report.completion_max_length == 6.0);
    ck_assert(report.completion_clipped_ratio == 0.0 && isnan(report.sampling_mismatch));
    ck_assert(isnan(report.loss) && isnan(report.grad_norm));
    FAILS(PGRAD_E_INVALID, "report", pgrad_rollout_report(rollout, NULL));
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* RW03: what does not apply is left out. */
START_TEST(rw03_not_applicable)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = UINT32_MAX, .what = SKIP};
    pgrad_reward *reward = make_reward(w.context, "none", &s);
    pgrad_step_report report;
    OK(pgrad_reward_apply(reward, rollout));
    for (uint32_t i = 0; i < 4; i++)
        ck_assert(isnan(info_of(rollout, i).reward));
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_rollout_report(rollout, &report));
    ck_assert(report.n_unscored == 4.0 && isnan(report.reward));
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* RW01, RW06: the message names reward and sequence; the rollout has no rewards, and a retry works. */
START_TEST(rw01_rw06_failures)
{
    static const struct {
        int what;
        pgrad_status code;
        const char *first, *second;
    } cases[] = {
        {LEAVE_NAN, PGRAD_E_NUMERIC, "'length', sequence 2", "NaN"},
        {INFINITE, PGRAD_E_NUMERIC, "'length', sequence 2", "infinite"},
        {RETURN_ZERO, PGRAD_E_CALLBACK, "'length'", "returned 0"},
        {RETURN_MORE, PGRAD_E_CALLBACK, "'length'", "returned 5, 4 means"},
        {RETURN_NEGATIVE, PGRAD_E_CALLBACK, "'length'", "returned -7"},
        {FAIL_TEXT, PGRAD_E_CALLBACK, "'length', sequence 2", "no answer in the data"},
        {FAIL_ALL, PGRAD_E_CALLBACK, "'length', sequences 0 to 3", "no answers at all"},
        {CANCEL, PGRAD_E_CANCELLED, "", ""},
    };
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script good = {.bad_at = UINT32_MAX}, s = {.bad_at = 2};
    pgrad_reward *before = make_reward(w.context, "fine", &good), *reward = make_reward(w.context, "length", &s);
    pgrad_reward *sum = NULL;
    OK(pgrad_reward_combine(w.context, (pgrad_reward *const[]){before, reward}, (const double[]){1.0, 1.0}, 2,
                            &sum));
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        s.what = LENGTH_SCORE;
        OK(pgrad_reward_apply(sum, rollout));
        ck_assert(info_of(rollout, 2).reward == 8.0);
        s.what = cases[i].what;
        FAILS(cases[i].code, cases[i].first, pgrad_reward_apply(sum, rollout));
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), cases[i].second));
        has_no_rewards(rollout);
        pgrad_context_clear_cancel(w.context);
    }
    pgrad_reward_free(before);
    pgrad_reward_free(reward);
    pgrad_reward_free(sum);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* A result of set_tokens that the function drops is not dropped here. */
START_TEST(no_memory_for_token_scores)
{
    counted state = {.left = -1};
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.allocator = &allocator;
    params.n_threads = 1;
    world w = {.context = NULL};
    OK(pgrad_context_create(&params, &w.context));
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, LLAMA_CONFIG);
    w.tokenizer = make_tokenizer(w.context);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = UINT32_MAX, .what = LENGTH_SCORE};
    pgrad_reward *reward = make_reward(w.context, "tokens", &s);
    OK(pgrad_reward_apply(reward, rollout)); /* what applying itself needs is there now */
    s.what = TOKENS_UNCHECKED;
    state.left = 1;
    FAILS(PGRAD_E_NOMEM, "reward 'tokens'", pgrad_reward_apply(reward, rollout));
    has_no_rewards(rollout);
    state.left = -1;
    OK(pgrad_reward_apply(reward, rollout));
    ck_assert_int_eq(rollout->has_token_rewards, 1);
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* RW02: large weights add up in double precision; beyond a float it is an error that names the sequence. */
START_TEST(rw02_large_scores)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = 3, .what = HUGE_SCORE};
    pgrad_reward *reward = make_reward(w.context, "huge", &s), *sum = NULL;
    OK(pgrad_reward_apply(reward, rollout));
    ck_assert(info_of(rollout, 3).reward == (double)3e38f);
    OK(pgrad_reward_combine(w.context, &reward, (const double[]){1e10}, 1, &sum));
    FAILS(PGRAD_E_NUMERIC, "sequence 3", pgrad_reward_apply(sum, rollout));
    has_no_rewards(rollout);
    pgrad_reward_free(sum); /* two infinities of unlike sign are no NaN, which would say not applicable */
    script t = {.bad_at = 3, .what = HUGE_SCORE};
    pgrad_reward *other = make_reward(w.context, "other", &t);
    OK(pgrad_reward_combine(w.context, (pgrad_reward *const[]){reward, other}, (const double[]){1e300, -1e300}, 2,
                            &sum));
    FAILS(PGRAD_E_NUMERIC, "'huge', sequence 3: 3e+38 times its weight 1e+300", pgrad_reward_apply(sum, rollout));
    has_no_rewards(rollout);
    pgrad_reward_free(sum);
    pgrad_reward_free(other);
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(rw07_callbacks_that_meddle)
{
    world w = begin_world(LLAMA_CONFIG);
    script s = {.bad_at = UINT32_MAX, .what = MEDDLE, .rollout = make_scored(&w)};
    pgrad_reward *reward = make_reward(w.context, "meddler", &s);
    OK(pgrad_reward_apply(reward, s.rollout));
    ck_assert(info_of(s.rollout, 0).reward == 2.0);
    s.what = DROP; /* the host's references go inside the callback */
    OK(pgrad_reward_apply(reward, s.rollout));
    ck_assert_uint_eq(s.destroyed, 1);
    end_world(&w);
}
END_TEST

/* RW11: the callback's rounding mode is not ours. */
START_TEST(rw11_rounding_mode)
{
    world w = begin_world(LLAMA_CONFIG);
    script s = {.bad_at = UINT32_MAX}, tenth = {.bad_at = UINT32_MAX};
    pgrad_rollout *rollout = make_scored(&w);
    pgrad_reward *reward = make_reward(w.context, "a", &s), *other = make_reward(w.context, "b", &tenth);
    pgrad_reward *sum = NULL;
    double wanted[4];
    OK(pgrad_reward_combine(w.context, (pgrad_reward *const[]){reward, other}, (const double[]){0.1, 0.7}, 2,
                            &sum));
    OK(pgrad_reward_apply(sum, rollout));
    for (uint32_t i = 0; i < 4; i++)
        wanted[i] = info_of(rollout, i).reward;
    s.what = ROUND;
    OK(pgrad_reward_apply(sum, rollout));
    ck_assert_int_eq(fegetround(), FE_TONEAREST); /* the host's own, as before the call */
    for (uint32_t i = 0; i < 4; i++)
        ck_assert(info_of(rollout, i).reward == wanted[i]);
    pgrad_reward_free(reward);
    pgrad_reward_free(other);
    pgrad_reward_free(sum);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(unfinished_completions_are_not_shown)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = UINT32_MAX};
    pgrad_reward *reward = make_reward(w.context, "length", &s);
    rollout->sequences[1].finish = PGRAD_FINISH_NONE; /* as a stopped generate leaves it */
    OK(pgrad_reward_apply(reward, rollout));
    ck_assert_uint_eq(s.calls, 2); /* 0, and 2 to 3 */
    ck_assert(isnan(info_of(rollout, 1).reward));
    ck_assert(info_of(rollout, 3).reward == 6.0);
    for (uint32_t i = 0; i < 4; i++)
        rollout->sequences[i].finish = PGRAD_FINISH_NONE;
    FAILS(PGRAD_E_STATE, "no finished", pgrad_reward_apply(reward, rollout));
    pgrad_rollout_clear(rollout);
    FAILS(PGRAD_E_STATE, "no finished", pgrad_reward_apply(reward, rollout));
    FAILS(PGRAD_E_INVALID, "reward is NULL", pgrad_reward_apply(NULL, rollout));
    FAILS(PGRAD_E_INVALID, "rollout is NULL", pgrad_reward_apply(reward, NULL));
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(a_key_set_twice_has_the_later_text)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_rollout(&w, 2, 2, 8, 0);
    size_t length;
    (void)add_text_prompt(rollout, "p", NULL);
    (void)add_text_prompt(rollout, "q", NULL);
    OK(pgrad_rollout_set_data(rollout, 0, "answer", "old", 3));
    OK(pgrad_rollout_set_data(rollout, 1, "answer", "another", 7));
    OK(pgrad_rollout_set_data(rollout, 0, "answer", "newer", 5));
    ck_assert_str_eq(pgrad_rollout_data(rollout, 0, "answer", &length), "newer");
    ck_assert_uint_eq(length, 5);
    ck_assert_str_eq(pgrad_rollout_data(rollout, 1, "answer", NULL), "another");
    ck_assert_ptr_null(pgrad_rollout_data(rollout, 0, "question", NULL));
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* The mean |LOGPROBS - LOGPROBS_SAMPLED|: small where only the model's rows without a token are cut away. */
START_TEST(the_report_tells_how_far_the_sampler_is)
{
    world w = begin_world(LLAMA_CONFIG);
    for (uint32_t top_k = 0; top_k <= 3; top_k += 3) {
        pgrad_sampler_params params = sampler_defaults();
        params.top_k = top_k;
        pgrad_sampler *sampler = make_sampler(w.context, &params);
        pgrad_rollout *rollout = make_rollout(&w, 4, 1, 8, 0);
        pgrad_step_report report;
        double sum = 0.0, tokens = 0.0;
        (void)add_text_prompt(rollout, "p", NULL);
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        for (uint32_t i = 0; i < 4; i++) {
            size_t n;
            const float *l = pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, &n);
            const float *q = pgrad_rollout_array(rollout, PGRAD_LOGPROBS_SAMPLED, i, NULL);
            for (size_t t = 0; t < n; t++)
                sum += fabs((double)l[t] - (double)q[t]);
            tokens += (double)n;
        }
        pgrad_step_report_init(&report, sizeof report);
        OK(pgrad_rollout_report(rollout, &report));
        ck_assert_double_eq_tol(report.sampling_mismatch, sum / tokens, 1e-12);
        if (top_k == 0)
            ck_assert_double_lt(report.sampling_mismatch, 0.1);
        else
            ck_assert_double_gt(report.sampling_mismatch, 1.0);
        pgrad_rollout_free(rollout);
        pgrad_sampler_free(sampler);
    }
    end_world(&w);
}
END_TEST

/* Rewards are of the rollout as it was: a completion more, added or sampled, and nothing of them is reported. */
START_TEST(another_completion_drops_the_rewards)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_rollout(&w, 4, 2, 8, 0);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    script s = {.bad_at = UINT32_MAX, .what = TOKENS};
    pgrad_reward *reward = make_reward(w.context, "tokens", &s);
    const pgrad_token ids[2] = {'a', 'b'};
    const float one = 1.0f;
    (void)add_text_prompt(rollout, "p", NULL);
    OK(pgrad_rollout_add_sequence(rollout, 0, ids, 2, NULL));
    for (int how = 0; how < 2; how++) {
        pgrad_step_report report;
        s.what = how == 0 ? TOKENS : LENGTH_SCORE;
        OK(pgrad_reward_apply(reward, rollout));
        if (how == 0) {
            OK(pgrad_rollout_add_sequence(rollout, 0, ids, 1, NULL));
        } else {
            (void)add_text_prompt(rollout, "q", NULL);
            OK(pgrad_rollout_generate(rollout, sampler, NULL));
        }
        has_no_rewards(rollout);
        ck_assert_int_eq(rollout->has_token_rewards, 0);
        for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++)
            OK(pgrad_rollout_set_array(rollout, PGRAD_REWARDS, i, &one, 1));
        pgrad_step_report_init(&report, sizeof report);
        OK(pgrad_rollout_report(rollout, &report));
        ck_assert(report.reward == 1.0 && report.n_unscored == 0.0);
        ck_assert_uint_eq(report.n_named, 0);
    }
    pgrad_rollout_clear(rollout); /* what the host sets stays with its sequence */
    (void)add_text_prompt(rollout, "p", NULL);
    for (uint32_t i = 0; i < 3; i++) {
        const float values[2] = {1.0f, (float)i};
        OK(pgrad_rollout_add_sequence(rollout, 0, ids, 2, NULL));
        OK(pgrad_rollout_set_array(rollout, PGRAD_REWARDS, i, values, i == 2 ? 1 : 2));
    }
    ck_assert(info_of(rollout, 0).reward == 1.0 && info_of(rollout, 1).reward == 2.0);
    ck_assert_int_eq(rollout->has_token_rewards, 1);
    pgrad_reward_free(reward);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(bad_arguments)
{
    world w = begin_world(LLAMA_CONFIG);
    script s = {.bad_at = UINT32_MAX};
    pgrad_reward *none = NULL, *rewards[17], *one = make_reward(w.context, "one", &s);
    const char longest[] = "1234567890123456789012345678901234567890", longer[] =
        "12345678901234567890123456789012345678901";
    double weights[17];
    FAILS(PGRAD_E_INVALID, "fn", pgrad_reward_create(w.context, "x", NULL, &s, destroy, &none));
    FAILS(PGRAD_E_INVALID, "name", pgrad_reward_create(w.context, NULL, score, &s, destroy, &none));
    FAILS(PGRAD_E_INVALID, "name", pgrad_reward_create(w.context, "", score, &s, destroy, &none));
    FAILS(PGRAD_E_INVALID, "found 41", pgrad_reward_create(w.context, longer, score, &s, destroy, &none));
    FAILS(PGRAD_E_INVALID, "context", pgrad_reward_create(NULL, "x", score, &s, destroy, &none));
    FAILS(PGRAD_E_INVALID, "NULL", pgrad_reward_combine(w.context, NULL, weights, 1, &none));
    FAILS(PGRAD_E_INVALID, "n is 0", pgrad_reward_combine(w.context, &one, weights, 0, &none));
    weights[0] = NAN;
    FAILS(PGRAD_E_INVALID, "weights[0]", pgrad_reward_combine(w.context, &one, weights, 1, &none));
    weights[0] = weights[1] = 1.0;
    FAILS(PGRAD_E_INVALID, "named 'one'",
          pgrad_reward_combine(w.context, (pgrad_reward *const[]){one, one}, weights, 2, &none));
    FAILS(PGRAD_E_INVALID, "rewards[1]",
          pgrad_reward_combine(w.context, (pgrad_reward *const[]){one, NULL}, weights, 2, &none));
    ck_assert_ptr_null(none);
    ck_assert_uint_eq(s.destroyed, 0);
    for (uint32_t i = 0; i < 17; i++) {
        char name[8];
        snprintf(name, sizeof name, "r%u", i);
        OK(pgrad_reward_create(w.context, name, score, &s, NULL, &rewards[i]));
        weights[i] = 1.0;
    }
    FAILS(PGRAD_E_LIMIT, "16", pgrad_reward_combine(w.context, rewards, weights, 17, &none));
    OK(pgrad_reward_combine(w.context, rewards, weights, 16, &none));
    pgrad_reward_free(none);
    for (uint32_t i = 0; i < 17; i++)
        pgrad_reward_free(rewards[i]);
    OK(pgrad_reward_create(w.context, longest, score, &s, NULL, &none));
    pgrad_reward_free(none);
    pgrad_reward_free(one);
    pgrad_reward_free(NULL);
    end_world(&w);
}
END_TEST

/* From the rewards to the new weights, by a step of its own and inside the backward pass. */
START_TEST(the_rest_of_a_step_allocates_once)
{
    const int inside = _i;
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = UINT32_MAX, .what = TOKENS};
    pgrad_reward *reward = make_reward(w.context, "tokens", &s);
    pgrad_advantage *advantage = NULL;
    pgrad_objective *objective = NULL;
    pgrad_optimizer *optimizer = NULL;
    uint64_t by_step[4];
    OK(pgrad_advantage_create(w.context, NULL, &advantage));
    OK(pgrad_objective_create(w.model, NULL, &objective));
    pgrad_optimizer_params unclipped;
    pgrad_backward_params backward;
    pgrad_optimizer_params_init(&unclipped, sizeof unclipped);
    unclipped.max_grad_norm = INFINITY;
    OK(pgrad_optimizer_create(w.model, &unclipped, &optimizer));
    pgrad_backward_params_init(&backward, sizeof backward);
    backward.optimizer = inside ? optimizer : NULL;
    for (int step = 0; step < 4; step++) {
        pgrad_step_report report;
        pgrad_step_report_init(&report, sizeof report);
        OK(pgrad_rollout_score(rollout, w.model, PGRAD_OLD));
        OK(pgrad_reward_apply(reward, rollout));
        OK(pgrad_advantage_apply(advantage, rollout));
        OK(pgrad_model_zero_grad(w.model));
        OK(pgrad_objective_backward(objective, rollout, NULL, 0, &backward, &report));
        if (!inside)
            OK(pgrad_optimizer_step(optimizer, &report));
        OK(pgrad_rollout_report(rollout, &report));
        by_step[step] = allocations(w.context);
    }
    for (int step = 1; step < 4; step++)
        ck_assert_uint_eq(by_step[step], by_step[0]);
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_advantage_free(advantage);
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(what_a_callback_keeps_outlives_its_owner)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = UINT32_MAX, .what = KEEP};
    pgrad_reward *reward = make_reward(w.context, "length", &s);
    OK(pgrad_reward_apply(reward, rollout));
    const float *values = pgrad_rollout_array(rollout, PGRAD_REWARDS, 3, NULL);
    const pgrad_token *ids = pgrad_rollout_tokens(rollout, 3, NULL);
    pgrad_rollout_free(rollout);
    ck_assert_ptr_eq(s.rollout, rollout);
    ck_assert(at(s.rollout, 3, 5) == 6.0f);
    pgrad_rollout_clear(s.rollout); /* what was given out is still memory of the rollout's */
    ck_assert(values[5] == 6.0f && ids[5] == 'm');
    (void)add_text_prompt(s.rollout, "p", NULL);
    const pgrad_token other[] = {'x', 'y'};
    for (int i = 0; i < 2; i++)
        OK(pgrad_rollout_add_sequence(s.rollout, 0, other, 2, NULL));
    (void)add_text_prompt(s.rollout, "q", NULL);
    for (int i = 0; i < 2; i++)
        OK(pgrad_rollout_add_sequence(s.rollout, 1, other, 2, NULL));
    ck_assert_ptr_eq(pgrad_rollout_tokens(s.rollout, 3, NULL), ids);
    ck_assert(ids[1] == 'y');
    pgrad_rollout_free(s.rollout);
    ck_assert_ptr_null(pgrad_rollout_retain(NULL));
    pgrad_reward_free(reward);
    end_world(&w);
}
END_TEST

START_TEST(applying_again_allocates_nothing)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_rollout *rollout = make_scored(&w);
    script s = {.bad_at = UINT32_MAX, .what = TOKENS};
    pgrad_reward *reward = make_reward(w.context, "tokens", &s);
    OK(pgrad_reward_apply(reward, rollout));
    const uint64_t before = allocations(w.context);
    OK(pgrad_reward_apply(reward, rollout));
    ck_assert_uint_eq(allocations(w.context), before);
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("reward");
    TCase *tcase = tcase_create("reward");
    tcase_set_timeout(tcase, 60);
    tcase_add_test(tcase, a_score_stands_on_the_last_token);
    tcase_add_test(tcase, sums_are_weighted_and_reported_by_name);
    tcase_add_test(tcase, the_report_is_of_what_was_scored);
    tcase_add_test(tcase, rw03_not_applicable);
    tcase_add_test(tcase, rw01_rw06_failures);
    tcase_add_test(tcase, no_memory_for_token_scores);
    tcase_add_test(tcase, rw02_large_scores);
    tcase_add_test(tcase, rw07_callbacks_that_meddle);
    tcase_add_test(tcase, rw11_rounding_mode);
    tcase_add_test(tcase, unfinished_completions_are_not_shown);
    tcase_add_test(tcase, a_key_set_twice_has_the_later_text);
    tcase_add_test(tcase, the_report_tells_how_far_the_sampler_is);
    tcase_add_test(tcase, another_completion_drops_the_rewards);
    tcase_add_test(tcase, bad_arguments);
    tcase_add_test(tcase, what_a_callback_keeps_outlives_its_owner);
    tcase_add_test(tcase, applying_again_allocates_nothing);
    tcase_add_loop_test(tcase, the_rest_of_a_step_allocates_once, 0, 2);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
