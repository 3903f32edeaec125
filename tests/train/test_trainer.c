/* pgrad_train around the step: stops, reports, metrics file, saves, evaluation, refusals; two runs
 * alike. */
#include <check.h>
#include <fenv.h>
#include <math.h>
#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "model/model.h"

static const char CONFIG[] = "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":32,\"n_"
                             "embd\":16,\"n_layer\":2,\"n_head\":2,"
                             "\"activation_function\":\"gelu_new\",\"eos_token_id\":23}";

static const char LLAMA[] =
    "{\"model_type\":\"llama\",\"vocab_size\":24,\"hidden_size\":16,\"intermediate_size\":24,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"max_position_embeddings\":32,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,"
    "\"eos_token_id\":23}";

enum { PROMPTS = 6 };
static pgrad_token ids[PROMPTS][3];
static const pgrad_token *pointers[PROMPTS];
static size_t lengths[PROMPTS];

static pgrad_prompts make_prompts(size_t n)
{
    pgrad_prompts prompts;
    for (int i = 0; i < PROMPTS; i++) {
        for (int k = 0; k < 3; k++)
            ids[i][k] = (pgrad_token)((5 * i + k) % 22);
        pointers[i] = ids[i];
        lengths[i] = 1 + (size_t)i % 3;
    }
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = n;
    prompts.ids = pointers;
    prompts.n_ids = lengths;
    return prompts;
}

static size_t n_scored; /* calls of the reward function */

static int32_t low_ids(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                       pgrad_scores *scores)
{
    (void)user;
    n_scored++;
    for (uint32_t i = 0; i < count; i++) {
        size_t n;
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, first + i, &n);
        double low = 0.0;
        for (size_t t = 0; t < n; t++)
            low += tokens[t] < 11 ? 1.0 : 0.0;
        pgrad_scores_data(scores)[i] = (float)(low / (double)n);
    }
    return (int32_t)count;
}

typedef struct setting {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_reward *reward;
    pgrad_train_params params;
} setting;

static setting make(uint32_t n_threads)
{
    setting s;
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = n_threads;
    ck_assert_int_eq(pgrad_context_create(&params, &s.context), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_create(s.context, CONFIG, 5, NULL, &s.model), PGRAD_OK);
    ck_assert_int_eq(pgrad_reward_create(s.context, "low", low_ids, NULL, NULL, &s.reward),
                     PGRAD_OK);
    pgrad_train_params_init(&s.params, sizeof s.params);
    s.params.steps = 4;
    s.params.prompts_per_step = 3;
    s.params.group_size = 4;
    s.params.max_new_tokens = 6;
    s.params.learning_rate = 1e-3;
    return s;
}

static void drop(setting *s)
{
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

/* What reports of the steps said. */
typedef struct steps {
    double micro_batch_tokens, recompute, n_micro_batches;
} steps;

static int32_t remember(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    steps *said = user;
    (void)rollout;
    said->micro_batch_tokens = report->micro_batch_tokens;
    said->recompute = report->recompute;
    said->n_micro_batches = report->n_micro_batches;
    return 1;
}

static const char WIDE[] = "{\"model_type\":\"gpt2\",\"vocab_size\":300,\"n_positions\":256,\"n_embd\":64,"
                           "\"n_layer\":6,\"n_head\":4,\"activation_function\":\"gelu_new\"}";

static setting make_wide(uint32_t n_threads, uint64_t memory_limit)
{
    setting s;
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = n_threads;
    params.memory_limit = memory_limit;
    ck_assert_int_eq(pgrad_context_create(&params, &s.context), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_create(s.context, WIDE, 5, NULL, &s.model), PGRAD_OK);
    ck_assert_int_eq(pgrad_reward_create(s.context, "low", low_ids, NULL, NULL, &s.reward), PGRAD_OK);
    pgrad_train_params_init(&s.params, sizeof s.params);
    ck_assert_uint_eq(s.params.recompute, PGRAD_RECOMPUTE_AUTO);
    s.params.steps = 2;
    s.params.prompts_per_step = 3;
    s.params.group_size = 8;
    s.params.max_new_tokens = 60;
    return s;
}

static uint64_t peak(const setting *s)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(pgrad_context_get_info(s->context, &info), PGRAD_OK);
    return info.memory_peak;
}

