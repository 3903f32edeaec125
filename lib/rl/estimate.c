#include "rl/estimate.h"

#include <string.h>

#include "base/alloc.h"
#include "base/checked.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "rl/generator.h"
#include "rl/optimizer.h"

/* ---- reading a plan ---- */

static pgrad_status read_part(const char *name, const void *params, int *has, void *out)
{
    *has = params != NULL;
    return *has ? pgrad__params_read(name, params, out) : PGRAD_OK;
}

/* Lengths of prompts and completions, cut as rollouts cut them. */
static pgrad_status read_lengths(const pgrad_model *model, pgrad__plan *plan)
{
    const pgrad_plan_params *params = &plan->params;
    const uint32_t most[2] = {pgrad__min_u32(plan->rollout.max_prompt_tokens, model->n_context),
                              pgrad__min_u32(plan->rollout.max_new_tokens, model->n_context)};
    if (params->prompt_tokens > most[0])
        return pgrad__fail(PGRAD_E_INVALID,
                           "plan.prompt_tokens: expected at most the rollout's %u, found %u",
                           most[0], params->prompt_tokens);
    if (params->completion_tokens > most[1])
        return pgrad__fail(PGRAD_E_INVALID,
                           "plan.completion_tokens: expected at most the rollout's %u, found %u",
                           most[1], params->completion_tokens);
    plan->prompt_tokens = params->prompt_tokens != 0 ? params->prompt_tokens : most[0];
    plan->completion_tokens = params->completion_tokens != 0 ? params->completion_tokens : most[1];
    const uint32_t room = model->n_context - plan->prompt_tokens + 1;
    plan->completion_tokens = pgrad__min_u32(plan->completion_tokens, room);
    return PGRAD_OK;
}

static pgrad_status check(const pgrad_model *model, const pgrad__plan *plan)
{
    if ((plan->has_objective || plan->has_evaluation || plan->params.reference) &&
        !plan->has_rollout)
        return pgrad__fail(PGRAD_E_INVALID, "plan.rollout: expected one beside the %s",
                           plan->has_objective    ? "objective"
                           : plan->has_evaluation ? "evaluation"
                                                  : "reference");
    if ((plan->has_objective || plan->has_optimizer) && model->frozen)
        return pgrad__fail(PGRAD_E_STATE, "plan.%s: the model is frozen",
                           plan->has_objective ? "objective" : "optimizer");
    if (plan->params.in_backward && (!plan->has_objective || !plan->has_optimizer))
        return pgrad__fail(PGRAD_E_INVALID,
                           "plan.in_backward: expected an objective and an optimizer");
    return PGRAD_OK;
}

pgrad_status pgrad__plan_read(const pgrad_model *model, const pgrad_plan_params *params,
                              pgrad__plan *out)
{
    pgrad__plan plan = {.context = model->context};
    PGRAD__TRY(pgrad__params_read("plan", params, &plan.params));
    const pgrad_plan_params *read = &plan.params;
    PGRAD__TRY(read_part("rollout", read->rollout, &plan.has_rollout, &plan.rollout));
    PGRAD__TRY(read_part("rollout", read->evaluation, &plan.has_evaluation, &plan.evaluation));
    PGRAD__TRY(read_part("objective", read->objective, &plan.has_objective, &plan.objective));
    PGRAD__TRY(read_part("optimizer", read->optimizer, &plan.has_optimizer, &plan.optimizer));
    PGRAD__TRY(check(model, &plan));
    if (plan.has_rollout)
        PGRAD__TRY(read_lengths(model, &plan));
    plan.memory_limit = read->memory_limit != 0 ? read->memory_limit : model->context->memory_limit;
    plan.room = plan.memory_limit - plan.memory_limit / 128; /* the rest is for small things */
    *out = plan;
    return PGRAD_OK;
}

/* ---- sums ---- */

