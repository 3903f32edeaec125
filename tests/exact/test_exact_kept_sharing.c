/* Activations kept of prompts that begin alike: a common page is computed once in a call and its rows are lent to
 * the others. Every kept row has the bits of the same row of a rollout that has seen nothing else, gradients are
 * those of a rollout that keeps nothing, and each row is given back once, by its owner. */
enum { GROUPS = 10, GROUP = 3, LONGEST = 320, NEW = 18, WHOLE = 8192 /* a micro-batch for the step */ };
#include "kept_test.h"

static const char *const configs[] = {LLAMA_LONG, GPT2_LONG};
#define N_CONFIGS 2

/* ---- prompts ---- */

/* The first n_like ids of an earlier prompt, then its own: n in all. */
typedef struct prompt {
    uint32_t like, n_like, n;
} prompt;

static const prompt prompts[GROUPS] = {
    {0, 0, 300},
    {0, 128, 128}, /* whole pages: the last one is copied where its keys are there */
    {0, 140, 230}, /* two pages */
    {2, 200, 210}, /* two pages of the first prompt, one of the third */
    {0, 300, 300}, /* the same ids */
    {0, 256, 256}, /* whole pages */
    {3, 192, 192}, /* whole pages, of two prompts */
    {0, 63, 130},  /* an id short of a page */
    {0, 64, 90},
    {8, 30, 40},
};

static void ids_of(uint32_t k, uint64_t step, pgrad_token *ids)
{
    if (prompts[k].n_like > 0)
        ids_of(prompts[k].like, step, ids);
    for (uint32_t i = prompts[k].n_like; i < prompts[k].n; i++)
        ids[i] = (pgrad_token)pgrad__uniform_below(step, k, i, 256);
}

/* Every other prompt has a forced prefix. */
static void add_prompt(pgrad_rollout *rollout, uint32_t k, uint64_t step, uint32_t n_prefix)
{
    static const pgrad_token prefix[NEW] = {'a', 'b', 'a', 'b', 'c', 'd', 'a', 'b', 'a', 'b', 'c', 'd', 'x'};
    pgrad_token ids[LONGEST];
    pgrad_prompt_params params;
    pgrad_prompt_params_init(&params, sizeof params);
    params.prefix = prefix;
    params.n_prefix = k % 2 == 0 ? n_prefix : 0;
    ids_of(k, step, ids);
    OK(pgrad_rollout_add_prompt(rollout, ids, prompts[k].n, &params, NULL));
}

static void add_prompts(pgrad_rollout *rollout, uint32_t first, uint32_t behind, uint64_t step, uint32_t n_prefix)
{
    for (uint32_t k = first; k < behind; k++)
        add_prompt(rollout, k, step, n_prefix);
}

static pgrad_rollout_info info_now(const pgrad_rollout *rollout)
{
    pgrad_rollout_info info = {.struct_size = sizeof info};
    OK(pgrad_rollout_get_info(rollout, &info));
    return info;
}

static uint64_t prompt_tokens(const pgrad_rollout *rollout)
{
    uint64_t n = 0;
    for (uint32_t group = 0; group < rollout->n_groups; group++)
        n += rollout->groups[group].n_prompt;
    return n;
}

/* ---- what the store must look like ---- */

static int by_address(const void *a, const void *b)
{
    const uintptr_t x = (uintptr_t) * (float *const *)a, y = (uintptr_t) * (float *const *)b;
    return x < y ? -1 : x > y;
}

/* Every row of memory is the own row of one number, or in no use; a borrowed row is another number's own. Returns
 * how many are borrowed. */
