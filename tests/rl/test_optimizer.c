/* Optimizers on a tiny model: updates against double precision, clipping, refusals, counters; when a
 * dry run is needed; storage of moments. */
#include <check.h>
#include <math.h>
#include <policygrad.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "../suite.h"
#include "model/model.h"
#include "rl/optimizer.h"

static const char CONFIG[] = "{\"model_type\":\"gpt2\",\"vocab_size\":19,\"n_positions\":16,\"n_"
                             "embd\":8,\"n_layer\":1,\"n_head\":2,"
                             "\"activation_function\":\"gelu_new\"}";
static const char MATRIX[] = "transformer.h.0.mlp.c_fc.weight",
                  VECTOR[] = "transformer.ln_f.weight";
enum { N_MATRIX = 8 * 32, N_VECTOR = 8 };

static pgrad_context *context;
static pgrad_model *model;

static void setup(void)
{
    ck_assert_int_eq(pgrad_context_create(NULL, &context), PGRAD_OK);
    ck_assert_msg(pgrad_model_create(context, CONFIG, 4, NULL, &model) == PGRAD_OK, "%s",
                  pgrad_error_message());
}

static void teardown(void)
{
    pgrad_model_free(model);
    pgrad_context_free(context);
}

/* Gives every gradient a value of its own: the same for the same place, whatever the storage. */
static double set_gradients(double scale)
{
    double squares = 0.0;
    ck_assert_int_eq(pgrad__gradients_allocate(model), PGRAD_OK);
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__tensor *tensor = &model->tensors[i];
        for (size_t k = 0; k < tensor->floats; k++)
            tensor->grad[k] =
                ((const float *)tensor->data)[k] == 0.0f ? 0.0f : (float)(scale * ((double)(k % 13) - 6.0));
        for (size_t k = 0; k < tensor->floats; k++)
            squares += (double)tensor->grad[k] * (double)tensor->grad[k];
    }
    return sqrt(squares);
}

static void read(const char *name, float *weights, float *gradients, size_t expected)
{
    size_t n;
    ck_assert_int_eq(pgrad_model_tensor_read(model, name, weights, expected, &n), PGRAD_OK);
    ck_assert_uint_eq(n, expected);
    if (gradients != NULL)
        ck_assert_int_eq(pgrad_model_grad_read(model, name, gradients, expected, &n), PGRAD_OK);
}

static pgrad_optimizer *make(const pgrad_optimizer_params *params)
{
    pgrad_optimizer *optimizer;
    ck_assert_msg(pgrad_optimizer_create(model, params, &optimizer) == PGRAD_OK, "%s",
                  pgrad_error_message());
    return optimizer;
}

/* Two steps of a rule in double precision, as algorithms 8 has it. */
static void by_hand(const pgrad_optimizer_params *p, double *theta, const double *g, size_t n,
                    double clip, int decays, int steps, double m[], double v[])
{
    for (int t = 1; t <= steps; t++)
        for (size_t i = 0; i < n; i++) {
            double gradient = g[i] * clip, wd = decays ? p->weight_decay : 0.0;
            if (p->kind == PGRAD_OPTIMIZER_ADAMW)
                theta[i] *= 1.0 - p->learning_rate * wd;
            else
                gradient += wd * theta[i];
            if (p->kind == PGRAD_OPTIMIZER_SGD) {
                m[i] = t == 1 ? gradient : p->momentum * m[i] + gradient;
                theta[i] -= p->learning_rate * (p->nesterov ? gradient + p->momentum * m[i] : m[i]);
                continue;
            }
            m[i] = p->beta1 * m[i] + (1.0 - p->beta1) * gradient;
            v[i] = p->beta2 * v[i] + (1.0 - p->beta2) * gradient * gradient;
            theta[i] -= p->learning_rate / (1.0 - pow(p->beta1, t)) * m[i] /
                        (sqrt(v[i]) / sqrt(1.0 - pow(p->beta2, t)) + p->epsilon);
        }
}

