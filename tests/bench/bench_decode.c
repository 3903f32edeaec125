/* Decoding with 32 sequences of a GPT-2 124M up to context 256: [decode_b32], against the packed
 * products of the same step alone; and [allocations] of a second rollout. */
#include "base/alloc.h"
#include "base/context.h"
#include "gpt2.h"
#include "kernel/kernel.h"

enum { SEQUENCES = 32, PROMPT = 192, NEW = 64, ROUNDS = 3 };

/* Seconds of the products of one step: 32 rows through every matrix of the model. */
static double products_alone(pgrad_context *context)
{
    static const uint32_t SHAPES[][2] = {{2304, 768}, {768, 768}, {3072, 768}, {768, 3072}};
    const pgrad__kernels *kernels = pgrad__kernels_of(context);
    pgrad__workspace workspace = {context, NULL, 0};
    pgrad__matrix weights[12 * 4 + 1];
    float *x, *y;
    double times[7];
    for (int i = 0; i < 49; i++) {
        const uint32_t n_out = i < 48 ? SHAPES[i % 4][0] : 50257,
                       n_in = i < 48 ? SHAPES[i % 4][1] : 768;
        weights[i] = (pgrad__matrix){n_out, n_in, NULL};
        CHECK(pgrad__calloc(context, pgrad__matrix_floats(kernels, n_out, n_in), sizeof(float),
                            &weights[i].data));
    }
    CHECK(pgrad__calloc(context, SEQUENCES * 3072, sizeof(float), &x));
    CHECK(pgrad__calloc(context, (size_t)SEQUENCES * 50257, sizeof(float), &y));
    for (int round = -1; round < 7; round++) {
        double started = bench_now();
        for (int i = 0; i < 49; i++) {
            pgrad__product product = {&weights[i], NULL, y, weights[i].n_out, 0};
            CHECK(pgrad__matmul(context, &workspace, x, weights[i].n_in, SEQUENCES, &product, 1));
        }
        if (round >= 0)
            times[round] = bench_now() - started;
    }
    for (int i = 0; i < 49; i++)
        pgrad__free(context, weights[i].data);
    pgrad__free(context, x);
    pgrad__free(context, y);
    pgrad__workspace_free(&workspace);
    return bench_median(times, 7);
}

typedef struct watch {
    uint32_t tokens;
    double first, last;
} watch;

/* The first tokens come from the prompts: what counts starts behind them. */
static int32_t on_event(void *user, const pgrad_rollout *rollout, const pgrad_event *event)
{
    watch *w = user;
    (void)rollout;
    if (event->kind == PGRAD_EVENT_TOKEN && ++w->tokens == SEQUENCES)
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

static double tokens_per_second(pgrad_context *context, pgrad_model *model, uint32_t groups,
                                int tell)
{
    pgrad_rollout_params params;
    pgrad_sampler_params sampler_params;
    pgrad_generate_params generate;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    double rates[ROUNDS];
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = SEQUENCES / groups;
    params.max_prompts = groups;
    params.max_prompt_tokens = PROMPT;
    params.max_new_tokens = NEW;
    CHECK(pgrad_rollout_create(model, NULL, &params, &rollout));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.ignore_eos = 1;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    pgrad_generate_params_init(&generate, sizeof generate);
    generate.event = on_event;
    for (int round = -1; round < ROUNDS; round++) {
        watch w = {0, 0.0, 0.0};
        pgrad_context_info before = {.struct_size = sizeof before}, after = before;
        generate.user = &w;
        pgrad_rollout_clear(rollout);
        add_prompts(rollout, groups);
        CHECK(pgrad_context_get_info(context, &before));
        CHECK(pgrad_rollout_generate(rollout, sampler, &generate));
        CHECK(pgrad_context_get_info(context, &after));
        if (round >= 0)
            rates[round] = (double)(w.tokens - SEQUENCES) / (w.last - w.first);
        if (round == ROUNDS - 1 && tell)
            bench_print(context, "allocations_generate",
                        (double)(after.n_allocations - before.n_allocations), "calls per rollout",
                        0.0);
    }
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    return bench_median(rates, ROUNDS);
}

int main(void)
{
    pgrad_context *context = two_threads();
    pgrad_model *model = gpt2_create(context);
    double limit = SEQUENCES / products_alone(context);
    bench_print(context, "decode_b32", tokens_per_second(context, model, 4, 1), "tokens/s", limit);
    bench_print(context, "decode_b32_no_shared_prompt", tokens_per_second(context, model, 32, 0),
                "tokens/s", limit);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