static uint64_t check_store(const pgrad_rollout *rollout)
{
    const pgrad__activation_store *store = &rollout->activations;
    float **rows = calloc(2 * store->n_rows, sizeof *rows);
    size_t n = 0, borrowed = 0;
    for (size_t i = 0; i < store->n_rows; i++) {
        if (store->rows[i] != NULL && !store->borrowed[i])
            rows[n++] = store->rows[i];
        ck_assert(store->rows[i] != NULL || !store->borrowed[i]);
    }
    ck_assert_uint_eq(n, store->n_taken);
    qsort(rows, n, sizeof *rows, by_address);
    for (size_t i = 0; i < store->n_rows; i++) {
        if (!store->borrowed[i])
            continue;
        ck_assert_ptr_nonnull(bsearch(&store->rows[i], rows, n, sizeof *rows, by_address));
        borrowed++;
    }
    ck_assert_uint_le(n + store->n_given_back, store->n_rows);
    ck_assert_uint_eq(n + store->n_given_back,
                      store->n_blocks * 16 < store->n_rows ? store->n_blocks * 16 : store->n_rows);
    memcpy(rows + n, store->given_back, store->n_given_back * sizeof *rows);
    n += store->n_given_back;
    qsort(rows, n, sizeof *rows, by_address);
    for (size_t i = 1; i < n; i++)
        ck_assert_ptr_ne(rows[i - 1], rows[i]);
    free(rows);
    return borrowed;
}

static void nothing_is_kept(const pgrad_rollout *rollout)
{
    ck_assert_uint_eq(check_store(rollout), 0);
    ck_assert_uint_eq(rollout->activations.n_taken, 0);
}

/* What may differ of a layer's floats: means, where the norm takes none. */
static int is_left_out(const pgrad__config *config, size_t at)
{
    return config->norm != PGRAD__NORM_LAYER && (at == config->n_embd || at == config->n_embd + 2);
}

/* The kept rows of sequence i against those of sequence k of a rollout that has seen only its prompt. */
static void same_rows(const pgrad_rollout *rollout, uint32_t i, const pgrad_rollout *alone, uint32_t k)
{
    const pgrad__activation_store *a = &rollout->activations, *b = &alone->activations;
    const uint32_t n_layers = rollout->model->config.n_layers;
    for (size_t p = 0; p < pgrad__sequence_positions(rollout, i); p++) {
        const float *x = a->rows[pgrad__kept_row(rollout, i, p)], *y = b->rows[pgrad__kept_row(alone, k, p)];
        ck_assert(x != NULL && y != NULL);
        for (size_t layer = 0; layer < n_layers; layer++) {
            const size_t first = layer * (a->block_floats / n_layers);
            for (size_t at = 0; at < a->layer_floats; at++)
                if (memcmp(x + first + at, y + first + at, sizeof *x) != 0 && !is_left_out(&rollout->model->config, at))
                    ck_abort_msg("sequence %u, position %zu, layer %zu, float %zu: another row", i, p, layer, at);
        }
    }
}

/* Two tokens are drawn most of the time where there are to be drafts. */
static pgrad_sampler *sampler_of(const world *w, const setting *s)
{
    static const pgrad_token likely[2] = {'a', 'b'};
    static const float bias[2] = {9.0f, 8.0f};
    pgrad_sampler_params params = sampler_defaults();
    params.bias_tokens = likely;
    params.logit_bias = bias;
    params.n_bias_tokens = s->speculate == PGRAD_SPECULATE_ON ? 2 : 0;
    return make_sampler(w->context, &params);
}

static handles begin_sharing(const char *config, const setting *s, uint32_t keep)
{
    handles h = begin(config, s, keep);
    if (h.w.context == NULL)
        return h;
    pgrad_sampler_free(h.sampler);
    h.sampler = sampler_of(&h.w, s);
    return h;
}

