/* One function goes every way the engine has - sampling in batches and alone, the cache in chunks, shared
 * prompts, scoring, backward with and without sharing, ten optimizer steps - and gives four hashes. They are
 * the same for every kernel set times every number of threads, and equal to those kept here: whoever changes
 * the definition of the bits (the order of a sum, a block's length) sees it. */
#include "../rl/rl_test.h"

/* Reductions over 264 and 520 cross the blocks of 256 that products are summed in; neither they nor heads of 66 are
 * whole panels of 16 or 32. */
static const char WIDE_LLAMA_CONFIG[] =
    "{\"model_type\":\"llama\",\"architectures\":[\"LlamaForCausalLM\"],\"hidden_size\":264,"
    "\"intermediate_size\":520,\"num_hidden_layers\":1,\"num_attention_heads\":4,\"num_key_value_heads\":1,"
    "\"max_position_embeddings\":256,\"vocab_size\":272,\"rms_norm_eps\":1e-5,\"rope_theta\":10000.0,"
    "\"hidden_act\":\"silu\",\"tie_word_embeddings\":true,\"initializer_range\":0.1}";
static const char WIDE_GPT2_CONFIG[] =
    "{\"model_type\":\"gpt2\",\"architectures\":[\"GPT2LMHeadModel\"],\"n_embd\":264,\"n_layer\":1,"
    "\"n_head\":4,\"n_inner\":520,\"n_positions\":96,\"vocab_size\":272,"
    "\"activation_function\":\"gelu_new\",\"layer_norm_epsilon\":1e-5,\"initializer_range\":0.1}";

typedef struct hashes {
    uint64_t logits, gradients, two_steps, weights;
} hashes;

enum { MAX_PROMPTS = 3, GROUP_SIZE = 3, FIRST_STEPS = 2, STEPS = 10 };

static const struct {
    const char *name, *config;
    size_t prompts[MAX_PROMPTS]; /* lengths, around a page of 64; the wide ones are slow and get less */
    uint32_t n_new;
    hashes golden;
} MODELS[] = {
    {"gpt2", GPT2_CONFIG, {5, 64, 70}, 10,
     {0xa4871c70780399d9, 0xdd7f99f8490ca8c5,
      0x43a4676134f7d11a, 0xfb5f2e81e238f7d9}},
    {"llama", LLAMA_CONFIG, {5, 64, 130}, 10,
     {0x791caf5dd4091664, 0x1052a1067fcba40a,
      0x78f34c0431092bc3, 0xa46cdd5e4107d995}},
    {"wide gpt2", WIDE_GPT2_CONFIG, {11}, 4,
     {0x68b0b4525c3daebe, 0xcdf7a3d99ded384d,
      0xb8cd02fcb2fe46f5, 0xa32b2134a0e0e401}},
    {"wide llama", WIDE_LLAMA_CONFIG, {11}, 4,
     {0x9c6b9d44794eaf6c, 0xe37f5f838bbf8c1d,
      0x07eaf4264ad2d231, 0x514f3ff160dde425}},
};
enum { N_MODELS = sizeof MODELS / sizeof MODELS[0] };

static const uint32_t SETS[] = {PGRAD_KERNELS_GENERIC, PGRAD_KERNELS_HASWELL, PGRAD_KERNELS_SKX,
                                PGRAD_KERNELS_ARMV8A};
static const uint32_t THREADS[] = {1, 2, 3, 8};
enum { N_SETS = sizeof SETS / sizeof SETS[0], N_THREADS = sizeof THREADS / sizeof THREADS[0] };

#define HASH_START 14695981039346656037u

/* FNV-1a over the bytes. */
static void hash_bytes(uint64_t *hash, const void *data, size_t size)
{
    const unsigned char *bytes = data;
    for (size_t i = 0; i < size; i++)
        *hash = (*hash ^ bytes[i]) * 1099511628211u;
}

static int is_short(void)
{
    return getenv("PGRAD_TEST_SHORT") != NULL;
}

static void same_bits(const char *what, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        if (memcmp(&a[i], &b[i], sizeof *a) != 0)
            ck_abort_msg("%s, %zu: %.9g and %.9g", what, i, (double)a[i], (double)b[i]);
}

