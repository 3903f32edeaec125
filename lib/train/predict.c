#include "train/predict.h"

#include <math.h>
#include <stdlib.h>

/* What a prompt token costs beside a sampled one: whole tiles of rows, and no head. */
#define PROMPT_SHARE 0.5

static double generate_work(double prompt_tokens, double completion_tokens)
{
    return PROMPT_SHARE * prompt_tokens + completion_tokens;
}

static double train_work(double prompt_tokens, double completion_tokens, double n_updates)
{
    return (prompt_tokens + completion_tokens) * n_updates;
}

void pgrad__predictor_add(pgrad__predictor *predictor, const pgrad__step_times *step)
{
    predictor->steps[predictor->n++ % PGRAD__PREDICT_LAST] = *step;
}

static int ascending(const void *a, const void *b)
{
    const double x = *(const double *)a, y = *(const double *)b;
    return x < y ? -1 : x > y;
}

static double median(double *values, size_t n)
{
    qsort(values, n, sizeof *values, ascending);
    return n % 2 == 1 ? values[n / 2] : 0.5 * (values[n / 2 - 1] + values[n / 2]);
}

static double rate(double seconds, double work)
{
    return work > 0.0 ? seconds / work : 0.0;
}

/* Medians of rates: the first step of a run, or one that the machine was slow in, does not count.
 * Completions are expected to be as long as they were on average. */
double pgrad__predictor_seconds(const pgrad__predictor *predictor, double prompt_tokens,
                                double n_updates)
{
    double generate[PGRAD__PREDICT_LAST], train[PGRAD__PREDICT_LAST], other[PGRAD__PREDICT_LAST];
    double completion = 0.0;
    const size_t n =
        predictor->n < PGRAD__PREDICT_LAST ? (size_t)predictor->n : PGRAD__PREDICT_LAST;
    if (n < PGRAD__PREDICT_FROM)
        return NAN;
    for (size_t i = 0; i < n; i++) {
        const pgrad__step_times *s = &predictor->steps[i];
        generate[i] = rate(s->generate, generate_work(s->prompt_tokens, s->completion_tokens));
        train[i] = rate(s->train, train_work(s->prompt_tokens, s->completion_tokens, s->n_updates));
        other[i] = s->other;
        completion += s->completion_tokens / (double)n;
    }
    return median(generate, n) * generate_work(prompt_tokens, completion) +
           median(train, n) * train_work(prompt_tokens, completion, n_updates) + median(other, n);
}