/* Finished sequences of all groups, with what is kept of them, against each prompt in a rollout of its own. */
static void all_as_alone(const world *w, const pgrad_rollout *rollout, const setting *s)
{
    handles h = {.w = *w, .sampler = sampler_of(w, s)};
    for (uint32_t i = 0; i < rollout->n_sequences; i += GROUP) {
        const pgrad__group *group = &rollout->groups[info_of(rollout, i).group];
        pgrad_prompt_params params;
        pgrad_prompt_params_init(&params, sizeof params);
        params.prefix = rollout->prompts + group->prefix_offset;
        params.n_prefix = group->n_prefix;
        h.rollout = rollout_of(w, PGRAD_KEEP_ON, 0);
        OK(pgrad_rollout_add_prompt(h.rollout, rollout->prompts + group->prompt_offset, group->n_prompt, &params,
                                    NULL));
        OK(pgrad_sampler_set_next_sequence(h.sampler, info_of(rollout, i).sequence));
        generate(&h, PGRAD_SPECULATE_OFF);
        ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, 0);
        ck_assert_uint_eq(check_store(h.rollout), 0);
        for (uint32_t k = 0; k < GROUP; k++) {
            size_t n, m;
            const pgrad_token *ids = pgrad_rollout_tokens(rollout, i + k, &n),
                              *others = pgrad_rollout_tokens(h.rollout, k, &m);
            if (info_of(rollout, i + k).finish == PGRAD_FINISH_NONE)
                continue;
            ck_assert_uint_eq(n, m);
            ck_assert_mem_eq(ids, others, n * sizeof *ids);
            ck_assert_mem_eq(pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i + k, NULL),
                             pgrad_rollout_array(h.rollout, PGRAD_LOGPROBS, k, NULL), n * sizeof(float));
            same_rows(rollout, i + k, h.rollout, k);
        }
        pgrad_rollout_free(h.rollout);
    }
    pgrad_sampler_free(h.sampler);
}

/* The whole rollout and its gradients against one that keeps nothing; leaves the gradients in the model. */
static void same_as_off(const handles *h, const setting *s)
{
    handles off = *h;
    pgrad_step_report reports[2];
    size_t n, m;
    off.rollout = rollout_of(&h->w, PGRAD_KEEP_OFF, s->slots);
    for (uint32_t k = 0; k < h->rollout->n_groups; k++) {
        const pgrad__group *group = &h->rollout->groups[k];
        pgrad_prompt_params params;
        pgrad_prompt_params_init(&params, sizeof params);
        params.prefix = h->rollout->prompts + group->prefix_offset;
        params.n_prefix = group->n_prefix;
        OK(pgrad_rollout_add_prompt(off.rollout, h->rollout->prompts + group->prompt_offset, group->n_prompt, &params,
                                    NULL));
    }
    OK(pgrad_sampler_set_next_sequence(off.sampler, info_of(h->rollout, 0).sequence));
    generate(&off, s->speculate);
    record *a = take_record(h->rollout), *b = take_record(off.rollout);
    same_record(a, b);
    free(a);
    free(b);
    set_advantages(h->rollout, s->zero_groups);
    set_advantages(off.rollout, s->zero_groups);
    ck_assert_double_eq(backward(&off, NULL, &reports[0]), 0.0);
    float *computed = all_values(h->w.model, 1, &n);
    const double kept_rows = backward(h, NULL, &reports[1]);
    ck_assert_double_ge(kept_rows, rows_of(h->rollout, (int)s->share));
    if (s->micro == WHOLE) /* a cut group has its prompt in both micro-batches */
        ck_assert_double_eq(kept_rows, rows_of(h->rollout, (int)s->share));
    float *kept = all_values(h->w.model, 1, &m);
    ck_assert_uint_eq(n, m);
    ck_assert_mem_eq(computed, kept, n * sizeof *kept);
    ck_assert_double_eq(reports[0].loss, reports[1].loss);
    free(computed);
    free(kept);
    pgrad_rollout_free(off.rollout);
}

/* ---- prompts of one call ---- */

