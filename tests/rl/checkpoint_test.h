/* What the tests of checkpoints share: a host's own loop whose every handle is in one, and what it leaves. */
#ifndef PGRAD_TESTS_CHECKPOINT_TEST_H
#define PGRAD_TESTS_CHECKPOINT_TEST_H

#include "rl_test.h"

#include <stdatomic.h>
#include <unistd.h>

/* tests/io has what syncing is for; here it would take most of the time. */
static atomic_int hold; /* and a thread waits here as long as it is asked to */

int fsync(int descriptor)
{
    (void)descriptor;
    while (hold)
        usleep(1000);
    return 0;
}

enum { STEPS = 6, GROUPS = 2, SIZE = 3, NEW = 5 };

/* Rows that end inside a panel, a block of 64 and a block of 32. */
static const char LLAMA[] =
    "{\"model_type\":\"llama\",\"hidden_size\":72,\"intermediate_size\":150,\"num_hidden_layers\":1,"
    "\"num_attention_heads\":4,\"num_key_value_heads\":2,\"max_position_embeddings\":64,\"vocab_size\":97,"
    "\"rms_norm_eps\":1e-5,\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"initializer_range\":0.2}";
static const char GPT2[] =
    "{\"model_type\":\"gpt2\",\"n_embd\":66,\"n_layer\":1,\"n_head\":3,\"n_positions\":61,\"vocab_size\":97,"
    "\"activation_function\":\"gelu_new\",\"layer_norm_epsilon\":1e-5,\"initializer_range\":0.2}";

static char folder[512], file[600], other_file[600];

static inline void setup(void)
{
    temporary_folder(folder);
    snprintf(file, sizeof file, "%s/run.pgrad", folder);
    snprintf(other_file, sizeof other_file, "%s/other.pgrad", folder);
}

static inline void teardown(void)
{
    char command[600];
    snprintf(command, sizeof command, "rm -r '%s'", folder);
    ck_assert_int_eq(system(command), 0);
}

/* ---- a run ---- */

typedef struct options {
    const char *config;
    uint32_t storage, kind, moments, kernel_set, n_threads;
    double beta;
} options;

typedef struct run {
    options with;
    pgrad_context *context;
    pgrad_model *model, *reference;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_reward *reward;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_checkpoint *checkpoint;
} run;

static inline int32_t score(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                            pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        size_t n;
        const pgrad_token *ids = pgrad_rollout_tokens(rollout, first + i, &n);
        pgrad_scores_data(scores)[i] = (float)(ids[0] % 7) - 0.5f * (float)(ids[n - 1] % 3);
    }
    return (int32_t)count;
}

static inline void add_all(run *r)
{
    OK(pgrad_checkpoint_create(r->context, &r->checkpoint));
    OK(pgrad_checkpoint_add(r->checkpoint, "policy", PGRAD_KIND_MODEL, r->model));
    OK(pgrad_checkpoint_add(r->checkpoint, "reference", PGRAD_KIND_MODEL, r->reference));
    OK(pgrad_checkpoint_add(r->checkpoint, "optimizer", PGRAD_KIND_OPTIMIZER, r->optimizer));
    OK(pgrad_checkpoint_add(r->checkpoint, "sampler", PGRAD_KIND_SAMPLER, r->sampler));
    OK(pgrad_checkpoint_add(r->checkpoint, "advantage", PGRAD_KIND_ADVANTAGE, r->advantage));
    OK(pgrad_checkpoint_add(r->checkpoint, "rollout", PGRAD_KIND_ROLLOUT, r->rollout));
    OK(pgrad_checkpoint_add(r->checkpoint, "objective", PGRAD_KIND_OBJECTIVE, r->objective));
    OK(pgrad_checkpoint_add_text(r->checkpoint, "notes", "seventeen", 9));
}

/* 0 when this machine cannot run the kernel set. */
static inline int make_run(run *r, const options *with)
{
    pgrad_model_params model;
    pgrad_rollout_params rollout;
    pgrad_sampler_params sampler;
    pgrad_advantage_params advantage;
    pgrad_objective_params objective;
    pgrad_optimizer_params optimizer;
    *r = (run){.with = *with, .context = test_context(with->kernel_set, with->n_threads)};
    if (r->context == NULL)
        return 0;
    pgrad_model_params_init(&model, sizeof model);
    model.storage = with->storage;
    OK(pgrad_model_create(r->context, with->config, 3, &model, &r->model));
    OK(pgrad_model_snapshot(r->model, &r->reference));
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    rollout.group_size = SIZE;
    rollout.max_prompts = GROUPS;
    rollout.max_prompt_tokens = 4;
    rollout.max_new_tokens = NEW;
    OK(pgrad_rollout_create(r->model, NULL, &rollout, &r->rollout));
    pgrad_sampler_params_init(&sampler, sizeof sampler);
    sampler.seed = 11;
    OK(pgrad_sampler_create(r->context, &sampler, &r->sampler));
    OK(pgrad_reward_create(r->context, "score", score, NULL, NULL, &r->reward));
    pgrad_advantage_params_init(&advantage, sizeof advantage);
    advantage.estimator = PGRAD_ADVANTAGE_EMA;
    OK(pgrad_advantage_create(r->context, &advantage, &r->advantage));
    pgrad_objective_params_init(&objective, sizeof objective);
    objective.kl = PGRAD_KL_K3_RATIO;
    objective.kl_beta = 0.1;
    OK(pgrad_objective_create(r->model, &objective, &r->objective));
    pgrad_optimizer_params_init(&optimizer, sizeof optimizer);
    optimizer.kind = with->kind;
    optimizer.momentum = with->kind == PGRAD_OPTIMIZER_SGD ? 0.9 : 0.0;
    optimizer.moments = with->moments;
    optimizer.schedule = PGRAD_SCHEDULE_COSINE;
    optimizer.warmup_steps = 2;
    optimizer.total_steps = STEPS;
    optimizer.learning_rate = 3e-3;
    optimizer.beta1 = with->beta;
    optimizer.weight_decay = 0.1;
    OK(pgrad_optimizer_create(r->model, &optimizer, &r->optimizer));
    add_all(r);
    return 1;
}