static void check_rule(const pgrad_optimizer_params *params, const char *name, size_t n, int decays)
{
    float weights[N_MATRIX], gradients[N_MATRIX], after[N_MATRIX];
    double theta[N_MATRIX], g[N_MATRIX], m[N_MATRIX] = {0}, v[N_MATRIX] = {0};
    double norm = set_gradients(0.01);
    read(name, weights, gradients, n);
    for (size_t i = 0; i < n; i++) {
        theta[i] = (double)weights[i];
        g[i] = (double)gradients[i];
    }
    pgrad_optimizer *optimizer = make(params);
    for (int t = 0; t < 2; t++)
        ck_assert_msg(pgrad_optimizer_step(optimizer, NULL) == PGRAD_OK, "%s",
                      pgrad_error_message());
    pgrad_optimizer_free(optimizer);
    by_hand(params, theta, g, n, fmin(1.0, params->max_grad_norm / (norm + 1e-6)), decays, 2, m, v);
    read(name, after, NULL, n);
    for (size_t i = 0; i < n; i++)
        ck_assert_msg(fabs((double)after[i] - theta[i]) < 5e-6 * fmax(0.1, fabs(theta[i])),
                      "%s[%zu]: expected %.8g, found %.8g", name, i, theta[i], (double)after[i]);
}

START_TEST(rules)
{
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 0.01;
    params.max_grad_norm = _i % 2 == 0 ? INFINITY : 0.05;
    params.kind = (uint32_t)(_i / 2 % 3);
    params.weight_decay = 0.1;
    if (params.kind == PGRAD_OPTIMIZER_SGD && _i >= 6) {
        params.momentum = 0.9;
        params.nesterov = _i >= 12;
    }
    check_rule(&params, MATRIX, N_MATRIX, 1);
    teardown();
    setup();
    check_rule(&params, VECTOR, N_VECTOR, 0); /* norms are exempt from decay */
}
END_TEST

/* OP03: also where its square is far beyond a float. */
START_TEST(norm_is_reported_before_clipping)
{
    pgrad_step_report report;
    double norm = set_gradients(_i == 0 ? 1.0 : 1e37);
    pgrad_optimizer *optimizer = make(NULL);
    pgrad_step_report_init(&report, sizeof report);
    ck_assert_int_eq(pgrad_optimizer_step(optimizer, &report), PGRAD_OK);
    ck_assert_double_eq_tol(report.grad_norm, norm, 1e-9 * norm);
    ck_assert_uint_eq(report.step, 1);
    ck_assert_double_eq_tol(report.learning_rate, 1e-5, 1e-18);
    ck_assert_double_gt(norm, 1.0);
    pgrad_optimizer_free(optimizer);
}
END_TEST

/* algorithms.md 12.6: [3, 4] and [12] have the norm 13; plain SGD at 1 writes what is left of them. */
START_TEST(clipping_worked_numbers)
{
    static const float G[3] = {3, 4, 12};
    static const double CLIPPED[3] = {0.230769213, 0.307692284, 0.9230768521};
    for (int clipped = 0; clipped < 2; clipped++) {
        float zero[N_MATRIX] = {0}, matrix[N_MATRIX], vector[N_VECTOR];
        pgrad_optimizer_params params;
        pgrad_step_report report;
        (void)set_gradients(0.0);
        ck_assert_int_eq(pgrad_model_tensor_write(model, MATRIX, zero, N_MATRIX), PGRAD_OK);
        ck_assert_int_eq(pgrad_model_tensor_write(model, VECTOR, zero, N_VECTOR), PGRAD_OK);
        for (uint32_t i = 0; i < model->n_tensors; i++) {
            pgrad__tensor *tensor = &model->tensors[i];
            if (strcmp(tensor->name, MATRIX) == 0) {
                tensor->grad[0] = G[0];
                tensor->grad[1] = G[1];
            } else if (strcmp(tensor->name, VECTOR) == 0)
                tensor->grad[0] = G[2];
        }
        pgrad_optimizer_params_init(&params, sizeof params);
        params.kind = PGRAD_OPTIMIZER_SGD;
        params.learning_rate = 1.0;
        params.max_grad_norm = clipped ? 1.0 : 20.0;
        pgrad_optimizer *optimizer = make(&params);
        pgrad_step_report_init(&report, sizeof report);
        ck_assert_int_eq(pgrad_optimizer_step(optimizer, &report), PGRAD_OK);
        ck_assert_double_eq_tol(report.grad_norm, 13.0, 1e-12);
        read(MATRIX, matrix, NULL, N_MATRIX);
        read(VECTOR, vector, NULL, N_VECTOR);
        float found[3] = {matrix[0], 0, vector[0]};
        for (int k = 1; k < N_MATRIX; k++) /* the storage's second element is of another row */
            found[1] += matrix[k];
        for (int i = 0; i < 3; i++)
            ck_assert_double_eq_tol(-(double)found[i], clipped ? CLIPPED[i] : (double)G[i], 1e-7);
        pgrad_optimizer_free(optimizer);
    }
}
END_TEST

