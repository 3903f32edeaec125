/* Head and loss of a training step over vocabularies of 32k to 1M, model width 576: time of a target row, and
 * bytes of the step beside the model: [head_step_V], [head_scratch_V]. A model of one small layer is
 * trained on one sequence; all but the head is less than a hundredth of the work. */
#include "bench.h"

enum { TOKENS = 512, ROUNDS = 3 };

static uint64_t memory_now(pgrad_context *context)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    CHECK(pgrad_context_get_info(context, &info));
    return info.memory_now;
}

static void measure(pgrad_context *context, unsigned vocab)
{
    char config[512], name[64];
    pgrad_model *model;
    pgrad_rollout *rollout;
    pgrad_objective *objective;
    pgrad_rollout_params rollout_params;
    pgrad_objective_params params;
    pgrad_token ids[TOKENS + 1];
    double times[ROUNDS];
    snprintf(config, sizeof config,
             "{\"model_type\":\"llama\",\"vocab_size\":%u,\"hidden_size\":576,\"intermediate_size\":64,"
             "\"num_hidden_layers\":1,\"num_attention_heads\":1,\"num_key_value_heads\":1,\"head_dim\":64,"
             "\"max_position_embeddings\":1024,\"rms_norm_eps\":1e-5,\"tie_word_embeddings\":true}",
             vocab);
    CHECK(pgrad_model_create(context, config, 1, NULL, &model));
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 1;
    rollout_params.max_prompts = 1;
    rollout_params.max_prompt_tokens = 1;
    rollout_params.max_new_tokens = TOKENS;
    rollout_params.batch_size = 1;
    CHECK(pgrad_rollout_create(model, NULL, &rollout_params, &rollout));
    for (int t = 0; t <= TOKENS; t++)
        ids[t] = (pgrad_token)(t * 104729 % 32000);
    CHECK(pgrad_rollout_add_prompt(rollout, ids, 1, NULL, NULL));
    CHECK(pgrad_rollout_add_sequence(rollout, 0, ids + 1, TOKENS, NULL));
    pgrad_objective_params_init(&params, sizeof params);
    params.loss = PGRAD_LOSS_SUPERVISED;
    CHECK(pgrad_objective_create(model, &params, &objective));
    const uint64_t before = memory_now(context);
    for (int round = -1; round < ROUNDS; round++) {
        double started = bench_now();
        CHECK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, NULL));
        if (round >= 0)
            times[round] = bench_now() - started;
    }
    const double gradients = 4.0 * 576 * vocab;
    const double seconds = bench_median(times, ROUNDS) / TOKENS;
    snprintf(name, sizeof name, "head_step_%u", vocab);
    bench_print(context, name, seconds, "s per token", 0.0);
    snprintf(name, sizeof name, "head_rate_%u", vocab);
    bench_print(context, name, 6.0 * 576 * vocab / seconds * 1e-9, "GFLOP/s", bench_peak());
    snprintf(name, sizeof name, "head_scratch_%u", vocab);
    bench_print(context, name, (double)(memory_now(context) - before) - gradients, "bytes", 0.0);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad_model_free(model);
}

int main(void)
{
    static const unsigned vocabularies[] = {32768, 131072, 262144, 1048576};
    pgrad_context *context;
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    CHECK(pgrad_context_create(&params, &context));
    for (size_t i = 0; i < sizeof vocabularies / sizeof vocabularies[0]; i++)
        measure(context, vocabularies[i]);
    pgrad_context_free(context);
    return 0;
}
