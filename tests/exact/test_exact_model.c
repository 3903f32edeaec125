/* The same row gives the same bits: alone, in a batch, through the cache in steps or chunks, with a
 * shared prompt; and losses and gradients with any number of threads and every kernel set. */
#include "../model/model_test.h"

typedef struct variant {
    const char *name;
    uint32_t storage;
} variant;

/* f32, then all that have gradients, then the frozen ones. */
static const variant models[] = {{"tiny_gpt2", PGRAD_STORAGE_F32},
                                 {"tiny_llama", PGRAD_STORAGE_F32},
                                 {"tiny_llama_tied", PGRAD_STORAGE_F32},
                                 {"tiny_gpt2", PGRAD_STORAGE_BF16},
                                 {"tiny_llama", PGRAD_STORAGE_BF16},
                                 {"tiny_gpt2", PGRAD_STORAGE_Q8_0},
                                 {"tiny_llama_tied", PGRAD_STORAGE_Q8_0}};
#define N_F32 3
#define N_TRAINABLE 5
#define N_MODELS 7

static pgrad_token token_at(size_t sequence, size_t i)
{
    return (pgrad_token)((sequence * 29 + i * 31 + i * i % 7) % 97);
}

static void make_tokens(size_t sequence, size_t n, pgrad_token *out)
{
    for (size_t i = 0; i < n; i++)
        out[i] = token_at(sequence, i);
}

static void same_bits(const char *what, const float *a, const float *b, size_t n)
{
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(memcmp(&a[i], &b[i], sizeof *a) == 0, "%s: element %zu: %.9g and %.9g", what,
                      i, (double)a[i], (double)b[i]);
}

/* ---- rows ---- */

#define LENGTH 61 /* tiny_gpt2 has 64 positions */
#define LONG 150  /* three key tiles */

typedef struct fixture {
    pgrad_context *context;
    pgrad_model *model;
    pgrad__pass *pass;
    pgrad__kv_cache *cache;
    size_t length, vocab;
    pgrad_token tokens[LONG];
    float *whole; /* [length, vocab] of the sequence alone */
} fixture;

static void begin(fixture *f, const variant *of, uint32_t kernel_set, uint32_t n_threads)
{
    memset(f, 0, sizeof *f);
    f->context = test_context(kernel_set, n_threads);
    ck_assert_ptr_nonnull(f->context);
    f->model = stored_model(f->context, of->name, of->storage);
    f->length = f->model->n_context >= LONG ? LONG : LENGTH;
    f->vocab = f->model->config.n_vocab;
    OK(pgrad__pass_create(f->model, &f->pass));
    OK(pgrad__kv_cache_create(f->model, 40, PGRAD_KV_F32, &f->cache));
    make_tokens(0, f->length, f->tokens);
    f->whole = malloc(f->length * f->vocab * sizeof *f->whole);
    OK(pgrad_model_logits(f->model, f->tokens, f->length, PGRAD_LOGITS_ALL, f->whole,
                          f->length * f->vocab));
}

static void end(fixture *f)
{
    free(f->whole);
    pgrad__kv_cache_free(f->cache);
    pgrad__pass_free(f->pass);
    pgrad_model_free(f->model);
    pgrad_context_free(f->context);
}

START_TEST(alone_and_in_a_batch)
{
    fixture f;
    begin(&f, &models[_i], PGRAD_KERNELS_AUTO, 2);
    test_batch b = {0};
    pgrad_token other[64];
    make_tokens(1, 40, other);
    batch_add(&b, other, 40);
    batch_add(&b, f.tokens, f.length);
    make_tokens(2, 3, other);
    batch_add(&b, other, 3);
    b.batch.targets = NULL;
    float *all = malloc(b.batch.n_targets * f.vocab * sizeof *all);
    OK(pgrad__model_forward_logits(f.model, f.pass, &b.batch, all));
    same_bits("in a batch", all + 39 * f.vocab, f.whole, (f.length - 1) * f.vocab);
    /* A shorter sequence, and one target row only. */
    float *row = malloc(f.vocab * sizeof *row);
    OK(pgrad_model_logits(f.model, f.tokens, 5, PGRAD_LOGITS_LAST, row, f.vocab));
    same_bits("prefix", row, f.whole + 4 * f.vocab, f.vocab);
    free(row);
    free(all);
    end(&f);
}
END_TEST

