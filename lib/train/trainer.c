/* pgrad_train: the calls of a step in a loop, with its stops, reports, saves and evaluations. */
#include <policygrad/trainer.h>

#include <math.h>

#include <policygrad/advantage.h>
#include <policygrad/objective.h>
#include <policygrad/optimizer.h>
#include <policygrad/reward.h>
#include <policygrad/sampler.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/os.h"
#include "base/params_check.h"
#include "io/append.h"
#include "io/atomic_file.h"
#include "io/file.h"
#include "rl/advantage.h"
#include "rl/estimate.h"
#include "rl/objective.h"
#include "rl/optimizer.h"
#include "rl/reward.h"
#include "rl/sampler.h"
#include "text/tokenizer.h"
#include "train/run.h"

enum { MAX_REFUSED_IN_A_ROW = 3 };

/* ---- making and freeing a run ---- */

static pgrad_status make_handles(pgrad__run *r)
{
    pgrad_train_params *params = &r->params;
    pgrad_context *context = r->model->context;
    if (params->sampler == NULL) {
        pgrad_sampler_params sampler;
        pgrad_sampler_params_init(&sampler, sizeof sampler);
        sampler.seed = params->seed;
        PGRAD__TRY(pgrad_sampler_create(context, &sampler, &r->own_sampler));
        params->sampler = r->own_sampler;
    }
    if (params->advantage == NULL) {
        PGRAD__TRY(pgrad_advantage_create(context, NULL, &r->own_advantage));
        params->advantage = r->own_advantage;
    }
    if (params->objective == NULL) {
        pgrad_objective_params objective;
        pgrad_objective_params_init(&objective, sizeof objective);
        objective.micro_batch_tokens = params->micro_batch_tokens;
        objective.recompute = params->recompute;
        PGRAD__TRY(pgrad_objective_create(r->model, &objective, &r->own_objective));
        params->objective = r->own_objective;
    }
    return PGRAD_OK;
}

static int needs_reference(const pgrad__run *r)
{
    return r->params.advantage->params.kl_beta > 0.0 ||
           pgrad__objective_uses_reference(r->params.objective);
}

/* What scoring with it would refuse, before a step is spent. */
static pgrad_status check_reference(const pgrad__run *r)
{
    const pgrad_model *reference = r->params.reference;
    const size_t room = (size_t)r->prompts.max_tokens + r->params.max_new_tokens;
    const size_t longest = room < r->model->n_context ? room : r->model->n_context;
    if (reference->context != r->model->context)
        return pgrad__fail(PGRAD_E_MISMATCH, "train.reference: it belongs to another context");
    if (reference->config.n_vocab != r->model->config.n_vocab)
        return pgrad__fail(PGRAD_E_MISMATCH, "train.reference: expected %u tokens, found %u",
                           r->model->config.n_vocab, reference->config.n_vocab);
    if (reference->n_context < longest)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "train.reference: expected a context of %zu positions, found %u",
                           longest, reference->n_context);
    return PGRAD_OK;
}

static pgrad_status check_run(const pgrad__run *r)
{
    if (needs_reference(r) && r->params.reference == NULL)
        return pgrad__fail(
            PGRAD_E_INVALID,
            "train.reference: a KL term is switched on (kl_beta > 0), but no reference "
            "model is given");
    if (needs_reference(r))
        PGRAD__TRY(check_reference(r));
    if (r->params.objective->model != r->model ||
        (r->params.optimizer != NULL && r->params.optimizer->model != r->model))
        return pgrad__fail(PGRAD_E_MISMATCH, "train.%s: it belongs to another model",
                           r->params.objective->model != r->model ? "objective" : "optimizer");
    if (r->params.sampler->context != r->model->context ||
        r->params.advantage->context != r->model->context ||
        r->reward->context != r->model->context)
        return pgrad__fail(PGRAD_E_MISMATCH,
                           "train: sampler, advantage and reward must be of the model's context");
    if (r->params.sampler->params.temperature == 0.0)
        return pgrad__fail(PGRAD_E_INVALID,
                           "train.sampler: expected a temperature above 0, found 0: completions of "
                           "a prompt would all be the same");
    PGRAD__TRY(pgrad__advantage_check(r->params.advantage, r->params.group_size));
    if (r->params.epochs_per_step > 1 && r->params.objective->params.loss != PGRAD_LOSS_PPO_CLIP)
        return pgrad__fail(PGRAD_E_INVALID,
                           "train.epochs_per_step: %u updates per rollout need the PPO_CLIP loss",
                           r->params.epochs_per_step);
    return PGRAD_OK;
}