static const char *last_plan;
static char plan_line[512];

static void keep_plan(void *user, int32_t level, const char *line)
{
    (void)user;
    if (level == PGRAD_LOG_INFO && strstr(line, "are planned") != NULL)
        last_plan = strcpy(plan_line, line);
}

/* A limit below what the defaults take: smaller micro-batches or recomputed layers, told in report and log; the
 * same bits whatever the threads; evaluation counts; the host's objective is as it was afterwards. */
START_TEST(a_memory_limit_plans_the_run)
{
    steps plain, said[2];
    float weights[2][64];
    size_t n;
    setting s = make_wide(2, 0);
    pgrad_prompts held_out = make_prompts(PROMPTS);
    s.params.report = remember;
    s.params.report_user = &plain;
    s.params.eval_prompts = &held_out;
    const pgrad_train_report whole = run(&s, PGRAD_OK);
    ck_assert_double_eq_tol((double)whole.memory_planned / (double)peak(&s), 1.0, 0.05);
    ck_assert_double_eq(plain.micro_batch_tokens, 2048.0);
    ck_assert_double_eq(plain.recompute, 0.0);
    drop(&s);
    const uint64_t limit = whole.memory_planned * 8 / 10;
    for (uint32_t i = 0; i < 2; i++) {
        s = make_wide(i == 0 ? 1 : 3, limit);
        pgrad_objective *objective = NULL;
        ck_assert_int_eq(pgrad_objective_create(s.model, NULL, &objective), PGRAD_OK);
        last_plan = NULL;
        pgrad_context_set_log(s.context, keep_plan, NULL, PGRAD_LOG_INFO);
        s.params.report = remember;
        s.params.report_user = &said[i];
        s.params.eval_prompts = &held_out;
        s.params.objective = i == 0 ? objective : NULL;
        const pgrad_train_report report = run(&s, PGRAD_OK);
        ck_assert_uint_le(report.memory_planned, limit);
        ck_assert_uint_le(peak(&s), limit);
        ck_assert_uint_lt(objective == NULL ? 0 : peak(&s), limit);
        ck_assert_ptr_nonnull(last_plan);
        ck_assert(said[i].n_micro_batches > plain.n_micro_batches || said[i].recompute == 1.0);
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", weights[i], 64, &n), PGRAD_OK);
        pgrad_objective_free(objective);
        drop(&s);
    }
    ck_assert_mem_eq(&said[0], &said[1], sizeof said[0]);
    ck_assert_mem_eq(weights[0], weights[1], sizeof weights[0]);
}
END_TEST

START_TEST(a_memory_limit_that_nothing_fits_under)
{
    setting s = make_wide(2, 0);
    const uint64_t planned = run(&s, PGRAD_OK).memory_planned;
    drop(&s);
    pgrad_prompts prompts = make_prompts(PROMPTS);
    pgrad_train_report refused = {.struct_size = sizeof refused};
    for (uint64_t percent = 60;; percent -= 3) { /* down to where the leanest plan is too large */
        s = make_wide(2, planned * percent / 100);
        s.params.steps = 1;
        if (pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &refused) == PGRAD_E_LIMIT)
            break;
        drop(&s);
    }
    ck_assert_uint_eq(refused.stopped, PGRAD_STOPPED_ERROR);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "memory_limit: "));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "optimizer.moments AUTO would fit"));
    s.params.moments = PGRAD_MOMENTS_AUTO;
    s.params.kv_storage = PGRAD_KV_AUTO;
    (void)run(&s, PGRAD_OK);
    drop(&s);
}
END_TEST

static int32_t stop_after_two(void *user, const pgrad_step_report *report,
                              const pgrad_rollout *rollout)
{
    (void)user;
    (void)rollout;
    return report->step < 2 ? 1 : 0;
}

START_TEST(stops)
{
    setting s = make(1);
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps, 4);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_STEPS);
    s.params.report = stop_after_two;
    report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps, 2);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_HOST);
    s.params.report = NULL;
    s.params.max_seconds = 0.0;
    report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps, 0);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_SECONDS);
    s.params.max_seconds = INFINITY;
    s.params.target_reward = 0.01;
    s.params.target_window = 1;
    report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps, 1);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_TARGET);
    drop(&s);
}
END_TEST

