/* What a plan chooses under a memory limit runs inside of it, depends on params and lengths alone, and where nothing
 * fits the refusal says what would. */
#include "estimate_test.h"

#include "../failing_allocator.h"

/* As a host puts a report's choices into its params. */
static void put_choices(const pgrad_memory_report *report, params *p)
{
    p->rollout.batch_size = report->batch_size;
    p->rollout.kv_storage = report->kv_storage;
    p->rollout.keep_activations = report->keep_activations;
    p->objective.micro_batch_tokens = report->micro_batch_tokens;
    p->objective.recompute = report->recompute;
    p->optimizer.moments = report->moments_storage;
}

/* Kept activations go with f32 keys alone: a plan that may choose never tries others, and says what is too much. */
START_TEST(kept_by_all_means_under_a_limit)
{
    setting s = settings[1];
    params p;
    pgrad_context *context;
    pgrad_memory_report open = {.struct_size = sizeof open}, report = open;
    s.keep = PGRAD_KEEP_ON;
    s.kv = PGRAD_KV_AUTO;
    set_params(&s, &p);
    OK(pgrad_context_create(&p.context, &context));
    OK(pgrad_model_estimate_create(context, p.config, &p.model, &p.plan, &open));
    ck_assert_uint_eq(open.keep_activations, PGRAD_KEEP_ON);
    ck_assert_uint_eq(open.kv_storage, PGRAD_KV_F32);
    p.plan.memory_limit = open.weights + open.moments;
    FAILS(PGRAD_E_LIMIT, "memory_limit", pgrad_model_estimate_create(context, p.config, &p.model, &p.plan, &report));
    p.rollout.keep_activations = PGRAD_KEEP_AUTO;
    p.plan.memory_limit = open.total;
    OK(pgrad_model_estimate_create(context, p.config, &p.model, &p.plan, &report));
    ck_assert_uint_eq(report.keep_activations, PGRAD_KEEP_OFF);
    pgrad_context_free(context);
}
END_TEST

static setting limited(void)
{
    return (setting){"llama", 96, 256, 4, 4, 2, 600, 512, F32, F32, F32, PGRAD_RECOMPUTE_AUTO, 1, 0, 0,
                     8,       2,  60,  40, 0, 0, 2, 0, ADAMW, 0, 0};
}

static pgrad_status estimate(const params *p, pgrad_memory_report *report)
{
    pgrad_context *context;
    *report = (pgrad_memory_report){.struct_size = sizeof *report};
    OK(pgrad_context_create(&p->context, &context));
    const pgrad_status status =
        pgrad_model_estimate_create(context, p->config, &p->model, &p->plan, report);
    pgrad_context_free(context);
    return status;
}

/* A number of the message behind `text`. */
static double number_behind(const char *message, const char *text)
{
    const char *at = strstr(message, text);
    ck_assert_msg(at != NULL, "'%s' is not in: %s", text, message);
    return strtod(at + strlen(text), NULL);
}

/* Ever smaller limits: what is chosen runs inside of them, in one context that keeps the limit; what
 * changes the bits of a rollout only where it is AUTO, and last. */
