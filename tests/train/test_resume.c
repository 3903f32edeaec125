/* pgrad_train taken up again: from every step, with other threads, stopped in order or killed in the middle, it
 * ends as if nothing had been; damaged files are told and older ones taken; another run's file is refused. */
#include <check.h>
#include <math.h>
#include <policygrad.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../checkpoint_contents.h"
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
static char folder[64], checkpoint_path[96], metrics_path[96];

static void setup(void)
{
    strcpy(folder, "/tmp/pgrad-resume-XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(checkpoint_path, sizeof checkpoint_path, "%s/run.pgrad", folder);
    snprintf(metrics_path, sizeof metrics_path, "%s/metrics.jsonl", folder);
}

static void clear_folder(void)
{
    char command[128];
    snprintf(command, sizeof command, "rm -f %s/*", folder);
    ck_assert_int_eq(system(command), 0);
}

static void teardown(void)
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

static void listen(void *user, int32_t level, const char *line)
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
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_prompts held_out;
    pgrad_train_params params;
    uint32_t stop_after; /* steps; the report says so */
    uint32_t n_reports;
    uint32_t die_at; /* the advantages of this rollout, from 1, fail */
    uint32_t n_advantages;
    int kill; /* or the process */
} setting;

static int32_t on_report(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    setting *s = user;
    (void)rollout;
    s->n_reports++;
    return s->stop_after == 0 || report->step < s->stop_after;
}

static int32_t on_advantages(void *user, pgrad_rollout *rollout)
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
static void make(setting *s, int number, uint32_t n_threads)
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

