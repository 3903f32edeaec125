/* pgrad_train around the step: stops, reports, metrics file, saves, evaluation; two runs alike. */
#include "train_test.h"

#include <fenv.h>
#include <math.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

static const char LLAMA[] =
    "{\"model_type\":\"llama\",\"vocab_size\":24,\"hidden_size\":16,\"intermediate_size\":24,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"max_position_embeddings\":32,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true,"
    "\"eos_token_id\":23}";

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

static int32_t refuse_advantages(void *user, pgrad_rollout *rollout)
{
    (void)rollout;
    ++*(int *)user;
    return 0;
}

static int32_t refuse_checkpoint(void *user, pgrad_checkpoint *checkpoint)
{
    (void)checkpoint;
    ++*(int *)user;
    return -1;
}

START_TEST(callbacks_can_stop_a_run)
{
    char folder[] = "/tmp/pgrad-trainer-XXXXXX", path[96];
    int calls = 0;
    setting s = make(1);
    s.params.on_advantages = refuse_advantages;
    s.params.on_advantages_user = &calls;
    pgrad_train_report report = run(&s, PGRAD_E_CALLBACK);
    ck_assert_str_eq(pgrad_error_message(), "train.on_advantages asked to stop");
    ck_assert_uint_eq(report.steps, 0);
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_ERROR);
    s.params.on_advantages = NULL;
    ck_assert_ptr_nonnull(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/run.pgrad", folder);
    s.params.checkpoint_path = path;
    s.params.checkpoint_every = 2;
    s.params.on_checkpoint = refuse_checkpoint;
    s.params.on_checkpoint_user = &calls;
    report = run(&s, PGRAD_E_CALLBACK);
    ck_assert_str_eq(pgrad_error_message(), "train.on_checkpoint asked to stop");
    ck_assert_uint_eq(report.steps, 2);
    ck_assert_int_eq(calls, 2);
    ck_assert_int_eq(rmdir(folder), 0); /* nothing was written */
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

/* Told in the log before the step is there: the report of the step before has been the last one. */
static void see_forecast(void *user, int32_t level, const char *line)
{
    unsigned step;
    double seconds;
    if (level == PGRAD_LOG_INFO && sscanf(line, "step %u: some %lf s", &step, &seconds) == 2) {
        ck_assert_uint_eq(step, 4 + *(uint32_t *)user);
        ck_assert_double_ge(seconds, 0.0);
    }
}

START_TEST(steps_are_predicted_from_the_fourth_on)
{
    setting s = make(2);
    uint32_t told = 0;
    pgrad_context_set_log(s.context, see_forecast, &told, PGRAD_LOG_INFO);
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

static void add(TCase *cases)
{
    tcase_add_test(cases, stops);
    tcase_add_test(cases, callbacks_can_stop_a_run);
    tcase_add_test(cases, the_time_ends_in_a_rollout);
    tcase_add_test(cases, steps_are_predicted_from_the_fourth_on);
    tcase_add_loop_test(cases, two_runs_are_alike, 0, 2);
    tcase_add_test(cases, evaluation_touches_nothing);
    tcase_add_test(cases, three_refusals_end_the_run);
    tcase_add_test(cases, updates_are_counted_one_by_one);
    tcase_add_test(cases, handles_freed_in_the_report_live_on);
    tcase_add_test(cases, a_forked_child_is_told);
#if defined(__SSE__)
    tcase_add_test(cases, rounding_modes_of_callbacks_stay_outside);
#endif
}

int main(void)
{
    return run_case("trainer", NULL, NULL, 120, add);
}
