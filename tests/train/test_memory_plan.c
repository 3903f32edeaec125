/* A run under a limit of memory: planned to fit, with the same bits, or refused. */
#include "train_test.h"

typedef struct steps {
    double micro_batch_tokens, recompute, n_micro_batches;
} steps;

static int32_t remember(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    steps *said = user;
    (void)rollout;
    said->micro_batch_tokens = report->micro_batch_tokens;
    said->recompute = report->recompute;
    said->n_micro_batches = report->n_micro_batches;
    return 1;
}

static const char WIDE[] = "{\"model_type\":\"gpt2\",\"vocab_size\":300,\"n_positions\":256,\"n_embd\":64,"
                           "\"n_layer\":6,\"n_head\":4,\"activation_function\":\"gelu_new\"}";

static setting make_wide(uint32_t n_threads, uint64_t memory_limit)
{
    setting s;
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = n_threads;
    params.memory_limit = memory_limit;
    ck_assert_int_eq(pgrad_context_create(&params, &s.context), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_create(s.context, WIDE, 5, NULL, &s.model), PGRAD_OK);
    ck_assert_int_eq(pgrad_reward_create(s.context, "low", low_ids, NULL, NULL, &s.reward), PGRAD_OK);
    pgrad_train_params_init(&s.params, sizeof s.params);
    ck_assert_uint_eq(s.params.recompute, PGRAD_RECOMPUTE_AUTO);
    s.params.steps = 2;
    s.params.prompts_per_step = 3;
    s.params.group_size = 8;
    s.params.max_new_tokens = 60;
    return s;
}

static uint64_t peak(const setting *s)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    ck_assert_int_eq(pgrad_context_get_info(s->context, &info), PGRAD_OK);
    return info.memory_peak;
}

static const char *last_plan;
static char plan_line[512];

static void keep_plan(void *user, int32_t level, const char *line)
{
    (void)user;
    if (level == PGRAD_LOG_INFO && strstr(line, "are planned") != NULL)
        last_plan = strcpy(plan_line, line);
}

/* A limit below what the defaults take: smaller micro-batches or recomputed layers, told in report and log; the
 * same bits whatever the threads; evaluation counts; the host's objective is as it was afterwards. */
START_TEST(a_memory_limit_plans_the_run)
{
    steps plain, said[2];
    float weights[2][64];
    size_t n;
    setting s = make_wide(2, 0);
    pgrad_prompts held_out = make_prompts(PROMPTS);
    s.params.report = remember;
    s.params.report_user = &plain;
    s.params.eval_prompts = &held_out;
    const pgrad_train_report whole = run(&s, PGRAD_OK);
    ck_assert_double_eq_tol((double)whole.memory_planned / (double)peak(&s), 1.0, 0.05);
    ck_assert_double_eq(plain.micro_batch_tokens, 2048.0);
    ck_assert_double_eq(plain.recompute, 0.0);
    drop(&s);
    const uint64_t limit = whole.memory_planned * 8 / 10;
    for (uint32_t i = 0; i < 2; i++) {
        s = make_wide(i == 0 ? 1 : 3, limit);
        pgrad_objective *objective = NULL;
        ck_assert_int_eq(pgrad_objective_create(s.model, NULL, &objective), PGRAD_OK);
        last_plan = NULL;
        pgrad_context_set_log(s.context, keep_plan, NULL, PGRAD_LOG_INFO);
        s.params.report = remember;
        s.params.report_user = &said[i];
        s.params.eval_prompts = &held_out;
        s.params.objective = i == 0 ? objective : NULL;
        const pgrad_train_report report = run(&s, PGRAD_OK);
        ck_assert_uint_le(report.memory_planned, limit);
        ck_assert_uint_le(peak(&s), limit);
        ck_assert_uint_lt(objective == NULL ? 0 : peak(&s), limit);
        ck_assert_ptr_nonnull(last_plan);
        ck_assert(said[i].n_micro_batches > plain.n_micro_batches || said[i].recompute == 1.0);
        ck_assert_int_eq(pgrad_model_tensor_read(s.model, "transformer.ln_f.weight", weights[i], 64, &n), PGRAD_OK);
        pgrad_objective_free(objective);
        drop(&s);
    }
    ck_assert_mem_eq(&said[0], &said[1], sizeof said[0]);
    ck_assert_mem_eq(weights[0], weights[1], sizeof weights[0]);
}
END_TEST

START_TEST(a_memory_limit_that_nothing_fits_under)
{
    setting s = make_wide(2, 0);
    const uint64_t planned = run(&s, PGRAD_OK).memory_planned;
    drop(&s);
    pgrad_prompts prompts = make_prompts(PROMPTS);
    pgrad_train_report refused = {.struct_size = sizeof refused};
    for (uint64_t percent = 60;; percent -= 3) { /* down to where the leanest plan is too large */
        s = make_wide(2, planned * percent / 100);
        s.params.steps = 1;
        if (pgrad_train(s.model, NULL, s.reward, &prompts, &s.params, &refused) == PGRAD_E_LIMIT)
            break;
        drop(&s);
    }
    ck_assert_uint_eq(refused.stopped, PGRAD_STOPPED_ERROR);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "memory_limit: "));
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "optimizer.moments AUTO would fit"));
    s.params.moments = PGRAD_MOMENTS_AUTO;
    s.params.kv_storage = PGRAD_KV_AUTO;
    (void)run(&s, PGRAD_OK);
    drop(&s);
}
END_TEST

