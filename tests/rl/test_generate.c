/* Generation: what is sampled, when it ends, what it needs of memory. Names carry the row (PR, SP) of the
 * catalogue of bad inputs they check. */
#include "rl_test.h"

/* A sampler that draws nothing but these tokens. */
static pgrad_sampler *only(pgrad_context *context, pgrad_sampler_params params, const pgrad_token *tokens,
                           size_t n)
{
    float bias[8];
    for (size_t i = 0; i < n; i++)
        bias[i] = 1000.0f;
    params.bias_tokens = tokens;
    params.logit_bias = bias;
    params.n_bias_tokens = n;
    return make_sampler(context, &params);
}

/* ---- against a loop over public calls ---- */

START_TEST(tokens_are_those_of_logits_and_pick)
{
    world w = begin_world(_i % 2 ? GPT2_CONFIG : LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_token row[128];
    static float logits[N_VOCAB];
    if (_i >= 2) {
        params.temperature = 0.0;
    } else {
        params.temperature = 0.7;
        params.top_p = 0.9;
    }
    params.ignore_eos = 1;
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_tokenizer *kept = w.tokenizer;
    w.tokenizer = NULL; /* all rows may be drawn, as pick does */
    pgrad_rollout *rollout = make_rollout(&w, 3, 2, 12, 4);
    w.tokenizer = kept;
    (void)add_text_prompt(rollout, "one", NULL);
    (void)add_long_prompt(rollout, 3, 66);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 6);
    ck_assert_ptr_null(pgrad_rollout_text(rollout, 0, NULL));
    for (uint32_t i = 0; i < 6; i++) {
        pgrad_sequence_info info = info_of(rollout, i);
        size_t n, n_prompt;
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, i, &n);
        memcpy(row, pgrad_rollout_prompt(rollout, info.group, &n_prompt), info.n_prompt * sizeof *row);
        ck_assert_uint_eq(n, 12);
        ck_assert_uint_eq(n_prompt, info.n_prompt);
        ck_assert_uint_eq(info.sequence, i);
        ck_assert_uint_eq(info.group, i / 3);
        ck_assert_uint_eq(info.sampled, 1);
        ck_assert_uint_eq(info.finish, PGRAD_FINISH_LENGTH);
        ck_assert(isnan(info.reward));
        for (uint32_t t = 0; t < n; t++) {
            pgrad_token token = -1;
            float logprob, sampled, entropy;
            OK(pgrad_model_logits(w.model, row, n_prompt + t, PGRAD_LOGITS_LAST, logits, N_VOCAB));
            OK(pgrad_sampler_pick(sampler, logits, N_VOCAB, i, n_prompt + t, &token, &logprob, &sampled,
                                  &entropy));
            ck_assert_int_eq(tokens[t], token);
            ck_assert(pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, NULL)[t] == logprob);
            ck_assert(pgrad_rollout_array(rollout, PGRAD_LOGPROBS_SAMPLED, i, NULL)[t] == sampled);
            ck_assert(pgrad_rollout_array(rollout, PGRAD_ENTROPY, i, NULL)[t] == entropy);
            ck_assert(pgrad_rollout_array(rollout, PGRAD_MASK, i, NULL)[t] == 1.0f);
            row[n_prompt + t] = token;
        }
    }
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* ---- ends ---- */