/* Decodes in chunks of the given size; every chunk's last row is compared. */
static void decode_in_chunks(fixture *f, size_t chunk)
{
    uint32_t pages[8];
    float *row = malloc(f->vocab * sizeof *row);
    pgrad__kv_cache_reset(f->cache);
    size_t n_pages = 0;
    for (size_t first = 0; first < f->length; first += chunk) {
        size_t n = f->length - first < chunk ? f->length - first : chunk;
        while (n_pages * PGRAD__KEY_TILE < first + n)
            OK(pgrad__kv_cache_take(f->cache, &pages[n_pages++]));
        pgrad__decode_span span = {.tokens = f->tokens + first,
                                   .n_tokens = (uint32_t)n,
                                   .first_position = (uint32_t)first,
                                   .pages = pages,
                                   .n_logits = 1};
        OK(pgrad__model_decode(f->model, f->pass, f->cache, &span, 1, row));
        same_bits("decoded", row, f->whole + (first + n - 1) * f->vocab, f->vocab);
    }
    free(row);
}

START_TEST(through_the_cache)
{
    static const size_t chunks[] = {1, 2, 7, 17, 32, 64, 65, 150};
    fixture f;
    begin(&f, &models[_i], PGRAD_KERNELS_AUTO, 2);
    for (size_t i = 0; i < sizeof chunks / sizeof chunks[0]; i++)
        decode_in_chunks(&f, chunks[i]);
    end(&f);
}
END_TEST

/* Many sequences of different lengths step together: the wide kernel, and spans with and without
 * logits. */
START_TEST(decoded_together)
{
    enum { N = 20, STEPS = 6 };
    fixture f;
    begin(&f, &models[_i], PGRAD_KERNELS_AUTO, 3);
    pgrad_token tokens[N][64];
    uint32_t pages[N];
    size_t start[N];
    pgrad__decode_span spans[N];
    float *rows = malloc(N * f.vocab * sizeof *rows), *alone = malloc(64 * f.vocab * sizeof *alone);
    for (size_t s = 0; s < N; s++) {
        make_tokens(s + 3, 64, tokens[s]);
        start[s] = 1 + s * 2;
        OK(pgrad__kv_cache_take(f.cache, &pages[s]));
        spans[s] = (pgrad__decode_span){
            .tokens = tokens[s], .n_tokens = (uint32_t)start[s], .pages = &pages[s]};
    }
    OK(pgrad__model_decode(f.model, f.pass, f.cache, spans, N,
                           NULL)); /* prompts: no logits wanted */
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t s = 0; s < N; s++)
            spans[s] = (pgrad__decode_span){.tokens = tokens[s] + start[s] + step,
                                            .n_tokens = 1,
                                            .first_position = (uint32_t)(start[s] + step),
                                            .pages = &pages[s],
                                            .n_logits = s % 3 != 1};
        OK(pgrad__model_decode(f.model, f.pass, f.cache, spans, N, rows));
        size_t row = 0;
        for (size_t s = 0; s < N; s++) {
            if (s % 3 == 1)
                continue;
            OK(pgrad_model_logits(f.model, tokens[s], start[s] + step + 1, PGRAD_LOGITS_LAST, alone,
                                  f.vocab));
            same_bits("together", rows + row++ * f.vocab, alone, f.vocab);
        }
    }
    free(alone);
    free(rows);
    end(&f);
}
END_TEST

/* A prompt computed once: whole pages shared, the border page copied; the group's rows run
 * together. */