/* ---- rollout ---- */

static pgrad_sampler *cutting_sampler(pgrad_context *context)
{
    pgrad_sampler_params params = sampler_defaults();
    static const pgrad_token stops[] = {40, 41, 42, 43, 44, 45, 46, 47};
    params.temperature = 0.9;
    params.top_k = 60;
    params.stop_tokens = stops; /* so that lengths differ */
    params.n_stop_tokens = sizeof stops / sizeof stops[0];
    return make_sampler(context, &params);
}

static pgrad_rollout *generate(const world *w, int model, uint32_t batch_size)
{
    pgrad_rollout *rollout = make_rollout(w, GROUP_SIZE, MAX_PROMPTS, MODELS[model].n_new, batch_size);
    pgrad_sampler *sampler = cutting_sampler(w->context);
    for (uint64_t i = 0; i < MAX_PROMPTS && MODELS[model].prompts[i] > 0; i++)
        (void)add_long_prompt(rollout, i, MODELS[model].prompts[i]);
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    pgrad_sampler_free(sampler);
    return rollout;
}

/* Sampled one by one, four at a time with slots refilled, all together. */
static pgrad_rollout *generate_every_way(const world *w, int model)
{
    static const uint32_t BATCHES[] = {1, 4};
    pgrad_rollout *together = generate(w, model, 0);
    record *wanted = take_record(together);
    for (size_t i = 0; i < sizeof BATCHES / sizeof BATCHES[0]; i++) {
        pgrad_rollout *rollout = generate(w, model, BATCHES[i]);
        record *found = take_record(rollout);
        same_record(wanted, found);
        free(found);
        pgrad_rollout_free(rollout);
    }
    free(wanted);
    return together;
}

static void score_has_the_bits_of_sampling(const world *w, pgrad_rollout *rollout)
{
    OK(pgrad_rollout_score(rollout, w->model, PGRAD_CURRENT));
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        size_t n;
        const float *current = pgrad_rollout_array(rollout, PGRAD_CURRENT, i, &n);
        same_bits("scored", current, pgrad_rollout_array(rollout, PGRAD_LOGPROBS, i, NULL), n);
    }
}

/* ---- logits ---- */

/* Prompt and completion of sequence i. */
static size_t whole_sequence(const pgrad_rollout *rollout, uint32_t i, pgrad_token *out)
{
    size_t n_prompt, n;
    const pgrad_token *prompt = pgrad_rollout_prompt(rollout, i / GROUP_SIZE, &n_prompt);
    memcpy(out, prompt, n_prompt * sizeof *out);
    const pgrad_token *tokens = pgrad_rollout_tokens(rollout, i, &n);
    memcpy(out + n_prompt, tokens, n * sizeof *out);
    return n_prompt + n;
}

/* The last rows of each chunk through the cache are those of the sequence computed at once. */
static void decode_in_chunks(const world *w, const pgrad_token *tokens, size_t n, const float *whole)
{
    static const size_t CHUNKS[] = {1, 7, 33, 64, 100};
    float row[N_VOCAB];
    pgrad__pass *pass = NULL;
    pgrad__kv_cache *cache = NULL;
    OK(pgrad__pass_create(w->model, &pass));
    OK(pgrad__kv_cache_create(w->model, 4, PGRAD_KV_F32, &cache));
    for (size_t k = is_short() ? 1 : 0; k < sizeof CHUNKS / sizeof CHUNKS[0]; k++) {
        uint32_t pages[4];
        size_t n_pages = 0;
        pgrad__kv_cache_reset(cache);
        for (size_t first = 0; first < n; first += CHUNKS[k]) {
            size_t count = n - first < CHUNKS[k] ? n - first : CHUNKS[k];
            while (n_pages * PGRAD__KEY_TILE < first + count)
                OK(pgrad__kv_cache_take(cache, &pages[n_pages++]));
            pgrad__decode_span span = {.tokens = tokens + first,
                                       .n_tokens = (uint32_t)count,
                                       .first_position = (uint32_t)first,
                                       .pages = pages,
                                       .n_logits = 1};
            OK(pgrad__model_decode(w->model, pass, cache, &span, 1, row));
            same_bits("through the cache", row, whole + (first + count - 1) * N_VOCAB, N_VOCAB);
        }
    }
    pgrad__kv_cache_free(cache);
    pgrad__pass_free(pass);
}