/* Lets the time of a run go by as soon as its rollout has begun. */
static int32_t dawdle(void *user, const char *what, uint64_t done, uint64_t total)
{
    const double *until = user;
    struct timespec at;
    (void)done;
    (void)total;
    do
        clock_gettime(CLOCK_MONOTONIC, &at);
    while (strcmp(what, "generate") == 0 && (double)at.tv_sec + 1e-9 * (double)at.tv_nsec < *until);
    return 1;
}

/* The step is as if it had not begun: weights, sampler, and no reward was asked for. */
START_TEST(the_time_ends_in_a_rollout)
{
    setting s = make(2);
    pgrad_sampler *sampler = NULL;
    pgrad_model_info before = {.struct_size = sizeof before}, after = before;
    struct timespec at;
    ck_assert_int_eq(pgrad_sampler_create(s.context, NULL, &sampler), PGRAD_OK);
    ck_assert_int_eq(pgrad_sampler_set_next_sequence(sampler, 70), PGRAD_OK);
    s.params.sampler = sampler;
    s.params.max_seconds = 0.4;
    clock_gettime(CLOCK_MONOTONIC, &at);
    double until = (double)at.tv_sec + 1e-9 * (double)at.tv_nsec + 0.5;
    ck_assert_int_eq(pgrad_context_set_progress(s.context, dawdle, &until), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_get_info(s.model, &before), PGRAD_OK);
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_int_eq(pgrad_model_get_info(s.model, &after), PGRAD_OK);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_SECONDS);
    ck_assert_uint_eq(report.steps, 0);
    ck_assert(isnan(report.first_reward));
    ck_assert_uint_eq(pgrad_sampler_next_sequence(sampler), 70);
    ck_assert_uint_eq(after.weight_version, before.weight_version);
    pgrad_sampler_free(sampler);
    drop(&s);
}
END_TEST

static int32_t see_prediction(void *user, const pgrad_step_report *report,
                              const pgrad_rollout *rollout)
{
    uint32_t *told = user;
    (void)rollout;
    ck_assert_int_eq(isnan(report->seconds_predicted) != 0, report->step <= 3);
    *told += !isnan(report->seconds_predicted) && report->seconds_predicted > 0.0;
    return 1;
}

START_TEST(steps_are_predicted_from_the_fourth_on)
{
    setting s = make(2);
    uint32_t told = 0;
    s.params.steps = 6;
    s.params.report = see_prediction;
    s.params.report_user = &told;
    (void)run(&s, PGRAD_OK);
    ck_assert_uint_eq(told, 3);
    drop(&s);
}
END_TEST

static char *read_all(const char *path, size_t *size)
{
    FILE *file = fopen(path, "r");
    ck_assert_ptr_nonnull(file);
    char *text = calloc(1, 1 << 20);
    *size = fread(text, 1, (1 << 20) - 1, file);
    fclose(file);
    return text;
}

/* Removes from a metrics file what may differ between two runs: times. */
static void drop_times(char *text)
{
    static const char *const KEYS[] = {"\"step_time\":", "\"step_time/generate\":",
                                       "\"step_time/train\":", "\"tokens_per_second\":",
                                       "\"step_time/predicted\":"};
    for (size_t k = 0; k < 5; k++)
        for (char *at = strstr(text, KEYS[k]); at != NULL; at = strstr(at + 1, KEYS[k])) {
            char *from = at + strlen(KEYS[k]), *end = from + strcspn(from, ",}");
            memmove(from, end, strlen(end) + 1);
        }
}