START_TEST(shared_prompt)
{
    enum { G = 5, STEPS = 3 };
    static const size_t prompts[] = {64, 70, 128, 131};
    fixture f;
    begin(&f, &models[1 + _i % 2], PGRAD_KERNELS_AUTO, 2);
    size_t n_prompt = prompts[_i / 2], n_full = n_prompt / PGRAD__KEY_TILE;
    uint32_t prompt_pages[4], pages[G][4];
    size_t n_pages = (n_prompt + PGRAD__KEY_TILE - 1) / PGRAD__KEY_TILE;
    for (size_t i = 0; i < n_pages; i++)
        OK(pgrad__kv_cache_take(f.cache, &prompt_pages[i]));
    pgrad__decode_span prompt = {
        .tokens = f.tokens, .n_tokens = (uint32_t)n_prompt, .pages = prompt_pages};
    OK(pgrad__model_decode(f.model, f.pass, f.cache, &prompt, 1, NULL));
    pgrad_token sequence[G][LONG];
    for (size_t g = 0; g < G; g++) {
        for (size_t i = 0; i < n_full; i++) {
            pages[g][i] = prompt_pages[i];
            pgrad__kv_cache_share(f.cache, prompt_pages[i]);
        }
        if (n_full < n_pages)
            OK(pgrad__kv_cache_copy(f.cache, prompt_pages[n_full], &pages[g][n_full]));
        else
            OK(pgrad__kv_cache_take(f.cache, &pages[g][n_full]));
        memcpy(sequence[g], f.tokens, n_prompt * sizeof f.tokens[0]);
        make_tokens(g + 50, STEPS, sequence[g] + n_prompt);
    }
    float *rows = malloc(G * f.vocab * sizeof *rows), *alone = malloc(f.vocab * sizeof *alone);
    for (size_t step = 0; step < STEPS; step++) {
        pgrad__decode_span spans[G];
        for (size_t g = 0; g < G; g++)
            spans[g] = (pgrad__decode_span){.tokens = sequence[g] + n_prompt + step,
                                            .n_tokens = 1,
                                            .first_position = (uint32_t)(n_prompt + step),
                                            .pages = pages[g],
                                            .group = step == 1 ? 0 : 7,
                                            .n_shared_pages = step == 1 ? 0 : (uint32_t)n_full,
                                            .n_logits = 1};
        OK(pgrad__model_decode(f.model, f.pass, f.cache, spans, G, rows));
        for (size_t g = 0; g < G; g++) {
            OK(pgrad_model_logits(f.model, sequence[g], n_prompt + step + 1, PGRAD_LOGITS_LAST,
                                  alone, f.vocab));
            same_bits("shared prompt", rows + g * f.vocab, alone, f.vocab);
        }
    }
    /* All pages come back. */
    for (size_t i = 0; i < n_pages; i++)
        pgrad__kv_cache_release(f.cache, prompt_pages[i]);
    for (size_t g = 0; g < G; g++) {
        for (size_t i = 0; i <= n_full; i++)
            pgrad__kv_cache_release(f.cache, pages[g][i]);
    }
    ck_assert_uint_eq(pgrad__kv_cache_available(f.cache), 40);
    free(alone);
    free(rows);
    end(&f);
}
END_TEST

/* A page used before is as good as new: what a diverged sequence left is gone. */
START_TEST(old_pages_do_not_show)
{
    fixture f;
    begin(&f, &models[_i], PGRAD_KERNELS_AUTO, 2);
    float *embedding = f.model->tensors[0].data, kept = embedding[0];
    uint32_t page;
    pgrad_token zero[40] = {0};
    float *row = malloc(40 * f.vocab * sizeof *row);
    embedding[0] = (float)NAN; /* of token 0 */
    OK(pgrad__kv_cache_take(f.cache, &page));
    pgrad__decode_span span = {.tokens = zero, .n_tokens = 40, .pages = &page, .n_logits = 1};
    OK(pgrad__model_decode(f.model, f.pass, f.cache, &span, 1, row));
    ck_assert(isnan(row[0]));
    test_batch b = {0};
    batch_add(&b, zero, 40);
    b.batch.targets = NULL;
    OK(pgrad__model_forward_logits(f.model, f.pass, &b.batch, row));
    pgrad__kv_cache_release(f.cache, page);
    embedding[0] = kept;
    for (size_t n = 1; n < 6; n++) {
        OK(pgrad__kv_cache_take(f.cache, &page));
        span = (pgrad__decode_span){
            .tokens = f.tokens, .n_tokens = (uint32_t)n, .pages = &page, .n_logits = 1};
        OK(pgrad__model_decode(f.model, f.pass, f.cache, &span, 1, row));
        same_bits("page again", row, f.whole + (n - 1) * f.vocab, f.vocab);
        pgrad__kv_cache_release(f.cache, page);
        memset(&b, 0, sizeof b);
        batch_add(&b, f.tokens, n + 1);
        b.batch.targets = NULL;
        OK(pgrad__model_forward_logits(f.model, f.pass, &b.batch, row));
        same_bits("pass again", row, f.whole, n * f.vocab);
    }
    free(row);
    end(&f);
}
END_TEST

