/* A training step of GPT-2 124M, 4 x 256 tokens, the head at every position: [train_step]; allocations of
 * a step after the first; the same with recomputed layers, [train_step_recompute], and what a pass holds
 * both ways, [train_activations]; with weights and moments in bf16, [train_step_bf16]; how far a run's predictions
 * of its steps are off, [step_predicted]. */
#include "gpt2.h"

enum { SEQUENCES = 4, TOKENS = 256, ROUNDS = 3, PREDICTED = 7 };

typedef struct errors {
    double off[PREDICTED];
    size_t n;
} errors;

static int32_t on_step(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    errors *e = user;
    (void)rollout;
    if (report->seconds_predicted > 0.0 && e->n < PREDICTED) {
        const double off = report->seconds_predicted / report->seconds - 1.0;
        e->off[e->n++] = off < 0.0 ? -off : off;
    }
    return 1;
}

static int32_t even(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                    pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++)
        pgrad_scores_data(scores)[i] =
            pgrad_rollout_tokens(rollout, first + i, NULL)[0] % 2 == 0 ? 1.0f : 0.0f;
    return (int32_t)count;
}

/* The median over the steps behind the third; to stay under 0.15. */
static void predicted_steps(pgrad_context *context, pgrad_model *model)
{
    pgrad_token ids[4][64];
    const pgrad_token *of_prompts[4];
    size_t n_ids[4];
    errors e = {.n = 0};
    pgrad_prompts prompts;
    pgrad_train_params params;
    pgrad_reward *reward;
    for (size_t k = 0; k < 4; k++) {
        n_ids[k] = 64 - 8 * k;
        of_prompts[k] = ids[k];
        for (size_t i = 0; i < 64; i++)
            ids[k][i] = (pgrad_token)((k * 7919 + i * 104729) % 50000);
    }
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = 4;
    prompts.ids = of_prompts;
    prompts.n_ids = n_ids;
    CHECK(pgrad_reward_create(context, "even", even, NULL, NULL, &reward));
    pgrad_train_params_init(&params, sizeof params);
    params.steps = 3 + PREDICTED;
    params.prompts_per_step = 2;
    params.group_size = 4;
    params.max_new_tokens = 16;
    params.report = on_step;
    params.report_user = &e;
    CHECK(pgrad_train(model, NULL, reward, &prompts, &params, NULL));
    bench_print(context, "step_predicted", bench_median(e.off, e.n), "relative error", 0.15);
    pgrad_reward_free(reward);
}

static uint64_t memory_now(pgrad_context *context)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    CHECK(pgrad_context_get_info(context, &info));
    return info.memory_now;
}

static double one_step(pgrad_model *model, pgrad_objective *objective, pgrad_optimizer *optimizer,
                       const pgrad_rollout *rollout)
{
    double started = bench_now();
    CHECK(pgrad_model_zero_grad(model));
    CHECK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, NULL));
    CHECK(pgrad_optimizer_step(optimizer, NULL));
    return bench_now() - started;
}

/* The same steps by an objective that recomputes; the model has its gradients. */
static void recompute(pgrad_context *context, pgrad_model *model, pgrad_optimizer *optimizer,
                      const pgrad_rollout *rollout)
{
    pgrad_objective_params params;
    pgrad_objective *objective;
    double times[ROUNDS];
    const uint64_t before = memory_now(context);
    pgrad_objective_params_init(&params, sizeof params);
    params.loss = PGRAD_LOSS_SUPERVISED;
    params.recompute = 1;
    CHECK(pgrad_objective_create(model, &params, &objective));
    (void)one_step(model, objective, optimizer, rollout);
    for (int round = 0; round < ROUNDS; round++)
        times[round] = one_step(model, objective, optimizer, rollout);
    const double work = 6.0 * GPT2_MATRIX_WEIGHTS * SEQUENCES * TOKENS;
    bench_print(context, "train_step_recompute", work / bench_median(times, ROUNDS) * 1e-9, "GFLOP/s",
                bench_peak());
    bench_print(context, "train_activations_recompute", (double)(memory_now(context) - before), "bytes", 0.0);
    pgrad_objective_free(objective);
}

