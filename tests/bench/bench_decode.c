/* Decoding with 32 and 64 sequences of a GPT-2 124M up to context 256: [decode_b32], [decode_b64], against
 * the packed products of the same step alone; [allocations] of a second rollout; [decode_b32_kv_f16],
 * [decode_b32_kv_bf16] against an f32 cache; and [sampler_share] of the step that 32 draws take, of
 * rows as a trained model has them, peaked ones and flat ones. */
#include "base/alloc.h"
#include "base/context.h"
#include "base/pool.h"
#include "gpt2.h"
#include "kernel/kernel.h"
#include "rl/sampler.h"

enum { PROMPT = 192, NEW = 64, ROUNDS = 5, VOCABULARY = 50257, N_MATRICES = 12 * 4 + 1 };

/* ---- the products of one step: n rows through every matrix of the model ---- */

typedef struct products {
    pgrad_context *context;
    pgrad__workspace workspace;
    pgrad__matrix weights[N_MATRICES];
    float *x, *y;
} products;

static void make_products(pgrad_context *context, uint32_t max_rows, products *out)
{
    static const uint32_t SHAPES[][2] = {{2304, 768}, {768, 768}, {3072, 768}, {768, 3072}};
    const pgrad__kernels *kernels = pgrad__kernels_of(context);
    *out = (products){.context = context, .workspace = {context, NULL, 0}};
    for (int i = 0; i < N_MATRICES; i++) {
        const int head = i == N_MATRICES - 1;
        const uint32_t n_out = head ? VOCABULARY : SHAPES[i % 4][0], n_in = head ? 768 : SHAPES[i % 4][1];
        out->weights[i] = (pgrad__matrix){.n_out = n_out, .n_in = n_in};
        CHECK(pgrad__calloc(context, pgrad__matrix_floats(kernels, n_out, n_in), sizeof(float),
                            &out->weights[i].data));
    }
    CHECK(pgrad__calloc(context, (size_t)max_rows * 3072, sizeof(float), &out->x));
    CHECK(pgrad__calloc(context, (size_t)max_rows * VOCABULARY, sizeof(float), &out->y));
}

static double products_seconds(products *p, uint32_t n)
{
    double times[5];
    for (int round = 0; round < 5; round++) {
        const double started = bench_now();
        for (int i = 0; i < N_MATRICES; i++) {
            pgrad__product product = {&p->weights[i], NULL, p->y, p->weights[i].n_out, 0};
            CHECK(pgrad__matmul(p->context, &p->workspace, p->x, p->weights[i].n_in, n, &product, 1));
        }
        times[round] = bench_now() - started;
    }
    return bench_median(times, 5);
}

static void free_products(products *p)
{
    for (int i = 0; i < N_MATRICES; i++)
        pgrad__free(p->context, p->weights[i].data);
    pgrad__free(p->context, p->x);
    pgrad__free(p->context, p->y);
    pgrad__workspace_free(&p->workspace);
}

/* ---- decoding ---- */

typedef struct watch {
    uint32_t tokens, n_sequences;
    double first, last;
} watch;

/* The first tokens come from the prompts: what counts starts behind them. */
static int32_t on_event(void *user, const pgrad_rollout *rollout, const pgrad_event *event)
{
    watch *w = user;
    (void)rollout;
    if (event->kind == PGRAD_EVENT_TOKEN && ++w->tokens == w->n_sequences)
        w->first = bench_now();
    w->last = bench_now();
    return 1;
}

static void add_prompts(pgrad_rollout *rollout, uint32_t groups)
{
    pgrad_token ids[PROMPT];
    for (uint32_t group = 0; group < groups; group++) {
        for (uint32_t i = 0; i < PROMPT; i++)
            ids[i] = (pgrad_token)((group * 7919 + i * 104729) % 50000);
        CHECK(pgrad_rollout_add_prompt(rollout, ids, PROMPT, NULL, NULL));
    }
}

