/* What the tests of estimates share: small models with plans and machines, and runs of them that tell who holds what. */
#ifndef PGRAD_TESTS_ESTIMATE_TEST_H
#define PGRAD_TESTS_ESTIMATE_TEST_H

#include "rl_test.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "model/pass.h"
#include "rl/estimate.h"
#include "rl/generator.h"
#include "rl/objective.h"

/* A model, a plan and a machine. */
typedef struct setting {
    const char *arch;
    uint32_t embd, ff, layers, heads, kv_heads, vocab, context;
    uint32_t storage, moments, kv, recompute;
    uint32_t share, in_backward, reference;
    uint32_t group, prompts, prompt, completion, batch;
    uint32_t micro, n_threads, kernel_set;
    uint32_t optimizer; /* PGRAD_OPTIMIZER_* */
    uint32_t keep;      /* PGRAD_KEEP_ON; 0: as it comes */
    uint32_t updates;   /* of a rollout; 0: one */
} setting;

enum { F32 = 0, BF16 = 1, Q8 = 2, F16 = 1, KV_BF16 = 2, SGD = 0, ADAMW = 2 };

static const setting settings[] = {
    /* arch   embd  ff  L  H  K vocab  ctx  store moments kv re sh ib ref  G  B  P   T  batch micro thr set opt */
    {"llama", 64, 192, 2, 4, 2, 512, 512, F32, F32, F32, 0, 1, 0, 0, 4, 2, 24, 16, 0, 0, 1, 0, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, F32, F32, 0, 1, 0, 0, 8, 1, 64, 64, 0, 0, 2, 0, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, F32, F32, 1, 1, 0, 0, 8, 1, 64, 64, 0, 0, 2, 0, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, BF16, F16, 0, 0, 0, 0, 8, 2, 64, 32, 0, 0, 2, 0, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 1, 1000, 512, BF16, BF16, KV_BF16, 1, 1, 1, 0, 4, 4, 100, 30, 0, 0, 3, 0, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 4, 4000, 512, F32, Q8, F32, 0, 1, 1, 0, 4, 2, 40, 40, 0, 0, 2, 0, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 4, 4000, 512, F32, F32, F32, 0, 1, 1, 0, 4, 2, 40, 40, 0, 64, 2, 0, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 2, 1000, 512, F32, F32, F32, 0, 1, 0, 1, 4, 2, 50, 50, 0, 0, 2, 0, ADAMW, 0, 0},
    {"llama", 192, 512, 3, 6, 3, 2000, 1024, F32, F32, F32, 0, 1, 0, 0, 2, 3, 300, 40, 0, 256, 2, 0, ADAMW, 0, 0},
    {"llama", 192, 512, 3, 6, 3, 2000, 1024, F32, F32, F32, 0, 0, 0, 0, 2, 2, 300, 40, 2, 512, 2, 0, ADAMW, 0, 0},
    {"llama", 192, 512, 3, 6, 3, 2000, 1024, BF16, Q8, F16, 1, 1, 0, 0, 16, 1, 33, 90, 7, 512, 4, 0, ADAMW, 0, 0},
    {"llama", 64, 192, 6, 2, 1, 300, 1024, F32, F32, F32, 0, 1, 0, 0, 1, 1, 700, 60, 0, 0, 1, 0, ADAMW, 0, 0},
    {"llama", 64, 192, 6, 2, 1, 300, 1024, F32, F32, F32, 0, 1, 0, 0, 70, 1, 20, 20, 0, 0, 2, 0, ADAMW, 0, 0},
    {"llama", 160, 400, 2, 5, 5, 777, 256, F32, F32, F32, 0, 1, 0, 1, 3, 5, 17, 23, 0, 0, 8, 0, ADAMW, 0, 0},
    {"gpt2", 64, 256, 2, 4, 4, 512, 256, F32, F32, F32, 0, 1, 0, 0, 4, 2, 24, 16, 0, 0, 2, 0, ADAMW, 0, 0},
    {"gpt2", 128, 512, 4, 4, 4, 1000, 256, F32, F32, F32, 1, 1, 0, 0, 8, 2, 60, 60, 0, 0, 2, 0, ADAMW, 0, 0},
    {"gpt2", 128, 512, 4, 4, 4, 1000, 256, BF16, BF16, F16, 0, 0, 0, 0, 8, 2, 60, 60, 4, 0, 1, 0, ADAMW, 0, 0},
    {"gpt2", 128, 512, 4, 4, 4, 5000, 256, F32, Q8, F32, 1, 1, 1, 0, 8, 1, 60, 60, 0, 0, 2, 0, ADAMW, 0, 0},
    {"gpt2", 96, 384, 3, 3, 3, 2000, 256, F32, F32, F32, 0, 1, 0, 1, 4, 4, 100, 50, 0, 0, 3, 0, SGD, 0, 0},
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, F32, F32, 0, 1, 0, 0, 4, 1, 40, 16, 0, 0, 2,
     PGRAD_KERNELS_GENERIC, ADAMW, 0, 0},
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, F32, F32, 0, 1, 0, 0, 8, 1, 64, 64, 0, 0, 2,
     PGRAD_KERNELS_HASWELL, ADAMW, 0, 0},
    /* activations kept by all means, and served by for the first update alone */
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, F32, F32, 0, 1, 0, 0, 8, 1, 64, 64, 0, 0, 2, 0, ADAMW, PGRAD_KEEP_ON, 1},
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, F32, F32, 0, 1, 0, 0, 8, 1, 64, 64, 0, 0, 2, 0, ADAMW, PGRAD_KEEP_ON, 2},
    {"gpt2", 128, 512, 4, 4, 4, 1000, 256, F32, F32, F32, 1, 1, 0, 0, 8, 2, 60, 60, 0, 0, 2, 0, ADAMW, PGRAD_KEEP_ON, 3},
    {"llama", 128, 352, 4, 4, 4, 1000, 512, F32, F32, F32, 0, 0, 0, 0, 8, 1, 64, 64, 0, 256, 2, 0, ADAMW, 0, 2},
    /* frozen: no more than the rollout */
    {"llama", 128, 352, 4, 4, 4, 8000, 512, Q8, F32, F32, 0, 1, 0, 0, 8, 2, 64, 64, 0, 0, 2, 0, ADAMW, 0, 0},
    {"llama", 256, 704, 4, 4, 2, 3000, 2048, Q8, F32, F16, 0, 1, 0, 0, 4, 2, 1000, 24, 0, 0, 2, 0, ADAMW, 0, 0},
};
enum { N_SETTINGS = sizeof settings / sizeof settings[0] };

