/* Checkpoints of a host's own loop: a run taken up again equals one that was never interrupted, bit for bit,
 * from every step, in every storage, with other threads and kernel sets; what does not fit is refused and
 * changes nothing; what is in a file counts. */
#include "rl_test.h"

#include <math.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include "../failing_allocator.h"
#include "io/checkpoint_file.h"
#include "io/little_endian.h"
#include "rl/advantage.h"
#include "rl/checkpoint.h"
#include "rl/optimizer.h"

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

static void setup(void)
{
    temporary_folder(folder);
    snprintf(file, sizeof file, "%s/run.pgrad", folder);
    snprintf(other_file, sizeof other_file, "%s/other.pgrad", folder);
}

static void teardown(void)
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

static int32_t score(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
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

static void add_all(run *r)
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
static int make_run(run *r, const options *with)
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

static void drop_run(run *r)
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
static void sample(run *r, uint32_t number)
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

static void learn(run *r)
{
    OK(pgrad_rollout_score(r->rollout, r->reference, PGRAD_REFERENCE));
    OK(pgrad_advantage_apply(r->advantage, r->rollout));
    OK(pgrad_model_zero_grad(r->model));
    OK(pgrad_objective_backward(r->objective, r->rollout, NULL, 0, NULL, NULL));
    OK(pgrad_optimizer_step(r->optimizer, NULL));
}

static void steps(run *r, uint32_t from, uint32_t to)
{
    for (uint32_t i = from; i < to; i++) {
        sample(r, i);
        learn(r);
    }
}

/* All that a run leaves: the file of its checkpoint, without the weights' names in the way. */
static unsigned char *state_of(run *r, const char *path, size_t *size)
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

static void *handle_of(run *r, int part)
{
    void *const handles[N_PARTS] = {r->model,   r->reference, r->optimizer,
                                    r->sampler, r->advantage, r->rollout, r->objective};
    return handles[part];
}

static pgrad_status restore(run *r, const char *path)
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

/* ---- resuming ---- */

static const options CASES[] = {
    {LLAMA, PGRAD_STORAGE_F32, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_F32, 0, 1, 0.9},
    {LLAMA, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_BF16, 0, 1, 0.9},
    {LLAMA, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_ADAM, PGRAD_MOMENTS_Q8, 0, 1, 0.9},
    {GPT2, PGRAD_STORAGE_F32, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_Q8, 0, 1, 0.9},
    {GPT2, PGRAD_STORAGE_F32, PGRAD_OPTIMIZER_SGD, PGRAD_MOMENTS_BF16, 0, 1, 0.9},
    {GPT2, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_SGD, PGRAD_MOMENTS_Q8, 0, 1, 0.9}};
enum { N_CASES = sizeof CASES / sizeof CASES[0] };

/* Reinforced three ways: without interruption, taken up from a file after k steps by three threads of
 * another kernel set, and begun cold after k steps, which must differ. */
START_TEST(resumed_equals_uninterrupted)
{
    static const uint32_t SETS[] = {PGRAD_KERNELS_GENERIC, PGRAD_KERNELS_HASWELL, PGRAD_KERNELS_SKX};
    options with = CASES[_i];
    run whole;
    size_t size, other_size;
    ck_assert(make_run(&whole, &with));
    steps(&whole, 0, STEPS);
    unsigned char *expected = state_of(&whole, file, &size);
    drop_run(&whole);
    for (uint32_t k = 0; k < STEPS; k++) {
        run first, second, cold;
        options others = with;
        others.n_threads = 3;
        others.kernel_set = SETS[k % 3];
        ck_assert(make_run(&first, &with));
        steps(&first, 0, k);
        OK(pgrad_checkpoint_write(first.checkpoint, file, NULL));
        drop_run(&first);
        if (!make_run(&second, &others))
            continue;
        steps(&second, 0, k == 0 ? 1 : 0); /* whatever it has done before goes */
        OK(restore(&second, file));
        steps(&second, k, STEPS);
        unsigned char *found = state_of(&second, other_file, &other_size);
        ck_assert_uint_eq(other_size, size);
        ck_assert_mem_eq(found, expected, size);
        free(found);
        drop_run(&second);
        ck_assert(make_run(&cold, &with));
        steps(&cold, k, STEPS);
        found = state_of(&cold, other_file, &other_size);
        ck_assert(k == 0 || other_size != size || memcmp(found, expected, size) != 0);
        free(found);
        drop_run(&cold);
    }
    free(expected);
}
END_TEST

/* A rollout in progress: sampled and scored, not yet learned from. */
START_TEST(in_the_middle_of_a_step)
{
    run whole, first, second;
    size_t size, other_size;
    ck_assert(make_run(&whole, &CASES[0]));
    steps(&whole, 0, 3);
    unsigned char *expected = state_of(&whole, file, &size);
    drop_run(&whole);
    ck_assert(make_run(&first, &CASES[0]));
    steps(&first, 0, 2);
    sample(&first, 2);
    OK(pgrad_checkpoint_write(first.checkpoint, file, NULL));
    drop_run(&first);
    ck_assert(make_run(&second, &CASES[0]));
    OK(restore(&second, file));
    ck_assert_uint_eq(pgrad_rollout_count(second.rollout), GROUPS * SIZE);
    ck_assert_str_eq(pgrad_rollout_data(second.rollout, 1, "answer", NULL), "the data");
    learn(&second);
    unsigned char *found = state_of(&second, other_file, &other_size);
    ck_assert_uint_eq(other_size, size);
    ck_assert_mem_eq(found, expected, size);
    steps(&second, 3, 4); /* its arrays have room for more */
    free(found);
    free(expected);
    drop_run(&second);
}
END_TEST

/* Every kernel set writes the same file, a frozen Q8_0 model included. */
START_TEST(one_file_for_all_kernel_sets)
{
    unsigned char *files[4] = {NULL};
    size_t sizes[4];
    for (uint32_t set = PGRAD_KERNELS_GENERIC; set <= PGRAD_KERNELS_SKX; set++) {
        run r;
        options with = CASES[2];
        pgrad_model *frozen;
        pgrad_model_params params;
        with.kernel_set = set;
        with.n_threads = set;
        if (!make_run(&r, &with))
            continue;
        pgrad_model_params_init(&params, sizeof params);
        params.storage = PGRAD_STORAGE_Q8_0;
        params.frozen = 1;
        OK(pgrad_model_create(r.context, LLAMA, 5, &params, &frozen));
        OK(pgrad_checkpoint_add(r.checkpoint, "frozen", PGRAD_KIND_MODEL, frozen));
        steps(&r, 0, 2);
        files[set] = state_of(&r, file, &sizes[set]);
        pgrad_checkpoint *opened;
        float before[97 * 72], after[97 * 72];
        size_t n;
        OK(pgrad_model_tensor_read(frozen, "model.embed_tokens.weight", before, 97 * 72, &n));
        pgrad_model_free(frozen);
        OK(pgrad_model_create(r.context, LLAMA, 6, &params, &frozen));
        OK(pgrad_checkpoint_open(r.context, file, &opened));
        OK(pgrad_checkpoint_restore(opened, "frozen", PGRAD_KIND_MODEL, frozen));
        OK(pgrad_model_tensor_read(frozen, "model.embed_tokens.weight", after, 97 * 72, &n));
        ck_assert_mem_eq(before, after, sizeof before);
        pgrad_checkpoint_free(opened);
        pgrad_model_free(frozen);
        drop_run(&r);
        ck_assert_uint_eq(sizes[set], sizes[PGRAD_KERNELS_GENERIC]);
        ck_assert_mem_eq(files[set], files[PGRAD_KERNELS_GENERIC], sizes[set]);
    }
    for (int i = 0; i < 4; i++)
        free(files[i]);
}
END_TEST

/* ---- what is in a file ---- */

START_TEST(a_file_lists_its_parts)
{
    run r;
    pgrad_checkpoint *opened;
    char text[16];
    size_t n;
    ck_assert(make_run(&r, &CASES[0]));
    ck_assert_uint_eq(pgrad_checkpoint_count(r.checkpoint), N_PARTS + 1);
    OK(pgrad_checkpoint_add_text(r.checkpoint, "notes", "eighteen\0more", 13));
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    OK(pgrad_checkpoint_open(r.context, file, &opened));
    ck_assert_uint_eq(pgrad_checkpoint_count(opened), N_PARTS + 1);
    for (uint32_t i = 0; i <= N_PARTS; i++) {
        pgrad_checkpoint_part part = {.struct_size = sizeof part};
        OK(pgrad_checkpoint_get_part(opened, i, &part));
        ck_assert_str_eq(part.name, i < N_PARTS ? PARTS[i].name : "notes");
        ck_assert_int_eq((int32_t)part.kind, i < N_PARTS ? PARTS[i].kind : PGRAD_KIND_TEXT);
        ck_assert_uint_gt(part.size, 0);
        ck_assert_uint_gt(part.stored_bytes, 0);
    }
    FAILS(PGRAD_E_BUFFER, "14 bytes", pgrad_checkpoint_get_text(opened, "notes", NULL, 0, &n));
    ck_assert_uint_eq(n, 13);
    OK(pgrad_checkpoint_get_text(opened, "notes", text, sizeof text, &n));
    ck_assert_mem_eq(text, "eighteen\0more", 14);
    FAILS(PGRAD_E_MISMATCH, "no part 'other'", pgrad_checkpoint_get_text(opened, "other", text, 16, &n));
    FAILS(PGRAD_E_MISMATCH, "kind 0", pgrad_checkpoint_get_text(opened, "policy", text, 16, &n));
    FAILS(PGRAD_E_STATE, "opened", pgrad_checkpoint_write(opened, file, NULL));
    FAILS(PGRAD_E_STATE, "opened", pgrad_checkpoint_add(opened, "x", PGRAD_KIND_MODEL, r.model));
    FAILS(PGRAD_E_STATE, "not opened", pgrad_checkpoint_restore(r.checkpoint, "policy", 0, r.model));
    pgrad_checkpoint_free(opened);
    drop_run(&r);
}
END_TEST

START_TEST(bad_arguments)
{
    run r;
    pgrad_context *other = test_context(PGRAD_KERNELS_AUTO, 1);
    pgrad_sampler *stranger;
    pgrad_checkpoint_params params;
    char long_name[80];
    ck_assert(make_run(&r, &CASES[0]));
    memset(long_name, 'n', sizeof long_name);
    long_name[64] = '\0';
    OK(pgrad_sampler_create(other, NULL, &stranger));
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.keep = 101;
    FAILS(PGRAD_E_INVALID, "1 to 63", pgrad_checkpoint_add(r.checkpoint, long_name, 0, r.model));
    FAILS(PGRAD_E_INVALID, "1 to 63", pgrad_checkpoint_add(r.checkpoint, "", 0, r.model));
    FAILS(PGRAD_E_INVALID, "control", pgrad_checkpoint_add(r.checkpoint, "a\n", 0, r.model));
    FAILS(PGRAD_E_INVALID, "kind", pgrad_checkpoint_add(r.checkpoint, "a", PGRAD_KIND_TEXT, r.model));
    FAILS(PGRAD_E_INVALID, "kind", pgrad_checkpoint_add(r.checkpoint, "a", -1, r.model));
    FAILS(PGRAD_E_INVALID, "NULL", pgrad_checkpoint_add(r.checkpoint, "a", 0, NULL));
    FAILS(PGRAD_E_STATE, "already", pgrad_checkpoint_add(r.checkpoint, "policy", 0, r.model));
    FAILS(PGRAD_E_STATE, "a model", pgrad_checkpoint_add_text(r.checkpoint, "policy", "", 0));
    FAILS(PGRAD_E_MISMATCH, "another context",
          pgrad_checkpoint_add(r.checkpoint, "s", PGRAD_KIND_SAMPLER, stranger));
    FAILS(PGRAD_E_INVALID, "keep", pgrad_checkpoint_write(r.checkpoint, file, &params));
    FAILS(PGRAD_E_INVALID, "path", pgrad_checkpoint_write(r.checkpoint, "", NULL));
    FAILS(PGRAD_E_IO, "a folder", pgrad_checkpoint_write(r.checkpoint, folder, NULL));
    pgrad_sampler_free(stranger);
    pgrad_context_free(other);
    drop_run(&r);
}
END_TEST

/* CK12: another model, storage, optimizer or option is refused by name, and the handle stays as it was. */
START_TEST(what_differs_is_refused)
{
    const struct {
        options with;
        const char *text;
    } OTHERS[] = {
        {{GPT2, 0, PGRAD_OPTIMIZER_ADAMW, 0, 0, 1, 0.9}, "part 'policy'"},
        {{LLAMA, PGRAD_STORAGE_BF16, PGRAD_OPTIMIZER_ADAMW, 0, 0, 1, 0.9},
         "'model.embed_tokens.weight': the checkpoint has f32 [97, 72], here is bf16 [97, 72]"},
        {{LLAMA, 0, PGRAD_OPTIMIZER_ADAM, 0, 0, 1, 0.9}, "'kind': the checkpoint has 2, here is 1"},
        {{LLAMA, 0, PGRAD_OPTIMIZER_ADAMW, PGRAD_MOMENTS_Q8, 0, 1, 0.9},
         "'moments': the checkpoint has 0, here is 2"},
        {{LLAMA, 0, PGRAD_OPTIMIZER_ADAMW, 0, 0, 1, 0.8},
         "'beta1': the checkpoint has 0.9, here is 0.8"}};
    run r;
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 2);
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    drop_run(&r);
    for (size_t i = 0; i < sizeof OTHERS / sizeof OTHERS[0]; i++) {
        run other;
        size_t before_size, after_size;
        pgrad_checkpoint *opened;
        ck_assert(make_run(&other, &OTHERS[i].with));
        unsigned char *before = state_of(&other, other_file, &before_size);
        const int part = i < 2 ? 0 : 2;
        OK(pgrad_checkpoint_open(other.context, file, &opened));
        FAILS(PGRAD_E_MISMATCH, OTHERS[i].text,
              pgrad_checkpoint_restore(opened, PARTS[part].name, PARTS[part].kind, handle_of(&other, part)));
        FAILS(PGRAD_E_MISMATCH, "not a sampler",
              pgrad_checkpoint_restore(opened, "policy", PGRAD_KIND_SAMPLER, other.sampler));
        pgrad_checkpoint_free(opened);
        unsigned char *after = state_of(&other, other_file, &after_size);
        ck_assert_uint_eq(before_size, after_size);
        ck_assert_mem_eq(before, after, after_size);
        free(before);
        free(after);
        drop_run(&other);
    }
}
END_TEST

