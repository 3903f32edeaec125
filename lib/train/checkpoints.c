/* Checkpoints of pgrad_train: its own state beside that of the handles, and taking a run up. */
#include <math.h>
#include <string.h>

#include "base/fail.h"
#include "base/os.h"
#include "base/strbuf.h"
#include "io/append.h"
#include "io/zstream.h"
#include "rl/checkpoint.h"
#include "rl/optimizer.h"
#include "train/run.h"

/* ---- the run's own part ---- */

static pgrad_context *run_context(const void *handle)
{
    return ((const pgrad__run *)handle)->model->context;
}

static void keep_or_release(void *handle)
{
    (void)handle; /* the run outlives its checkpoint */
}

/* What must be as it was: the data, and what a step does with it. */
static pgrad_status match_run(const pgrad__run *r, pgrad__state *state)
{
    const pgrad_train_params *params = &r->params;
    const struct {
        const char *name;
        uint64_t value;
    } SAME[] = {{"prompts_per_step", params->prompts_per_step},
                {"group_size", params->group_size},
                {"max_new_tokens", params->max_new_tokens},
                {"epochs_per_step", params->epochs_per_step},
                {"target_window", params->target_window},
                {"seed", params->seed},
                {"n_prompts", r->prompts.source.n},
                {"prompts", r->prompts_crc},
                {"reference", r->reference_crc}};
    for (size_t i = 0; i < sizeof SAME / sizeof SAME[0]; i++)
        PGRAD__TRY(pgrad__state_match(state, SAME[i].name, SAME[i].value));
    return PGRAD_OK;
}

static pgrad_status run_describe(void *handle, pgrad__state *state)
{
    pgrad__run *r = handle;
    pgrad_train_report *report = &r->report;
    const size_t window = (size_t)r->params.target_window * sizeof(double);
    PGRAD__TRY(match_run(r, state));
    PGRAD__TRY(pgrad__state_u64(state, "steps", &report->steps, PGRAD__COUNTER));
    PGRAD__TRY(pgrad__state_u32(state, "n_skipped", &report->n_skipped, 0));
    PGRAD__TRY(pgrad__state_u32(state, "refused_in_a_row", &r->refused_in_a_row, 0));
    PGRAD__TRY(pgrad__state_f64(state, "first_reward", &report->first_reward, PGRAD__NOT_FINITE));
    PGRAD__TRY(pgrad__state_f64(state, "last_reward", &report->last_reward, PGRAD__NOT_FINITE));
    PGRAD__TRY(pgrad__state_f64(state, "eval_before", &report->eval_before, PGRAD__NOT_FINITE));
    PGRAD__TRY(pgrad__state_f64(state, "eval_after", &report->eval_after, PGRAD__NOT_FINITE));
    PGRAD__TRY(pgrad__state_u64(state, "n_rewards", &r->n_rewards, PGRAD__COUNTER));
    PGRAD__TRY(pgrad__state_u64(state, "epoch", &r->prompts.epoch, PGRAD__COUNTER));
    PGRAD__TRY(pgrad__state_u64(state, "cursor", &r->prompts.cursor, PGRAD__COUNTER));
    PGRAD__TRY(pgrad__state_u64(state, "metrics_size", &r->metrics_size, PGRAD__COUNTER));
    PGRAD__TRY(pgrad__state_u32(state, "metrics_crc", &r->metrics_crc, 0));
    return pgrad__state_array(state, &(pgrad__array){.prefix = "",
                                                     .name = "window",
                                                     .element = PGRAD__CANONICAL_BYTE,
                                                     .dims = {window, 1},
                                                     .n_in = window,
                                                     .data = r->window,
                                                     .bytes = window,
                                                     .slots = {&r->window}});
}

static pgrad_status run_accept(void *handle, const pgrad__state *state)
{
    const pgrad__run *r = handle;
    const pgrad__array *window = pgrad__state_find(state, "window");
    const uint64_t cursor = pgrad__state_record(state, "cursor")->restored;
    if (cursor > r->prompts.source.n)
        return pgrad__fail(PGRAD_E_FORMAT, "checkpoint: prompt %llu of %zu comes next",
                           (unsigned long long)cursor, r->prompts.source.n);
    for (size_t i = 0; i < r->params.target_window; i++)
        if (!isfinite(((const double *)window->staged)[i]))
            return pgrad__fail(PGRAD_E_FORMAT, "checkpoint: window: reward %zu is not finite", i);
    return PGRAD_OK;
}