/* The loss takes log-probabilities of the policy: draws from another distribution are not corrected
 * for (sampling_mismatch in the report measures it). */
static void warn(const pgrad__run *r)
{
    const pgrad_sampler_params *params = &r->params.sampler->params;
    if (params->top_k != 0 || params->top_p < 1.0 || params->min_p > 0.0 ||
        params->repetition_penalty != 1.0)
        pgrad__log_line(r->model->context, PGRAD_LOG_WARNING,
                        "train.sampler: top_k, top_p, min_p and repetition_penalty "
                        "sample from another distribution than the policy's; gradients are biased");
    if (r->params.reference != NULL && !needs_reference(r))
        pgrad__log_line(r->model->context, PGRAD_LOG_WARNING,
                        "train.reference: neither objective nor advantage has a kl_beta; it is not "
                        "used");
}

static pgrad_status make_prompts(pgrad__run *r, const pgrad_prompts *prompts)
{
    PGRAD__TRY(
        pgrad__prompt_set_init(&r->prompts, r->model, r->tokenizer, prompts, r->params.seed));
    if (r->params.prompts_per_step > r->prompts.source.n)
        return pgrad__fail(
            PGRAD_E_INVALID,
            "train.prompts_per_step: expected at most the %zu prompts given, found %u",
            r->prompts.source.n, r->params.prompts_per_step);
    if (r->params.eval_prompts != NULL) {
        r->has_evaluation = 1; /* is freed, even half made */
        PGRAD__TRY(pgrad__evaluation_init(&r->evaluation, r->model, r->tokenizer,
                                          r->params.eval_prompts, r->params.max_new_tokens));
    }
    return PGRAD_OK;
}

/* Params of the rollouts and of an optimizer made here, as far as they are known without a plan. */
static void fill_params(pgrad__run *r)
{
    pgrad_rollout_params *rollout = &r->rollout_params;
    pgrad_rollout_params_init(rollout, sizeof *rollout);
    rollout->group_size = r->params.group_size;
    rollout->max_prompts = r->params.prompts_per_step;
    rollout->max_prompt_tokens = r->prompts.max_tokens;
    rollout->max_new_tokens = r->params.max_new_tokens;
    rollout->kv_storage = r->evaluation.params.kv_storage = r->params.kv_storage;
    rollout->keep_activations = r->params.keep_activations;
    /* Epochs after the first have other weights, and need the memory for their own activations. */
    if (r->params.keep_activations == PGRAD_KEEP_AUTO && r->params.epochs_per_step > 1)
        rollout->keep_activations = PGRAD_KEEP_OFF;
    r->evaluation.params.keep_activations = PGRAD_KEEP_OFF;
    pgrad_optimizer_params_init(&r->optimizer_params, sizeof r->optimizer_params);
    r->optimizer_params.learning_rate = r->params.learning_rate;
    r->optimizer_params.moments = r->params.moments;
    if (r->params.optimizer != NULL)
        r->optimizer_params = r->params.optimizer->params;
}

static void tell_plan(const pgrad__run *r, const pgrad_memory_report *report)
{
    pgrad__log_line(r->model->context, PGRAD_LOG_INFO,
                    "train: %.1f MiB are planned: micro-batches of %u tokens, %s, moments in %s, "
                    "keys and values in %s, decoding %u at a time",
                    (double)report->total / 1048576.0, report->micro_batch_tokens,
                    report->recompute ? "recompute" : "nothing recomputed",
                    pgrad__moments_name(report->moments_storage),
                    pgrad__kv_name(report->kv_storage), report->batch_size);
}