/* ---- completeness by mutation ---- */

typedef struct contents {
    unsigned char *bytes[N_PARTS + 1];
    size_t sizes[N_PARTS + 1];
    pgrad__checkpoint_part parts[N_PARTS + 1];
} contents;

static contents read_contents(pgrad_context *context)
{
    contents c;
    pgrad__checkpoint_file from = {0};
    OK(pgrad__checkpoint_file_open(context, file, &from));
    for (int i = 0; i <= N_PARTS; i++) {
        pgrad__checkpoint_stream stream;
        c.parts[i] = from.parts[i];
        c.sizes[i] = (size_t)from.parts[i].size;
        c.bytes[i] = malloc(c.sizes[i]);
        pgrad__checkpoint_stream_begin(&stream, &from, &from.parts[i]);
        OK(pgrad__checkpoint_stream_read(&stream, c.bytes[i], c.sizes[i]));
    }
    pgrad__checkpoint_file_close(&from);
    return c;
}

static void write_contents(pgrad_context *context, const contents *c, int first, int end)
{
    pgrad__checkpoint_writer to = {0};
    OK(pgrad__checkpoint_writer_open(context, other_file, N_PARTS + 1, &to));
    for (int i = first; i < end; i++) {
        OK(pgrad__checkpoint_writer_begin(&to, c->parts[i].kind, c->parts[i].name));
        OK(pgrad__checkpoint_writer_put(&to, c->bytes[i], c->sizes[i]));
        OK(pgrad__checkpoint_writer_end(&to));
    }
    OK(pgrad__checkpoint_writer_finish(&to, 1));
    pgrad__checkpoint_writer_close(&to);
}

