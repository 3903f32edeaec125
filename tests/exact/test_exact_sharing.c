/* What is not computed again changes nothing: prompts that begin alike, turns of a conversation, kept pages and
 * pages given up, prompts in one pass or in several, drafts. Each is compared with a rollout that has never seen
 * anything, bit by bit. */
#include "../rl/rl_test.h"

static const char *const configs[] = {LLAMA_LONG, GPT2_LONG};
#define N_CONFIGS 2

enum { MAX_IDS = 1024 };

/* A prompt: ids seen from a common stream `head` for n_head, then from a stream of its own. */
typedef struct prompt {
    uint64_t head;
    size_t n_head;
    uint64_t tail;
    size_t n_tail;
} prompt;

static size_t ids_of(const prompt *p, pgrad_token *ids)
{
    for (size_t i = 0; i < p->n_head; i++)
        ids[i] = (pgrad_token)pgrad__uniform_below(p->head, 1, i, 256);
    for (size_t i = 0; i < p->n_tail; i++)
        ids[p->n_head + i] = (pgrad_token)pgrad__uniform_below(p->tail, 2, i, 256);
    return p->n_head + p->n_tail;
}

static void add(pgrad_rollout *rollout, const prompt *p)
{
    pgrad_token ids[MAX_IDS];
    const size_t n = ids_of(p, ids);
    OK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
}

typedef struct shape {
    uint32_t group_size, max_prompts, max_prompt_tokens, max_new_tokens, batch_size, prefix_cache_tokens;
} shape;

static pgrad_rollout *rollout_of(const world *w, shape s)
{
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = s.group_size;
    params.max_prompts = s.max_prompts;
    params.max_prompt_tokens = s.max_prompt_tokens;
    params.max_new_tokens = s.max_new_tokens;
    params.batch_size = s.batch_size;
    params.prefix_cache_tokens = s.prefix_cache_tokens;
    OK(pgrad_rollout_create(w->model, w->tokenizer, &params, &rollout));
    return rollout;
}

static pgrad_rollout_info info_now(const pgrad_rollout *rollout)
{
    pgrad_rollout_info info = {.struct_size = sizeof info};
    OK(pgrad_rollout_get_info(rollout, &info));
    return info;
}

static pgrad_sampler *plain_sampler(const world *w)
{
    pgrad_sampler_params params = sampler_defaults();
    params.ignore_eos = 1;
    return make_sampler(w->context, &params);
}

/* Sequence i of the rollout against one prompt, group_size times, in a rollout made for it. */
static void same_as_fresh(const world *w, const pgrad_rollout *rollout, uint32_t i, shape s,
                          const pgrad_token *ids, size_t n)
{
    s.max_prompts = 1;
    s.group_size = 1;
    pgrad_rollout *fresh = rollout_of(w, s);
    pgrad_sampler *sampler = plain_sampler(w);
    size_t n_tokens, m;
    OK(pgrad_rollout_add_prompt(fresh, ids, n, NULL, NULL));
    OK(pgrad_sampler_set_next_sequence(sampler, info_of(rollout, i).sequence));
    OK(pgrad_rollout_generate(fresh, sampler, NULL));
    ck_assert_uint_eq(info_now(fresh).prompt_tokens_reused, 0);
    ck_assert_uint_eq(info_now(fresh).prompt_tokens_computed, n);
    const pgrad_token *a = pgrad_rollout_tokens(rollout, i, &n_tokens), *b = pgrad_rollout_tokens(fresh, 0, &m);
    ck_assert_uint_eq(n_tokens, m);
    ck_assert_int_eq(memcmp(a, b, n_tokens * sizeof *a), 0);
    for (uint32_t which = PGRAD_LOGPROBS; which <= PGRAD_LOGPROBS_SAMPLED; which++)
        ck_assert_int_eq(memcmp(pgrad_rollout_array(rollout, which, i, NULL),
                                pgrad_rollout_array(fresh, which, 0, NULL), n_tokens * sizeof(float)),
                         0);
    ck_assert_int_eq(memcmp(pgrad_rollout_array(rollout, PGRAD_ENTROPY, i, NULL),
                            pgrad_rollout_array(fresh, PGRAD_ENTROPY, 0, NULL), n_tokens * sizeof(float)),
                     0);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(fresh);
}

static void all_as_fresh(const world *w, const pgrad_rollout *rollout, shape s)
{
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        size_t n;
        const pgrad_token *ids = pgrad_rollout_prompt(rollout, info_of(rollout, i).group, &n);
        same_as_fresh(w, rollout, i, s, ids, n);
    }
}