/* LINEAR over 10 steps, 2 of them to warm up: what the report says is what moves the weights. */
START_TEST(the_schedule_is_followed)
{
    static const double FACTOR[6] = {0.5, 1.0, 1.0, 0.875, 0.75, 0.625};
    float before[N_MATRIX], after[N_MATRIX], gradients[N_MATRIX];
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.kind = PGRAD_OPTIMIZER_SGD;
    params.schedule = PGRAD_SCHEDULE_LINEAR;
    params.learning_rate = 0.25;
    params.max_grad_norm = INFINITY;
    params.warmup_steps = 2;
    params.total_steps = 10;
    pgrad_optimizer *optimizer = make(&params);
    for (int step = 0; step < 6; step++) {
        pgrad_step_report report;
        pgrad_step_report_init(&report, sizeof report);
        (void)set_gradients(0.1);
        read(MATRIX, before, gradients, N_MATRIX);
        ck_assert_int_eq(pgrad_optimizer_step(optimizer, &report), PGRAD_OK);
        ck_assert_double_eq_tol(report.learning_rate, 0.25 * FACTOR[step], 1e-15);
        read(MATRIX, after, NULL, N_MATRIX);
        for (int i = 0; i < N_MATRIX; i++)
            ck_assert_double_eq_tol((double)before[i] - (double)after[i],
                                    0.25 * FACTOR[step] * (double)gradients[i], 1e-6);
    }
    pgrad_optimizer_free(optimizer);
}
END_TEST

/* OP02: one gradient that is not finite: nothing changes, and the next good step is the first one.
 */
START_TEST(not_finite_is_refused)
{
    const float bad[] = {NAN, INFINITY, -INFINITY};
    float before[N_MATRIX], after[N_MATRIX];
    pgrad_optimizer *optimizer = make(NULL);
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    read(MATRIX, before, NULL, N_MATRIX);
    for (int i = 0; i < 3; i++) {
        (void)set_gradients(0.1);
        model->tensors[2].grad[1] = bad[i];
        ck_assert_int_eq(pgrad_optimizer_step(optimizer, &report), PGRAD_E_NUMERIC);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), model->tensors[2].name));
        read(MATRIX, after, NULL, N_MATRIX);
        ck_assert_mem_eq(before, after, sizeof before);
    }
    (void)set_gradients(0.1);
    ck_assert_int_eq(pgrad_optimizer_step(optimizer, &report), PGRAD_OK);
    ck_assert_uint_eq(report.step, 1);
    pgrad_optimizer_free(optimizer);
}
END_TEST