START_TEST(pr10_end_token_first)
{
    static const pgrad_token ends[] = {ID_END, ID_IM_END};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler *sampler = only(w.context, sampler_defaults(), &ends[_i], 1);
    pgrad_rollout *rollout = make_rollout(&w, 2, 2, 8, 1);
    pgrad_step_report report;
    (void)add_text_prompt(rollout, "x", NULL);
    (void)add_text_prompt(rollout, "y", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < 4; i++) {
        pgrad_sequence_info info = info_of(rollout, i);
        size_t length = 9;
        ck_assert_uint_eq(info.finish, PGRAD_FINISH_STOP);
        ck_assert_uint_eq(info.n_tokens, 1);
        ck_assert_int_eq(pgrad_rollout_tokens(rollout, i, NULL)[0], ends[_i]);
        ck_assert_str_eq(pgrad_rollout_text(rollout, i, &length), "");
        ck_assert_uint_eq(length, 0);
    }
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_rollout_report(rollout, &report));
    ck_assert(report.completion_mean_length == 1.0 && report.n_sequences == 4.0);
    OK(pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT));
    ck_assert(pgrad_rollout_array(rollout, PGRAD_CURRENT, 3, NULL)[0] ==
              pgrad_rollout_array(rollout, PGRAD_LOGPROBS, 3, NULL)[0]);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(end_tokens_can_be_ignored)
{
    static const pgrad_token end[] = {ID_END};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    params.ignore_eos = 1;
    params.max_new_tokens = 3;
    pgrad_sampler *sampler = only(w.context, params, end, 1);
    pgrad_rollout *rollout = make_rollout(&w, 1, 1, 8, 1);
    (void)add_text_prompt(rollout, "x", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(info_of(rollout, 0).finish, PGRAD_FINISH_LENGTH);
    ck_assert_str_eq(pgrad_rollout_text(rollout, 0, NULL), "<|endoftext|><|endoftext|><|endoftext|>");
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(stop_tokens_wait_for_min_new_tokens)
{
    static const pgrad_token x[] = {'x'};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    params.min_new_tokens = 3;
    params.stop_tokens = x;
    params.n_stop_tokens = 1;
    params.ignore_eos = 1; /* does not concern the sampler's own */
    pgrad_sampler *sampler = only(w.context, params, x, 1);
    pgrad_rollout *rollout = make_rollout(&w, 6, 1, 8, 4);
    (void)add_text_prompt(rollout, "?", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < 6; i++) {
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, i, NULL);
        ck_assert_uint_eq(info_of(rollout, i).finish, PGRAD_FINISH_STOP);
        ck_assert_uint_eq(info_of(rollout, i).n_tokens, 4);
        for (int t = 0; t < 4; t++)
            ck_assert((tokens[t] == 'x') == (t == 3));
        ck_assert_ptr_null(strchr(pgrad_rollout_text(rollout, i, NULL), 'x'));
    }
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(pr05_the_context_ends)
{
    static const size_t lengths[] = {90, 95, 96};
    world w = begin_world(GPT2_CONFIG); /* 96 positions; the last token takes none */
    pgrad_sampler_params params = sampler_defaults();
    params.ignore_eos = 1;
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 2, 3, 64, 0);
    for (uint64_t i = 0; i < 3; i++)
        (void)add_long_prompt(rollout, i, lengths[i]);
    pgrad_token ids[97] = {0};
    FAILS(PGRAD_E_LIMIT, "97 tokens, max_prompt_tokens is 96",
          pgrad_rollout_add_prompt(rollout, ids, 97, NULL, NULL));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < 6; i++) {
        ck_assert_uint_eq(info_of(rollout, i).n_tokens, 97 - lengths[i / 2]);
        ck_assert_uint_eq(info_of(rollout, i).finish, PGRAD_FINISH_LENGTH);
    }
    OK(pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT)); /* all of them fit */
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* ---- stop strings ---- */