static world world_of(const char *config, uint32_t kernel_set, uint32_t n_threads)
{
    world w = {.context = test_context(kernel_set, n_threads)};
    if (w.context == NULL)
        return w;
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, config);
    w.tokenizer = make_tokenizer(w.context);
    return w;
}

/* ---- prompts of one call ---- */

static const prompt alike[] = {
    {1, 150, 2, 30}, {1, 150, 3, 1},  {1, 128, 4, 70}, {1, 64, 5, 64},
    {1, 200, 0, 0},  {6, 40, 0, 0},   {1, 63, 7, 90},  {1, 128, 0, 0},
    {1, 128, 0, 0},  {1, 150, 2, 30},
};
#define N_ALIKE (sizeof alike / sizeof alike[0])

START_TEST(prompts_that_begin_alike)
{
    static const struct {
        uint32_t kernel_set, n_threads, group_size, batch_size;
    } settings[] = {{PGRAD_KERNELS_AUTO, 1, 1, 0},    {PGRAD_KERNELS_AUTO, 2, 3, 0},
                    {PGRAD_KERNELS_GENERIC, 3, 2, 3}, {PGRAD_KERNELS_HASWELL, 8, 2, 7},
                    {PGRAD_KERNELS_SKX, 2, 1, 4}};
    for (size_t k = 0; k < sizeof settings / sizeof settings[0]; k++) {
        world w = world_of(configs[_i], settings[k].kernel_set, settings[k].n_threads);
        if (w.context == NULL)
            continue;
        const shape s = {settings[k].group_size, N_ALIKE, 256, 8, settings[k].batch_size, 0};
        pgrad_rollout *rollout = rollout_of(&w, s);
        pgrad_sampler *sampler = plain_sampler(&w);
        uint64_t total = 0;
        for (size_t i = 0; i < N_ALIKE; i++) {
            add(rollout, &alike[i]);
            total += alike[i].n_head + alike[i].n_tail;
        }
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        pgrad_rollout_info info = info_now(rollout);
        ck_assert_uint_eq(info.prompt_tokens_computed + info.prompt_tokens_reused, total);
        /* The first two pages of the head, taken over by 7 and 8 of the others. */
        ck_assert_uint_ge(info.prompt_tokens_reused, 7 * 64 + 5 * 64);
        all_as_fresh(&w, rollout, s);
        pgrad_sampler_free(sampler);
        pgrad_rollout_free(rollout);
        end_world(&w);
    }
}
END_TEST

/* ---- calls after one another ---- */

START_TEST(a_later_turn_begins_with_the_earlier_one)
{
    world w = world_of(configs[_i], PGRAD_KERNELS_AUTO, 2);
    const shape s = {2, 2, 600, 70, 0, 0};
    pgrad_rollout *rollout = rollout_of(&w, s);
    pgrad_sampler *sampler = plain_sampler(&w);
    pgrad_token ids[MAX_IDS];
    const prompt first = {1, 100, 0, 0};
    size_t n = ids_of(&first, ids), n_tokens;
    OK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(info_now(rollout).prompt_tokens_reused, 0);
    for (int turn = 0; turn < 4; turn++) {
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, 1, &n_tokens);
        const size_t whole = (n + n_tokens - 1) / 64 * 64; /* the last token has no keys */
        memcpy(ids + n, tokens, n_tokens * sizeof *tokens);
        n += n_tokens;
        for (size_t i = 0; i < 20; i++)
            ids[n++] = (pgrad_token)(i * 7);
        pgrad_rollout_clear(rollout);
        OK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        ck_assert_uint_eq(info_now(rollout).prompt_tokens_reused, whole);
        ck_assert_uint_ge(info_now(rollout).kept_tokens, whole);
        all_as_fresh(&w, rollout, s);
    }
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* A prompt of whole pages that is there already: its last token alone goes through the model. */
START_TEST(the_same_prompt_again)
{
    static const size_t lengths[] = {64, 128, 129, 191, 192};
    world w = world_of(configs[_i], PGRAD_KERNELS_AUTO, 2);
    const shape s = {2, 1, 256, 6, 0, 0};
    for (size_t k = 0; k < sizeof lengths / sizeof lengths[0]; k++) {
        const prompt p = {k + 1, lengths[k], 0, 0};
        pgrad_rollout *rollout = rollout_of(&w, s);
        pgrad_sampler *sampler = plain_sampler(&w);
        add(rollout, &p);
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        for (int again = 0; again < 3; again++) {
            pgrad_rollout_clear(rollout);
            add(rollout, &p);
            OK(pgrad_rollout_generate(rollout, sampler, NULL));
            ck_assert_uint_eq(info_now(rollout).prompt_tokens_computed,
                              lengths[k] % 64 == 0 ? 1 : lengths[k] % 64);
            all_as_fresh(&w, rollout, s);
        }
        pgrad_sampler_free(sampler);
        pgrad_rollout_free(rollout);
    }
    end_world(&w);
}
END_TEST