static pgrad_rollout *make_rollout(pgrad_model *model, uint32_t n_sequences, uint32_t groups, uint32_t kv_storage)
{
    pgrad_rollout_params params;
    pgrad_rollout *rollout;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = n_sequences / groups;
    params.max_prompts = groups;
    params.max_prompt_tokens = PROMPT;
    params.max_new_tokens = NEW;
    params.kv_storage = kv_storage;
    CHECK(pgrad_rollout_create(model, NULL, &params, &rollout));
    return rollout;
}

/* Tokens per second of one rollout behind its first tokens. */
static double round_rate(pgrad_context *context, pgrad_rollout *rollout, pgrad_sampler *sampler,
                         uint32_t n_sequences, uint32_t groups, int tell)
{
    watch w = {0, n_sequences, 0.0, 0.0};
    pgrad_context_info before = {.struct_size = sizeof before}, after = before;
    pgrad_generate_params generate;
    pgrad_generate_params_init(&generate, sizeof generate);
    generate.event = on_event;
    generate.user = &w;
    pgrad_rollout_clear(rollout);
    add_prompts(rollout, groups);
    CHECK(pgrad_context_get_info(context, &before));
    CHECK(pgrad_rollout_generate(rollout, sampler, &generate));
    CHECK(pgrad_context_get_info(context, &after));
    if (tell)
        bench_print(context, "allocations_generate", (double)(after.n_allocations - before.n_allocations),
                    "calls per rollout", 0.0);
    return (double)(w.tokens - n_sequences) / (w.last - w.first);
}

static uint64_t cache_bytes(const pgrad_rollout *rollout)
{
    pgrad_rollout_info info = {.struct_size = sizeof info};
    CHECK(pgrad_rollout_get_info(rollout, &info));
    return info.cache_bytes;
}

/* The rate with an f32 cache against that of the products, printed and returned; with the narrow caches against
 * the f32 one, and the bytes of each (narrow: 1). All take turns: the machine's rate drifts by tens of percents. */
static double decode(pgrad_model *model, products *p, const char *name, uint32_t n_sequences, uint32_t groups,
                     int narrow)
{
    pgrad_context *context = p->context;
    static const char *const suffixes[] = {"", "_kv_f16", "_kv_bf16"};
    const uint32_t n = narrow ? 3 : 1;
    pgrad_rollout *rollouts[3];
    pgrad_sampler_params sampler_params;
    pgrad_sampler *sampler;
    double rates[3][ROUNDS], limits[ROUNDS], median[3];
    char line[80];
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.ignore_eos = 1;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    for (uint32_t kv = 0; kv < n; kv++)
        rollouts[kv] = make_rollout(model, n_sequences, groups, kv);
    for (int round = -1; round < ROUNDS; round++) {
        const double limit = n_sequences / products_seconds(p, n_sequences);
        if (round >= 0)
            limits[round] = limit;
        for (uint32_t kv = 0; kv < n; kv++) {
            const int tell = strcmp(name, "decode_b32") == 0 && kv == 0 && round == ROUNDS - 1;
            const double rate = round_rate(context, rollouts[kv], sampler, n_sequences, groups, tell);
            if (round >= 0)
                rates[kv][round] = rate;
        }
    }
    for (uint32_t kv = 0; kv < n; kv++) {
        median[kv] = bench_median(rates[kv], ROUNDS);
        snprintf(line, sizeof line, "%s%s", name, suffixes[kv]);
        bench_print(context, line, median[kv], "tokens/s", kv == 0 ? bench_median(limits, ROUNDS) : median[0]);
    }
    for (uint32_t kv = 0; kv < n; kv++) {
        snprintf(line, sizeof line, "%s_cache%s", name, suffixes[kv]);
        if (narrow)
            bench_print(context, line, (double)cache_bytes(rollouts[kv]), "bytes",
                        kv == 0 ? 0.0 : (double)cache_bytes(rollouts[0]));
    }
    for (uint32_t kv = 0; kv < n; kv++)
        pgrad_rollout_free(rollouts[kv]);
    pgrad_sampler_free(sampler);
    return median[0];
}

