/* The contract with everything switched on at once: a host's loop that samples with drafts from prompts with a common
 * page, scores with a reference, and learns in micro-batches that cut groups. Completions, gradients, weights and the
 * checkpoint at the end have the same bits for any threads, kernel set, slots, with drafts and without, and for a run
 * that was taken up from a file by another context. Each way of storing and computing has bits of its own. */
#include "../rl/rl_test.h"

static const char LLAMA[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":32,"
    "\"intermediate_size\":48,\"num_hidden_layers\":2,\"num_attention_heads\":4,\"num_key_value_heads\":2,"
    "\"max_position_embeddings\":192,\"vocab_size\":272,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":false,\"initializer_range\":0.3}";
/* Updates of its positions are cut into several tasks, which other threads may take. */
static const char GPT2[] =
    "{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":32,\"n_layer\":2,"
    "\"n_head\":4,\"n_positions\":4224,\"vocab_size\":272,\"activation_function\":\"gelu_new\","
    "\"layer_norm_epsilon\":1e-5,\"initializer_range\":0.3}";

enum { GROUPS = 3, SIZE = 5, LONGEST = 130, COMMON = 64, NEW = 16, MICRO = 80, STEPS = 4, SPLIT = 2 };

/* tests/io has what syncing is for; here it would take most of the time. */
int fsync(int descriptor)
{
    (void)descriptor;
    return 0;
}

/* What is computed. */
typedef struct way {
    const char *name, *config;
    uint32_t storage, moments, kv_storage, keep, recompute, estimator;
    int in_backward;
} way;

#define WAYS_OF(name, config)                                                                                          \
    {name ", f32, kept", config, PGRAD_STORAGE_F32, PGRAD_MOMENTS_F32, PGRAD_KV_F32, PGRAD_KEEP_ON,                   \
     PGRAD_RECOMPUTE_OFF, PGRAD_ADVANTAGE_GRPO, 0},                                                                    \
    {name ", bf16, kept, updated inside", config, PGRAD_STORAGE_BF16, PGRAD_MOMENTS_Q8, PGRAD_KV_F32, PGRAD_KEEP_ON,  \
     PGRAD_RECOMPUTE_OFF, PGRAD_ADVANTAGE_EMA, 1},                                                                     \
    {name ", bf16, f16 cache, recomputed", config, PGRAD_STORAGE_BF16, PGRAD_MOMENTS_Q8, PGRAD_KV_F16,                \
     PGRAD_KEEP_AUTO, PGRAD_RECOMPUTE_ON, PGRAD_ADVANTAGE_DR_GRPO, 0}

static const way WAYS[] = {WAYS_OF("gpt2", GPT2), WAYS_OF("llama", LLAMA)};
enum { N_WAYS = sizeof WAYS / sizeof WAYS[0] };

/* How. */
typedef struct machine {
    uint32_t kernel_set, n_threads, slots, speculate;
} machine;

typedef struct plan {
    machine first;
    machine then; /* takes the run up after SPLIT steps; no threads: it is one run */
} plan;

enum { AUTO = PGRAD_KERNELS_AUTO, GENERIC = PGRAD_KERNELS_GENERIC, HASWELL = PGRAD_KERNELS_HASWELL, SKX = PGRAD_KERNELS_SKX,
       ARMV8A = PGRAD_KERNELS_ARMV8A, OFF = PGRAD_SPECULATE_OFF, ON = PGRAD_SPECULATE_ON };

/* Of each way. The first is what the others are compared with. */
static const plan PLANS[] = {
    {{AUTO, 2, 0, OFF}, {0}},
    {{HASWELL, 2, 0, OFF}, {0}},
    {{SKX, 3, 3, OFF}, {0}},
    {{HASWELL, 1, 3, ON}, {0}},
    {{SKX, 8, 0, ON}, {0}},
    {{HASWELL, 8, 3, OFF}, {SKX, 2, 1, ON}},
    {{SKX, 1, 0, OFF}, {HASWELL, 3, 1, ON}},
    {{ARMV8A, 8, 3, ON}, {ARMV8A, 1, 0, OFF}},
};
/* The generic set takes fifty times as long as the others: each way has one of these. */
static const plan GENERIC_PLANS[N_WAYS] = {
    {{GENERIC, 1, 1, OFF}, {0}},
    {{AUTO, 8, 1, OFF}, {GENERIC, 2, 3, ON}},
    {{GENERIC, 3, 0, OFF}, {AUTO, 1, 3, ON}},
    {{AUTO, 2, 0, ON}, {GENERIC, 8, 1, ON}},
    {{GENERIC, 2, 3, ON}, {AUTO, 3, 1, OFF}},
    {{AUTO, 1, 3, OFF}, {GENERIC, 3, 0, OFF}},
};
enum { N_OWN = sizeof PLANS / sizeof PLANS[0], N_PLANS = N_OWN + 1, N_ALL = N_OWN + N_WAYS };

/* Of all: those of each way, then the generic ones. */
static const plan *plan_of(size_t number)
{
    return number < N_OWN ? &PLANS[number] : &GENERIC_PLANS[number - N_OWN];
}

static int is_taken_up(const plan *p)
{
    return p->then.n_threads != 0;
}

/* The short form has half of the steps, and of the plans every second one. */
static int is_short(void)
{
    return getenv("PGRAD_TEST_SHORT") != NULL;
}

/* ---- hashes ---- */

enum { COMPLETIONS, GRADIENTS, WEIGHTS, N_MARKS };
static const char *const MARKS[N_MARKS] = {"completions", "loss and gradients", "weights"};

typedef struct hashes {
    uint64_t of_step[STEPS][N_MARKS];
    uint64_t file;
} hashes;

#define HASH_START 14695981039346656037u

/* FNV-1a over the bytes. */
static void hash_bytes(uint64_t *hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        *hash = (*hash ^ bytes[i]) * 1099511628211u;
}

static uint64_t hash_values(uint64_t hash, pgrad_model *model, int gradients)
{
    size_t n;
    float *values = all_values(model, gradients, &n);
    hash_bytes(&hash, values, n * sizeof *values);
    free(values);
    return hash;
}

static uint64_t hash_record(const record *r)
{
    uint64_t hash = HASH_START;
    for (uint32_t i = 0; i < r->n; i++) {
        const size_t bytes = r->n_tokens[i] * sizeof(float);
        hash_bytes(&hash, &r->n_tokens[i], sizeof r->n_tokens[i]);
        hash_bytes(&hash, &r->finish[i], sizeof r->finish[i]);
        hash_bytes(&hash, &r->number[i], sizeof r->number[i]);
        hash_bytes(&hash, r->tokens[i], bytes);
        hash_bytes(&hash, r->logprobs[i], bytes);
        hash_bytes(&hash, r->sampled[i], bytes);
        hash_bytes(&hash, r->entropy[i], bytes);
        hash_bytes(&hash, r->text[i], r->length[i]);
    }
    return hash;
}

static uint64_t hash_file(const char *path)
{
    static unsigned char bytes[8 << 20];
    uint64_t hash = HASH_START;
    FILE *file = fopen(path, "rb");
    ck_assert_ptr_nonnull(file);
    const size_t n = fread(bytes, 1, sizeof bytes, file);
    ck_assert(n > 0 && n < sizeof bytes);
    fclose(file);
    hash_bytes(&hash, bytes, n);
    return hash;
}

/* ---- all handles of a run ---- */

typedef struct run {
    const way *how;
    machine on;
    world w;
    pgrad_model *reference;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_reward *reward;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    uint64_t drafted, accepted;
    unsigned stopped, by_length;
} run;

/* A function of the tokens alone. */
static int32_t score(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count, pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        size_t n;
        float sum = 0.0f;
        const pgrad_token *ids = pgrad_rollout_tokens(rollout, first + i, &n);
        for (size_t t = 0; t < n; t++)
            sum += (float)((ids[t] * 7 + (pgrad_token)t) % 11) - 4.0f;
        pgrad_scores_data(scores)[i] = sum / (float)n;
    }
    return (int32_t)count;
}

