/* A backward pass that starts from the activations generate kept gives the bits of one that computes them: gradients
 * and updates, GPT-2 and Llama, any threads, kernel set, slots, drafts, forced prefixes and micro-batches. And it
 * never starts from those of other weights, of another sequence or of a call that failed. */
enum { GROUPS = 4, GROUP = 5, LONGEST = 78, NEW = 18, STEPS = 3 };
#include "kept_test.h"

static const char *const configs[] = {LLAMA_CONFIG, GPT2_CONFIG};
#define N_CONFIGS 2

/* ---- a step, with activations kept or not ---- */

static const setting settings[] = {
    {PGRAD_KERNELS_AUTO, 1, 0, PGRAD_SPECULATE_OFF, 1, 0, PGRAD_RECOMPUTE_OFF, 0, PGRAD_STORAGE_F32, 0, 0},
    {PGRAD_KERNELS_AUTO, 2, 3, PGRAD_SPECULATE_ON, 1, 100, PGRAD_RECOMPUTE_OFF, 0, PGRAD_STORAGE_F32, 0, 2},
    {PGRAD_KERNELS_GENERIC, 3, 0, PGRAD_SPECULATE_ON, 1, 64, PGRAD_RECOMPUTE_ON, 3, PGRAD_STORAGE_F32, 1, 0},
    {PGRAD_KERNELS_HASWELL, 8, 7, PGRAD_SPECULATE_OFF, 0, 0, PGRAD_RECOMPUTE_OFF, 1, PGRAD_STORAGE_F32, 1, 5},
    {PGRAD_KERNELS_SKX, 2, 1, PGRAD_SPECULATE_ON, 1, 0, PGRAD_RECOMPUTE_OFF, 2, PGRAD_STORAGE_BF16, 0, 1},
    {PGRAD_KERNELS_AUTO, 2, 0, PGRAD_SPECULATE_OFF, 1, 0, PGRAD_RECOMPUTE_OFF, NEW, PGRAD_STORAGE_F32, 0, 0},
};
#define N_SETTINGS (int)(sizeof settings / sizeof settings[0])

/* Prompts of which some begin alike, over more than a page. */
static void add_prompts(pgrad_rollout *rollout, uint64_t step, uint32_t n_prefix)
{
    static const size_t lengths[GROUPS] = {5, 70, LONGEST, 1};
    static const pgrad_token prefix[NEW] = {'a', 'b', 'a', 'b', 'c', 'd', 'a', 'b', 'a', 'b', 'c', 'd', 'x'};
    for (uint32_t group = 0; group < GROUPS; group++) {
        pgrad_token ids[LONGEST];
        pgrad_prompt_params params;
        pgrad_prompt_params_init(&params, sizeof params);
        params.prefix = group % 2 == 0 ? prefix : NULL;
        params.n_prefix = group % 2 == 0 ? n_prefix : 0;
        for (size_t i = 0; i < lengths[group]; i++)
            ids[i] = (pgrad_token)pgrad__uniform_below(step, 1, i % 9, 256);
        OK(pgrad_rollout_add_prompt(rollout, ids, lengths[group], &params, NULL));
    }
}

static void same_values(pgrad_model *a, pgrad_model *b, int gradients)
{
    size_t n[2];
    float *values[2] = {all_values(a, gradients, &n[0]), all_values(b, gradients, &n[1])};
    ck_assert_uint_eq(n[0], n[1]);
    ck_assert_mem_eq(values[0], values[1], n[0] * sizeof(float));
    free(values[0]);
    free(values[1]);
}