static const struct {
    setting s;
    uint64_t reused;
} cases[] = {
    /* Where the first two prompts are of one pass, the second one's last page has no keys yet that could be copied. */
    {{PGRAD_KERNELS_AUTO, 1, 0, PGRAD_SPECULATE_OFF, 1, WHOLE, PGRAD_RECOMPUTE_OFF, 0, PGRAD_STORAGE_F32, 0, 0},
     64 + 128 + 192 + 256 + 255 + 191 + 0 + 64},
    {{PGRAD_KERNELS_AUTO, 2, 3, PGRAD_SPECULATE_ON, 1, 300, PGRAD_RECOMPUTE_OFF, 0, PGRAD_STORAGE_F32, 0, 2},
     127 + 128 + 192 + 256 + 255 + 191 + 0 + 64},
    {{PGRAD_KERNELS_GENERIC, 3, 0, PGRAD_SPECULATE_ON, 1, 64, PGRAD_RECOMPUTE_ON, 3, PGRAD_STORAGE_F32, 0, 0},
     64 + 128 + 192 + 256 + 255 + 191 + 0 + 64},
    {{PGRAD_KERNELS_HASWELL, 8, 7, PGRAD_SPECULATE_OFF, 0, WHOLE, PGRAD_RECOMPUTE_OFF, 1, PGRAD_STORAGE_F32, 0, 5},
     64 + 128 + 192 + 256 + 255 + 191 + 0 + 64},
    {{PGRAD_KERNELS_SKX, 2, 1, PGRAD_SPECULATE_ON, 1, WHOLE, PGRAD_RECOMPUTE_OFF, 4, PGRAD_STORAGE_BF16, 0, 1},
     127 + 128 + 192 + 256 + 255 + 191 + 0 + 64},
    {{PGRAD_KERNELS_AUTO, 2, 0, PGRAD_SPECULATE_OFF, 1, WHOLE, PGRAD_RECOMPUTE_OFF, NEW, PGRAD_STORAGE_F32, 0, 0},
     64 + 128 + 192 + 256 + 255 + 191 + 0 + 64},
};
#define N_CASES (int)(sizeof cases / sizeof cases[0])

START_TEST(prompts_that_begin_alike)
{
    const setting *s = &cases[_i / N_CONFIGS].s;
    handles h = begin_sharing(configs[_i % N_CONFIGS], s, PGRAD_KEEP_ON);
    uint64_t bytes = 0;
    if (h.w.context == NULL)
        return;
    const uint64_t n_calls = s->kernel_set == PGRAD_KERNELS_GENERIC ? 1 : 2; /* the slow one */
    for (uint64_t call = 0; call < n_calls; call++) {
        pgrad_rollout_clear(h.rollout);
        nothing_is_kept(h.rollout);
        add_prompts(h.rollout, 0, GROUPS, 1, s->n_prefix);
        generate(&h, s->speculate);
        /* The second call finds pages of the first one, whose rows are gone: they are not taken over. */
        const pgrad_rollout_info info = info_now(h.rollout);
        ck_assert_uint_eq(info.prompt_tokens_reused, cases[_i / N_CONFIGS].reused);
        ck_assert_uint_eq(info.prompt_tokens_computed, prompt_tokens(h.rollout) - info.prompt_tokens_reused);
        ck_assert_uint_eq(check_store(h.rollout), info.prompt_tokens_reused);
        if (s->speculate == PGRAD_SPECULATE_ON)
            ck_assert_uint_gt(info.drafted_tokens, 0);
        if (call == 0)
            bytes = info.activation_bytes;
        ck_assert_uint_le(info.activation_bytes, bytes + bytes / 20); /* completions differ in length */
        all_as_alone(&h.w, h.rollout, s);
        same_as_off(&h, s);
        if (call == 0)
            OK(pgrad_optimizer_step(h.optimizer, NULL));
    }
    end(&h);
}
END_TEST