/* Two runs with one seed write identical files, whatever the threads; GPT-2 and Llama. */
START_TEST(two_runs_are_alike)
{
    char folder[] = "/tmp/pgrad-trainer-XXXXXX", command[128];
    char *metrics[2], *weights[2];
    size_t n_metrics[2], n_weights[2];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    for (int i = 0; i < 2; i++) {
        setting s = make(i == 0 ? 1 : 3);
        if (_i == 1) {
            pgrad_model_free(s.model);
            ck_assert_int_eq(pgrad_model_create(s.context, LLAMA, 5, NULL, &s.model), PGRAD_OK);
        }
        char metrics_path[96], save_path[96], weights_path[128];
        snprintf(metrics_path, sizeof metrics_path, "%s/metrics-%d", folder, i);
        snprintf(save_path, sizeof save_path, "%s/model-%d", folder, i);
        snprintf(weights_path, sizeof weights_path, "%s/model.safetensors", save_path);
        s.params.metrics_path = metrics_path;
        s.params.save_path = save_path;
        s.params.save_every = 2;
        (void)run(&s, PGRAD_OK);
        metrics[i] = read_all(metrics_path, &n_metrics[i]);
        weights[i] = read_all(weights_path, &n_weights[i]);
        drop_times(metrics[i]);
        drop(&s);
    }
    ck_assert_str_eq(metrics[0], metrics[1]);
    ck_assert_ptr_nonnull(strstr(metrics[0], "\"rewards/low/mean\":"));
    ck_assert_ptr_nonnull(strstr(metrics[0], "\"clip_ratio/low_mean\":0,"));
    ck_assert_uint_eq(n_weights[0], n_weights[1]);
    ck_assert_mem_eq(weights[0], weights[1], n_weights[0]);
    for (int i = 0; i < 2; i++) {
        free(metrics[i]);
        free(weights[i]);
    }
    snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

/* Evaluation has a sampler of its own: with it or without, training draws the same. */
START_TEST(evaluation_touches_nothing)
{
    double last[2];
    for (int i = 0; i < 2; i++) {
        setting s = make(2);
        pgrad_prompts held_out = make_prompts(2);
        if (i == 1) {
            s.params.eval_prompts = &held_out;
            s.params.eval_every = 1;
        }
        pgrad_train_report report = run(&s, PGRAD_OK);
        last[i] = report.last_reward;
        ck_assert(i == 0 ? isnan(report.eval_before) != 0 : isfinite(report.eval_before) != 0);
        ck_assert(i == 0 ? isnan(report.eval_after) != 0 : isfinite(report.eval_after) != 0);
        drop(&s);
    }
    ck_assert(last[0] == last[1]);
}
END_TEST

/* OP02: an update that is not finite is refused, the weights stay; three in a row end the run. */
START_TEST(three_refusals_end_the_run)
{
    setting s = make(1);
    float before[64], after[64];
    size_t n;
    s.params.learning_rate = 1e300; /* beyond f32 */
    s.params.steps = 10;
    ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", before, 64, &n),
                     PGRAD_OK);
    pgrad_train_report report = run(&s, PGRAD_E_NUMERIC);
    ck_assert_uint_eq(report.n_skipped, 3);
    ck_assert_uint_eq(report.steps, 0);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "3 steps in a row"));
    ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", after, 64, &n),
                     PGRAD_OK);
    ck_assert_mem_eq(before, after, n * sizeof *before);
    drop(&s);
}
END_TEST

/* OP06: more prompts a step than there are, and other runs that make no sense. */
START_TEST(bad_runs_are_refused)
{
    setting s = make(1);
    const size_t before = n_scored;
    pgrad_objective_params params;
    pgrad_objective *objective;
    s.params.prompts_per_step = PROMPTS + 1;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "prompts_per_step"));
    s.params.prompts_per_step = 2;
    pgrad_objective_params_init(&params, sizeof params);
    params.kl_beta = 0.1;
    ck_assert_int_eq(pgrad_objective_create(s.model, &params, &objective), PGRAD_OK);
    s.params.objective = objective;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "reference"));
    pgrad_objective_free(objective);
    s.params.objective = NULL;
    s.params.metrics_path = "/nonexistent/metrics";
    (void)run(&s, PGRAD_E_IO);
    s.params.metrics_path = NULL;
    static const char *const nowhere[] = {"/nonexistent/run.pgrad", ""};
    for (int k = 0; k < 2; k++) {
        s.params.checkpoint_path = nowhere[k];
        (void)run(&s, k == 0 ? PGRAD_E_IO : PGRAD_E_INVALID);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), k == 0 ? "/nonexistent/run.pgrad" : "train.checkpoint_path"));
    }
    s.params.checkpoint_path = NULL;
    s.params.save_path = "";
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.save_path"));
    s.params.save_path = NULL;
    s.params.group_size = 1;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "groups of at least 2"));
    s.params.group_size = 4;
    pgrad_sampler_params greedy;
    pgrad_sampler_params_init(&greedy, sizeof greedy);
    greedy.temperature = 0.0;
    ck_assert_int_eq(pgrad_sampler_create(s.context, &greedy, &s.params.sampler), PGRAD_OK);
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.sampler: expected a temperature above 0, found 0"));
    pgrad_sampler_free(s.params.sampler);
    ck_assert_uint_eq(n_scored, before); /* all that before anything is sampled */
    drop(&s);
}
END_TEST