uint64_t pgrad__need_total(const pgrad__need *need)
{
    size_t total = 0;
    for (size_t i = 0; i < PGRAD__N_NEEDS; i++)
        if (need->of[i].overflow || __builtin_add_overflow(total, need->of[i].used, &total))
            return UINT64_MAX;
    return total;
}

void pgrad__need_add(pgrad__need *to, const pgrad__need *need)
{
    for (size_t i = 0; i < PGRAD__N_NEEDS; i++) {
        (void)pgrad__arena_take(&to->of[i], need->of[i].used, 1);
        to->of[i].overflow |= need->of[i].overflow;
    }
}

/* ---- the model, its copy, the host's ---- */

void pgrad__need_model(const pgrad__plan *plan, const pgrad_model *model, pgrad__need *need)
{
    const pgrad_plan_params *params = &plan->params;
    pgrad__weights_count(model, &need->of[PGRAD__NEED_WEIGHTS]);
    pgrad__registry_count(model, &need->of[PGRAD__NEED_OTHER]);
    if (params->reference) {
        pgrad__weights_count(model, &need->of[PGRAD__NEED_REFERENCE]);
        pgrad__registry_count(model, &need->of[PGRAD__NEED_REFERENCE]);
    }
    if (params->tokenizer != NULL)
        (void)pgrad__arena_take(&need->of[PGRAD__NEED_OTHER],
                                pgrad__tokenizer_held(params->tokenizer), 1);
    (void)pgrad__arena_take(&need->of[PGRAD__NEED_OTHER], params->other_bytes, 1);
}

void pgrad__need_moments(const pgrad__plan *plan, const pgrad_model *model,
                         const pgrad__choice *choice, pgrad__need *need)
{
    pgrad_optimizer_params params = plan->optimizer;
    pgrad__arena *const copy = &need->of[PGRAD__NEED_CHECKPOINT];
    params.moments = choice->moments;
    if (plan->has_optimizer)
        pgrad__optimizer_count(model, &params, &need->of[PGRAD__NEED_MOMENTS]);
    if (!plan->params.checkpoint)
        return;
    pgrad__weights_count(model, copy);
    if (plan->has_optimizer)
        pgrad__optimizer_count(model, &params, copy);
}

static void count_pass(const pgrad__pass_size *size, pgrad__need *need)
{
    pgrad__pass_count(size, &need->of[PGRAD__NEED_ACTIVATIONS], &need->of[PGRAD__NEED_SCRATCH],
                      &need->of[PGRAD__NEED_GRADIENTS]);
}

/* ---- a rollout of sequences that have lengths and nothing else ---- */

typedef struct outline {
    pgrad_rollout rollout;
    struct pgrad__generator generator;
} outline;

/* AUTO as it turns out: under a limit memory is for what has to be there. */
static uint32_t keep_of(const pgrad__plan *plan, const pgrad_rollout_params *params,
                        const pgrad__choice *choice)
{
    const int used = plan->has_objective && choice->recompute == PGRAD_RECOMPUTE_OFF;
    if (params->keep_activations != PGRAD_KEEP_AUTO)
        return params->keep_activations;
    return used && plan->memory_limit == 0 ? PGRAD_KEEP_AUTO : PGRAD_KEEP_OFF;
}

static pgrad_status plan_rollout(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                                 const pgrad_rollout_params *params, const pgrad__choice *choice,
                                 outline *out)
{
    pgrad_rollout_params chosen = *params;
    if (chosen.batch_size == 0)
        chosen.batch_size = choice->batch_size;
    if (chosen.kv_storage == PGRAD_KV_AUTO)
        chosen.kv_storage = choice->kv_storage;
    chosen.keep_activations = keep_of(plan, params, choice);
    memset(out, 0, sizeof *out);
    return pgrad__rollout_plan(&out->rollout, model, plan->params.tokenizer, &chosen,
                               &out->generator, n_workers);
}

static int keeps(const outline *planned)
{
    return planned->rollout.activations.n_rows > 0;
}