static uint64_t hash_logits(const world *w, const pgrad_rollout *rollout)
{
    uint64_t hash = HASH_START;
    pgrad_token tokens[256];
    float *logits = malloc(256 * N_VOCAB * sizeof *logits);
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i += GROUP_SIZE) {
        size_t n = whole_sequence(rollout, i, tokens);
        OK(pgrad_model_logits(w->model, tokens, n, PGRAD_LOGITS_ALL, logits, n * N_VOCAB));
        hash_bytes(&hash, logits, n * N_VOCAB * sizeof *logits);
        if (i + GROUP_SIZE == pgrad_rollout_count(rollout))
            decode_in_chunks(w, tokens, n, logits);
    }
    free(logits);
    return hash;
}

/* ---- training ---- */

/* All tensors in the checkpoint's order, as plain rows. */
static void hash_tensors(pgrad_model *model, int gradients, uint64_t *hash)
{
    const char *name;
    for (uint32_t i = 0; (name = pgrad_model_tensor_name(model, i, NULL, NULL)) != NULL; i++) {
        static float values[3 * 264 * 264];
        size_t n;
        if (gradients)
            OK(pgrad_model_grad_read(model, name, values, sizeof values / sizeof values[0], &n));
        else
            OK(pgrad_model_tensor_read(model, name, values, sizeof values / sizeof values[0], &n));
        hash_bytes(hash, values, n * sizeof *values);
    }
}

static pgrad_objective *make_objective(pgrad_model *model, uint32_t share, uint32_t micro)
{
    pgrad_objective_params params;
    pgrad_objective *objective = NULL;
    pgrad_objective_params_init(&params, sizeof params);
    params.share_prefix = share;
    params.micro_batch_tokens = micro;
    params.kl_beta = 0.1;
    params.entropy_coefficient = 0.01;
    OK(pgrad_objective_create(model, &params, &objective));
    return objective;
}

/* On policy the ratio is exactly 1 with any split. Each split has bits of its own. */
static uint64_t hash_gradients(pgrad_model *model, const pgrad_rollout *rollout)
{
    static const uint32_t SPLITS[][2] = {{1, 0}, {0, 0}, {1, 90}}; /* share_prefix, micro_batch_tokens */
    uint64_t hash = HASH_START;
    for (size_t k = 0; k < sizeof SPLITS / sizeof SPLITS[0]; k++) {
        pgrad_step_report report;
        pgrad_objective *objective = make_objective(model, SPLITS[k][0], SPLITS[k][1]);
        pgrad_step_report_init(&report, sizeof report);
        OK(pgrad_model_zero_grad(model));
        OK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report));
        ck_assert(report.ratio_min == 1.0 && report.ratio_max == 1.0 && report.approx_kl == 0.0);
        hash_bytes(&hash, &report.loss, sizeof report.loss);
        hash_bytes(&hash, &report.entropy, sizeof report.entropy);
        hash_tensors(model, 1, &hash);
        pgrad_objective_free(objective);
    }
    return hash;
}

/* Hashes of losses, norms and weights after the first steps and after all. */
static void hash_steps(pgrad_model *model, const pgrad_rollout *rollout, int n_steps, hashes *found)
{
    uint64_t hash = HASH_START;
    pgrad_objective *objective = make_objective(model, 1, 0);
    pgrad_optimizer *optimizer = NULL;
    pgrad_optimizer_params params;
    pgrad_step_report report;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 1e-3;
    params.weight_decay = 0.01;
    OK(pgrad_optimizer_create(model, &params, &optimizer));
    pgrad_step_report_init(&report, sizeof report);
    for (int step = 1; step <= n_steps; step++) {
        OK(pgrad_model_zero_grad(model));
        OK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report));
        OK(pgrad_optimizer_step(optimizer, &report));
        hash_bytes(&hash, &report.loss, sizeof report.loss);
        hash_bytes(&hash, &report.grad_norm, sizeof report.grad_norm);
        if (step == FIRST_STEPS || step == STEPS) {
            uint64_t *of = step == STEPS ? &found->weights : &found->two_steps;
            *of = hash;
            hash_tensors(model, 0, of);
        }
    }
    ck_assert(report.ratio_min < 0.999 || report.ratio_max > 1.001); /* it did move */
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
}

