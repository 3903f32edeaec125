#include "rl/optimizer.h"

#include <math.h>
#include <string.h>

#include "base/alloc.h"
#include "base/fail.h"
#include "base/params_check.h"
#include "base/real.h"
#include "rl/metrics.h"
#include "rl/schedule.h"

/* ---- life ---- */

static void release(pgrad_optimizer *optimizer)
{
    pgrad_context *context = optimizer->context;
    pgrad_model *model = optimizer->model;
    pgrad__stored *moments[2] = {optimizer->first_moment, optimizer->second_moment};
    for (int k = 0; k < 2; k++) {
        for (uint32_t i = 0; moments[k] != NULL && i < model->n_tensors; i++) {
            pgrad__free(context, moments[k][i].data);
            pgrad__free(context, moments[k][i].exponents);
        }
        pgrad__free(context, moments[k]);
    }
    pgrad__free(context, optimizer->squares);
    pgrad__free(context, optimizer);
    pgrad_model_free(model); /* last: the context may go with it */
}

/* The shape the update sees. */
static pgrad__update_arrays arrays_of(const pgrad__tensor *tensor)
{
    pgrad__update_arrays arrays = {
        .n_in = tensor->floats, .theta.data = tensor->data, .g = tensor->grad};
    if (pgrad__tensor_is_matrix(tensor)) {
        arrays.n_out = tensor->matrix.n_out;
        arrays.n_in = tensor->matrix.n_in;
        if (tensor->matrix.storage == PGRAD_STORAGE_BF16)
            arrays.theta.storage = PGRAD__STORAGE_BF16;
    }
    return arrays;
}

/* Of a tensor's moment; the exponents of Q8 are a block of their own. */
static size_t moment_bytes(const pgrad_model *model, const pgrad__tensor *tensor, uint32_t storage,
                           size_t *n_exponents)
{
    const pgrad__update_arrays arrays = arrays_of(tensor);
    return pgrad__stored_bytes(model->kernels, arrays.n_out, arrays.n_in, (pgrad__storage)storage,
                               n_exponents);
}

/* Moments that a rule keeps. */
static uint32_t n_moments(const pgrad_optimizer_params *params)
{
    if (params->kind != PGRAD_OPTIMIZER_SGD)
        return 2;
    return params->momentum != 0.0 ? 1 : 0;
}

void pgrad__optimizer_count(const pgrad_model *model, const pgrad_optimizer_params *params,
                            pgrad__arena *sum)
{
    pgrad__arena_count_block(sum, 1, sizeof(pgrad_optimizer));
    pgrad__arena_count_block(sum, model->n_tensors, sizeof(double));
    for (uint32_t k = 0; k < n_moments(params); k++) {
        pgrad__arena_count_block(sum, model->n_tensors, sizeof(pgrad__stored));
        for (uint32_t i = 0; i < model->n_tensors; i++) {
            size_t n_exponents;
            pgrad__arena_count_block(
                sum, moment_bytes(model, &model->tensors[i], params->moments, &n_exponents), 1);
            if (n_exponents > 0)
                pgrad__arena_count_block(sum, n_exponents, 1);
        }
    }
}

static pgrad_status take_moments(pgrad_optimizer *optimizer, pgrad__stored **moments)
{
    const pgrad_model *model = optimizer->model;
    PGRAD__TRY(pgrad__calloc(optimizer->context, model->n_tensors, sizeof **moments, moments));
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        pgrad__stored *stored = &(*moments)[i];
        size_t n_exponents;
        stored->storage = (pgrad__storage)optimizer->params.moments;
        const size_t bytes =
            moment_bytes(model, &model->tensors[i], optimizer->params.moments, &n_exponents);
        PGRAD__TRY(pgrad__calloc(optimizer->context, bytes, 1, &stored->data));
        if (n_exponents > 0)
            PGRAD__TRY(pgrad__calloc(optimizer->context, n_exponents, 1, &stored->exponents));
    }
    return PGRAD_OK;
}

