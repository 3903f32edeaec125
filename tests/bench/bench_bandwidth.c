/* One row through all matrices of a model, in each storage, against the rate at which this machine
 * reads memory: [rows1_*], and generation at batch 1: [decode_b1_*]. */
#include "base/alloc.h"
#include "base/context.h"
#include "base/pool.h"
#include "gpt2.h"
#include "kernel/kernel.h"

#if defined(__x86_64__)
#include <immintrin.h>
#endif

enum { ROUNDS = 9, MAX_MATRICES = 256, STREAM_BYTES = 512 << 20, TASK_BYTES = 1 << 20 };

static const char *const STORAGE[] = {"f32", "bf16", "q8_0"};

/* ---- reading alone ---- */

typedef struct stream {
    const unsigned char *data;
    volatile uint64_t sink;
} stream;

#if defined(__x86_64__)
__attribute__((target("avx512f"))) static uint64_t read_512(const unsigned char *data)
{
    __m512i sum[4] = {_mm512_setzero_si512(), _mm512_setzero_si512(), _mm512_setzero_si512(),
                      _mm512_setzero_si512()};
    for (size_t i = 0; i < TASK_BYTES; i += 256)
        for (size_t j = 0; j < 4; j++) {
            __builtin_prefetch(data + i + 64 * j + 4096);
            sum[j] = _mm512_or_si512(sum[j], _mm512_loadu_si512(data + i + 64 * j));
        }
    sum[0] = _mm512_or_si512(_mm512_or_si512(sum[0], sum[1]), _mm512_or_si512(sum[2], sum[3]));
    return (uint64_t)_mm512_reduce_or_epi64(sum[0]);
}
#endif

static uint64_t read_plain(const unsigned char *data)
{
    uint64_t sum[8] = {0};
    for (size_t i = 0; i < TASK_BYTES; i += 64)
        for (size_t j = 0; j < 8; j++)
            sum[j] |= ((const uint64_t *)(const void *)(data + i))[j];
    return sum[0] | sum[1] | sum[2] | sum[3] | sum[4] | sum[5] | sum[6] | sum[7];
}

static void read_task(void *argument, size_t task, uint32_t worker)
{
    stream *s = argument;
    const unsigned char *data = s->data + task * TASK_BYTES;
    (void)worker;
#if defined(__x86_64__)
    if (__builtin_cpu_supports("avx512f")) {
        s->sink = read_512(data);
        return;
    }
#endif
    s->sink = read_plain(data);
}

/* ---- one row ---- */

typedef struct shape {
    uint32_t n_out, n_in;
} shape;

/* A layer's matrices; those that share their input go together, as the model has them. */
static const shape GPT2[] = {{2304, 768}, {768, 768}, {3072, 768}, {768, 3072}};
static const size_t GPT2_TOGETHER[] = {1, 1, 1, 1};
static const shape SMOLLM2[] = {{576, 576}, {192, 576}, {192, 576},  {576, 576},
                                {1536, 576}, {1536, 576}, {576, 1536}};
static const size_t SMOLLM2_TOGETHER[] = {3, 0, 0, 1, 2, 0, 1};

typedef struct weights {
    pgrad__matrix matrices[MAX_MATRICES];
    size_t together[MAX_MATRICES]; /* of a call, in the first of them */
    size_t n;
    double bytes;
} weights;

static void add_matrix(pgrad_context *context, uint32_t storage, shape of, weights *to)
{
    const pgrad__kernels *kernels = pgrad__kernels_of(context);
    const size_t bytes = pgrad__matrix_bytes(kernels, storage, of.n_out, of.n_in);
    pgrad__matrix *matrix = &to->matrices[to->n++];
    *matrix = (pgrad__matrix){.n_out = of.n_out, .n_in = of.n_in, .storage = storage};
    CHECK(pgrad__alloc(context, bytes, 1, &matrix->data));
    memset(matrix->data, 0x11, bytes); /* small numbers in each storage */
    to->bytes += (double)bytes;
}