/* Plans the run's memory and puts the choices into force: E_LIMIT when none fits. */
static pgrad_status plan_memory(pgrad__run *r)
{
    pgrad__plan plan;
    pgrad_memory_report report;
    pgrad_plan_params params;
    pgrad_plan_params_init(&params, sizeof params);
    params.rollout = &r->rollout_params;
    params.evaluation = r->has_evaluation ? &r->evaluation.params : NULL;
    params.objective = &r->params.objective->params;
    params.optimizer = &r->optimizer_params;
    params.tokenizer = r->tokenizer;
    params.reference = r->params.reference != NULL;
    params.updates_per_rollout = r->params.epochs_per_step;
    params.checkpoint = r->params.checkpoint_path != NULL && r->params.checkpoint_background &&
                        r->model->context->memory_limit == 0;
    params.other_bytes =
        pgrad__prompt_set_held(&r->prompts) + pgrad__prompt_set_held(&r->evaluation.prompts);
    PGRAD__TRY(pgrad__plan_read(r->model, &params, &plan));
    PGRAD__TRY(pgrad__plan_make(&plan, r->model, &report));
    r->rollout_params.kv_storage = report.kv_storage;
    r->rollout_params.batch_size = report.batch_size;
    r->rollout_params.keep_activations = report.keep_activations;
    r->evaluation.params.kv_storage = report.kv_storage;
    r->evaluation.params.batch_size = report.batch_size;
    r->optimizer_params.moments = report.moments_storage;
    pgrad__objective_choose(r->params.objective, report.micro_batch_tokens, report.recompute);
    r->report.memory_planned = report.total;
    tell_plan(r, &report);
    return PGRAD_OK;
}

static pgrad_status take_memory(pgrad__run *r)
{
    pgrad_train_params *params = &r->params;
    PGRAD__TRY(pgrad_rollout_create(r->model, r->tokenizer, &r->rollout_params, &r->rollout));
    if (r->has_evaluation)
        PGRAD__TRY(
            pgrad__evaluation_take(&r->evaluation, r->model, r->tokenizer, r->params.sampler));
    if (params->optimizer == NULL) {
        PGRAD__TRY(pgrad_optimizer_create(r->model, &r->optimizer_params, &r->own_optimizer));
        params->optimizer = r->own_optimizer;
    }
    return pgrad__calloc(r->model->context, (size_t)params->target_window, sizeof(double),
                         &r->window);
}

/* A relative path is what it was when the run was called for, whatever folder the host goes to. */
static pgrad_status settle_paths(pgrad__run *r)
{
    const char **const given[] = {&r->params.checkpoint_path, &r->params.metrics_path,
                                  &r->params.save_path};
    for (size_t i = 0; i < sizeof given / sizeof given[0]; i++) {
        if (*given[i] == NULL)
            continue;
        PGRAD__TRY(pgrad__path_target(r->model->context, *given[i], &r->paths[i]));
        *given[i] = r->paths[i];
    }
    return PGRAD_OK;
}

/* What would fail at the end of a run fails at its beginning. */
static pgrad_status try_save_path(pgrad_context *context, const char *path)
{
    pgrad__folder folder = {0};
    if (path[0] == '\0')
        return pgrad__fail(PGRAD_E_INVALID, "train.save_path: expected a folder, found \"\"");
    PGRAD__TRY(pgrad__folder_open(context, path, &folder));
    pgrad__folder_abort(&folder);
    return PGRAD_OK;
}

static pgrad_status try_checkpoint_path(pgrad_context *context, const char *path)
{
    pgrad__writer writer = {.descriptor = -1};
    if (path[0] == '\0')
        return pgrad__fail(PGRAD_E_INVALID, "train.checkpoint_path: expected a file, found \"\"");
    PGRAD__TRY(pgrad__writer_open(context, path, &writer));
    pgrad__writer_abort(&writer);
    return PGRAD_OK;
}