/* What the table of fields cannot say. */
static pgrad_status check_params(const pgrad_optimizer_params *params)
{
    if (params->schedule != PGRAD_SCHEDULE_CONSTANT && params->total_steps <= params->warmup_steps)
        return pgrad__fail(
            PGRAD_E_INVALID,
            "optimizer.total_steps: this schedule needs more than warmup_steps = %llu, "
            "found %llu",
            (unsigned long long)params->warmup_steps, (unsigned long long)params->total_steps);
    if (params->nesterov && params->momentum == 0.0)
        return pgrad__fail(PGRAD_E_INVALID,
                           "optimizer.nesterov: expected a momentum above 0, found 0");
    return PGRAD_OK;
}

static pgrad_status create(pgrad_model *model, const pgrad_optimizer_params *params,
                           pgrad_optimizer **out)
{
    pgrad_optimizer_params read;
    pgrad_optimizer *optimizer = NULL;
    PGRAD__TRY(pgrad__params_read("optimizer", params, &read));
    PGRAD__TRY(check_params(&read));
    if (read.moments == PGRAD_MOMENTS_AUTO)
        read.moments = PGRAD_MOMENTS_F32;
    PGRAD__TRY(pgrad__calloc(model->context, 1, sizeof *optimizer, &optimizer));
    optimizer->context = model->context;
    optimizer->model = model;
    optimizer->params = read;
    atomic_init(&optimizer->references, 1);
    pgrad__model_retain(model);

    pgrad_status status =
        pgrad__alloc(model->context, model->n_tensors, sizeof(double), &optimizer->squares);
    if (status == PGRAD_OK && n_moments(&read) > 0)
        status = take_moments(optimizer, &optimizer->first_moment);
    if (status == PGRAD_OK && n_moments(&read) > 1)
        status = take_moments(optimizer, &optimizer->second_moment);
    if (status != PGRAD_OK) {
        release(optimizer);
        return status;
    }
    *out = optimizer;
    return PGRAD_OK;
}

pgrad_status pgrad_optimizer_create(pgrad_model *model, const pgrad_optimizer_params *params,
                                    pgrad_optimizer **out)
{
    pgrad__scope scope;
    if (model == NULL || out == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "optimizer_create: %s is NULL",
                           model == NULL ? "model" : "out");
    if (model->frozen)
        return pgrad__fail(PGRAD_E_STATE, "optimizer_create: the model is frozen");
    PGRAD__TRY(pgrad__enter(model->context, &scope));
    pgrad_status status = create(model, params, out);
    pgrad__leave(&scope);
    return status;
}

void pgrad_optimizer_free(pgrad_optimizer *optimizer)
{
    if (optimizer != NULL && atomic_fetch_sub(&optimizer->references, 1) == 1)
        release(optimizer);
}

pgrad_status pgrad_optimizer_set_lr(pgrad_optimizer *optimizer, double learning_rate)
{
    if (optimizer == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "optimizer_set_lr: optimizer is NULL");
    if (!(learning_rate >= 0.0) || !isfinite(learning_rate))
        return pgrad__fail(PGRAD_E_INVALID,
                           "optimizer.learning_rate: expected a finite number >= 0, found %g",
                           learning_rate);
    optimizer->params.learning_rate = learning_rate;
    return PGRAD_OK;
}

/* ---- the update ---- */

static double gradient_squares(const pgrad_model *model, const pgrad__tensor *tensor)
{
    return pgrad__tensor_is_matrix(tensor)
               ? pgrad__matrix_sumsq(model->context, &tensor->grad_matrix)
               : pgrad__vector_sumsq(model->context, tensor->grad, tensor->floats);
}

/* n = sqrt(sum g^2) over all tensors, in their order. */
static double gradient_norm(const pgrad_model *model, const pgrad__tensor **not_finite)
{
    double sum = 0.0;
    *not_finite = NULL;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor *tensor = &model->tensors[i];
        double squares = gradient_squares(model, tensor);
        if (!isfinite(squares) && *not_finite == NULL)
            *not_finite = tensor;
        sum += squares;
    }
    return sqrt(sum);
}