static void drop(setting *s)
{
    pgrad_optimizer_free(s->optimizer);
    pgrad_objective_free(s->objective);
    pgrad_advantage_free(s->advantage);
    pgrad_model_free(s->reference);
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

/* ---- what a run leaves ---- */

typedef struct left {
    char *metrics;
    float *weights;
    size_t n;
    pgrad_train_report report;
} left;

/* Times may differ, and a prediction needs three steps of this process. */
static void drop_times(char *text)
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

static left what_is_left(setting *s, const pgrad_train_report *report)
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

static int same_real(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void same_end(const left *a, const left *b)
{
    ck_assert_msg(strcmp(a->metrics, b->metrics) == 0, "%.1500s\n%.1500s", a->metrics, b->metrics);
    ck_assert_mem_eq(a->weights, b->weights, a->n * sizeof *a->weights);
    ck_assert_uint_eq(a->report.steps, b->report.steps);
    ck_assert_uint_eq(a->report.n_skipped, b->report.n_skipped);
    ck_assert(same_real(a->report.first_reward, b->report.first_reward));
    ck_assert(same_real(a->report.last_reward, b->report.last_reward));
    ck_assert(same_real(a->report.eval_before, b->report.eval_before));
    ck_assert(same_real(a->report.eval_after, b->report.eval_after));
}

static void free_left(left *l)
{
    free(l->metrics);
    free(l->weights);
}

static left uninterrupted(int number)
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

/* ---- resuming ---- */

/* The host stops it after k steps; three threads take it up. Begun cold, it ends elsewhere. */
START_TEST(stopped_in_order)
{
    left expected = uninterrupted(_i);
    for (uint32_t k = 1; k < STEPS; k++) {
        setting s;
        make(&s, _i, 1);
        s.stop_after = k;
        (void)run(&s, PGRAD_OK);
        drop(&s);
        make(&s, _i, 3);
        s.params.resume = PGRAD_RESUME_ON;
        s.params.checkpoint_background = k % 2;
        pgrad_train_report report = run(&s, PGRAD_OK);
        ck_assert_uint_ge(report.steps_before, k);
        left found = what_is_left(&s, &report);
        same_end(&found, &expected);
        free_left(&found);
        drop(&s);
        clear_folder();
        make(&s, _i, 1); /* cold */
        s.params.steps = STEPS - k;
        report = run(&s, PGRAD_OK);
        found = what_is_left(&s, &report);
        ck_assert_int_ne(memcmp(found.weights, expected.weights, expected.n * sizeof(float)), 0);
        free_left(&found);
        drop(&s);
        clear_folder();
    }
    free_left(&expected);
}
END_TEST

/* It fails in the middle of a step that no checkpoint has: the metrics of the steps behind the last one go. */
START_TEST(failed_in_the_middle)
{
    left expected = uninterrupted(_i);
    for (uint32_t every = 1; every <= 2; every++)
        for (uint32_t k = 1; k <= (_i == 2 ? STEPS / 2 : STEPS); k++) {
            setting s;
            uint32_t tries = 0;
            make(&s, _i, 2);
            s.params.resume = PGRAD_RESUME_AUTO;
            s.params.checkpoint_every = every;
            s.die_at = k;
            (void)run(&s, PGRAD_E_CALLBACK);
            drop(&s);
            if (access(checkpoint_path, F_OK) != 0)
                remove(metrics_path); /* nothing to take up: the host begins anew */
            else
                tries = 1;
            make(&s, _i, 1);
            s.params.resume = tries ? PGRAD_RESUME_ON : PGRAD_RESUME_AUTO;
            s.params.checkpoint_every = every;
            pgrad_train_report report = run(&s, PGRAD_OK);
            left found = what_is_left(&s, &report);
            same_end(&found, &expected);
            free_left(&found);
            drop(&s);
            clear_folder();
        }
    free_left(&expected);
}
END_TEST

/* CK01: killed again and again, each time a little later, until it is through. */
START_TEST(killed_again_and_again)
{
    left expected = uninterrupted(1);
    int kills = 0, status = -1;
    for (; kills < 20 && status != 0; kills++) {
        pid_t child = fork();
        ck_assert_int_ge(child, 0);
        if (child == 0) {
            setting s;
            make(&s, 1, 1 + (uint32_t)kills % 3);
            s.params.resume = PGRAD_RESUME_AUTO;
            s.params.checkpoint_every = 1;
            s.kill = 1;
            s.die_at = 3;
            pgrad_train_report report = run(&s, PGRAD_OK);
            left found = what_is_left(&s, &report);
            same_end(&found, &expected);
            _exit(0);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert(WIFSIGNALED(status) ? WTERMSIG(status) == SIGKILL : WEXITSTATUS(status) == 0);
    }
    ck_assert_int_eq(status, 0);
    ck_assert_int_ge(kills, 3);
    free_left(&expected);
}
END_TEST

/* The time is over in a rollout: its prompts are the next ones again. */
static int32_t dawdle(void *user, const char *what, uint64_t done, uint64_t total)
{
    (void)user, (void)total;
    if (strcmp(what, "generate") == 0 && done > 0)
        usleep(400000);
    return 1;
}

START_TEST(the_time_is_over)
{
    left expected = uninterrupted(0);
    setting s;
    make(&s, 0, 1);
    ck_assert_int_eq(pgrad_context_set_progress(s.context, dawdle, NULL), PGRAD_OK);
    s.params.max_seconds = 0.3;
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_SECONDS);
    ck_assert_uint_lt(report.steps, STEPS);
    drop(&s);
    make(&s, 0, 1);
    s.params.resume = PGRAD_RESUME_ON;
    report = run(&s, PGRAD_OK);
    left found = what_is_left(&s, &report);
    same_end(&found, &expected);
    free_left(&found);
    free_left(&expected);
    drop(&s);
}
END_TEST

/* ---- files that are not what they should be ---- */

static void damage(const char *path, long at)
{
    FILE *file = fopen(path, "r+b");
    ck_assert_ptr_nonnull(file);
    ck_assert_int_eq(fseek(file, at, at < 0 ? SEEK_END : SEEK_SET), 0);
    int byte = fgetc(file);
    ck_assert_int_eq(fseek(file, -1, SEEK_CUR), 0);
    fputc(byte ^ 1, file);
    fclose(file);
}

/* CK08, CK09, CK10: the one before is taken, and the log says so; with none left the run fails and lists them. */
START_TEST(damaged_files)
{
    left expected = uninterrupted(0);
    setting s;
    char old[100];
    heard warning = {.word = "an older file"}, info = {.word = "taken up after 3 steps"};
    snprintf(old, sizeof old, "%s.1", checkpoint_path);
    make(&s, 0, 1);
    s.params.checkpoint_every = 1;
    s.stop_after = 4;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    damage(checkpoint_path, 3000);
    make(&s, 0, 1);
    s.params.resume = PGRAD_RESUME_ON;
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &warning, PGRAD_LOG_WARNING), PGRAD_OK);
    pgrad_train_report report = run(&s, PGRAD_OK);
    ck_assert_uint_eq(report.steps_before, 3);
    ck_assert_int_eq(warning.n, 1);
    ck_assert_ptr_nonnull(strstr(warning.line, "chunk at offset"));
    left found = what_is_left(&s, &report);
    same_end(&found, &expected);
    free_left(&found);
    drop(&s);
    damage(checkpoint_path, 9);
    damage(old, -1);
    make(&s, 0, 1);
    s.params.resume = PGRAD_RESUME_AUTO;
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &info, PGRAD_LOG_INFO), PGRAD_OK);
    (void)run(&s, PGRAD_E_UNSUPPORTED); /* of a newer version: to be updated, not to be thrown away */
    damage(checkpoint_path, 9);
    damage(checkpoint_path, 0);
    (void)run(&s, PGRAD_E_FORMAT);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "run.pgrad: not a checkpoint"));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "run.pgrad.1: cut short"));
    ck_assert_int_eq(info.n, 0);
    drop(&s);
    free_left(&expected);
}
END_TEST

