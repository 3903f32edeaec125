/* What a run obeys and tells beside its steps: evaluation, target, reference, order of prompts, refusals between good
 * steps, saves at the host's stop. */
#include <check.h>
#include <math.h>
#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../suite.h"

static const char CONFIG[] = "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":32,\"n_embd\":16,\"n_layer\":2,"
                             "\"n_head\":2,\"activation_function\":\"gelu_new\",\"eos_token_id\":23}";

#define OK(call) ck_assert_msg((call) == PGRAD_OK, "%s", pgrad_error_message())

enum { MOST = 70, PROMPTS = 6 };
static pgrad_token ids[MOST][3];
static const pgrad_token *pointers[MOST];
static size_t lengths[MOST];

static pgrad_prompts make_prompts(size_t n)
{
    pgrad_prompts prompts;
    for (size_t i = 0; i < MOST; i++) {
        for (size_t k = 0; k < 3; k++)
            ids[i][k] = (pgrad_token)((5 * i + 7 * k + i / 24) % 22);
        pointers[i] = ids[i];
        lengths[i] = 3;
    }
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = n;
    prompts.ids = pointers;
    prompts.n_ids = lengths;
    return prompts;
}

typedef struct setting {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_reward *reward;
    pgrad_optimizer *optimizer;
    pgrad_train_params params;
    size_t scored;          /* completions */
    uint32_t longest;       /* of them, tokens */
    const double *scripted; /* rewards by step; NULL: the share of low ids */
    size_t steps;           /* reports so far */
    double kl[8];           /* by step */
    uint32_t stop_at;       /* reports; 0: never */
    uint32_t slow;          /* microseconds that the first call of the reward takes */
    pgrad_token firsts[8][PROMPTS]; /* of the prompts by step and group */
} setting;

static int32_t score(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count, pgrad_scores *scores)
{
    setting *s = user;
    if (s->scored == 0 && s->slow > 0)
        usleep(s->slow);
    for (uint32_t i = 0; i < count; i++) {
        size_t n, low = 0;
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, first + i, &n);
        for (size_t t = 0; t < n; t++)
            low += tokens[t] < 11;
        pgrad_scores_data(scores)[i] =
            (float)(s->scripted != NULL ? s->scripted[s->steps] : (double)low / (double)n);
        s->longest = n > s->longest ? (uint32_t)n : s->longest;
        s->scored++;
    }
    return (int32_t)count;
}

static int32_t on_report(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    setting *s = user;
    if (s->steps < 8) {
        s->kl[s->steps] = report->kl;
        for (uint32_t group = 0; group < pgrad_rollout_count_groups(rollout) && group < PROMPTS; group++) {
            size_t n;
            s->firsts[s->steps][group] = pgrad_rollout_prompt(rollout, group, &n)[0];
        }
    }
    s->steps++;
    if (s->optimizer != NULL) /* two refused, one good */
        OK(pgrad_optimizer_set_lr(s->optimizer, s->steps % 3 == 2 ? 1e-3 : 1e300));
    return s->stop_at == 0 || s->steps < s->stop_at;
}

static void begin(setting *s)
{
    *s = (setting){.scored = 0};
    OK(pgrad_context_create(NULL, &s->context));
    OK(pgrad_model_create(s->context, CONFIG, 5, NULL, &s->model));
    OK(pgrad_reward_create(s->context, "low", score, s, NULL, &s->reward));
    pgrad_train_params_init(&s->params, sizeof s->params);
    s->params.steps = 4;
    s->params.prompts_per_step = 3;
    s->params.group_size = 4;
    s->params.max_new_tokens = 6;
    s->params.learning_rate = 1e-2;
    s->params.report = on_report;
    s->params.report_user = s;
}

static void end(setting *s)
{
    pgrad_optimizer_free(s->optimizer);
    pgrad_reward_free(s->reward);
    pgrad_model_free(s->model);
    pgrad_context_free(s->context);
}

static pgrad_train_report run(setting *s, pgrad_status expected)
{
    pgrad_prompts prompts = make_prompts(PROMPTS);
    pgrad_train_report report = {.struct_size = sizeof report};
    pgrad_status status = pgrad_train(s->model, NULL, s->reward, &prompts, &s->params, &report);
    ck_assert_msg(status == expected, "%s: %s", pgrad_status_name(status), pgrad_error_message());
    return report;
}

static pgrad_sampler *short_sampler(setting *s, double temperature)
{
    static const pgrad_token forbidden[2] = {3, 17};
    pgrad_sampler_params params;
    pgrad_sampler *sampler;
    pgrad_sampler_params_init(&params, sizeof params);
    params.temperature = temperature;
    params.max_new_tokens = 2;
    params.ignore_eos = 1;
    params.forbidden_tokens = forbidden;
    params.n_forbidden_tokens = 2;
    OK(pgrad_sampler_create(s->context, &params, &sampler));
    return sampler;
}

