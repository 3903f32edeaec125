/* What a host may hand over that is wrong, or at the edge: rows PR, SP, RW and OP of the catalogue (docs/faults.md)
 * that have no better place. */
#include <pthread.h>

#include "rl_test.h"

static world w;

static void setup(void)
{
    w = begin_world(LLAMA_CONFIG);
}

static void teardown(void)
{
    end_world(&w);
}

/* ---- prompts ---- */

START_TEST(pr02_empty_prompts)
{
    const pgrad_token id = 1;
    const char *const texts[] = {"a", ""};
    pgrad_rollout *rollout = make_rollout(&w, 1, 1, 4, 1);
    pgrad_prompts prompts;
    pgrad_train_params params;
    pgrad_reward *reward = NULL;
    FAILS(PGRAD_E_INVALID, "an empty prompt", pgrad_rollout_add_prompt(rollout, &id, 0, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "1 ids announced, NULL given", pgrad_rollout_add_prompt(rollout, NULL, 1, NULL, NULL));
    ck_assert_uint_eq(pgrad_rollout_count_groups(rollout), 0);
    OK(pgrad_rollout_add_prompt(rollout, &id, 1, NULL, NULL)); /* a BOS alone */
    pgrad_rollout_free(rollout);

    OK(pgrad_reward_builtin(w.context, "length", "{\"target\":3}", &reward));
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = 2;
    prompts.texts = texts;
    pgrad_train_params_init(&params, sizeof params);
    params.prompts_per_step = 2;
    FAILS(PGRAD_E_INVALID, "prompts.texts[1]", pgrad_train(w.model, w.tokenizer, reward, &prompts, &params, NULL));
    pgrad_reward_free(reward);
}
END_TEST

START_TEST(pr04_prompts_around_the_context)
{
    enum { CONTEXT = 256 };
    pgrad_token ids[CONTEXT + 1];
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_sampler_params sampling = sampler_defaults();
    sampling.ignore_eos = 1;
    pgrad_sampler *sampler = make_sampler(w.context, &sampling);
    for (int i = 0; i <= CONTEXT; i++)
        ids[i] = (pgrad_token)(i % 200);
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = 1;
    params.max_prompts = 2;
    params.max_prompt_tokens = 1000; /* no more than the context */
    params.max_new_tokens = 8;
    OK(pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
    OK(pgrad_rollout_add_prompt(rollout, ids, CONTEXT - 1, NULL, NULL));
    OK(pgrad_rollout_add_prompt(rollout, ids, CONTEXT, NULL, NULL));
    FAILS(PGRAD_E_LIMIT, "holds max_prompts = 2", pgrad_rollout_add_prompt(rollout, ids, CONTEXT, NULL, NULL));
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(info_of(rollout, 0).n_tokens, 2); /* the last token needs no position */
    ck_assert_uint_eq(info_of(rollout, 1).n_tokens, 1);
    ck_assert_uint_eq(info_of(rollout, 1).finish, PGRAD_FINISH_LENGTH);
    pgrad_rollout_clear(rollout);
    FAILS(PGRAD_E_LIMIT, "the prompt has 257 tokens, max_prompt_tokens is 256",
          pgrad_rollout_add_prompt(rollout, ids, CONTEXT + 1, NULL, NULL));
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
}
END_TEST

START_TEST(pr07_ids_outside_the_vocabulary)
{
    static const pgrad_token BAD[] = {-1, N_VOCAB, N_VOCAB + 1, INT32_MAX, INT32_MIN};
    pgrad_rollout *rollout = make_rollout(&w, 2, 2, 4, 1);
    float logits[N_VOCAB];
    pgrad_prompt_params params;
    pgrad_prompt_params_init(&params, sizeof params);
    const uint32_t group = add_text_prompt(rollout, "x", NULL);
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        const pgrad_token ids[] = {1, BAD[i]};
        char found[64];
        snprintf(found, sizeof found, "token 1: expected an id below %d, found %d", N_VOCAB, BAD[i]);
        FAILS(PGRAD_E_INVALID, found, pgrad_rollout_add_prompt(rollout, ids, 2, NULL, NULL));
        FAILS(PGRAD_E_INVALID, found, pgrad_rollout_add_sequence(rollout, group, ids, 2, NULL));
        params.prefix = ids;
        params.n_prefix = 2;
        FAILS(PGRAD_E_INVALID, found, pgrad_rollout_add_prompt(rollout, ids, 1, &params, NULL));
        ck_assert_int_eq(pgrad_model_logits(w.model, ids, 2, PGRAD_LOGITS_LAST, logits, N_VOCAB), PGRAD_E_INVALID);
    }
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 0);
    ck_assert_uint_eq(pgrad_rollout_count_groups(rollout), 1);
    FAILS(PGRAD_E_INVALID, "group", pgrad_rollout_add_sequence(rollout, 1, BAD, 1, NULL));
    pgrad_rollout_free(rollout);
}
END_TEST