/* From here on no other run writes where this one does. */
static pgrad_status open_files(pgrad__run *r)
{
    const pgrad_train_params *params = &r->params;
    pgrad_context *context = r->model->context;
    if (params->save_path != NULL)
        PGRAD__TRY(try_save_path(context, params->save_path));
    if (params->checkpoint_path != NULL) {
        PGRAD__TRY(try_checkpoint_path(context, params->checkpoint_path));
        PGRAD__TRY(pgrad__lock_file_take(context, params->checkpoint_path, &r->lock));
    }
    if (params->metrics_path == NULL)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__append_open(params->metrics_path, &r->metrics));
    return pgrad__file_lock(context, r->metrics, params->metrics_path);
}

static pgrad_status make_run(pgrad__run *r, const pgrad_prompts *prompts)
{
    PGRAD__TRY(make_prompts(r, prompts));
    PGRAD__TRY(make_handles(r));
    PGRAD__TRY(check_run(r));
    warn(r);
    fill_params(r);
    PGRAD__TRY(settle_paths(r));
    PGRAD__TRY(plan_memory(r));
    PGRAD__TRY(take_memory(r));
    PGRAD__TRY(open_files(r));
    return pgrad__run_checkpoint_init(r);
}

static void free_run(pgrad__run *r)
{
    pgrad_context *context = r->model->context;
    pgrad_checkpoint_free(r->checkpoint);
    pgrad__lock_file_drop(&r->lock);
    pgrad__file_unlock(context, r->metrics);
    pgrad__append_close(r->metrics);
    if (r->has_evaluation)
        pgrad__evaluation_free(&r->evaluation);
    if (r->params.objective != NULL) /* of the host's: as it was */
        pgrad__objective_choose(r->params.objective, 0, PGRAD_RECOMPUTE_AUTO);
    pgrad_optimizer_free(r->own_optimizer);
    pgrad_objective_free(r->own_objective);
    pgrad_advantage_free(r->own_advantage);
    pgrad_sampler_free(r->own_sampler);
    pgrad_rollout_free(r->rollout);
    pgrad__prompt_set_free(&r->prompts);
    for (size_t i = 0; i < sizeof r->paths / sizeof r->paths[0]; i++)
        pgrad__free(context, r->paths[i]);
    pgrad__free(context, r->line);
    pgrad__free(context, r->window);
}

/* ---- one step ---- */

/* The closing evaluation takes as long as the last one. */
static double seconds_left(const pgrad__run *r)
{
    return r->params.max_seconds - (pgrad__os_seconds() - r->started) - r->evaluation_seconds;
}

static uint64_t updates_of_step(const pgrad__run *r)
{
    const uint64_t left = r->params.steps - r->report.steps;
    return left < r->params.epochs_per_step ? left : r->params.epochs_per_step;
}

/* clear, add_prompt; *n_tokens of the prompts. */
static pgrad_status take_prompts(pgrad__run *r, size_t *n_tokens)
{
    *n_tokens = 0;
    pgrad_rollout_clear(r->rollout);
    for (uint32_t i = 0; i < r->params.prompts_per_step; i++) {
        size_t n;
        PGRAD__TRY(
            pgrad__prompt_set_add(&r->prompts, pgrad__prompt_set_next(&r->prompts), r->rollout));
        (void)pgrad_rollout_prompt(r->rollout, i, &n);
        *n_tokens += n;
    }
    return PGRAD_OK;
}

/* generate, until the run's time is over: then the step is as if it had not begun. */
static pgrad_status generate(pgrad__run *r, int *in_time)
{
    const uint64_t first = pgrad_sampler_next_sequence(r->params.sampler);
    const double left = seconds_left(r);
    pgrad_generate_params params;
    pgrad_generate_params_init(&params, sizeof params);
    params.max_seconds = left > 0.0 ? left : 0.0;
    const pgrad_status status = pgrad_rollout_generate(r->rollout, r->params.sampler, &params);
    *in_time = status != PGRAD_E_DEADLINE;
    return *in_time ? status : pgrad_sampler_set_next_sequence(r->params.sampler, first);
}

