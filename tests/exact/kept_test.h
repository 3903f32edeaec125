/* What the tests of kept activations share: a world with all that a step needs, and an allocator that refuses. A file
 * says GROUPS, GROUP, LONGEST (prompt) and NEW in front. */
#ifndef PGRAD_TESTS_KEPT_TEST_H
#define PGRAD_TESTS_KEPT_TEST_H

#include "../rl/rl_test.h"

#include <math.h>
#include <string.h>

typedef struct setting {
    uint32_t kernel_set, n_threads, slots, speculate, share, micro, recompute, n_prefix, storage;
    int in_backward;
    uint32_t zero_groups; /* bits: groups whose advantages are zero */
} setting;

typedef struct handles {
    world w;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
} handles;

static inline pgrad_rollout *rollout_of(const world *w, uint32_t keep, uint32_t slots)
{
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_rollout_params_init(&params, sizeof params);
    ck_assert_uint_eq(params.keep_activations, PGRAD_KEEP_AUTO);
    params.group_size = GROUP;
    params.max_prompts = GROUPS;
    params.max_prompt_tokens = LONGEST;
    params.max_new_tokens = NEW;
    params.batch_size = slots;
    params.keep_activations = keep;
    OK(pgrad_rollout_create(w->model, w->tokenizer, &params, &rollout));
    return rollout;
}

static inline handles begin(const char *config, const setting *s, uint32_t keep)
{
    handles h = {.w.context = test_context(s->kernel_set, s->n_threads)};
    if (h.w.context == NULL)
        return h;
    h.w.memory = memory_now(h.w.context);
    model_storage = s->storage;
    h.w.model = make_model(h.w.context, config);
    model_storage = PGRAD_STORAGE_F32;
    h.w.tokenizer = make_tokenizer(h.w.context);
    h.rollout = rollout_of(&h.w, keep, s->slots);
    pgrad_sampler_params sampler = sampler_defaults();
    h.sampler = make_sampler(h.w.context, &sampler);
    pgrad_objective_params objective;
    pgrad_objective_params_init(&objective, sizeof objective);
    objective.share_prefix = s->share;
    objective.micro_batch_tokens = s->micro;
    objective.recompute = s->recompute;
    objective.entropy_coefficient = 0.01;
    OK(pgrad_objective_create(h.w.model, &objective, &h.objective));
    pgrad_optimizer_params optimizer;
    pgrad_optimizer_params_init(&optimizer, sizeof optimizer);
    optimizer.learning_rate = 1e-2;
    optimizer.max_grad_norm = INFINITY;
    OK(pgrad_optimizer_create(h.w.model, &optimizer, &h.optimizer));
    return h;
}

static inline void end(handles *h)
{
    pgrad_optimizer_free(h->optimizer);
    pgrad_objective_free(h->objective);
    pgrad_sampler_free(h->sampler);
    pgrad_rollout_free(h->rollout);
    end_world(&h->w);
}

static inline void set_advantages(pgrad_rollout *rollout, uint32_t zero_groups)
{
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        float advantage = (float)((int)(i * 7 % 11) - 5) / 3.0f;
        if (zero_groups >> info_of(rollout, i).group & 1)
            advantage = 0.0f;
        if (info_of(rollout, i).n_tokens > 0)
            OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
    }
}

static inline void generate(handles *h, uint32_t speculate)
{
    pgrad_generate_params params;
    pgrad_generate_params_init(&params, sizeof params);
    params.speculate = speculate;
    OK(pgrad_rollout_generate(h->rollout, h->sampler, &params));
}

/* Forward and backward; the gradients stay, the number of kept rows is returned. */
static inline double backward(const handles *h, pgrad_optimizer *inside, pgrad_step_report *report)
{
    pgrad_backward_params params;
    pgrad_backward_params_init(&params, sizeof params);
    params.optimizer = inside;
    pgrad_step_report_init(report, sizeof *report);
    OK(pgrad_model_zero_grad(h->w.model));
    OK(pgrad_objective_backward(h->objective, h->rollout, NULL, 0, &params, report));
    return report->kept_rows;
}

/* 1 when a token of the completion is learned: not all were forced. */
static inline int is_learned(const pgrad_rollout *rollout, uint32_t i)
{
    size_t n;
    const float *mask = pgrad_rollout_array(rollout, PGRAD_MASK, i, &n);
    while (n > 0 && mask[n - 1] == 0.0f)
        n--;
    return n > 0;
}

/* Rows of a step: prompts once for their groups, or for each completion. */
static inline double rows_of(const pgrad_rollout *rollout, int share)
{
    size_t n = 0;
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        const pgrad_sequence_info info = info_of(rollout, i);
        if (!is_learned(rollout, i))
            continue;
        n += info.n_tokens - 1 + (share && i % GROUP != 0 ? 0 : info.n_prompt);
    }
    return (double)n;
}

/* An allocator that refuses blocks of a size, after some of them. */
static struct {
    size_t size;
    int after;
} refusal;
static inline void *choosy_alloc(void *user, size_t size, size_t alignment)
{
    (void)user;
    return size == refusal.size && refusal.after-- <= 0 ? NULL : aligned_alloc(alignment, size);
}
static inline void choosy_free(void *user, void *block, size_t size)
{
    (void)user;
    (void)size;
    free(block);
}

static inline handles begin_choosy(const char *config, uint32_t keep, uint32_t slots)
{
    const pgrad_allocator allocator = {.alloc = choosy_alloc, .free = choosy_free};
    handles h = {0};
    pgrad_context_params params;
    pgrad_sampler_params sampler = sampler_defaults();
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    params.allocator = &allocator;
    OK(pgrad_context_create(&params, &h.w.context));
    h.w.memory = memory_now(h.w.context);
    h.w.model = make_model(h.w.context, config);
    h.w.tokenizer = make_tokenizer(h.w.context);
    h.rollout = rollout_of(&h.w, keep, slots);
    h.sampler = make_sampler(h.w.context, &sampler);
    OK(pgrad_objective_create(h.w.model, NULL, &h.objective));
    OK(pgrad_optimizer_create(h.w.model, NULL, &h.optimizer));
    return h;
}

#endif