START_TEST(pr09_nothing_to_do)
{
    static const char *const FIELDS[] = {"group_size", "max_prompts", "max_prompt_tokens", "max_new_tokens"};
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    for (int i = 0; i < 4; i++) {
        pgrad_rollout_params_init(&params, sizeof params);
        *(i == 0   ? &params.group_size
          : i == 1 ? &params.max_prompts
          : i == 2 ? &params.max_prompt_tokens
                   : &params.max_new_tokens) = 0;
        FAILS(PGRAD_E_INVALID, FIELDS[i], pgrad_rollout_create(w.model, w.tokenizer, &params, &rollout));
        ck_assert_ptr_null(rollout);
    }
    pgrad_sampler_params sampling = sampler_defaults();
    pgrad_sampler *sampler = make_sampler(w.context, &sampling);
    rollout = make_rollout(&w, 1, 1, 4, 1);
    FAILS(PGRAD_E_STATE, "no prompts", pgrad_rollout_generate(rollout, sampler, NULL));
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
}
END_TEST

/* What was not given is named. */
START_TEST(missing_arguments)
{
    const pgrad_token id = 1;
    const float value = 0.0f, *const nothing = NULL;
    double normalizer = 7.0;
    pgrad_rollout *rollout = make_rollout(&w, 1, 1, 4, 1), *no_rollout = NULL;
    pgrad_sequence_info sequence = {.struct_size = sizeof sequence};
    pgrad_rollout_info info = {.struct_size = sizeof info};
    pgrad_step_report report;
    pgrad_objective *objective = NULL, *no_objective = NULL;
    pgrad_optimizer *no_optimizer = NULL;
    pgrad_advantage *advantage = NULL;
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_objective_create(w.model, NULL, &objective));
    OK(pgrad_advantage_create(w.context, NULL, &advantage));
    FAILS(PGRAD_E_INVALID, "rollout_create: model is NULL", pgrad_rollout_create(NULL, NULL, NULL, &no_rollout));
    FAILS(PGRAD_E_INVALID, "rollout_create: out is NULL", pgrad_rollout_create(w.model, NULL, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "add_prompt: rollout is NULL", pgrad_rollout_add_prompt(NULL, &id, 1, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "add_sequence: rollout is NULL", pgrad_rollout_add_sequence(NULL, 0, &id, 1, NULL));
    FAILS(PGRAD_E_INVALID, "set_data: an argument is NULL", pgrad_rollout_set_data(NULL, 0, "k", "v", 1));
    FAILS(PGRAD_E_INVALID, "set_data: an argument is NULL", pgrad_rollout_set_data(rollout, 0, NULL, "v", 1));
    FAILS(PGRAD_E_INVALID, "set_data: an argument is NULL", pgrad_rollout_set_data(rollout, 0, "k", NULL, 1));
    FAILS(PGRAD_E_INVALID, "set_array: rollout is NULL", pgrad_rollout_set_array(NULL, PGRAD_OLD, 0, &value, 1));
    FAILS(PGRAD_E_INVALID, "set_array: values is NULL", pgrad_rollout_set_array(rollout, PGRAD_OLD, 0, nothing, 1));
    FAILS(PGRAD_E_INVALID, "rollout_sequence: rollout is NULL", pgrad_rollout_sequence(NULL, 0, &sequence));
    FAILS(PGRAD_E_INVALID, "rollout_sequence: out is NULL", pgrad_rollout_sequence(rollout, 0, NULL));
    FAILS(PGRAD_E_INVALID, "rollout_get_info: rollout is NULL", pgrad_rollout_get_info(NULL, &info));
    FAILS(PGRAD_E_INVALID, "rollout_get_info: out is NULL", pgrad_rollout_get_info(rollout, NULL));
    FAILS(PGRAD_E_INVALID, "rollout_report: rollout is NULL", pgrad_rollout_report(NULL, &report));
    FAILS(PGRAD_E_INVALID, "rollout_report: report is NULL", pgrad_rollout_report(rollout, NULL));
    FAILS(PGRAD_E_INVALID, "rollout_score: rollout is NULL", pgrad_rollout_score(NULL, w.model, PGRAD_OLD));
    FAILS(PGRAD_E_INVALID, "rollout_score: model is NULL", pgrad_rollout_score(rollout, NULL, PGRAD_OLD));
    FAILS(PGRAD_E_INVALID, "sampler_set_next_sequence: sampler is NULL", pgrad_sampler_set_next_sequence(NULL, 1));
    FAILS(PGRAD_E_INVALID, "advantage_create: out is NULL", pgrad_advantage_create(w.context, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "advantage_apply: advantage is NULL", pgrad_advantage_apply(NULL, rollout));
    FAILS(PGRAD_E_INVALID, "advantage_apply: rollout is NULL", pgrad_advantage_apply(advantage, NULL));
    FAILS(PGRAD_E_INVALID, "objective_create: model is NULL", pgrad_objective_create(NULL, NULL, &no_objective));
    FAILS(PGRAD_E_INVALID, "objective_create: out is NULL", pgrad_objective_create(w.model, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "objective_backward: objective is NULL",
          pgrad_objective_backward(NULL, rollout, NULL, 0, NULL, &report));
    FAILS(PGRAD_E_INVALID, "objective_backward: rollout is NULL",
          pgrad_objective_backward(objective, NULL, NULL, 0, NULL, &report));
    FAILS(PGRAD_E_INVALID, "objective_normalizer: an argument is NULL",
          pgrad_objective_normalizer(NULL, rollout, NULL, 0, &normalizer));
    FAILS(PGRAD_E_INVALID, "objective_normalizer: an argument is NULL",
          pgrad_objective_normalizer(objective, rollout, NULL, 0, NULL));
    FAILS(PGRAD_E_INVALID, "optimizer_create: model is NULL", pgrad_optimizer_create(NULL, NULL, &no_optimizer));
    FAILS(PGRAD_E_INVALID, "optimizer_create: out is NULL", pgrad_optimizer_create(w.model, NULL, NULL));
    FAILS(PGRAD_E_INVALID, "optimizer_set_lr: optimizer is NULL", pgrad_optimizer_set_lr(NULL, 0.1));
    FAILS(PGRAD_E_INVALID, "optimizer_step: optimizer is NULL", pgrad_optimizer_step(NULL, NULL));
    ck_assert(no_rollout == NULL && no_objective == NULL && no_optimizer == NULL);
    ck_assert(normalizer == 7.0);
    ck_assert_uint_eq(pgrad_rollout_count_groups(rollout), 0);
    pgrad_advantage_free(advantage);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
}
END_TEST

/* A sequence of the host's own: what it may be, how many there may be, what may be set of it. */
START_TEST(sequences_that_do_not_fit)
{
    const pgrad_token ids[] = {65, 66, 67, 68, 69};
    const float values[] = {0.5f, NAN, 2.0f};
    pgrad_rollout *rollout = make_rollout(&w, 1, 2, 4, 1);
    pgrad_sequence_params params;
    pgrad_sequence_info info = {.struct_size = sizeof info};
    pgrad_prompt_params prompt;
    pgrad_prompt_params_init(&prompt, sizeof prompt);
    prompt.prefix = ids;
    prompt.n_prefix = 5;
    FAILS(PGRAD_E_LIMIT, "prompt.n_prefix: 5 tokens: max_new_tokens is 4",
          pgrad_rollout_add_prompt(rollout, ids, 1, &prompt, NULL));
    (void)add_text_prompt(rollout, "q", NULL);
    FAILS(PGRAD_E_INVALID, "set_data: group: expected below 1, found 1",
          pgrad_rollout_set_data(rollout, 1, "answer", "x", 1));
    FAILS(PGRAD_E_LIMIT, "set_data: a text of 18446744073709551615 bytes is too long",
          pgrad_rollout_set_data(rollout, 0, "answer", "x", SIZE_MAX));
    ck_assert_ptr_null(pgrad_rollout_data(rollout, 0, "answer", NULL));
    FAILS(PGRAD_E_INVALID, "add_sequence: at least one token", pgrad_rollout_add_sequence(rollout, 0, ids, 0, NULL));
    FAILS(PGRAD_E_LIMIT, "add_sequence: 5 tokens: max_new_tokens is 4",
          pgrad_rollout_add_sequence(rollout, 0, ids, 5, NULL));
    pgrad_sequence_params_init(&params, sizeof params);
    params.temperature = 1e-300;
    FAILS(PGRAD_E_INVALID, "sequence.temperature: 1e-300 is too small",
          pgrad_rollout_add_sequence(rollout, 0, ids, 2, &params));
    params.temperature = 1.0;
    params.finish = PGRAD_FINISH_NONE;
    FAILS(PGRAD_E_INVALID, "sequence.finish: an added sequence must have ended",
          pgrad_rollout_add_sequence(rollout, 0, ids, 2, &params));
    ck_assert_uint_eq(pgrad_rollout_count(rollout), 0);
    OK(pgrad_rollout_add_sequence(rollout, 0, ids, 3, NULL));
    FAILS(PGRAD_E_LIMIT, "group 0 has its group_size = 1 sequences already",
          pgrad_rollout_add_sequence(rollout, 0, ids, 3, NULL));
    FAILS(PGRAD_E_INVALID, "rollout_sequence: index: expected below 1, found 1",
          pgrad_rollout_sequence(rollout, 1, &info));
    FAILS(PGRAD_E_INVALID, "set_array: which: expected REWARDS, ADVANTAGES, OLD, REFERENCE or MASK, found 99",
          pgrad_rollout_set_array(rollout, 99, 0, values, 1));
    FAILS(PGRAD_E_INVALID, "set_array: index: expected below 1, found 1",
          pgrad_rollout_set_array(rollout, PGRAD_OLD, 1, values, 1));
    FAILS(PGRAD_E_MISMATCH, "sequence 0 has 3 tokens: expected as many values, or 1, found 2",
          pgrad_rollout_set_array(rollout, PGRAD_OLD, 0, values, 2));
    FAILS(PGRAD_E_NUMERIC, "sequence 0, value 1 is nan", pgrad_rollout_set_array(rollout, PGRAD_OLD, 0, values, 3));
    FAILS(PGRAD_E_INVALID, "sequence 0, mask 0: expected 0 or 1, found 0.5",
          pgrad_rollout_set_array(rollout, PGRAD_MASK, 0, values, 1));
    FAILS(PGRAD_E_INVALID, "which: expected CURRENT, OLD or REFERENCE, found 99",
          pgrad_rollout_score(rollout, w.model, 99));
    ck_assert_ptr_eq(pgrad_rollout_array(rollout, PGRAD_OLD, 0, NULL), NULL);
    pgrad_rollout_free(rollout);
}
END_TEST

/* Sizes whose product is beyond a 32-bit count, beyond memory, beyond what the context allows. */
START_TEST(sp08_sizes_beyond_all_memory)
{
    pgrad_context_params context_params;
    pgrad_context *context = NULL;
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_context_params_init(&context_params, sizeof context_params);
    context_params.n_threads = 1;
    context_params.memory_limit = 64 << 20;
    OK(pgrad_context_create(&context_params, &context));
    pgrad_model *model = make_model(context, LLAMA_CONFIG);
    pgrad_rollout_params_init(&params, sizeof params);
    params.max_new_tokens = params.max_prompt_tokens = 1 << 24;
    params.group_size = params.max_prompts = 65536;
    FAILS(PGRAD_E_LIMIT, "65536 groups of 65536 sequences", pgrad_rollout_create(model, NULL, &params, &rollout));
    params.max_prompts = 32767;
    FAILS(PGRAD_E_LIMIT, "memory", pgrad_rollout_create(model, NULL, &params, &rollout));
    params.group_size = params.max_prompts = 1;
    params.prefix_cache_tokens = UINT32_MAX;
    ck_assert_int_ne(pgrad_rollout_create(model, NULL, &params, &rollout), PGRAD_OK);
    ck_assert_ptr_null(rollout);
    params.prefix_cache_tokens = 0;
    OK(pgrad_rollout_create(model, NULL, &params, &rollout)); /* as far as the context goes */
    pgrad_sampler_params sampling = sampler_defaults();
    sampling.max_new_tokens = UINT32_MAX;
    pgrad_sampler *sampler = make_sampler(context, &sampling);
    (void)add_text_prompt(rollout, "x", NULL);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    ck_assert_uint_eq(info_of(rollout, 0).n_tokens, 256);
    pgrad_rollout_free(rollout);
    pgrad_sampler_free(sampler);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

/* ---- rewards ---- */

static void given(pgrad_rollout *rollout, const float *rewards)
{
    uint32_t i = 0;
    while (pgrad_rollout_count_groups(rollout) < 2) {
        const uint32_t group = add_text_prompt(rollout, "q", NULL);
        for (int k = 0; k < 2; k++, i++) {
            const pgrad_token ids[] = {(pgrad_token)(65 + i), 66};
            OK(pgrad_rollout_add_sequence(rollout, group, ids, 2, NULL));
            OK(pgrad_rollout_set_array(rollout, PGRAD_REWARDS, i, &rewards[i], 1));
        }
    }
}

/* A group of one has no spread to compare with. */
START_TEST(rw05_groups_of_one)
{
    for (uint32_t estimator = PGRAD_ADVANTAGE_NONE; estimator <= PGRAD_ADVANTAGE_DR_GRPO; estimator++) {
        const float reward = 2.0f;
        pgrad_rollout *rollout = make_rollout(&w, 1, 1, 4, 1);
        pgrad_advantage_params params;
        pgrad_advantage *advantage = NULL;
        const pgrad_token id = 5;
        pgrad_advantage_params_init(&params, sizeof params);
        params.estimator = estimator;
        OK(pgrad_advantage_create(w.context, &params, &advantage));
        const uint32_t group = add_text_prompt(rollout, "q", NULL);
        OK(pgrad_rollout_add_sequence(rollout, group, &id, 1, NULL));
        OK(pgrad_rollout_set_array(rollout, PGRAD_REWARDS, 0, &reward, 1));
        if (estimator >= PGRAD_ADVANTAGE_RLOO) {
            FAILS(PGRAD_E_INVALID, "group_size is 1", pgrad_advantage_apply(advantage, rollout));
        } else {
            OK(pgrad_advantage_apply(advantage, rollout));
            ck_assert(isfinite(pgrad_rollout_array(rollout, PGRAD_ADVANTAGES, 0, NULL)[0]));
        }
        pgrad_advantage_free(advantage);
        pgrad_rollout_free(rollout);
    }
}
END_TEST

typedef struct order {
    pthread_t thread;
    uint32_t next;
    int elsewhere;
    pgrad_context *cancels;
} order;

static int32_t in_order(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count, pgrad_scores *scores)
{
    order *o = user;
    o->elsewhere += !pthread_equal(o->thread, pthread_self()) || first != o->next;
    o->next = first + count;
    for (uint32_t i = 0; i < count; i++)
        pgrad_scores_data(scores)[i] = (float)(pgrad_rollout_tokens(rollout, first + i, NULL)[0]);
    if (o->cancels != NULL)
        pgrad_context_cancel(o->cancels);
    return (int32_t)count;
}

/* The host's function is called on the caller's thread, in the order of the sequences. */
START_TEST(rw10_callbacks_come_one_by_one)
{
    const float rewards[4] = {0};
    order o = {.thread = pthread_self()};
    pgrad_reward *reward = NULL;
    pgrad_rollout *rollout = make_rollout(&w, 2, 2, 4, 1);
    given(rollout, rewards);
    OK(pgrad_reward_create(w.context, "order", in_order, &o, NULL, &reward));
    OK(pgrad_reward_apply(reward, rollout));
    ck_assert_uint_eq(o.next, 4);
    ck_assert_int_eq(o.elsewhere, 0);
    for (uint32_t i = 0; i < 4; i++)
        ck_assert(info_of(rollout, i).reward == 65.0 + i);
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
}
END_TEST

/* Cancelled while the host's function is at work: told when it comes back; the next try works. */
START_TEST(rw12_cancelled_meanwhile)
{
    const float rewards[4] = {0};
    order o = {.thread = pthread_self(), .cancels = w.context};
    pgrad_reward *reward = NULL;
    pgrad_rollout *rollout = make_rollout(&w, 2, 2, 4, 1);
    given(rollout, rewards);
    OK(pgrad_reward_create(w.context, "order", in_order, &o, NULL, &reward));
    FAILS(PGRAD_E_CANCELLED, "", pgrad_reward_apply(reward, rollout));
    ck_assert(isnan(info_of(rollout, 0).reward));
    pgrad_context_clear_cancel(w.context);
    o.cancels = NULL;
    OK(pgrad_reward_apply(reward, rollout));
    ck_assert(info_of(rollout, 3).reward == 68.0);
    pgrad_reward_free(reward);
    pgrad_rollout_free(rollout);
}
END_TEST

/* Advantages need rewards, of every sequence; and a penalty on divergence what it is measured against. */
START_TEST(advantages_without_what_they_need)
{
    const pgrad_token ids[] = {65, 66};
    const float value = 0.5f;
    pgrad_rollout *rollout = make_rollout(&w, 2, 1, 4, 1);
    pgrad_advantage_params params;
    pgrad_advantage *advantage = NULL, *penalized = NULL;
    OK(pgrad_advantage_create(w.context, NULL, &advantage));
    pgrad_advantage_params_init(&params, sizeof params);
    params.kl_beta = 0.1;
    OK(pgrad_advantage_create(w.context, &params, &penalized));
    (void)add_text_prompt(rollout, "q", NULL);
    OK(pgrad_rollout_add_sequence(rollout, 0, ids, 2, NULL));
    OK(pgrad_rollout_add_sequence(rollout, 0, ids, 1, NULL));
    FAILS(PGRAD_E_STATE, "the rollout has no rewards yet", pgrad_advantage_apply(advantage, rollout));
    OK(pgrad_rollout_set_array(rollout, PGRAD_REWARDS, 0, &value, 1));
    FAILS(PGRAD_E_STATE, "sequence 1 has no reward", pgrad_advantage_apply(advantage, rollout));
    OK(pgrad_rollout_set_array(rollout, PGRAD_REWARDS, 1, &value, 1));
    OK(pgrad_advantage_apply(advantage, rollout));
    FAILS(PGRAD_E_STATE, "advantage.kl_beta is 0.1, but sequence 0 has no REFERENCE",
          pgrad_advantage_apply(penalized, rollout));
    for (uint32_t i = 0; i < 2; i++)
        OK(pgrad_rollout_set_array(rollout, PGRAD_REFERENCE, i, &value, 1));
    FAILS(PGRAD_E_STATE, "sequence 0 has neither OLD nor LOGPROBS", pgrad_advantage_apply(penalized, rollout));
    for (uint32_t i = 0; i < 2; i++)
        OK(pgrad_rollout_set_array(rollout, PGRAD_OLD, i, &value, 1));
    OK(pgrad_advantage_apply(penalized, rollout));
    pgrad_advantage_free(penalized);
    pgrad_advantage_free(advantage);
    pgrad_rollout_free(rollout);
}
END_TEST

/* ---- models and samplers that do not fit ---- */

static pgrad_model *gpt2(uint32_t n_vocab, uint32_t n_positions)
{
    char config[256];
    pgrad_model *out = NULL;
    snprintf(config, sizeof config, "{\"model_type\":\"gpt2\",\"vocab_size\":%u,\"n_positions\":%u,\"n_embd\":16,"
                                    "\"n_layer\":1,\"n_head\":2,\"activation_function\":\"gelu_new\"}", n_vocab, n_positions);
    OK(pgrad_model_create(w.context, config, 1, NULL, &out));
    return out;
}

/* A vocabulary or a context smaller than what another model or the tokenizer made. */
START_TEST(models_that_do_not_fit)
{
    const float rewards[4] = {0};
    pgrad_model *few = gpt2(200, 64), *narrow = gpt2(N_VOCAB, 1);
    pgrad_rollout *rollout = make_rollout(&w, 2, 2, 4, 1), *none = NULL;
    pgrad_objective *objective = NULL;
    given(rollout, rewards);
    FAILS(PGRAD_E_MISMATCH, "rollout: the tokenizer has ids up to 258, the model 200 rows",
          pgrad_rollout_create(few, w.tokenizer, NULL, &none));
    ck_assert_ptr_null(none);
    FAILS(PGRAD_E_MISMATCH, "rollout_score: sequence 0 takes 2 positions, the model's context is 1",
          pgrad_rollout_score(rollout, narrow, PGRAD_REFERENCE));
    OK(pgrad_objective_create(few, NULL, &objective));
    FAILS(PGRAD_E_MISMATCH, "objective_backward: the model has 200 tokens, the rollout's has 272",
          pgrad_objective_backward(objective, rollout, NULL, 0, NULL, NULL));
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad_model_free(narrow);
    pgrad_model_free(few);
}
END_TEST

/* The sampler is made without a model; what it forbids must be in the vocabulary of the one it meets. */
START_TEST(lists_of_a_sampler_beyond_the_vocabulary)
{
    static const pgrad_token tokens[] = {7, N_VOCAB};
    static const float bias[] = {0.0f, 1.0f};
    static const char *const NAMES[] = {"stop_tokens", "forbidden_tokens", "bias_tokens"};
    pgrad_rollout *rollout = make_rollout(&w, 1, 1, 4, 1);
    (void)add_text_prompt(rollout, "q", NULL);
    for (int k = 0; k < 3; k++) {
        char found[100];
        pgrad_sampler_params params = sampler_defaults();
        *(k == 0 ? &params.stop_tokens : k == 1 ? &params.forbidden_tokens : &params.bias_tokens) = tokens;
        *(k == 0 ? &params.n_stop_tokens : k == 1 ? &params.n_forbidden_tokens : &params.n_bias_tokens) = 2;
        params.logit_bias = bias;
        pgrad_sampler *sampler = make_sampler(w.context, &params);
        snprintf(found, sizeof found, "sampler.%s[1]: expected an id below the model's 272, found 272", NAMES[k]);
        FAILS(PGRAD_E_INVALID, found, pgrad_rollout_generate(rollout, sampler, NULL));
        ck_assert_uint_eq(pgrad_rollout_count(rollout), 0);
        pgrad_sampler_free(sampler);
    }
    pgrad_rollout_free(rollout);
}
END_TEST

/* ---- loss and optimizer ---- */

typedef struct learner {
    pgrad_model *model;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
} learner;

static learner make_learner(double weight_decay)
{
    learner l = {0};
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 0.5;
    params.weight_decay = weight_decay;
    OK(pgrad_model_create(w.context, LLAMA_CONFIG, 4, NULL, &l.model));
    OK(pgrad_objective_create(l.model, NULL, &l.objective));
    OK(pgrad_optimizer_create(l.model, &params, &l.optimizer));
    return l;
}

static void free_learner(learner *l)
{
    pgrad_optimizer_free(l->optimizer);
    pgrad_objective_free(l->objective);
    pgrad_model_free(l->model);
}

/* Without any advantage a step is its weight decay alone, which vectors are exempt from. */
START_TEST(op05_no_advantage_at_all)
{
    static const float none[4] = {0};
    learner l = make_learner(_i == 0 ? 0.0 : 0.1);
    pgrad_model *before = NULL;
    pgrad_step_report report;
    const world other = {.context = w.context, .model = l.model};
    pgrad_rollout *rollout = make_rollout(&other, 2, 2, 4, 1);
    given(rollout, none);
    for (uint32_t i = 0; i < 4; i++)
        OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, none, 1));
    OK(pgrad_rollout_score(rollout, l.model, PGRAD_OLD));
    OK(pgrad_model_snapshot(l.model, &before));
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_model_zero_grad(l.model));
    OK(pgrad_objective_backward(l.objective, rollout, NULL, 0, NULL, &report));
    OK(pgrad_optimizer_step(l.optimizer, &report));
    ck_assert(report.loss == 0.0 && report.grad_norm == 0.0);
    for (uint32_t i = 0; i < l.model->n_tensors; i++) {
        const pgrad__tensor *tensor = &l.model->tensors[i], *old = pgrad__tensor_by_name(before, tensor->name);
        const float *now = tensor->data, *then = old->data;
        const int decays = _i == 1 && tensor->n_dims == 2;
        for (size_t k = 0; k < tensor->floats; k++)
            ck_assert_msg(decays ? fabsf(now[k]) < fabsf(then[k]) || then[k] == 0.0f : now[k] == then[k],
                          "'%s', %zu: %g after %g", tensor->name, k, (double)now[k], (double)then[k]);
    }
    pgrad_rollout_free(rollout);
    pgrad_model_free(before);
    free_learner(&l);
}
END_TEST

/* Finite weights may give logits that are not, and a finite weight of the divergence a loss that is not: told with its
 * place. */
START_TEST(numbers_that_run_away)
{
    enum { EMBD = 32 };
    const float value = -1.0f, far_off = -800.0f, nothing[4] = {0};
    pgrad_objective_params params;
    pgrad_objective *heavy = NULL;
    float norm[EMBD], large[EMBD];
    learner l = make_learner(0.0);
    const world other = {.context = w.context, .model = l.model};
    pgrad_rollout *rollout = make_rollout(&other, 2, 2, 4, 1);
    size_t n = 0;
    given(rollout, nothing);
    OK(pgrad_rollout_score(rollout, l.model, PGRAD_OLD));
    FAILS(PGRAD_E_STATE, "objective_backward: sequence 0 has no advantages: call pgrad_advantage_apply or set them",
          pgrad_objective_backward(l.objective, rollout, NULL, 0, NULL, NULL));
    for (uint32_t i = 0; i < 4; i++)
        OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &value, 1));
    OK(pgrad_model_tensor_read(l.model, "model.norm.weight", norm, EMBD, &n));
    for (int i = 0; i < EMBD; i++)
        large[i] = 3e38f;
    OK(pgrad_model_tensor_write(l.model, "model.norm.weight", large, EMBD));
    FAILS(PGRAD_E_NUMERIC, "rollout_score: sequence 0, token 0: the log-probability is",
          pgrad_rollout_score(rollout, l.model, PGRAD_CURRENT));
    ck_assert_ptr_null(pgrad_rollout_array(rollout, PGRAD_CURRENT, 0, NULL));
    FAILS(PGRAD_E_NUMERIC, "sequence 0, token 0: the log-probability is",
          pgrad_objective_backward(l.objective, rollout, NULL, 0, NULL, NULL));
    OK(pgrad_model_tensor_write(l.model, "model.norm.weight", norm, EMBD));
    pgrad_objective_params_init(&params, sizeof params);
    params.kl_beta = 1e300;
    OK(pgrad_objective_create(l.model, &params, &heavy));
    OK(pgrad_rollout_score(rollout, l.model, PGRAD_REFERENCE));
    OK(pgrad_rollout_set_array(rollout, PGRAD_OLD, 2, &far_off, 1));
    OK(pgrad_rollout_set_array(rollout, PGRAD_REFERENCE, 2, &far_off, 1)); /* as far as the ratio goes: e^20 */
    FAILS(PGRAD_E_NUMERIC, "sequence 2, token 0: the loss is not finite (advantage -1, log-probability -",
          pgrad_objective_backward(heavy, rollout, NULL, 0, NULL, NULL));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), ", old -800)"));
    pgrad_objective_free(heavy);
    pgrad_rollout_free(rollout);
    free_learner(&l);
}
END_TEST