START_TEST(what_is_chosen_runs_under_the_limit)
{
    setting s = limited();
    params p;
    pgrad_memory_report whole, report;
    uint32_t n_run = 0, n_recomputed = 0, n_smaller = 0, n_narrow = 0, n_half = 0;
    set_params(&s, &p);
    OK(estimate(&p, &whole));
    ck_assert_uint_eq(whole.micro_batch_tokens, 2048);
    ck_assert_uint_eq(whole.recompute, 0);
    ck_assert_uint_eq(whole.n_micro_batches, 1);
    uint64_t before = 0;
    for (uint32_t percent = 105; percent > 10; percent -= 5) {
        pgrad_context *context;
        pgrad_context_info info = {.struct_size = sizeof info};
        set_params(&s, &p);
        p.context.memory_limit = whole.total * percent / 100;
        p.rollout.kv_storage = _i ? PGRAD_KV_AUTO : PGRAD_KV_F32;
        p.optimizer.moments = _i ? PGRAD_MOMENTS_AUTO : PGRAD_MOMENTS_F32;
        const pgrad_status status = estimate(&p, &report);
        ck_assert_uint_eq(report.memory_limit, p.context.memory_limit);
        if (!_i)
            ck_assert_uint_eq(report.moments_storage + report.kv_storage, 0);
        if (status != PGRAD_OK) {
            ck_assert_int_eq(status, PGRAD_E_LIMIT);
            ck_assert_uint_gt(report.total + p.context.memory_limit / 128, p.context.memory_limit);
            before = percent;
            continue;
        }
        ck_assert_msg(before == 0, "%u %% fit, %u %% did not", percent, (unsigned)before);
        ck_assert_uint_le(report.total, p.context.memory_limit);
        put_choices(&report, &p);
        OK(pgrad_context_create(&p.context, &context));
        (void)run(&s, &p, context);
        OK(pgrad_context_get_info(context, &info));
        within("limited", report.total, info.memory_peak, 0.05);
        pgrad_context_free(context);
        n_run++;
        n_recomputed += report.recompute;
        n_smaller += report.n_micro_batches > 1;
        n_half += report.batch_size < 16;
        n_narrow += report.moments_storage > 0;
        if (report.moments_storage > 0) /* nothing else was left */
            ck_assert_uint_lt(report.batch_size, 16);
    }
    ck_assert_uint_ge(n_run, 3);
    ck_assert_uint_ge(n_recomputed, 1);
    ck_assert_uint_ge(n_smaller, 1);
    ck_assert_uint_ge(n_half, 1);
    ck_assert_int_eq(n_narrow > 0, _i);
}
END_TEST

/* A choice is a function of params and lengths. */
START_TEST(choices_do_not_depend_on_the_machine)
{
    static const uint32_t sets[] = {PGRAD_KERNELS_AUTO, PGRAD_KERNELS_GENERIC, PGRAD_KERNELS_HASWELL};
    setting s = limited();
    params p;
    pgrad_memory_report whole, first, report;
    uint32_t n_same = 0;
    set_params(&s, &p);
    OK(estimate(&p, &whole));
    for (uint32_t percent = 95; percent >= 60; percent -= 7) {
        set_params(&s, &p);
        p.plan.memory_limit = whole.total * percent / 100;
        p.rollout.kv_storage = PGRAD_KV_AUTO;
        p.optimizer.moments = PGRAD_MOMENTS_AUTO;
        OK(estimate(&p, &first));
        for (uint32_t n_threads = 1; n_threads <= 8; n_threads += n_threads == 1 ? 2 : 5)
            for (size_t set = 0; set < 3; set++) {
                s.kernel_set = sets[set];
                if (cannot_run(&s))
                    continue;
                p.context.kernel_set = sets[set];
                p.context.n_threads = n_threads;
                OK(estimate(&p, &report));
                ck_assert_uint_eq(report.batch_size, first.batch_size);
                ck_assert_uint_eq(report.micro_batch_tokens, first.micro_batch_tokens);
                ck_assert_uint_eq(report.recompute, first.recompute);
                ck_assert_uint_eq(report.kv_storage, first.kv_storage);
                ck_assert_uint_eq(report.moments_storage, first.moments_storage);
                n_same++;
            }
    }
    ck_assert_uint_ge(n_same, 18);
}
END_TEST

/* What a machine needs for the choice that is in force without a limit. */
static uint64_t need_on(const pgrad__machine *machine, pgrad_model *of, const params *p)
{
    const pgrad__choice choice = {64, 512, p->objective.recompute, p->rollout.kv_storage, p->optimizer.moments};
    pgrad__plan plan;
    pgrad__need need = {0};
    pgrad_model *model;
    OK(pgrad__plan_read(of, &p->plan, &plan));
    OK(pgrad__model_plan_copy(of, machine->kernels, of->storage, &model));
    pgrad__need_model(&plan, model, &need);
    OK(pgrad__need_rollouts(&plan, model, machine->n_workers, &choice, &need));
    pgrad__need_moments(&plan, model, &choice, &need);
    OK(pgrad__need_backward(&plan, model, machine->n_workers, &choice, &need, NULL));
    pgrad_model_free(model);
    return pgrad__need_total(&need);
}