/* The mean reward of greedy completions, a rollout of all prompts. */
static double greedy_mean(setting *s)
{
    pgrad_sampler *sampler = short_sampler(s, 0.0);
    pgrad_rollout_params params;
    pgrad_rollout *rollout;
    double sum = 0.0;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = 1;
    params.max_prompts = MOST;
    params.max_prompt_tokens = 3;
    params.max_new_tokens = 6;
    OK(pgrad_rollout_create(s->model, NULL, &params, &rollout));
    for (size_t i = 0; i < MOST; i++)
        OK(pgrad_rollout_add_prompt(rollout, ids[i], 3, NULL, NULL));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    OK(pgrad_reward_apply(s->reward, rollout));
    for (uint32_t i = 0; i < MOST; i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        OK(pgrad_rollout_sequence(rollout, i, &info));
        sum += info.reward;
    }
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    return sum / MOST;
}

START_TEST(evaluation_is_the_runs_task_made_greedy)
{
    setting s;
    begin(&s);
    pgrad_prompts held_out = make_prompts(MOST);
    const double before = greedy_mean(&s);
    s.params.eval_prompts = &held_out;
    s.params.sampler = short_sampler(&s, 1.0);
    s.longest = 0;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_double_eq_tol(report.eval_before, before, 1e-12);
    ck_assert_double_eq_tol(report.eval_after, greedy_mean(&s), 1e-12);
    ck_assert(before > 0.02 && before < 0.98); /* another mean would be another number */
    ck_assert_uint_eq(s.longest, 2);
    pgrad_sampler_free(s.params.sampler);
    end(&s);
}
END_TEST

START_TEST(the_same_weights_are_evaluated_once)
{
    setting s;
    begin(&s);
    pgrad_prompts held_out = make_prompts(5);
    s.params.eval_prompts = &held_out;
    s.params.eval_every = 2;
    (void)run(&s, PGRAD_OK);
    ck_assert_uint_eq(s.scored, 4 * 3 * 4 + 3 * 5); /* at 0, 2 and 4 */
    end(&s);
}
END_TEST

/* After the first evaluation 0.3 of the second are left; the closing one takes 0.7: no step fits between. */
START_TEST(time_is_kept_back_for_the_closing_evaluation)
{
    setting s;
    begin(&s);
    pgrad_prompts held_out = make_prompts(5);
    s.params.eval_prompts = &held_out;
    s.params.max_seconds = 1.0;
    s.slow = 700000;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps, 0);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_SECONDS);
    ck_assert_uint_eq(s.scored, 5);
    end(&s);
}
END_TEST

START_TEST(the_target_is_of_the_window)
{
    static const double REWARDS[] = {1, 0, 0.4, 0.2, 0.8, 0.9, 1, 1, 1, 1};
    setting s;
    begin(&s);
    s.scripted = REWARDS;
    s.params.steps = 10;
    s.params.target_reward = 0.6;
    s.params.target_window = 3;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_TARGET);
    ck_assert_uint_eq(report.steps, 6); /* 0.2, 0.8, 0.9 */
    end(&s);
}
END_TEST

START_TEST(kl_is_to_the_reference)
{
    setting s;
    pgrad_objective_params params;
    begin(&s);
    OK(pgrad_model_snapshot(s.model, &s.params.reference));
    pgrad_objective_params_init(&params, sizeof params);
    params.kl_beta = 0.01;
    OK(pgrad_objective_create(s.model, &params, &s.params.objective));
    (void)run(&s, PGRAD_OK);
    ck_assert_double_eq_tol(s.kl[0], 0.0, 1e-9);
    for (int i = 1; i < 4; i++)
        ck_assert_double_gt(s.kl[i], 1e-6);
    pgrad_objective_free(s.params.objective);
    pgrad_model_free(s.params.reference);
    end(&s);
}
END_TEST

static int ascending(const void *a, const void *b)
{
    return *(const pgrad_token *)a - *(const pgrad_token *)b;
}

START_TEST(every_epoch_has_all_prompts_in_an_order_of_its_own)
{
    setting s;
    int alike = 0;
    begin(&s);
    s.params.steps = 6;
    s.params.prompts_per_step = PROMPTS;
    s.params.group_size = 2;
    (void)run(&s, PGRAD_OK);
    for (int epoch = 1; epoch < 6; epoch++)
        alike += memcmp(s.firsts[epoch], s.firsts[0], sizeof s.firsts[0]) == 0;
    ck_assert_int_lt(alike, 2);
    for (int epoch = 0; epoch < 6; epoch++) {
        pgrad_token expected[PROMPTS];
        for (int i = 0; i < PROMPTS; i++)
            expected[i] = ids[i][0];
        qsort(expected, PROMPTS, sizeof expected[0], ascending);
        qsort(s.firsts[epoch], PROMPTS, sizeof expected[0], ascending);
        ck_assert_mem_eq(s.firsts[epoch], expected, sizeof expected);
    }
    end(&s);
}
END_TEST

