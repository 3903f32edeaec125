/* A group of 8 completions of 64 tokens after one prompt of 512, GPT-2 124M: how many times faster its prompt makes it
 * when it is computed once - generation, forward and backward, the whole step [shared_prefix_step] - than when each
 * completion has one of its own. */
#include "gpt2.h"

enum { GROUP = 8, PROMPT = 512, NEW = 64, ROUNDS = 3, GENERATE = 0, BACKWARD = 1, STEP = 2, PARTS = 3 };

typedef struct side {
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    double times[PARTS][ROUNDS];
} side;

/* Shared: one group of 8. Apart: 8 groups of one, whose prompts differ in their first token, so that nothing kept of one
 * serves another. */
static void set_up(side *s, pgrad_context *context, pgrad_model *model, int shared)
{
    pgrad_rollout_params rollout;
    pgrad_sampler_params sampler;
    pgrad_advantage_params advantage;
    pgrad_objective_params objective;
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    rollout.group_size = shared ? GROUP : 1;
    rollout.max_prompts = shared ? 1 : GROUP;
    rollout.max_prompt_tokens = PROMPT;
    rollout.max_new_tokens = NEW;
    CHECK(pgrad_rollout_create(model, NULL, &rollout, &s->rollout));
    pgrad_sampler_params_init(&sampler, sizeof sampler);
    sampler.ignore_eos = 1;
    CHECK(pgrad_sampler_create(context, &sampler, &s->sampler));
    pgrad_advantage_params_init(&advantage, sizeof advantage);
    advantage.estimator = PGRAD_ADVANTAGE_BATCH_MEAN; /* of all 8 on both sides */
    CHECK(pgrad_advantage_create(context, &advantage, &s->advantage));
    pgrad_objective_params_init(&objective, sizeof objective);
    objective.share_prefix = (uint32_t)shared;
    objective.micro_batch_tokens = GROUP * (PROMPT + NEW);
    CHECK(pgrad_objective_create(model, &objective, &s->objective));
    CHECK(pgrad_optimizer_create(model, NULL, &s->optimizer));
}

static void add_prompts(side *s, uint32_t n, uint32_t round)
{
    pgrad_token ids[PROMPT];
    pgrad_rollout_clear(s->rollout);
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t i = 0; i < PROMPT; i++)
            ids[i] = (pgrad_token)(((round * GROUP + k) * 7919 + i * 104729) % 50000);
        CHECK(pgrad_rollout_add_prompt(s->rollout, ids, PROMPT, NULL, NULL));
    }
}

static void judge(side *s)
{
    for (uint32_t i = 0; i < GROUP; i++) {
        const float reward = (float)i;
        CHECK(pgrad_rollout_set_array(s->rollout, PGRAD_REWARDS, i, &reward, 1));
    }
    CHECK(pgrad_advantage_apply(s->advantage, s->rollout));
}

static void step(side *s, pgrad_model *model, uint32_t n_prompts, int round)
{
    const double started = bench_now();
    add_prompts(s, n_prompts, (uint32_t)(round + 1));
    CHECK(pgrad_rollout_generate(s->rollout, s->sampler, NULL));
    const double generated = bench_now();
    judge(s);
    const double judged = bench_now();
    CHECK(pgrad_model_zero_grad(model));
    CHECK(pgrad_objective_backward(s->objective, s->rollout, NULL, 0, NULL, NULL));
    const double learned = bench_now();
    CHECK(pgrad_optimizer_step(s->optimizer, NULL));
    if (round < 0)
        return;
    s->times[GENERATE][round] = generated - started;
    s->times[BACKWARD][round] = learned - judged;
    s->times[STEP][round] = bench_now() - started;
}

int main(void)
{
    static const char *const names[PARTS] = {"shared_prefix_generate", "shared_prefix_backward", "shared_prefix_step"};
    pgrad_context *context = two_threads();
    pgrad_model *model = gpt2_create(context);
    static side sides[2];
    for (int shared = 0; shared < 2; shared++)
        set_up(&sides[shared], context, model, shared);
    for (int round = -1; round < ROUNDS; round++)
        for (int shared = 0; shared < 2; shared++)
            step(&sides[shared], model, shared ? 1 : GROUP, round);
    for (int part = 0; part < PARTS; part++)
        bench_print(context, names[part],
                    bench_median(sides[0].times[part], ROUNDS) / bench_median(sides[1].times[part], ROUNDS),
                    "times each apart", part == STEP ? 3.0 : 0.0);
    for (int shared = 0; shared < 2; shared++) {
        pgrad_optimizer_free(sides[shared].optimizer);
        pgrad_objective_free(sides[shared].objective);
        pgrad_advantage_free(sides[shared].advantage);
        pgrad_sampler_free(sides[shared].sampler);
        pgrad_rollout_free(sides[shared].rollout);
    }
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