/* The machine that choices are made for needs no less than others of at most as many threads. */
START_TEST(the_planned_machine_needs_no_less)
{
    const pgrad__machine planned = pgrad__machine_planned();
    setting s = settings[_i];
    params p;
    if (cannot_run(&s))
        return;
    for (uint32_t set = PGRAD_KERNELS_GENERIC; set <= PGRAD_KERNELS_ARMV8A; set++) {
        pgrad_context *context;
        pgrad_model *model;
        s.kernel_set = set;
        if (cannot_run(&s))
            continue;
        set_params(&s, &p);
        p.context.n_threads = 1;
        OK(pgrad_context_create(&p.context, &context));
        OK(pgrad__model_plan_create(context, p.config, &p.model, &model));
        const uint64_t most = need_on(&planned, model, &p);
        for (uint32_t n_threads = 1; n_threads <= PGRAD__PLANNED_THREADS; n_threads++) {
            const pgrad__machine machine = {model->kernels, n_threads + 1};
            const uint64_t needed = need_on(&machine, model, &p);
            ck_assert_msg(needed <= most, "set %u, %u threads: %llu of %llu", set, n_threads,
                          (unsigned long long)needed, (unsigned long long)most);
        }
        pgrad_model_free(model);
        pgrad_context_free(context);
    }
}
END_TEST

/* And not of what is held at the moment, nor of whether the model is there. */
START_TEST(choices_do_not_depend_on_what_is_held)
{
    setting s = limited();
    params p;
    pgrad_context *context;
    pgrad_model *model, *second;
    pgrad_memory_report before, after = {.struct_size = sizeof after};
    set_params(&s, &p);
    OK(estimate(&p, &before));
    p.plan.memory_limit = before.total * 80 / 100;
    OK(estimate(&p, &before));
    OK(pgrad_context_create(&p.context, &context));
    OK(pgrad_model_create(context, p.config, 7, &p.model, &model));
    OK(pgrad_model_create(context, p.config, 8, &p.model, &second));
    OK(pgrad_model_estimate(model, &p.plan, &after));
    ck_assert_mem_eq(&before, &after, sizeof before);
    /* what the host says it holds counts */
    p.plan.other_bytes = before.total / 10;
    OK(pgrad_model_estimate(model, &p.plan, &after));
    ck_assert_uint_gt(after.recompute + after.n_micro_batches, before.recompute + before.n_micro_batches);
    pgrad_model_free(second);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

/* The message's way out is one. */
START_TEST(a_refusal_says_what_fits)
{
    setting s = limited();
    params p;
    pgrad_memory_report whole, report;
    char message[512];
    set_params(&s, &p);
    OK(estimate(&p, &whole));
    p.context.memory_limit = whole.weights; /* tells what the leanest plan takes */
    ck_assert_int_eq(estimate(&p, &report), PGRAD_E_LIMIT);
    p.context.memory_limit = report.total * 97 / 100;
    ck_assert_int_eq(estimate(&p, &report), PGRAD_E_LIMIT);
    snprintf(message, sizeof message, "%s", pgrad_error_message());
    ck_assert_double_eq_tol(number_behind(message, "memory_limit: "),
                            (double)p.context.memory_limit / 1048576.0, 0.06);
    ck_assert_double_eq_tol(number_behind(message, "needs "), (double)report.total / 1048576.0, 0.06);
    ck_assert_ptr_nonnull(strstr(message, "leanest plan (micro-batches of 128 tokens, recompute, moments in f32, "
                                          "keys and values in f32, decoding 1 at a time)"));
    const double length = number_behind(message, "a completion length of ");
    ck_assert(length >= 1.0 && length < 40.0);
    p.rollout.max_new_tokens = (uint32_t)length;
    OK(estimate(&p, &report));
    p.rollout.max_new_tokens = 40;
    p.optimizer.moments = PGRAD_MOMENTS_AUTO;
    ck_assert_ptr_nonnull(strstr(message, "optimizer.moments AUTO would fit"));
    OK(estimate(&p, &report));
    ck_assert_uint_ne(report.moments_storage, PGRAD_MOMENTS_F32);
    /* the weights themselves are too large */
    set_params(&s, &p);
    p.optimizer.moments = PGRAD_MOMENTS_AUTO;
    p.rollout.max_new_tokens = 1; /* nothing to gain by less */
    p.rollout.kv_storage = PGRAD_KV_AUTO;
    p.context.memory_limit = whole.weights;
    ck_assert_int_eq(estimate(&p, &report), PGRAD_E_LIMIT);
    p.context.memory_limit = report.total * 96 / 100;
    ck_assert_int_eq(estimate(&p, &report), PGRAD_E_LIMIT);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "; a model loaded in bf16 would fit"));
    p.model.storage = PGRAD_STORAGE_BF16;
    OK(estimate(&p, &report));
    set_params(&s, &p);
    /* nothing helps */
    p.context.memory_limit = whole.weights;
    ck_assert_int_eq(estimate(&p, &report), PGRAD_E_LIMIT);
    ck_assert_double_eq_tol(number_behind(pgrad_error_message(), "weights take "),
                            (double)whole.weights / 1048576.0, 0.06);
    ck_assert_ptr_null(strstr(pgrad_error_message(), "would fit"));
}
END_TEST

