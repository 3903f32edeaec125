/* Opening the library's context, loading a real model, and a full AdamW step on it: [open], [load],
 * [step_rss]. usage: bench_load MODEL */
#include <sys/resource.h>

#include "bench.h"

enum { PROMPT = 64, NEW = 64, GROUP = 8 };

static int32_t score(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                     pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        size_t n;
        (void)pgrad_rollout_tokens(rollout, first + i, &n);
        pgrad_scores_data(scores)[i] = (float)((first + i) % 3);
    }
    return (int32_t)count;
}

static double resident_gb(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_maxrss * 1024.0 * 1e-9;
}

static void one_step(pgrad_context *context, pgrad_model *model)
{
    pgrad_rollout_params rollout_params;
    pgrad_sampler_params sampler_params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_reward *reward;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_token ids[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        ids[i] = 1000 + 37 * i;
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = GROUP;
    rollout_params.max_prompts = 1;
    rollout_params.max_prompt_tokens = PROMPT;
    rollout_params.max_new_tokens = NEW;
    CHECK(pgrad_rollout_create(model, NULL, &rollout_params, &rollout));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.ignore_eos = 1;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    CHECK(pgrad_reward_create(context, "thirds", score, NULL, NULL, &reward));
    CHECK(pgrad_advantage_create(context, NULL, &advantage));
    CHECK(pgrad_objective_create(model, NULL, &objective));
    CHECK(pgrad_optimizer_create(model, NULL, &optimizer));
    for (int step = 0; step < 2; step++) {
        double started = bench_now();
        pgrad_rollout_clear(rollout);
        CHECK(pgrad_rollout_add_prompt(rollout, ids, PROMPT, NULL, NULL));
        CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
        CHECK(pgrad_reward_apply(reward, rollout));
        CHECK(pgrad_advantage_apply(advantage, rollout));
        CHECK(pgrad_model_zero_grad(model));
        CHECK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, NULL));
        CHECK(pgrad_optimizer_step(optimizer, NULL));
        if (step == 1)
            bench_print(context, "step_seconds", bench_now() - started, "s", 0.0);
    }
    bench_print(context, "step_rss", resident_gb(), "GB", 4.0);
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_advantage_free(advantage);
    pgrad_reward_free(reward);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
}

int main(int argc, char **argv)
{
    pgrad_context *context;
    pgrad_context_params params;
    pgrad_model *model;
    double started = bench_now();
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    CHECK(pgrad_context_create(&params, &context));
    bench_print(context, "open_context", (bench_now() - started) * 1e3, "ms", 0.0);
    if (argc < 2)
        return 0;
    double times[3];
    for (int i = 0; i < 3; i++) {
        started = bench_now();
        CHECK(pgrad_model_load(context, argv[1], NULL, &model));
        times[i] = bench_now() - started;
        if (i < 2)
            pgrad_model_free(model);
    }
    bench_print(context, "load", bench_median(times, 3), "s", 2.0);
    one_step(context, model);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