/* More prompts than the cache has room for, some of them coming back. */
START_TEST(pages_are_given_up_and_computed_again)
{
    world w = world_of(configs[_i % 2], PGRAD_KERNELS_AUTO, 2);
    const shape s = {1, 3, 256, 8, 2, _i < 2 ? 0 : 640};
    pgrad_rollout *rollout = rollout_of(&w, s);
    pgrad_sampler *sampler = plain_sampler(&w);
    uint64_t reused = 0, most = 0, allocated = 0;
    for (uint64_t call = 0; call < 24; call++) {
        pgrad_rollout_clear(rollout);
        for (uint64_t i = 0; i < 3; i++) {
            const prompt p = {1 + pgrad__uniform_below(5, 1, 3 * call + i, 6), 130 + 20 * i, call % 3, 30};
            add(rollout, &p);
        }
        if (call == 4)
            allocated = allocations(w.context);
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        reused += info_now(rollout).prompt_tokens_reused;
        const uint64_t kept = info_now(rollout).kept_tokens;
        most = kept > most ? kept : most;
        ck_assert_uint_le(kept, (3 * 5 + (_i < 2 ? 0 : 10)) * 64);
        if (call == 4)
            ck_assert_uint_eq(allocations(w.context), allocated); /* grown never */
        all_as_fresh(&w, rollout, s);
    }
    ck_assert_uint_gt(reused, 24 * 64);
    ck_assert_uint_ge(most, 10 * 64);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

START_TEST(other_weights_other_keys)
{
    world w = world_of(configs[_i], PGRAD_KERNELS_AUTO, 2);
    const char *name = _i == 0 ? "model.layers.0.self_attn.k_proj.weight" : "transformer.h.0.attn.c_attn.weight";
    const shape s = {1, 1, 256, 6, 0, 0};
    const prompt p = {1, 150, 0, 0};
    static float values[32 * 96];
    size_t n;
    pgrad_rollout *rollout = rollout_of(&w, s);
    pgrad_sampler *sampler = plain_sampler(&w);
    for (int round = 0; round < 3; round++) {
        pgrad_rollout_clear(rollout);
        add(rollout, &p);
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        ck_assert_uint_eq(info_now(rollout).prompt_tokens_reused, 0);
        all_as_fresh(&w, rollout, s);
        OK(pgrad_model_tensor_read(w.model, name, values, 32 * 96, &n));
        for (size_t i = 0; i < n; i++)
            values[i] *= 1.1f;
        OK(pgrad_model_tensor_write(w.model, name, values, n));
    }
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* A pass that was stopped leaves pages without keys: they are not taken over. */
static int32_t cancel_in_prefill(void *user, const char *what, uint64_t done, uint64_t total)
{
    uint32_t *calls = user;
    (void)what;
    (void)done;
    (void)total;
    return --*calls > 0;
}

START_TEST(a_stopped_call_leaves_nothing_half_done)
{
    world w = world_of(configs[_i], PGRAD_KERNELS_AUTO, 2);
    const shape s = {1, 4, 700, 6, 0, 0};
    pgrad_rollout *rollout = rollout_of(&w, s);
    pgrad_sampler *sampler = plain_sampler(&w);
    for (uint32_t calls = 1; calls < 6; calls++) {
        uint32_t left = calls;
        OK(pgrad_context_set_progress(w.context, cancel_in_prefill, &left));
        pgrad_rollout_clear(rollout);
        for (uint64_t i = 0; i < 4; i++) {
            const prompt p = {1, 400, 10 * calls + i, 200};
            add(rollout, &p);
        }
        ck_assert_int_eq(pgrad_rollout_generate(rollout, sampler, NULL), PGRAD_E_CALLBACK);
        OK(pgrad_context_set_progress(w.context, NULL, NULL));
        pgrad_context_cancel(w.context);
        pgrad_rollout_clear(rollout);
        const prompt q = {1, 500, 3, 10};
        add(rollout, &q);
        ck_assert_int_eq(pgrad_rollout_generate(rollout, sampler, NULL), PGRAD_E_CANCELLED);
        pgrad_context_clear_cancel(w.context);
        pgrad_rollout_clear(rollout);
        add(rollout, &q);
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        all_as_fresh(&w, rollout, s);
    }
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* Prompts longer than a pass over prompts: scoring computes them whole. */
START_TEST(chunks_of_a_prompt)
{
    world w = world_of(configs[_i], PGRAD_KERNELS_AUTO, 2);
    const shape s = {2, 4, 900, 6, 0, 0};
    static const prompt prompts[] = {{1, 500, 2, 300}, {1, 700, 3, 33}, {4, 100, 0, 0}, {1, 640, 0, 0}};
    pgrad_rollout *rollout = rollout_of(&w, s);
    pgrad_sampler *sampler = plain_sampler(&w);
    for (int again = 0; again < 2; again++) {
        pgrad_rollout_clear(rollout);
        for (size_t i = 0; i < 4; i++)
            add(rollout, &prompts[i]);
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        OK(pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT));
        for (uint32_t i = 0; i < 8; i++)
            ck_assert_int_eq(memcmp(pgrad_rollout_array(rollout, PGRAD_CURRENT, i, NULL),
                                    pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, NULL), 6 * sizeof(float)),
                             0);
        all_as_fresh(&w, rollout, s);
    }
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

/* ---- drafts ---- */

typedef struct draft_setting {
    uint32_t speculate, kernel_set, n_threads, batch_size;
} draft_setting;

/* Two tokens are drawn most of the time, so that sequences repeat themselves and depart from it. */
static record *run_drafts(const char *config, draft_setting setting, int variant, pgrad_rollout_info *info)
{
    static const pgrad_token likely[] = {'a', 'b', ID_HELLO};
    static const float bias[] = {9.0f, 8.0f, 7.0f};
    static const char *const stops[] = {"abbabba", "hehebb"};
    world w = world_of(config, setting.kernel_set, setting.n_threads);
    if (w.context == NULL)
        return NULL;
    const shape s = {5, 4, 256, 100, setting.batch_size, 0};
    pgrad_rollout *rollout = rollout_of(&w, s);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_generate_params generate;
    pgrad_prompt_params prompt_params;
    pgrad_prompt_params_init(&prompt_params, sizeof prompt_params);
    params.bias_tokens = likely;
    params.logit_bias = bias;
    params.n_bias_tokens = 3;
    if (variant == 1) {
        params.temperature = 0.0;
        params.n_bias_tokens = 0; /* a greedy model runs into loops by itself */
    } else if (variant == 2) {
        params.repetition_penalty = 1.1;
        params.top_k = 20;
        params.top_p = 0.95;
        params.min_new_tokens = 30;
        params.stop_strings = stops;
        params.n_stop_strings = 2;
    } else if (variant == 3) {
        params.stop_tokens = likely + 2;
        params.n_stop_tokens = 1;
        params.max_new_tokens = 77;
        prompt_params.prefix = likely;
        prompt_params.n_prefix = 2;
    }
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_generate_params_init(&generate, sizeof generate);
    generate.speculate = setting.speculate;
    (void)add_text_prompt(rollout, "abababababababab", &prompt_params);
    (void)add_text_prompt(rollout, "x", &prompt_params);
    (void)add_long_prompt(rollout, 3, 130);
    (void)add_text_prompt(rollout, "baab heab heab heab baab heab heab heab baab heab heab heab baab heab", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, &generate));
    record *r = take_record(rollout);
    *info = info_now(rollout);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    end_world(&w);
    return r;
}

START_TEST(drafts_change_nothing)
{
    static const draft_setting settings[] = {
        {PGRAD_SPECULATE_ON, PGRAD_KERNELS_AUTO, 1, 1},      {PGRAD_SPECULATE_ON, PGRAD_KERNELS_AUTO, 2, 3},
        {PGRAD_SPECULATE_ON, PGRAD_KERNELS_AUTO, 3, 0},      {PGRAD_SPECULATE_ON, PGRAD_KERNELS_GENERIC, 8, 5},
        {PGRAD_SPECULATE_ON, PGRAD_KERNELS_HASWELL, 2, 4},   {PGRAD_SPECULATE_ON, PGRAD_KERNELS_SKX, 2, 2},
        {PGRAD_SPECULATE_AUTO, PGRAD_KERNELS_AUTO, 2, 1},    {PGRAD_SPECULATE_AUTO, PGRAD_KERNELS_AUTO, 2, 0},
        {PGRAD_SPECULATE_AUTO, PGRAD_KERNELS_HASWELL, 1, 3},
    };
    const char *config = configs[_i % 2];
    pgrad_rollout_info info;
    record *off = run_drafts(config, (draft_setting){PGRAD_SPECULATE_OFF, PGRAD_KERNELS_AUTO, 2, 4}, _i / 2, &info);
    ck_assert_uint_eq(info.drafted_tokens, 0);
    ck_assert_uint_eq(off->n, 20);
    for (size_t k = 0; k < sizeof settings / sizeof settings[0]; k++) {
        record *other = run_drafts(config, settings[k], _i / 2, &info);
        if (other == NULL)
            continue;
        same_record(off, other);
        free(other);
        if (settings[k].speculate == PGRAD_SPECULATE_ON) {
            ck_assert_uint_gt(info.accepted_tokens, 20);
            ck_assert_uint_gt(info.drafted_tokens, info.accepted_tokens + 20);
        }
    }
    free(off);
}
END_TEST

/* A draft that reaches a position where the model breaks, and does not come true, is as if it had not been. */
START_TEST(drafts_that_are_not_finite)
{
    enum { BROKEN = 47 };
    static const pgrad_token likely[] = {'a', 'b', 'c'};
    static const float bias[] = {1000.0f, 1000.0f, 1000.0f};
    static float places[1024 * 32];
    world w = world_of(GPT2_LONG, PGRAD_KERNELS_AUTO, 2);
    const shape s = {1, 1, 64, 60, 0, 0};
    pgrad_sampler_params params = sampler_defaults();
    pgrad_generate_params generate;
    size_t n;
    unsigned finished = 0, drafted = 0;
    OK(pgrad_model_tensor_read(w.model, "transformer.wpe.weight", places, 1024 * 32, &n));
    for (size_t i = 0; i < 32; i++)
        places[BROKEN * 32 + i] = 3e38f;
    OK(pgrad_model_tensor_write(w.model, "transformer.wpe.weight", places, n));
    params.bias_tokens = likely;
    params.logit_bias = bias;
    params.n_bias_tokens = 3;
    params.stop_tokens = likely + 2;
    params.n_stop_tokens = 1;
    pgrad_generate_params_init(&generate, sizeof generate);
    for (uint64_t seed = 0; seed < 400; seed++) {
        record *records[2] = {NULL, NULL};
        params.seed = seed;
        for (uint32_t speculate = 0; speculate < 2; speculate++) {
            pgrad_rollout *rollout = rollout_of(&w, s);
            pgrad_sampler *sampler = make_sampler(w.context, &params);
            generate.speculate = speculate;
            (void)add_text_prompt(rollout, "abaabbabaabbabababbabaababbabaabbaabb", NULL);
            pgrad_status status = pgrad_rollout_generate(rollout, sampler, &generate);
            if (status == PGRAD_OK)
                records[speculate] = take_record(rollout);
            else
                ck_assert_int_eq(status, PGRAD_E_NUMERIC);
            drafted += (unsigned)info_now(rollout).drafted_tokens;
            pgrad_sampler_free(sampler);
            pgrad_rollout_free(rollout);
        }
        ck_assert((records[0] == NULL) == (records[1] == NULL));
        if (records[0] != NULL) {
            same_record(records[0], records[1]);
            finished += records[0]->n_tokens[0] > 2;
        }
        free(records[0]);
        free(records[1]);
    }
    ck_assert_uint_gt(finished, 5);
    ck_assert_uint_gt(drafted, 100);
    end_world(&w);
}
END_TEST

/* ---- when drafts are worth it ---- */

enum { REPEATED = 100, NOTICED = 200, WHOLE = 400, PLACES = 1024 * 32 };

static const pgrad_token drawn[] = {'a', 'b', 'c', 'd', 'e', 'f', 'g', 'h'};
enum { N_DRAWN = sizeof drawn / sizeof drawn[0] };

/* Only these are drawn. Up to a position the first is far more likely, by what the model adds for the place, so that
 * the text repeats itself; behind it none is. */
static void turn_random(pgrad_model *model, size_t position)
{
    static float tokens[N_VOCAB * 32], places[PLACES];
    size_t n;
    OK(pgrad_model_tensor_read(model, "transformer.wte.weight", tokens, sizeof tokens / sizeof *tokens, &n));
    OK(pgrad_model_tensor_read(model, "transformer.wpe.weight", places, PLACES, &n));
    for (size_t i = 0; i < position * 32; i++)
        for (int k = 1; k < N_DRAWN; k++)
            places[i] += 100.0f * (tokens[drawn[0] * 32 + (int)(i % 32)] - tokens[drawn[k] * 32 + (int)(i % 32)]);
    OK(pgrad_model_tensor_write(model, "transformer.wpe.weight", places, n));
}

/* What generating n_new tokens drafts, in so many sequences at once. */
static pgrad_rollout_info count_drafts(const world *w, uint32_t speculate, uint32_t n_sequences, uint32_t n_new)
{
    static const float bias[N_DRAWN] = {1000, 1000, 1000, 1000, 1000, 1000, 1000, 1000};
    const shape s = {n_sequences, 1, 64, WHOLE, 0, 0};
    pgrad_rollout *rollout = rollout_of(w, s);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_generate_params generate;
    params.bias_tokens = drawn;
    params.logit_bias = bias;
    params.n_bias_tokens = N_DRAWN;
    params.max_new_tokens = n_new;
    pgrad_sampler *sampler = make_sampler(w->context, &params);
    pgrad_generate_params_init(&generate, sizeof generate);
    ck_assert_uint_eq(generate.speculate, PGRAD_SPECULATE_AUTO);
    generate.speculate = speculate;
    (void)add_text_prompt(rollout, "x", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, &generate));
    ck_assert_uint_eq(info_of(rollout, 0).n_tokens, n_new);
    const pgrad_rollout_info info = info_now(rollout);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    return info;
}