/* Bad prompts are told before anything is sampled, by their index. */
START_TEST(bad_prompts_are_named)
{
    setting s = make(1);
    pgrad_train_report report = {.struct_size = sizeof report};
    static const char *const names[] = {"answer"};
    const char *const *columns[] = {NULL};
    const char *const texts[] = {"a"};
    pgrad_token many[64] = {0}, outside[2] = {1, 24};
    for (int k = 0; k < 13; k++) {
        static const char *const expected[] = {"prompts.n:",      "exactly one of", "exactly one of",
                                               "prompts.n_ids",   "needs a tokenizer", "prompts.ids[2] is NULL",
                                               "prompts.ids[1] is empty", "prompts.ids[1]: 64 tokens",
                                               "prompts.ids[3][1]: expected an id below 24, found 24",
                                               "prompts.columns[0] is NULL",
                                               "prompts.chat: needs texts, found ids",
                                               "prompts.chat: expected 0 or 1, found 7",
                                               "prompts.system: needs chat = 1"};
        pgrad_prompts prompts = make_prompts(PROMPTS);
        if (k == 0)
            prompts.n = 0;
        if (k == 1)
            prompts.ids = NULL;
        if (k == 2)
            prompts.texts = texts;
        if (k == 3)
            prompts.n_ids = NULL;
        if (k == 4) {
            prompts.ids = NULL;
            prompts.texts = texts;
        }
        if (k == 5)
            pointers[2] = NULL;
        if (k == 6)
            lengths[1] = 0;
        if (k == 7) {
            pointers[1] = many;
            lengths[1] = 64;
        }
        if (k == 8) {
            pointers[3] = outside;
            lengths[3] = 2;
        }
        if (k == 9) {
            prompts.n_columns = 1;
            prompts.column_names = names;
            prompts.columns = columns;
        }
        if (k == 10 || k == 11)
            prompts.chat = k == 10 ? 1 : 7;
        if (k == 12)
            prompts.system = "be brief";
        pgrad_status status = pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report);
        ck_assert_msg(status == PGRAD_E_INVALID || status == PGRAD_E_LIMIT, "%d: %d", k, status);
        ck_assert_msg(strstr(pgrad_error_message(), expected[k]) != NULL, "%d: %s", k, pgrad_error_message());
        ck_assert_uint_eq(report.steps, 0);
    }
    pgrad_prompts prompts = make_prompts(PROMPTS);
    lengths[1] = SIZE_MAX; /* never added up */
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_E_LIMIT);
    prompts = make_prompts(PROMPTS);
    prompts.struct_size = 8;
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_E_INVALID);
    prompts = make_prompts(PROMPTS);
    prompts.struct_size = offsetof(pgrad_prompts, chat); /* an older, shorter struct */
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_OK);
    pgrad_prompts held_out = make_prompts(2);
    lengths[1] = 0;
    s.params.eval_prompts = &held_out;
    prompts = make_prompts(PROMPTS);
    lengths[1] = 0;
    prompts.n = 1; /* the training prompt is fine, the held-out one is not */
    s.params.prompts_per_step = 1;
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "eval_prompts: prompts.ids[1] is empty"));
    drop(&s);
}
END_TEST

typedef struct observer {
    uint64_t steps[16];
    double eval[16];
    double ratio_max[16];
    uint32_t n;
    const char *model_file;
    int saved[16];
    setting *free_all; /* drop every handle at the first report */
    pgrad_sampler *sampler;
} observer;