static void make_weights(pgrad_context *context, uint32_t storage, int gpt2, weights *out)
{
    const shape *layer = gpt2 ? GPT2 : SMOLLM2;
    const size_t n = gpt2 ? 4 : 7, n_layers = gpt2 ? 12 : 30;
    *out = (weights){.n = 0};
    for (size_t i = 0; i < n * n_layers; i++) {
        out->together[i] = gpt2 ? GPT2_TOGETHER[i % n] : SMOLLM2_TOGETHER[i % n];
        add_matrix(context, storage, layer[i % n], out);
    }
    out->together[out->n] = 1;
    add_matrix(context, storage, gpt2 ? (shape){50257, 768} : (shape){49152, 576}, out);
}

typedef struct setting {
    pgrad_context *context;
    pgrad__workspace workspace;
    weights w;
    float *x, *y;
    size_t n_rows;
} setting;

static double pass_seconds(setting *s)
{
    double started = bench_now();
    for (size_t i = 0; i < s->w.n; i += s->w.together[i]) {
        pgrad__product products[3];
        float *y = s->y;
        for (size_t j = 0; j < s->w.together[i]; j++) {
            const pgrad__matrix *matrix = &s->w.matrices[i + j];
            products[j] = (pgrad__product){matrix, NULL, y, matrix->n_out, 0};
            y += s->n_rows * matrix->n_out;
        }
        CHECK(pgrad__matmul(s->context, &s->workspace, s->x, s->w.matrices[i].n_in, s->n_rows,
                            products, s->w.together[i]));
    }
    return bench_now() - started;
}

static double read_seconds(pgrad_context *context, stream *s)
{
    double started = bench_now();
    pgrad__parallel(context, STREAM_BYTES / TASK_BYTES, read_task, s);
    return bench_now() - started;
}

/* The three storages in turn, a plain reading in front of each. */
static void one_row(pgrad_context *context, stream *s, int gpt2)
{
    setting settings[3];
    double times[3][ROUNDS], reading[ROUNDS];
    for (uint32_t storage = 0; storage < 3; storage++) {
        settings[storage] = (setting){.context = context, .workspace = {context, NULL, 0}, .n_rows = 1};
        make_weights(context, storage, gpt2, &settings[storage].w);
        CHECK(pgrad__calloc(context, 3072, sizeof(float), &settings[storage].x));
        CHECK(pgrad__calloc(context, 50304, sizeof(float), &settings[storage].y));
        for (size_t i = 0; i < 3072; i++)
            settings[storage].x[i] = (float)(i % 7) - 3.0f;
    }
    for (int round = -1; round < ROUNDS; round++) {
        double seconds = read_seconds(context, s);
        if (round >= 0)
            reading[round] = seconds;
        for (uint32_t storage = 0; storage < 3; storage++) {
            seconds = pass_seconds(&settings[storage]);
            if (round >= 0)
                times[storage][round] = seconds;
        }
    }
    const double bandwidth = STREAM_BYTES / bench_median(reading, ROUNDS) * 1e-9;
    const char *model = gpt2 ? "gpt2" : "smollm2";
    char name[64];
    snprintf(name, sizeof name, "read_bandwidth_%s", model);
    bench_print(context, name, bandwidth, "GB/s", 0.0);
    for (uint32_t storage = 0; storage < 3; storage++) {
        setting *of = &settings[storage];
        snprintf(name, sizeof name, "rows1_%s_%s", STORAGE[storage], model);
        bench_print(context, name, of->w.bytes / bench_median(times[storage], ROUNDS) * 1e-9, "GB/s",
                    bandwidth);
        for (size_t i = 0; i < of->w.n; i++)
            pgrad__free(context, of->w.matrices[i].data);
        pgrad__free(context, of->x);
        pgrad__free(context, of->y);
        pgrad__workspace_free(&of->workspace);
    }
}

/* Rows of a batch over all of GPT-2: how much of the products' rate widening costs. */
static void some_rows(pgrad_context *context, size_t n_rows)
{
    setting s = {.context = context, .workspace = {context, NULL, 0}, .n_rows = n_rows};
    double f32 = 0.0;
    CHECK(pgrad__calloc(context, n_rows * 3072, sizeof(float), &s.x));
    CHECK(pgrad__calloc(context, n_rows * 50304, sizeof(float), &s.y));
    for (uint32_t storage = 0; storage < 3; storage++) {
        double times[5];
        char name[64];
        make_weights(context, storage, 1, &s.w);
        (void)pass_seconds(&s);
        for (int round = 0; round < 5; round++)
            times[round] = pass_seconds(&s);
        const double rate = 1.0 / bench_median(times, 5);
        if (storage == PGRAD_STORAGE_F32)
            f32 = rate;
        snprintf(name, sizeof name, "rows%zu_%s", n_rows, STORAGE[storage]);
        bench_print(context, name, rate, "passes/s", f32);
        for (size_t i = 0; i < s.w.n; i++)
            pgrad__free(context, s.w.matrices[i].data);
    }
    pgrad__free(context, s.x);
    pgrad__free(context, s.y);
    pgrad__workspace_free(&s.workspace);
}