static pgrad_rollout *make_sequences(pgrad_model *model)
{
    pgrad_rollout_params rollout_params;
    pgrad_rollout *rollout;
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 1;
    rollout_params.max_prompts = SEQUENCES;
    rollout_params.max_prompt_tokens = 1;
    rollout_params.max_new_tokens = TOKENS;
    rollout_params.batch_size = 1;
    CHECK(pgrad_rollout_create(model, NULL, &rollout_params, &rollout));
    for (int i = 0; i < SEQUENCES; i++) {
        pgrad_token ids[TOKENS + 1];
        uint32_t group;
        for (int t = 0; t <= TOKENS; t++)
            ids[t] = (pgrad_token)((i * 7919 + t * 104729) % 50000);
        CHECK(pgrad_rollout_add_prompt(rollout, ids, 1, NULL, &group));
        CHECK(pgrad_rollout_add_sequence(rollout, group, ids + 1, TOKENS, NULL));
    }
    return rollout;
}

/* Weights and moments in half the memory, the same products: widened in front of the micro-kernel, rounded
 * stochastically by the update. */
static void narrow_weights(pgrad_context *context)
{
    pgrad_model *model = gpt2_create_with(context, PGRAD_STORAGE_BF16, 0);
    pgrad_rollout *rollout = make_sequences(model);
    pgrad_objective_params params;
    pgrad_optimizer_params with;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    double times[ROUNDS];
    pgrad_objective_params_init(&params, sizeof params);
    params.loss = PGRAD_LOSS_SUPERVISED;
    pgrad_optimizer_params_init(&with, sizeof with);
    with.moments = PGRAD_MOMENTS_BF16;
    CHECK(pgrad_objective_create(model, &params, &objective));
    CHECK(pgrad_optimizer_create(model, &with, &optimizer));
    (void)one_step(model, objective, optimizer, rollout);
    for (int round = 0; round < ROUNDS; round++)
        times[round] = one_step(model, objective, optimizer, rollout);
    const double work = 6.0 * GPT2_MATRIX_WEIGHTS * SEQUENCES * TOKENS;
    bench_print(context, "train_step_bf16", work / bench_median(times, ROUNDS) * 1e-9, "GFLOP/s", bench_peak());
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad_model_free(model);
}

int main(void)
{
    pgrad_context *context = two_threads();
    pgrad_model *model = gpt2_create(context);
    pgrad_rollout *rollout = make_sequences(model);
    pgrad_objective_params objective_params;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    double times[ROUNDS];
    uint64_t allocations = 0;
    pgrad_objective_params_init(&objective_params, sizeof objective_params);
    objective_params.loss = PGRAD_LOSS_SUPERVISED;
    CHECK(pgrad_objective_create(model, &objective_params, &objective));
    CHECK(pgrad_optimizer_create(model, NULL, &optimizer));
    for (int round = -1; round < ROUNDS; round++) {
        pgrad_context_info before = {.struct_size = sizeof before}, after = before;
        CHECK(pgrad_context_get_info(context, &before));
        double seconds = one_step(model, objective, optimizer, rollout);
        if (round >= 0)
            times[round] = seconds;
        CHECK(pgrad_context_get_info(context, &after));
        allocations = after.n_allocations - before.n_allocations;
    }
    double seconds = bench_median(times, ROUNDS),
           work = 6.0 * GPT2_MATRIX_WEIGHTS * SEQUENCES * TOKENS;
    bench_print(context, "train_step", work / seconds * 1e-9, "GFLOP/s", bench_peak());
    bench_print(context, "train_step_speed", SEQUENCES * TOKENS / seconds, "tokens/s", 0.0);
    bench_print(context, "allocations_step", (double)allocations, "calls per step", 0.0);
    const uint64_t with = memory_now(context);
    pgrad_objective_free(objective);
    bench_print(context, "train_activations", (double)(with - memory_now(context)), "bytes", 0.0);
    recompute(context, model, optimizer, rollout);
    pgrad_optimizer_free(optimizer);
    pgrad_rollout_free(rollout);
    predicted_steps(context, model);
    pgrad_model_free(model);
    narrow_weights(context);
    pgrad_context_free(context);
    return 0;
}