/* OP01: every option out of range, by its name. */
START_TEST(bad_options)
{
    static const struct {
        const char *field, *value;
    } BAD[] = {{"learning_rate", "-1"}, {"learning_rate", "nan"}, {"learning_rate", "infinity"},
               {"beta1", "1"},          {"beta2", "-0.1"},        {"epsilon", "0"},
               {"weight_decay", "-1"},  {"max_grad_norm", "0"},   {"momentum", "1"}};
    pgrad_optimizer_params params;
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        pgrad_optimizer_params_init(&params, sizeof params);
        ck_assert_int_eq(pgrad_params_set("optimizer", &params, BAD[i].field, BAD[i].value),
                         PGRAD_E_INVALID);
        ck_assert_ptr_nonnull(strstr(pgrad_error_message(), BAD[i].field));
    }
    pgrad_optimizer *optimizer;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.schedule = PGRAD_SCHEDULE_COSINE;
    ck_assert_int_eq(pgrad_optimizer_create(model, &params, &optimizer), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "total_steps"));
    static const double RATES[] = {-0.5, NAN, INFINITY};
    ck_assert_int_eq(pgrad_optimizer_create(model, NULL, &optimizer), PGRAD_OK);
    for (int i = 0; i < 3; i++) {
        char text[100];
        snprintf(text, sizeof text, "optimizer.learning_rate: expected a finite number >= 0, found %g", RATES[i]);
        ck_assert_int_eq(pgrad_optimizer_set_lr(optimizer, RATES[i]), PGRAD_E_INVALID);
        ck_assert_str_eq(pgrad_error_message(), text);
    }
    ck_assert_int_eq(pgrad_optimizer_set_lr(optimizer, 0.0), PGRAD_OK);
    pgrad_optimizer_free(optimizer);
}
END_TEST

/* algorithms.md 12.11: AdamW without decay is Adam, bit for bit; SGD needs a momentum for Nesterov's; a
 * momentum of 0 is plain SGD. */
START_TEST(identities)
{
    enum { STEPS = 3 };
    static float after[4][N_MATRIX];
    for (int k = 0; k < 4; k++) {
        pgrad_optimizer_params params;
        pgrad_optimizer_params_init(&params, sizeof params);
        params.kind = k == 0 ? PGRAD_OPTIMIZER_ADAM : k == 1 ? PGRAD_OPTIMIZER_ADAMW : PGRAD_OPTIMIZER_SGD;
        params.learning_rate = 0.01;
        params.momentum = k == 3 ? 0.5 : 0.0;
        teardown();
        setup();
        pgrad_optimizer *optimizer = make(&params);
        for (int step = 0; step < STEPS; step++) {
            (void)set_gradients(0.01 * (step + 1));
            ck_assert_int_eq(pgrad_optimizer_step(optimizer, NULL), PGRAD_OK);
        }
        read(MATRIX, after[k], NULL, N_MATRIX);
        pgrad_optimizer_free(optimizer);
    }
    ck_assert_mem_eq(after[0], after[1], sizeof after[0]);
    ck_assert_mem_ne(after[2], after[3], sizeof after[0]);
    ck_assert_mem_ne(after[0], after[2], sizeof after[0]);
    pgrad_optimizer *optimizer;
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.kind = PGRAD_OPTIMIZER_SGD;
    params.nesterov = 1;
    ck_assert_int_eq(pgrad_optimizer_create(model, &params, &optimizer), PGRAD_E_INVALID);
    ck_assert_ptr_nonnull(strstr(pgrad_error_message(), "optimizer.nesterov"));
}
END_TEST

/* ---- one pass, or a dry run first ---- */

static void step_ok(pgrad_optimizer *optimizer)
{
    ck_assert_msg(pgrad_optimizer_step(optimizer, NULL) == PGRAD_OK, "%s", pgrad_error_message());
}

/* All weights, in the order of storage. */
static float *weights_now(size_t *n)
{
    *n = 0;
    for (uint32_t i = 0; i < model->n_tensors; i++)
        *n += model->tensors[i].floats;
    float *out = malloc(*n * sizeof *out);
    size_t at = 0;
    for (uint32_t i = 0; i < model->n_tensors; at += model->tensors[i++].floats)
        memcpy(out + at, model->tensors[i].data, model->tensors[i].floats * sizeof *out);
    return out;
}

