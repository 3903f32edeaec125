/* The ways to save memory in a training step: recomputed layers and updates inside the backward pass give the
 * bits of the plain step, and dropped sequences the gradients of the same step without them; with GPT-2 and
 * Llama, shared prompts or not, any number of threads and kernel set. */
#include "../rl/rl_test.h"

#include <math.h>
#include <string.h>

static const char *const configs[] = {LLAMA_CONFIG, GPT2_CONFIG};
#define N_CONFIGS 2
enum { GROUPS = 4, GROUP = 5, STEPS = 3 };

/* How a run is set up, and what it leaves. */
typedef struct setting {
    uint32_t kernel_set, n_threads, share, micro, recompute;
    int in_backward; /* 1: the optimizer goes into the last micro-batch */
    int steps;       /* 0: gradients only */
    uint32_t zero_groups; /* bits: groups whose advantages are zero */
    int leave_out;        /* and are not given to backward at all */
    double entropy;
} setting;

typedef struct outcome {
    size_t n;
    float *values; /* gradients, or weights after the steps: all tensors, one after another */
    pgrad_step_report report;
    uint64_t peak;
    int has_gradients;
} outcome;

static void make_sequences(world *w, const setting *s, pgrad_rollout *rollout)
{
    static const size_t lengths[GROUPS] = {5, 64, 70, 63};
    for (uint32_t group = 0; group < GROUPS; group++) {
        (void)add_long_prompt(rollout, group, lengths[group]);
        for (uint32_t k = 0; k < GROUP; k++) {
            pgrad_token ids[24];
            const uint32_t n = 1 + (group * 7 + k * 5) % 24;
            for (uint32_t t = 0; t < n; t++)
                ids[t] = (pgrad_token)pgrad__uniform_below(99, group * GROUP + k, t, 256);
            OK(pgrad_rollout_add_sequence(rollout, group, ids, n, NULL));
        }
    }
    OK(pgrad_rollout_score(rollout, w->model, PGRAD_OLD));
    for (uint32_t i = 0; i < GROUPS * GROUP; i++) {
        float advantage = (float)((int)(i * 7 % 11) - 5) / 3.0f;
        if (s->zero_groups >> (i / GROUP) & 1)
            advantage = 0.0f;
        OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
    }
}

static void step(world *w, const setting *s, pgrad_objective *objective, pgrad_optimizer *optimizer,
                 const pgrad_rollout *rollout, outcome *out)
{
    uint32_t indices[GROUPS * GROUP], n = 0;
    for (uint32_t i = 0; i < GROUPS * GROUP; i++) {
        if (!s->leave_out || !(s->zero_groups >> (i / GROUP) & 1))
            indices[n++] = i;
    }
    pgrad_backward_params params;
    pgrad_backward_params_init(&params, sizeof params);
    ck_assert_ptr_null(params.optimizer);
    params.normalizer_total = 100.0;
    params.n_tokens_total = 100.0;
    if (s->in_backward)
        params.optimizer = optimizer;
    pgrad_step_report_init(&out->report, sizeof out->report);
    OK(pgrad_model_zero_grad(w->model));
    OK(pgrad_objective_backward(objective, rollout, indices, n, &params, &out->report));
    if (s->steps > 0 && !s->in_backward)
        OK(pgrad_optimizer_step(optimizer, &out->report));
}