/* By default, over two calls: the second one takes over what it has computed itself. */
START_TEST(calls_after_one_another)
{
    const setting *s = &cases[0].s;
    handles h = begin_sharing(configs[_i], s, PGRAD_KEEP_AUTO);
    const uint64_t first = 64 + 128 + 192 + 256, second = 128 + 64;
    add_prompts(h.rollout, 0, 5, 1, 0);
    generate(&h, s->speculate);
    ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, first);
    ck_assert_uint_eq(check_store(h.rollout), first);
    add_prompts(h.rollout, 5, GROUPS, 1, 0);
    generate(&h, s->speculate);
    ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, second);
    ck_assert_uint_eq(check_store(h.rollout), first + second);
    all_as_alone(&h.w, h.rollout, s);
    same_as_off(&h, s);
    /* Without anybody who would use them no rows are needed: pages of the call before are taken over. */
    pgrad_objective_free(h.objective);
    h.objective = NULL;
    pgrad_rollout_clear(h.rollout);
    add_prompt(h.rollout, 5, 1, 0);
    generate(&h, s->speculate);
    ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, 255);
    nothing_is_kept(h.rollout);
    OK(pgrad_objective_create(h.w.model, NULL, &h.objective));
    pgrad_rollout_clear(h.rollout);
    add_prompts(h.rollout, 5, GROUPS, 1, 0);
    generate(&h, s->speculate);
    ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, second);
    ck_assert_uint_eq(check_store(h.rollout), second);
    all_as_alone(&h.w, h.rollout, s);
    end(&h);
}
END_TEST

/* A page may be of a completion: of its prompt, its forced prefix and what was sampled. */
START_TEST(prompts_that_begin_with_a_completion)
{
    setting s = cases[0].s;
    pgrad_token ids[LONGEST], continued[GROUP][LONGEST];
    pgrad_prompt_params params;
    pgrad_prompt_params_init(&params, sizeof params);
    params.prefix = (const pgrad_token[]){'a', 'b', 'c'};
    params.n_prefix = 3;
    s.slots = GROUP;
    ids_of(0, 7, ids);
    for (int known = 0; known < 2; known++) { /* what will be sampled */
        handles h = begin_sharing(configs[_i], &s, PGRAD_KEEP_ON);
        OK(pgrad_rollout_add_prompt(h.rollout, ids, 52, &params, NULL));
        for (int k = 0; known && k < GROUP; k++)
            OK(pgrad_rollout_add_prompt(h.rollout, continued[k], 90, NULL, NULL));
        generate(&h, s.speculate);
        for (uint32_t k = 0; k < GROUP; k++) {
            size_t n;
            const pgrad_token *tokens = pgrad_rollout_tokens(h.rollout, k, &n);
            ck_assert_uint_gt(n, 64 - 52);
            memcpy(continued[k], ids, sizeof ids);
            memcpy(continued[k] + 52, tokens, n * sizeof *tokens);
        }
        ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, known ? GROUP * 64 : 0);
        ck_assert_uint_eq(check_store(h.rollout), known ? GROUP * 64 : 0);
        all_as_alone(&h.w, h.rollout, &s);
        same_as_off(&h, &s);
        end(&h);
    }
}
END_TEST

/* More pages than there is room for: those given up are computed again, and their numbers are another's. */
START_TEST(pages_are_given_up)
{
    static const uint32_t order[2][GROUPS] = {{0, 1, 2, 0, 0, 3, 4, 1, 2, 0}, {0, 1, 0, 2, 1, 3, 3, 0, 1, 2}};
    setting s = cases[0].s;
    s.slots = 1;
    uint64_t reused = 0;
    handles h = begin_sharing(configs[_i], &s, PGRAD_KEEP_ON);
    for (int call = 0; call < 2; call++) {
        pgrad_rollout_clear(h.rollout);
        for (uint32_t k = 0; k < GROUPS; k++) {
            pgrad_token ids[LONGEST];
            for (uint32_t i = 0; i < 260; i++)
                ids[i] = (pgrad_token)pgrad__uniform_below(i < 200 ? order[call][k] : 10 + k, 3, i, 256);
            OK(pgrad_rollout_add_prompt(h.rollout, ids, 260, NULL, NULL));
        }
        generate(&h, s.speculate);
        const pgrad_rollout_info info = info_now(h.rollout);
        ck_assert_uint_eq(info.prompt_tokens_computed + info.prompt_tokens_reused, 260 * GROUPS);
        ck_assert_uint_eq(check_store(h.rollout), info.prompt_tokens_reused);
        ck_assert_uint_gt(info.prompt_tokens_reused, 0);
        ck_assert_uint_lt(info.prompt_tokens_reused, 5 * 192); /* with room for all it would be as much */
        reused += info.prompt_tokens_reused;
        all_as_alone(&h.w, h.rollout, &s);
        same_as_off(&h, &s);
    }
    ck_assert_uint_ge(reused, 3 * 192);
    end(&h);
}
END_TEST

