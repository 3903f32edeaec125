/* A GRPO step of a real model, 2 prompts of 128 tokens x 8 completions of 64, with activations kept from generate to
 * the backward pass and without, in turns: [kept_generate], [kept_backward], [kept_step], each in times of the same
 * without, and [kept_token]. usage: bench_kept MODEL */
#include "bench.h"

enum { PROMPTS = 2, GROUP = 8, PROMPT = 128, NEW = 64, ROUNDS = 5, GENERATE = 0, BACKWARD = 1, STEP = 2, PARTS = 3 };

typedef struct side {
    pgrad_rollout *rollout;
    double times[PARTS][ROUNDS];
} side;

static pgrad_rollout *make_rollout(pgrad_model *model, uint32_t keep)
{
    pgrad_rollout_params params;
    pgrad_rollout *rollout;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = GROUP;
    params.max_prompts = PROMPTS;
    params.max_prompt_tokens = PROMPT;
    params.max_new_tokens = NEW;
    params.keep_activations = keep;
    CHECK(pgrad_rollout_create(model, NULL, &params, &rollout));
    return rollout;
}

static void step(side *s, pgrad_sampler *sampler, pgrad_objective *objective, pgrad_optimizer *optimizer,
                 pgrad_model *model, int round)
{
    pgrad_token ids[PROMPT];
    pgrad_rollout_clear(s->rollout);
    for (int k = 0; k < PROMPTS; k++) {
        for (int i = 0; i < PROMPT; i++)
            ids[i] = (k * 7919 + i * 104729 + round + 1) % 40000;
        CHECK(pgrad_rollout_add_prompt(s->rollout, ids, PROMPT, NULL, NULL));
    }
    const double started = bench_now();
    CHECK(pgrad_rollout_generate(s->rollout, sampler, NULL));
    const double generated = bench_now();
    for (uint32_t i = 0; i < PROMPTS * GROUP; i++) {
        const float advantage = i % 2 == 0 ? 1.0f : -1.0f;
        CHECK(pgrad_rollout_set_array(s->rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
    }
    CHECK(pgrad_model_zero_grad(model));
    const double judged = bench_now();
    CHECK(pgrad_objective_backward(objective, s->rollout, NULL, 0, NULL, NULL));
    const double learned = bench_now();
    CHECK(pgrad_optimizer_step(optimizer, NULL));
    if (round < 0)
        return;
    s->times[GENERATE][round] = generated - started;
    s->times[BACKWARD][round] = learned - judged;
    s->times[STEP][round] = bench_now() - started;
}

int main(int argc, char **argv)
{
    static const char *const names[PARTS] = {"kept_generate", "kept_backward", "kept_step"};
    pgrad_context *context = NULL;
    pgrad_context_params params;
    pgrad_model *model;
    pgrad_sampler_params sampler_params;
    pgrad_sampler *sampler;
    pgrad_objective *objective;
    pgrad_optimizer_params optimizer_params;
    pgrad_optimizer *optimizer;
    if (argc < 2)
        return 1;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    CHECK(pgrad_context_create(&params, &context));
    CHECK(pgrad_model_load(context, argv[1], NULL, &model));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.ignore_eos = 1;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    CHECK(pgrad_objective_create(model, NULL, &objective));
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.learning_rate = 1e-7;
    CHECK(pgrad_optimizer_create(model, &optimizer_params, &optimizer));
    static side sides[2];
    for (uint32_t keep = 0; keep < 2; keep++)
        sides[keep].rollout = make_rollout(model, keep == 0 ? PGRAD_KEEP_OFF : PGRAD_KEEP_ON);
    for (int round = -1; round < ROUNDS; round++)
        for (int keep = 0; keep < 2; keep++)
            step(&sides[keep], sampler, objective, optimizer, model, round);
    for (int part = 0; part < PARTS; part++) {
        const double without = bench_median(sides[0].times[part], ROUNDS);
        bench_print(context, names[part], without / bench_median(sides[1].times[part], ROUNDS), "times without", 0.0);
    }
    pgrad_rollout_info info = {.struct_size = sizeof info};
    CHECK(pgrad_rollout_get_info(sides[1].rollout, &info));
    bench_print(context, "kept_token", 1e-6 * (double)info.activation_bytes / (PROMPTS * (PROMPT + GROUP * (NEW - 1))),
                "MB", 0.0);
    for (int keep = 0; keep < 2; keep++)
        pgrad_rollout_free(sides[keep].rollout);
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_sampler_free(sampler);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
