/* What a host does with the library, a row of calls each: loading, encoding, sampling, scoring, learning, saving,
 * checkpoints, a whole run. The tests of this folder disturb them, each in its own way, and hold that an error is
 * told, nothing is lost, and the same calls then give the bits of a run that nobody disturbed. */
#ifndef PGRAD_TESTS_STAGE_H
#define PGRAD_TESTS_STAGE_H

#include "../rl/rl_test.h"

#include <sys/stat.h>

typedef struct stage {
    world w;
    const pgrad_allocator *allocator;
    char folder[512];
    uint64_t digest; /* of what the last run gave */
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_sampler *sampler;
    pgrad_rollout *rollout;
    pgrad_reward *rewards[5]; /* the last one: the sum of the others */
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_checkpoint *checkpoint;
    float numbers[1 << 13];
} stage;

typedef pgrad_status (*stage_fn)(stage *s);

typedef struct scenario {
    const char *name;
    void (*begin)(stage *s);   /* undisturbed, before the calls */
    stage_fn run;              /* the calls; may be called again after a failure */
    void (*restart)(stage *s); /* before that, as a process that starts anew does; NULL: the same handles go on */
    uint64_t (*result)(stage *s); /* of a run that succeeded */
    const char *target;           /* what it writes, NULL: nothing that must be old or new */
} scenario;

static const char STAGE_CONFIG[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":16,\"intermediate_size\":24,"
    "\"num_hidden_layers\":2,\"num_attention_heads\":2,\"num_key_value_heads\":1,\"max_position_embeddings\":64,"
    "\"vocab_size\":272,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,\"hidden_act\":\"silu\","
    "\"tie_word_embeddings\":true,\"initializer_range\":0.3}";
static const char SMALLEST_CONFIG[] = "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":8,\"n_embd\":8,"
                                      "\"n_layer\":1,\"n_head\":2,\"activation_function\":\"gelu_new\"}";

enum { STAGE_GROUP = 2, STAGE_PROMPTS = 2, STAGE_NEW = 5 };

/* A path in the stage's folder; a few of them live at once. */
static inline const char *in_stage(const stage *s, const char *name)
{
    static _Thread_local char paths[8][600];
    static _Thread_local unsigned next;
    char *path = paths[next++ % 8];
    snprintf(path, sizeof paths[0], "%s/%s", s->folder, name);
    return path;
}

static inline uint64_t fnv(uint64_t hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ bytes[i]) * 0x100000001b3u;
    return hash;
}

/* A file's bytes; 1 for none. */
static inline uint64_t digest_of_file(const char *path)
{
    uint64_t hash = 2;
    char piece[4096];
    FILE *file = fopen(path, "rb");
    if (file == NULL)
        return 1;
    for (size_t n; (n = fread(piece, 1, sizeof piece, file)) > 0;)
        hash = fnv(hash, piece, n);
    fclose(file);
    return hash;
}

/* A file, or those a save writes into a folder. */
static inline uint64_t digest_of_target(const stage *s, const char *name)
{
    static const char *const FILES[] = {"config.json", "model.safetensors", "tokenizer.json"};
    struct stat about;
    char path[700];
    uint64_t hash = 3;
    if (stat(in_stage(s, name), &about) == 0 && S_ISREG(about.st_mode))
        return digest_of_file(in_stage(s, name));
    for (size_t i = 0; i < sizeof FILES / sizeof FILES[0]; i++) {
        snprintf(path, sizeof path, "%s/%s", in_stage(s, name), FILES[i]);
        const uint64_t file = digest_of_file(path);
        hash = fnv(hash, &file, sizeof file);
    }
    return hash;
}

