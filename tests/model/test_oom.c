/* The n-th allocation fails, for every n: load, pass, backward, decode, snapshot, write. Always
 * E_NOMEM or success, nothing is lost, and the next try works. */
#include "../failing_allocator.h"
#include "model_test.h"

/* An update that touches nothing. */
static pgrad_status count_update(void *user, uint32_t index)
{
    (void)index;
    ++*(uint32_t *)user;
    return PGRAD_OK;
}

static const char *folder;

/* Everything the model does once. */
static pgrad_status work(pgrad_context *context, const char *name, uint32_t storage, long try)
{
    char path[512], target[600];
    pgrad_status status;
    pgrad_model *model = NULL, *copy = NULL;
    pgrad__pass *pass = NULL;
    pgrad__kv_cache *cache = NULL;
    pgrad__folder out = {0};
    pgrad_save_params params = {.struct_size = sizeof params, .max_shard_bytes = 20000};
    uint32_t page = 0;
    float logits[128], scores[16];
    test_batch b = {0};
    mean_loss loss = {9, 0.0};
    pgrad_token tokens[10] = {5, 9, 2, 77, 31, 8, 60, 12, 1, 3};
    batch_add(&b, tokens, 10);
    pgrad__decode_span span = {.tokens = tokens, .n_tokens = 10, .pages = &page, .n_logits = 1};
    snprintf(target, sizeof target, "%s/saved%ld", folder, try);
    pgrad_model_params model_params;
    pgrad_model_params_init(&model_params, sizeof model_params);
    model_params.storage = storage;
    model_params.frozen = storage == PGRAD_STORAGE_Q8_0;
    status = pgrad_model_load(context, data_path(path, name), &model_params, &model);
    if (status == PGRAD_OK)
        status = pgrad__pass_create(model, &pass);
    uint32_t n_updates = 0;
    if (status == PGRAD_OK && !model->frozen) {
        status = pgrad__model_backward(model, pass, &b.batch,
                                       &(pgrad__backward){.loss = mean_loss_fn,
                                                          .user = &loss,
                                                          .recompute = 1,
                                                          .update = count_update,
                                                          .update_user = &n_updates});
        ck_assert_uint_eq(n_updates, status == PGRAD_OK ? model->n_tensors : 0);
        ck_assert(!model->has_gradients && model->tensors[0].grad == NULL);
    }
    if (status == PGRAD_OK)
        status = model->frozen ? pgrad__model_score(model, pass, &b.batch, scores, NULL)
                               : pgrad__model_backward(model, pass, &b.batch,
                                                       &(pgrad__backward){.loss = mean_loss_fn,
                                                                          .user = &loss});
    if (status == PGRAD_OK)
        status = pgrad__kv_cache_create(model, 2, PGRAD_KV_F32, &cache);
    if (status == PGRAD_OK)
        status = pgrad__kv_cache_take(cache, &page);
    if (status == PGRAD_OK)
        status = pgrad__model_decode(model, pass, cache, &span, 1, logits);
    if (status == PGRAD_OK)
        status = pgrad_model_snapshot(model, &copy);
    if (status == PGRAD_OK)
        status = pgrad__folder_open(context, target, &out);
    if (status == PGRAD_OK)
        status = pgrad__model_write(model, &params, &out);
    if (status == PGRAD_OK)
        status = pgrad__folder_commit(&out);
    if (status != PGRAD_OK)
        pgrad__folder_abort(&out);
    pgrad_model_free(copy);
    pgrad__kv_cache_free(cache);
    pgrad__pass_free(pass);
    pgrad_model_free(model);
    return status;
}

START_TEST(every_allocation_may_fail)
{
    static const char *const names[] = {"tiny_llama_tied", "tiny_llama_sharded",
                                        "tiny_gpt2_f16.gguf", "tiny_llama_tied", "tiny_gpt2"};
    static const uint32_t storages[] = {PGRAD_STORAGE_F32, PGRAD_STORAGE_F32, PGRAD_STORAGE_F32,
                                        PGRAD_STORAGE_BF16, PGRAD_STORAGE_Q8_0};
    counted state = {-1, 0};
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params params;
    pgrad_context *context = NULL;
    char path[512];
    temporary_folder(path);
    folder = path;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    params.allocator = &allocator;
    OK(pgrad_context_create(&params, &context));
    long before = state.live, n = 1;
    for (; n < 5000; n++) {
        state.left = n;
        pgrad_status status = work(context, names[_i], storages[_i], n);
        int failed = state.left <= 0;
        state.left = -1;
        ck_assert_msg(state.live == before, "allocation %ld: %ld blocks lost", n,
                      state.live - before);
        if (!failed) {
            OK(status);
            break;
        }
        /* What is only worth trying, such as tidying up behind a save, may fail without a word. */
        ck_assert_msg(status == PGRAD_E_NOMEM || status == PGRAD_OK, "allocation %ld: %s: %s", n,
                      pgrad_status_name(status), pgrad_error_message());
    }
    ck_assert_msg(n > 50 && n < 5000, "%ld allocations", n);
    pgrad_context_free(context);
    ck_assert_int_eq(state.live, 0);
    remove_folder(path);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("oom");
    TCase *tests = tcase_create("oom");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, every_allocation_may_fail, 0, 5);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