START_TEST(refuses_what_makes_no_plan)
{
    setting s = limited();
    params p;
    pgrad_memory_report report = {.struct_size = sizeof report};
    pgrad_context *context;
    pgrad_model *model;
    set_params(&s, &p);
    OK(pgrad_context_create(&p.context, &context));
    OK(pgrad_model_create(context, p.config, 7, &p.model, &model));
    /* the model alone */
    pgrad_model_info info = {.struct_size = sizeof info};
    OK(pgrad_model_get_info(model, &info));
    OK(pgrad_model_estimate(model, NULL, &report));
    ck_assert_uint_ge(report.weights, info.weight_bytes);
    ck_assert_uint_eq(report.gradients + report.moments + report.activations + report.kv_cache +
                          report.scratch + report.rollout + report.reference, 0);
    ck_assert_int_eq(pgrad_model_estimate(NULL, NULL, &report), PGRAD_E_INVALID);
    ck_assert_int_eq(pgrad_model_estimate(model, NULL, NULL), PGRAD_E_INVALID);
    ck_assert_int_eq(pgrad_model_estimate_load(context, NULL, NULL, NULL, &report), PGRAD_E_INVALID);
    ck_assert_int_eq(pgrad_model_estimate_load(context, "/nowhere.gguf", NULL, NULL, &report), PGRAD_E_IO);
    ck_assert_int_eq(pgrad_model_estimate_create(context, "{}", NULL, NULL, &report), PGRAD_E_FORMAT);
    ck_assert_int_eq(pgrad_model_estimate_create(NULL, p.config, NULL, NULL, &report), PGRAD_E_INVALID);
    FAILS(PGRAD_E_INVALID, "model_estimate_create: config_json is NULL",
          pgrad_model_estimate_create(context, NULL, NULL, NULL, &report));
    FAILS(PGRAD_E_INVALID, "model_estimate_create: out is NULL",
          pgrad_model_estimate_create(context, p.config, NULL, NULL, NULL));
    p.plan.prompt_tokens = 61;
    ck_assert_int_eq(pgrad_model_estimate(model, &p.plan, &report), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "plan.prompt_tokens"));
    p.plan.prompt_tokens = 0;
    p.plan.completion_tokens = 41;
    ck_assert_int_eq(pgrad_model_estimate(model, &p.plan, &report), PGRAD_E_INVALID);
    p.plan.completion_tokens = 0;
    p.plan.rollout = NULL;
    ck_assert_int_eq(pgrad_model_estimate(model, &p.plan, &report), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "plan.rollout"));
    p.plan.objective = NULL;
    OK(pgrad_model_estimate(model, &p.plan, &report));
    p.plan.in_backward = 1;
    ck_assert_int_eq(pgrad_model_estimate(model, &p.plan, &report), PGRAD_E_INVALID);
    p.plan.in_backward = 0;
    p.rollout.group_size = 65536;
    p.rollout.max_prompts = 65536;
    p.plan.rollout = &p.rollout;
    ck_assert_int_eq(pgrad_model_estimate(model, &p.plan, &report), PGRAD_E_LIMIT);
    pgrad_model_free(model);
    p.model.frozen = 1;
    set_params(&s, &p);
    p.model.frozen = 1;
    ck_assert_int_eq(pgrad_model_estimate_create(context, p.config, &p.model, &p.plan, &report),
                     PGRAD_E_STATE);
    pgrad_context_free(context);
}
END_TEST

