/* Which of the ways to run fits under a memory limit, and what is said when none does. */
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include "base/checked.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "base/pool.h"
#include "rl/estimate.h"

void pgrad_plan_params_init(pgrad_plan_params *params, size_t size)
{
    pgrad__params_init("plan", params, size);
}

/* ---- what is open ---- */

enum { N_MICRO = 6, N_SLOTS = 7, N_RECOMPUTE = 2, N_MOMENTS = 3, N_KV = 2 };

/* Values to choose from, the dearest in memory first; one where params say it. */
typedef struct options {
    uint32_t micro[N_MICRO], slots[N_SLOTS], recompute[N_RECOMPUTE], moments[N_MOMENTS], kv[N_KV];
    size_t n_micro, n_slots, n_recompute, n_moments, n_kv;
} options;

static size_t list(uint32_t *to, const uint32_t *all, size_t n, int open, uint32_t given)
{
    if (!open) {
        to[0] = given;
        return 1;
    }
    memcpy(to, all, n * sizeof *to);
    return n;
}

static int either_auto(const pgrad__plan *plan)
{
    return (plan->has_rollout && plan->rollout.kv_storage == PGRAD_KV_AUTO) ||
           (plan->has_evaluation && plan->evaluation.kv_storage == PGRAD_KV_AUTO);
}

static uint64_t sequences_of(const pgrad_rollout_params *rollout)
{
    return (uint64_t)rollout->max_prompts * rollout->group_size;
}

static options options_of(const pgrad__plan *plan)
{
    static const uint32_t micro[N_MICRO] = {PGRAD__MICRO_BATCH_TOKENS, 1024, 512, 256, 128, 64};
    static const uint32_t recompute[N_RECOMPUTE] = {PGRAD_RECOMPUTE_OFF, PGRAD_RECOMPUTE_ON};
    static const uint32_t moments[N_MOMENTS] = {PGRAD_MOMENTS_F32, PGRAD_MOMENTS_BF16,
                                                PGRAD_MOMENTS_Q8};
    static const uint32_t kv[N_KV] = {PGRAD_KV_F32, PGRAD_KV_F16};
    static const uint32_t slots[N_SLOTS] = {PGRAD__BATCH_SIZE, 32, 16, 8, 4, 2, 1};
    const uint64_t n = sequences_of(&plan->rollout), n_other = sequences_of(&plan->evaluation);
    const pgrad_objective_params *objective = &plan->objective;
    options o;
    size_t first = 0;
    o.n_micro =
        list(o.micro, micro, N_MICRO, plan->has_objective && objective->micro_batch_tokens == 0,
             objective->micro_batch_tokens);
    o.n_recompute = list(o.recompute, recompute, N_RECOMPUTE,
                         plan->has_objective && objective->recompute == PGRAD_RECOMPUTE_AUTO,
                         objective->recompute);
    o.n_moments = list(o.moments, moments, N_MOMENTS,
                       plan->has_optimizer && plan->optimizer.moments == PGRAD_MOMENTS_AUTO,
                       plan->optimizer.moments);
    o.n_kv = list(o.kv, kv, N_KV, either_auto(plan), plan->rollout.kv_storage);
    if (plan->rollout.keep_activations == PGRAD_KEEP_ON && either_auto(plan))
        o.n_kv = 1; /* f32 alone goes with it */
    while (first + 1 < N_SLOTS && slots[first + 1] >= (n > n_other ? n : n_other))
        first++; /* no more than there are */
    o.n_slots = list(o.slots, slots + first, N_SLOTS - first,
                     plan->has_rollout && plan->rollout.batch_size == 0, plan->rollout.batch_size);
    return o;
}

/* The first of everything: what is in force without a limit. */
static pgrad__choice first_choice(const options *o)
{
    return (pgrad__choice){.batch_size = o->slots[0],
                           .micro_batch_tokens = o->micro[0],
                           .recompute = o->recompute[0],
                           .kv_storage = o->kv[0],
                           .moments = o->moments[0]};
}

/* ---- the search ---- */

/* Of a way to go backward: what it takes, and its time. */
typedef struct way {
    uint64_t bytes;
    double cost;
} way;