static void run_restored(void *handle, pgrad__state *state)
{
    pgrad__run *r = handle;
    (void)state;
    pgrad__prompt_set_seek(&r->prompts, r->prompts.epoch, r->prompts.cursor);
}

static const pgrad__kind RUN = {.number = PGRAD_KIND_TRAIN,
                                .name = "training run",
                                .context = run_context,
                                .retain = keep_or_release,
                                .release = keep_or_release,
                                .describe = run_describe,
                                .accept = run_accept,
                                .restored = run_restored};

/* ---- making and writing ---- */

enum { N_PARTS = 6 };

static void list_parts(pgrad__run *r, pgrad__restoring parts[N_PARTS])
{
    const pgrad__restoring all[N_PARTS] = {
        {.name = "policy", .kind = pgrad__kind_find(PGRAD_KIND_MODEL), .handle = r->model},
        {.name = "optimizer",
         .kind = pgrad__kind_find(PGRAD_KIND_OPTIMIZER),
         .handle = r->params.optimizer},
        {.name = "sampler",
         .kind = pgrad__kind_find(PGRAD_KIND_SAMPLER),
         .handle = r->params.sampler},
        {.name = "advantage",
         .kind = pgrad__kind_find(PGRAD_KIND_ADVANTAGE),
         .handle = r->params.advantage},
        {.name = "objective",
         .kind = pgrad__kind_find(PGRAD_KIND_OBJECTIVE),
         .handle = r->params.objective},
        {.name = "train", .kind = &RUN, .handle = r}};
    memcpy(parts, all, sizeof all);
}

/* Of the ids and where each prompt ends. */
static uint32_t crc_of_prompts(const pgrad__prompt_set *set)
{
    uint32_t crc = pgrad__crc32(0, set->ids, set->n_ids * sizeof *set->ids);
    return pgrad__crc32(crc, set->offsets, (set->source.n + 1) * sizeof *set->offsets);
}

pgrad_status pgrad__run_checkpoint_init(pgrad__run *r)
{
    pgrad__restoring parts[N_PARTS];
    r->checkpointed = UINT64_MAX;
    if (r->params.checkpoint_path == NULL) {
        if (r->params.resume != PGRAD_RESUME_OFF)
            return pgrad__fail(PGRAD_E_INVALID, "train.resume: there is no checkpoint_path");
        return PGRAD_OK;
    }
    r->prompts_crc = crc_of_prompts(&r->prompts);
    if (r->params.reference != NULL)
        PGRAD__TRY(pgrad__weights_crc(r->params.reference, &r->reference_crc));
    PGRAD__TRY(pgrad_checkpoint_create(r->model->context, &r->checkpoint));
    list_parts(r, parts);
    for (int i = 0; i < N_PARTS; i++)
        PGRAD__TRY(
            pgrad__checkpoint_add(r->checkpoint, parts[i].name, parts[i].kind, parts[i].handle));
    return PGRAD_OK;
}

pgrad_status pgrad__run_checkpoint(pgrad__run *r)
{
    pgrad_checkpoint_params params;
    if (r->checkpoint == NULL || r->checkpointed == r->report.steps)
        return PGRAD_OK;
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.keep = r->params.checkpoint_keep;
    params.background = r->params.checkpoint_background;
    if (r->params.metrics_path != NULL)
        PGRAD__TRY(pgrad__append_mark(r->model->context, r->params.metrics_path, &r->metrics_size,
                                      &r->metrics_crc));
    const int32_t answer =
        r->params.on_checkpoint == NULL
            ? 1
            : r->params.on_checkpoint(r->params.on_checkpoint_user, r->checkpoint);
    (void)pgrad__os_float_begin(); /* the host may have left another rounding mode */
    if (answer <= 0)
        return pgrad__fail(PGRAD_E_CALLBACK, "train.on_checkpoint asked to stop");
    PGRAD__TRY(pgrad_checkpoint_write(r->checkpoint, r->params.checkpoint_path, &params));
    r->checkpointed = r->report.steps;
    return PGRAD_OK;
}

/* ---- taking a run up ---- */