/* ---- scores, losses, gradients ---- */

START_TEST(scored_and_trained)
{
    fixture f;
    begin(&f, &models[_i], PGRAD_KERNELS_AUTO, 2);
    test_batch b = {0};
    pgrad_token other[30];
    make_tokens(9, 30, other);
    batch_add(&b, f.tokens, f.length);
    batch_add(&b, other, 30);
    for (size_t i = 0; i < b.batch.n_targets; i++)
        b.inverse_tau[i] = i % 2 ? 1.0f : 1.25f;
    float *scored = malloc(b.batch.n_targets * sizeof *scored);
    OK(pgrad__model_score(f.model, f.pass, &b.batch, scored, NULL));
    /* The first importance ratio is exactly 1: backward's log-probabilities are the same. */
    mean_loss loss = {b.batch.n_targets, 0.0};
    OK(pgrad__model_backward(f.model, f.pass, &b.batch,
                             &(pgrad__backward){.loss = mean_loss_fn, .user = &loss}));
    double sum = 0.0;
    for (size_t i = 0; i < b.batch.n_targets; i++)
        sum -= (double)scored[i];
    ck_assert(sum == loss.sum);
    free(scored);
    end(&f);
}
END_TEST

static pgrad_status zero_loss(void *user, size_t first, size_t n, const float *logprob,
                              const float *entropy, float *d_logprob, float *entropy_weight)
{
    (void)user;
    (void)first;
    (void)logprob;
    (void)entropy;
    memset(d_logprob, 0, n * sizeof *d_logprob);
    memset(entropy_weight, 0, n * sizeof *entropy_weight);
    return PGRAD_OK;
}

START_TEST(zero_derivatives_leave_zero)
{
    fixture f;
    begin(&f, &models[_i], PGRAD_KERNELS_AUTO, 2);
    test_batch b = {0};
    batch_add(&b, f.tokens, f.length);
    OK(pgrad__model_backward(f.model, f.pass, &b.batch, &(pgrad__backward){.loss = zero_loss}));
    for (uint32_t i = 0; i < f.model->n_tensors; i++) {
        for (size_t j = 0; j < f.model->tensors[i].floats; j++)
            ck_assert(f.model->tensors[i].grad[j] == 0.0f);
    }
    end(&f);
}
END_TEST

/* Loss and all gradients where there are some, in the checkpoints' order, and logits of one machine configuration. */
typedef struct outcome {
    double loss;
    float *values;
    size_t n;
} outcome;

static outcome run(const variant *of, uint32_t kernel_set, uint32_t n_threads)
{
    fixture f;
    outcome out = {0};
    begin(&f, of, kernel_set, n_threads);
    test_batch b = {0};
    pgrad_token other[50];
    batch_add(&b, f.tokens, f.length);
    for (size_t s = 0; s < 6; s++) {
        make_tokens(s + 20, 11 + 7 * s, other);
        batch_add(&b, other, 11 + 7 * s);
    }
    if (!f.model->frozen)
        out.loss = run_backward(f.model, f.pass, &b);
    for (uint32_t i = 0; i < f.model->n_tensors && !f.model->frozen; i++)
        out.n += f.model->tensors[i].dims[0] * f.model->tensors[i].dims[1];
    size_t n_logits = f.length * f.vocab, at = 0;
    out.values = malloc((out.n + n_logits) * sizeof *out.values);
    for (uint32_t i = 0; i < f.model->n_tensors && !f.model->frozen; i++) {
        size_t n;
        OK(pgrad_model_grad_read(f.model, f.model->tensors[i].name, out.values + at, out.n - at,
                                 &n));
        at += n;
    }
    memcpy(out.values + at, f.whole, n_logits * sizeof *out.values);
    out.n += n_logits;
    end(&f);
    return out;
}