/* A few tokens are drawn most of the time: sequences repeat themselves and depart from it, and end early or late. */
static pgrad_sampler *repetitive_sampler(pgrad_context *context)
{
    static const pgrad_token likely[] = {'a', 'b', ID_HELLO, 'd'}, stops[] = {'d'};
    static const float bias[] = {9.0f, 9.0f, 7.0f, 6.0f};
    pgrad_sampler_params params = sampler_defaults();
    params.temperature = 0.9;
    params.top_k = 40;
    params.min_new_tokens = 4;
    params.bias_tokens = likely;
    params.logit_bias = bias;
    params.n_bias_tokens = 4;
    params.stop_tokens = stops;
    params.n_stop_tokens = 1;
    return make_sampler(context, &params);
}

static void make_learners(run *r)
{
    pgrad_advantage_params advantage;
    pgrad_objective_params objective;
    pgrad_optimizer_params optimizer;
    OK(pgrad_reward_create(r->w.context, "score", score, NULL, NULL, &r->reward));
    pgrad_advantage_params_init(&advantage, sizeof advantage);
    advantage.estimator = r->how->estimator;
    OK(pgrad_advantage_create(r->w.context, &advantage, &r->advantage));
    pgrad_objective_params_init(&objective, sizeof objective);
    objective.micro_batch_tokens = MICRO;
    objective.recompute = r->how->recompute;
    objective.kl_beta = 0.1;
    objective.entropy_coefficient = 0.01;
    OK(pgrad_objective_create(r->w.model, &objective, &r->objective));
    pgrad_optimizer_params_init(&optimizer, sizeof optimizer);
    optimizer.learning_rate = 3e-3;
    optimizer.weight_decay = 0.1;
    optimizer.moments = r->how->moments;
    optimizer.schedule = PGRAD_SCHEDULE_COSINE;
    optimizer.total_steps = STEPS + 1;
    optimizer.seed = 5;
    if (r->how->in_backward)
        optimizer.max_grad_norm = INFINITY;
    OK(pgrad_optimizer_create(r->w.model, &optimizer, &r->optimizer));
}