/* Between two steps nothing else holds the metrics file. */
static void rewind_metrics(const pgrad__run *r)
{
    char text[PGRAD__PATH_MAX];
    if (r->metrics >= 0 && r->metrics_size > 0 &&
        !pgrad__append_rewind(r->model->context, r->metrics, r->params.metrics_path,
                              r->metrics_size, r->metrics_crc))
        pgrad__log_line(r->model->context, PGRAD_LOG_WARNING,
                        "%s: not the file that the checkpoint speaks of; appended to as it is",
                        pgrad__path_text(text, r->params.metrics_path));
}

/* Each of the handles, or none. */
static pgrad_status take_up(pgrad__run *r, pgrad_checkpoint *opened, const char *path)
{
    pgrad__restoring parts[N_PARTS];
    pgrad_optimizer *optimizer = r->params.optimizer;
    const double learning_rate = optimizer->params.learning_rate;
    char text[PGRAD__PATH_MAX];
    list_parts(r, parts);
    PGRAD__TRY(pgrad__checkpoint_restore(opened, parts, N_PARTS));
    if (optimizer->params.learning_rate != learning_rate) {
        const int ours = optimizer == r->own_optimizer;
        pgrad__log_line(r->model->context, PGRAD_LOG_WARNING,
                        "learning_rate: %g in the checkpoint, %g given; %s is used",
                        optimizer->params.learning_rate, learning_rate,
                        ours ? "the one given" : "the checkpoint's");
        if (ours)
            optimizer->params.learning_rate = learning_rate;
    }
    r->report.steps_before = r->checkpointed = r->report.steps;
    rewind_metrics(r);
    pgrad__log_line(r->model->context, PGRAD_LOG_INFO, "%s: taken up after %llu steps",
                    pgrad__path_text(text, path), (unsigned long long)r->report.steps);
    return PGRAD_OK;
}

/* Tries one file: *done when it was good. One that is damaged is told in `bad`, and is no failure;
 * one that is whole and does not fit is. */
static pgrad_status try_file(pgrad__run *r, const char *path, pgrad__strbuf *bad, int *done)
{
    pgrad_checkpoint *opened;
    if (pgrad__path_kind(path) == PGRAD__PATH_NONE)
        return PGRAD_OK;
    pgrad_status status = pgrad_checkpoint_open(r->model->context, path, &opened);
    if (status == PGRAD_E_FORMAT || status == PGRAD_E_IO) {
        pgrad__log_line(r->model->context, PGRAD_LOG_WARNING,
                        "train.resume: %s; an older file is tried", pgrad_error_message());
        pgrad__strbuf_format(bad, "%s%s", bad->length > 0 ? "; " : "", pgrad_error_message());
        return bad->status;
    }
    PGRAD__TRY(status);
    status = take_up(r, opened, path);
    pgrad_checkpoint_free(opened);
    *done = status == PGRAD_OK;
    return status;
}

static pgrad_status none_found(const pgrad__run *r, const pgrad__strbuf *bad)
{
    char text[PGRAD__PATH_MAX];
    if (bad->length > 0)
        return pgrad__fail(PGRAD_E_FORMAT, "train.resume: no checkpoint is good: %s", bad->data);
    if (r->params.resume == PGRAD_RESUME_AUTO)
        return PGRAD_OK;
    return pgrad__fail(PGRAD_E_IO, "train.resume: there is no checkpoint at %s",
                       pgrad__path_text(text, r->params.checkpoint_path));
}

pgrad_status pgrad__run_resume(pgrad__run *r)
{
    pgrad__strbuf path = {.context = r->model->context}, bad = path;
    pgrad_status status = PGRAD_OK;
    int done = 0;
    if (r->params.resume == PGRAD_RESUME_OFF)
        return PGRAD_OK;
    for (uint32_t i = 0; !done && i < PGRAD__MAX_KEPT; i++) {
        pgrad__strbuf_clear(&path);
        pgrad__strbuf_text(&path, r->params.checkpoint_path);
        if (i > 0)
            pgrad__strbuf_format(&path, ".%u", i);
        PGRAD__GO(path.status);
        PGRAD__GO(try_file(r, path.data, &bad, &done));
    }
    if (!done)
        status = none_found(r, &bad);
fail:
    pgrad__strbuf_free(&path);
    pgrad__strbuf_free(&bad);
    return status;
}