static pgrad_optimizer_params rule_number(int i)
{
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 0.01;
    params.weight_decay = 0.1;
    params.kind = i < 2 ? PGRAD_OPTIMIZER_ADAM + (uint32_t)i : PGRAD_OPTIMIZER_SGD;
    params.momentum = i > 2 ? 0.9 : 0.0;
    params.nesterov = i == 4;
    return params;
}

/* Six updates, of which only the first and the one after a tensor_write need a dry run; with a dry
 * run before each, the bits are the same. */
START_TEST(proof_and_dry_run_write_the_same)
{
    float *weights[2];
    size_t n = 0, n_vector;
    pgrad_optimizer_params params = rule_number(_i % 5);
    params.moments = (uint32_t)_i / 5;
    for (int dry = 0; dry < 2; dry++) {
        pgrad_optimizer *optimizer = make(&params);
        for (int t = 0; t < 6; t++) {
            float vector[N_VECTOR];
            (void)set_gradients(0.01 * (t + 1));
            if (t == 3) {
                ck_assert_int_eq(pgrad_model_tensor_read(model, VECTOR, vector, N_VECTOR, &n_vector), PGRAD_OK);
                ck_assert_int_eq(pgrad_model_tensor_write(model, VECTOR, vector, N_VECTOR), PGRAD_OK);
            }
            if (dry)
                optimizer->reach_version = UINT64_MAX;
            step_ok(optimizer);
            ck_assert_uint_eq(optimizer->dry_runs, dry ? t + 1 : t < 3 ? 1 : 2);
        }
        weights[dry] = weights_now(&n);
        pgrad_optimizer_free(optimizer);
        teardown();
        setup();
    }
    ck_assert_mem_eq(weights[0], weights[1], n * sizeof(float));
    free(weights[0]);
    free(weights[1]);
}
END_TEST

/* Gradients of every size up to the largest float and rates that overshoot: whatever a step does,
 * either everything is finite and the step counted, or nothing has changed. */
START_TEST(all_or_nothing_at_the_edges)
{
    static const double SCALES[] = {1e-45, 1e-30, 1e-3, 1.0, 1e9, 1e18, 3e18, 1e25, 1e36, 5e37};
    static const double RATES[] = {0.0, 1e-5, 1.0, 1e10, 1e20, 1e38, 1e300};
    static const double EPSILONS[] = {1e-8, 1e-30, 1e-45, 1e-60};
    pgrad_optimizer_params params = rule_number(_i % 5);
    params.moments = (uint32_t)_i / 5;
    unsigned refused = 0, proved = 0;
    for (int e = 0; e < 4; e++)
        for (int r = 0; r < 7; r++) {
            teardown();
            setup();
            params.learning_rate = 1e-3;
            params.epsilon = EPSILONS[e];
            params.max_grad_norm = r % 2 ? INFINITY : 1e30;
            pgrad_optimizer *optimizer = make(&params);
            for (int t = 0; t < 20; t++) {
                size_t n;
                float *before = weights_now(&n);
                const uint64_t step = optimizer->step, dry = optimizer->dry_runs;
                (void)set_gradients(SCALES[t * 7 % 10]);
                ck_assert_int_eq(pgrad_optimizer_set_lr(optimizer, t % 3 == 2 ? RATES[r] : 1e-3), PGRAD_OK);
                const pgrad_status status = pgrad_optimizer_step(optimizer, NULL);
                float *after = weights_now(&n);
                if (status == PGRAD_OK) {
                    for (size_t i = 0; i < n; i++)
                        if (!isfinite(after[i]))
                            ck_abort_msg("weight %zu is not finite", i);
                    proved += optimizer->dry_runs == dry;
                    ck_assert_uint_eq(optimizer->step, step + 1);
                } else {
                    ck_assert_int_eq(status, PGRAD_E_NUMERIC);
                    ck_assert_mem_eq(before, after, n * sizeof *after);
                    ck_assert_uint_eq(optimizer->step, step);
                    refused++;
                }
                free(before);
                free(after);
            }
            pgrad_optimizer_free(optimizer);
        }
    ck_assert_uint_gt(proved, 0);
    ck_assert_uint_gt(refused, 0);
}
END_TEST