/* ---- what is cheapest ---- */

/* The shape of SmolLM2-135M: nothing of an estimate takes its memory. */
static const char SMOLLM2[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":576,"
    "\"intermediate_size\":1536,\"num_hidden_layers\":30,\"num_attention_heads\":9,\"num_key_value_heads\":3,"
    "\"max_position_embeddings\":8192,\"vocab_size\":49152,\"rms_norm_eps\":1e-5,\"rope_theta\":100000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true}";

/* 4 prompts x 8 completions of 64. */
static pgrad_memory_report estimate_of(pgrad_context *context, uint32_t prompt, uint64_t limit, uint32_t batch_size,
                                       uint32_t micro, uint32_t recompute)
{
    pgrad_rollout_params rollout;
    pgrad_objective_params objective;
    pgrad_optimizer_params optimizer;
    pgrad_plan_params plan;
    pgrad_memory_report report = {.struct_size = sizeof report};
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    pgrad_objective_params_init(&objective, sizeof objective);
    pgrad_optimizer_params_init(&optimizer, sizeof optimizer);
    pgrad_plan_params_init(&plan, sizeof plan);
    rollout.group_size = 8;
    rollout.max_prompts = 4;
    rollout.max_prompt_tokens = prompt;
    rollout.max_new_tokens = 64;
    rollout.batch_size = batch_size;
    rollout.keep_activations = PGRAD_KEEP_OFF;
    objective.micro_batch_tokens = micro;
    objective.recompute = recompute;
    plan.rollout = &rollout;
    plan.objective = &objective;
    plan.optimizer = &optimizer;
    plan.memory_limit = limit;
    ck_assert_int_eq(pgrad_model_estimate_create(context, SMOLLM2, NULL, &plan, &report), PGRAD_OK);
    return report;
}

static pgrad_memory_report estimate(pgrad_context *context, uint64_t limit, uint32_t batch_size, uint32_t micro,
                                    uint32_t recompute)
{
    return estimate_of(context, 128, limit, batch_size, micro, recompute);
}

/* Micro-batches of 256 tokens compute each prompt four times. Decoding half of the sequences at once takes no more
 * memory with micro-batches of 1024, and is paid by far for what that saves. */
START_TEST(fewer_sequences_at_once_rather_than_prompts_again_and_again)
{
    pgrad_context_params params;
    pgrad_context *context;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    ck_assert_int_eq(pgrad_context_create(&params, &context), PGRAD_OK);
    const pgrad_memory_report all = estimate(context, 0, 32, 256, PGRAD_RECOMPUTE_ON),
                              half = estimate(context, 0, 16, 1024, PGRAD_RECOMPUTE_ON);
    const uint64_t limit = 2500ull << 20;
    ck_assert_uint_eq(all.n_micro_batches, 16);
    ck_assert_uint_lt(all.total, limit);
    ck_assert_uint_lt(half.total, limit);
    const pgrad_memory_report chosen = estimate(context, limit, 0, 0, PGRAD_RECOMPUTE_AUTO);
    ck_assert_uint_lt(chosen.batch_size, 32);
    ck_assert_uint_le(chosen.n_micro_batches, half.n_micro_batches);
    ck_assert_uint_le(chosen.total, limit);
    /* Where decoding alone is to be paid for, all sequences have their slots. */
    const pgrad_memory_report roomy = estimate(context, 4000ull << 20, 0, 0, PGRAD_RECOMPUTE_AUTO);
    ck_assert_uint_ge(roomy.batch_size, 32);
    ck_assert_uint_eq(roomy.recompute, PGRAD_RECOMPUTE_OFF);
    pgrad_context_free(context);
}
END_TEST

/* A prompt counts for half of a micro-batch at most: one of 512 tokens, in micro-batches of 512, is computed with four
 * completions of 64 at a time, and one of 4,096 in the default's 2,048 with all eight. */
START_TEST(a_long_prompt_is_not_computed_for_each_completion)
{
    static const struct {
        uint32_t prompt, micro, n_micro_batches;
    } cases[] = {{512, 512, 8}, {512, 0, 2}, {4096, 0, 4}, {256, 512, 8}, {255, 512, 8}, {64, 512, 5}};
    pgrad_context *context;
    ck_assert_int_eq(pgrad_context_create(NULL, &context), PGRAD_OK);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const pgrad_memory_report report =
            estimate_of(context, cases[i].prompt, 0, 32, cases[i].micro, PGRAD_RECOMPUTE_OFF);
        ck_assert_uint_eq(report.n_micro_batches, cases[i].n_micro_batches);
    }
    pgrad_context_free(context);
}
END_TEST

static void add(TCase *cases)
{
    tcase_add_test(cases, a_memory_limit_plans_the_run);
    tcase_add_test(cases, a_memory_limit_that_nothing_fits_under);
    tcase_add_test(cases, a_long_prompt_is_not_computed_for_each_completion);
    tcase_add_test(cases, fewer_sequences_at_once_rather_than_prompts_again_and_again);
}

int main(void)
{
    return run_case("memory_plan", NULL, NULL, 120, add);
}