/* (score), reward, advantage. */
static pgrad_status judge(pgrad__run *r, pgrad_step_report *report)
{
    if (needs_reference(r))
        PGRAD__TRY(pgrad_rollout_score(r->rollout, r->params.reference, PGRAD_REFERENCE));
    PGRAD__TRY(pgrad_reward_apply(r->reward, r->rollout));
    PGRAD__TRY(pgrad_advantage_apply(r->params.advantage, r->rollout));
    const int32_t answer = r->params.on_advantages == NULL
                               ? 1
                               : r->params.on_advantages(r->params.on_advantages_user, r->rollout);
    (void)pgrad__os_float_begin(); /* the host may have left another rounding mode */
    if (answer <= 0)
        return pgrad__fail(PGRAD_E_CALLBACK, "train.on_advantages asked to stop");
    return pgrad_rollout_report(r->rollout, report);
}

/* zero_grad, backward, step. A step that is not finite is refused and counted. */
static pgrad_status learn(pgrad__run *r, pgrad_step_report *report)
{
    double started = pgrad__os_seconds();
    for (uint32_t epoch = 0; epoch < r->params.epochs_per_step && r->report.steps < r->params.steps;
         epoch++) {
        PGRAD__TRY(pgrad_model_zero_grad(r->model));
        pgrad_status status =
            pgrad_objective_backward(r->params.objective, r->rollout, NULL, 0, NULL, report);
        if (status == PGRAD_OK)
            status = pgrad_optimizer_step(r->params.optimizer, report);
        if (status == PGRAD_E_NUMERIC) {
            r->report.n_skipped++;
            if (++r->refused_in_a_row >= MAX_REFUSED_IN_A_ROW)
                return pgrad__fail_in(status,
                                      "%d steps in a row were not finite: ", MAX_REFUSED_IN_A_ROW);
            pgrad__log_line(r->model->context, PGRAD_LOG_WARNING, "step refused: %s",
                            pgrad_error_message());
            break;
        }
        PGRAD__TRY(status);
        r->refused_in_a_row = 0;
        r->report.steps++;
    }
    report->seconds_train = pgrad__os_seconds() - started;
    return PGRAD_OK;
}

static pgrad_status write_metrics(pgrad__run *r, const pgrad_step_report *report)
{
    size_t length;
    if (r->metrics < 0)
        return PGRAD_OK;
    pgrad_status status = pgrad_metrics_json(report, r->line, r->line_capacity, &length);
    if (status == PGRAD_E_BUFFER) {
        PGRAD__TRY(pgrad__reserve(r->model->context, &r->line, &r->line_capacity, length + 1, 1));
        status = pgrad_metrics_json(report, r->line, r->line_capacity, &length);
    }
    PGRAD__TRY(status);
    r->line[length] = '\n'; /* in the place of the NUL */
    return pgrad__append_write(r->metrics, r->params.metrics_path, r->line, length + 1);
}

static pgrad_status save(pgrad__run *r)
{
    pgrad_save_params params;
    if (r->params.save_path == NULL)
        return PGRAD_OK;
    pgrad_save_params_init(&params, sizeof params);
    params.tokenizer = r->tokenizer;
    return pgrad_model_save(r->model, r->params.save_path, &params);
}

/* 1 when the mean reward over a full window reached the target. */
static int target_reached(pgrad__run *r, double reward)
{
    const uint64_t window = r->params.target_window;
    if (isnan(reward))
        return 0;
    r->window[r->n_rewards % window] = reward;
    r->n_rewards++;
    if (r->n_rewards < window)
        return 0;
    double sum = 0.0;
    for (uint64_t i = 0; i < window; i++)
        sum += r->window[i];
    return sum / (double)window >= r->params.target_reward;
}

/* 1 when one of the steps since `before` was a multiple of `every`. */
static int is_due(const pgrad__run *r, uint64_t before, uint64_t every)
{
    return every > 0 && r->report.steps / every > before / every;
}

static void remember_times(pgrad__run *r, const pgrad_step_report *report, size_t n_prompt_tokens,
                           uint64_t n_updates)
{
    const pgrad__step_times times = {.prompt_tokens = (double)n_prompt_tokens,
                                     .completion_tokens = report->n_tokens,
                                     .n_updates = (double)n_updates,
                                     .generate = report->seconds_generate,
                                     .train = report->seconds_train,
                                     .other = report->seconds - report->seconds_generate -
                                              report->seconds_train};
    pgrad__predictor_add(&r->predictor, &times);
}

