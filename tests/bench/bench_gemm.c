/* Packed products at the shapes of GPT-2 124M: [gemm_packed], and the memory's share at one row. */
#include "base/alloc.h"
#include "bench.h"
#include "kernel/kernel.h"

enum { ROUNDS = 15, N_SHAPES = 5 };
static const uint32_t SHAPES[N_SHAPES][2] = {
    {2304, 768}, {768, 768}, {3072, 768}, {768, 3072}, {50257, 768}};

typedef struct setting {
    pgrad_context *context;
    pgrad__workspace workspace;
    pgrad__matrix weight, gradient;
    float *x, *y;
    size_t rows;
} setting;

static void forward(setting *s)
{
    pgrad__product product = {&s->weight, NULL, s->y, s->weight.n_out, 0};
    CHECK(pgrad__matmul(s->context, &s->workspace, s->x, s->weight.n_in, s->rows, &product, 1));
}

static void grad_input(setting *s)
{
    CHECK(pgrad__matmul_grad_input(s->context, &s->workspace, s->y, s->weight.n_out, s->rows,
                                   &s->weight, s->x, s->weight.n_in, 0));
}

static void grad_weight(setting *s)
{
    CHECK(pgrad__matmul_grad_weight(s->context, &s->workspace, s->y, s->weight.n_out, s->x,
                                    s->weight.n_in, s->rows, &s->gradient));
}

static double seconds(setting *s, void (*run)(setting *))
{
    double times[ROUNDS];
    run(s);
    for (int i = 0; i < ROUNDS; i++) {
        double started = bench_now();
        run(s);
        times[i] = bench_now() - started;
    }
    return bench_median(times, ROUNDS);
}

/* All shapes one after another: total work over total time. */
static double rate(pgrad_context *context, size_t rows, void (*run)(setting *),
                   double *bytes_per_second)
{
    const pgrad__kernels *kernels = pgrad__kernels_of(context);
    double work = 0.0, time = 0.0, bytes = 0.0;
    for (int i = 0; i < N_SHAPES; i++) {
        const uint32_t n_out = SHAPES[i][0], n_in = SHAPES[i][1];
        setting s = {.context = context,
                     .workspace = {context, NULL, 0},
                     .rows = rows,
                     .weight = {.n_out = n_out, .n_in = n_in},
                     .gradient = {.n_out = n_out, .n_in = n_in}};
        size_t floats = pgrad__matrix_floats(kernels, n_out, n_in);
        CHECK(pgrad__calloc(context, floats, sizeof(float), &s.weight.data));
        CHECK(pgrad__calloc(context, floats, sizeof(float), &s.gradient.data));
        CHECK(pgrad__calloc(context, rows * n_in, sizeof(float), &s.x));
        CHECK(pgrad__calloc(context, rows * n_out, sizeof(float), &s.y));
        for (size_t j = 0; j < rows * n_in; j++)
            s.x[j] = (float)(j % 7) - 3.0f;
        time += seconds(&s, run);
        work += 2.0 * (double)rows * n_out * n_in;
        bytes += 4.0 * n_out * n_in;
        pgrad__workspace_free(&s.workspace);
        pgrad__free(context, s.weight.data);
        pgrad__free(context, s.gradient.data);
        pgrad__free(context, s.x);
        pgrad__free(context, s.y);
    }
    if (bytes_per_second != NULL)
        *bytes_per_second = bytes / time;
    return work / time * 1e-9;
}

int main(void)
{
    pgrad_context *context;
    pgrad_context_params params;
    double bandwidth, peak = bench_peak();
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    CHECK(pgrad_context_create(&params, &context));
    bench_print(context, "gemm_packed", rate(context, 512, forward, NULL), "GFLOP/s", peak);
    bench_print(context, "gemm_packed_grad_input", rate(context, 512, grad_input, NULL), "GFLOP/s",
                peak);
    bench_print(context, "gemm_packed_grad_weight", rate(context, 512, grad_weight, NULL),
                "GFLOP/s", peak);
    bench_print(context, "gemm_packed_32_rows", rate(context, 32, forward, NULL), "GFLOP/s", peak);
    (void)rate(context, 1, forward, &bandwidth);
    bench_print(context, "gemm_packed_1_row", bandwidth * 1e-9, "GB/s", 0.0);
    pgrad_context_free(context);
    return 0;
}
