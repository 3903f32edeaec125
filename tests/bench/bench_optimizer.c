/* An update of GPT-2 124M with each storage of moments, and with weights in bf16, stochastically rounded: bytes that must move - the gradient for its
 * norm, then weights, gradients and moments read and weights and moments written, each once - over the
 * time, beside the bandwidth of a loop of the same make, four arrays read and three written:
 * [optimizer_step_*], [optimizer_step_bf16_weights_*], and the memory of the moments [optimizer_memory_*]. */
#include "gpt2.h"

#include "base/pool.h"
#include "model/model.h"
#include "rl/optimizer.h"

enum { ROUNDS = 9, PIECE = 16384 };

typedef float lanes __attribute__((vector_size(64)));

typedef struct stream {
    lanes *a, *b, *c;
    const lanes *d;
    size_t n; /* floats */
} stream;

static void stream_task(void *argument, size_t task, uint32_t worker)
{
    const stream *s = argument;
    const size_t first = task * PIECE, end = first + PIECE < s->n ? first + PIECE : s->n;
    (void)worker;
    for (size_t i = first / 16; i < end / 16; i++) {
        lanes x = s->d[i], a = s->a[i], b = s->b[i], c = s->c[i];
        s->a[i] = a + x;
        s->b[i] = b + x;
        s->c[i] = c + x;
    }
}

static lanes *zeros(size_t n)
{
    lanes *x = aligned_alloc(64, n * sizeof(float));
    if (x == NULL)
        exit(1);
    memset(x, 0, n * sizeof(float));
    return x;
}

static double time_stream(pgrad_context *context, stream *s)
{
    pgrad__scope scope;
    CHECK(pgrad__enter(context, &scope));
    const double started = bench_now();
    pgrad__parallel(context, (s->n + PIECE - 1) / PIECE, stream_task, s);
    const double seconds = bench_now() - started;
    pgrad__leave(&scope);
    return 7.0 * sizeof(float) * (double)s->n / seconds;
}

/* weights: "" of f32 ones. */
static void measure(pgrad_context *context, pgrad_model *model, stream *s, const char *weights, const char *kind)
{
    char name[64];
    const double weight_bytes = model->storage == PGRAD_STORAGE_F32 ? 4.0 : 2.0;
    pgrad_optimizer *optimizer;
    pgrad_optimizer_params params;
    double times[ROUNDS], bandwidth[ROUNDS], bytes = 0.0, moments;
    pgrad_context_info before = {.struct_size = sizeof before}, after = before;
    pgrad_optimizer_params_init(&params, sizeof params);
    CHECK(pgrad_params_set("optimizer", &params, "moments", kind));
    CHECK(pgrad_context_get_info(context, &before));
    CHECK(pgrad_optimizer_create(model, &params, &optimizer));
    CHECK(pgrad_context_get_info(context, &after));
    moments = (double)(after.memory_now - before.memory_now);
    for (uint32_t i = 0; i < model->n_tensors; i++)
        bytes += (2.0 * sizeof(float) + 2.0 * weight_bytes) * (double)model->tensors[i].floats; /* g, g, theta, theta */
    bytes += 2.0 * moments;
    for (int round = -1; round < ROUNDS; round++) {
        const double rate = time_stream(context, s), started = bench_now();
        CHECK(pgrad_optimizer_step(optimizer, NULL));
        if (round >= 0) {
            times[round] = bench_now() - started;
            bandwidth[round] = rate;
        }
    }
    const double seconds = bench_median(times, ROUNDS);
    snprintf(name, sizeof name, "optimizer_step_%s%s", weights, kind);
    bench_print(context, name, bytes / seconds * 1e-9, "GB/s", bench_median(bandwidth, ROUNDS) * 1e-9);
    snprintf(name, sizeof name, "optimizer_time_%s%s", weights, kind);
    bench_print(context, name, seconds * 1e3, "ms", 0.0);
    snprintf(name, sizeof name, "optimizer_memory_%s%s", weights, kind);
    bench_print(context, name, moments / 1e6, "MB", 0.0);
    if (optimizer->dry_runs > 1)
        fprintf(stderr, "%s: %llu dry runs\n", kind, (unsigned long long)optimizer->dry_runs);
    pgrad_optimizer_free(optimizer);
}

static void make_gradients(pgrad_model *model)
{
    CHECK(pgrad__gradients_allocate(model));
    for (uint32_t i = 0; i < model->n_tensors; i++)
        for (size_t k = 0; k < model->tensors[i].floats; k++)
            model->tensors[i].grad[k] = 1e-5f * ((float)(k % 2017) - 1008.0f) * (float)(k % 31);
}

int main(void)
{
    static const char *const kinds[] = {"f32", "bf16", "q8"};
    pgrad_context *context = two_threads();
    stream s = {.n = 40u << 20};
    s.a = zeros(s.n);
    s.b = zeros(s.n);
    s.c = zeros(s.n);
    lanes *d = zeros(s.n);
    s.d = d;
    for (uint32_t storage = PGRAD_STORAGE_F32; storage <= PGRAD_STORAGE_BF16; storage++) {
        pgrad_model *model = gpt2_create_with(context, storage, 0);
        make_gradients(model);
        for (int i = 0; i < 3; i++)
            measure(context, model, &s, storage == PGRAD_STORAGE_F32 ? "" : "bf16_weights_", kinds[i]);
        pgrad_model_free(model);
    }
    free(s.a);
    free(s.b);
    free(s.c);
    free(d);
    pgrad_context_free(context);
    return 0;
}
