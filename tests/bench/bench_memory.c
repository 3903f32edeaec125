/* A step of a real model on 8 completions of 64 tokens behind a prompt of 64, in one of the ways that trade
 * memory: [step_rss_MODE], [step_seconds_MODE], [step_memory_MODE], and [estimate_MODE], what was said before that the
 * step would hold, in times of what it held. With the default also [attention_scratch_N], what attention's way back
 * through one sequence of N tokens asks for. usage: bench_memory MODEL MODE, MODE one of default, recompute,
 * in_backward, both */
#include <math.h>
#include <sys/resource.h>

#include "bench.h"
#include "model/pass.h"

enum { PROMPT = 64, NEW = 64, GROUP = 8, ROUNDS = 3 };

static void print(pgrad_context *context, const char *what, const char *mode, double value, const char *unit)
{
    char name[64];
    snprintf(name, sizeof name, "%s_%s", what, mode);
    bench_print(context, name, value, unit, 0.0);
}

static pgrad_rollout_params rollout_params(void)
{
    pgrad_rollout_params params;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = GROUP;
    params.max_prompts = 1;
    params.max_prompt_tokens = PROMPT;
    params.max_new_tokens = NEW;
    params.batch_size = 1;
    params.keep_activations = PGRAD_KEEP_OFF; /* its completions are not sampled */
    return params;
}

static pgrad_rollout *make_rollout(pgrad_model *model)
{
    const pgrad_rollout_params params = rollout_params();
    pgrad_rollout *rollout;
    pgrad_token ids[PROMPT + NEW];
    CHECK(pgrad_rollout_create(model, NULL, &params, &rollout));
    for (int i = 0; i < PROMPT; i++)
        ids[i] = 1000 + 37 * i;
    CHECK(pgrad_rollout_add_prompt(rollout, ids, PROMPT, NULL, NULL));
    for (uint32_t k = 0; k < GROUP; k++) {
        float advantage = k % 2 == 0 ? 1.0f : -1.0f;
        for (uint32_t t = 0; t < NEW; t++)
            ids[t] = (pgrad_token)(500 + 131 * k + 17 * t);
        CHECK(pgrad_rollout_add_sequence(rollout, 0, ids, NEW, NULL));
        CHECK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, k, &advantage, 1));
    }
    return rollout;
}

/* Of a step that also scores, which here the policy itself does for PGRAD_OLD: without the snapshot of a reference. */
static double estimated_bytes(pgrad_model *model, const pgrad_objective_params *objective,
                              const pgrad_optimizer_params *optimizer, int in_backward)
{
    const pgrad_rollout_params rollout = rollout_params();
    pgrad_plan_params plan;
    pgrad_memory_report report = {.struct_size = sizeof report};
    pgrad_plan_params_init(&plan, sizeof plan);
    plan.rollout = &rollout;
    plan.objective = objective;
    plan.optimizer = optimizer;
    plan.in_backward = (uint32_t)in_backward;
    plan.reference = 1;
    CHECK(pgrad_model_estimate(model, &plan, &report));
    return (double)(report.total - report.reference);
}

static void print_scratch(pgrad_context *context, const pgrad_model *model)
{
    const pgrad__machine machine = pgrad__machine_of(context);
    const pgrad__attention_shape shape = pgrad__layer_attention(&model->config, 0);
    for (uint32_t n = 1024; n <= 8192; n *= 8) {
        const pgrad__attention_sequence sequence = {0, n, 0};
        char name[64];
        snprintf(name, sizeof name, "attention_scratch_%u", n);
        bench_print(context, name, 4e-6 * (double)pgrad__attention_backward_scratch(&machine, &shape, &sequence, 1), "MB",
                    0.0);
    }
}

int main(int argc, char **argv)
{
    if (argc < 3)
        return 1;
    const int both = strcmp(argv[2], "both") == 0;
    const int in_backward = both || strcmp(argv[2], "in_backward") == 0;
    pgrad_context *context;
    pgrad_context_params context_params;
    pgrad_model *model;
    pgrad_objective_params objective_params;
    pgrad_optimizer_params optimizer_params;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_backward_params how;
    double times[ROUNDS];
    pgrad_context_params_init(&context_params, sizeof context_params);
    context_params.n_threads = 2;
    CHECK(pgrad_context_create(&context_params, &context));
    CHECK(pgrad_model_load(context, argv[1], NULL, &model));
    pgrad_objective_params_init(&objective_params, sizeof objective_params);
    objective_params.recompute = both || strcmp(argv[2], "recompute") == 0;
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.max_grad_norm = INFINITY;
    const double estimated = estimated_bytes(model, &objective_params, &optimizer_params, in_backward);
    pgrad_rollout *rollout = make_rollout(model);
    CHECK(pgrad_rollout_score(rollout, model, PGRAD_OLD));
    CHECK(pgrad_objective_create(model, &objective_params, &objective));
    CHECK(pgrad_optimizer_create(model, &optimizer_params, &optimizer));
    pgrad_backward_params_init(&how, sizeof how);
    if (in_backward)
        how.optimizer = optimizer;
    for (int round = -1; round < ROUNDS; round++) {
        double started = bench_now();
        CHECK(pgrad_model_zero_grad(model));
        CHECK(pgrad_objective_backward(objective, rollout, NULL, 0, &how, NULL));
        if (!in_backward)
            CHECK(pgrad_optimizer_step(optimizer, NULL));
        if (round >= 0)
            times[round] = bench_now() - started;
    }
    struct rusage usage;
    pgrad_context_info info = {.struct_size = sizeof info};
    getrusage(RUSAGE_SELF, &usage);
    CHECK(pgrad_context_get_info(context, &info));
    print(context, "step_rss", argv[2], (double)usage.ru_maxrss * 1024.0 * 1e-9, "GB");
    print(context, "step_memory", argv[2], (double)info.memory_now * 1e-9, "GB");
    print(context, "estimate", argv[2], estimated / (double)info.memory_now, "times used");
    print(context, "step_seconds", argv[2], bench_median(times, ROUNDS), "s");
    if (strcmp(argv[2], "default") == 0)
        print_scratch(context, model);
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