/* Restores the changed file and goes on: refused, or another end than `expected`. */
static void must_count(const contents *c, const unsigned char *expected, size_t size, const char *what)
{
    run r;
    ck_assert(make_run(&r, &CASES[2]));
    write_contents(r.context, c, 0, N_PARTS + 1);
    pgrad_status status = restore(&r, other_file);
    if (status == PGRAD_OK) {
        size_t n;
        steps(&r, 2, 3);
        unsigned char *found = state_of(&r, other_file, &n);
        ck_assert_msg(n != size || memcmp(found, expected, n) != 0, "%s: changed, and nobody noticed", what);
        free(found);
    } else {
        ck_assert_msg(status == PGRAD_E_FORMAT || status == PGRAD_E_MISMATCH ||
                          status == PGRAD_E_UNSUPPORTED || status == PGRAD_E_LIMIT,
                      "%s: %s: %s", what, pgrad_status_name(status), pgrad_error_message());
    }
    drop_run(&r);
}

/* Each number of each part, and the first and last byte of its arrays. The rollout is put aside: the next
 * step begins another one. */
START_TEST(every_field_counts)
{
    run r;
    size_t size;
    ck_assert(make_run(&r, &CASES[2]));
    steps(&r, 0, 2);
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    contents c = read_contents(r.context);
    steps(&r, 2, 3);
    unsigned char *expected = state_of(&r, other_file, &size);
    drop_run(&r);
    for (int part = 0; part < N_PARTS; part++) {
        if (part == ROLLOUT)
            continue;
        unsigned char *bytes = c.bytes[part];
        const uint32_t n_records = pgrad__get_u32(bytes);
        size_t at = 8;
        for (uint32_t i = 0; i < n_records; i++) {
            char name[100];
            const size_t length = bytes[at] | (size_t)bytes[at + 1] << 8;
            snprintf(name, sizeof name, "%s: %.*s", c.parts[part].name, (int)length, bytes + at + 2);
            at += 2 + length + 1;
            const size_t byte = i % 2 == 0 ? 0 : 7; /* of the number: low or high */
            bytes[at + byte] ^= 1;
            must_count(&c, expected, size, name);
            bytes[at + byte] ^= 1;
            at += 8;
        }
        const size_t last = c.sizes[part] - 1;
        for (int end = 0; end < 2 && c.sizes[part] > at; end++) {
            unsigned char *byte = &bytes[end == 0 ? at : last];
            *byte ^= 4;
            must_count(&c, expected, size, c.parts[part].name);
            *byte ^= 4;
        }
    }
    for (int i = 0; i <= N_PARTS; i++)
        free(c.bytes[i]);
    free(expected);
}
END_TEST