static void set_advantages(pgrad_rollout *rollout)
{
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        const float advantage = (float)((int)(i * 7 % 11) - 5) / 3.0f;
        OK(pgrad_rollout_set_array(rollout, PGRAD_ADVANTAGES, i, &advantage, 1));
    }
}

/* All of it, with so many optimizer steps. Zeros: this machine cannot run the kernel set. */
static hashes everything(int model, uint32_t kernel_set, uint32_t n_threads, int n_steps)
{
    hashes found = {0};
    world w = {.context = test_context(kernel_set, n_threads)};
    if (w.context == NULL)
        return found;
    w.memory = memory_now(w.context);
    w.model = make_model(w.context, MODELS[model].config);
    w.tokenizer = make_tokenizer(w.context);
    pgrad_model *reference = NULL;
    OK(pgrad_model_create(w.context, MODELS[model].config, 8, NULL, &reference));
    pgrad_rollout *rollout = generate_every_way(&w, model);
    score_has_the_bits_of_sampling(&w, rollout);
    OK(pgrad_rollout_score(rollout, reference, PGRAD_REFERENCE));
    set_advantages(rollout);
    found.logits = hash_logits(&w, rollout);
    found.gradients = hash_gradients(w.model, rollout);
    hash_steps(w.model, rollout, n_steps, &found);
    pgrad_rollout_free(rollout);
    pgrad_model_free(reference);
    end_world(&w);
    return found;
}

static void same_hash(int model, uint32_t set, uint32_t threads, const char *what, uint64_t found,
                      uint64_t golden)
{
    ck_assert_msg(found == golden,
                  "%s, kernel set %u, %u threads: %s have the hash 0x%016llx instead of 0x%016llx: the definition "
                  "of the bits changed",
                  MODELS[model].name, set, threads, what, (unsigned long long)found, (unsigned long long)golden);
}

/* The short form has 2 and 8 threads. The generic set takes fifty times as long as the others: unless it is the only
 * one, it makes all steps with one thread and the first ones with more, and in the short form it has 2 threads and
 * only the narrow models. */
START_TEST(every_way_every_kernel_set_every_number_of_threads)
{
    unsigned ran = 0;
    const hashes *golden = &MODELS[_i].golden;
    for (size_t set = 0; set < N_SETS; set++)
        for (size_t k = is_short() ? 1 : 0; k < N_THREADS; k += is_short() ? 2 : 1) {
            const uint32_t n_threads = THREADS[k];
            const int slow = SETS[set] == PGRAD_KERNELS_GENERIC && pgrad__best_kernel_set() != PGRAD_KERNELS_GENERIC;
            if (slow && is_short() && (n_threads > 2 || _i >= 2))
                break;
            const int n_steps = slow && n_threads > 1 ? FIRST_STEPS : STEPS;
            hashes found = everything(_i, SETS[set], n_threads, n_steps);
            if (found.logits == 0)
                break;
            same_hash(_i, SETS[set], n_threads, "logits", found.logits, golden->logits);
            same_hash(_i, SETS[set], n_threads, "gradients", found.gradients, golden->gradients);
            same_hash(_i, SETS[set], n_threads, "weights after two steps", found.two_steps, golden->two_steps);
            if (n_steps == STEPS)
                same_hash(_i, SETS[set], n_threads, "weights after ten steps", found.weights, golden->weights);
            ran++;
        }
    ck_assert_uint_ge(ran, 2);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_product");
    TCase *tests = tcase_create("product");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, every_way_every_kernel_set_every_number_of_threads, 0, N_MODELS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
