/* Runs that make no sense are refused before anything is sampled, and the message names the option, the prompt or
 * the handle. */
#include "train_test.h"

/* OP06: more prompts a step than there are, and other runs that make no sense. */
START_TEST(bad_runs_are_refused)
{
    setting s = make(1);
    const size_t before = n_scored;
    const pgrad_prompts some = make_prompts(PROMPTS);
    const struct {
        pgrad_model *model;
        pgrad_reward *reward;
        const pgrad_prompts *prompts;
        const char *text;
    } missing[] = {{NULL, s.reward, &some, "train: model is NULL"},
                   {s.model, NULL, &some, "train: reward is NULL"},
                   {s.model, s.reward, NULL, "train: prompts is NULL"}};
    for (int k = 0; k < 3; k++) {
        ck_assert_int_eq(pgrad_train(missing[k].model, NULL, missing[k].reward, missing[k].prompts, &s.params, NULL),
                         PGRAD_E_INVALID);
        ck_assert_str_eq(pgrad_error_message(), missing[k].text);
    }
    pgrad_objective_params params;
    pgrad_objective *objective;
    s.params.prompts_per_step = PROMPTS + 1;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "prompts_per_step"));
    s.params.prompts_per_step = 2;
    pgrad_objective_params_init(&params, sizeof params);
    params.kl_beta = 0.1;
    ck_assert_int_eq(pgrad_objective_create(s.model, &params, &objective), PGRAD_OK);
    s.params.objective = objective;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "reference"));
    pgrad_objective_free(objective);
    pgrad_objective_params_init(&params, sizeof params);
    params.loss = PGRAD_LOSS_REINFORCE;
    ck_assert_int_eq(pgrad_objective_create(s.model, &params, &objective), PGRAD_OK);
    s.params.objective = objective;
    s.params.epochs_per_step = 2;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.epochs_per_step: 2 updates per rollout need the PPO_CLIP"));
    pgrad_objective_free(objective);
    s.params.epochs_per_step = 1;
    s.params.objective = NULL;
    s.params.resume = 1;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.resume: there is no checkpoint_path"));
    s.params.resume = 0;
    s.params.metrics_path = "/nonexistent/metrics";
    (void)run(&s, PGRAD_E_IO);
    s.params.metrics_path = NULL;
    static const char *const nowhere[] = {"/nonexistent/run.pgrad", ""};
    for (int k = 0; k < 2; k++) {
        s.params.checkpoint_path = nowhere[k];
        (void)run(&s, k == 0 ? PGRAD_E_IO : PGRAD_E_INVALID);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), k == 0 ? "/nonexistent/run.pgrad" : "train.checkpoint_path"));
    }
    s.params.checkpoint_path = NULL;
    s.params.save_path = "";
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.save_path"));
    s.params.save_path = NULL;
    s.params.group_size = 1;
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "groups of at least 2"));
    s.params.group_size = 4;
    pgrad_sampler_params greedy;
    pgrad_sampler_params_init(&greedy, sizeof greedy);
    greedy.temperature = 0.0;
    ck_assert_int_eq(pgrad_sampler_create(s.context, &greedy, &s.params.sampler), PGRAD_OK);
    (void)run(&s, PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.sampler: expected a temperature above 0, found 0"));
    pgrad_sampler_free(s.params.sampler);
    ck_assert_uint_eq(n_scored, before); /* all that before anything is sampled */
    drop(&s);
}
END_TEST