START_TEST(steps)
{
    const setting *s = &settings[_i / N_CONFIGS];
    handles on = begin(configs[_i % N_CONFIGS], s, PGRAD_KEEP_ON), off = begin(configs[_i % N_CONFIGS], s, PGRAD_KEEP_OFF);
    handles *both[2] = {&on, &off};
    if (on.w.context == NULL)
        return;
    for (uint64_t step = 0; step < STEPS; step++) {
        record *records[2];
        pgrad_step_report reports[2];
        for (int k = 0; k < 2; k++) {
            handles *h = both[k];
            pgrad_rollout_clear(h->rollout);
            add_prompts(h->rollout, step, s->n_prefix);
            generate(h, s->speculate);
            records[k] = take_record(h->rollout);
            set_advantages(h->rollout, s->zero_groups);
            (void)backward(h, s->in_backward ? h->optimizer : NULL, &reports[k]);
        }
        same_record(records[0], records[1]);
        if (s->micro == 0) /* a cut group has its prompt in both micro-batches */
            ck_assert_double_eq(reports[0].kept_rows, rows_of(on.rollout, (int)s->share));
        ck_assert_double_gt(reports[0].kept_rows, 0.0);
        ck_assert_double_eq(reports[1].kept_rows, 0.0);
        ck_assert_double_eq(reports[0].loss, reports[1].loss);
        ck_assert_double_eq(reports[0].n_micro_batches, reports[1].n_micro_batches);
        if (!s->in_backward) {
            same_values(on.w.model, off.w.model, 1);
            for (int k = 0; k < 2; k++)
                OK(pgrad_optimizer_step(both[k]->optimizer, NULL));
        }
        same_values(on.w.model, off.w.model, 0);
        free(records[0]);
        free(records[1]);
    }
    end(&on);
    end(&off);
}
END_TEST

/* ---- what must not be taken for kept ---- */

/* Gradients against those of an objective over a rollout that keeps nothing, and the same sequences. */
static void same_as_computed(const handles *h, double kept_rows)
{
    pgrad_step_report report, other;
    ck_assert_double_eq(backward(h, NULL, &report), kept_rows);
    size_t n, m;
    float *values = all_values(h->w.model, 1, &n);
    pgrad_rollout *plain = rollout_of(&h->w, PGRAD_KEEP_OFF, 0);
    uint32_t groups[GROUPS];
    for (uint32_t group = 0; group < pgrad_rollout_count_groups(h->rollout); group++) {
        const pgrad_token *ids = pgrad_rollout_prompt(h->rollout, group, &m);
        OK(pgrad_rollout_add_prompt(plain, ids, m, NULL, &groups[group]));
    }
    for (uint32_t i = 0, at = 0; i < pgrad_rollout_count(h->rollout); i++) {
        const pgrad_sequence_info info = info_of(h->rollout, i);
        const pgrad_token *ids = pgrad_rollout_tokens(h->rollout, i, &m);
        if (info.finish == PGRAD_FINISH_NONE)
            continue;
        OK(pgrad_rollout_add_sequence(plain, groups[info.group], ids, m, NULL));
        OK(pgrad_rollout_set_array(plain, PGRAD_OLD, at, pgrad_rollout_array(h->rollout, PGRAD_OLD, i, NULL), m));
        OK(pgrad_rollout_set_array(plain, PGRAD_ADVANTAGES, at,
                                   pgrad_rollout_array(h->rollout, PGRAD_ADVANTAGES, i, NULL), m));
        at++;
    }
    handles computed = *h;
    computed.rollout = plain;
    ck_assert_double_eq(backward(&computed, NULL, &other), 0.0);
    ck_assert_double_eq(report.loss, other.loss);
    float *others = all_values(h->w.model, 1, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(values, others, n * sizeof *values);
    free(values);
    free(others);
    pgrad_rollout_free(plain);
}

static void begin_step(handles *h, uint64_t step)
{
    pgrad_rollout_clear(h->rollout);
    add_prompts(h->rollout, step, 0);
    generate(h, PGRAD_SPECULATE_AUTO);
    set_advantages(h->rollout, 0);
}

static void add_own(pgrad_rollout *rollout, uint32_t group, pgrad_token first)
{
    const pgrad_token ids[4] = {first, 'x', 'y', 'z'};
    const float old[4] = {-5.0f, -4.0f, -6.0f, -5.5f}, advantage = 1.0f;
    const uint32_t i = pgrad_rollout_count(rollout);
    OK(pgrad_rollout_add_sequence(rollout, group, ids, 4, NULL));
    OK(pgrad_rollout_set_array(rollout, PGRAD_OLD, i, old, 4));
    OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
}

START_TEST(other_weights)
{
    handles h = begin(configs[_i], &settings[1], PGRAD_KEEP_ON);
    pgrad_step_report report;
    begin_step(&h, 1);
    ck_assert_double_gt(backward(&h, NULL, &report), 0.0);
    ck_assert_double_gt(backward(&h, NULL, &report), 0.0); /* it is not used up */
    OK(pgrad_optimizer_step(h.optimizer, NULL));
    same_as_computed(&h, 0.0);
    /* A later call keeps its own and forgets those of earlier weights. */
    begin_step(&h, 2);
    OK(pgrad_optimizer_step(h.optimizer, NULL));
    pgrad_rollout_clear(h.rollout);
    static const pgrad_token ids[3] = {'a', 'b', 'c'};
    OK(pgrad_rollout_add_prompt(h.rollout, ids, 3, NULL, NULL));
    generate(&h, PGRAD_SPECULATE_OFF);
    set_advantages(h.rollout, 0);
    OK(pgrad_model_tensor_write(h.w.model, _i == 0 ? "model.norm.weight" : "transformer.ln_f.weight",
                                (float[32]){1.0f, 2.0f}, 32));
    same_as_computed(&h, 0.0);
    end(&h);
}
END_TEST

START_TEST(another_model)
{
    handles h = begin(configs[_i], &settings[0], PGRAD_KEEP_ON);
    world other = {.context = h.w.context};
    pgrad_objective *objective = NULL;
    pgrad_step_report report;
    begin_step(&h, 1);
    other.model = make_model(h.w.context, configs[_i]);
    OK(pgrad_objective_create(other.model, NULL, &objective));
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_objective_backward(objective, h.rollout, NULL, 0, NULL, &report));
    ck_assert_double_eq(report.kept_rows, 0.0);
    pgrad_objective_free(objective);
    pgrad_model_free(other.model);
    end(&h);
}
END_TEST