/* Every row of ids is the same one. */
static pgrad_status fill_outline(const pgrad__plan *plan, outline *out)
{
    pgrad_context *context = plan->context;
    pgrad_rollout *rollout = &out->rollout;
    const uint32_t n_groups = rollout->params.max_prompts, n = rollout->max_sequences;
    rollout->arena.context = rollout->builder.arena.context = context;
    rollout->params.max_new_tokens = 0;
    PGRAD__TRY(pgrad__calloc(context, n_groups, sizeof *rollout->groups, &rollout->groups));
    PGRAD__TRY(pgrad__calloc(context, n, sizeof *rollout->sequences, &rollout->sequences));
    PGRAD__TRY(pgrad__calloc(context, plan->prompt_tokens, sizeof(pgrad_token), &rollout->prompts));
    PGRAD__TRY(
        pgrad__calloc(context, plan->completion_tokens, sizeof(pgrad_token), &rollout->tokens));
    rollout->n_groups = n_groups;
    rollout->n_sequences = n;
    for (uint32_t i = 0; i < n_groups; i++)
        rollout->groups[i].n_prompt = plan->prompt_tokens;
    for (uint32_t i = 0; i < n; i++)
        rollout->sequences[i] =
            (pgrad__sequence){.group = i / rollout->params.group_size,
                              .finish = PGRAD_FINISH_LENGTH,
                              .n_tokens = plan->completion_tokens,
                              .temperature = 1.0,
                              .filled = 1u << PGRAD_ADVANTAGES | 1u << PGRAD_REFERENCE};
    return PGRAD_OK;
}

static void free_outline(outline *out)
{
    pgrad_rollout *rollout = &out->rollout;
    pgrad_context *context = rollout->context;
    if (context == NULL)
        return;
    pgrad__batch_builder_free(&rollout->builder);
    pgrad__free(context, rollout->groups);
    pgrad__free(context, rollout->sequences);
    pgrad__free(context, rollout->prompts);
    pgrad__free(context, rollout->tokens);
}

/* ---- rollouts ---- */

/* The passes of generating. */
static pgrad_status need_decoding(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                                  const outline *planned, pgrad__need *need)
{
    const uint32_t n_slots = planned->generator.batch_size;
    pgrad__decode_span *spans = NULL;
    pgrad__pass_size size = {0};
    pgrad_status status;
    const uint32_t storage = planned->rollout.params.kv_storage;
    PGRAD__GO(pgrad__calloc(plan->context, n_slots, sizeof *spans, &spans));
    const uint32_t n = pgrad__prefill_shape(&planned->rollout, plan->prompt_tokens, spans);
    PGRAD__GO(pgrad__decode_size(model, storage, keeps(planned), spans, n, n_workers, &size));
    pgrad__decode_shape(&planned->rollout, plan->prompt_tokens, plan->completion_tokens, spans);
    PGRAD__GO(pgrad__decode_size(model, storage, keeps(planned), spans, n_slots, n_workers, &size));
    count_pass(&size, need);
fail:
    pgrad__free(plan->context, spans);
    return status;
}

static pgrad_status need_rollout(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                                 const pgrad_rollout_params *params, const pgrad__choice *choice,
                                 pgrad__need *need)
{
    outline planned;
    PGRAD__TRY(plan_rollout(plan, model, n_workers, params, choice, &planned));
    pgrad__rollout_count(&planned.rollout, &need->of[PGRAD__NEED_KV_CACHE],
                         &need->of[PGRAD__NEED_ROLLOUT]);
    if (keeps(&planned))
        pgrad__activation_store_count(
            model, pgrad__kept_rows(&planned.rollout, plan->prompt_tokens, plan->completion_tokens),
            &need->of[PGRAD__NEED_ACTIVATIONS]);
    return need_decoding(plan, model, n_workers, &planned, need);
}