typedef struct search {
    const pgrad__plan *plan;
    pgrad_model *model;
    uint32_t n_workers;
    options options;
    way ways[N_MICRO][N_RECOMPUTE];
} search;

/* In tenths of what a row costs forward and backward: 6 FLOP a weight at some 130 GFLOPS, 46 ps. A
 * micro-batch more reads weights twice and gradients twice, 16 bytes a weight at some 40 GB/s, and
 * a little for its scratch; a step of decoding reads weights, 4 bytes, and is 2 FLOP a weight for
 * each sequence. */
enum {
    COST_OF_ROW = 10,
    COST_OF_RECOMPUTED = 11,
    COST_OF_MICRO_BATCH = 160,
    COST_OF_STEP = 22,
    COST_OF_DECODED = 3
};

static pgrad_status find_ways(search *s)
{
    const options *o = &s->options;
    for (size_t i = 0; i < o->n_micro; i++)
        for (size_t j = 0; j < o->n_recompute; j++) {
            const pgrad__choice choice = {.micro_batch_tokens = o->micro[i],
                                          .recompute = o->recompute[j]};
            pgrad__backward_need how;
            pgrad__need need = {0};
            PGRAD__TRY(pgrad__need_backward(s->plan, s->model, s->n_workers, &choice, &need, &how));
            s->ways[i][j] = (way){.bytes = pgrad__need_total(&need),
                                  .cost = (double)how.rows *
                                              (o->recompute[j] ? COST_OF_RECOMPUTED : COST_OF_ROW) +
                                          (double)how.n_micro_batches * COST_OF_MICRO_BATCH};
        }
    return PGRAD_OK;
}

/* A step decodes a token of each sequence that has a slot. */
static double cost_of_generating(const pgrad__plan *plan, uint32_t batch_size)
{
    const uint64_t n = sequences_of(&plan->rollout);
    if (!plan->has_rollout)
        return 0.0;
    const double steps = (double)(n / batch_size + (n % batch_size > 0)) * plan->completion_tokens;
    return steps * COST_OF_STEP + (double)n * plan->completion_tokens * COST_OF_DECODED;
}

/* Everything but the way back. */
static pgrad_status standing(const search *s, const pgrad__choice *choice, uint64_t *bytes)
{
    pgrad__need need = {0};
    pgrad__need_model(s->plan, s->model, &need);
    PGRAD__TRY(pgrad__need_rollouts(s->plan, s->model, s->n_workers, choice, &need));
    pgrad__need_moments(s->plan, s->model, choice, &need);
    *bytes = pgrad__need_total(&need);
    return PGRAD_OK;
}

/* The best so far: the cheapest that fits, or the leanest. */
typedef struct best {
    int fits;
    double cost;
    uint64_t bytes;
    pgrad__choice choice;
} best;

static void consider(const search *s, const pgrad__choice *of, uint64_t standing_bytes, best *found)
{
    const double generating = cost_of_generating(s->plan, of->batch_size);
    for (size_t i = 0; i < s->options.n_micro; i++)
        for (size_t j = 0; j < s->options.n_recompute; j++) {
            const way *w = &s->ways[i][j];
            best next = {.cost = generating + w->cost, .choice = *of};
            if (!pgrad__add(standing_bytes, w->bytes, &next.bytes))
                next.bytes = UINT64_MAX;
            next.fits = next.bytes <= s->plan->room;
            next.choice.micro_batch_tokens = s->options.micro[i];
            next.choice.recompute = s->options.recompute[j];
            if (next.fits ? !found->fits || next.cost < found->cost
                          : !found->fits && next.bytes < found->bytes)
                *found = next;
        }
}