START_TEST(refusals_count_in_a_row)
{
    setting s;
    pgrad_optimizer_params params;
    begin(&s);
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 1e300; /* beyond f32: refused */
    OK(pgrad_optimizer_create(s.model, &params, &s.optimizer));
    s.params.optimizer = s.optimizer;
    s.params.steps = 2;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps, 2);
    ck_assert_uint_eq(report.n_skipped, 4);
    end(&s);
}
END_TEST

START_TEST(a_run_that_the_host_ends_is_saved)
{
    setting s;
    char folder[] = "/tmp/policygrad-run-XXXXXX", path[64], command[80];
    pgrad_model *again;
    begin(&s);
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/model", folder);
    s.params.save_path = path;
    s.stop_at = 2;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_HOST);
    ck_assert_uint_eq(report.steps, 2);
    OK(pgrad_model_load(s.context, path, NULL, &again));
    pgrad_model_info info = {.struct_size = sizeof info};
    OK(pgrad_model_get_info(s.model, &info));
    for (uint32_t i = 0; i < info.n_tensors; i++) {
        static float trained[24 * 64], saved[24 * 64];
        size_t n, n_saved;
        const char *name = pgrad_model_tensor_name(s.model, i, NULL, NULL);
        OK(pgrad_model_tensor_read(s.model, name, trained, 24 * 64, &n));
        OK(pgrad_model_tensor_read(again, name, saved, 24 * 64, &n_saved));
        ck_assert_uint_eq(n, n_saved);
        ck_assert_mem_eq(trained, saved, n * sizeof(float));
    }
    pgrad_model_free(again);
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
    end(&s);
}
END_TEST

static int32_t score_nothing(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                             pgrad_scores *scores)
{
    (void)user, (void)rollout, (void)first;
    for (uint32_t i = 0; i < count; i++)
        pgrad_scores_skip(scores, i);
    return (int32_t)count;
}

static void on_log(void *user, int32_t level, const char *line)
{
    char *said = user;
    ck_assert_int_le(level, PGRAD_LOG_WARNING);
    strncat(said, line, 4000 - strlen(said));
}

START_TEST(what_has_no_effect_is_warned_of)
{
    static char said[4096];
    setting s;
    begin(&s);
    OK(pgrad_context_set_log(s.context, on_log, said, PGRAD_LOG_WARNING));
    (void)run(&s, PGRAD_OK);
    ck_assert_str_eq(said, "");
    pgrad_reward_free(s.reward);
    OK(pgrad_reward_create(s.context, "silent", score_nothing, NULL, NULL, &s.reward));
    OK(pgrad_model_snapshot(s.model, &s.params.reference));
    s.params.steps = 1;
    (void)run(&s, PGRAD_OK);
    ck_assert_ptr_nonnull(strstr(said, "train.reference: neither objective nor advantage has a kl_beta"));
    ck_assert_ptr_nonnull(strstr(said, "reward 'silent' applies to none of the step's 12 completions"));
    pgrad_model_free(s.params.reference);
    end(&s);
}
END_TEST

START_TEST(a_save_path_is_tried_first)
{
    setting s;
    begin(&s);
    char metrics[] = "/tmp/policygrad-run-XXXXXX";
    const int descriptor = mkstemp(metrics);
    ck_assert_int_ge(descriptor, 0);
    close(descriptor);
    unlink(metrics);
    s.params.save_path = "/nonexistent/x/y";
    s.params.metrics_path = metrics;
    pgrad_train_report report = run(&s, PGRAD_E_IO);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "/nonexistent/x"));
    ck_assert_uint_eq(report.steps, 0);
    ck_assert_uint_eq(s.scored, 0);
    ck_assert_int_ne(access(metrics, F_OK), 0); /* nothing was left */
    end(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("run");
    TCase *cases = tcase_create("run");
    tcase_add_test(cases, evaluation_is_the_runs_task_made_greedy);
    tcase_add_test(cases, the_same_weights_are_evaluated_once);
    tcase_add_test(cases, time_is_kept_back_for_the_closing_evaluation);
    tcase_add_test(cases, the_target_is_of_the_window);
    tcase_add_test(cases, kl_is_to_the_reference);
    tcase_add_test(cases, every_epoch_has_all_prompts_in_an_order_of_its_own);
    tcase_add_test(cases, refusals_count_in_a_row);
    tcase_add_test(cases, a_run_that_the_host_ends_is_saved);
    tcase_add_test(cases, what_has_no_effect_is_warned_of);
    tcase_add_test(cases, a_save_path_is_tried_first);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