/* Scoring with the reference. */
static pgrad_status need_score(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                               const pgrad__choice *choice, pgrad__need *need)
{
    outline planned;
    pgrad__pass_size size = {0};
    size_t n_floats = 0;
    PGRAD__TRY(plan_rollout(plan, model, n_workers, &plan->rollout, choice, &planned));
    pgrad_status status = fill_outline(plan, &planned);
    if (status == PGRAD_OK)
        status = pgrad__score_measure(&planned.rollout, model, n_workers, &size, &n_floats);
    if (status == PGRAD_OK) {
        count_pass(&size, need);
        pgrad__arena_count_block(&need->of[PGRAD__NEED_ROLLOUT], n_floats + PGRAD__SLACK,
                                 sizeof(float));
        (void)pgrad__arena_take(&need->of[PGRAD__NEED_OTHER],
                                pgrad__held(planned.rollout.builder.arena.base), 1);
    }
    free_outline(&planned);
    return status;
}

pgrad_status pgrad__need_keep(const pgrad__plan *plan, pgrad_model *model,
                              const pgrad__choice *choice, uint32_t *keep)
{
    outline planned;
    *keep = PGRAD_KEEP_OFF;
    if (!plan->has_rollout)
        return PGRAD_OK;
    PGRAD__TRY(plan_rollout(plan, model, 1, &plan->rollout, choice, &planned));
    *keep = planned.rollout.params.keep_activations;
    return PGRAD_OK;
}

pgrad_status pgrad__need_rollouts(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                                  const pgrad__choice *choice, pgrad__need *need)
{
    if (plan->has_rollout)
        PGRAD__TRY(need_rollout(plan, model, n_workers, &plan->rollout, choice, need));
    if (plan->has_evaluation)
        PGRAD__TRY(need_rollout(plan, model, n_workers, &plan->evaluation, choice, need));
    if (plan->params.reference)
        PGRAD__TRY(need_score(plan, model, n_workers, choice, need));
    return PGRAD_OK;
}

/* ---- training ---- */

pgrad_status pgrad__need_backward(const pgrad__plan *plan, pgrad_model *model, uint32_t n_workers,
                                  const pgrad__choice *choice, pgrad__need *need,
                                  pgrad__backward_need *how)
{
    outline planned;
    pgrad__backward_need backward = {0};
    pgrad_objective objective = {
        .context = plan->context,
        .model = model,
        .params = plan->objective,
        .builder = {.arena.context = plan->context, .whole = !plan->objective.share_prefix}};
    if (how != NULL)
        *how = backward;
    if (!plan->has_objective)
        return PGRAD_OK;
    pgrad__objective_settle(&objective, choice->micro_batch_tokens, choice->recompute);
    PGRAD__TRY(plan_rollout(plan, model, n_workers, &plan->rollout, choice, &planned));
    pgrad_status status = fill_outline(plan, &planned);
    const int in_backward = (int)plan->params.in_backward;
    if (status == PGRAD_OK)
        status = pgrad__objective_measure(&objective, &planned.rollout, keeps(&planned),
                                          in_backward, n_workers, &backward);
    /* Kept activations serve the first update only. */
    if (status == PGRAD_OK && keeps(&planned) && plan->params.updates_per_rollout > 1)
        status = pgrad__objective_measure(&objective, &planned.rollout, 0, in_backward, n_workers,
                                          &backward);
    if (status == PGRAD_OK) {
        count_pass(&backward.pass, need);
        if (!plan->params.in_backward || backward.n_micro_batches > 1)
            pgrad__gradients_count(model, &need->of[PGRAD__NEED_GRADIENTS]);
        pgrad__arena_count_block(&need->of[PGRAD__NEED_OTHER], 1, sizeof objective);
        (void)pgrad__arena_take(&need->of[PGRAD__NEED_OTHER], pgrad__objective_held(&objective), 1);
        if (how != NULL)
            *how = backward;
    }
    pgrad__objective_room_free(&objective);
    free_outline(&planned);
    return status;
}
