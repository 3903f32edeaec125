/* BLIS's micro-kernels read ahead of what they multiply, and so do vector loads: every buffer must have room for it. Here
 * each block of the library's memory ends where a page without rights begins, so that a read beyond it ends the test. */
#include "rl_test.h"

#include <sys/mman.h>
#include <unistd.h>

static size_t page_size(void)
{
    return (size_t)sysconf(_SC_PAGESIZE);
}

static size_t whole_pages(size_t size)
{
    return (size + page_size() - 1) / page_size() * page_size();
}

static void *end_alloc(void *user, size_t size, size_t alignment)
{
    const size_t room = whole_pages(size);
    (void)user;
    ck_assert_uint_eq(size % alignment, 0); /* or a block could not be aligned and end at the page */
    unsigned char *block = mmap(NULL, room + page_size(), PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (block == MAP_FAILED)
        return NULL;
    if (mprotect(block + room, page_size(), PROT_NONE) != 0) {
        (void)munmap(block, room + page_size());
        return NULL;
    }
    return block + room - size;
}

static void end_free(void *user, void *pointer, size_t size)
{
    const size_t room = whole_pages(size);
    (void)user;
    (void)munmap((unsigned char *)pointer + size - room, room + page_size());
}

static const struct {
    uint32_t kernel_set, storage, kv_storage;
    const char *config;
} cases[] = {
    {PGRAD_KERNELS_GENERIC, PGRAD_STORAGE_F32, PGRAD_KV_F32, LLAMA_CONFIG},
    {PGRAD_KERNELS_HASWELL, PGRAD_STORAGE_F32, PGRAD_KV_F32, LLAMA_CONFIG},
    {PGRAD_KERNELS_SKX, PGRAD_STORAGE_F32, PGRAD_KV_F32, LLAMA_CONFIG},
    {PGRAD_KERNELS_HASWELL, PGRAD_STORAGE_F32, PGRAD_KV_F16, GPT2_CONFIG},
    {PGRAD_KERNELS_SKX, PGRAD_STORAGE_F32, PGRAD_KV_BF16, GPT2_CONFIG},
    {PGRAD_KERNELS_HASWELL, PGRAD_STORAGE_BF16, PGRAD_KV_F32, LLAMA_CONFIG},
    {PGRAD_KERNELS_SKX, PGRAD_STORAGE_BF16, PGRAD_KV_F32, GPT2_CONFIG},
    {PGRAD_KERNELS_HASWELL, PGRAD_STORAGE_Q8_0, PGRAD_KV_F32, LLAMA_CONFIG},
    {PGRAD_KERNELS_SKX, PGRAD_STORAGE_Q8_0, PGRAD_KV_F16, LLAMA_CONFIG},
    {PGRAD_KERNELS_ARMV8A, PGRAD_STORAGE_F32, PGRAD_KV_F32, LLAMA_CONFIG},
};

/* Rows from one to more than a block of tiles. */
static void sample_and_score(const world *w, uint32_t kv_storage, pgrad_rollout **out)
{
    pgrad_rollout *rollout = make_rollout_over(w, 3, 5, 9, 0, kv_storage);
    pgrad_sampler_params params = sampler_defaults();
    params.top_p = 0.9;
    pgrad_sampler *sampler = make_sampler(w->context, &params);
    for (uint32_t i = 0; i < 5; i++) {
        pgrad_token ids[70];
        for (uint32_t t = 0; t < 70; t++)
            ids[t] = (pgrad_token)pgrad__uniform_below(3, i, t, 256);
        OK(pgrad_rollout_add_prompt(rollout, ids, 1 + 17 * i, NULL, NULL));
    }
    OK(pgrad_rollout_generate(rollout, sampler, NULL));
    OK(pgrad_rollout_score(rollout, w->model, PGRAD_CURRENT));
    pgrad_sampler_free(sampler);
    *out = rollout;
}

static void learn(const world *w, pgrad_rollout *rollout, uint32_t moments)
{
    pgrad_optimizer_params params;
    pgrad_objective_params with;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        const float reward = (float)(i % 3);
        OK(pgrad_rollout_set_array(rollout, PGRAD_REWARDS, i, &reward, 1));
    }
    pgrad_objective_params_init(&with, sizeof with);
    with.recompute = moments != PGRAD_MOMENTS_F32 ? PGRAD_RECOMPUTE_ON : PGRAD_RECOMPUTE_OFF;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.moments = moments;
    OK(pgrad_advantage_create(w->context, NULL, &advantage));
    OK(pgrad_objective_create(w->model, &with, &objective));
    OK(pgrad_optimizer_create(w->model, &params, &optimizer));
    OK(pgrad_advantage_apply(advantage, rollout));
    OK(pgrad_model_zero_grad(w->model));
    OK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, NULL));
    OK(pgrad_optimizer_step(optimizer, NULL));
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_advantage_free(advantage);
}

START_TEST(nothing_is_read_beyond_a_block)
{
    pgrad_allocator allocator = {NULL, end_alloc, end_free};
    pgrad_context_params params;
    world w = {.context = NULL};
    pgrad_rollout *rollout;
    pgrad_context_params_init(&params, sizeof params);
    params.allocator = &allocator;
    params.n_threads = 2;
    params.kernel_set = cases[_i].kernel_set;
    if (pgrad_context_create(&params, &w.context) == PGRAD_E_UNSUPPORTED) {
        fprintf(stderr, "skipped: %s\n", pgrad_error_message());
        return;
    }
    ck_assert_ptr_nonnull(w.context);
    w.memory = memory_now(w.context);
    model_storage = cases[_i].storage;
    w.model = make_model(w.context, cases[_i].config);
    w.tokenizer = make_tokenizer(w.context);
    sample_and_score(&w, cases[_i].kv_storage, &rollout);
    for (uint32_t moments = 0; cases[_i].storage != PGRAD_STORAGE_Q8_0 && moments <= PGRAD_MOMENTS_Q8; moments++)
        learn(&w, rollout, moments);
    pgrad_rollout_free(rollout);
    end_world(&w);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("page_ends");
    TCase *cases_ = tcase_create("page_ends");
    tcase_set_timeout(cases_, 120);
    tcase_add_loop_test(cases_, nothing_is_read_beyond_a_block, 0, sizeof cases / sizeof cases[0]);
    suite_add_tcase(suite, cases_);
    return run_suite(suite);
}