/* A host's own completions have none: their micro-batches are computed, the others are not. */
START_TEST(added_sequences)
{
    setting s = settings[0];
    s.micro = 1; /* a sequence each */
    handles h = begin(configs[_i], &s, PGRAD_KEEP_ON);
    static const pgrad_token ids[3] = {'a', 'b', 'c'};
    OK(pgrad_rollout_add_prompt(h.rollout, ids, 3, NULL, NULL));
    generate(&h, PGRAD_SPECULATE_OFF);
    const double rows = rows_of(h.rollout, 0);
    uint32_t group;
    OK(pgrad_rollout_add_prompt(h.rollout, ids, 2, NULL, &group));
    set_advantages(h.rollout, 0);
    add_own(h.rollout, group, 'q');
    add_own(h.rollout, group, 'r');
    same_as_computed(&h, rows);
    /* Calls of generate after one another keep what the first one kept. */
    OK(pgrad_rollout_add_prompt(h.rollout, ids, 1, NULL, &group));
    generate(&h, PGRAD_SPECULATE_OFF);
    set_advantages(h.rollout, 0);
    same_as_computed(&h, rows_of(h.rollout, 0) - 2.0 * (3 + 2));
    end(&h);
}
END_TEST

/* The progress function ends a call after some of its sequences; the rest never count. */
static int32_t stop_later(void *user, const char *what, uint64_t done, uint64_t total)
{
    const uint64_t *stop = user;
    (void)total;
    return strcmp(what, "generate") != 0 || done < *stop;
}

