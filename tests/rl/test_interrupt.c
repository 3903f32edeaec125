/* A backward pass that is stopped: by the progress function at each of its calls, and cancelled at each place that looks
 * whether it is. Whatever was done until then, zero_grad and backward give the bits of a pass that nothing disturbed; a
 * pass that also updates has changed no weight. And sampling whose time is over wherever it looks at the clock. */
#include "rl_test.h"

/* ---- the linker has lib/ call these (--wrap): the n-th look finds the context cancelled, or the time over ---- */

pgrad_status __real_pgrad__check_cancel(pgrad_context *context);
pgrad_status __wrap_pgrad__check_cancel(pgrad_context *context);

static uint32_t looks, cancel_at; /* 0: never */

pgrad_status __wrap_pgrad__check_cancel(pgrad_context *context)
{
    if (++looks == cancel_at)
        pgrad_context_cancel(context);
    return __real_pgrad__check_cancel(context);
}

double __real_pgrad__os_seconds(void);
double __wrap_pgrad__os_seconds(void);

enum { LATE = 1000000 };
static int counts_time; /* with one thread only: the pool looks too */
static uint32_t time_looks, late_at;

double __wrap_pgrad__os_seconds(void)
{
    const int late = counts_time && ++time_looks >= late_at && late_at > 0;
    return __real_pgrad__os_seconds() + (late ? LATE : 0);
}

typedef struct stopper {
    uint32_t calls, stop_at; /* 0: never */
    uint64_t done, total;
} stopper;

static int32_t count_calls(void *user, const char *what, uint64_t done, uint64_t total)
{
    stopper *s = user;
    ck_assert_str_eq(what, "backward");
    ck_assert_uint_le(done, total);
    ck_assert(s->calls == 0 || (done >= s->done && total == s->total));
    s->done = done;
    s->total = total;
    return ++s->calls != s->stop_at;
}

/* ---- the pass ---- */

enum { N_PROMPTS = 2, GROUP = 3, LMAX = 10 };

typedef struct pass {
    world w;
    pgrad_rollout *rollout;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer; /* NULL: gradients only */
    float *weights;             /* before it */
    float *expected;            /* weights and gradients behind an undisturbed one */
    size_t n;                   /* of both */
    stopper stopper;
} pass;

/* One tensor behind another: what a host reads. */
static float *read_all(pgrad_model *model, int with_gradients, size_t *n)
{
    size_t space = 0, at = 0, read;
    for (uint32_t i = 0; i < model->n_tensors; i++)
        space += (size_t)pgrad__tensor_elements(&model->tensors[i]);
    float *out = malloc(2 * space * sizeof *out);
    ck_assert_ptr_nonnull(out);
    for (uint32_t i = 0; i < model->n_tensors; i++, at += read)
        OK(pgrad_model_tensor_read(model, model->tensors[i].name, out + at, space - at, &read));
    for (uint32_t i = 0; i < model->n_tensors && with_gradients; i++, at += read)
        OK(pgrad_model_grad_read(model, model->tensors[i].name, out + at, 2 * space - at, &read));
    *n = at;
    return out;
}

/* From the weights of before, as a host would take it up again. */
static pgrad_status backward(pass *p)
{
    pgrad_backward_params params;
    pgrad_backward_params_init(&params, sizeof params);
    params.optimizer = p->optimizer;
    OK(pgrad_model_zero_grad(p->w.model));
    looks = 0;
    p->stopper.calls = 0;
    return pgrad_objective_backward(p->objective, p->rollout, NULL, 0, &params, NULL);
}

/* The weights of before again, and an optimizer that has made no step. */
static void restart(pass *p, int updates)
{
    size_t at = 0;
    for (uint32_t i = 0; i < p->w.model->n_tensors; i++) {
        const size_t n = (size_t)pgrad__tensor_elements(&p->w.model->tensors[i]);
        OK(pgrad_model_tensor_write(p->w.model, p->w.model->tensors[i].name, p->weights + at, n));
        at += n;
    }
    pgrad_optimizer_free(p->optimizer);
    p->optimizer = NULL;
    if (!updates)
        return;
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 0.01;
    params.max_grad_norm = INFINITY;
    OK(pgrad_optimizer_create(p->w.model, &params, &p->optimizer));
}

