/* How long the next step will take, from those before it. Not a clock: who calls has measured. */
#ifndef PGRAD_TRAIN_PREDICT_H
#define PGRAD_TRAIN_PREDICT_H

#include <stdint.h>

/* A step that was done. */
typedef struct pgrad__step_times {
    double prompt_tokens;     /* once per group */
    double completion_tokens; /* of all sequences */
    double n_updates;         /* of this rollout */
    double generate, train;   /* seconds */
    double other;             /* seconds: scoring, reward, advantages */
} pgrad__step_times;

enum { PGRAD__PREDICT_FROM = 3, PGRAD__PREDICT_LAST = 8 };

/* The last steps, the oldest overwritten first. */
typedef struct pgrad__predictor {
    pgrad__step_times steps[PGRAD__PREDICT_LAST];
    uint64_t n; /* added so far */
} pgrad__predictor;

void pgrad__predictor_add(pgrad__predictor *predictor, const pgrad__step_times *step);

/* Seconds of a step over so many prompt tokens with n_updates; NaN before three steps are there. */
double pgrad__predictor_seconds(const pgrad__predictor *predictor, double prompt_tokens,
                                double n_updates);

#endif
