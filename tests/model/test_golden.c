/* Logits, every gradient and ten training losses against PyTorch: tests/golden/make_models.py. */
#include "model_test.h"

#include <policygrad.h>

static const char *const models[] = {"tiny_gpt2",       "tiny_gpt2_gelu",  "tiny_gpt2_relu", "tiny_llama",
                                     "tiny_llama_tied", "tiny_llama_wide", "tiny_llama3"};
enum { N_MODELS = sizeof models / sizeof models[0] };

/* Logits are sums over a few dozen products of size one, two layers deep: f32 rounding in either
 * implementation moves them by some 1e-6; 2e-5 leaves room for another order of sums in PyTorch. */
#define LOGITS_ERROR 2e-5
/* Gradients: relative to the tensor's norm, as single elements may cancel to nearly nothing. */
#define GRADIENT_ERROR 2e-5
#define LOSS_ERROR 1e-5

START_TEST(logits_equal)
{
    const char *name = models[_i];
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 2);
    pgrad_model *model = golden_model(context, name);
    pgrad__tensor_set set;
    test_batch b;
    golden_open(context, name, &set);
    golden_batch(&set, &b);
    for (size_t s = 0; s < 2; s++) {
        char key[32];
        size_t n, rows = b.lengths[s];
        snprintf(key, sizeof key, "logits.%zu", s);
        float *expected = golden_read(&set, key, &n);
        ck_assert_uint_eq(n, rows * model->config.n_vocab);
        float *found = malloc(n * sizeof *found);
        OK(pgrad_model_logits(model, b.tokens + b.sequences[s].first_row, rows, PGRAD_LOGITS_ALL,
                              found, n));
        double worst = 0.0;
        for (size_t i = 0; i < n; i++)
            worst = fmax(worst, fabs((double)expected[i] - (double)found[i]));
        ck_assert_msg(worst <= LOGITS_ERROR, "%s: logits of sequence %zu differ by %g", name, s,
                      worst);
        ck_assert_msg(worst > 0.0 || n == 0, "compared with itself?");
        free(found);
        free(expected);
    }
    pgrad__tensor_set_free(&set);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

static void check_gradient(pgrad_model *model, const pgrad__tensor_set *set, const char *name)
{
    char key[256];
    size_t n, n_found;
    snprintf(key, sizeof key, "grad.%s", name);
    float *expected = golden_read(set, key, &n);
    float *found = malloc(n * sizeof *found);
    OK(pgrad_model_grad_read(model, name, found, n, &n_found));
    ck_assert_uint_eq(n, n_found);
    double norm = 0.0, found_norm = 0.0, product = 0.0, worst = 0.0;
    for (size_t i = 0; i < n; i++) {
        double a = (double)expected[i], c = (double)found[i];
        norm += a * a;
        found_norm += c * c;
        product += a * c;
        worst = fmax(worst, fabs(a - c));
    }
    norm = sqrt(norm);
    double cosine = product / (norm * sqrt(found_norm));
    /* A key's bias moves all scores of a row alike: its gradient is rounding and nothing else. */
    if (norm < 1e-6) {
        ck_assert_msg(worst < 1e-6, "%s: %g instead of zero", name, worst);
    } else {
        ck_assert_msg(worst <= GRADIENT_ERROR * norm, "%s: differs by %g, norm %g", name, worst,
                      norm);
        ck_assert_msg(1.0 - cosine < 1e-9, "%s: cosine %.12f", name, cosine);
    }
    free(found);
    free(expected);
}

START_TEST(gradients_equal)
{
    const char *name = models[_i];
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 2);
    pgrad_model *model = golden_model(context, name);
    pgrad__tensor_set set;
    pgrad__pass *pass = NULL;
    test_batch b;
    size_t n;
    golden_open(context, name, &set);
    golden_batch(&set, &b);
    OK(pgrad__pass_create(model, &pass));
    double loss = run_backward(model, pass, &b);
    float *expected = golden_read(&set, "loss", &n);
    ck_assert_msg(fabs(loss - (double)expected[0]) < LOSS_ERROR, "%s: loss %.8f instead of %.8f",
                  name, loss, (double)expected[0]);
    free(expected);
    /* Every tensor has a gradient there, and there is none beside. */
    size_t n_gradients = 0;
    for (size_t i = 0; i < set.n_tensors; i++)
        n_gradients += strncmp(set.tensors[i].name, "grad.", 5) == 0;
    ck_assert_uint_eq(n_gradients, model->n_tensors);
    for (uint32_t i = 0; i < model->n_tensors; i++)
        check_gradient(model, &set, model->tensors[i].name);
    pgrad__pass_free(pass);
    pgrad__tensor_set_free(&set);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

/* AdamW by the kernel alone: lr 1e-3, no decay. */
static void adam_step(pgrad_model *model, float **m, float **v, int t)
{
    double beta1 = 0.9, beta2 = 0.999;
    pgrad__adam adam = {.grad_scale = 1.0f,
                        .decay = 1.0f,
                        .beta1 = (float)beta1,
                        .beta2 = (float)beta2,
                        .rest1 = (float)(1.0 - beta1),
                        .rest2 = (float)(1.0 - beta2),
                        .step_size = (float)(1e-3 / (1.0 - pow(beta1, t))),
                        .inverse_root = (float)(1.0 / sqrt(1.0 - pow(beta2, t))),
                        .epsilon = 1e-8f};
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__tensor *tensor = &model->tensors[i];
        const pgrad__update_rule rule = {.adam = &adam};
        const pgrad__update_arrays arrays = {.n_in = tensor->floats,
                                             .theta.data = tensor->data,
                                             .g = tensor->grad,
                                             .m.data = m[i],
                                             .v.data = v[i]};
        const pgrad__reach reach = pgrad__update(model->context, &rule, &arrays, 1);
        ck_assert(isfinite(reach.theta) && isfinite(reach.m) && isfinite(reach.v));
    }
}