static void same_outcome(const char *what, const outcome *a, const outcome *b)
{
    ck_assert_msg(a->loss == b->loss, "%s: loss %.17g and %.17g", what, a->loss, b->loss);
    ck_assert_uint_eq(a->n, b->n);
    same_bits(what, a->values, b->values, a->n);
}

START_TEST(threads_do_not_show)
{
    static const uint32_t threads[] = {2, 3, 8};
    outcome one = run(&models[_i], PGRAD_KERNELS_AUTO, 1);
    for (size_t i = 0; i < 3; i++) {
        outcome many = run(&models[_i], PGRAD_KERNELS_AUTO, threads[i]);
        same_outcome("threads", &one, &many);
        free(many.values);
    }
    free(one.values);
}
END_TEST

START_TEST(kernel_sets_do_not_show)
{
    static const uint32_t sets[] = {PGRAD_KERNELS_HASWELL, PGRAD_KERNELS_SKX, PGRAD_KERNELS_ARMV8A};
    outcome plain = run(&models[_i], PGRAD_KERNELS_GENERIC, 2);
    for (size_t i = 0; i < 3; i++) {
        pgrad_context *probe = test_context(sets[i], 1);
        if (probe == NULL) /* not of this machine */
            continue;
        pgrad_context_free(probe);
        outcome other = run(&models[_i], sets[i], 2);
        same_outcome("kernel set", &plain, &other);
        free(other.values);
    }
    free(plain.values);
}
END_TEST

/* A second pass of the same sizes takes no memory. */
START_TEST(warm_passes_allocate_nothing)
{
    fixture f;
    begin(&f, &models[_i], PGRAD_KERNELS_AUTO, 2);
    test_batch b = {0};
    pgrad_context_info before = {.struct_size = sizeof before}, after = before;
    float scores[LONG];
    batch_add(&b, f.tokens, f.length);
    for (int i = 0; i < 2; i++) {
        OK(pgrad_context_get_info(f.context, i == 0 ? &before : &after));
        mean_loss loss = {b.batch.n_targets, 0.0};
        OK(pgrad__model_backward(f.model, f.pass, &b.batch,
                             &(pgrad__backward){.loss = mean_loss_fn, .user = &loss}));
        OK(pgrad__model_score(f.model, f.pass, &b.batch, scores, NULL));
        decode_in_chunks(&f, 16);
    }
    OK(pgrad_context_get_info(f.context, &before));
    ck_assert_uint_eq(before.n_allocations, after.n_allocations);
    end(&f);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("exact_model");
    TCase *tests = tcase_create("exact_model");
    tcase_set_timeout(tests, 300);
    tcase_add_loop_test(tests, alone_and_in_a_batch, 0, N_MODELS);
    tcase_add_loop_test(tests, through_the_cache, 0, N_MODELS);
    tcase_add_loop_test(tests, decoded_together, 0, N_MODELS);
    tcase_add_loop_test(tests, shared_prompt, 0, 8);
    tcase_add_loop_test(tests, old_pages_do_not_show, 0, N_F32);
    tcase_add_loop_test(tests, scored_and_trained, 0, N_TRAINABLE);
    tcase_add_loop_test(tests, zero_derivatives_leave_zero, 0, N_TRAINABLE);
    tcase_add_loop_test(tests, threads_do_not_show, 0, N_MODELS);
    tcase_add_loop_test(tests, kernel_sets_do_not_show, 0, N_MODELS);
    tcase_add_loop_test(tests, warm_passes_allocate_nothing, 0, N_TRAINABLE);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
