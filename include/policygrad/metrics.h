/* The report of one step, and its numbers by name.
 *
 * The same report goes through pgrad_objective_backward and pgrad_optimizer_step, each fills its
 * part; pgrad_rollout_report the part about completions and rewards. Numbers that were not filled
 * are NaN.
 *
 * Threads: the report belongs to the caller. */
#ifndef POLICYGRAD_METRICS_H
#define POLICYGRAD_METRICS_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A number with a name: reward components, and what later versions add. */
typedef struct pgrad_named_value {
    char name[56]; /* UTF-8, NUL-terminated */
    double value;
} pgrad_named_value;

typedef struct pgrad_step_report {
    size_t struct_size;
    uint64_t step;             /* optimizer steps done, this one included */
    /* rollout: pgrad_rollout_report */
    double reward;             /* mean over scored sequences */
    double reward_std;         /* mean over groups of the deviation within (ddof 1), TRL's reward_std;
                                  with groups of one: of the batch */
    double reward_min;         /* of the scored sequences, as the next four */
    double reward_q1;          /* the first quartile */
    double reward_median;      /* the second */
    double reward_q3;          /* the third */
    double reward_max;
    double frac_zero_std;      /* share of groups without spread */
    double n_unscored;         /* sequences without a reward */
    double completion_mean_length; /* tokens */
    double completion_min_length; /* the shortest */
    double completion_max_length; /* the longest */
    double completion_clipped_ratio; /* share that ended by length */
    double n_sequences;        /* completions, scored or not */
    double n_tokens;           /* completion tokens */
    double sampling_mismatch;  /* mean |LOGPROBS - LOGPROBS_SAMPLED| */
    /* objective: pgrad_objective_backward */
    double loss;               /* what was differentiated: the next one, KL and entropy with their weights */
    double policy_loss;        /* of the advantages alone */
    double kl;                 /* mean per token of the loss's KL term; with KL in the reward alone,
                                  of k3 = exp(-d) - 1 + d, d = OLD - REFERENCE; NaN without */
    double entropy;            /* mean per token, nats */
    double ratio_mean;         /* of rho over learned tokens */
    double ratio_min;
    double ratio_max;
    double approx_kl;          /* mean(rho - 1 - log rho) against OLD */
    double clip_low_ratio;     /* share of learned tokens clipped with A < 0 */
    double clip_high_ratio;    /* and with A > 0 */
    double n_micro_batches;
    /* optimizer: pgrad_optimizer_step */
    double grad_norm;          /* before clipping */
    double learning_rate;
    /* trainer */
    double seconds;            /* of the whole step */
    double seconds_generate;
    double seconds_train;
    double tokens_per_second;  /* completion tokens generated per second of generate */
    uint32_t n_named;          /* used in named[] */
    uint32_t reserved;
    pgrad_named_value named[32]; /* "rewards/NAME/mean", "rewards/NAME/std" */
    double eval_reward;        /* greedy mean reward on eval_prompts after this step, where it was time */
    double seconds_predicted; /* trainer: of the whole step, told before it began (in the log, level INFO);
                                 from the fourth step of a run on */
    double micro_batch_tokens; /* objective: rows of a micro-batch, at most but for long prompts */
    double recompute;          /* 1: of each layer only the input was kept */
    double kept_rows;          /* tokens whose activations the rollout had kept (rollout.keep_activations) */
} pgrad_step_report;

/* Sets the size, and every number to NaN. */
PGRAD_API void pgrad_step_report_init(pgrad_step_report *report, size_t size);

/* Fills the report's part about completions and rewards. Takes memory for the time of the call with more
 * than 1,024 completions.
 * Errors: E_INVALID for a report that pgrad_step_report_init did not see; E_LIMIT, E_NOMEM. */
PGRAD_API pgrad_status pgrad_rollout_report(const pgrad_rollout *rollout, pgrad_step_report *report);

/* Goes through all numbers that are filled, by the names that TRL uses where the thing is the same
 * ("reward", "completions/mean_length", "clip_ratio/low_mean"). A name is valid as long as the report;
 * NULL and NaN beyond the count. */
PGRAD_API uint32_t pgrad_metrics_count(const pgrad_step_report *report);

/* Names number `index`, NULL beyond the count. Valid as long as the report. */
PGRAD_API const char *pgrad_metrics_name(const pgrad_step_report *report, uint32_t index);

/* Gives number `index`, NaN beyond the count. */
PGRAD_API double pgrad_metrics_value(const pgrad_step_report *report, uint32_t index);

/* Writes the report as one JSON object on one line, without a newline. E_BUFFER as in
 * pgrad_params_describe. */
PGRAD_API pgrad_status pgrad_metrics_json(const pgrad_step_report *report, char *json,
                                          size_t capacity, size_t *length);

#ifdef __cplusplus
}
#endif
#endif
