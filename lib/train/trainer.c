/* pgrad_train: the calls of a step in a loop, with its stops, reports, saves and evaluations. */
#include <policygrad/trainer.h>

#include <math.h>
#include <stdlib.h>
#include <string.h>

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
#include "rl/advantage.h"
#include "rl/objective.h"
#include "train/evaluate.h"

enum { MAX_REFUSED_IN_A_ROW = 3 };

typedef struct run {
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_reward *reward;
    pgrad_train_params params;
    pgrad__prompt_set prompts;
    pgrad_rollout *rollout;
    /* handles the host did not give are made here and freed at the end */
    pgrad_sampler *own_sampler;
    pgrad_advantage *own_advantage;
    pgrad_objective *own_objective;
    pgrad_optimizer *own_optimizer;
    int has_evaluation;
    pgrad__evaluation evaluation;
    int metrics; /* descriptor, -1: none */
    char *line;
    size_t line_capacity;
    double *window; /* rewards of the last target_window steps */
    uint64_t n_rewards;
    uint32_t refused_in_a_row;
    double started;
    pgrad_train_report report;
} run;

/* ---- making and freeing a run ---- */

static pgrad_status make_handles(run *r)
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
        PGRAD__TRY(pgrad_objective_create(r->model, NULL, &r->own_objective));
        params->objective = r->own_objective;
    }
    if (params->optimizer == NULL) {
        pgrad_optimizer_params optimizer;
        pgrad_optimizer_params_init(&optimizer, sizeof optimizer);
        optimizer.learning_rate = params->learning_rate;
        PGRAD__TRY(pgrad_optimizer_create(r->model, &optimizer, &r->own_optimizer));
        params->optimizer = r->own_optimizer;
    }
    return PGRAD_OK;
}

static int needs_reference(const run *r)
{
    return r->params.advantage->params.kl_beta > 0.0 ||
           (r->params.objective->params.kl_beta > 0.0 &&
            r->params.objective->params.kl != PGRAD_KL_NONE);
}

static pgrad_status check_run(const run *r)
{
    if (needs_reference(r) && r->params.reference == NULL)
        return pgrad__fail(
            PGRAD_E_INVALID,
            "train.reference: a KL term is switched on (kl_beta > 0), but no reference "
            "model is given");
    if (r->params.epochs_per_step > 1 && r->params.objective->params.loss != PGRAD_LOSS_PPO_CLIP)
        return pgrad__fail(PGRAD_E_INVALID,
                           "train.epochs_per_step: %u updates per rollout need the PPO_CLIP loss",
                           r->params.epochs_per_step);
    return PGRAD_OK;
}

static pgrad_status make_rollout(run *r)
{
    pgrad_rollout_params rollout;
    if (r->params.prompts_per_step > r->prompts.source->n)
        return pgrad__fail(
            PGRAD_E_INVALID,
            "train.prompts_per_step: expected at most the %zu prompts given, found %u",
            r->prompts.source->n, r->params.prompts_per_step);
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    rollout.group_size = r->params.group_size;
    rollout.max_prompts = r->params.prompts_per_step;
    rollout.max_prompt_tokens = r->prompts.max_tokens;
    rollout.max_new_tokens = r->params.max_new_tokens;
    return pgrad_rollout_create(r->model, r->tokenizer, &rollout, &r->rollout);
}

static pgrad_status make_run(run *r, const pgrad_prompts *prompts)
{
    pgrad_context *context = r->model->context;
    PGRAD__TRY(pgrad__prompt_set_init(&r->prompts, context, r->tokenizer, prompts, r->params.seed));
    PGRAD__TRY(make_rollout(r));
    PGRAD__TRY(make_handles(r));
    PGRAD__TRY(check_run(r));
    PGRAD__TRY(pgrad__calloc(context, (size_t)r->params.target_window, sizeof(double), &r->window));
    if (r->params.eval_prompts != NULL) {
        PGRAD__TRY(pgrad__evaluation_init(&r->evaluation, r->model, r->tokenizer,
                                          r->params.eval_prompts, r->params.max_new_tokens));
        r->has_evaluation = 1;
    }
    if (r->params.metrics_path != NULL)
        PGRAD__TRY(pgrad__append_open(r->params.metrics_path, &r->metrics));
    return PGRAD_OK;
}

static void free_run(run *r)
{
    pgrad_context *context = r->model->context;
    pgrad__append_close(r->metrics);
    if (r->has_evaluation)
        pgrad__evaluation_free(&r->evaluation);
    pgrad_optimizer_free(r->own_optimizer);
    pgrad_objective_free(r->own_objective);
    pgrad_advantage_free(r->own_advantage);
    pgrad_sampler_free(r->own_sampler);
    pgrad_rollout_free(r->rollout);
    pgrad__prompt_set_free(&r->prompts);
    pgrad__free(context, r->line);
    pgrad__free(context, r->window);
}

/* ---- one step ---- */