static inline int count_entries(const char *path)
{
    int n = -2;
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

static inline uint64_t digest_of_weights(stage *s, pgrad_model *model)
{
    uint64_t hash = 5;
    const char *name;
    size_t n;
    for (uint32_t i = 0; (name = pgrad_model_tensor_name(model, i, NULL, NULL)) != NULL; i++) {
        OK(pgrad_model_tensor_read(model, name, s->numbers, sizeof s->numbers / sizeof(float), &n));
        hash = fnv(hash, s->numbers, n * sizeof(float));
    }
    return hash;
}

static inline uint64_t digest_of_run(stage *s)
{
    return s->digest;
}

static inline uint64_t digest_of_model(stage *s)
{
    return digest_of_weights(s, s->model);
}

/* ---- the stage ---- */

static inline void write_text(const stage *s, const char *name, const char *text)
{
    put_file(s->folder, name, text, strlen(text));
}

/* Gives the tokenizer NFC, which the one of rl_test.h has not. */
static inline void compose_first(const char *path)
{
    static const char PLAIN[] = "\"normalizer\":null", NFC[] = "\"normalizer\":{\"type\":\"NFC\"}";
    size_t size;
    char *text = get_file(path, &size);
    char *at = strstr(text, PLAIN);
    ck_assert_ptr_nonnull(at);
    FILE *file = fopen(path, "wb");
    fprintf(file, "%.*s%s%s", (int)(at - text), text, NFC, at + sizeof PLAIN - 1);
    ck_assert_int_eq(fclose(file), 0);
    free(text);
}

static inline void write_models(stage *s)
{
    pgrad_save_params params;
    pgrad_model *learner = NULL;
    OK(pgrad_model_create(s->w.context, STAGE_CONFIG, 9, NULL, &learner));
    OK(pgrad_model_save(learner, in_stage(s, "learner"), NULL));
    pgrad_model_free(learner);
    pgrad_save_params_init(&params, sizeof params);
    params.max_shard_bytes = 15000;
    OK(pgrad_model_save(s->w.model, in_stage(s, "shards"), &params));
    params.max_shard_bytes = 0;
    params.tokenizer = make_tokenizer(s->w.context);
    OK(pgrad_model_save(s->w.model, in_stage(s, "model"), &params));
    pgrad_tokenizer_free(params.tokenizer);
    compose_first(in_stage(s, "model/tokenizer.json"));
    mkdir(in_stage(s, "pair"), 0700);
    write_text(s, "pair/vocab.json", "{\"h\":0,\"e\":1,\"he\":2,\"<|endoftext|>\":3,\"!\":4}");
    write_text(s, "pair/merges.txt", "#version: 0.2\nh e\n");
    write_text(s, "pair/added_tokens.json", "{\"<|im_end|>\":5}");
    write_text(s, "pair/tokenizer_config.json", "{\"pad_token\":\"<|endoftext|>\",\"eos_token\":\"<|im_end|>\"}");
}

static inline void open_stage(stage *s, const pgrad_allocator *allocator, uint32_t n_threads)
{
    pgrad_context_params params;
    memset(s, 0, sizeof *s);
    s->allocator = allocator;
    temporary_folder(s->folder);
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = n_threads;
    params.allocator = allocator;
    OK(pgrad_context_create(&params, &s->w.context));
    s->w.memory = memory_now(s->w.context);
    s->w.model = make_model(s->w.context, STAGE_CONFIG);
    write_models(s);
    OK(pgrad_tokenizer_load(s->w.context, in_stage(s, "model"), &s->w.tokenizer));
}

/* Everything that a scenario has made. */
static inline void clear_stage(stage *s)
{
    pgrad_checkpoint_free(s->checkpoint);
    pgrad_optimizer_free(s->optimizer);
    pgrad_objective_free(s->objective);
    pgrad_advantage_free(s->advantage);
    for (int i = 0; i < 5; i++) {
        pgrad_reward_free(s->rewards[i]);
        s->rewards[i] = NULL;
    }
    pgrad_rollout_free(s->rollout);
    pgrad_sampler_free(s->sampler);
    pgrad_tokenizer_free(s->tokenizer);
    pgrad_model_free(s->model);
    s->checkpoint = NULL;
    s->optimizer = NULL;
    s->objective = NULL;
    s->advantage = NULL;
    s->rollout = NULL;
    s->sampler = NULL;
    s->tokenizer = NULL;
    s->model = NULL;
}

static inline void close_stage(stage *s)
{
    clear_stage(s);
    end_world(&s->w);
    remove_folder(s->folder);
}

static inline void no_beginning(stage *s)
{
    (void)s;
}

/* ---- context and loading ---- */

/* A handle that a call was to make: there if it says so, and left alone, which is NULL here, where it failed. The check
 * takes no memory unless it fails. out: where the handle stands. */
static inline pgrad_status made(pgrad_status status, const void *out)
{
    void *handle;
    memcpy(&handle, out, sizeof handle);
    if ((status == PGRAD_OK) != (handle != NULL))
        ck_abort_msg("%s, and the handle is %s", pgrad_status_name(status), handle == NULL ? "NULL" : "set");
    return status;
}

static inline pgrad_status from_the_start(stage *s)
{
    static const pgrad_token ids[] = {1, 2, 3, 4};
    enum { VOCABULARY = 24 };
    pgrad_context_params params;
    pgrad_context *context = NULL;
    pgrad_model *model = NULL;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 3;
    params.allocator = s->allocator;
    pgrad_status status = made(pgrad_context_create(&params, &context), &context);
    if (status == PGRAD_OK)
        status = made(pgrad_model_create(context, SMALLEST_CONFIG, 3, NULL, &model), &model);
    if (status == PGRAD_OK)
        status = pgrad_model_logits(model, ids, 4, PGRAD_LOGITS_LAST, s->numbers, VOCABULARY);
    pgrad_model_free(model);
    pgrad_context_free(context);
    s->digest = fnv(7, s->numbers, VOCABULARY * sizeof(float));
    return status;
}

static inline pgrad_status load_model(stage *s, const char *path)
{
    return made(pgrad_model_load(s->w.context, path, NULL, &s->model), &s->model);
}

static inline pgrad_status load_folder(stage *s)
{
    return load_model(s, in_stage(s, "model"));
}

static inline pgrad_status load_shards(stage *s)
{
    return load_model(s, in_stage(s, "shards"));
}

static inline pgrad_status load_gguf(stage *s)
{
    char path[512];
    return load_model(s, data_path(path, "tiny_gpt2_f16.gguf"));
}

static inline pgrad_status load_tokenizer(stage *s)
{
    return made(pgrad_tokenizer_load(s->w.context, in_stage(s, "model"), &s->tokenizer), &s->tokenizer);
}

static inline pgrad_status load_pair(stage *s)
{
    return made(pgrad_tokenizer_load(s->w.context, in_stage(s, "pair"), &s->tokenizer), &s->tokenizer);
}

static inline pgrad_status encode_with(stage *s, pgrad_tokenizer *tokenizer)
{
    static const char TEXT[] = "he! he said: cafe\xcc\x81, 1234  \n<|im_end|><|endoftext|> he!";
    pgrad_token ids[128];
    char text[512];
    size_t n = 0, length = 0;
    pgrad_decoder *decoder = NULL;
    pgrad_status status =
        pgrad_tokenizer_encode(tokenizer, TEXT, sizeof TEXT - 1, PGRAD_ENCODE_SPECIAL, ids, 128, &n);
    if (status == PGRAD_OK)
        status = pgrad_tokenizer_decode(tokenizer, ids, n, 0, text, sizeof text, &length);
    if (status == PGRAD_OK)
        status = made(pgrad_decoder_create(tokenizer, 0, &decoder), &decoder);
    s->digest = fnv(fnv(11, ids, n * sizeof *ids), text, length);
    for (size_t i = 0; status == PGRAD_OK && i < n; i++) {
        const char *piece;
        status = pgrad_decoder_push(decoder, ids[i], &piece, &length);
        if (status == PGRAD_OK)
            s->digest = fnv(s->digest, piece, length);
    }
    pgrad_decoder_free(decoder);
    return status;
}

static inline pgrad_status encode(stage *s)
{
    return encode_with(s, s->w.tokenizer);
}

static inline uint64_t digest_of_tokenizer(stage *s)
{
    OK(encode_with(s, s->tokenizer));
    return fnv(s->digest, (char[]){(char)pgrad_tokenizer_special(s->tokenizer, PGRAD_TOKEN_EOS)}, 1);
}

/* ---- a step ---- */

static inline void make_stage_rollout(stage *s)
{
    pgrad_rollout_params params;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = STAGE_GROUP;
    params.max_prompts = STAGE_PROMPTS;
    params.max_prompt_tokens = 16;
    params.max_new_tokens = STAGE_NEW;
    OK(pgrad_rollout_create(s->model != NULL ? s->model : s->w.model, s->w.tokenizer, &params, &s->rollout));
}

static inline void make_stage_sampler(stage *s)
{
    static const char *const STOPS[] = {"zzz", "\xc3\xa9"};
    pgrad_sampler_params params = sampler_defaults();
    params.stop_strings = STOPS;
    params.n_stop_strings = 2;
    params.top_k = 50;
    params.top_p = 0.95;
    params.repetition_penalty = 1.1;
    s->sampler = make_sampler(s->w.context, &params);
}

static inline void begin_generate(stage *s)
{
    make_stage_sampler(s);
    make_stage_rollout(s);
    for (uint32_t i = 0; i < STAGE_PROMPTS; i++) {
        const uint32_t group = add_text_prompt(s->rollout, i == 0 ? "one " : "two, or ", NULL);
        OK(pgrad_rollout_set_data(s->rollout, group, "answer", "12", 2));
    }
}

static inline pgrad_status generate(stage *s)
{
    return pgrad_rollout_generate(s->rollout, s->sampler, NULL);
}

static inline uint64_t digest_of_rollout(stage *s)
{
    uint64_t hash = pgrad_sampler_next_sequence(s->sampler);
    for (uint32_t i = 0; i < pgrad_rollout_count(s->rollout); i++) {
        size_t n, length;
        const pgrad_token *ids = pgrad_rollout_tokens(s->rollout, i, &n);
        hash = fnv(hash, ids, n * sizeof *ids);
        hash = fnv(hash, pgrad_rollout_array(s->rollout, PGRAD_LOGPROBS, i, NULL), n * sizeof(float));
        const char *text = pgrad_rollout_text(s->rollout, i, &length);
        hash = fnv(hash, text, length);
    }
    return hash;
}

static inline void begin_rewards(stage *s)
{
    static const char *const TEXTS[] = {"b{\"a\": 12}", "answer: 12", "aab", "\xc3\xa9 5"};
    make_stage_rollout(s);
    for (uint32_t i = 0; i < 2; i++) {
        const uint32_t group = add_text_prompt(s->rollout, "q", NULL);
        OK(pgrad_rollout_set_data(s->rollout, group, "answer", "12", 2));
        for (uint32_t k = 0; k < STAGE_GROUP; k++) {
            const char *text = TEXTS[STAGE_GROUP * i + k];
            pgrad_token ids[16];
            for (size_t t = 0; t < strlen(text); t++)
                ids[t] = (unsigned char)text[t];
            OK(pgrad_rollout_add_sequence(s->rollout, group, ids, strlen(text) < STAGE_NEW ? strlen(text) : STAGE_NEW,
                                          NULL));
        }
    }
}

static inline pgrad_status reward_by_names(stage *s)
{
    static const char *const ROWS[4][2] = {{"regex", "{\"pattern\":\"(a|b)+|\\\\d\"}"},
                                           {"numeric", "{\"missing\":\"skip\"}"},
                                           {"json", "{\"keys\":[\"a\"],\"partial\":true}"},
                                           {"words", "{\"required\":[\"a\",\"\xc3\xa9\"],\"forbidden\":[\"x\"]}"}};
    static const double WEIGHTS[4] = {1.0, 0.5, 0.25, 2.0};
    pgrad_status status = PGRAD_OK;
    for (int i = 0; i < 5; i++) { /* of a try that failed */
        pgrad_reward_free(s->rewards[i]);
        s->rewards[i] = NULL;
    }
    for (int i = 0; i < 4 && status == PGRAD_OK; i++)
        status = made(pgrad_reward_builtin(s->w.context, ROWS[i][0], ROWS[i][1], &s->rewards[i]), &s->rewards[i]);
    if (status == PGRAD_OK)
        status = made(pgrad_reward_combine(s->w.context, s->rewards, WEIGHTS, 4, &s->rewards[4]), &s->rewards[4]);
    return status == PGRAD_OK ? pgrad_reward_apply(s->rewards[4], s->rollout) : status;
}

static inline uint64_t digest_of_rewards(stage *s)
{
    uint64_t hash = 13;
    for (uint32_t i = 0; i < pgrad_rollout_count(s->rollout); i++) {
        const double reward = info_of(s->rollout, i).reward;
        hash = fnv(hash, &reward, sizeof reward);
    }
    return hash;
}

static inline void make_learner(stage *s)
{
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 1e-2;
    OK(pgrad_model_load(s->w.context, in_stage(s, "learner"), NULL, &s->model));
    OK(pgrad_optimizer_create(s->model, &params, &s->optimizer));
}

static inline void begin_learn(stage *s)
{
    pgrad_objective_params objective;
    pgrad_advantage_params advantage;
    make_learner(s);
    begin_generate(s);
    OK(generate(s));
    for (uint32_t i = 0; i < pgrad_rollout_count(s->rollout); i++) {
        const float reward = (float)(i % 2) + 0.25f * (float)i;
        OK(pgrad_rollout_set_array(s->rollout, PGRAD_REWARDS, i, &reward, 1));
    }
    pgrad_objective_params_init(&objective, sizeof objective);
    objective.kl_beta = 0.1;
    objective.entropy_coefficient = 0.01;
    objective.micro_batch_tokens = 16;
    OK(pgrad_objective_create(s->model, &objective, &s->objective));
    pgrad_advantage_params_init(&advantage, sizeof advantage);
    OK(pgrad_advantage_create(s->w.context, &advantage, &s->advantage));
}

static inline pgrad_status learn(stage *s)
{
    pgrad_status status = pgrad_rollout_score(s->rollout, s->model, PGRAD_OLD);
    if (status == PGRAD_OK)
        status = pgrad_rollout_score(s->rollout, s->w.model, PGRAD_REFERENCE);
    if (status == PGRAD_OK)
        status = pgrad_advantage_apply(s->advantage, s->rollout);
    if (status == PGRAD_OK)
        status = pgrad_model_zero_grad(s->model);
    if (status == PGRAD_OK)
        status = pgrad_objective_backward(s->objective, s->rollout, NULL, 0, NULL, NULL);
    return status == PGRAD_OK ? pgrad_optimizer_step(s->optimizer, NULL) : status;
}

/* ---- writing ---- */

/* An older model, and something of the user's beside it. */
static inline void begin_save(stage *s)
{
    remove_folder(in_stage(s, "saved"));
    mkdir(in_stage(s, "saved"), 0700);
    write_text(s, "saved/config.json", "old");
    write_text(s, "saved/model.safetensors", "older");
    write_text(s, "saved/notes.txt", "mine");
}

static inline pgrad_status save(stage *s)
{
    pgrad_save_params params;
    pgrad_save_params_init(&params, sizeof params);
    params.tokenizer = s->w.tokenizer;
    return pgrad_model_save(s->w.model, in_stage(s, "saved"), &params);
}

static inline uint64_t digest_of_saved(stage *s)
{
    ck_assert_uint_eq(digest_of_file(in_stage(s, "saved/notes.txt")), fnv(2, "mine", 4));
    return digest_of_target(s, "saved");
}

/* A checkpoint of the handles as they are. */
static inline pgrad_checkpoint *gather(stage *s)
{
    pgrad_checkpoint *checkpoint = NULL;
    OK(pgrad_checkpoint_create(s->w.context, &checkpoint));
    OK(pgrad_checkpoint_add(checkpoint, "policy", PGRAD_KIND_MODEL, s->model));
    OK(pgrad_checkpoint_add(checkpoint, "optimizer", PGRAD_KIND_OPTIMIZER, s->optimizer));
    OK(pgrad_checkpoint_add(checkpoint, "sampler", PGRAD_KIND_SAMPLER, s->sampler));
    return checkpoint;
}

static inline void begin_checkpoint(stage *s)
{
    pgrad_sampler_params params = sampler_defaults();
    make_learner(s);
    s->sampler = make_sampler(s->w.context, &params);
    write_text(s, "run.pgrad", "old");
    write_text(s, "run.pgrad.1", "older");
    s->checkpoint = gather(s);
}

static inline pgrad_status write_checkpoint(stage *s, uint32_t background)
{
    pgrad_checkpoint_params params;
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.keep = 2;
    params.background = background;
    pgrad_status status = pgrad_checkpoint_add_text(s->checkpoint, "note", "of the host", 11);
    if (status == PGRAD_OK)
        status = pgrad_checkpoint_write(s->checkpoint, in_stage(s, "run.pgrad"), &params);
    return status == PGRAD_OK ? pgrad_checkpoint_wait(s->checkpoint) : status;
}

static inline pgrad_status write_before(stage *s)
{
    return write_checkpoint(s, 0);
}

static inline pgrad_status write_behind(stage *s)
{
    return write_checkpoint(s, 1);
}

static inline uint64_t digest_of_checkpoint(stage *s)
{
    return digest_of_target(s, "run.pgrad");
}

/* A file of a model that has learned, with moments; then a model that has not. */
static inline void begin_restore(stage *s)
{
    if (digest_of_file(in_stage(s, "moved.pgrad")) == 1) {
        begin_learn(s);
        OK(learn(s));
        OK(pgrad_sampler_set_next_sequence(s->sampler, 77));
        s->checkpoint = gather(s);
        OK(pgrad_checkpoint_add_text(s->checkpoint, "note", "of the host", 11));
        OK(pgrad_checkpoint_write(s->checkpoint, in_stage(s, "moved.pgrad"), NULL));
        clear_stage(s);
    }
    make_learner(s);
    make_stage_sampler(s);
}

static inline pgrad_status restore(stage *s)
{
    char text[32];
    size_t length;
    pgrad_checkpoint_free(s->checkpoint); /* of a try that failed */
    s->checkpoint = NULL;
    pgrad_status status =
        made(pgrad_checkpoint_open(s->w.context, in_stage(s, "moved.pgrad"), &s->checkpoint), &s->checkpoint);
    if (status == PGRAD_OK)
        status = pgrad_checkpoint_restore(s->checkpoint, "policy", PGRAD_KIND_MODEL, s->model);
    if (status == PGRAD_OK)
        status = pgrad_checkpoint_restore(s->checkpoint, "optimizer", PGRAD_KIND_OPTIMIZER, s->optimizer);
    if (status == PGRAD_OK)
        status = pgrad_checkpoint_restore(s->checkpoint, "sampler", PGRAD_KIND_SAMPLER, s->sampler);
    return status == PGRAD_OK ? pgrad_checkpoint_get_text(s->checkpoint, "note", text, sizeof text, &length) : status;
}

/* What the handles hold, moments too, written again: the bytes of the file they are of. */
static inline uint64_t digest_of_restored(stage *s)
{
    const char *path = in_stage(s, "again.pgrad");
    pgrad_checkpoint *checkpoint = gather(s);
    OK(pgrad_checkpoint_add_text(checkpoint, "note", "of the host", 11));
    OK(pgrad_checkpoint_write(checkpoint, path, NULL));
    pgrad_checkpoint_free(checkpoint);
    const uint64_t digest = digest_of_file(path);
    ck_assert(digest == digest_of_file(in_stage(s, "moved.pgrad")));
    ck_assert_int_eq(unlink(path), 0);
    return digest;
}

/* ---- a run ---- */

static inline pgrad_status train_to(stage *s, uint64_t steps)
{
    static const char *const TEXTS[] = {"one", "two", "three"};
    pgrad_prompts prompts, held_out;
    pgrad_train_params params;
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = 3;
    prompts.texts = TEXTS;
    held_out = prompts;
    held_out.n = 1;
    pgrad_train_params_init(&params, sizeof params);
    params.steps = steps;
    params.prompts_per_step = 2;
    params.group_size = STAGE_GROUP;
    params.max_new_tokens = STAGE_NEW;
    params.learning_rate = 1e-2;
    params.reference = s->w.model;
    params.eval_prompts = &held_out;
    params.checkpoint_path = in_stage(s, "train.pgrad");
    params.checkpoint_every = 1;
    params.checkpoint_background = 0;
    params.resume = PGRAD_RESUME_AUTO;
    params.metrics_path = in_stage(s, "metrics.jsonl");
    params.save_path = in_stage(s, "trained");
    pgrad_reward_free(s->rewards[0]); /* of a try that failed */
    s->rewards[0] = NULL;
    pgrad_status status =
        made(pgrad_reward_builtin(s->w.context, "length", "{\"target\":3}", &s->rewards[0]), &s->rewards[0]);
    if (status == PGRAD_OK)
        status = pgrad_train(s->model, s->w.tokenizer, s->rewards[0], &prompts, &params, NULL);
    return status;
}

static inline void restart_train(stage *s)
{
    clear_stage(s);
    OK(pgrad_model_load(s->w.context, in_stage(s, "learner"), NULL, &s->model));
}

/* One step is done already: the run takes up its checkpoint. */
static inline void begin_train(stage *s)
{
    static const char *const FILES[] = {"train.pgrad", "train.pgrad.1", "metrics.jsonl"};
    for (int i = 0; i < 3; i++)
        (void)unlink(in_stage(s, FILES[i]));
    remove_folder(in_stage(s, "trained"));
    restart_train(s);
    OK(train_to(s, 1));
    restart_train(s);
}

static inline pgrad_status train(stage *s)
{
    return train_to(s, 3);
}

static inline uint64_t digest_of_trained(stage *s)
{
    return digest_of_weights(s, s->model) + digest_of_file(in_stage(s, "trained/model.safetensors"));
}

static const scenario SCENARIOS[] = {
    {"context", no_beginning, from_the_start, NULL, digest_of_run, NULL},
    {"load a folder", no_beginning, load_folder, NULL, digest_of_model, NULL},
    {"load shards", no_beginning, load_shards, NULL, digest_of_model, NULL},
    {"load GGUF", no_beginning, load_gguf, NULL, digest_of_model, NULL},
    {"load tokenizer.json", no_beginning, load_tokenizer, NULL, digest_of_tokenizer, NULL},
    {"load vocab.json", no_beginning, load_pair, NULL, digest_of_tokenizer, NULL},
    {"encode", no_beginning, encode, NULL, digest_of_run, NULL},
    {"generate", begin_generate, generate, NULL, digest_of_rollout, NULL},
    {"rewards", begin_rewards, reward_by_names, NULL, digest_of_rewards, NULL},
    {"learn", begin_learn, learn, NULL, digest_of_model, NULL},
    {"save", begin_save, save, NULL, digest_of_saved, "saved"},
    {"checkpoint", begin_checkpoint, write_before, NULL, digest_of_checkpoint, "run.pgrad"},
    {"checkpoint behind", begin_checkpoint, write_behind, NULL, digest_of_checkpoint, "run.pgrad"},
    {"restore", begin_restore, restore, NULL, digest_of_restored, NULL},
    {"train", begin_train, train, restart_train, digest_of_trained, NULL},
};
enum { N_SCENARIOS = sizeof SCENARIOS / sizeof SCENARIOS[0] };

/* The digest of a run that nobody disturbs. */
static inline uint64_t undisturbed(stage *s, const scenario *c)
{
    c->begin(s);
    pgrad_status status = c->run(s);
    ck_assert_msg(status == PGRAD_OK, "%s: %s: %s", c->name, pgrad_status_name(status), pgrad_error_message());
    const uint64_t digest = c->result(s);
    clear_stage(s);
    return digest;
}

#endif