/* Bad prompts are told before anything is sampled, by their index. */
START_TEST(bad_prompts_are_named)
{
    setting s = make(1);
    pgrad_train_report report = {.struct_size = sizeof report};
    static const char *const names[] = {"answer"};
    const char *const *columns[] = {NULL};
    const char *const texts[] = {"a"};
    pgrad_token many[64] = {0}, outside[2] = {1, 24};
    for (int k = 0; k < 13; k++) {
        static const char *const expected[] = {"prompts.n:",      "exactly one of", "exactly one of",
                                               "prompts.n_ids",   "needs a tokenizer", "prompts.ids[2] is NULL",
                                               "prompts.ids[1] is empty", "prompts.ids[1]: 64 tokens",
                                               "prompts.ids[3][1]: expected an id below 24, found 24",
                                               "prompts.columns[0] is NULL",
                                               "prompts.chat: needs texts, found ids",
                                               "prompts.chat: expected 0 or 1, found 7",
                                               "prompts.system: needs chat = 1"};
        pgrad_prompts prompts = make_prompts(PROMPTS);
        if (k == 0)
            prompts.n = 0;
        if (k == 1)
            prompts.ids = NULL;
        if (k == 2)
            prompts.texts = texts;
        if (k == 3)
            prompts.n_ids = NULL;
        if (k == 4) {
            prompts.ids = NULL;
            prompts.texts = texts;
        }
        if (k == 5)
            pointers[2] = NULL;
        if (k == 6)
            lengths[1] = 0;
        if (k == 7) {
            pointers[1] = many;
            lengths[1] = 64;
        }
        if (k == 8) {
            pointers[3] = outside;
            lengths[3] = 2;
        }
        if (k == 9) {
            prompts.n_columns = 1;
            prompts.column_names = names;
            prompts.columns = columns;
        }
        if (k == 10 || k == 11)
            prompts.chat = k == 10 ? 1 : 7;
        if (k == 12)
            prompts.system = "be brief";
        pgrad_status status = pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report);
        ck_assert_msg(status == PGRAD_E_INVALID || status == PGRAD_E_LIMIT, "%d: %d", k, status);
        ck_assert_msg(strstr(pgrad_error_message(), expected[k]) != NULL, "%d: %s", k, pgrad_error_message());
        ck_assert_uint_eq(report.steps, 0);
    }
    pgrad_prompts prompts = make_prompts(PROMPTS);
    lengths[1] = SIZE_MAX; /* never added up */
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_E_LIMIT);
    prompts = make_prompts(PROMPTS);
    prompts.struct_size = 8;
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_E_INVALID);
    prompts = make_prompts(PROMPTS);
    prompts.struct_size = offsetof(pgrad_prompts, chat); /* an older, shorter struct */
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_OK);
    pgrad_prompts held_out = make_prompts(2);
    lengths[1] = 0;
    s.params.eval_prompts = &held_out;
    prompts = make_prompts(PROMPTS);
    lengths[1] = 0;
    prompts.n = 1; /* the training prompt is fine, the held-out one is not */
    s.params.prompts_per_step = 1;
    ck_assert_int_eq(pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &report), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "eval_prompts: prompts.ids[1] is empty"));
    drop(&s);
}
END_TEST

START_TEST(handles_of_another_model_are_refused)
{
    setting s = make(1), other = make(1);
    pgrad_optimizer *optimizer;
    pgrad_objective *objective;
    pgrad_sampler *sampler;
    ck_assert_int_eq(pgrad_optimizer_create(other.model, NULL, &optimizer), PGRAD_OK);
    ck_assert_int_eq(pgrad_objective_create(other.model, NULL, &objective), PGRAD_OK);
    ck_assert_int_eq(pgrad_sampler_create(other.context, NULL, &sampler), PGRAD_OK);
    s.params.optimizer = optimizer;
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.optimizer"));
    s.params.optimizer = NULL;
    s.params.objective = objective;
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.objective"));
    s.params.objective = NULL;
    s.params.sampler = sampler;
    (void)run(&s, PGRAD_E_MISMATCH);
    s.params.sampler = NULL;
    /* What scoring would refuse is refused before a step. */
    static const char *const unfit[2][2] = {{"\"vocab_size\":25", "expected 24 tokens, found 25"},
                                            {"\"n_positions\":8", "expected a context of 9 positions, found 8"}};
    pgrad_objective_params with_kl;
    pgrad_objective_free(objective);
    pgrad_objective_params_init(&with_kl, sizeof with_kl);
    with_kl.kl_beta = 0.1;
    ck_assert_int_eq(pgrad_objective_create(s.model, &with_kl, &objective), PGRAD_OK);
    s.params.objective = objective;
    s.params.reference = other.model;
    (void)run(&s, PGRAD_E_MISMATCH);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "train.reference: it belongs to another context"));
    for (int i = 0; i < 2; i++) {
        char config[400];
        snprintf(config, sizeof config, "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":32,\"n_embd\":16,"
                                        "\"n_layer\":1,\"n_head\":2,\"activation_function\":\"gelu_new\",%s}", "\"x\":0");
        char *at = strstr(config, i == 0 ? "\"vocab_size\":24" : "\"n_positions\":32");
        memcpy(at, unfit[i][0], strlen(unfit[i][0]));
        if (i == 1)
            at[strlen(unfit[i][0])] = ' ';
        ck_assert_int_eq(pgrad_model_create(s.context, config, 1, NULL, &s.params.reference), PGRAD_OK);
        (void)run(&s, PGRAD_E_MISMATCH);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), unfit[i][1]));
        pgrad_model_free(s.params.reference);
    }
    pgrad_sampler_free(sampler);
    pgrad_objective_free(objective);
    pgrad_optimizer_free(optimizer);
    drop(&other);
    drop(&s);
}
END_TEST

static void add(TCase *cases)
{
    tcase_add_test(cases, bad_runs_are_refused);
    tcase_add_test(cases, bad_prompts_are_named);
    tcase_add_test(cases, handles_of_another_model_are_refused);
}

int main(void)
{
    return run_case("bad_runs", NULL, NULL, 120, add);
}