/* 0 when this machine cannot run the kernel set. */
static int begin(run *r, const way *how, const machine *on)
{
    pgrad_rollout_params params;
    *r = (run){.how = how, .on = *on, .w.context = test_context(on->kernel_set, on->n_threads)};
    if (r->w.context == NULL)
        return 0;
    r->w.memory = memory_now(r->w.context);
    model_storage = how->storage;
    r->w.model = make_model(r->w.context, how->config);
    r->w.tokenizer = make_tokenizer(r->w.context);
    OK(pgrad_model_snapshot(r->w.model, &r->reference));
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = SIZE;
    params.max_prompts = GROUPS;
    params.max_prompt_tokens = LONGEST;
    params.max_new_tokens = NEW;
    params.batch_size = on->slots;
    params.kv_storage = how->kv_storage;
    params.keep_activations = how->keep;
    OK(pgrad_rollout_create(r->w.model, r->w.tokenizer, &params, &r->rollout));
    r->sampler = repetitive_sampler(r->w.context);
    make_learners(r);
    return 1;
}

static void end(run *r)
{
    pgrad_optimizer_free(r->optimizer);
    pgrad_objective_free(r->objective);
    pgrad_advantage_free(r->advantage);
    pgrad_reward_free(r->reward);
    pgrad_sampler_free(r->sampler);
    pgrad_rollout_free(r->rollout);
    pgrad_model_free(r->reference);
    end_world(&r->w);
}