START_TEST(training_losses_equal)
{
    const char *name = models[_i];
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 2);
    pgrad_model *model = golden_model(context, name);
    pgrad__tensor_set set;
    pgrad__pass *pass = NULL;
    test_batch b;
    size_t n;
    golden_open(context, name, &set);
    golden_batch(&set, &b);
    OK(pgrad__pass_create(model, &pass));
    float **m = calloc(model->n_tensors, sizeof *m), **v = calloc(model->n_tensors, sizeof *v);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        m[i] = calloc(model->tensors[i].floats, sizeof(float));
        v[i] = calloc(model->tensors[i].floats, sizeof(float));
    }
    float *expected = golden_read(&set, "losses", &n);
    ck_assert_uint_eq(n, 10);
    for (int t = 0; t < 10; t++) {
        double loss = run_backward(model, pass, &b);
        ck_assert_msg(fabs(loss - (double)expected[t]) < LOSS_ERROR,
                      "%s: step %d: %.8f instead of %.8f", name, t, loss, (double)expected[t]);
        adam_step(model, m, v, t + 1);
    }
    ck_assert(expected[9] < expected[0] - 0.01f); /* it did move */
    free(expected);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        free(m[i]);
        free(v[i]);
    }
    free(m);
    free(v);
    pgrad__pass_free(pass);
    pgrad__tensor_set_free(&set);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

/* The two golden sequences as a rollout: a prompt of one token, the rest is learned. */
static pgrad_rollout *golden_rollout(pgrad_model *model, const test_batch *b)
{
    pgrad_rollout_params params;
    pgrad_rollout *rollout = NULL;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = 1;
    params.max_prompts = 2;
    params.max_prompt_tokens = 1;
    params.max_new_tokens = 200;
    OK(pgrad_rollout_create(model, NULL, &params, &rollout));
    for (uint32_t s = 0; s < 2; s++) {
        const pgrad_token *ids = b->tokens + b->sequences[s].first_row;
        OK(pgrad_rollout_add_prompt(rollout, ids, 1, NULL, NULL));
        OK(pgrad_rollout_add_sequence(rollout, s, ids + 1, b->lengths[s] - 1, NULL));
    }
    return rollout;
}

/* The ten losses as a host gets them: the supervised objective and AdamW. */
START_TEST(training_losses_by_public_calls)
{
    const char *name = models[_i];
    pgrad_context *context = test_context(PGRAD_KERNELS_AUTO, 2);
    pgrad_model *model = golden_model(context, name);
    pgrad_objective *objective = NULL;
    pgrad_optimizer *optimizer = NULL;
    pgrad_objective_params objective_params;
    pgrad_optimizer_params optimizer_params;
    pgrad__tensor_set set;
    test_batch b;
    size_t n;
    golden_open(context, name, &set);
    golden_batch(&set, &b);
    pgrad_rollout *rollout = golden_rollout(model, &b);
    pgrad_objective_params_init(&objective_params, sizeof objective_params);
    objective_params.loss = PGRAD_LOSS_SUPERVISED;
    OK(pgrad_objective_create(model, &objective_params, &objective));
    pgrad_optimizer_params_init(&optimizer_params, sizeof optimizer_params);
    optimizer_params.learning_rate = 1e-3;
    optimizer_params.max_grad_norm = INFINITY;
    OK(pgrad_optimizer_create(model, &optimizer_params, &optimizer));
    float *expected = golden_read(&set, "losses", &n);
    for (size_t t = 0; t < n; t++) {
        pgrad_step_report report;
        pgrad_step_report_init(&report, sizeof report);
        OK(pgrad_model_zero_grad(model));
        OK(pgrad_objective_backward(objective, rollout, NULL, 0, NULL, &report));
        ck_assert_msg(fabs(report.loss - (double)expected[t]) < LOSS_ERROR,
                      "%s: step %zu: %.8f instead of %.8f", name, t, report.loss,
                      (double)expected[t]);
        OK(pgrad_optimizer_step(optimizer, &report));
        ck_assert_uint_eq(report.step, t + 1);
    }
    free(expected);
    pgrad_optimizer_free(optimizer);
    pgrad_objective_free(objective);
    pgrad_rollout_free(rollout);
    pgrad__tensor_set_free(&set);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("golden");
    TCase *tests = tcase_create("golden");
    tcase_set_timeout(tests, 120);
    tcase_add_loop_test(tests, logits_equal, 0, N_MODELS);
    tcase_add_loop_test(tests, gradients_equal, 0, N_MODELS);
    tcase_add_loop_test(tests, training_losses_equal, 0, N_MODELS);
    tcase_add_loop_test(tests, training_losses_by_public_calls, 0, N_MODELS);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