/* The cheapest with the widest moments, then keys and values, that fit; without one the leanest. */
static pgrad_status choose(search *s, pgrad__choice *choice)
{
    const options *o = &s->options;
    best found = {.bytes = UINT64_MAX, .choice = *choice};
    PGRAD__TRY(find_ways(s));
    for (size_t kv = 0; kv < o->n_kv && !found.fits; kv++)
        for (size_t m = 0; m < o->n_moments && !found.fits; m++)
            for (size_t i = 0; i < o->n_slots; i++) {
                const pgrad__choice of = {
                    .kv_storage = o->kv[kv], .moments = o->moments[m], .batch_size = o->slots[i]};
                uint64_t bytes;
                PGRAD__TRY(standing(s, &of, &bytes));
                consider(s, &of, bytes, &found);
            }
    *choice = found.choice;
    return PGRAD_OK;
}

/* For the planned machine, so that the choice says nothing of the one at hand. */
static pgrad_status choose_planned(const pgrad__plan *plan, const pgrad_model *model,
                                   pgrad__choice *choice)
{
    const pgrad__machine machine = pgrad__machine_planned();
    search s = {.plan = plan, .n_workers = machine.n_workers, .options = options_of(plan)};
    *choice = first_choice(&s.options);
    if (plan->memory_limit == 0)
        return PGRAD_OK;
    PGRAD__TRY(pgrad__model_plan_copy(model, machine.kernels, model->storage, &s.model));
    const pgrad_status status = choose(&s, choice);
    pgrad_model_free(s.model);
    return status;
}

/* ---- the report ---- */

/* Of a choice, on this machine. */
static pgrad_status measure(const pgrad__plan *plan, pgrad_model *model,
                            const pgrad__choice *choice, pgrad_memory_report *out)
{
    const uint32_t n_workers = pgrad__n_workers(plan->context);
    pgrad__need rollouts = {0}, backward = {0};
    pgrad__backward_need how;
    pgrad__need_model(plan, model, &rollouts);
    PGRAD__TRY(pgrad__need_rollouts(plan, model, n_workers, choice, &rollouts));
    pgrad__need_moments(plan, model, choice, &rollouts);
    PGRAD__TRY(pgrad__need_backward(plan, model, n_workers, choice, &backward, &how));
    const uint64_t peak_rollout = pgrad__need_total(&rollouts);
    pgrad__need_add(&rollouts, &backward);
    const pgrad__arena *of = rollouts.of;
    *out = (pgrad_memory_report){.weights = of[PGRAD__NEED_WEIGHTS].used,
                                 .gradients = of[PGRAD__NEED_GRADIENTS].used,
                                 .moments = of[PGRAD__NEED_MOMENTS].used,
                                 .activations = of[PGRAD__NEED_ACTIVATIONS].used,
                                 .kv_cache = of[PGRAD__NEED_KV_CACHE].used,
                                 .scratch = of[PGRAD__NEED_SCRATCH].used,
                                 .rollout = of[PGRAD__NEED_ROLLOUT].used,
                                 .reference = of[PGRAD__NEED_REFERENCE].used,
                                 .other = of[PGRAD__NEED_OTHER].used,
                                 .checkpoint = of[PGRAD__NEED_CHECKPOINT].used,
                                 .total = pgrad__need_total(&rollouts),
                                 .peak_rollout = peak_rollout,
                                 .memory_limit = plan->memory_limit,
                                 .batch_size = choice->batch_size,
                                 .micro_batch_tokens = choice->micro_batch_tokens,
                                 .recompute = choice->recompute,
                                 .kv_storage = choice->kv_storage,
                                 .moments_storage = choice->moments,
                                 .n_micro_batches = how.n_micro_batches};
    PGRAD__TRY(pgrad__need_keep(plan, model, choice, &out->keep_activations));
    if (out->total == UINT64_MAX)
        return pgrad__fail(PGRAD_E_LIMIT, "plan: more memory than can be addressed");
    return PGRAD_OK;
}

/* ---- in words ---- */

const char *pgrad__moments_name(uint32_t moments)
{
    static const char *const NAMES[] = {"f32", "bf16", "q8"};
    return NAMES[moments];
}

const char *pgrad__kv_name(uint32_t kv_storage)
{
    static const char *const NAMES[] = {"f32", "f16", "bf16"};
    return NAMES[kv_storage];
}

/* ---- refusing ---- */

static double mib(uint64_t bytes)
{
    return (double)bytes / 1048576.0;
}