/* ---- generation ---- */

enum { PROMPT = 16, NEW = 48 };

typedef struct watch {
    uint32_t tokens;
    double first, last;
} watch;

static int32_t on_event(void *user, const pgrad_rollout *rollout, const pgrad_event *event)
{
    watch *w = user;
    (void)rollout;
    w->last = bench_now();
    if (event->kind == PGRAD_EVENT_TOKEN && w->tokens++ == 0)
        w->first = w->last;
    return 1;
}

typedef struct generation {
    pgrad_model *model;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    double weight_bytes;
} generation;

static void open_generation(pgrad_context *context, uint32_t storage, generation *out)
{
    pgrad_rollout_params params;
    pgrad_sampler_params sampler_params;
    pgrad_model_info info = {.struct_size = sizeof info};
    out->model = gpt2_create_in(context, storage);
    CHECK(pgrad_model_get_info(out->model, &info));
    out->weight_bytes = (double)info.weight_bytes;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = params.max_prompts = 1;
    params.max_prompt_tokens = PROMPT;
    params.max_new_tokens = NEW;
    CHECK(pgrad_rollout_create(out->model, NULL, &params, &out->rollout));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.ignore_eos = 1;
    CHECK(pgrad_sampler_create(context, &sampler_params, &out->sampler));
}

static void close_generation(generation *g)
{
    pgrad_sampler_free(g->sampler);
    pgrad_rollout_free(g->rollout);
    pgrad_model_free(g->model);
}

static double tokens_per_second(generation *g)
{
    watch w = {0, 0.0, 0.0};
    pgrad_generate_params generate;
    pgrad_token ids[PROMPT];
    for (int i = 0; i < PROMPT; i++)
        ids[i] = i * 1009 % 50000;
    pgrad_generate_params_init(&generate, sizeof generate);
    generate.event = on_event;
    generate.user = &w;
    pgrad_rollout_clear(g->rollout);
    CHECK(pgrad_rollout_add_prompt(g->rollout, ids, PROMPT, NULL, NULL));
    CHECK(pgrad_rollout_generate(g->rollout, g->sampler, &generate));
    return (double)(w.tokens - 1) / (w.last - w.first);
}

/* The three storages in turn, a plain reading in front of and behind each: the rate of memory drifts. */
static void decode_b1(pgrad_context *context, stream *s)
{
    generation generations[3];
    double rates[3][ROUNDS], limits[3][ROUNDS];
    for (uint32_t storage = 0; storage < 3; storage++)
        open_generation(context, storage, &generations[storage]);
    for (int round = -1; round < ROUNDS; round++)
        for (uint32_t storage = 0; storage < 3; storage++) {
            generation *g = &generations[storage];
            double seconds = read_seconds(context, s);
            const double rate = tokens_per_second(g);
            seconds += read_seconds(context, s);
            if (round >= 0) {
                rates[storage][round] = rate;
                limits[storage][round] = 2.0 * STREAM_BYTES / seconds / g->weight_bytes;
            }
        }
    for (uint32_t storage = 0; storage < 3; storage++) {
        char name[64];
        snprintf(name, sizeof name, "decode_b1_%s", STORAGE[storage]);
        bench_print(context, name, bench_median(rates[storage], ROUNDS), "tokens/s",
                    bench_median(limits[storage], ROUNDS));
        close_generation(&generations[storage]);
    }
}

int main(void)
{
    pgrad_context *context = two_threads();
    unsigned char *data;
    CHECK(pgrad__alloc(context, STREAM_BYTES + 8192, 1, &data));
    memset(data, 1, STREAM_BYTES + 8192);
    stream s = {data, 0};
    one_row(context, &s, 1);
    one_row(context, &s, 0);
    some_rows(context, 8);
    some_rows(context, 32);
    decode_b1(context, &s);
    pgrad__free(context, data);
    pgrad_context_free(context);
    return 0;
}