/* CK12: each option that counts, by its name; nothing is changed by the attempt. */
START_TEST(another_runs_file)
{
    setting s;
    float before[64], after[64];
    size_t n;
    make(&s, 0, 1);
    s.params.steps = 2;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    for (int i = 0; i < 6; i++) {
        static const char *const NAMES[] = {"'group_size': the checkpoint has 4, here is 2",
                                            "'seed'", "'prompts_per_step'", "'kl_beta'", "'kl'", "'estimator'"};
        make(&s, i == 3 || i == 4 ? 1 : 0, 1);
        s.params.resume = PGRAD_RESUME_ON;
        s.params.eval_prompts = NULL;
        s.params.optimizer = NULL;
        pgrad_advantage *rloo = NULL;
        pgrad_advantage_params advantage;
        pgrad_advantage_params_init(&advantage, sizeof advantage);
        advantage.estimator = i == 5 ? PGRAD_ADVANTAGE_RLOO : PGRAD_ADVANTAGE_GRPO;
        ck_assert_int_eq(pgrad_advantage_create(s.context, &advantage, &rloo), PGRAD_OK);
        s.params.advantage = rloo;
        s.params.group_size = i == 0 ? 2 : 4;
        s.params.prompts_per_step = i == 2 ? 2 : 3;
        pgrad_sampler *sampler = NULL;
        pgrad_sampler_params sampling;
        pgrad_sampler_params_init(&sampling, sizeof sampling);
        sampling.seed = 9;
        ck_assert_int_eq(pgrad_sampler_create(s.context, &sampling, &sampler), PGRAD_OK);
        s.params.sampler = sampler;
        s.params.seed = i == 1 ? 8 : 9;
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", before, 64, &n), PGRAD_OK);
        if (i == 4) {
            pgrad_objective_params none;
            pgrad_objective_free(s.objective);
            pgrad_objective_params_init(&none, sizeof none);
            none.kl = PGRAD_KL_K2;
            ck_assert_int_eq(pgrad_objective_create(s.model, &none, &s.objective), PGRAD_OK);
            s.params.objective = s.objective;
            s.params.reference = NULL;
        }
        (void)run(&s, PGRAD_E_MISMATCH);
        ck_assert_msg(strstr(pgrad_error_message(), NAMES[i]) != NULL, "%d: %s", i, pgrad_error_message());
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", after, 64, &n), PGRAD_OK);
        ck_assert_mem_eq(before, after, n * sizeof *before);
        pgrad_sampler_free(sampler);
        pgrad_advantage_free(rloo);
        drop(&s);
    }
}
END_TEST