static int32_t observe(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    observer *o = user;
    (void)rollout;
    o->steps[o->n] = report->step;
    o->eval[o->n] = report->eval_reward;
    o->ratio_max[o->n] = report->ratio_max;
    o->saved[o->n] = o->model_file != NULL && access(o->model_file, F_OK) == 0;
    o->n++;
    if (o->free_all != NULL) {
        pgrad_sampler_free(o->sampler);
        drop(o->free_all);
        o->free_all = NULL;
    }
    return 1;
}

/* Several updates a rollout: the limit holds, nothing that is due is missed, later ones are off policy. */
START_TEST(updates_are_counted_one_by_one)
{
    char folder[] = "/tmp/pgrad-trainer-XXXXXX", command[128], save_path[96], file[128];
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(save_path, sizeof save_path, "%s/model", folder);
    snprintf(file, sizeof file, "%s/model.safetensors", save_path);
    setting s = make(2);
    observer o = {.model_file = file};
    pgrad_prompts held_out = make_prompts(2);
    s.params.steps = 7;
    s.params.epochs_per_step = 3;
    s.params.learning_rate = 1e-2;
    s.params.save_path = save_path;
    s.params.save_every = 4;
    s.params.eval_prompts = &held_out;
    s.params.eval_every = 2;
    s.params.report = observe;
    s.params.report_user = &o;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps, 7);
    ck_assert_uint_eq(o.n, 3);
    ck_assert_uint_eq(o.steps[0], 3);
    ck_assert_uint_eq(o.steps[1], 6);
    ck_assert_uint_eq(o.steps[2], 7);
    ck_assert(!o.saved[0] && o.saved[1]);                      /* step 4 */
    ck_assert(isfinite(o.eval[0]) && isfinite(o.eval[1]));     /* steps 2, and 4 and 6 */
    ck_assert(isnan(o.eval[2]) && isfinite(report.eval_after)); /* none at 7; the end's own */
    ck_assert(o.ratio_max[0] != 1.0);
    drop(&s);
    snprintf(command, sizeof command, "rm -r %s", folder);
    ck_assert_int_eq(system(command), 0);
}
END_TEST

START_TEST(handles_of_another_model_are_refused)
{
    setting s = make(1), other = make(1);
    pgrad_optimizer *optimizer;
    pgrad_objective *objective;
    pgrad_sampler *sampler;
    ck_assert_int_eq(pgrad_optimizer_create(other.model, NULL, &optimizer), PGRAD_OK);
    ck_assert_int_eq(pgrad_objective_create(other.model, NULL, &objective), PGRAD_OK);
    ck_assert_int_eq(pgrad_sampler_create(other.context, NULL, &sampler), PGRAD_OK);
    s.params.optimizer = optimizer;
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.optimizer"));
    s.params.optimizer = NULL;
    s.params.objective = objective;
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.objective"));
    s.params.objective = NULL;
    s.params.sampler = sampler;
    (void)run(&s, PGRAD_E_MISMATCH);
    s.params.sampler = NULL;
    /* What scoring would refuse is refused before a step. */
    static const char *const unfit[2][2] = {{"\"vocab_size\":25", "expected 24 tokens, found 25"},
                                            {"\"n_positions\":8", "expected a context of 9 positions, found 8"}};
    pgrad_objective_params with_kl;
    pgrad_objective_free(objective);
    pgrad_objective_params_init(&with_kl, sizeof with_kl);
    with_kl.kl_beta = 0.1;
    ck_assert_int_eq(pgrad_objective_create(s.model, &with_kl, &objective), PGRAD_OK);
    s.params.objective = objective;
    s.params.reference = other.model;
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.reference: it belongs to another context"));
    for (int i = 0; i < 2; i++) {
        char config[400];
        snprintf(config, sizeof config, "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":32,\"n_embd\":16,"
                                        "\"n_layer\":1,\"n_head\":2,\"activation_function\":\"gelu_new\",%s}", "\"x\":0");
        char *at = strstr(config, i == 0 ? "\"vocab_size\":24" : "\"n_positions\":32");
        memcpy(at, unfit[i][0], strlen(unfit[i][0]));
        if (i == 1)
            at[strlen(unfit[i][0])] = ' ';
        ck_assert_int_eq(pgrad_model_create(s.context, config, 1, NULL, &s.params.reference), PGRAD_OK);
        (void)run(&s, PGRAD_E_MISMATCH);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), unfit[i][1]));
        pgrad_model_free(s.params.reference);
    }
    pgrad_sampler_free(sampler);
    pgrad_objective_free(objective);
    pgrad_optimizer_free(optimizer);
    drop(&other);
    drop(&s);
}
END_TEST