/* The same weights are evaluated once. */
static pgrad_status evaluate(pgrad__run *r, double *mean)
{
    if (r->evaluations == 0 || r->evaluated_steps != r->report.steps) {
        const double started = pgrad__os_seconds();
        PGRAD__TRY(pgrad__evaluate(&r->evaluation, r->reward, &r->evaluated));
        r->evaluation_seconds = pgrad__os_seconds() - started;
        r->evaluated_steps = r->report.steps;
        r->evaluations++;
    }
    *mean = r->evaluated;
    return PGRAD_OK;
}

/* Whether the host, or the reward it waits for, ends the run behind this step. The reward counts
 * either way: the run may be taken up. */
static int ends_run(pgrad__run *r, const pgrad_step_report *report)
{
    const int reached = target_reached(r, report->reward);
    const int32_t answer =
        r->params.report == NULL ? 1 : r->params.report(r->params.report_user, report, r->rollout);
    (void)pgrad__os_float_begin(); /* the host may have left another rounding mode */
    if (answer <= 0)
        r->report.stopped = PGRAD_STOPPED_HOST;
    else if (reached)
        r->report.stopped = PGRAD_STOPPED_TARGET;
    else
        return 0;
    return 1;
}

/* What follows the updates, which began at `before` steps: evaluation, metrics, saves, the host. */
static pgrad_status close_step(pgrad__run *r, uint64_t before, pgrad_step_report *report, int *stop)
{
    if (isnan(r->report.first_reward))
        r->report.first_reward = report->reward;
    r->report.last_reward = report->reward;
    if (r->has_evaluation && is_due(r, before, r->params.eval_every)) {
        PGRAD__TRY(evaluate(r, &r->report.eval_after));
        report->eval_reward = r->report.eval_after;
    }
    PGRAD__TRY(write_metrics(r, report));
    if (is_due(r, before, r->params.save_every))
        PGRAD__TRY(save(r));
    *stop = ends_run(r, report);
    if (!*stop && is_due(r, before, r->params.checkpoint_every))
        return pgrad__run_checkpoint(r);
    return PGRAD_OK;
}

static pgrad_status one_step(pgrad__run *r, int *stop)
{
    const double started = pgrad__os_seconds();
    const uint64_t before = r->report.steps, n_updates = updates_of_step(r);
    const uint64_t epoch = r->prompts.epoch, cursor = r->prompts.cursor;
    size_t n_prompt_tokens;
    int in_time;
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    PGRAD__TRY(take_prompts(r, &n_prompt_tokens));
    report.seconds_predicted =
        pgrad__predictor_seconds(&r->predictor, (double)n_prompt_tokens, (double)n_updates);
    if (!isnan(report.seconds_predicted))
        pgrad__log_line(r->model->context, PGRAD_LOG_INFO, "step %llu: some %.1f s",
                        (unsigned long long)before + 1, report.seconds_predicted);
    in_time = !(report.seconds_predicted > seconds_left(r)); /* a NaN says nothing */
    if (in_time)
        PGRAD__TRY(generate(r, &in_time));
    if (!in_time) {
        pgrad__prompt_set_seek(&r->prompts, epoch, cursor);
        r->report.stopped = PGRAD_STOPPED_SECONDS;
        *stop = 1;
        return PGRAD_OK;
    }
    report.seconds_generate = pgrad__os_seconds() - started;
    PGRAD__TRY(judge(r, &report));
    if (report.n_unscored > 0.0 && report.n_unscored == report.n_sequences)
        pgrad__log_line(r->model->context, PGRAD_LOG_WARNING,
                        "reward '%s' applies to none of the step's %.0f completions: nothing is "
                        "learnt from them",
                        r->reward->name, report.n_sequences);
    PGRAD__TRY(learn(r, &report));
    report.step = r->report.steps;
    report.seconds = pgrad__os_seconds() - started;
    remember_times(r, &report, n_prompt_tokens, n_updates);
    if (report.seconds_generate > 0.0)
        report.tokens_per_second = report.n_tokens / report.seconds_generate;
    return close_step(r, before, &report, stop);
}

