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
    float **moments[2] = {optimizer->first_moment, optimizer->second_moment};
    for (int k = 0; k < 2; k++) {
        for (uint32_t i = 0; moments[k] != NULL && i < model->n_tensors; i++)
            pgrad__free(context, moments[k][i]);
        pgrad__free(context, moments[k]);
    }
    pgrad__free(context, optimizer);
    pgrad_model_free(model); /* last: the context may go with it */
}

static pgrad_status take_moments(pgrad_optimizer *optimizer, float ***moments)
{
    const pgrad_model *model = optimizer->model;
    PGRAD__TRY(pgrad__calloc(optimizer->context, model->n_tensors, sizeof(float *), moments));
    for (uint32_t i = 0; i < model->n_tensors; i++)
        PGRAD__TRY(pgrad__calloc(optimizer->context, model->tensors[i].floats, sizeof(float),
                                 &(*moments)[i]));
    return PGRAD_OK;
}

static pgrad_status check_params(const pgrad_optimizer_params *params)
{
    if (params->schedule != PGRAD_SCHEDULE_CONSTANT && params->total_steps <= params->warmup_steps)
        return pgrad__fail(
            PGRAD_E_INVALID,
            "optimizer.total_steps: this schedule needs more than warmup_steps = %llu, "
            "found %llu",
            (unsigned long long)params->warmup_steps, (unsigned long long)params->total_steps);
    if (params->nesterov && params->momentum == 0.0)
        return pgrad__fail(PGRAD_E_INVALID, "optimizer.nesterov: needs a momentum above 0");
    return PGRAD_OK;
}