/* Whole, with good checksums, and of no run: a prompt beyond the last, a reward that is no number. */
START_TEST(numbers_that_no_run_has)
{
    setting s;
    make(&s, 0, 1);
    s.stop_after = 3;
    (void)run(&s, PGRAD_OK);
    contents c = read_contents(s.context, checkpoint_path);
    drop(&s);
    const uint32_t train = part_named(&c, "train");
    const struct {
        unsigned char *at;
        uint64_t value;
        const char *said;
    } lies[] = {
        {number_named(&c, "train", "cursor"), PROMPTS + 1, "checkpoint: prompt 6 of 5 comes next"},
        {number_named(&c, "train", "n_skipped"), (uint64_t)1 << 32, "'n_skipped': a number beyond 32 bits"},
        {c.bytes[train] + c.sizes[train] - 8, pgrad__bits_of_real(NAN), "checkpoint: window: reward 2 is not finite"},
    };
    for (int k = 0; k < 3; k++) {
        unsigned char *at = lies[k].at;
        const uint64_t old = pgrad__get_u64(at);
        float before[16], after[16];
        size_t n;
        pgrad__put_u64(at, lies[k].value);
        make(&s, 0, 1);
        write_contents(s.context, checkpoint_path, &c, 0, c.n);
        pgrad__put_u64(at, old);
        s.params.resume = PGRAD_RESUME_ON;
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", before, 16, &n), PGRAD_OK);
        (void)run(&s, PGRAD_E_FORMAT);
        ck_assert_msg(strstr(pgrad_error_message(), lies[k].said) != NULL, "%s", pgrad_error_message());
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", after, 16, &n), PGRAD_OK);
        ck_assert_mem_eq(after, before, sizeof before);
        ck_assert_uint_eq(s.n_reports, 0);
        drop(&s);
    }
    free_contents(&c);
}
END_TEST

/* A learning rate may change, and the log says so. CK13: a file without the optimizer is no run's. */
START_TEST(what_may_change)
{
    setting s;
    heard warning = {.word = "learning_rate"};
    pgrad_checkpoint *weights;
    make(&s, 0, 1);
    s.params.steps = 2;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    make(&s, 0, 1);
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &warning, PGRAD_LOG_WARNING), PGRAD_OK);
    s.params.resume = PGRAD_RESUME_ON;
    s.params.learning_rate = 5e-3;
    s.params.steps = 3;
    (void)run(&s, PGRAD_OK);
    ck_assert_int_eq(warning.n, 1);
    ck_assert_ptr_nonnull(strstr(warning.line, "the one given is used"));
    ck_assert_int_eq(pgrad_checkpoint_create(s.context, &weights), PGRAD_OK);
    ck_assert_int_eq(pgrad_checkpoint_add(weights, "policy", PGRAD_KIND_MODEL, s.model), PGRAD_OK);
    ck_assert_int_eq(pgrad_checkpoint_write(weights, checkpoint_path, NULL), PGRAD_OK);
    pgrad_checkpoint_free(weights);
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "no part 'optimizer'"));
    clear_folder();
    (void)run(&s, PGRAD_E_IO);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "there is no checkpoint"));
    s.params.checkpoint_path = NULL;
    (void)run(&s, PGRAD_E_INVALID);
    drop(&s);
}
END_TEST