static inline void write_config(const setting *s, char *text, size_t size)
{
    if (strcmp(s->arch, "gpt2") == 0)
        snprintf(text, size,
                 "{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":%u,"
                 "\"n_inner\":%u,\"n_layer\":%u,\"n_head\":%u,\"n_positions\":%u,\"vocab_size\":%u,"
                 "\"activation_function\":\"gelu_new\",\"layer_norm_epsilon\":1e-5}",
                 s->embd, s->ff, s->layers, s->heads, s->context, s->vocab);
    else
        snprintf(text, size,
                 "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":%u,"
                 "\"intermediate_size\":%u,\"num_hidden_layers\":%u,\"num_attention_heads\":%u,"
                 "\"num_key_value_heads\":%u,\"max_position_embeddings\":%u,\"vocab_size\":%u,"
                 "\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
                 "\"tie_word_embeddings\":%s}",
                 s->embd, s->ff, s->layers, s->heads, s->kv_heads, s->context, s->vocab,
                 s->layers % 2 == 0 ? "true" : "false");
}

static inline int is_frozen(const setting *s)
{
    return s->storage == PGRAD_STORAGE_Q8_0;
}

/* All params of a setting. */
typedef struct params {
    char config[1024];
    pgrad_context_params context;
    pgrad_model_params model;
    pgrad_rollout_params rollout;
    pgrad_objective_params objective;
    pgrad_optimizer_params optimizer;
    pgrad_plan_params plan;
} params;

