/* A training step of GPT-2 124M, 4 x 256 tokens, the head at every position: [train_step]; allocations of
 * a step after the first; the same with recomputed layers, [train_step_recompute], and what a pass holds
 * both ways, [train_activations]. */
#include "gpt2.h"

enum { SEQUENCES = 4, TOKENS = 256, ROUNDS = 3 };

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

int main(void)
{
    pgrad_context *context = two_threads();
    pgrad_model *model = gpt2_create(context);
    pgrad_rollout_params rollout_params;
    pgrad_objective_params objective_params;
    pgrad_rollout *rollout;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    double times[ROUNDS];
    uint64_t allocations = 0;
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
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
