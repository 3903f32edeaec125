/* What the tests of models share: contexts, golden numbers, the supervised loss. */
#ifndef PGRAD_TESTS_MODEL_TEST_H
#define PGRAD_TESTS_MODEL_TEST_H

#include <check.h>
#include <dirent.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <policygrad/status.h>

#include "../suite.h"
#include "io/safetensors.h"
#include "model/model.h"
#include "model/weights.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        pgrad_status ok_ = (call);                                                                 \
        if (ok_ != PGRAD_OK)                                                                       \
            ck_abort_msg("%s: %s: %s", #call, pgrad_status_name(ok_),                              \
                         pgrad_error_message());                                                   \
    } while (0)

/* The call fails with this code, and its message holds this text. */
#define FAILS(code, text, call)                                                                    \
    do {                                                                                           \
        pgrad_status fails_ = (call);                                                              \
        ck_assert_msg(fails_ == (code), "%s: %s instead of %s: %s", #call,                         \
                      pgrad_status_name(fails_), pgrad_status_name(code), pgrad_error_message());  \
        ck_assert_msg(strstr(pgrad_error_message(), text) != NULL, "'%s' is not in '%s'", text,    \
                      pgrad_error_message());                                                      \
    } while (0)

/* NULL when this machine lacks the kernel set. */
static inline pgrad_context *test_context(uint32_t kernel_set, uint32_t n_threads)
{
    pgrad_context_params params;
    pgrad_context *context = NULL;
    pgrad_context_params_init(&params, sizeof params);
    params.kernel_set = kernel_set;
    params.n_threads = n_threads;
    if (pgrad_context_create(&params, &context) != PGRAD_OK) {
        fprintf(stderr, "skipped: %s\n", pgrad_error_message()); /* counted by tests/run.sh */
        return NULL;
    }
    return context;
}

static inline const char *data_path(char *buffer, const char *name)
{
    snprintf(buffer, 512, "%s/golden/%s", PGRAD_TEST_DATA, name);
    return buffer;
}

/* With its matrices in this storage; frozen where that is asked for. */
static inline pgrad_model *stored_model(pgrad_context *context, const char *name, uint32_t storage)
{
    char path[512];
    pgrad_model *model = NULL;
    pgrad_model_params params;
    pgrad_model_params_init(&params, sizeof params);
    params.storage = storage;
    params.frozen = storage == PGRAD_STORAGE_Q8_0;
    OK(pgrad_model_load(context, data_path(path, name), &params, &model));
    return model;
}

static inline pgrad_model *golden_model(pgrad_context *context, const char *name)
{
    char path[512];
    pgrad_model *model = NULL;
    OK(pgrad_model_load(context, data_path(path, name), NULL, &model));
    return model;
}

/* Every tensor of both: the same names, shapes and bits. */
static inline void same_weights(pgrad_model *a, pgrad_model *b)
{
    ck_assert_uint_eq(a->n_tensors, b->n_tensors);
    for (uint32_t i = 0; i < a->n_tensors; i++) {
        const pgrad__tensor *left = &a->tensors[i], *right = pgrad__tensor_by_name(b, left->name);
        ck_assert_msg(right != NULL, "no '%s'", left->name);
        ck_assert_uint_eq(left->floats, right->floats);
        ck_assert_msg(memcmp(left->data, right->data, left->floats * sizeof(float)) == 0,
                      "'%s' differs", left->name);
    }
}

/* Of 60 tokens; free() them. */
static inline float *logits_of(pgrad_model *model, size_t *n)
{
    pgrad_token tokens[70];
    for (int i = 0; i < 60; i++)
        tokens[i] = (i * 37 + 5) % 97;
    *n = 60 * model->config.n_vocab;
    float *out = malloc(*n * sizeof *out);
    OK(pgrad_model_logits(model, tokens, 60, PGRAD_LOGITS_ALL, out, *n));
    return out;
}

static inline void same_logits(pgrad_model *a, pgrad_model *b)
{
    size_t n, m;
    float *left = logits_of(a, &n), *right = logits_of(b, &m);
    ck_assert_uint_eq(n, m);
    ck_assert(memcmp(left, right, n * sizeof *left) == 0);
    free(left);
    free(right);
}

/* golden.safetensors of a model. */
static inline void golden_open(pgrad_context *context, const char *name, pgrad__tensor_set *set)
{
    char path[512];
    snprintf(path, sizeof path, "%s/golden/%s/golden.safetensors", PGRAD_TEST_DATA, name);
    memset(set, 0, sizeof *set);
    OK(pgrad__safetensors_open(context, path, set));
}

/* A tensor of it; free() it. */
static inline float *golden_read(const pgrad__tensor_set *set, const char *name, size_t *n)
{
    const pgrad__tensor_view *view = pgrad__tensor_find(set, name);
    ck_assert_msg(view != NULL, "no golden '%s'", name);
    float *values = malloc((size_t)view->n_elements * sizeof *values);
    ck_assert_ptr_nonnull(values);
    OK(pgrad__tensor_read(set, view, 0, view->n_elements, values));
    *n = (size_t)view->n_elements;
    return values;
}