/* ---- its state in a file ---- */

static const struct {
    const char *name;
    int32_t kind;
} PARTS[] = {{"policy", PGRAD_KIND_MODEL},     {"reference", PGRAD_KIND_MODEL},
             {"optimizer", PGRAD_KIND_OPTIMIZER}, {"sampler", PGRAD_KIND_SAMPLER},
             {"advantage", PGRAD_KIND_ADVANTAGE}, {"objective", PGRAD_KIND_OBJECTIVE}};
enum { N_PARTS = sizeof PARTS / sizeof PARTS[0] };

static void *handle_of(const run *r, int part)
{
    void *const handles[N_PARTS] = {r->w.model, r->reference, r->optimizer, r->sampler, r->advantage, r->objective};
    return handles[part];
}

static void write_state(const run *r, const char *path)
{
    pgrad_checkpoint *checkpoint = NULL;
    OK(pgrad_checkpoint_create(r->w.context, &checkpoint));
    for (int i = 0; i < N_PARTS; i++)
        OK(pgrad_checkpoint_add(checkpoint, PARTS[i].name, PARTS[i].kind, handle_of(r, i)));
    OK(pgrad_checkpoint_write(checkpoint, path, NULL));
    pgrad_checkpoint_free(checkpoint);
}

static void read_state(const run *r, const char *path)
{
    pgrad_checkpoint *checkpoint = NULL;
    OK(pgrad_checkpoint_open(r->w.context, path, &checkpoint));
    for (int i = 0; i < N_PARTS; i++)
        OK(pgrad_checkpoint_restore(checkpoint, PARTS[i].name, PARTS[i].kind, handle_of(r, i)));
    pgrad_checkpoint_free(checkpoint);
}

/* ---- a step ---- */

/* All begin with the same page, another one in each step; the last one's completions begin with forced tokens. */
static void add_prompts(pgrad_rollout *rollout, uint32_t step)
{
    static const size_t lengths[GROUPS] = {70, LONGEST, LONGEST};
    static const pgrad_token prefix[] = {'a', 'b'};
    for (uint32_t group = 0; group < GROUPS; group++) {
        pgrad_token ids[LONGEST];
        pgrad_prompt_params params;
        pgrad_prompt_params_init(&params, sizeof params);
        if (group == GROUPS - 1) {
            params.prefix = prefix;
            params.n_prefix = 2;
        }
        for (size_t i = 0; i < lengths[group]; i++)
            ids[i] = (pgrad_token)pgrad__uniform_below(step, i < COMMON ? GROUPS : group, i, 256);
        OK(pgrad_rollout_add_prompt(rollout, ids, lengths[group], &params, NULL));
    }
}

static uint64_t sample(run *r)
{
    pgrad_generate_params params;
    pgrad_rollout_info info = {.struct_size = sizeof info};
    pgrad_generate_params_init(&params, sizeof params);
    params.speculate = r->on.speculate;
    OK(pgrad_rollout_generate(r->rollout, r->sampler, &params));
    OK(pgrad_rollout_get_info(r->rollout, &info));
    ck_assert_uint_eq(info.prompt_tokens_reused, (GROUPS - 1) * COMMON);
    r->drafted += info.drafted_tokens;
    r->accepted += info.accepted_tokens;
    record *now = take_record(r->rollout);
    const uint64_t hash = hash_record(now);
    for (uint32_t i = 0; i < now->n; i++) {
        r->stopped += now->finish[i] == PGRAD_FINISH_STOP;
        r->by_length += now->finish[i] == PGRAD_FINISH_LENGTH;
    }
    free(now);
    return hash;
}

/* The rows of prompts and completions, each prompt once. */
static double least_rows(const pgrad_rollout *rollout)
{
    double n = 0.0;
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        const pgrad_sequence_info info = info_of(rollout, i);
        n += info.n_tokens - 1.0 + (i % SIZE == 0 ? info.n_prompt : 0.0);
    }
    return n;
}

