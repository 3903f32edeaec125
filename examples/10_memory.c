/* What a run will take, told before anything is loaded, and what is chosen to fit under a limit.
 *
 * usage: 10_memory [MODEL [LIMIT_IN_MIB]]      without a limit: two thirds of what it takes with
 * the defaults */
#include "common.h"

static double mib(uint64_t bytes)
{
    return (double)bytes / (1 << 20);
}

static void show(const char *what, const pgrad_memory_report *needed)
{
    printf("%s: %.2f MiB\n", what, mib(needed->total));
    printf("  weights %.2f, gradients %.2f, moments %.2f, activations %.2f\n", mib(needed->weights),
           mib(needed->gradients), mib(needed->moments), mib(needed->activations));
    printf("  key-value cache %.2f, scratch %.2f, rollout %.2f, other %.2f\n",
           mib(needed->kv_cache), mib(needed->scratch), mib(needed->rollout), mib(needed->other));
    printf("  batch_size %u, micro_batch_tokens %u, recompute %u, kv_storage %u, moments %u\n",
           needed->batch_size, needed->micro_batch_tokens, needed->recompute, needed->kv_storage,
           needed->moments_storage);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout_params rollout;
    pgrad_objective_params objective;
    pgrad_optimizer_params optimizer;
    pgrad_plan_params plan;
    pgrad_memory_report needed = {.struct_size = sizeof needed};
    CHECK(pgrad_context_create(NULL, &context));
    pgrad_rollout_params_init(&rollout, sizeof rollout); /* the options that the run will have */
    pgrad_objective_params_init(&objective, sizeof objective);
    pgrad_optimizer_params_init(&optimizer, sizeof optimizer);
    rollout.kv_storage = PGRAD_KV_AUTO;     /* may be narrowed */
    optimizer.moments = PGRAD_MOMENTS_AUTO; /* likewise */
    pgrad_plan_params_init(&plan, sizeof plan);
    plan.rollout = &rollout;
    plan.objective = &objective;
    plan.optimizer = &optimizer;
    CHECK(pgrad_model_estimate_load(context, path, NULL, &plan, &needed));
    show("no limit", &needed);

    plan.memory_limit = argc > 2 ? strtoull(argv[2], NULL, 10) << 20 : needed.total / 3 * 2;
    printf("limit %.2f MiB\n", mib(plan.memory_limit));
    CHECK(pgrad_model_estimate_load(context, path, NULL, &plan,
                                    &needed)); /* E_LIMIT says what would fit */
    show("under it", &needed);

    /* The model is there: the same question, of the same code. */
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    plan.tokenizer = tokenizer;
    CHECK(pgrad_model_estimate(model, &plan, &needed));
    printf("with the tokenizer, whose own memory counts: %.2f MiB\n", mib(needed.total));

    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