static outcome run(int config, setting s)
{
    outcome out = {0};
    world w = {.context = test_context(s.kernel_set, s.n_threads)};
    if (w.context == NULL)
        return out; /* this machine cannot run the kernel set */
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, configs[config]);
    w.tokenizer = make_tokenizer(w.context);
    pgrad_rollout *rollout = make_rollout(&w, GROUP, GROUPS, 24, 0);
    make_sequences(&w, &s, rollout);
    pgrad_objective_params params;
    pgrad_objective *objective = NULL;
    pgrad_objective_params_init(&params, sizeof params);
    ck_assert_uint_eq(params.recompute, PGRAD_RECOMPUTE_AUTO);
    params.share_prefix = s.share;
    params.micro_batch_tokens = s.micro;
    params.recompute = s.recompute;
    params.entropy_coefficient = s.entropy;
    OK(pgrad_objective_create(w.model, &params, &objective));
    pgrad_optimizer_params optimizer_params;
    pgrad_optimizer *optimizer = NULL;
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.learning_rate = 1e-2;
    optimizer_params.weight_decay = 0.1;
    optimizer_params.max_grad_norm = INFINITY;
    OK(pgrad_optimizer_create(w.model, &optimizer_params, &optimizer));
    for (int i = 0; i < (s.steps > 0 ? s.steps : 1); i++)
        step(&w, &s, objective, optimizer, rollout, &out);
    out.values = all_values(w.model, s.steps == 0, &out.n);
    if (s.in_backward) { /* used up */
        outcome left = {0};
        left.values = all_values(w.model, 1, &left.n);
        for (size_t i = 0; i < left.n; i++)
            if (left.values[i] != 0.0f)
                ck_abort_msg("gradient %zu is left: %.9g", i, (double)left.values[i]);
        free(left.values);
    }
    out.has_gradients = w.model->has_gradients;
    pgrad_context_info info = {.struct_size = sizeof info};
    OK(pgrad_context_get_info(w.context, &info));
    out.peak = info.memory_peak;
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    end_world(&w);
    return out;
}

static void same(outcome *a, const outcome *b)
{
    ck_assert_uint_eq(a->n, b->n);
    ck_assert(memcmp(a->values, b->values, a->n * sizeof *a->values) == 0);
    ck_assert_double_eq(a->report.loss, b->report.loss);
    ck_assert_double_eq(a->report.ratio_mean, b->report.ratio_mean);
    free(a->values);
}

static const struct {
    uint32_t kernel_set, n_threads;
} machines[] = {{PGRAD_KERNELS_AUTO, 1},    {PGRAD_KERNELS_AUTO, 2},    {PGRAD_KERNELS_AUTO, 3}, {PGRAD_KERNELS_AUTO, 8},
                {PGRAD_KERNELS_GENERIC, 2}, {PGRAD_KERNELS_HASWELL, 1}, {PGRAD_KERNELS_SKX, 2}};
enum { N_MACHINES = sizeof machines / sizeof machines[0] };

/* Of config _i / 2, shared or not by _i % 2. */
START_TEST(recomputed_gradients)
{
    setting plain = {PGRAD_KERNELS_AUTO, 2, (uint32_t)(_i % 2), 0, .entropy = 0.01};
    outcome expected = run(_i / 2, plain);
    unsigned compared = 0;
    for (int m = 0; m < N_MACHINES; m++) {
        setting s = plain;
        s.kernel_set = machines[m].kernel_set;
        s.n_threads = machines[m].n_threads;
        s.recompute = 1;
        outcome got = run(_i / 2, s);
        if (got.n == 0)
            continue;
        ck_assert(m != 1 || got.peak < expected.peak);
        same(&got, &expected);
        compared++;
    }
    ck_assert_uint_ge(compared, 5);
    free(expected.values);
}
END_TEST

/* One micro-batch borrows memory for gradients; several, the model's own. */
START_TEST(updates_inside_backward)
{
    setting plain = {PGRAD_KERNELS_AUTO, 2, 1, _i % 2 == 0 ? 100000 : 150, .steps = STEPS, .entropy = 0.01};
    outcome expected = run(_i / 2, plain);
    ck_assert_int_eq(expected.has_gradients, 1);
    unsigned compared = 0;
    for (int m = 0; m < N_MACHINES; m++) {
        for (uint32_t recompute = 0; recompute < 2; recompute++) {
            setting s = plain;
            s.kernel_set = machines[m].kernel_set;
            s.n_threads = machines[m].n_threads;
            s.recompute = recompute;
            s.in_backward = 1;
            outcome got = run(_i / 2, s);
            if (got.n == 0)
                continue;
            ck_assert_int_eq(got.has_gradients, _i % 2);
            ck_assert_double_eq(got.report.grad_norm, expected.report.grad_norm);
            ck_assert_double_eq(got.report.learning_rate, expected.report.learning_rate);
            ck_assert_uint_eq(got.report.step, STEPS);
            ck_assert_uint_eq(expected.report.step, STEPS);
            same(&got, &expected);
            compared++;
        }
    }
    ck_assert_uint_ge(compared, 10);
    free(expected.values);
}
END_TEST