/* CK14: any byte of a rollout's part may be anything: told, or taken and used, and nothing else. */
START_TEST(hostile_rollouts)
{
    run r;
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 1);
    OK(pgrad_checkpoint_write(r.checkpoint, file, NULL));
    contents c = read_contents(r.context);
    int refused = 0, tried = 0;
    for (size_t at = 0; at < c.sizes[ROLLOUT]; at += at < 1500 ? 1 : 37) {
        static const unsigned char VALUES[] = {0xff, 0x80, 1};
        pgrad_checkpoint *opened;
        const unsigned char before = c.bytes[ROLLOUT][at];
        c.bytes[ROLLOUT][at] ^= VALUES[at % 3];
        write_contents(r.context, &c, ROLLOUT, ROLLOUT + 1);
        OK(pgrad_checkpoint_open(r.context, other_file, &opened));
        pgrad_status status =
            pgrad_checkpoint_restore(opened, "rollout", PGRAD_KIND_ROLLOUT, r.rollout);
        pgrad_checkpoint_free(opened);
        c.bytes[ROLLOUT][at] = before;
        tried++;
        refused += status != PGRAD_OK;
        if (status == PGRAD_OK) {
            pgrad_step_report report;
            pgrad_step_report_init(&report, sizeof report);
            (void)pgrad_rollout_report(r.rollout, &report);
            (void)pgrad_rollout_data(r.rollout, 0, "answer", NULL);
            for (uint32_t i = 0; i < pgrad_rollout_count(r.rollout); i++)
                (void)pgrad_rollout_text(r.rollout, i, NULL);
            (void)pgrad_rollout_score(r.rollout, r.reference, PGRAD_REFERENCE);
        }
    }
    ck_assert_int_gt(refused, tried / 4);
    for (int i = 0; i <= N_PARTS; i++)
        free(c.bytes[i]);
    drop_run(&r);
}
END_TEST