static void begin_pass(pass *p, const char *config, uint32_t recompute, int updates)
{
    *p = (pass){.w = begin_world(config)};
    pgrad_objective_params params;
    size_t n;
    p->rollout = make_rollout(&p->w, GROUP, N_PROMPTS, LMAX, 0);
    for (uint32_t group = 0; group < N_PROMPTS; group++) {
        (void)add_long_prompt(p->rollout, group, 5 + 8 * group);
        for (uint32_t k = 0; k < GROUP; k++) {
            pgrad_token ids[LMAX];
            for (uint32_t t = 0; t < LMAX; t++)
                ids[t] = (pgrad_token)((11 * group + 5 * k + 3 * t + t * t) % 200);
            OK(pgrad_rollout_add_sequence(p->rollout, group, ids, LMAX - 2 * k, NULL));
        }
    }
    OK(pgrad_rollout_score(p->rollout, p->w.model, PGRAD_OLD));
    for (uint32_t i = 0; i < N_PROMPTS * GROUP; i++)
        OK(pgrad_rollout_set_array(p->rollout, PGRAD_ADVANTAGES, i, &(float){(float)i - 2.25f}, 1));
    pgrad_objective_params_init(&params, sizeof params);
    params.micro_batch_tokens = 24;
    params.recompute = recompute;
    OK(pgrad_objective_create(p->w.model, &params, &p->objective));
    p->weights = read_all(p->w.model, 0, &n);
    restart(p, updates);
    OK(pgrad_context_set_progress(p->w.context, count_calls, &p->stopper));
    OK(backward(p));
    p->expected = read_all(p->w.model, 1, &p->n);
    ck_assert_int_eq(memcmp(p->expected, p->weights, n * sizeof(float)) != 0, updates);
}

static void end_pass(pass *p)
{
    free(p->expected);
    free(p->weights);
    pgrad_optimizer_free(p->optimizer);
    pgrad_objective_free(p->objective);
    pgrad_rollout_free(p->rollout);
    end_world(&p->w);
}

/* What was stopped changed no weight, and the next one is whole. */
static void goes_on(pass *p, uint32_t where)
{
    size_t n;
    float *found = read_all(p->w.model, 0, &n);
    ck_assert_msg(memcmp(found, p->weights, n * sizeof *found) == 0, "stopped at %u: a weight has changed", where);
    free(found);
    OK(backward(p));
    found = read_all(p->w.model, 1, &n);
    ck_assert_uint_eq(n, p->n);
    ck_assert_msg(memcmp(found, p->expected, n * sizeof *found) == 0, "stopped at %u: then, other bits", where);
    free(found);
}

/* Bits of the loop: recompute, an optimizer in the pass, GPT-2. */
START_TEST(stopped_anywhere)
{
    pass p;
    const int updates = _i / 2 % 2;
    begin_pass(&p, _i / 4 ? GPT2_CONFIG : LLAMA_CONFIG, _i % 2 ? PGRAD_RECOMPUTE_ON : PGRAD_RECOMPUTE_OFF, updates);
    const uint32_t calls = p.stopper.calls, all_looks = looks;
    ck_assert_uint_gt(calls, 2);          /* more than one micro-batch */
    ck_assert_uint_gt(all_looks, 3 * calls); /* forward, head and backward of each look */
    if (!updates)
        ck_assert_uint_eq(p.stopper.done, p.stopper.total);
    for (uint32_t at = 1; at <= calls; at++) {
        restart(&p, updates);
        p.stopper.stop_at = at;
        FAILS(PGRAD_E_CALLBACK, "(backward, ", backward(&p));
        ck_assert_uint_eq(p.stopper.calls, at);
        p.stopper.stop_at = 0;
        goes_on(&p, at);
    }
    for (uint32_t at = 1; at <= all_looks; at++) {
        restart(&p, updates);
        cancel_at = at;
        FAILS(PGRAD_E_CANCELLED, "cancelled", backward(&p));
        ck_assert_uint_eq(looks, at);
        cancel_at = 0;
        pgrad_context_clear_cancel(p.w.context);
        goes_on(&p, at);
    }
    end_pass(&p);
}
END_TEST

/* ---- sampling ---- */

enum { N_LONG = 3, SHARED = 130 };

/* Prompts that share two pages of 64 tokens, so that later ones go on from what earlier ones left in the cache. */
static void add_prompts(pgrad_rollout *rollout, uint32_t first)
{
    for (uint32_t k = 0; k < N_LONG; k++) {
        pgrad_token ids[SHARED + 1];
        for (uint32_t t = 0; t < SHARED; t++)
            ids[t] = (pgrad_token)((first + 7 * t + t * t) % 200);
        ids[SHARED] = (pgrad_token)k;
        OK(pgrad_rollout_add_prompt(rollout, ids, SHARED + 1, NULL, NULL));
    }
}

/* What a host is told of: the sequences that were finished, by number. */
typedef struct finished {
    uint32_t n;
    int is[2 * N_LONG];
} finished;