/* ---- draws ---- */

typedef struct draw_job {
    const pgrad_sampler *sampler;
    const pgrad__kernels *kernels;
    pgrad__draw_scratch *scratch;
    const float *logits;
} draw_job;

static void draw_task(void *argument, size_t row, uint32_t worker)
{
    const draw_job *job = argument;
    const pgrad__draw draw = {.logits = job->logits + row * VOCABULARY, .sequence = row};
    if (pgrad__sampler_draw(job->sampler, job->kernels, &job->scratch[worker], &draw).token < 0)
        exit(1);
}

/* Logits of a row: sums of twelve uniform numbers, scaled to a deviation, and every 2500th raised. */
typedef struct spread {
    double deviation, raised;
} spread;
static const spread BROAD = {2.5, 0.0}, FLAT = {0.5, 0.0}, PEAKED = {2.5, 14.0}; /* flat: a model not trained */

static void fill_logits(float *logits, size_t n, spread of)
{
    uint64_t state = 1;
    for (size_t i = 0; i < n; i++) {
        double sum = -6.0;
        for (int k = 0; k < 12; k++) {
            state = state * 6364136223846793005u + 1442695040888963407u;
            sum += (double)(state >> 11) * 0x1p-53;
        }
        logits[i] = (float)(of.deviation * sum + (i % 2500 == 0 ? of.raised : 0.0));
    }
}

static void sampler_share(pgrad_context *context, const char *name, spread of, uint32_t top_k, double top_p,
                          double step_seconds)
{
    enum { ROWS = 32 };
    pgrad_sampler_params params;
    pgrad_sampler *sampler;
    pgrad__draw_scratch scratch[4];
    float *logits;
    double times[7];
    pgrad_sampler_params_init(&params, sizeof params);
    params.top_k = top_k;
    params.top_p = top_p;
    CHECK(pgrad_sampler_create(context, &params, &sampler));
    CHECK(pgrad__alloc(context, (size_t)ROWS * VOCABULARY, sizeof(float), &logits));
    fill_logits(logits, (size_t)ROWS * VOCABULARY, of);
    for (uint32_t i = 0; i < pgrad__n_workers(context); i++)
        CHECK(pgrad__draw_scratch_init(&scratch[i], context, VOCABULARY));
    draw_job job = {sampler, pgrad__kernels_of(context), scratch, logits};
    for (int round = -1; round < 7; round++) {
        const double started = bench_now();
        pgrad__parallel(context, ROWS, draw_task, &job);
        if (round >= 0)
            times[round] = bench_now() - started;
    }
    bench_print(context, name, bench_median(times, 7) * 1e3, "ms per step of 32", step_seconds * 1e3);
    for (uint32_t i = 0; i < pgrad__n_workers(context); i++)
        pgrad__draw_scratch_free(&scratch[i]);
    pgrad__free(context, logits);
    pgrad_sampler_free(sampler);
}

int main(void)
{
    pgrad_context *context = two_threads();
    pgrad_model *model = gpt2_create(context);
    products p;
    make_products(context, 64, &p);
    const double rate = decode(model, &p, "decode_b32", 32, 4, 1);
    (void)decode(model, &p, "decode_b32_no_shared_prompt", 32, 32, 1);
    (void)decode(model, &p, "decode_b64", 64, 8, 0);
    free_products(&p);
    sampler_share(context, "sampler_share", BROAD, 0, 1.0, 32 / rate);
    sampler_share(context, "sampler_share_top_k", BROAD, 50, 1.0, 32 / rate);
    sampler_share(context, "sampler_share_top_p", BROAD, 0, 0.9, 32 / rate);
    sampler_share(context, "sampler_share_peaked_top_p", PEAKED, 0, 0.9, 32 / rate);
    sampler_share(context, "sampler_share_flat_top_k", FLAT, 50, 1.0, 32 / rate);
    sampler_share(context, "sampler_share_flat_top_p", FLAT, 0, 0.9, 32 / rate);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