/* AUTO drafts where it pays, and most of it comes true; some tokens after text has ceased to repeat itself it has
 * stopped, while ON goes on in vain. */
START_TEST(auto_drafts_while_it_pays)
{
    const uint32_t n = _i == 0 ? 1 : 4;
    world w = world_of(GPT2_LONG, PGRAD_KERNELS_AUTO, 2);
    turn_random(w.model, REPEATED);
    const pgrad_rollout_info first = count_drafts(&w, PGRAD_SPECULATE_AUTO, n, REPEATED),
                             noticed = count_drafts(&w, PGRAD_SPECULATE_AUTO, n, NOTICED),
                             whole = count_drafts(&w, PGRAD_SPECULATE_AUTO, n, WHOLE),
                             noticed_on = count_drafts(&w, PGRAD_SPECULATE_ON, n, NOTICED),
                             whole_on = count_drafts(&w, PGRAD_SPECULATE_ON, n, WHOLE);
    const uint64_t later = whole.drafted_tokens - noticed.drafted_tokens,
                   later_on = whole_on.drafted_tokens - noticed_on.drafted_tokens,
                   true_on = whole_on.accepted_tokens - noticed_on.accepted_tokens;
    ck_assert_uint_gt(first.accepted_tokens, n * REPEATED / 2);
    ck_assert_uint_gt(10 * first.accepted_tokens, 9 * first.drafted_tokens);
    ck_assert_uint_gt(later_on, 2 * n * (WHOLE - NOTICED));
    ck_assert_uint_lt(5 * true_on, later_on);
    ck_assert_uint_lt(10 * later, later_on);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_sharing");
    TCase *tcase = tcase_create("exact_sharing");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, prompts_that_begin_alike, 0, N_CONFIGS);
    tcase_add_loop_test(tcase, a_later_turn_begins_with_the_earlier_one, 0, N_CONFIGS);
    tcase_add_loop_test(tcase, the_same_prompt_again, 0, N_CONFIGS);
    tcase_add_loop_test(tcase, pages_are_given_up_and_computed_again, 0, 2 * N_CONFIGS);
    tcase_add_loop_test(tcase, other_weights_other_keys, 0, N_CONFIGS);
    tcase_add_loop_test(tcase, a_stopped_call_leaves_nothing_half_done, 0, N_CONFIGS);
    tcase_add_loop_test(tcase, chunks_of_a_prompt, 0, N_CONFIGS);
    tcase_add_loop_test(tcase, drafts_change_nothing, 0, 4 * N_CONFIGS);
    tcase_add_test(tcase, drafts_that_are_not_finite);
    tcase_add_loop_test(tcase, auto_drafts_while_it_pays, 0, 2);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