/* The step went the way it is told to go. */
static void check_report(const run *r, const pgrad_step_report *report)
{
    const int kept = r->how->keep == PGRAD_KEEP_ON, is_exact = report->ratio_min == 1.0 && report->ratio_max == 1.0;
    ck_assert_double_gt(report->n_micro_batches, GROUPS); /* some group is cut */
    ck_assert_double_gt(report->kl, report->step > 1 ? 0.0 : -1.0);
    ck_assert_int_eq(is_exact, r->how->kv_storage == PGRAD_KV_F32);
    if (kept)
        ck_assert_double_gt(report->kept_rows, least_rows(r->rollout)); /* all, and prompts of cut groups again */
    else
        ck_assert_double_eq(report->kept_rows, 0.0);
    ck_assert_double_eq(report->recompute, r->how->recompute == PGRAD_RECOMPUTE_ON);
}

static void learn(run *r, uint64_t marks[N_MARKS])
{
    pgrad_step_report report;
    pgrad_backward_params params;
    pgrad_backward_params_init(&params, sizeof params);
    params.optimizer = r->how->in_backward ? r->optimizer : NULL;
    pgrad_step_report_init(&report, sizeof report);
    OK(pgrad_model_zero_grad(r->w.model));
    OK(pgrad_objective_backward(r->objective, r->rollout, NULL, 0, &params, &report));
    marks[GRADIENTS] = HASH_START;
    if (!r->how->in_backward) {
        marks[GRADIENTS] = hash_values(HASH_START, r->w.model, 1);
        OK(pgrad_optimizer_step(r->optimizer, &report));
    }
    const double numbers[] = {report.loss, report.kl, report.entropy, report.approx_kl, report.grad_norm,
                              report.n_micro_batches};
    hash_bytes(&marks[GRADIENTS], numbers, sizeof numbers);
    marks[WEIGHTS] = hash_values(HASH_START, r->w.model, 0);
    check_report(r, &report);
}

static void make_steps(run *r, uint32_t from, uint32_t to, hashes *out)
{
    for (uint32_t step = from; step < to; step++) {
        pgrad_rollout_clear(r->rollout);
        add_prompts(r->rollout, step);
        out->of_step[step][COMPLETIONS] = sample(r);
        OK(pgrad_reward_apply(r->reward, r->rollout));
        OK(pgrad_rollout_score(r->rollout, r->reference, PGRAD_REFERENCE));
        OK(pgrad_advantage_apply(r->advantage, r->rollout));
        learn(r, out->of_step[step]);
    }
    if (r->on.speculate == OFF) {
        ck_assert_uint_eq(r->drafted, 0);
    } else {
        ck_assert_uint_gt(r->accepted, 10 * (to - from));
        ck_assert_uint_gt(r->drafted, r->accepted + 10 * (to - from));
    }
    ck_assert_uint_gt(r->stopped, to - from); /* slots become free at different times */
    ck_assert_uint_gt(r->by_length, 0);
}

/* 0 when this machine lacks a kernel set. */
static int make_run(const way *how, const plan *p, uint32_t n_steps, const char *path, hashes *out)
{
    run r;
    const uint32_t split = is_taken_up(p) ? n_steps * SPLIT / STEPS : n_steps;
    if (!begin(&r, how, &p->first))
        return 0;
    make_steps(&r, 0, split, out);
    write_state(&r, path);
    end(&r);
    if (is_taken_up(p)) {
        if (!begin(&r, how, &p->then))
            return 0;
        read_state(&r, path);
        make_steps(&r, split, n_steps, out);
        write_state(&r, path);
        end(&r);
    }
    out->file = hash_file(path);
    return 1;
}

/* ---- the comparison ---- */