/* The largest model that a config may ask for, and rollouts of it that nobody can hold: told, not wrapped around. */
START_TEST(sizes_beyond_all_memory)
{
    static const char LARGEST[] =
        "{\"model_type\":\"llama\",\"hidden_size\":1048576,\"intermediate_size\":4194304,\"num_hidden_layers\":1024,"
        "\"num_attention_heads\":1024,\"num_key_value_heads\":1024,\"head_dim\":1024,\"vocab_size\":4194304,"
        "\"max_position_embeddings\":16777216,\"hidden_act\":\"silu\",\"rms_norm_eps\":1e-5}";
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 1);
    pgrad_memory_report report = {.struct_size = sizeof report};
    pgrad_plan_params plan;
    pgrad_rollout_params rollout;
    pgrad_plan_params_init(&plan, sizeof plan);
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    OK(pgrad_model_estimate_create(context, LARGEST, NULL, &plan, &report));
    ck_assert_uint_gt(report.weights, (uint64_t)1 << 52);
    rollout.group_size = 32767;
    rollout.max_prompts = rollout.batch_size = 65536;
    rollout.max_prompt_tokens = rollout.max_new_tokens = 1 << 24;
    plan.rollout = &rollout;
    FAILS(PGRAD_E_LIMIT, "rollout: a cache of 17180131328 pages is too large",
          pgrad_model_estimate_create(context, LARGEST, NULL, &plan, &report));
    rollout.max_prompt_tokens = rollout.max_new_tokens = 1 << 19;
    FAILS(PGRAD_E_LIMIT, "plan: more memory than can be addressed",
          pgrad_model_estimate_create(context, LARGEST, NULL, &plan, &report));
    pgrad_context_free(context);
}
END_TEST

/* The n-th allocation fails, for every n: nothing is lost, and the next try gives the same. */
START_TEST(out_of_memory)
{
    setting s = limited();
    params p;
    counted state = {-1, 0};
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context *context;
    pgrad_memory_report whole, report = {.struct_size = sizeof report};
    set_params(&s, &p);
    OK(estimate(&p, &whole));
    p.plan.memory_limit = whole.total * 9 / 10;
    p.plan.reference = 0;
    p.context.allocator = &allocator;
    OK(pgrad_context_create(&p.context, &context));
    const long held = state.live;
    pgrad_status status = PGRAD_E_NOMEM;
    for (long n = 1; status != PGRAD_OK; n += n < 60 ? 1 : 37) {
        state.left = n;
        status = pgrad_model_estimate_create(context, p.config, &p.model, &p.plan, &report);
        if (status != PGRAD_OK)
            ck_assert_int_eq(status, PGRAD_E_NOMEM);
        ck_assert_int_eq(state.live, held);
    }
    state.left = -1;
    ck_assert_uint_lt(report.total, whole.total);
    pgrad_context_free(context);
    ck_assert_int_eq(state.live, 0);
}
END_TEST

static void add(TCase *limits)
{
    tcase_add_test(limits, kept_by_all_means_under_a_limit);
    tcase_add_loop_test(limits, what_is_chosen_runs_under_the_limit, 0, 2);
    tcase_add_test(limits, choices_do_not_depend_on_the_machine);
    tcase_add_loop_test(limits, the_planned_machine_needs_no_less, 0, N_SETTINGS);
    tcase_add_test(limits, choices_do_not_depend_on_what_is_held);
    tcase_add_test(limits, a_refusal_says_what_fits);
    tcase_add_test(limits, refuses_what_makes_no_plan);
    tcase_add_test(limits, sizes_beyond_all_memory);
    tcase_add_test(limits, out_of_memory);
}

int main(void)
{
    return run_case("estimate_limits", NULL, NULL, 300, add);
}