static pgrad_status create(pgrad_model *model, const pgrad_optimizer_params *params,
                           pgrad_optimizer **out)
{
    pgrad_optimizer_params read;
    pgrad_optimizer *optimizer = NULL;
    PGRAD__TRY(pgrad__params_read("optimizer", params, &read));
    PGRAD__TRY(check_params(&read));
    PGRAD__TRY(pgrad__calloc(model->context, 1, sizeof *optimizer, &optimizer));
    optimizer->context = model->context;
    optimizer->model = model;
    optimizer->params = read;
    atomic_init(&optimizer->references, 1);
    pgrad__model_retain(model);

    pgrad_status status = PGRAD_OK;
    if (read.kind != PGRAD_OPTIMIZER_SGD || read.momentum != 0.0)
        status = take_moments(optimizer, &optimizer->first_moment);
    if (status == PGRAD_OK && read.kind != PGRAD_OPTIMIZER_SGD)
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

static int is_matrix(const pgrad__tensor *tensor)
{
    return tensor->kind == PGRAD__TENSOR_MATRIX || tensor->kind == PGRAD__TENSOR_MATRIX_TRANSPOSED;
}

/* n = sqrt(sum g^2) over all tensors, in their order. */
static double gradient_norm(const pgrad_model *model, const pgrad__tensor **not_finite)
{
    double sum = 0.0;
    *not_finite = NULL;
    for (uint32_t i = 0; i < model->n_tensors; i++) {
        const pgrad__tensor *tensor = &model->tensors[i];
        double squares = is_matrix(tensor)
                             ? pgrad__matrix_sumsq(model->context, &tensor->grad_matrix)
                             : pgrad__vector_sumsq(model->context, tensor->grad, tensor->floats);
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

typedef struct update {
    double learning_rate;
    float grad_scale;
    uint64_t t; /* number of this update, from 1 */
} update;

static int update_adam(const pgrad_optimizer *optimizer, const update *u, uint32_t i, int write)
{
    const pgrad_optimizer_params *params = &optimizer->params;
    const pgrad__tensor *tensor = &optimizer->model->tensors[i];
    /* Norm gains and biases never decay. */
    double decay = tensor->n_dims < 2 ? 0.0 : params->weight_decay;
    int decoupled = params->kind == PGRAD_OPTIMIZER_ADAMW;
    pgrad__adam adam = {
        .grad_scale = u->grad_scale,
        .l2 = decoupled ? 0.0f : (float)decay,
        .decay = decoupled ? (float)(1.0 - u->learning_rate * decay) : 1.0f,
        .beta1 = (float)params->beta1,
        .beta2 = (float)params->beta2,
        .step_size = (float)(u->learning_rate / bias_correction(params->beta1, u->t)),
        .inverse_root = (float)(1.0 / sqrt(bias_correction(params->beta2, u->t))),
        .epsilon = (float)params->epsilon,
    };
    return pgrad__adam_update(optimizer->context, &adam, tensor->floats, tensor->data, tensor->grad,
                              optimizer->first_moment[i], optimizer->second_moment[i], write);
}

static int update_sgd(const pgrad_optimizer *optimizer, const update *u, uint32_t i, int write)
{
    const pgrad_optimizer_params *params = &optimizer->params;
    const pgrad__tensor *tensor = &optimizer->model->tensors[i];
    pgrad__sgd sgd = {
        .grad_scale = u->grad_scale,
        .l2 = tensor->n_dims < 2 ? 0.0f : (float)params->weight_decay,
        .learning_rate = (float)u->learning_rate,
        .momentum = (float)params->momentum,
        .nesterov = (int)params->nesterov,
        .first = u->t == 1,
    };
    float *b = optimizer->first_moment == NULL ? NULL : optimizer->first_moment[i];
    return pgrad__sgd_update(optimizer->context, &sgd, tensor->floats, tensor->data, tensor->grad,
                             b, write);
}

/* Goes over all tensors twice: a dry run first, so that a result that is not finite is found before
 * anything was written. The second reading costs some hundredths of a step. */
static pgrad_status update_all(pgrad_optimizer *optimizer, const update *u)
{
    const pgrad_model *model = optimizer->model;
    for (int write = 0; write < 2; write++) {
        for (uint32_t i = 0; i < model->n_tensors; i++) {
            int finite = optimizer->params.kind == PGRAD_OPTIMIZER_SGD
                             ? update_sgd(optimizer, u, i, write)
                             : update_adam(optimizer, u, i, write);
            if (!finite && !write)
                return pgrad__fail(PGRAD_E_NUMERIC,
                                   "optimizer_step: the update of tensor '%s' is not finite "
                                   "(learning rate %g); nothing was changed",
                                   model->tensors[i].name, u->learning_rate);
        }
    }
    return PGRAD_OK;
}

static pgrad_status step(pgrad_optimizer *optimizer, pgrad_step_report *report)
{
    const pgrad__tensor *not_finite;
    pgrad_step_report part;
    pgrad_step_report_init(&part, sizeof part);
    double norm = gradient_norm(optimizer->model, &not_finite);
    if (not_finite != NULL)
        return pgrad__fail(PGRAD_E_NUMERIC,
                           "optimizer_step: the gradient of tensor '%s' is not finite; nothing was "
                           "changed",
                           not_finite->name);

    update u = {.t = optimizer->step + 1};
    double clip = optimizer->params.max_grad_norm / (norm + 1e-6);
    u.grad_scale = (float)(clip < 1.0 ? clip : 1.0);
    u.learning_rate = optimizer->params.learning_rate *
                      pgrad__schedule_factor(&optimizer->params, optimizer->step);
    PGRAD__TRY(update_all(optimizer, &u));
    optimizer->step++;
    optimizer->model->weight_version++;

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
    PGRAD__TRY(pgrad__enter(optimizer->context, &scope));
    pgrad_status status = pgrad__lock_write(&optimizer->model->lock, "optimizer_step: the model");
    if (status == PGRAD_OK) {
        status = step(optimizer, report);
        pgrad__unlock_write(&optimizer->model->lock);
    }
    pgrad__leave(&scope);
    return status;
}