START_TEST(stopped_calls)
{
    setting s = settings[0];
    s.slots = 2;
    for (uint64_t stop = 3 * NEW; stop < 12 * NEW; stop += 2 * NEW) {
        handles h = begin(configs[_i], &s, PGRAD_KEEP_ON);
        size_t rows = 0;
        OK(pgrad_context_set_progress(h.w.context, stop_later, &stop));
        add_prompts(h.rollout, 4, 0);
        ck_assert_int_eq(pgrad_rollout_generate(h.rollout, h.sampler, NULL), PGRAD_E_CALLBACK);
        OK(pgrad_context_set_progress(h.w.context, NULL, NULL));
        set_advantages(h.rollout, 0);
        for (uint32_t i = 0; i < pgrad_rollout_count(h.rollout); i++) {
            const pgrad_sequence_info info = info_of(h.rollout, i);
            if (info.finish != PGRAD_FINISH_NONE)
                rows += info.n_tokens - 1 + (i % GROUP == 0 ? info.n_prompt : 0);
        }
        ck_assert_uint_gt(rows, 0);
        same_as_computed(&h, (double)rows);
        end(&h);
    }
}
END_TEST

/* ---- when AUTO keeps ---- */

static uint64_t kept_bytes(const pgrad_rollout *rollout)
{
    pgrad_rollout_info info = {.struct_size = sizeof info};
    OK(pgrad_rollout_get_info(rollout, &info));
    return info.activation_bytes;
}

START_TEST(auto_waits_for_an_objective)
{
    handles h = begin(configs[_i], &settings[0], PGRAD_KEEP_AUTO);
    pgrad_objective *objective = h.objective;
    pgrad_step_report report;
    begin_step(&h, 1);
    ck_assert_double_eq(backward(&h, NULL, &report), rows_of(h.rollout, 1));
    const uint64_t bytes = kept_bytes(h.rollout), allocated = allocations(h.w.context);
    ck_assert_uint_gt(bytes, 0);
    /* Memory is taken once. */
    OK(pgrad_optimizer_step(h.optimizer, NULL));
    begin_step(&h, 1);
    ck_assert_double_gt(backward(&h, NULL, &report), 0.0);
    begin_step(&h, 1);
    ck_assert_uint_le(allocations(h.w.context), allocated + 4); /* completions a little longer than before */
    /* Who only asks or has ended counts for nothing. */
    pgrad_memory_report needed = {.struct_size = sizeof needed};
    pgrad_plan_params plan;
    pgrad_rollout_params planned;
    pgrad_objective_params objective_params;
    pgrad_plan_params_init(&plan, sizeof plan);
    pgrad_rollout_params_init(&planned, sizeof planned);
    pgrad_objective_params_init(&objective_params, sizeof objective_params);
    plan.rollout = &planned;
    plan.objective = &objective_params;
    OK(pgrad_model_estimate(h.w.model, &plan, &needed));
    ck_assert_uint_eq(atomic_load(&h.w.model->n_keeping), 1);
    pgrad_objective_free(objective);
    ck_assert_uint_eq(atomic_load(&h.w.model->n_keeping), 0);
    /* Nobody there who would use them: the memory goes when nothing is kept any more. */
    begin_step(&h, 2);
    ck_assert_uint_eq(kept_bytes(h.rollout), 0);
    h.objective = NULL;
    OK(pgrad_objective_create(h.w.model, NULL, &h.objective));
    ck_assert_double_eq(backward(&h, NULL, &report), 0.0);
    begin_step(&h, 2);
    ck_assert_double_gt(backward(&h, NULL, &report), 0.0);
    /* One that saves activations is nobody. */
    pgrad_objective_params params;
    pgrad_objective_params_init(&params, sizeof params);
    params.recompute = PGRAD_RECOMPUTE_ON;
    pgrad_objective_free(h.objective);
    OK(pgrad_objective_create(h.w.model, &params, &h.objective));
    begin_step(&h, 2);
    ck_assert_double_eq(backward(&h, NULL, &report), 0.0);
    end(&h);
}
END_TEST

