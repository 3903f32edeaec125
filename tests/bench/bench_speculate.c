/* bench_speculate MODEL: generation with drafts switched on where they pay (the default) against generation
 * without, over text that repeats itself and text that does not: share is the gain. */
#include "bench.h"

enum { PROMPT = 96, ROUNDS = 6, MAX_BATCH = 32 };

typedef struct watch {
    uint32_t tokens, first_tokens;
    double first, last;
} watch;

static int32_t on_event(void *user, const pgrad_rollout *rollout, const pgrad_event *event)
{
    watch *w = user;
    (void)rollout;
    if (event->kind == PGRAD_EVENT_TOKEN && ++w->tokens == w->first_tokens)
        w->first = bench_now();
    w->last = bench_now();
    return 1;
}

/* Twelve ids over and over, or none twice. */
static void add_prompts(pgrad_rollout *rollout, uint32_t n, int repeats)
{
    pgrad_token ids[PROMPT];
    for (uint32_t k = 0; k < n; k++) {
        for (uint32_t i = 0; i < PROMPT; i++)
            ids[i] = (pgrad_token)(1000 + (k * 7919 + (repeats ? i % 12 : i) * 104729) % 40000);
        CHECK(pgrad_rollout_add_prompt(rollout, ids, PROMPT, NULL, NULL));
    }
}

static double rate(pgrad_rollout *rollout, pgrad_sampler *sampler, uint32_t batch, int repeats,
                   uint32_t speculate, pgrad_rollout_info *info)
{
    pgrad_generate_params params;
    watch w = {.first_tokens = batch};
    pgrad_generate_params_init(&params, sizeof params);
    params.event = on_event;
    params.user = &w;
    params.speculate = speculate;
    pgrad_rollout_clear(rollout);
    add_prompts(rollout, batch, repeats);
    CHECK(pgrad_sampler_set_next_sequence(sampler, 0));
    CHECK(pgrad_rollout_generate(rollout, sampler, &params));
    CHECK(pgrad_rollout_get_info(rollout, info));
    return (double)(w.tokens - batch) / (w.last - w.first);
}

static void measure(pgrad_context *context, pgrad_model *model, uint32_t batch, int repeats)
{
    static const uint32_t modes[] = {PGRAD_SPECULATE_OFF, PGRAD_SPECULATE_AUTO};
    pgrad_rollout_params params;
    pgrad_sampler_params sampler_params;
    pgrad_rollout_info info = {.struct_size = sizeof info}, plain = {.struct_size = sizeof plain};
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    double rates[2][ROUNDS], gains[ROUNDS];
    char name[80];
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = 1;
    params.max_prompts = batch;
    params.max_prompt_tokens = PROMPT;
    params.max_new_tokens = batch > 8 ? 24 : 64;
    CHECK(pgrad_rollout_create(model, NULL, &params, &rollout));
    pgrad_sampler_params_init(&sampler_params, sizeof sampler_params);
    sampler_params.temperature = repeats ? 0.0 : 1.0;
    sampler_params.ignore_eos = 1;
    CHECK(pgrad_sampler_create(context, &sampler_params, &sampler));
    for (int round = 0; round < ROUNDS; round++) {
        for (int k = 0; k < 2; k++) { /* each of the two first in turn */
            const int mode = (k + round) % 2;
            pgrad_rollout_info *out = mode == 1 ? &info : &plain;
            rates[mode][round] = rate(rollout, sampler, batch, repeats, modes[mode], out);
        }
        gains[round] = rates[1][round] / rates[0][round];
    }
    const double gain = bench_median(gains, ROUNDS);
    snprintf(name, sizeof name, "decode_speculative_%s_b%u", repeats ? "repetitive" : "random", batch);
    bench_print(context, name, bench_median(rates[1], ROUNDS), "tokens/s",
                bench_median(rates[1], ROUNDS) / gain);
    fprintf(stderr, "%s: %llu of %llu drafted tokens accepted\n", name,
            (unsigned long long)info.accepted_tokens, (unsigned long long)info.drafted_tokens);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
}

int main(int argc, char **argv)
{
    static const uint32_t batches[] = {1, 8, MAX_BATCH};
    pgrad_context *context;
    pgrad_context_params params;
    pgrad_model *model;
    if (argc != 2)
        return 2;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    CHECK(pgrad_context_create(&params, &context));
    CHECK(pgrad_model_load(context, argv[1], NULL, &model));
    for (int repeats = 0; repeats < 2; repeats++)
        for (size_t i = 0; i < sizeof batches / sizeof batches[0]; i++)
            measure(context, model, batches[i], repeats);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