/* ---- in the background ---- */

static pgrad_checkpoint_params background(void)
{
    pgrad_checkpoint_params params;
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.background = 1;
    params.keep = 2;
    return params;
}

/* The file has the state of the moment it was asked for, whatever the run does meanwhile. */
START_TEST(behind_the_run)
{
    run r;
    size_t size, other_size;
    char old[620];
    pgrad_checkpoint_params params = background();
    snprintf(old, sizeof old, "%s.1", other_file);
    ck_assert(make_run(&r, &CASES[0]));
    steps(&r, 0, 2);
    unsigned char *expected = state_of(&r, file, &size);
    OK(pgrad_checkpoint_write(r.checkpoint, other_file, &params));
    steps(&r, 2, 4);
    OK(pgrad_checkpoint_add_text(r.checkpoint, "notes", "changed", 7));
    OK(pgrad_checkpoint_write(r.checkpoint, other_file, &params));
    OK(pgrad_checkpoint_wait(r.checkpoint));
    OK(pgrad_checkpoint_wait(r.checkpoint));
    FILE *from = fopen(old, "rb");
    ck_assert_ptr_nonnull(from);
    unsigned char *found = malloc(size);
    other_size = fread(found, 1, size, from);
    fclose(from);
    ck_assert_uint_eq(other_size, size);
    ck_assert_mem_eq(found, expected, size);
    free(found);
    free(expected);
    OK(pgrad_checkpoint_write(r.checkpoint, other_file, &params));
    drop_run(&r); /* waits */
}
END_TEST