/* ---- calls that end early ---- */

static int32_t stop_later(void *user, const char *what, uint64_t done, uint64_t total)
{
    uint32_t *calls = user;
    (void)done;
    (void)total;
    return strcmp(what, "generate") != 0 || --*calls > 0;
}

START_TEST(stopped_calls)
{
    setting s = cases[0].s;
    s.slots = GROUP;
    handles h = begin_sharing(configs[_i], &s, PGRAD_KEEP_ON);
    for (uint32_t calls = 1; calls < 60; calls += calls < 3 ? 1 : 17) {
        uint32_t left = calls;
        OK(pgrad_context_set_progress(h.w.context, stop_later, &left));
        pgrad_rollout_clear(h.rollout);
        add_prompts(h.rollout, 0, 5, calls, 2);
        ck_assert_int_eq(pgrad_rollout_generate(h.rollout, h.sampler, NULL), PGRAD_E_CALLBACK);
        OK(pgrad_context_set_progress(h.w.context, NULL, NULL));
        ck_assert_uint_eq(check_store(h.rollout), info_now(h.rollout).prompt_tokens_reused);
        all_as_alone(&h.w, h.rollout, &s);
        const uint64_t before = check_store(h.rollout);
        add_prompts(h.rollout, 5, GROUPS, calls, 2);
        generate(&h, PGRAD_SPECULATE_AUTO);
        ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, 128 + 64);
        ck_assert_uint_eq(check_store(h.rollout), before + 128 + 64);
        all_as_alone(&h.w, h.rollout, &s);
    }
    pgrad_rollout_clear(h.rollout);
    nothing_is_kept(h.rollout);
    end(&h);
}
END_TEST

/* ON: the call fails, and the next one takes nothing from it. AUTO: nothing is kept, beginnings are shared all the
 * same, and the next call keeps. */
START_TEST(memory_that_is_refused)
{
    const setting s = {.share = 1, .speculate = PGRAD_SPECULATE_AUTO};
    const uint64_t reused = cases[0].reused;
    for (int i = 0; i < 6; i++) {
        const int automatic = i % 2;
        handles h = begin_choosy(configs[_i], automatic ? PGRAD_KEEP_AUTO : PGRAD_KEEP_ON, s.slots);
        refusal.size = (h.rollout->activations.block_floats * sizeof(float) + 63) / 64 * 64 + 64;
        refusal.after = 3 * i;
        add_prompts(h.rollout, 0, GROUPS, 1, 0);
        ck_assert_int_eq(pgrad_rollout_generate(h.rollout, h.sampler, NULL), automatic ? PGRAD_OK : PGRAD_E_NOMEM);
        refusal.after = 1000;
        nothing_is_kept(h.rollout);
        if (automatic) {
            ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, reused);
            pgrad_rollout_clear(h.rollout);
            add_prompts(h.rollout, 0, GROUPS, 1, 0);
        }
        generate(&h, s.speculate);
        ck_assert_uint_eq(info_now(h.rollout).prompt_tokens_reused, reused);
        ck_assert_uint_eq(check_store(h.rollout), reused);
        all_as_alone(&h.w, h.rollout, &s);
        same_as_off(&h, &s);
        end(&h);
    }
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_kept_sharing");
    TCase *tests = tcase_create("kept_sharing");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, prompts_that_begin_alike, 0, N_CASES * N_CONFIGS);
    tcase_add_loop_test(tests, calls_after_one_another, 0, N_CONFIGS);
    tcase_add_loop_test(tests, prompts_that_begin_with_a_completion, 0, N_CONFIGS);
    tcase_add_loop_test(tests, pages_are_given_up, 0, N_CONFIGS);
    tcase_add_loop_test(tests, stopped_calls, 0, N_CONFIGS);
    tcase_add_loop_test(tests, memory_that_is_refused, 0, N_CONFIGS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