static pgrad_status loop(pgrad__run *r)
{
    int stop = 0;
    PGRAD__TRY(pgrad__run_resume(r));
    if (r->has_evaluation && r->report.steps_before == 0)
        PGRAD__TRY(evaluate(r, &r->report.eval_before));
    while (!stop) {
        PGRAD__TRY(pgrad__progress(r->model->context, "train", r->report.steps, r->params.steps));
        if (r->report.steps >= r->params.steps) {
            r->report.stopped = PGRAD_STOPPED_STEPS;
            break;
        }
        if (seconds_left(r) <= 0.0) {
            r->report.stopped = PGRAD_STOPPED_SECONDS;
            break;
        }
        PGRAD__TRY(one_step(r, &stop));
    }
    if (r->has_evaluation)
        PGRAD__TRY(evaluate(r, &r->report.eval_after));
    PGRAD__TRY(save(r));
    PGRAD__TRY(pgrad__run_checkpoint(r));
    return r->checkpoint == NULL ? PGRAD_OK : pgrad_checkpoint_wait(r->checkpoint);
}

/* The callbacks may drop the host's references. */
static void hold_handles(pgrad__run *r)
{
    r->held = r->params;
    pgrad__model_retain(r->model);
    atomic_fetch_add(&r->reward->references, 1);
    if (r->tokenizer != NULL)
        pgrad__tokenizer_retain(r->tokenizer);
    if (r->held.reference != NULL)
        pgrad__model_retain(r->held.reference);
    if (r->held.sampler != NULL)
        atomic_fetch_add(&r->held.sampler->references, 1);
    if (r->held.advantage != NULL)
        atomic_fetch_add(&r->held.advantage->references, 1);
    if (r->held.objective != NULL)
        atomic_fetch_add(&r->held.objective->references, 1);
    if (r->held.optimizer != NULL)
        atomic_fetch_add(&r->held.optimizer->references, 1);
}

static void drop_handles(pgrad__run *r)
{
    pgrad_optimizer_free(r->held.optimizer);
    pgrad_objective_free(r->held.objective);
    pgrad_advantage_free(r->held.advantage);
    pgrad_sampler_free(r->held.sampler);
    pgrad_model_free(r->held.reference);
    pgrad_tokenizer_free(r->tokenizer);
    pgrad_reward_free(r->reward);
    pgrad_model_free(r->model);
}

static pgrad_status train(pgrad__run *r, const pgrad_prompts *prompts,
                          const pgrad_train_params *params)
{
    pgrad__scope scope;
    PGRAD__TRY(pgrad__enter(r->model->context, &scope));
    pgrad_status status = pgrad__params_read("train", params, &r->params);
    if (status == PGRAD_OK) {
        hold_handles(r);
        status = make_run(r, prompts);
        if (status == PGRAD_OK)
            status = loop(r);
        free_run(r);
        drop_handles(r);
    }
    pgrad__leave(&scope);
    return status;
}

pgrad_status pgrad_train(pgrad_model *model, pgrad_tokenizer *tokenizer, pgrad_reward *reward,
                         const pgrad_prompts *prompts, const pgrad_train_params *params,
                         pgrad_train_report *out)
{
    if (model == NULL || reward == NULL || prompts == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "train: %s is NULL",
                           model == NULL    ? "model"
                           : reward == NULL ? "reward"
                                            : "prompts");
    pgrad__run r = {.model = model,
                    .tokenizer = tokenizer,
                    .reward = reward,
                    .metrics = -1,
                    .started = pgrad__os_seconds()};
    r.report.stopped = PGRAD_STOPPED_ERROR;
    r.report.first_reward = r.report.last_reward = NAN;
    r.report.eval_before = r.report.eval_after = NAN;
    pgrad_status status = train(&r, prompts, params);
    if (status != PGRAD_OK)
        r.report.stopped = PGRAD_STOPPED_ERROR;
    r.report.seconds = pgrad__os_seconds() - r.started;
    if (out != NULL) {
        pgrad_status written = pgrad__struct_write("train_report", &r.report, sizeof r.report, out);
        if (status == PGRAD_OK)
            status = written;
    }
    return status;
}
