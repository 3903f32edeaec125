/* Checkpoints of GPT-2 124M with Adam, 1.5 GB: how much longer a step of 4 x 256 tokens takes while one is written
 * behind it, the copy included, than the step before, the median of pairs, [checkpoint_delay]; seconds that writing
 * holds a step up, in the background, [checkpoint_copy], and not, [checkpoint_write]; opening, which reads and checks
 * all of it, [checkpoint_open]; the file, [checkpoint_size]. */
#include "gpt2.h"

#include <sys/stat.h>
#include <unistd.h>

enum { SEQUENCES = 4, TOKENS = 256, PAIRS = 7 };

typedef struct bench {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_rollout *rollout;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_checkpoint *checkpoint;
} bench;

static void make(bench *b)
{
    pgrad_rollout_params rollout;
    pgrad_objective_params objective;
    b->context = two_threads();
    b->model = gpt2_create(b->context);
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    rollout.group_size = 1;
    rollout.max_prompts = SEQUENCES;
    rollout.max_prompt_tokens = 1;
    rollout.max_new_tokens = TOKENS;
    rollout.batch_size = 1;
    CHECK(pgrad_rollout_create(b->model, NULL, &rollout, &b->rollout));
    for (int i = 0; i < SEQUENCES; i++) {
        pgrad_token ids[TOKENS + 1];
        uint32_t group;
        for (int t = 0; t <= TOKENS; t++)
            ids[t] = (pgrad_token)((i * 7919 + t * 104729) % 50000);
        CHECK(pgrad_rollout_add_prompt(b->rollout, ids, 1, NULL, &group));
        CHECK(pgrad_rollout_add_sequence(b->rollout, group, ids + 1, TOKENS, NULL));
    }
    pgrad_objective_params_init(&objective, sizeof objective);
    objective.loss = PGRAD_LOSS_SUPERVISED;
    CHECK(pgrad_objective_create(b->model, &objective, &b->objective));
    CHECK(pgrad_optimizer_create(b->model, NULL, &b->optimizer));
    CHECK(pgrad_checkpoint_create(b->context, &b->checkpoint));
    CHECK(pgrad_checkpoint_add(b->checkpoint, "policy", PGRAD_KIND_MODEL, b->model));
    CHECK(pgrad_checkpoint_add(b->checkpoint, "optimizer", PGRAD_KIND_OPTIMIZER, b->optimizer));
}

static void drop(bench *b)
{
    pgrad_checkpoint_free(b->checkpoint);
    pgrad_optimizer_free(b->optimizer);
    pgrad_objective_free(b->objective);
    pgrad_rollout_free(b->rollout);
    pgrad_model_free(b->model);
    pgrad_context_free(b->context);
}

static double step(bench *b)
{
    const double started = bench_now();
    CHECK(pgrad_model_zero_grad(b->model));
    CHECK(pgrad_objective_backward(b->objective, b->rollout, NULL, 0, NULL, NULL));
    CHECK(pgrad_optimizer_step(b->optimizer, NULL));
    return bench_now() - started;
}

static double save(bench *b, const char *path, uint32_t background)
{
    const double started = bench_now();
    pgrad_checkpoint_params params;
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.background = background;
    CHECK(pgrad_checkpoint_write(b->checkpoint, path, &params));
    return bench_now() - started;
}

int main(int argc, char **argv)
{
    bench b;
    struct stat about;
    pgrad_checkpoint *opened;
    char path[4096];
    double without[PAIRS], with[PAIRS], copy[PAIRS];
    snprintf(path, sizeof path, "%s/run.pgrad", argc > 1 ? argv[1] : "/tmp");
    make(&b);
    (void)step(&b);
    const double behind = save(&b, path, 1); /* takes the memory of the copies too */
    CHECK(pgrad_checkpoint_wait(b.checkpoint));
    for (int pair = 0; pair < PAIRS; pair++) {
        without[pair] = step(&b);
        copy[pair] = save(&b, path, 1);
        with[pair] = copy[pair] + step(&b);
        CHECK(pgrad_checkpoint_wait(b.checkpoint));
    }
    double delay[PAIRS];
    for (int pair = 0; pair < PAIRS; pair++)
        delay[pair] = with[pair] / without[pair] - 1.0;
    bench_print(b.context, "checkpoint_delay", bench_median(delay, PAIRS), "of a step", 0.05);
    bench_print(b.context, "checkpoint_copy", bench_median(copy, PAIRS), "s", 0.0);
    bench_print(b.context, "checkpoint_copy_first", behind, "s", 0.0);
    bench_print(b.context, "checkpoint_step", bench_median(without, PAIRS), "s", 0.0);
    bench_print(b.context, "checkpoint_write", save(&b, path, 0), "s", 0.0);
    const double started = bench_now();
    CHECK(pgrad_checkpoint_open(b.context, path, &opened));
    bench_print(b.context, "checkpoint_open", bench_now() - started, "s", 0.0);
    pgrad_checkpoint_free(opened);
    if (stat(path, &about) == 0)
        bench_print(b.context, "checkpoint_size", (double)about.st_size, "bytes", 0.0);
    unlink(path);
    drop(&b);
    return 0;
}