/* A refused step leaves the moments too: the next good one is what it would have been. */
START_TEST(refused_steps_leave_the_moments)
{
    float *weights[2];
    size_t n = 0;
    pgrad_optimizer_params params = rule_number(0);
    params.moments = (uint32_t)_i;
    params.max_grad_norm = INFINITY;
    for (int refused = 0; refused < 2; refused++) {
        pgrad_optimizer *optimizer = make(&params);
        (void)set_gradients(0.1);
        step_ok(optimizer);
        if (refused) {
            (void)set_gradients(1e37); /* squares beyond f32 */
            ck_assert_int_eq(pgrad_optimizer_step(optimizer, NULL), PGRAD_E_NUMERIC);
            (void)set_gradients(0.1);
        }
        step_ok(optimizer);
        weights[refused] = weights_now(&n);
        pgrad_optimizer_free(optimizer);
        teardown();
        setup();
    }
    ck_assert_mem_eq(weights[0], weights[1], n * sizeof(float));
    free(weights[0]);
    free(weights[1]);
}
END_TEST

/* ---- storage of moments ---- */

/* Forty steps with changing gradients stay near the same run with moments in f32; another seed gives
 * other bits, the same one the same. */
START_TEST(short_moments_stay_near)
{
    static const float ALLOWED[] = {0.0f, 0.02f, 0.12f}; /* of the way that f32 went */
    float *start, *weights[4];
    size_t n = 0;
    pgrad_optimizer_params params = rule_number(_i / 2);
    params.weight_decay = 0.0;
    params.momentum = params.kind == PGRAD_OPTIMIZER_SGD ? 0.9 : 0.0;
    const uint32_t moments = 1 + (uint32_t)_i % 2;
    start = weights_now(&n);
    for (int run = 0; run < 4; run++) {
        teardown();
        setup();
        params.moments = run == 0 ? PGRAD_MOMENTS_F32 : moments;
        params.seed = run == 3 ? 1 : 0;
        pgrad_optimizer *optimizer = make(&params);
        for (int t = 0; t < 40; t++) {
            (void)set_gradients(0.01 * (1.0 + t % 3));
            step_ok(optimizer);
        }
        weights[run] = weights_now(&n);
        pgrad_optimizer_free(optimizer);
    }
    double way = 0.0, off = 0.0;
    for (size_t i = 0; i < n; i++) {
        const double w = (double)weights[0][i];
        way += (w - (double)start[i]) * (w - (double)start[i]);
        off += ((double)weights[1][i] - w) * ((double)weights[1][i] - w);
    }
    ck_assert_msg(sqrt(off) <= (double)ALLOWED[moments] * sqrt(way), "off by %g of %g", sqrt(off), sqrt(way));
    ck_assert_double_gt(off, 0.0);
    ck_assert_mem_eq(weights[1], weights[2], n * sizeof(float));
    ck_assert_mem_ne(weights[1], weights[3], n * sizeof(float));
    free(start);
    for (int run = 0; run < 4; run++)
        free(weights[run]);
}
END_TEST