START_TEST(pr10_stop_strings_across_tokens)
{
    static const pgrad_token two[] = {'a', 'b'};
    static const char *const stops[] = {"abba", "bbbb"};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    params.stop_strings = stops;
    params.n_stop_strings = 2;
    pgrad_sampler *sampler = only(w.context, params, two, 2);
    pgrad_rollout *rollout = make_rollout(&w, 32, 1, 48, 0);
    unsigned found = 0;
    (void)add_text_prompt(rollout, "abb", NULL); /* does not count */
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < 32; i++) {
        pgrad_sequence_info info = info_of(rollout, i);
        const pgrad_token *tokens = pgrad_rollout_tokens(rollout, i, NULL);
        char whole[64] = "";
        size_t length;
        const char *text = pgrad_rollout_text(rollout, i, &length);
        for (uint32_t t = 0; t < info.n_tokens; t++)
            whole[t] = (char)tokens[t];
        ck_assert_ptr_null(strstr(text, stops[0]));
        ck_assert_ptr_null(strstr(text, stops[1]));
        ck_assert_uint_eq(strlen(text), length);
        ck_assert_int_eq(strncmp(whole, text, length), 0);
        if (info.finish != PGRAD_FINISH_STRING) {
            ck_assert_uint_eq(info.finish, PGRAD_FINISH_LENGTH);
            ck_assert_uint_eq(length, info.n_tokens);
            continue;
        }
        found++;
        ck_assert_uint_eq(length + 4, info.n_tokens);
        ck_assert(strcmp(whole + length, stops[0]) == 0 || strcmp(whole + length, stops[1]) == 0);
        whole[info.n_tokens - 1] = '\0'; /* not a token sooner */
        ck_assert(strstr(whole, stops[0]) == NULL && strstr(whole, stops[1]) == NULL);
    }
    ck_assert_uint_gt(found, 10);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(a_stop_string_may_end_inside_a_token)
{
    static const pgrad_token he[] = {ID_HELLO}; /* "he" */
    static const char *const stops[] = {"eh"};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    params.stop_strings = stops;
    params.n_stop_strings = 1;
    pgrad_rollout *rollout = make_rollout(&w, 1, 1, 10, 0);
    pgrad_sampler *sampler = only(w.context, params, he, 1);
    (void)add_text_prompt(rollout, "x", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(info_of(rollout, 0).n_tokens, 2);
    ck_assert_uint_eq(info_of(rollout, 0).finish, PGRAD_FINISH_STRING);
    ck_assert_str_eq(pgrad_rollout_text(rollout, 0, NULL), "h");
    pgrad_sampler_free(sampler);
    params.min_new_tokens = 4; /* those before do not count */
    sampler = only(w.context, params, he, 1);
    pgrad_rollout_clear(rollout);
    (void)add_text_prompt(rollout, "x", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(info_of(rollout, 0).n_tokens, 4);
    ck_assert_str_eq(pgrad_rollout_text(rollout, 0, NULL), "heheh");
    pgrad_rollout_free(rollout);
    pgrad_tokenizer *kept = w.tokenizer;
    w.tokenizer = NULL;
    rollout = make_rollout(&w, 1, 1, 10, 0);
    w.tokenizer = kept;
    (void)add_text_prompt(rollout, "x", NULL);
    FAILS(PGRAD_E_INVALID, "tokenizer", pgrad_rollout_generate(rollout, sampler, NULL));
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(a_prefix_is_forced_and_not_learned)
{
    static const pgrad_token forced[] = {'a', ID_END, 'c'}; /* an end token that does not end */
    static const char *const stops[] = {"c"};
    static const pgrad_token next[] = {'z'};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_prompt_params prompt;
    pgrad_prompt_params_init(&prompt, sizeof prompt);
    prompt.prefix = forced;
    prompt.n_prefix = 3;
    params.stop_strings = stops; /* found in what is sampled only */
    params.n_stop_strings = 1;
    pgrad_sampler *sampler = only(w.context, params, next, 1);
    pgrad_rollout *rollout = make_rollout(&w, 3, 1, 5, 2);
    (void)add_text_prompt(rollout, "q", &prompt);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < 3; i++) {
        ck_assert_uint_eq(info_of(rollout, i).n_tokens, 5);
        ck_assert_str_eq(pgrad_rollout_text(rollout, i, NULL), "a<|endoftext|>czz");
        for (int t = 0; t < 5; t++)
            ck_assert(pgrad_rollout_array(rollout, PGRAD_MASK, i, NULL)[t] == (t < 3 ? 0.0f : 1.0f));
    }
    OK(pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT)); /* forced ones were recorded too */
    for (int t = 0; t < 5; t++)
        ck_assert(pgrad_rollout_array(rollout, PGRAD_CURRENT, 2, NULL)[t] ==
                  pgrad_rollout_array(rollout, PGRAD_LOGPROBS, 2, NULL)[t]);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* SP03: logits that are not finite: sequence and position, and the rollout as it was. */
START_TEST(sp03_a_broken_model)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 2, 3, 6, 0);
    float good[32], bad[32];
    size_t n;
    (void)add_text_prompt(rollout, "first", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    record *before = take_record(rollout);
    OK(pgrad_model_tensor_read(w.model, "model.norm.weight", good, 32, &n));
    for (size_t i = 0; i < n; i++)
        bad[i] = 3e38f;
    OK(pgrad_model_tensor_write(w.model, "model.norm.weight", bad, n));
    (void)add_text_prompt(rollout, "second", NULL);
    FAILS(PGRAD_E_NUMERIC, "sequence 2, position 6", pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(pgrad_sampler_next_sequence(sampler), 2);
    record *after = take_record(rollout);
    same_record(before, after);
    OK(pgrad_model_tensor_write(w.model, "model.norm.weight", good, n));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 4);
    ck_assert_uint_eq(info_of(rollout, 3).sequence, 3);
    free(before);
    free(after);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(sp04_all_tokens_forbidden)
{
    static pgrad_token all[N_VOCAB];
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    for (pgrad_token i = 0; i < N_VOCAB; i++)
        all[i] = i;
    params.forbidden_tokens = all;
    params.n_forbidden_tokens = N_TOKENS; /* the rest has no token */
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 1, 1, 6, 0);
    (void)add_text_prompt(rollout, "x", NULL);
    FAILS(PGRAD_E_NUMERIC, "no token", pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 0);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(rows_without_a_token_are_never_sampled)
{
    static const pgrad_token none[] = {N_TOKENS, N_VOCAB - 1};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler *sampler = only(w.context, sampler_defaults(), none, 2);
    pgrad_rollout *rollout = make_rollout(&w, 8, 1, 6, 0);
    (void)add_text_prompt(rollout, "x", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t i = 0; i < 8; i++)
        for (uint32_t t = 0; t < info_of(rollout, i).n_tokens; t++)
            ck_assert_int_lt(pgrad_rollout_tokens(rollout, i, NULL)[t], N_TOKENS);
    pgrad_rollout_free(rollout);
    pgrad_tokenizer *kept = w.tokenizer;
    w.tokenizer = NULL; /* then every row is one */
    rollout = make_rollout(&w, 1, 1, 6, 0);
    w.tokenizer = kept;
    (void)add_text_prompt(rollout, "x", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    for (uint32_t t = 0; t < info_of(rollout, 0).n_tokens; t++)
        ck_assert_int_ge(pgrad_rollout_tokens(rollout, 0, NULL)[t], N_TOKENS);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

START_TEST(groups_that_have_sequences_are_left_alone)
{
    static const pgrad_token ids[] = {'o', 'k', ID_END};
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 3, 3, 6, 2);
    FAILS(PGRAD_E_STATE, "no prompts", pgrad_rollout_generate(rollout, sampler, NULL));
    OK(pgrad_sampler_set_next_sequence(sampler, 40));
    (void)add_text_prompt(rollout, "x", NULL);
    (void)add_text_prompt(rollout, "y", NULL);
    OK(pgrad_rollout_add_sequence(rollout, 0, ids, 3, NULL));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 4);
    (void)add_text_prompt(rollout, "z", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 7);
    ck_assert_uint_eq(info_of(rollout, 0).sampled, 0);
    ck_assert_str_eq(pgrad_rollout_text(rollout, 0, NULL), "ok");
    for (uint32_t i = 1; i < 7; i++) {
        ck_assert_uint_eq(info_of(rollout, i).group, i < 4 ? 1 : 2);
        ck_assert_uint_eq(info_of(rollout, i).sequence, 39 + i);
    }
    ck_assert_uint_eq(pgrad_sampler_next_sequence(sampler), 46);
    FAILS(PGRAD_E_INVALID, "sampler", pgrad_rollout_generate(rollout, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "rollout", pgrad_rollout_generate(NULL, sampler, NULL));
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* ---- memory ---- */

START_TEST(the_second_generate_allocates_nothing)
{
    world w = begin_world(LLAMA_CONFIG);
    pgrad_sampler_params params = sampler_defaults();
    params.ignore_eos = 1; /* all have full length, so the batches are equally large */
    params.top_k = 50;
    params.repetition_penalty = 1.1;
    pgrad_sampler *sampler = make_sampler(w.context, &params);
    pgrad_rollout *rollout = make_rollout(&w, 4, 3, 16, 5);
    uint64_t after[4] = {0};
    for (int step = 0; step < 4; step++) {
        pgrad_step_report report;
        pgrad_rollout_clear(rollout);
        for (uint64_t i = 0; i < 3; i++) {
            (void)add_long_prompt(rollout, i, 20 + 50 * i);
            OK(pgrad_rollout_set_data(rollout, (uint32_t)i, "answer", "forty-two", 9));
        }
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
        OK(pgrad_rollout_score(rollout, w.model, PGRAD_REFERENCE));
        pgrad_step_report_init(&report, sizeof report);
        OK(pgrad_rollout_report(rollout, &report));
        after[step] = allocations(w.context);
    }
    for (int step = 1; step < 4; step++)
        ck_assert_msg(after[step] == after[0], "%llu allocations in generation %d",
                      (unsigned long long)(after[step] - after[step - 1]), step + 1);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    end_world(&w);
}
END_TEST

/* An allocator that fails from the n-th call on. */
typedef struct meter {
    long left; /* < 0: never fails */
} meter;

static void *metered_alloc(void *user, size_t size, size_t alignment)
{
    meter *m = user;
    if (m->left == 0)
        return NULL;
    m->left -= m->left > 0;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void metered_free(void *user, void *pointer, size_t size)
{
    (void)user;
    (void)size;
    free(pointer);
}

START_TEST(no_memory_leaves_nothing_behind)
{
    static const char *const stops[] = {"abc", "abd", "x"};
    meter m = {-1};
    pgrad_allocator allocator = {&m, metered_alloc, metered_free};
    pgrad_context_params context_params;
    world w = {0};
    pgrad_context_params_init(&context_params, sizeof context_params);
    context_params.n_threads = 1;
    context_params.allocator = &allocator;
    OK(pgrad_context_create(&context_params, &w.context));
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, LLAMA_CONFIG);
    w.tokenizer = make_tokenizer(w.context);
    const uint64_t before = memory_now(w.context);
    long failed = 0;
    for (long at = 0;; at++) {
        pgrad_sampler_params params = sampler_defaults();
        pgrad_rollout_params rollout_params;
        pgrad_sampler *sampler = NULL;
        pgrad_rollout *rollout = NULL;
        pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
        params.stop_strings = stops;
        params.n_stop_strings = 3;
        rollout_params.max_new_tokens = 8;
        m.left = at;
        pgrad_status status = pgrad_sampler_create(w.context, &params, &sampler);
        if (status == PGRAD_OK)
            status = pgrad_rollout_create(w.model, w.tokenizer, &rollout_params, &rollout);
        const pgrad_token ids[] = {1, 2, 3};
        if (status == PGRAD_OK)
            status = pgrad_rollout_add_prompt(rollout, ids, 3, NULL, NULL);
        if (status == PGRAD_OK)
            status = pgrad_rollout_set_data(rollout, 0, "k", "v", 1);
        if (status == PGRAD_OK)
            status = pgrad_rollout_generate(rollout, sampler, NULL);
        if (status != PGRAD_OK && rollout != NULL)
            ck_assert_uint_eq(pgrad_rollout_count(rollout), 0);
        if (status == PGRAD_OK)
            status = pgrad_rollout_score(rollout, w.model, PGRAD_CURRENT);
        m.left = -1;
        if (status != PGRAD_OK) {
            ck_assert_msg(status == PGRAD_E_NOMEM, "at %ld: %s", at, pgrad_error_message());
            failed++;
        }
        pgrad_rollout_free(rollout);
        pgrad_sampler_free(sampler);
        ck_assert_uint_eq(memory_now(w.context), before);
        if (status == PGRAD_OK)
            break;
    }
    ck_assert_int_gt(failed, 40);
    end_world(&w);
}
END_TEST

/* ---- room of the cache ---- */

typedef struct room {
    uint32_t group_size, n_prompts, max_prompt, max_new, batch, prefix_cache;
    uint32_t lengths[6];
} room;

/* Lengths around the ends of pages, groups that need more slots than there are. */
static room random_room(uint64_t seed)
{
    static const uint32_t ends[] = {1, 2, 62, 63, 64, 65, 127, 128, 129};
    room r = {.group_size = 1 + (uint32_t)pgrad__uniform_below(seed, 0, 0, 6),
              .n_prompts = 1 + (uint32_t)pgrad__uniform_below(seed, 0, 1, 6),
              .max_new = ends[pgrad__uniform_below(seed, 0, 2, 9)],
              .batch = 1 + (uint32_t)pgrad__uniform_below(seed, 0, 3, 12),
              .prefix_cache = 64 * (uint32_t)pgrad__uniform_below(seed, 0, 4, 2)};
    if (r.max_new > 128)
        r.max_new = 128;
    for (uint32_t i = 0; i < r.n_prompts; i++) {
        r.lengths[i] = ends[pgrad__uniform_below(seed, 1, i, 8)];
        r.max_prompt = r.lengths[i] > r.max_prompt ? r.lengths[i] : r.max_prompt;
    }
    return r;
}

static pgrad_rollout *make_room(const world *w, const room *r, uint32_t batch)
{
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = r->group_size;
    params.max_prompts = r->n_prompts;
    params.max_prompt_tokens = r->max_prompt;
    params.max_new_tokens = r->max_new;
    params.batch_size = batch;
    params.prefix_cache_tokens = r->prefix_cache;
    OK(pgrad_rollout_create(w->model, w->tokenizer, &params, &rollout));
    return rollout;
}

/* Half of the sequences end early, so that slots hold the last ones of many groups; some prompts begin with forced
 * tokens. A second rollout finds the pages of the first one kept. */
static record *generate_in(const world *w, const room *r, uint64_t seed, uint32_t batch)
{
    pgrad_token stops[128];
    pgrad_sampler_params params = sampler_defaults();
    for (pgrad_token i = 0; i < 128; i++)
        stops[i] = i;
    params.stop_tokens = stops;
    params.n_stop_tokens = (uint32_t)(1 + pgrad__uniform_below(seed, 2, 0, 3));
    pgrad_rollout *rollout = make_room(w, r, batch);
    pgrad_sampler *sampler = make_sampler(w->context, &params);
    for (int again = 0; again < 2; again++) {
        pgrad_rollout_clear(rollout);
        for (uint32_t i = 0; i < r->n_prompts; i++) {
            pgrad_token ids[256], forced[64];
            pgrad_prompt_params with;
            for (uint32_t t = 0; t < 256; t++)
                ids[t] = (pgrad_token)pgrad__uniform_below(seed + (i % 2) * (t / 64), 3, t, 256);
            memcpy(forced, ids, sizeof forced);
            pgrad_prompt_params_init(&with, sizeof with);
            with.prefix = forced;
            with.n_prefix = i % 3 == 2 ? r->max_new / 3 : 0;
            OK(pgrad_rollout_add_prompt(rollout, ids, r->lengths[i], &with, NULL));
        }
        OK(pgrad_rollout_generate(rollout, sampler, NULL));
    }
    record *out = take_record(rollout);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    return out;
}

START_TEST(the_cache_is_never_full)
{
    world w = begin_world(LLAMA_CONFIG);
    for (uint64_t seed = 0; seed < 60; seed++) {
        const room r = random_room(seed);
        record *one = generate_in(&w, &r, seed, 1), *many = generate_in(&w, &r, seed, r.batch);
        same_record(one, many);
        free(one);
        free(many);
    }
    end_world(&w);
}
END_TEST

/* A page of a prompt counts once for its group: 1 x 2 of the prompt, 16 x (1 + 1) of completions, 3 of a group that has
 * not begun, against 16 + 1 times 3 of prompts apart. */
START_TEST(a_group_has_its_prompt_once)
{
    world w = begin_world(LLAMA_CONFIG);
    const room together = {.group_size = 16, .n_prompts = 1, .max_prompt = 128, .max_new = 64, .batch = 16};
    const room apart = {.group_size = 1, .n_prompts = 16, .max_prompt = 128, .max_new = 64, .batch = 16};
    pgrad_rollout *rollouts[] = {make_room(&w, &together, 16), make_room(&w, &apart, 16)};
    uint64_t bytes[2];
    for (int i = 0; i < 2; i++) {
        pgrad_rollout_info info = {.struct_size = sizeof info};
        OK(pgrad_rollout_get_info(rollouts[i], &info));
        bytes[i] = info.cache_bytes;
        pgrad_rollout_free(rollouts[i]);
    }
    ck_assert_uint_eq(bytes[0] * 51, bytes[1] * 37);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("generate");
    TCase *tcase = tcase_create("generate");
    tcase_set_timeout(tcase, 300);
    tcase_add_loop_test(tcase, tokens_are_those_of_logits_and_pick, 0, 4);
    tcase_add_loop_test(tcase, pr10_end_token_first, 0, 2);
    tcase_add_test(tcase, end_tokens_can_be_ignored);
    tcase_add_test(tcase, stop_tokens_wait_for_min_new_tokens);
    tcase_add_test(tcase, pr05_the_context_ends);
    tcase_add_test(tcase, pr10_stop_strings_across_tokens);
    tcase_add_test(tcase, a_stop_string_may_end_inside_a_token);
    tcase_add_test(tcase, a_prefix_is_forced_and_not_learned);
    tcase_add_test(tcase, sp03_a_broken_model);
    tcase_add_test(tcase, sp04_all_tokens_forbidden);
    tcase_add_test(tcase, rows_without_a_token_are_never_sampled);
    tcase_add_test(tcase, groups_that_have_sequences_are_left_alone);
    tcase_add_test(tcase, the_cache_is_never_full);
    tcase_add_test(tcase, a_group_has_its_prompt_once);
    tcase_add_test(tcase, the_second_generate_allocates_nothing);
    tcase_add_test(tcase, no_memory_leaves_nothing_behind);
    suite_add_tcase(suite, tcase);
    return run_suite(suite);
}