/* 1 - beta^t without cancellation. */
static double bias_correction(double beta, uint64_t t)
{
    return beta == 0.0 ? 1.0 : -pgrad__expm1((double)t * pgrad__log(beta));
}

/* The constants of an update: decaying for tensors of two dimensions, and not for norm gains and
 * biases, [0]. */
typedef struct update {
    double learning_rate, norm;
    float grad_scale;
    uint64_t t; /* number of this update, from 1 */
    pgrad__adam adam[2];
    pgrad__sgd sgd[2];
} update;

static void set_rules(const pgrad_optimizer_params *params, update *u)
{
    for (int decays = 0; decays < 2; decays++) {
        double decay = decays ? params->weight_decay : 0.0;
        int decoupled = params->kind == PGRAD_OPTIMIZER_ADAMW;
        u->adam[decays] = (pgrad__adam){
            .grad_scale = u->grad_scale,
            .l2 = decoupled ? 0.0f : (float)decay,
            .decay = decoupled ? (float)(1.0 - u->learning_rate * decay) : 1.0f,
            .beta1 = (float)params->beta1,
            .beta2 = (float)params->beta2,
            .rest1 = (float)(1.0 - params->beta1),
            .rest2 = (float)(1.0 - params->beta2),
            .step_size = (float)(u->learning_rate / bias_correction(params->beta1, u->t)),
            .inverse_root = (float)(1.0 / sqrt(bias_correction(params->beta2, u->t))),
            .epsilon = (float)params->epsilon,
        };
        u->sgd[decays] = (pgrad__sgd){
            .grad_scale = u->grad_scale,
            .l2 = (float)decay,
            .learning_rate = (float)u->learning_rate,
            .momentum = (float)params->momentum,
            .nesterov = (int)params->nesterov,
            .first = u->t == 1,
        };
    }
}

static pgrad__reach update_tensor(const pgrad_optimizer *optimizer, const update *u, uint32_t i,
                                  int write)
{
    const pgrad_optimizer_params *params = &optimizer->params;
    const pgrad__tensor *tensor = &optimizer->model->tensors[i];
    const int decays = tensor->n_dims >= 2, sgd = params->kind == PGRAD_OPTIMIZER_SGD;
    pgrad__update_arrays arrays = arrays_of(tensor);
    if (optimizer->first_moment != NULL)
        arrays.m = optimizer->first_moment[i];
    if (optimizer->second_moment != NULL)
        arrays.v = optimizer->second_moment[i];
    const pgrad__update_rule rule = {.adam = sgd ? NULL : &u->adam[decays],
                                     .sgd = sgd ? &u->sgd[decays] : NULL,
                                     .seed = params->seed,
                                     .array = i,
                                     .update = u->t};
    return pgrad__update(optimizer->context, &rule, &arrays, write);
}

/* Magnitudes below this stay finite whatever is rounded, and however: rounding in 8 bits adds an
 * eighth, and numbers from 2^126 on are refused there. */
static const double SAFE = 0x1p125;

/* 1 when no new theta, m or v can be other than finite: docs/algorithms.md 5. A comparison with
 * NaN proves nothing. */
static int adam_is_safe(const pgrad__adam *a, const pgrad__reach *reach, double norm)
{
    const double theta = (double)reach->theta;
    const double g = norm * (double)a->grad_scale + (double)a->l2 * theta;
    const double m = fmax((double)reach->m, g), v = fmax((double)reach->v, g * g);
    const double quotient = m / (double)a->epsilon;
    const double sum = fabs((double)a->decay) * theta + (double)a->step_size * quotient;
    return norm <= SAFE && g * g <= SAFE && m <= SAFE && v <= SAFE && quotient <= SAFE &&
           sum <= SAFE && (double)a->inverse_root <= 0x1p60;
}

