/* The inside of a pgrad_train: what it holds from the first step to the last, and its checkpoints.
 */
#ifndef PGRAD_TRAIN_RUN_H
#define PGRAD_TRAIN_RUN_H

#include <policygrad/checkpoint.h>
#include <policygrad/optimizer.h>
#include <policygrad/rollout.h>
#include <policygrad/trainer.h>

#include "io/file_lock.h"
#include "train/evaluate.h"
#include "train/predict.h"
#include "train/prompts.h"

typedef struct pgrad__run {
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_reward *reward;
    pgrad_train_params params;
    pgrad_train_params held; /* the host's handles, kept alive for the run */
    pgrad__prompt_set prompts;
    pgrad_rollout *rollout;
    /* handles the host did not give are made here and freed at the end */
    pgrad_sampler *own_sampler;
    pgrad_advantage *own_advantage;
    pgrad_objective *own_objective;
    pgrad_optimizer *own_optimizer;
    pgrad_rollout_params rollout_params;
    pgrad_optimizer_params optimizer_params;
    int has_evaluation;
    pgrad__evaluation evaluation;
    uint64_t evaluations, evaluated_steps; /* how often, and at how many steps the last time */
    double evaluated, evaluation_seconds;  /* what it gave, and took */
    char *paths[3];                        /* those of params, as they were meant when it began */
    pgrad__lock_file lock;                 /* of the checkpoint's path */
    int metrics;                           /* descriptor, -1: none; locked */
    char *line;
    size_t line_capacity;
    double *window; /* rewards of the last target_window steps */
    uint64_t n_rewards;
    uint32_t refused_in_a_row;
    pgrad__predictor predictor;
    pgrad_checkpoint *checkpoint; /* NULL: none */
    uint64_t checkpointed;        /* steps in the last one; UINT64_MAX: there is none */
    uint64_t metrics_size;        /* of the metrics file, when the checkpoint was made */
    uint32_t metrics_crc;         /* of the end of it */
    uint32_t prompts_crc, reference_crc;
    double started;
    pgrad_train_report report;
} pgrad__run;

/* checkpoints.c. Where train.checkpoint_path is NULL they do nothing. */

/* Makes the checkpoint of a run whose handles are there. */
pgrad_status pgrad__run_checkpoint_init(pgrad__run *r);
/* Takes the newest good file up, as train.resume says. */
pgrad_status pgrad__run_resume(pgrad__run *r);
/* Writes one, unless it has been written since the last step. */
pgrad_status pgrad__run_checkpoint(pgrad__run *r);

#endif