static inline void drop_run(run *r)
{
    pgrad_model_free(r->model); /* the checkpoint holds it still */
    pgrad_checkpoint_free(r->checkpoint);
    pgrad_optimizer_free(r->optimizer);
    pgrad_objective_free(r->objective);
    pgrad_advantage_free(r->advantage);
    pgrad_reward_free(r->reward);
    pgrad_sampler_free(r->sampler);
    pgrad_rollout_free(r->rollout);
    pgrad_model_free(r->reference);
    pgrad_context_free(r->context);
}

/* Prompts of a step are a function of its number: the host's own place in the data. */
static inline void sample(run *r, uint32_t number)
{
    pgrad_rollout_clear(r->rollout);
    for (uint32_t group = 0; group < GROUPS; group++) {
        const pgrad_token ids[3] = {(pgrad_token)(number * 5 + group), 9, (pgrad_token)(40 + number)};
        OK(pgrad_rollout_add_prompt(r->rollout, ids, 3, NULL, NULL));
        OK(pgrad_rollout_set_data(r->rollout, group, "answer", "the data", 8));
    }
    OK(pgrad_rollout_generate(r->rollout, r->sampler, NULL));
    OK(pgrad_reward_apply(r->reward, r->rollout));
}

static inline void learn(run *r)
{
    OK(pgrad_rollout_score(r->rollout, r->reference, PGRAD_REFERENCE));
    OK(pgrad_advantage_apply(r->advantage, r->rollout));
    OK(pgrad_model_zero_grad(r->model));
    OK(pgrad_objective_backward(r->objective, r->rollout, NULL, 0, NULL, NULL));
    OK(pgrad_optimizer_step(r->optimizer, NULL));
}

static inline void steps(run *r, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        sample(r, i);
        learn(r);
    }
}

/* All that a run leaves: the file of its checkpoint, without the weights' names in the way. */
static inline unsigned char *state_of(run *r, const char *path, size_t *size)
{
    unsigned char *bytes = NULL;
    pgrad_checkpoint_params params;
    pgrad_checkpoint_params_init(&params, sizeof params);
    OK(pgrad_checkpoint_write(r->checkpoint, path, &params));
    FILE *from = fopen(path, "rb");
    ck_assert_ptr_nonnull(from);
    fseek(from, 0, SEEK_END);
    *size = (size_t)ftell(from);
    rewind(from);
    bytes = malloc(*size);
    ck_assert_uint_eq(fread(bytes, 1, *size, from), *size);
    fclose(from);
    return bytes;
}

static const struct {
    const char *name;
    int32_t kind;
} PARTS[] = {{"policy", PGRAD_KIND_MODEL},         {"reference", PGRAD_KIND_MODEL},
             {"optimizer", PGRAD_KIND_OPTIMIZER},  {"sampler", PGRAD_KIND_SAMPLER},
             {"advantage", PGRAD_KIND_ADVANTAGE},  {"rollout", PGRAD_KIND_ROLLOUT},
             {"objective", PGRAD_KIND_OBJECTIVE}};
enum { N_PARTS = 7, ROLLOUT = 5 };

static inline void *handle_of(run *r, int part)
{
    void *const handles[N_PARTS] = {r->model,   r->reference, r->optimizer,
                                    r->sampler, r->advantage, r->rollout, r->objective};
    return handles[part];
}

static inline pgrad_status restore(run *r, const char *path)
{
    pgrad_checkpoint *opened;
    pgrad_status status = pgrad_checkpoint_open(r->context, path, &opened);
    if (status != PGRAD_OK)
        return status;
    for (int i = 0; status == PGRAD_OK && i < N_PARTS; i++)
        status = pgrad_checkpoint_restore(opened, PARTS[i].name, PARTS[i].kind, handle_of(r, i));
    pgrad_checkpoint_free(opened);
    return status;
}

static const options CASES[] = {
    {LLAMA, PGRAD_STORAGE_F32, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_F32, 0, 1, 0.9},
    {LLAMA, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_BF16, 0, 1, 0.9},
    {LLAMA, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_ADAM, PGRAD_MOMENTS_Q8, 0, 1, 0.9},
    {GPT2, PGRAD_STORAGE_F32, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_Q8, 0, 1, 0.9},
    {GPT2, PGRAD_STORAGE_F32, PGRAD_OPTIMIZER_SGD, PGRAD_MOMENTS_BF16, 0, 1, 0.9},
    {GPT2, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_SGD, PGRAD_MOMENTS_Q8, 0, 1, 0.9}};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

static inline int run_checkpoint_suite(const char *name, void (*add)(TCase *))
{
    Suite *suite = suite_create(name);
    TCase *tests = tcase_create(name);
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 240);
    add(tests);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}

#endif