START_TEST(auto_is_modest)
{
    world w = begin_world(configs[_i]);
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_objective *objective = NULL;
    pgrad_sampler_params sampler_params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &sampler_params);
    OK(pgrad_objective_create(w.model, NULL, &objective));
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = 4096; /* at full length these are more than 2 GiB */
    params.max_prompts = 64;
    params.max_new_tokens = 60;
    params.batch_size = 4;
    OK(pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    ck_assert_uint_eq(rollout->activations.n_rows, 0);
    pgrad_rollout_free(rollout);
    params.group_size = 4;
    OK(pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    ck_assert_uint_gt(rollout->activations.n_rows, 0);
    pgrad_rollout_free(rollout);
    params.prefix_cache_tokens = 64; /* beginnings are to be taken over */
    OK(pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    ck_assert_uint_eq(rollout->activations.n_rows, 0);
    pgrad_rollout_free(rollout);
    params.prefix_cache_tokens = 0;
    params.kv_storage = PGRAD_KV_BF16;
    OK(pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    ck_assert_uint_eq(rollout->activations.n_rows, 0);
    pgrad_rollout_free(rollout);
    params.keep_activations = PGRAD_KEEP_ON;
    rollout = NULL;
    FAILS(PGRAD_E_INVALID, "rollout.keep_activations", pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    params.keep_activations = 3;
    FAILS(PGRAD_E_INVALID, "rollout.keep_activations", pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    ck_assert_ptr_null(rollout);
    pgrad_sampler_free(sampler);
    pgrad_objective_free(objective);
    end_world(&w);
}
END_TEST

/* ON: the call fails and is as if it had not been; what it kept is nobody's, though its sequences' numbers are used
 * again. AUTO: nothing is kept, and nothing else changes. */
START_TEST(memory_that_is_refused)
{
    for (int after = 0; after < 6; after++) {
        handles on = begin_choosy(configs[_i], PGRAD_KEEP_ON, 2), automatic = begin_choosy(configs[_i], PGRAD_KEEP_AUTO, 2);
        pgrad_step_report report;
        refusal.size = (on.rollout->activations.block_floats * sizeof(float) + 63) / 64 * 64 + 64;
        refusal.after = after;
        add_prompts(on.rollout, 1, 0);
        ck_assert_int_eq(pgrad_rollout_generate(on.rollout, on.sampler, NULL), PGRAD_E_NOMEM);
        ck_assert_uint_eq(pgrad_rollout_count(on.rollout), 0);
        refusal.after = 1000;
        for (uint32_t group = 0; group < GROUPS; group++)
            add_own(on.rollout, group, 'q');
        same_as_computed(&on, 0.0);
        begin_step(&on, 2);
        same_as_computed(&on, rows_of(on.rollout, 1));
        end(&on);

        refusal.after = after;
        begin_step(&automatic, 1);
        refusal.after = 1000;
        ck_assert_uint_eq(kept_bytes(automatic.rollout), 0);
        ck_assert_double_eq(backward(&automatic, NULL, &report), 0.0);
        begin_step(&automatic, 1);
        same_as_computed(&automatic, rows_of(automatic.rollout, 1));
        end(&automatic);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_kept");
    TCase *tests = tcase_create("kept");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, steps, 0, N_SETTINGS * N_CONFIGS);
    tcase_add_loop_test(tests, other_weights, 0, N_CONFIGS);
    tcase_add_loop_test(tests, another_model, 0, N_CONFIGS);
    tcase_add_loop_test(tests, added_sequences, 0, N_CONFIGS);
    tcase_add_loop_test(tests, stopped_calls, 0, N_CONFIGS);
    tcase_add_loop_test(tests, auto_waits_for_an_objective, 0, N_CONFIGS);
    tcase_add_loop_test(tests, auto_is_modest, 0, N_CONFIGS);
    tcase_add_loop_test(tests, memory_that_is_refused, 0, N_CONFIGS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