/* clear, add_prompt, generate, (score), reward, advantage. */
static pgrad_status roll_out(run *r, pgrad_step_report *report)
{
    double started = pgrad__os_seconds();
    pgrad_rollout_clear(r->rollout);
    for (uint32_t i = 0; i < r->params.prompts_per_step; i++)
        PGRAD__TRY(
            pgrad__prompt_set_add(&r->prompts, pgrad__prompt_set_next(&r->prompts), r->rollout));
    PGRAD__TRY(pgrad_rollout_generate(r->rollout, r->params.sampler, NULL));
    report->seconds_generate = pgrad__os_seconds() - started;
    if (needs_reference(r))
        PGRAD__TRY(pgrad_rollout_score(r->rollout, r->params.reference, PGRAD_REFERENCE));
    PGRAD__TRY(pgrad_reward_apply(r->reward, r->rollout));
    PGRAD__TRY(pgrad_advantage_apply(r->params.advantage, r->rollout));
    if (r->params.on_advantages != NULL &&
        r->params.on_advantages(r->params.on_advantages_user, r->rollout) <= 0)
        return pgrad__fail(PGRAD_E_CALLBACK, "train.on_advantages asked to stop");
    return pgrad_rollout_report(r->rollout, report);
}

/* zero_grad, backward, step. A step that is not finite is refused and counted; *refused says so. */
static pgrad_status learn(run *r, pgrad_step_report *report, int *refused)
{
    double started = pgrad__os_seconds();
    *refused = 0;
    for (uint32_t epoch = 0; epoch < r->params.epochs_per_step; epoch++) {
        PGRAD__TRY(pgrad_model_zero_grad(r->model));
        pgrad_status status =
            pgrad_objective_backward(r->params.objective, r->rollout, NULL, 0, NULL, report);
        if (status == PGRAD_OK)
            status = pgrad_optimizer_step(r->params.optimizer, report);
        if (status == PGRAD_E_NUMERIC && ++r->refused_in_a_row < MAX_REFUSED_IN_A_ROW) {
            r->report.n_skipped++;
            *refused = 1;
            pgrad__log_line(r->model->context, PGRAD_LOG_WARNING, "step refused: %s",
                            pgrad_error_message());
            break;
        }
        if (status == PGRAD_E_NUMERIC) {
            r->report.n_skipped++;
            return pgrad__fail_in(status,
                                  "%d steps in a row were not finite: ", MAX_REFUSED_IN_A_ROW);
        }
        PGRAD__TRY(status);
        r->refused_in_a_row = 0;
        r->report.steps++;
    }
    report->seconds_train = pgrad__os_seconds() - started;
    return PGRAD_OK;
}

static pgrad_status write_metrics(run *r, const pgrad_step_report *report)
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

static pgrad_status save(run *r)
{
    pgrad_save_params params;
    if (r->params.save_path == NULL)
        return PGRAD_OK;
    pgrad_save_params_init(&params, sizeof params);
    params.tokenizer = r->tokenizer;
    return pgrad_model_save(r->model, r->params.save_path, &params);
}

/* 1 when the mean reward over a full window reached the target. */
static int target_reached(run *r, double reward)
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

static pgrad_status one_step(run *r, int *stop)
{
    double started = pgrad__os_seconds();
    int refused;
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    PGRAD__TRY(roll_out(r, &report));
    PGRAD__TRY(learn(r, &report, &refused));
    report.step = r->report.steps;
    report.seconds = pgrad__os_seconds() - started;
    if (report.seconds_generate > 0.0)
        report.tokens_per_second = report.n_tokens / report.seconds_generate;
    if (isnan(r->report.first_reward))
        r->report.first_reward = report.reward;
    r->report.last_reward = report.reward;
    PGRAD__TRY(write_metrics(r, &report));

    if (!refused && r->params.save_every > 0 && r->report.steps % r->params.save_every == 0)
        PGRAD__TRY(save(r));
    if (r->has_evaluation && r->params.eval_every > 0 &&
        r->report.steps % r->params.eval_every == 0)
        PGRAD__TRY(pgrad__evaluate(&r->evaluation, r->reward, &r->report.eval_after));
    if (r->params.report != NULL &&
        r->params.report(r->params.report_user, &report, r->rollout) <= 0) {
        r->report.stopped = PGRAD_STOPPED_HOST;
        *stop = 1;
    } else if (target_reached(r, report.reward)) {
        r->report.stopped = PGRAD_STOPPED_TARGET;
        *stop = 1;
    }
    return PGRAD_OK;
}

static pgrad_status loop(run *r)
{
    int stop = 0;
    if (r->has_evaluation)
        PGRAD__TRY(pgrad__evaluate(&r->evaluation, r->reward, &r->report.eval_before));
    while (!stop) {
        PGRAD__TRY(pgrad__progress(r->model->context, "train", r->report.steps, r->params.steps));
        if (r->report.steps >= r->params.steps) {
            r->report.stopped = PGRAD_STOPPED_STEPS;
            break;
        }
        if (pgrad__os_seconds() - r->started >= r->params.max_seconds) {
            r->report.stopped = PGRAD_STOPPED_SECONDS;
            break;
        }
        PGRAD__TRY(one_step(r, &stop));
    }
    if (r->has_evaluation)
        PGRAD__TRY(pgrad__evaluate(&r->evaluation, r->reward, &r->report.eval_after));
    return save(r);
}

static pgrad_status train(run *r, const pgrad_prompts *prompts, const pgrad_train_params *params)
{
    pgrad__scope scope;
    PGRAD__TRY(pgrad__enter(r->model->context, &scope));
    pgrad_status status = pgrad__params_read("train", params, &r->params);
    if (status == PGRAD_OK)
        status = make_run(r, prompts);
    if (status == PGRAD_OK)
        status = loop(r);
    free_run(r);
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
    run r = {.model = model,
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