static void same_hashes(const way *how, size_t number, uint32_t n_steps, const hashes *found, const hashes *wanted)
{
    for (uint32_t step = 0; step < n_steps; step++)
        for (int mark = 0; mark < N_MARKS; mark++)
            ck_assert_msg(found->of_step[step][mark] == wanted->of_step[step][mark],
                          "%s: plan %zu: step %u has other %s than plan 0", how->name, number, step, MARKS[mark]);
    ck_assert_msg(found->file == wanted->file, "%s: plan %zu: another checkpoint", how->name, number);
}

/* A run moves: no step is like another one. */
static void all_differ(const hashes *h, uint32_t n_steps)
{
    for (uint32_t a = 0; a < n_steps; a++)
        for (uint32_t b = 0; b < a; b++)
            for (int mark = 0; mark < N_MARKS; mark++)
                ck_assert_uint_ne(h->of_step[a][mark], h->of_step[b][mark]);
}

START_TEST(however_it_runs)
{
    const way *how = &WAYS[_i];
    const uint32_t n_steps = is_short() ? STEPS / 2 : STEPS;
    char folder[512], path[600];
    hashes wanted = {.file = 0};
    temporary_folder(folder);
    snprintf(path, sizeof path, "%s/run.pgrad", folder);
    ck_assert(make_run(how, plan_of(0), n_steps, path, &wanted));
    all_differ(&wanted, n_steps);
    for (size_t k = 1; k < N_PLANS; k++) {
        const size_t number = k < N_OWN ? k : N_OWN + (size_t)_i;
        hashes found = {.file = 0};
        if (is_short() && (k + (size_t)_i) % 2 == 0)
            continue;
        if (make_run(how, plan_of(number), n_steps, path, &found))
            same_hashes(how, number, n_steps, &found, &wanted);
    }
    remove_folder(folder);
}
END_TEST

/* ---- the plans ---- */

enum { N_FACTORS = 5, N_LEVELS = 4 };

/* Numbers of threads, kernel sets, slots, drafts, and whether a run is taken up. */
static const struct {
    uint32_t n, levels[N_LEVELS];
} FACTORS[N_FACTORS] = {{4, {1, 2, 3, 8}}, {3, {GENERIC, HASWELL, SKX}}, {3, {1, 3, 0}}, {2, {OFF, ON}}, {2, {0, 1}}};

static int has(const machine *m, int taken_up, int factor, uint32_t level)
{
    const uint32_t values[N_FACTORS] = {m->n_threads, m->kernel_set, m->slots, m->speculate, (uint32_t)taken_up};
    return values[factor] == level;
}

static int meet(int a, uint32_t level_a, int b, uint32_t level_b)
{
    for (size_t k = 0; k < N_ALL; k++) {
        const plan *p = plan_of(k);
        const int taken_up = is_taken_up(p);
        const machine *const both[2] = {&p->first, &p->then};
        for (int i = 0; i <= taken_up; i++)
            if (has(both[i], taken_up, a, level_a) && has(both[i], taken_up, b, level_b))
                return 1;
    }
    return 0;
}

START_TEST(every_two_levels_meet)
{
    for (int a = 0; a < N_FACTORS; a++)
        for (int b = 0; b < a; b++)
            for (uint32_t i = 0; i < FACTORS[a].n; i++)
                for (uint32_t j = 0; j < FACTORS[b].n; j++)
                    ck_assert_msg(meet(a, FACTORS[a].levels[i], b, FACTORS[b].levels[j]),
                                  "factor %d, level %u never meets factor %d, level %u", a, i, b, j);
    for (size_t k = 0; k < N_ALL; k++)
        ck_assert_uint_ne(plan_of(k)->first.n_threads, plan_of(k)->then.n_threads);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_together");
    TCase *tests = tcase_create("together");
    tcase_set_timeout(tests, 300);
    tcase_add_test(tests, every_two_levels_meet);
    tcase_add_loop_test(tests, however_it_runs, 0, N_WAYS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