/* Of a model whose panels are not mostly padding, whatever their width. */
START_TEST(short_moments_take_less_memory)
{
    static const char WIDER[] = "{\"model_type\":\"gpt2\",\"vocab_size\":96,\"n_positions\":16,\"n_embd\":96,"
                                "\"n_layer\":1,\"n_head\":2,\"activation_function\":\"gelu_new\"}";
    uint64_t bytes[3];
    pgrad_model_free(model);
    ck_assert_int_eq(pgrad_model_create(context, WIDER, 4, NULL, &model), PGRAD_OK);
    for (uint32_t moments = 0; moments < 3; moments++) {
        pgrad_context_info before = {.struct_size = sizeof before}, after = before;
        pgrad_optimizer_params params = rule_number(0);
        params.moments = moments;
        ck_assert_int_eq(pgrad_context_get_info(context, &before), PGRAD_OK);
        pgrad_optimizer *optimizer = make(&params);
        ck_assert_int_eq(pgrad_context_get_info(context, &after), PGRAD_OK);
        bytes[moments] = after.memory_now - before.memory_now;
        pgrad_optimizer_free(optimizer);
        ck_assert_int_eq(pgrad_context_get_info(context, &after), PGRAD_OK);
        ck_assert_uint_eq(after.memory_now, before.memory_now);
    }
    ck_assert_uint_lt(bytes[1] * 10, bytes[0] * 6);
    ck_assert_uint_lt(bytes[2] * 10, bytes[1] * 6);
}
END_TEST

static long allocations_left;

static void *failing_alloc(void *user, size_t size, size_t alignment)
{
    (void)user;
    if (--allocations_left == 0)
        return NULL;
    return aligned_alloc(alignment, (size + alignment - 1) / alignment * alignment);
}

static void failing_free(void *user, void *pointer, size_t size)
{
    (void)user;
    (void)size;
    free(pointer);
}

/* The n-th allocation fails, for every n. */
START_TEST(every_allocation_may_fail)
{
    pgrad_allocator allocator = {NULL, failing_alloc, failing_free};
    pgrad_context_params context_params;
    pgrad_context_info before = {.struct_size = sizeof before}, after = before;
    pgrad_optimizer_params params = rule_number(0);
    pgrad_optimizer *optimizer;
    teardown();
    pgrad_context_params_init(&context_params, sizeof context_params);
    context_params.allocator = &allocator;
    context_params.n_threads = 2;
    ck_assert_int_eq(pgrad_context_create(&context_params, &context), PGRAD_OK);
    ck_assert_int_eq(pgrad_model_create(context, CONFIG, 4, NULL, &model), PGRAD_OK);
    params.moments = (uint32_t)_i;
    ck_assert_int_eq(pgrad_context_get_info(context, &before), PGRAD_OK);
    long n = 1;
    for (;; n++) {
        allocations_left = n;
        const pgrad_status status = pgrad_optimizer_create(model, &params, &optimizer);
        if (status == PGRAD_OK)
            break;
        ck_assert_int_eq(status, PGRAD_E_NOMEM);
        ck_assert_int_eq(pgrad_context_get_info(context, &after), PGRAD_OK);
        ck_assert_uint_eq(after.memory_now, before.memory_now);
    }
    ck_assert_int_gt(n, 2 * (long)model->n_tensors);
    allocations_left = 0;
    (void)set_gradients(0.1);
    step_ok(optimizer);
    pgrad_optimizer_free(optimizer);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("optimizer");
    TCase *cases = tcase_create("optimizer");
    tcase_add_checked_fixture(cases, setup, teardown);
    tcase_set_timeout(cases, 60);
    tcase_add_loop_test(cases, rules, 0, 14);
    tcase_add_loop_test(cases, norm_is_reported_before_clipping, 0, 2);
    tcase_add_test(cases, clipping_worked_numbers);
    tcase_add_test(cases, the_schedule_is_followed);
    tcase_add_test(cases, not_finite_is_refused);
    tcase_add_test(cases, bad_options);
    tcase_add_test(cases, identities);
    tcase_add_loop_test(cases, proof_and_dry_run_write_the_same, 0, 15);
    tcase_add_loop_test(cases, all_or_nothing_at_the_edges, 0, 15);
    tcase_add_loop_test(cases, refused_steps_leave_the_moments, 0, 3);
    tcase_add_loop_test(cases, short_moments_stay_near, 0, 8);
    tcase_add_test(cases, short_moments_take_less_memory);
    tcase_add_loop_test(cases, every_allocation_may_fail, 0, 3);
    suite_add_tcase(suite, cases);
    return run_suite(suite);
}