/* A metrics file that is not the one of the checkpoint is left alone. */
START_TEST(foreign_metrics)
{
    setting s;
    heard warning = {.word = "not the file"};
    char text[1 << 14];
    make(&s, 0, 1);
    s.stop_after = 2;
    (void)run(&s, PGRAD_OK);
    drop(&s);
    FILE *file = fopen(metrics_path, "w");
    for (int i = 0; i < 500; i++)
        fputs("not ours\n", file);
    fclose(file);
    make(&s, 0, 1);
    ck_assert_int_eq(pgrad_context_set_log(s.context, listen, &warning, PGRAD_LOG_WARNING), PGRAD_OK);
    s.params.resume = PGRAD_RESUME_ON;
    (void)run(&s, PGRAD_OK);
    ck_assert_int_eq(warning.n, 1);
    file = fopen(metrics_path, "r");
    const size_t n = fread(text, 1, sizeof text - 1, file);
    fclose(file);
    text[n] = '\0';
    ck_assert_uint_gt(n, 4500);
    ck_assert_int_eq(memcmp(text + 4491, "not ours\n{", 10), 0);
    drop(&s);
}
END_TEST

static int32_t add_notes(void *user, pgrad_checkpoint *checkpoint)
{
    char text[40];
    int *calls = user;
    snprintf(text, sizeof text, "the host was asked %d times", ++*calls);
    ck_assert_int_eq(pgrad_checkpoint_add_text(checkpoint, "host", text, strlen(text)), PGRAD_OK);
    return *calls < 4;
}

START_TEST(texts_of_the_host)
{
    setting s;
    pgrad_checkpoint *opened;
    int calls = 0;
    char text[64];
    size_t n;
    make(&s, 0, 1);
    s.params.on_checkpoint = add_notes;
    s.params.on_checkpoint_user = &calls;
    s.params.checkpoint_every = 1;
    s.params.steps = 3;
    (void)run(&s, PGRAD_OK); /* the end is the third */
    ck_assert_int_eq(calls, 3);
    ck_assert_int_eq(pgrad_checkpoint_open(s.context, checkpoint_path, &opened), PGRAD_OK);
    ck_assert_int_eq(pgrad_checkpoint_get_text(opened, "host", text, sizeof text, &n), PGRAD_OK);
    ck_assert_str_eq(text, "the host was asked 3 times");
    ck_assert_uint_eq(pgrad_checkpoint_count(opened), 7);
    pgrad_checkpoint_free(opened);
    s.params.resume = PGRAD_RESUME_ON;
    s.params.steps = 5;
    (void)run(&s, PGRAD_E_CALLBACK);
    drop(&s);
}
END_TEST

/* A folder that is not there is told before the first step. */
START_TEST(nowhere_to_write)
{
    setting s;
    make(&s, 0, 1);
    s.params.checkpoint_path = "/nonexistent/run.pgrad";
    s.params.checkpoint_every = 1;
    pgrad_train_report report = run(&s, PGRAD_E_IO);
    ck_assert_uint_eq(report.steps, 0);
    drop(&s);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("resume");
    TCase *tests = tcase_create("resume");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 240);
    tcase_add_loop_test(tests, stopped_in_order, 0, 3);
    tcase_add_loop_test(tests, failed_in_the_middle, 0, 3);
    tcase_add_test(tests, killed_again_and_again);
    tcase_add_test(tests, the_time_is_over);
    tcase_add_test(tests, damaged_files);
    tcase_add_test(tests, another_runs_file);
    tcase_add_test(tests, numbers_that_no_run_has);
    tcase_add_test(tests, what_may_change);
    tcase_add_test(tests, foreign_metrics);
    tcase_add_test(tests, texts_of_the_host);
    tcase_add_test(tests, nowhere_to_write);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