static inline void set_params(const setting *s, params *p)
{
    write_config(s, p->config, sizeof p->config);
    pgrad_context_params_init(&p->context, sizeof p->context);
    p->context.n_threads = s->n_threads;
    p->context.kernel_set = s->kernel_set;
    pgrad_model_params_init(&p->model, sizeof p->model);
    p->model.storage = s->storage;
    p->model.frozen = is_frozen(s);
    pgrad_rollout_params_init(&p->rollout, sizeof p->rollout);
    p->rollout.group_size = s->group;
    p->rollout.max_prompts = s->prompts;
    p->rollout.max_prompt_tokens = s->prompt;
    p->rollout.max_new_tokens = s->completion;
    p->rollout.batch_size = s->batch;
    p->rollout.kv_storage = s->kv;
    if (s->keep != 0)
        p->rollout.keep_activations = s->keep;
    pgrad_objective_params_init(&p->objective, sizeof p->objective);
    p->objective.micro_batch_tokens = s->micro;
    p->objective.recompute = s->recompute;
    p->objective.share_prefix = s->share;
    p->objective.kl_beta = s->reference ? 0.1 : 0.0;
    pgrad_optimizer_params_init(&p->optimizer, sizeof p->optimizer);
    p->optimizer.kind = s->optimizer;
    p->optimizer.momentum = 0.9;
    p->optimizer.moments = s->moments;
    p->optimizer.max_grad_norm = s->in_backward ? INFINITY : 1.0;
    pgrad_plan_params_init(&p->plan, sizeof p->plan);
    p->plan.rollout = &p->rollout;
    if (!is_frozen(s)) {
        p->plan.objective = &p->objective;
        p->plan.optimizer = &p->optimizer;
    }
    p->plan.in_backward = s->in_backward;
    if (s->updates != 0)
        p->plan.updates_per_rollout = s->updates;
    p->plan.reference = s->reference;
}

static inline void fill_rollout(const setting *s, pgrad_rollout *rollout)
{
    for (uint32_t i = 0; i < s->prompts; i++) {
        pgrad_token ids[2048];
        for (uint32_t t = 0; t < s->prompt; t++)
            ids[t] = (pgrad_token)pgrad__uniform_below(3, i, t, s->vocab);
        OK(pgrad_rollout_add_prompt(rollout, ids, s->prompt, NULL, NULL));
    }
}

/* What a run holds in the end, by the names of an estimate. */
typedef struct used {
    uint64_t weights, gradients, moments, passes, kv_cache, rollout, reference;
    uint64_t other;             /* the rest */
    uint64_t peak_rollout;      /* of the context, before the first backward pass */
    uint64_t workspaces;        /* of passes: what kernels asked for */
} used;

/* What the context holds more than before. */
static inline uint64_t more_than(pgrad_context *context, uint64_t *before)
{
    const uint64_t now = memory_now(context), more = now - *before;
    *before = now;
    return more;
}

static inline void count_pass(const pgrad__pass *pass, used *to)
{
    if (pass == NULL)
        return;
    const uint64_t workspace = pgrad__held(pass->workspace.data);
    to->passes += pgrad__held(pass) + pgrad__held(pass->arena.base) + workspace;
    to->workspaces += workspace;
}

/* The handles of a run. */
typedef struct parts {
    pgrad_context *context;
    pgrad_model *model, *reference;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
} parts;

static inline void make_parts(const setting *s, const params *p, parts *of, used *out)
{
    pgrad_context *context = of->context;
    pgrad_rollout_info info = {.struct_size = sizeof info};
    uint64_t before = memory_now(context);
    OK(pgrad_model_create(context, p->config, 7, &p->model, &of->model));
    for (uint32_t i = 0; i < of->model->n_tensors; i++)
        out->weights += pgrad__held(of->model->tensors[i].data);
    const uint64_t registry = more_than(context, &before) - out->weights;
    if (s->reference) {
        OK(pgrad_model_snapshot(of->model, &of->reference));
        out->reference = more_than(context, &before);
        ck_assert_uint_eq(out->reference, out->weights + registry);
    }
    OK(pgrad_rollout_create(of->model, NULL, &p->rollout, &of->rollout));
    OK(pgrad_rollout_get_info(of->rollout, &info));
    out->kv_cache = info.cache_bytes;
    out->rollout = more_than(context, &before) - info.cache_bytes - pgrad__held(of->rollout->generator->pass);
    if (is_frozen(s))
        return;
    OK(pgrad_objective_create(of->model, &p->objective, &of->objective));
    before = memory_now(context);
    OK(pgrad_optimizer_create(of->model, &p->optimizer, &of->optimizer));
    out->moments = more_than(context, &before);
}