/* A list of ways out. */
typedef struct advice {
    char text[256];
    size_t length;
} advice;

__attribute__((format(printf, 2, 3))) static void advise(advice *to, const char *format, ...)
{
    const size_t room = sizeof to->text - to->length;
    va_list arguments;
    va_start(arguments, format);
    const int n = vsnprintf(to->text + to->length, room, format, arguments);
    va_end(arguments);
    if (n > 0)
        to->length += (size_t)n < room ? (size_t)n : room - 1;
}

/* 1 when a choice for this plan would be accepted. */
static int fits(const pgrad__plan *plan, pgrad_model *model)
{
    pgrad_memory_report report;
    pgrad__choice choice;
    return choose_planned(plan, model, &choice) == PGRAD_OK &&
           measure(plan, model, &choice, &report) == PGRAD_OK && report.total <= plan->room;
}

/* What params forbid. */
static void advise_storage(const pgrad__plan *plan, pgrad_model *model, advice *to)
{
    pgrad__plan open = *plan;
    if (plan->has_optimizer && plan->optimizer.moments != PGRAD_MOMENTS_AUTO) {
        open.optimizer.moments = PGRAD_MOMENTS_AUTO;
        if (fits(&open, model)) {
            advise(to, "; optimizer.moments AUTO would fit");
            return;
        }
    }
    open.rollout.kv_storage = PGRAD_KV_AUTO;
    if (plan->has_rollout && plan->rollout.kv_storage != PGRAD_KV_AUTO && fits(&open, model))
        advise(to, "; rollout.kv_storage%s AUTO would fit",
               plan->has_optimizer ? " and optimizer.moments" : "");
}

/* The model in bf16, everything else left open: the last way out. */
static void advise_weights(const pgrad__plan *plan, const pgrad_model *model, advice *to)
{
    pgrad__plan open = *plan;
    pgrad_model *narrow;
    const int opened = (plan->has_optimizer && plan->optimizer.moments != PGRAD_MOMENTS_AUTO) ||
                       (plan->has_rollout && plan->rollout.kv_storage != PGRAD_KV_AUTO);
    open.optimizer.moments = PGRAD_MOMENTS_AUTO;
    open.rollout.kv_storage = PGRAD_KV_AUTO;
    if (model->storage != PGRAD_STORAGE_F32 ||
        pgrad__model_plan_copy(model, model->kernels, PGRAD_STORAGE_BF16, &narrow) != PGRAD_OK)
        return;
    if (fits(&open, narrow))
        advise(to, "; a model loaded in bf16%s would fit",
               opened ? ", with optimizer.moments and rollout.kv_storage AUTO," : "");
    pgrad_model_free(narrow);
}

/* The longest completion that fits; rollout.max_new_tokens and the plan's length as one. */
static void advise_length(const pgrad__plan *plan, pgrad_model *model, advice *to)
{
    uint32_t low = 0, high = plan->completion_tokens;
    while (plan->has_rollout && high - low > 1) {
        pgrad__plan shorter = *plan;
        shorter.completion_tokens = low + (high - low) / 2;
        shorter.rollout.max_new_tokens = shorter.completion_tokens;
        if (plan->has_evaluation)
            shorter.evaluation.max_new_tokens = shorter.completion_tokens;
        if (fits(&shorter, model))
            low = shorter.completion_tokens;
        else
            high = shorter.completion_tokens;
    }
    if (low > 0)
        advise(to, "; a completion length of %u would fit", low);
}