/* A callback may drop what the host holds: the run has references of its own. */
START_TEST(handles_freed_in_the_report_live_on)
{
    setting s = make(2);
    observer o = {.free_all = &s};
    ck_assert_int_eq(pgrad_sampler_create(s.context, NULL, &o.sampler), PGRAD_OK);
    s.params.sampler = o.sampler;
    s.params.report = observe;
    s.params.report_user = &o;
    ck_assert_uint_eq(run(&s, PGRAD_OK).steps, 4);
    ck_assert_uint_eq(o.n, 4);
}
END_TEST

/* Public calls that work say E_STATE in a forked child, where the threads are not. */
START_TEST(a_forked_child_is_told)
{
    setting s = make(3);
    pgrad_prompts prompts = make_prompts(PROMPTS);
    const pgrad_token token = 1;
    float logits[24];
    pid_t child = fork();
    if (child == 0) {
        int told = pgrad_model_zero_grad(s.model) == PGRAD_E_STATE;
        told = told && pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, NULL) == PGRAD_E_STATE;
        told = told && pgrad_model_logits(s.model, &token, 1, 0, logits, 24) == PGRAD_E_STATE;
        told = told && strstr(pgrad_error_message(), "fork") != NULL;
        drop(&s);
        _exit(told ? 0 : 1);
    }
    int status = -1;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_int_eq(status, 0);
    drop(&s);
}
END_TEST

#if defined(__SSE__)
static int32_t round_up(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user;
    (void)what;
    (void)done;
    (void)total;
    fesetround(FE_UPWARD);
    return 1;
}

static int32_t round_up_report(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    (void)user;
    (void)report;
    (void)rollout;
    fesetround(FE_UPWARD);
    return 1;
}

/* A rounding mode that a progress or report function leaves behind reaches no number. */
START_TEST(rounding_modes_of_callbacks_stay_outside)
{
    float weights[2][512];
    double last[2];
    for (int i = 0; i < 2; i++) {
        setting s = make(2);
        size_t n;
        if (i == 1) {
            ck_assert_int_eq(pgrad_context_set_progress(s.context, round_up, NULL), PGRAD_OK);
            s.params.report = round_up_report;
        }
        last[i] = run(&s, PGRAD_OK).last_reward;
        ck_assert_int_eq(fegetround(), FE_TONEAREST); /* and the host's own is back */
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.wpe.weight", weights[i], 512, &n), PGRAD_OK);
        drop(&s);
    }
    ck_assert(last[0] == last[1]);
    ck_assert_mem_eq(weights[0], weights[1], sizeof weights[0]);
}
END_TEST
#endif

int main(void)
{
    Suite *suite = suite_create("trainer");
    TCase *cases = tcase_create("trainer");
    tcase_set_timeout(cases, 120);
    tcase_add_test(cases, stops);
    tcase_add_test(cases, a_memory_limit_plans_the_run);
    tcase_add_test(cases, a_memory_limit_that_nothing_fits_under);
    tcase_add_test(cases, the_time_ends_in_a_rollout);
    tcase_add_test(cases, steps_are_predicted_from_the_fourth_on);
    tcase_add_loop_test(cases, two_runs_are_alike, 0, 2);
    tcase_add_test(cases, evaluation_touches_nothing);
    tcase_add_test(cases, three_refusals_end_the_run);
    tcase_add_test(cases, bad_runs_are_refused);
    tcase_add_test(cases, bad_prompts_are_named);
    tcase_add_test(cases, updates_are_counted_one_by_one);
    tcase_add_test(cases, handles_of_another_model_are_refused);
    tcase_add_test(cases, handles_freed_in_the_report_live_on);
    tcase_add_test(cases, a_forked_child_is_told);
#if defined(__SSE__)
    tcase_add_test(cases, rounding_modes_of_callbacks_stay_outside);
#endif
    suite_add_tcase(suite, cases);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