#define MAX_ROWS 512

/* The golden sequences as one batch: all next tokens are targets. */
typedef struct test_batch {
    pgrad_token tokens[MAX_ROWS], targets[MAX_ROWS];
    uint32_t rows[MAX_ROWS];
    float inverse_tau[MAX_ROWS];
    pgrad__attention_sequence sequences[8];
    pgrad__batch batch;
    size_t lengths[8];
} test_batch;

static inline void batch_add(test_batch *b, const pgrad_token *tokens, size_t n)
{
    pgrad__batch *batch = &b->batch;
    size_t first = batch->n_rows;
    ck_assert(first + n <= MAX_ROWS && batch->n_sequences < 8);
    for (size_t i = 0; i < n; i++) {
        b->tokens[first + i] = tokens[i];
        if (i + 1 < n) {
            b->targets[batch->n_targets] = tokens[i + 1];
            b->rows[batch->n_targets] = (uint32_t)(first + i);
            b->inverse_tau[batch->n_targets++] = 1.0f;
        }
    }
    b->lengths[batch->n_sequences] = n;
    b->sequences[batch->n_sequences++] = (pgrad__attention_sequence){first, (uint32_t)n, 0};
    batch->n_rows += n;
    batch->tokens = b->tokens;
    batch->targets = b->targets;
    batch->target_rows = b->rows;
    batch->inverse_tau = b->inverse_tau;
    batch->sequences = b->sequences;
}

static inline void golden_batch(const pgrad__tensor_set *set, test_batch *b)
{
    memset(b, 0, sizeof *b);
    for (int s = 0; s < 2; s++) {
        char name[32];
        pgrad_token tokens[MAX_ROWS];
        size_t n;
        snprintf(name, sizeof name, "tokens.%d", s);
        float *values = golden_read(set, name, &n);
        ck_assert(n <= MAX_ROWS);
        for (size_t i = 0; i < n; i++)
            tokens[i] = (pgrad_token)values[i];
        batch_add(b, tokens, n);
        free(values);
    }
}

/* -mean log p over all targets. */
typedef struct mean_loss {
    size_t n_targets;
    double sum;
} mean_loss;

static inline pgrad_status mean_loss_fn(void *user, size_t first, size_t n, const float *logprob,
                                        const float *entropy, float *d_logprob,
                                        float *entropy_weight)
{
    mean_loss *loss = user;
    (void)first;
    (void)entropy;
    for (size_t i = 0; i < n; i++) {
        loss->sum -= (double)logprob[i];
        d_logprob[i] = -1.0f / (float)loss->n_targets;
        entropy_weight[i] = 0.0f;
    }
    return PGRAD_OK;
}

static inline double run_backward(pgrad_model *model, pgrad__pass *pass, const test_batch *b)
{
    mean_loss loss = {b->batch.n_targets, 0.0};
    OK(pgrad_model_zero_grad(model));
    OK(pgrad__lock_write(&model->lock, "test"));
    OK(pgrad__model_backward(model, pass, &b->batch,
                             &(pgrad__backward){.loss = mean_loss_fn, .user = &loss}));
    pgrad__unlock_write(&model->lock);
    return loss.sum / (double)loss.n_targets;
}

/* A folder that is removed with its files. */
static inline void temporary_folder(char *path)
{
    const char *base = getenv("TMPDIR");
    snprintf(path, 512, "%s/pgrad-model-XXXXXX", base != NULL ? base : "/tmp");
    ck_assert_ptr_nonnull(mkdtemp(path));
}

/* The weights of a tensor that is f32. */
static inline float *weights_of(const pgrad__tensor *tensor)
{
    return tensor->data;
}

static inline void remove_folder(const char *path)
{
    DIR *folder = opendir(path);
    for (struct dirent *entry; folder != NULL && (entry = readdir(folder)) != NULL;) {
        char *name;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        ck_assert_int_gt(asprintf(&name, "%s/%s", path, entry->d_name), 0);
        if (unlink(name) != 0)
            remove_folder(name);
        free(name);
    }
    if (folder != NULL)
        closedir(folder);
    rmdir(path);
}

static inline void put_file(const char *folder, const char *name, const void *data, size_t size)
{
    char path[1024];
    snprintf(path, sizeof path, "%s/%s", folder, name);
    FILE *file = fopen(path, "wb");
    ck_assert_ptr_nonnull(file);
    ck_assert_uint_eq(fwrite(data, 1, size, file), size);
    ck_assert_int_eq(fclose(file), 0);
}

/* A whole file; free() it. */
static inline char *get_file(const char *path, size_t *size)
{
    FILE *file = fopen(path, "rb");
    ck_assert_msg(file != NULL, "%s", path);
    fseek(file, 0, SEEK_END);
    *size = (size_t)ftell(file);
    rewind(file);
    char *data = malloc(*size + 1);
    ck_assert_uint_eq(fread(data, 1, *size, file), *size);
    data[*size] = '\0';
    fclose(file);
    return data;
}

#endif