static pgrad_status refuse(const pgrad__plan *plan, pgrad_model *model,
                           const pgrad__choice *leanest, const pgrad_memory_report *needed)
{
    advice how = {.length = 0}, ways = {.length = 0};
    if (plan->has_objective)
        advise(&how, ", micro-batches of %u tokens%s", leanest->micro_batch_tokens,
               leanest->recompute ? ", recompute" : "");
    if (plan->has_optimizer)
        advise(&how, ", moments in %s", pgrad__moments_name(leanest->moments));
    if (plan->has_rollout)
        advise(&how, ", keys and values in %s, decoding %u at a time",
               pgrad__kv_name(leanest->kv_storage), leanest->batch_size);
    advise_storage(plan, model, &ways);
    advise_length(plan, model, &ways);
    if (ways.length == 0)
        advise_weights(plan, model, &ways);
    if (ways.length == 0)
        advise(&ways, "; weights take %.1f MiB, gradients %.1f, moments %.1f", mib(needed->weights),
               mib(needed->gradients), mib(needed->moments));
    return pgrad__fail(PGRAD_E_LIMIT,
                       "memory_limit: %.1f MiB; the leanest plan (%s) needs %.1f MiB%s",
                       mib(plan->memory_limit), how.length > 2 ? how.text + 2 : "the model alone",
                       mib(needed->total), ways.text);
}

pgrad_status pgrad__plan_make(const pgrad__plan *plan, pgrad_model *model, pgrad_memory_report *out)
{
    pgrad__choice choice;
    PGRAD__TRY(choose_planned(plan, model, &choice));
    PGRAD__TRY(measure(plan, model, &choice, out));
    if (plan->memory_limit != 0 && out->total > plan->room)
        return refuse(plan, model, &choice, out);
    return PGRAD_OK;
}

/* ---- public calls ---- */

static pgrad_status estimate(pgrad_model *model, const pgrad_plan_params *params,
                             pgrad_memory_report *out)
{
    pgrad__plan plan;
    pgrad_memory_report report = {0};
    PGRAD__TRY(pgrad__plan_read(model, params, &plan));
    const pgrad_status status = pgrad__plan_make(&plan, model, &report);
    if (status != PGRAD_OK && (status != PGRAD_E_LIMIT || report.total == 0))
        return status;
    char message[512];
    pgrad__message_get(message);
    PGRAD__TRY(pgrad__struct_write("memory_report", &report, sizeof report, out));
    if (status != PGRAD_OK)
        pgrad__message_set(message);
    return status;
}

pgrad_status pgrad_model_estimate(pgrad_model *model, const pgrad_plan_params *plan,
                                  pgrad_memory_report *out)
{
    pgrad__scope scope;
    if (model == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "model_estimate: %s is NULL",
                           model == NULL ? "model" : "out");
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    const pgrad_status status = estimate(model, plan, out);
    pgrad__leave(&scope);
    return status;
}

/* From the files or the text of a model that is not made. */
static pgrad_status estimate_planned(pgrad_context *context, const char *path,
                                     const char *config_json, const pgrad_model_params *params,
                                     const pgrad_plan_params *plan, pgrad_memory_report *out)
{
    pgrad_model_params read;
    pgrad_model *model;
    PGRAD__TRY(pgrad__params_read("model", params, &read));
    if (path != NULL)
        PGRAD__TRY(pgrad__model_plan_load(context, path, &read, &model));
    else
        PGRAD__TRY(pgrad__model_plan_create(context, config_json, &read, &model));
    const pgrad_status status = estimate(model, plan, out);
    pgrad_model_free(model);
    return status;
}

pgrad_status pgrad_model_estimate_load(pgrad_context *context, const char *path,
                                       const pgrad_model_params *params,
                                       const pgrad_plan_params *plan, pgrad_memory_report *out)
{
    pgrad__scope scope;
    if (path == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "model_estimate_load: %s is NULL",
                           path == NULL ? "path" : "out");
    PGRAD__TRY(pgrad__enter(context, &scope));
    const pgrad_status status = estimate_planned(context, path, NULL, params, plan, out);
    pgrad__leave(&scope);
    return status;
}

pgrad_status pgrad_model_estimate_create(pgrad_context *context, const char *config_json,
                                         const pgrad_model_params *params,
                                         const pgrad_plan_params *plan, pgrad_memory_report *out)
{
    pgrad__scope scope;
    if (config_json == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "model_estimate_create: %s is NULL",
                           config_json == NULL ? "config_json" : "out");
    PGRAD__TRY(pgrad__enter(context, &scope));
    const pgrad_status status = estimate_planned(context, NULL, config_json, params, plan, out);
    pgrad__leave(&scope);
    return status;
}