static int32_t note_finished(void *user, const pgrad_rollout *rollout, const pgrad_event *event)
{
    finished *told = user;
    (void)rollout;
    if (event->kind != PGRAD_EVENT_FINISHED)
        return 1;
    told->n++;
    told->is[event->sequence] = 1;
    return 1;
}

static pgrad_status sample(pgrad_rollout *rollout, pgrad_sampler *sampler, uint32_t first, finished *told)
{
    pgrad_generate_params params;
    pgrad_generate_params_init(&params, sizeof params);
    params.max_seconds = LATE / 2;
    params.event = note_finished;
    params.user = told;
    *told = (finished){0};
    pgrad_rollout_clear(rollout);
    add_prompts(rollout, first);
    OK(pgrad_sampler_set_next_sequence(sampler, 0));
    time_looks = 0;
    return pgrad_rollout_generate(rollout, sampler, &params);
}

/* The cache forgets, and its pages have what other prompts left there. */
static void fill_with_others(const world *w, pgrad_rollout *rollout, pgrad_sampler *sampler)
{
    float norm[32];
    size_t n;
    finished told;
    OK(pgrad_model_tensor_read(w->model, "model.norm.weight", norm, 32, &n));
    OK(pgrad_model_tensor_write(w->model, "model.norm.weight", norm, n));
    OK(sample(rollout, sampler, 50, &told));
    OK(pgrad_model_tensor_write(w->model, "model.norm.weight", norm, n));
}

/* Each sequence is whole, with its end, arrays and text, as the host was told; or it is the beginning of one, and has
 * no end. */
static void is_beginning_of(const record *whole, const pgrad_rollout *rollout, const finished *told)
{
    ck_assert_uint_eq(pgrad_rollout_count(rollout), whole->n);
    for (uint32_t i = 0; i < whole->n; i++) {
        size_t n, length;
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, i, &n);
        const float *logprobs = pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, NULL);
        ck_assert_uint_le(n, whole->n_tokens[i]);
        ck_assert(n == 0 || memcmp(tokens, whole->tokens[i], n * sizeof *tokens) == 0);
        ck_assert(n == 0 || memcmp(logprobs, whole->logprobs[i], n * sizeof *logprobs) == 0);
        ck_assert_int_eq(n == whole->n_tokens[i], told->is[i]);
        ck_assert_uint_eq(info_of(rollout, i).finish, told->is[i] ? whole->finish[i] : PGRAD_FINISH_NONE);
        const char *text = pgrad_rollout_text(rollout, i, &length);
        if (told->is[i]) {
            ck_assert_uint_eq(length, whole->length[i]);
            ck_assert_int_eq(memcmp(text, whole->text[i], length + 1), 0);
        }
    }
}

START_TEST(out_of_time_anywhere)
{
    world w = begin_world_with(LLAMA_CONFIG, 1);
    pgrad_sampler_params sampling = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &sampling);
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = 2;
    params.max_prompts = N_LONG;
    params.max_new_tokens = LMAX;
    params.batch_size = 3;
    params.prefix_cache_tokens = 1024; /* over calls */
    OK(pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    finished told;
    uint32_t n_finished = 0;
    counts_time = 1;
    OK(sample(rollout, sampler, 0, &told));
    const uint32_t looks_in_all = time_looks;
    record *whole = take_record(rollout);
    ck_assert_uint_gt(looks_in_all, 20);
    ck_assert_uint_eq(told.n, whole->n);
    for (uint32_t at = 2; at <= looks_in_all; at++) { /* the first says when it began */
        fill_with_others(&w, rollout, sampler);
        late_at = at;
        FAILS(PGRAD_E_DEADLINE, "generate: 500000 seconds are over", sample(rollout, sampler, 0, &told));
        late_at = 0;
        is_beginning_of(whole, rollout, &told);
        ck_assert_uint_ge(told.n, n_finished); /* what is finished by one look is so by the next */
        n_finished = told.n;
        if (at == looks_in_all)
            ck_assert_uint_eq(n_finished, whole->n); /* there was nothing left to do */
        else if (at > looks_in_all / 2)
            ck_assert_uint_gt(n_finished, 0);
        OK(sample(rollout, sampler, 0, &told)); /* what the cache kept is good */
        record *again = take_record(rollout);
        same_record(whole, again);
        free(again);
    }
    counts_time = 0;
    free(whole);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("interrupt");
    TCase *tests = tcase_create("interrupt");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, stopped_anywhere, 0, 8);
    tcase_add_test(tests, out_of_time_anywhere);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