static int sgd_is_safe(const pgrad__sgd *s, const pgrad__reach *reach, double norm)
{
    const double theta = (double)reach->theta;
    const double g = norm * (double)s->grad_scale + (double)s->l2 * theta;
    const double b = (double)s->momentum * (double)reach->m + g;
    const double step = s->nesterov ? g + (double)s->momentum * b : b;
    const double sum = theta + (double)s->learning_rate * step;
    return norm <= SAFE && b <= SAFE && step <= SAFE && sum <= SAFE;
}

/* The bounds are those of the last update, and tell nothing once the weights were changed by
 * others. */
static int is_safe(const pgrad_optimizer *optimizer, const update *u)
{
    if (optimizer->step == 0 || optimizer->reach_version != optimizer->model->weight_version)
        return 0;
    const pgrad__reach *reach = &optimizer->reach;
    if (optimizer->params.kind == PGRAD_OPTIMIZER_SGD)
        return sgd_is_safe(&u->sgd[0], reach, u->norm) && sgd_is_safe(&u->sgd[1], reach, u->norm);
    return adam_is_safe(&u->adam[0], reach, u->norm) && adam_is_safe(&u->adam[1], reach, u->norm);
}

static int is_finite(const pgrad__reach *reach)
{
    return isfinite(reach->theta) && isfinite(reach->m) && isfinite(reach->v);
}

static void extend(pgrad__reach *all, const pgrad__reach *reach)
{
    all->theta = reach->theta > all->theta ? reach->theta : all->theta;
    all->m = reach->m > all->m ? reach->m : all->m;
    all->v = reach->v > all->v ? reach->v : all->v;
}

/* All tensors once; the reach of all of them. */
static pgrad_status go_over(pgrad_optimizer *optimizer, const update *u, int write,
                            pgrad__reach *all)
{
    const pgrad_model *model = optimizer->model;
    *all = (pgrad__reach){0};
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__reach reach = update_tensor(optimizer, u, i, write);
        if (!is_finite(&reach))
            return pgrad__fail(write ? PGRAD_E_INTERNAL : PGRAD_E_NUMERIC,
                               "optimizer_step: the update of tensor '%s' is not finite "
                               "(learning rate %g); %s",
                               model->tensors[i].name, u->learning_rate,
                               write ? "against the proof" : "nothing was changed");
        extend(all, &reach);
    }
    return PGRAD_OK;
}

/* A result that is not finite must be found before anything is written: by the bounds where they
 * suffice, so that every array is read and written once, else by a dry run. */
static pgrad_status update_all(pgrad_optimizer *optimizer, const update *u)
{
    pgrad__reach reach;
    if (!is_safe(optimizer, u)) {
        PGRAD__TRY(go_over(optimizer, u, 0, &reach));
        optimizer->dry_runs++;
    }
    PGRAD__TRY(go_over(optimizer, u, 1, &reach));
    optimizer->reach = reach;
    return PGRAD_OK;
}

static pgrad_status step(pgrad_optimizer *optimizer, pgrad_step_report *report)
{
    const pgrad__tensor *not_finite;
    pgrad_step_report part;
    pgrad_step_report_init(&part, sizeof part);
    PGRAD__TRY(pgrad__gradients_allocate(optimizer->model));
    double norm = gradient_norm(optimizer->model, &not_finite);
    if (not_finite != NULL)
        return pgrad__fail(PGRAD_E_NUMERIC,
                           "optimizer_step: the gradient of tensor '%s' is not finite; nothing was "
                           "changed",
                           not_finite->name);

    update u = {.t = optimizer->step + 1, .norm = norm};
    double clip = optimizer->params.max_grad_norm / (norm + 1e-6);
    u.grad_scale = (float)(clip < 1.0 ? clip : 1.0);
    u.learning_rate = optimizer->params.learning_rate *
                      pgrad__schedule_factor(&optimizer->params, optimizer->step);
    set_rules(&optimizer->params, &u);
    PGRAD__TRY(update_all(optimizer, &u));
    optimizer->step++;
    optimizer->reach_version = ++optimizer->model->weight_version;

    part.step = optimizer->step;
    part.grad_norm = norm;
    part.learning_rate = u.learning_rate;
    if (report != NULL)
        pgrad__report_merge(report, &part);
    return PGRAD_OK;
}