/* Groups without advantage: the same gradient as if they had not been there, and all zero when all are. */
START_TEST(dropped_sequences)
{
    static const uint32_t zero[] = {1, 2, 4, 8, 5, 10, 7};
    for (size_t i = 0; i < sizeof zero / sizeof zero[0]; i++) {
        for (uint32_t recompute = 0; recompute < 2; recompute++) {
            setting s = {PGRAD_KERNELS_AUTO, 2, (uint32_t)(_i % 2), 100000, recompute, .zero_groups = zero[i]};
            outcome with = run(_i / 2, s);
            s.leave_out = 1;
            outcome without = run(_i / 2, s);
            ck_assert_double_eq(with.report.ratio_min, 1.0);
            ck_assert_double_eq(with.report.policy_loss, without.report.policy_loss);
            /* The same rows in the same blocks but for the head's chunk: here one. */
            ck_assert(memcmp(with.values, without.values, with.n * sizeof *with.values) == 0);
            free(with.values);
            free(without.values);
        }
    }
}
END_TEST

START_TEST(nothing_to_learn)
{
    for (int in_backward = 0; in_backward < 2; in_backward++) {
        setting s = {PGRAD_KERNELS_AUTO, 2, 1, 0, .in_backward = in_backward, .steps = 2, .zero_groups = 15};
        setting plain = {PGRAD_KERNELS_AUTO, 2, 1, 0, .steps = 2, .zero_groups = 15};
        outcome got = run(_i, s), expected = run(_i, plain);
        ck_assert_double_eq(got.report.grad_norm, 0.0);
        same(&got, &expected); /* weight decay goes on */
        free(expected.values);
    }
}
END_TEST

/* What an optimizer must be, and what is left when an update is not finite. */
START_TEST(refusals)
{
    world w = begin_world(configs[_i]);
    setting s = {.kernel_set = PGRAD_KERNELS_AUTO};
    pgrad_rollout *rollout = make_rollout(&w, GROUP, GROUPS, 24, 0);
    make_sequences(&w, &s, rollout);
    pgrad_model *other = make_model(w.context, configs[_i]);
    pgrad_objective *objective = NULL;
    pgrad_optimizer *optimizer = NULL, *clipping = NULL, *strange = NULL;
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    OK(pgrad_objective_create(w.model, NULL, &objective));
    OK(pgrad_optimizer_create(w.model, &params, &clipping));
    params.max_grad_norm = INFINITY;
    OK(pgrad_optimizer_create(other, &params, &strange));
    params.learning_rate = 1e300; /* the first matrix overflows */
    OK(pgrad_optimizer_create(w.model, &params, &optimizer));
    pgrad_backward_params how;
    pgrad_backward_params_init(&how, sizeof how);
    how.optimizer = clipping;
    FAILS(PGRAD_E_INVALID, "optimizer.max_grad_norm",
          pgrad_objective_backward(objective, rollout, NULL, 0, &how, NULL));
    how.optimizer = strange;
    FAILS(PGRAD_E_INVALID, "backward.optimizer",
          pgrad_objective_backward(objective, rollout, NULL, 0, &how, NULL));
    how.optimizer = optimizer;
    FAILS(PGRAD_E_NUMERIC, "updated already", pgrad_objective_backward(objective, rollout, NULL, 0, &how, NULL));
    ck_assert(!w.model->has_gradients && w.model->tensors[0].grad == NULL);
    /* Everything can be used again. */
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_optimizer_set_lr(optimizer, 1e-3));
    OK(pgrad_objective_backward(objective, rollout, NULL, 0, &how, &report));
    ck_assert_uint_eq(report.step, 1);
    pgrad_optimizer_free(optimizer);
    pgrad_optimizer_free(strange);
    pgrad_optimizer_free(clipping);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad_model_free(other);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_memory");
    TCase *tests = tcase_create("memory");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, recomputed_gradients, 0, 2 * N_CONFIGS);
    tcase_add_loop_test(tests, updates_inside_backward, 0, 2 * N_CONFIGS);
    tcase_add_loop_test(tests, dropped_sequences, 0, 2 * N_CONFIGS);
    tcase_add_loop_test(tests, nothing_to_learn, 0, N_CONFIGS);
    tcase_add_loop_test(tests, refusals, 0, N_CONFIGS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
