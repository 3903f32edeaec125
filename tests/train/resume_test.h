/* What the tests of taking runs up share: a tiny run with checkpoints and metrics, in three cases, and what it leaves. */
#ifndef PGRAD_TESTS_RESUME_TEST_H
#define PGRAD_TESTS_RESUME_TEST_H

#include <check.h>
#include <math.h>
#include <policygrad.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "../suite.h"
#include "model/model.h"
#include "tiny_task.h"

/* tests/io has what syncing is for; here it would take most of the time. */
int fsync(int descriptor)
{
    (void)descriptor;
    return 0;
}

enum { PROMPTS = 5, STEPS = 6 };
static char folder[64], checkpoint_path[96], metrics_path[96], lock_path[112];

static inline void setup(void)
{
    strcpy(folder, "/tmp/pgrad-resume-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(checkpoint_path, sizeof checkpoint_path, "%s/run.pgrad", folder);
    snprintf(lock_path, sizeof lock_path, "%s.lock", checkpoint_path);
    snprintf(metrics_path, sizeof metrics_path, "%s/metrics.jsonl", folder);
}

static inline void clear_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -rf %s/*", folder);
    ck_assert_int_eq(system(command), 0);
}

static inline void teardown(void)
{
    clear_folder();
    ck_assert_int_eq(rmdir(folder), 0);
}

/* ---- runs ---- */

/* The last line of the log that has this in it. */
typedef struct heard {
    const char *word;
    char line[1200];
    int n;
} heard;

static inline void listen(void *user, int32_t level, const char *line)
{
    heard *h = user;
    (void)level;
    if (strstr(line, h->word) == NULL)
        return;
    snprintf(h->line, sizeof h->line, "%s", line);
    h->n++;
}

typedef struct setting {
    pgrad_context *context;
    pgrad_model *model, *reference;
    pgrad_reward *reward;
    pgrad_sampler *sampler;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_prompts held_out;
    size_t first_prompt, n_prompts; /* of the task's */
    pgrad_train_params params;
    uint32_t stop_after; /* steps; the report says so */
    uint32_t n_reports;
    uint32_t die_at; /* the advantages of this rollout, from 1, fail */
    uint32_t n_advantages;
    int kill; /* or the process */
} setting;

static inline int32_t on_report(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    setting *s = user;
    (void)rollout;
    s->n_reports++;
    return s->stop_after == 0 || report->step < s->stop_after;
}

static inline int32_t on_advantages(void *user, pgrad_rollout *rollout)
{
    setting *s = user;
    (void)rollout;
    if (++s->n_advantages != s->die_at)
        return 1;
    if (s->kill)
        raise(SIGKILL);
    return 0;
}

/* Case 0: the defaults. 1: EMA baseline, KL to a snapshot, 8-bit moments, evaluation. 2: PPO, two updates a
 * rollout. */
static inline void make(setting *s, int number, uint32_t n_threads)
{
    pgrad_context_params context;
    memset(s, 0, sizeof *s);
    pgrad_context_params_init(&context, sizeof context);
    context.n_threads = n_threads;
    ck_assert_int_eq(pgrad_context_create(&context, &s->context), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_create(s->context, CONFIG, 5, NULL, &s->model), PGRAD_OK);
    ck_assert_int_eq(pgrad_reward_create(s->context, "low", low_ids, NULL, NULL, &s->reward), PGRAD_OK);
    pgrad_train_params_init(&s->params, sizeof s->params);
    s->params.steps = STEPS;
    s->params.prompts_per_step = 3;
    s->params.group_size = 4;
    s->params.max_new_tokens = 6;
    s->params.learning_rate = 1e-2;
    s->params.target_window = 3;
    s->params.seed = 9;
    s->params.report = on_report;
    s->params.report_user = s;
    s->params.on_advantages = on_advantages;
    s->params.on_advantages_user = s;
    s->params.checkpoint_path = checkpoint_path;
    s->params.metrics_path = metrics_path;
    s->n_prompts = PROMPTS;
    pgrad_objective_params objective;
    pgrad_objective_params_init(&objective, sizeof objective);
    if (number == 1) {
        pgrad_advantage_params advantage;
        pgrad_optimizer_params optimizer;
        pgrad_advantage_params_init(&advantage, sizeof advantage);
        advantage.estimator = PGRAD_ADVANTAGE_EMA;
        ck_assert_int_eq(pgrad_advantage_create(s->context, &advantage, &s->advantage), PGRAD_OK);
        pgrad_optimizer_params_init(&optimizer, sizeof optimizer);
        optimizer.moments = PGRAD_MOMENTS_Q8;
        optimizer.schedule = PGRAD_SCHEDULE_LINEAR;
        optimizer.warmup_steps = 2;
        optimizer.total_steps = 20;
        optimizer.learning_rate = 1e-2;
        ck_assert_int_eq(pgrad_optimizer_create(s->model, &optimizer, &s->optimizer), PGRAD_OK);
        objective.kl = PGRAD_KL_K3_RATIO;
        objective.kl_beta = 0.05;
        ck_assert_int_eq(pgrad_model_snapshot(s->model, &s->reference), PGRAD_OK);
        s->held_out = make_prompts(2);
        s->params.eval_prompts = &s->held_out;
        s->params.eval_every = 2;
    }
    if (number == 2) {
        objective.loss = PGRAD_LOSS_PPO_CLIP;
        s->params.epochs_per_step = 2;
    }
    if (number > 0)
        ck_assert_int_eq(pgrad_objective_create(s->model, &objective, &s->objective), PGRAD_OK);
    s->params.advantage = s->advantage;
    s->params.objective = s->objective;
    s->params.optimizer = s->optimizer;
    s->params.reference = s->reference;
}

static inline void drop(setting *s)
{
    pgrad_optimizer_free(s->optimizer);
    pgrad_objective_free(s->objective);
    pgrad_advantage_free(s->advantage);
    pgrad_sampler_free(s->sampler);
    pgrad_model_free(s->reference);
    pgrad_reward_free(s->reward);
    pgrad_model_free(s->model);
    pgrad_context_free(s->context);
}

static inline pgrad_status try_run(setting *s, pgrad_train_report *report)
{
    pgrad_prompts prompts = make_prompts(MOST_PROMPTS);
    prompts.n = s->n_prompts;
    prompts.ids += s->first_prompt;
    prompts.n_ids += s->first_prompt;
    *report = (pgrad_train_report){.struct_size = sizeof *report};
    return pgrad_train(s->model, NULL, s->reward, &prompts, &s->params, report);
}

static inline pgrad_train_report run(setting *s, pgrad_status expected)
{
    pgrad_train_report report;
    pgrad_status status = try_run(s, &report);
    ck_assert_msg(status == expected, "%s: %s", pgrad_status_name(status), pgrad_error_message());
    return report;
}

/* ---- what a run leaves ---- */

typedef struct left {
    char *metrics;
    float *weights;
    size_t n;
    pgrad_train_report report;
} left;

/* Times may differ, and a prediction needs three steps of this process. */
static inline void drop_times(char *text)
{
    static const char *const KEYS[] = {"\"step_time\":", "\"step_time/generate\":", "\"step_time/train\":",
                                       "\"tokens_per_second\":", "\"step_time/predicted\":"};
    for (size_t k = 0; k < 5; k++)
        for (char *at = strstr(text, KEYS[k]); at != NULL; at = strstr(at, KEYS[k])) {
            char *end = at + strcspn(at, ",}");
            end += *end == ',';
            memmove(at, end, strlen(end) + 1);
        }
}

static inline left what_is_left(setting *s, const pgrad_train_report *report)
{
    left l = {.metrics = calloc(1, 1 << 16), .report = *report};
    FILE *file = fopen(metrics_path, "r");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_lt(fread(l.metrics, 1, (1 << 16) - 1, file), (1 << 16) - 1);
    fclose(file);
    drop_times(l.metrics);
    for (uint32_t i = 0; i < s->model->n_tensors; i++)
        l.n += s->model->tensors[i].dims[0] * s->model->tensors[i].dims[1];
    l.weights = malloc(l.n * sizeof *l.weights);
    size_t at = 0, n;
    for (uint32_t i = 0; i < s->model->n_tensors; i++, at += n)
        ck_assert_int_eq(pgrad_model_tensor_read(s->model, s->model->tensors[i].name, l.weights + at, l.n - at, &n),
                         PGRAD_OK);
    return l;
}

static inline int same_real(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static inline int is_same_report(const pgrad_train_report *a, const pgrad_train_report *b)
{
    return a->steps == b->steps && a->n_skipped == b->n_skipped && same_real(a->first_reward, b->first_reward) &&
           same_real(a->last_reward, b->last_reward) && same_real(a->eval_before, b->eval_before) &&
           same_real(a->eval_after, b->eval_after);
}

static inline int is_same_end(const left *a, const left *b)
{
    return strcmp(a->metrics, b->metrics) == 0 && memcmp(a->weights, b->weights, a->n * sizeof *a->weights) == 0 &&
           is_same_report(&a->report, &b->report);
}

static inline void same_end(const left *a, const left *b)
{
    ck_assert_msg(strcmp(a->metrics, b->metrics) == 0, "%.1500s\n%.1500s", a->metrics, b->metrics);
    ck_assert_mem_eq(a->weights, b->weights, a->n * sizeof *a->weights);
    ck_assert(is_same_report(&a->report, &b->report));
}

static inline void free_left(left *l)
{
    free(l->metrics);
    free(l->weights);
}

static inline left uninterrupted(int number)
{
    setting s;
    make(&s, number, 1);
    pgrad_train_report report = run(&s, PGRAD_OK);
    left l = what_is_left(&s, &report);
    ck_assert_uint_eq(report.steps_before, 0);
    drop(&s);
    clear_folder();
    return l;
}

#endif
