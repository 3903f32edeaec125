/* What an estimate says, told in a context of its own before anything is made, against what a model, a rollout, a
 * backward pass and a step then hold: name by name, and at most. */
#include "estimate_test.h"

/* ---- by name ---- */

/* Within 5 %, or 2 KiB: a handle may count to one name or to another. */
static void is_near(const char *what, uint64_t estimated, uint64_t held)
{
    const uint64_t off = estimated > held ? estimated - held : held - estimated;
    if (getenv("SHOW") != NULL)
        printf("%-12s %10llu %10llu\n", what, (unsigned long long)estimated, (unsigned long long)held);
    ck_assert_msg(off <= 2048 || (double)off <= 0.05 * (double)held, "%s: %llu bytes estimated, %llu held", what,
                  (unsigned long long)estimated, (unsigned long long)held);
}

/* The chunk of logits of a pass that goes back: of these vocabularies, all rows that are predicted. */
static uint64_t logits_of_step(const setting *s)
{
    return is_frozen(s) ? 0 : (uint64_t)s->group * s->prompts * s->completion * s->vocab * sizeof(float);
}

static void names_are_right(const setting *s, const pgrad_memory_report *report, const used *u)
{
    const int borrows = !is_frozen(s) && s->in_backward && report->n_micro_batches == 1;
    is_near("weights", report->weights, u->weights);
    is_near("reference", report->reference, u->reference);
    is_near("kv_cache", report->kv_cache, u->kv_cache);
    is_near("rollout", report->rollout, u->rollout);
    is_near("moments", report->moments, u->moments);
    is_near("other", report->other, u->other);
    if (!borrows) {
        is_near("gradients", report->gradients, u->gradients);
        is_near("passes", report->activations + report->scratch, u->passes);
    } else { /* they are in the pass's own block */
        ck_assert_uint_eq(u->gradients, 0);
        is_near("passes", report->activations + report->scratch + report->gradients, u->passes);
        ck_assert_uint_gt(report->gradients, report->weights / 8);
        ck_assert_uint_lt(report->gradients, report->moments + report->weights);
    }
    if (report->n_micro_batches <= 1 && !s->reference)
        is_near("scratch", report->scratch, u->workspaces + logits_of_step(s));
    else
        ck_assert_uint_ge(report->scratch, u->workspaces);
}

START_TEST(within_five_percent)
{
    const setting *s = &settings[_i];
    params p;
    pgrad_context *before, *context;
    pgrad_memory_report report = {.struct_size = sizeof report};
    pgrad_context_info info = {.struct_size = sizeof info};
    if (cannot_run(s))
        return;
    set_params(s, &p);
    OK(pgrad_context_create(&p.context, &before));
    OK(pgrad_model_estimate_create(before, p.config, &p.model, &p.plan, &report));
    pgrad_context_free(before);
    ck_assert_uint_eq(report.total, report.weights + report.gradients + report.moments +
                                        report.activations + report.kv_cache + report.scratch +
                                        report.rollout + report.reference + report.other +
                                        report.checkpoint);
    p.rollout.keep_activations = report.keep_activations; /* as the plan has chosen */
    OK(pgrad_context_create(&p.context, &context));
    const used held = run(s, &p, context);
    OK(pgrad_context_get_info(context, &info));
    within("before", report.peak_rollout, held.peak_rollout, 0.05);
    within("all", report.total, info.memory_peak, 0.05);
    names_are_right(s, &report, &held);
    pgrad_context_free(context);
}
END_TEST

/* The copy of a checkpoint in the background, which stays while the checkpoint lives. */
START_TEST(a_checkpoint_counts)
{
    setting s = settings[1];
    params p;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_optimizer *optimizer;
    pgrad_checkpoint *checkpoint;
    pgrad_checkpoint_params how;
    pgrad_memory_report without = {.struct_size = sizeof without}, with = without;
    pgrad_context_info info = {.struct_size = sizeof info};
    char folder[512], path[600];
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.pgrad", folder);
    s.storage = _i ? PGRAD_STORAGE_BF16 : PGRAD_STORAGE_F32;
    s.moments = _i ? PGRAD_MOMENTS_Q8 : PGRAD_MOMENTS_F32;
    set_params(&s, &p);
    p.plan.rollout = NULL;
    p.plan.objective = NULL;
    OK(pgrad_context_create(&p.context, &context));
    OK(pgrad_model_estimate_create(context, p.config, &p.model, &p.plan, &without));
    p.plan.checkpoint = 1;
    OK(pgrad_model_estimate_create(context, p.config, &p.model, &p.plan, &with));
    ck_assert_uint_eq(without.checkpoint, 0);
    ck_assert_uint_eq(with.total, without.total + with.checkpoint);
    OK(pgrad_model_create(context, p.config, 7, &p.model, &model));
    OK(pgrad_optimizer_create(model, &p.optimizer, &optimizer));
    OK(pgrad_checkpoint_create(context, &checkpoint));
    OK(pgrad_checkpoint_add(checkpoint, "model", PGRAD_KIND_MODEL, model));
    OK(pgrad_checkpoint_add(checkpoint, "optimizer", PGRAD_KIND_OPTIMIZER, optimizer));
    pgrad_checkpoint_params_init(&how, sizeof how);
    how.background = 1;
    OK(pgrad_checkpoint_write(checkpoint, path, &how));
    OK(pgrad_checkpoint_wait(checkpoint));
    OK(pgrad_context_get_info(context, &info));
    within("copy", with.total, info.memory_now, 0.05);
    pgrad_checkpoint_free(checkpoint);
    pgrad_optimizer_free(optimizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    remove_folder(folder);
}
END_TEST

static void add(TCase *sizes)
{
    tcase_add_loop_test(sizes, within_five_percent, 0, N_SETTINGS);
    tcase_add_loop_test(sizes, a_checkpoint_counts, 0, 2);
}

int main(void)
{
    return run_case("estimate", NULL, NULL, 300, add);
}