START_TEST(op07_nothing_to_train)
{
    float value;
    size_t n = 7;
    pgrad_model *frozen = NULL;
    pgrad_objective *objective = NULL;
    pgrad_optimizer *optimizer = NULL;
    OK(pgrad_model_snapshot(w.model, &frozen));
    FAILS(PGRAD_E_STATE, "frozen", pgrad_objective_create(frozen, NULL, &objective));
    FAILS(PGRAD_E_STATE, "frozen", pgrad_optimizer_create(frozen, NULL, &optimizer));
    FAILS(PGRAD_E_STATE, "frozen", pgrad_model_zero_grad(frozen));
    FAILS(PGRAD_E_STATE, "a frozen model has no gradients",
          pgrad_model_grad_read(frozen, "model.norm.weight", &value, 1, &n));
    ck_assert_uint_eq(n, 7);
    ck_assert(objective == NULL && optimizer == NULL);
    pgrad_model_free(frozen);
}
END_TEST

START_TEST(op08_a_reference_of_another_vocabulary)
{
    const float rewards[4] = {0};
    pgrad_model *other = gpt2(280, 64);
    pgrad_rollout *rollout = make_rollout(&w, 2, 2, 4, 1);
    given(rollout, rewards);
    FAILS(PGRAD_E_MISMATCH, "280", pgrad_rollout_score(rollout, other, PGRAD_REFERENCE));
    ck_assert_ptr_null(pgrad_rollout_array(rollout, PGRAD_REFERENCE, 0, NULL));
    pgrad_rollout_free(rollout);
    pgrad_model_free(other);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("bad_input");
    TCase *tests = tcase_create("bad_input");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, pr02_empty_prompts);
    tcase_add_test(tests, pr04_prompts_around_the_context);
    tcase_add_test(tests, pr07_ids_outside_the_vocabulary);
    tcase_add_test(tests, pr09_nothing_to_do);
    tcase_add_test(tests, missing_arguments);
    tcase_add_test(tests, sequences_that_do_not_fit);
    tcase_add_test(tests, sp08_sizes_beyond_all_memory);
    tcase_add_test(tests, rw05_groups_of_one);
    tcase_add_test(tests, rw10_callbacks_come_one_by_one);
    tcase_add_test(tests, rw12_cancelled_meanwhile);
    tcase_add_test(tests, advantages_without_what_they_need);
    tcase_add_test(tests, models_that_do_not_fit);
    tcase_add_test(tests, lists_of_a_sampler_beyond_the_vocabulary);
    tcase_add_loop_test(tests, op05_no_advantage_at_all, 0, 2);
    tcase_add_test(tests, numbers_that_run_away);
    tcase_add_test(tests, op07_nothing_to_train);
    tcase_add_test(tests, op08_a_reference_of_another_vocabulary);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