/* A child of the process has no thread to wait for, and the parent's file is none of its business. */
START_TEST(a_forked_child_lets_go)
{
    run r;
    int status;
    pgrad_checkpoint_params params = background();
    pgrad_checkpoint *opened;
    ck_assert(make_run(&r, &CASES[0]));
    hold = 1;
    OK(pgrad_checkpoint_write(r.checkpoint, file, &params));
    steps(&r, 0, 1);
    ck_assert_int_ne(access(file, F_OK), 0);
    pid_t child = fork();
    ck_assert_int_ge(child, 0);
    if (child == 0) {
        hold = 0;
        if (pgrad_checkpoint_write(r.checkpoint, file, &params) != PGRAD_E_STATE)
            _exit(1);
        pgrad_checkpoint_free(r.checkpoint);
        _exit(0);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    hold = 0;
    OK(pgrad_checkpoint_wait(r.checkpoint));
    OK(pgrad_checkpoint_open(r.context, file, &opened));
    pgrad_checkpoint_free(opened);
    drop_run(&r);
}
END_TEST

/* What failed behind the run is told by the next call, once. */
START_TEST(failures_behind_the_run)
{
    run r;
    pgrad_checkpoint_params params = background();
    float nothing[72];
    size_t n;
    ck_assert(make_run(&r, &CASES[0]));
    OK(pgrad_model_tensor_read(r.model, "model.norm.weight", nothing, 72, &n));
    ((float *)r.model->tensors[r.model->n_tensors - 1].data)[0] = NAN;
    OK(pgrad_checkpoint_write(r.checkpoint, file, &params));
    FAILS(PGRAD_E_NUMERIC, "not finite", pgrad_checkpoint_write(r.checkpoint, file, &params));
    ck_assert_int_ne(access(file, F_OK), 0); /* CK18 */
    FAILS(PGRAD_E_NUMERIC, "not finite", pgrad_checkpoint_write(r.checkpoint, file, NULL));
    drop_run(&r);
}
END_TEST

static void count_lines(void *user, int32_t level, const char *line)
{
    (void)level;
    *(int *)user += strstr(line, "not in the background") != NULL;
}

/* Each allocation of write, background or not, open and restore fails in turn. */
START_TEST(out_of_memory)
{
    counted state = {-1, 0};
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params context_params;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_checkpoint *checkpoint, *opened;
    pgrad_checkpoint_params params = background();
    int fallbacks = 0;
    pgrad_context_params_init(&context_params, sizeof context_params);
    context_params.n_threads = 1;
    context_params.allocator = &allocator;
    OK(pgrad_context_create(&context_params, &context));
    OK(pgrad_context_set_log(context, count_lines, &fallbacks, PGRAD_LOG_WARNING));
    OK(pgrad_model_create(context, LLAMA, 3, NULL, &model));
    OK(pgrad_checkpoint_create(context, &checkpoint));
    OK(pgrad_checkpoint_add(checkpoint, "policy", PGRAD_KIND_MODEL, model));
    const long alive = state.live;
    for (int call = 0; call < 3; call++)
        for (long n = 1;; n++) {
            params.background = call == 1;
            state.left = n;
            pgrad_status status = call < 2 ? pgrad_checkpoint_write(checkpoint, file, &params)
                                           : pgrad_checkpoint_open(context, file, &opened);
            if (call == 2 && status == PGRAD_OK) {
                status = pgrad_checkpoint_restore(opened, "policy", PGRAD_KIND_MODEL, model);
                pgrad_checkpoint_free(opened);
            }
            const int failed = state.left <= 0;
            state.left = -1;
            OK(pgrad_checkpoint_wait(checkpoint));
            ck_assert(status == PGRAD_OK || status == PGRAD_E_NOMEM);
            ck_assert(failed || status == PGRAD_OK);
            ck_assert_int_le(state.live, alive + (call > 0)); /* the copy's memory stays */
            if (!failed)
                break;
        }
    ck_assert_int_gt(fallbacks, 0);
    pgrad_checkpoint_free(checkpoint);
    pgrad_model_free(model);
    pgrad_context_free(context);
    ck_assert_int_eq(state.live, 0);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("checkpoint");
    TCase *tests = tcase_create("checkpoint");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 240);
    tcase_add_loop_test(tests, resumed_equals_uninterrupted, 0, N_CASES);
    tcase_add_test(tests, in_the_middle_of_a_step);
    tcase_add_test(tests, one_file_for_all_kernel_sets);
    tcase_add_test(tests, a_file_lists_its_parts);
    tcase_add_test(tests, bad_arguments);
    tcase_add_test(tests, what_differs_is_refused);
    tcase_add_test(tests, every_field_counts);
    tcase_add_test(tests, hostile_rollouts);
    tcase_add_test(tests, behind_the_run);
    tcase_add_test(tests, a_forked_child_lets_go);
    tcase_add_test(tests, failures_behind_the_run);
    tcase_add_test(tests, out_of_memory);
    suite_add_tcase(suite, tests);
    SRunner *runner = srunner_create(suite);
    srunner_run_all(runner, CK_ENV);
    int failed = srunner_ntests_failed(runner);
    srunner_free(runner);
    return failed != 0;
}