pgrad_status pgrad_optimizer_step(pgrad_optimizer *optimizer, pgrad_step_report *report)
{
    pgrad__scope scope;
    if (optimizer == NULL)
        return pgrad__fail(PGRAD_E_INVALID, "optimizer_step: optimizer is NULL");
    PGRAD__TRY(pgrad__report_check(report));
    PGRAD__TRY(pgrad__enter(optimizer->context, &scope));
    pgrad_status status = pgrad__lock_write(&optimizer->model->lock, "optimizer_step: the model");
    if (status == PGRAD_OK) {
        status = step(optimizer, report);
        pgrad__unlock_write(&optimizer->model->lock);
    }
    pgrad__leave(&scope);
    return status;
}

/* ---- tensor by tensor, inside a backward pass ---- */

pgrad_status pgrad__tensor_updates_begin(pgrad_optimizer *optimizer, const pgrad_model *model,
                                         pgrad__tensor_updates *updates)
{
    const pgrad_optimizer_params *params = &optimizer->params;
    if (optimizer->model != model)
        return pgrad__fail(PGRAD_E_INVALID, "backward.optimizer: it is another model's");
    if (!isinf(params->max_grad_norm))
        return pgrad__fail(PGRAD_E_INVALID,
                           "optimizer.max_grad_norm: expected infinity for an optimizer given to "
                           "backward, found %g",
                           params->max_grad_norm);
    *updates = (pgrad__tensor_updates){
        .optimizer = optimizer,
        .t = optimizer->step + 1,
        .learning_rate = params->learning_rate * pgrad__schedule_factor(params, optimizer->step),
    };
    memset(optimizer->squares, 0, model->n_tensors * sizeof(double));
    return PGRAD_OK;
}

pgrad_status pgrad__tensor_updates_one(void *user, uint32_t index)
{
    pgrad__tensor_updates *updates = user;
    const pgrad_optimizer *optimizer = updates->optimizer;
    const pgrad__tensor *tensor = &optimizer->model->tensors[index];
    const char *what = NULL;
    optimizer->squares[index] = gradient_squares(optimizer->model, tensor);
    update u = {.learning_rate = updates->learning_rate,
                .norm = sqrt(optimizer->squares[index]),
                .grad_scale = 1.0f,
                .t = updates->t};
    set_rules(&optimizer->params, &u);
    pgrad__reach reach = {0};
    if (!isfinite(optimizer->squares[index]))
        what = "gradient";
    else if (!is_safe(optimizer, &u))
        reach = update_tensor(optimizer, &u, index, 0);
    if (what == NULL && !is_finite(&reach))
        what = "update";
    if (what != NULL)
        return pgrad__fail(PGRAD_E_NUMERIC,
                           "objective_backward: the %s of tensor '%s' is not finite; %u tensors of "
                           "the layers above it are updated already",
                           what, tensor->name, updates->n_done);
    reach = update_tensor(optimizer, &u, index, 1);
    extend(&updates->reach, &reach);
    updates->n_done++;
    return PGRAD_OK;
}

void pgrad__tensor_updates_end(pgrad__tensor_updates *updates, pgrad_status status,
                               pgrad_step_report *report)
{
    pgrad_optimizer *optimizer = updates->optimizer;
    pgrad_step_report part;
    double sum = 0.0;
    for (uint32_t i = 0; i < optimizer->model->n_tensors; i++)
        sum += optimizer->squares[i];
    if (updates->n_done > 0)
        optimizer->model->weight_version++;
    if (status != PGRAD_OK)
        return;
    optimizer->step++;
    optimizer->reach = updates->reach;
    optimizer->reach_version = optimizer->model->weight_version;
    pgrad_step_report_init(&part, sizeof part);
    part.step = optimizer->step;
    part.grad_norm = sqrt(sum);
    part.learning_rate = updates->learning_rate;
    if (report != NULL)
        pgrad__report_merge(report, &part);
}