static inline void free_parts(parts *of)
{
    pgrad_objective_free(of->objective);
    pgrad_optimizer_free(of->optimizer);
    pgrad_rollout_free(of->rollout);
    pgrad_sampler_free(of->sampler);
    pgrad_model_free(of->reference);
    pgrad_model_free(of->model);
}

/* Completions of full length, with log-probabilities of a reference where there is one. */
static inline void sample(const setting *s, const parts *of)
{
    pgrad_rollout_clear(of->rollout);
    fill_rollout(s, of->rollout);
    OK(pgrad_rollout_generate(of->rollout, of->sampler, NULL));
    if (s->reference)
        OK(pgrad_rollout_score(of->rollout, of->reference, PGRAD_REFERENCE));
    for (uint32_t i = 0; i < s->group * s->prompts; i++) {
        const float advantage = i % 2 == 0 ? 1.0f : -0.5f;
        size_t n;
        (void)pgrad_rollout_tokens(of->rollout, i, &n);
        ck_assert_uint_eq(n, s->completion);
        OK(pgrad_rollout_set_array(of->rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
    }
}

static inline void learn(const setting *s, const parts *of)
{
    pgrad_backward_params how;
    pgrad_backward_params_init(&how, sizeof how);
    how.optimizer = s->in_backward ? of->optimizer : NULL;
    for (uint32_t update = 0; update < (s->updates > 0 ? s->updates : 1); update++) {
        OK(pgrad_model_zero_grad(of->model));
        OK(pgrad_objective_backward(of->objective, of->rollout, NULL, 0, &how, NULL));
        if (!s->in_backward)
            OK(pgrad_optimizer_step(of->optimizer, NULL));
    }
}

/* Two steps of everything the plan names, the second in memory that is there. */
static inline used run(const setting *s, const params *p, pgrad_context *context)
{
    used out = {0};
    parts of = {.context = context};
    pgrad_sampler_params sampling;
    pgrad_sampler_params_init(&sampling, sizeof sampling);
    sampling.ignore_eos = 1;
    OK(pgrad_sampler_create(context, &sampling, &of.sampler));
    const uint64_t before = memory_now(context); /* of context and sampler; prompts' ids do not count either */
    make_parts(s, p, &of, &out);
    for (int step = 0; step < 2; step++) {
        sample(s, &of);
        if (step == 0)
            out.peak_rollout = memory_now(context);
        if (!is_frozen(s))
            learn(s, &of);
    }
    for (uint32_t i = 0; i < of.model->n_tensors; i++)
        out.gradients += pgrad__held(of.model->tensors[i].grad);
    for (size_t i = 0; i < of.rollout->activations.n_blocks; i++)
        out.passes += pgrad__held(of.rollout->activations.blocks[i]);
    count_pass(of.rollout->generator->pass, &out);
    count_pass(of.rollout->pass, &out);
    count_pass(of.objective != NULL ? of.objective->pass : NULL, &out);
    out.rollout += pgrad__held(of.rollout->scores.data);
    out.other = memory_now(context) - before - out.weights - out.gradients - out.moments - out.passes -
                out.kv_cache - out.rollout - out.reference - pgrad__held(of.rollout->prompts);
    free_parts(&of);
    return out;
}

static inline void within(const char *what, uint64_t estimated, uint64_t used_bytes, double share)
{
    const double ratio = (double)estimated / (double)used_bytes;
    if (getenv("SHOW") != NULL)
        printf("%-12s %10llu %10llu %.4f\n", what, (unsigned long long)estimated, (unsigned long long)used_bytes, ratio);
    ck_assert_msg(fabs(ratio - 1.0) <= share, "%s: %llu bytes estimated, %llu used: %.4f", what,
                  (unsigned long long)estimated, (unsigned long long)used_bytes, ratio);
}

static inline int cannot_run(const setting *s)
{
    pgrad_context_params of_set;
    pgrad_context *context = NULL;
    pgrad_context_params_init(&of_set, sizeof of_set);
    of_set.kernel_set = s->kernel_set;
    const pgrad_status status = pgrad_context_create(&of_set, &context);
    pgrad_context_free(context);
    return status == PGRAD_E_UNSUPPORTED;
}

#endif
