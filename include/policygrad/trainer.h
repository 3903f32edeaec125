/* The ready loop: pgrad_train wraps the calls of a step, nothing else.
 *
 *     pgrad_prompts_init(&prompts, sizeof prompts);
 *     prompts.n = 2;
 *     prompts.texts = texts;
 *     pgrad_train_params_init(&params, sizeof params);
 *     params.prompts_per_step = 2;
 *     params.steps = 100;
 *     params.save_path = "tuned";
 *     pgrad_train(model, tokenizer, reward, &prompts, &params, &report);
 *
 * Per step: the next prompts in an order of the seed's, generate, (score with the reference), reward,
 * advantage, backward, optimizer. What params leave NULL - sampler, advantage, objective, optimizer - is
 * made for the run with its defaults. A callback sees every step's numbers and may end the run in
 * order; a file gets them as JSON lines; held-out prompts are evaluated greedily; checkpoints let a run
 * be taken up again with the bits of one that was not interrupted.
 *
 * Threads: one at a time, and alone with its model. */
#ifndef POLICYGRAD_TRAINER_H
#define POLICYGRAD_TRAINER_H

#include <policygrad/checkpoint.h>
#include <policygrad/metrics.h>
#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* A view of prompts: n texts, or n id sequences, and columns of text that reward functions can read
 * with pgrad_rollout_data. Read during the call only. */
typedef struct pgrad_prompts {
    size_t struct_size;
    size_t n;
    const char *const *texts;      /* n texts, NUL-terminated; or NULL when ids is set */
    const pgrad_token *const *ids; /* n id sequences */
    const size_t *n_ids;           /* their lengths */
    uint32_t chat;                 /* 1: each text is a user's message, formatted by pgrad_chat_format */
    uint32_t n_columns;
    const char *system;            /* chat: the system message, NULL: none */
    const char *const *column_names;    /* n_columns names */
    const char *const *const *columns;  /* [column][prompt] */
} pgrad_prompts;

/* Writes the size and no prompts. */
PGRAD_API void pgrad_prompts_init(pgrad_prompts *prompts, size_t size);

/* Called after each rollout's steps; returns more than zero to go on, zero or less to end the run in order.
 * With epochs_per_step > 1 the report's loss, ratios, clip ratios and grad_norm are the last one's. */
typedef int32_t (*pgrad_report_fn)(void *user, const pgrad_step_report *report,
                                   const pgrad_rollout *rollout);

/* Called after the advantages are there and before they are used; may change them with
 * pgrad_rollout_set_array. Returns more than zero to go on; zero or less fails with E_CALLBACK. */
typedef int32_t (*pgrad_advantage_fn)(void *user, pgrad_rollout *rollout);

/* Called before a checkpoint is written; may add texts of the host (pgrad_checkpoint_add_text) and
 * handles of its own, whose names must not be "policy", "optimizer", "sampler", "advantage",
 * "objective" or "train".
 * Returns more than zero to go on; zero or less fails with E_CALLBACK. */
typedef int32_t (*pgrad_checkpoint_fn)(void *user, pgrad_checkpoint *checkpoint);

/* Whether a run takes up the one at checkpoint_path. */
enum {
    PGRAD_RESUME_OFF = 0,
    PGRAD_RESUME_ON = 1,  /* E_IO when there is none */
    PGRAD_RESUME_AUTO = 2 /* begins anew when there is none */
};

typedef struct pgrad_train_params {
    size_t struct_size;
    uint64_t steps;             /* optimizer steps, default 100 */
    uint32_t prompts_per_step;  /* B, default 8; at most the number of prompts */
    uint32_t group_size;        /* G, default 8 */
    uint32_t max_new_tokens;    /* default 64 */
    uint32_t epochs_per_step;   /* optimizer steps per rollout, default 1; more needs PPO_CLIP */
    double learning_rate;       /* where no optimizer is given; default 1e-5 */
    double max_seconds;         /* ends the run in order, see pgrad_train; default infinity */
    double target_reward;       /* ends when the mean reward of target_window steps reaches it;
                                   default infinity */
    uint64_t target_window;     /* default 10 */
    uint64_t seed;              /* of the prompts' order, and of the sampler made here */
    pgrad_sampler *sampler;     /* each NULL: one with the defaults is made for the run */
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    pgrad_model *reference;     /* for KL; NULL: none */
    pgrad_report_fn report;     /* NULL: none */
    void *report_user;
    pgrad_advantage_fn on_advantages; /* NULL: none */
    void *on_advantages_user;
    const char *metrics_path;   /* one JSON object per step is appended; NULL: none */
    const char *save_path;      /* the model goes there every save_every steps and at a clean end */
    uint64_t save_every;        /* 0: only at the end; default 0 */
    const pgrad_prompts *eval_prompts; /* held out; with a sampler of its own, the run's but greedy; NULL:
                                          none */
    uint64_t eval_every;        /* steps; the report of such a step has eval_reward. 0: at the start and
                                   the end only; default 0 */
    uint32_t kv_storage;        /* PGRAD_KV_* of the rollout, default F32 */
    uint32_t moments;           /* PGRAD_MOMENTS_* where no optimizer is given, default F32 */
    uint32_t micro_batch_tokens; /* where no objective is given: as there, default 0 */
    uint32_t recompute;         /* PGRAD_RECOMPUTE_* where no objective is given, default AUTO */
    const char *checkpoint_path; /* the run's state goes there every checkpoint_every steps and at a clean
                                    end; NULL: none */
    uint64_t checkpoint_every;   /* 0: only at the end; default 0 */
    uint32_t checkpoint_keep;    /* files kept, pgrad_checkpoint_params.keep; default 2 */
    uint32_t checkpoint_background; /* 1, the default: written behind the steps that follow; takes as much
                                       memory again as the state, see pgrad_checkpoint_params */
    uint32_t resume;             /* PGRAD_RESUME_*, default OFF */
    uint32_t keep_activations;   /* PGRAD_KEEP_* of the rollout, default AUTO: not with several epochs */
    pgrad_checkpoint_fn on_checkpoint; /* NULL: none */
    void *on_checkpoint_user;
} pgrad_train_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_train_params_init(pgrad_train_params *params, size_t size);

/* Why a run ended. */
enum {
    PGRAD_STOPPED_STEPS = 0,
    PGRAD_STOPPED_SECONDS = 1,
    PGRAD_STOPPED_TARGET = 2,
    PGRAD_STOPPED_HOST = 3, /* the report callback said so */
    PGRAD_STOPPED_ERROR = 4
};

typedef struct pgrad_train_report {
    size_t struct_size;
    uint64_t steps;         /* optimizer steps done */
    double seconds;
    double first_reward;    /* mean reward of the first step's rollout */
    double last_reward;     /* of the last */
    double eval_before;     /* greedy mean reward on eval_prompts, NaN without */
    double eval_after;
    uint32_t stopped;       /* PGRAD_STOPPED_* */
    uint32_t n_skipped;     /* steps refused with E_NUMERIC */
    uint64_t memory_planned; /* bytes the run was planned to hold at most: see plan.h. The copy that a
                                checkpoint is written from is not among them */
    uint64_t steps_before;  /* of the steps, those done before this run took them up; else 0 */
} pgrad_train_report;

/* Trains model on prompts. A step whose update is not finite is skipped; three in a row end the run
 * with E_NUMERIC. Reports progress as "train" in steps.
 * Host handles are kept alive for the run. A save_path that cannot be written is told at the start.
 *
 * With max_seconds no step is begun that is predicted to take longer than what is left (from the
 * fourth on: seconds_predicted), and a rollout that the time ends in is dropped, its numbers of sequences
 * given back: weights and sampler are those after the last whole step. From the rewards on a step is
 * finished. Time for the closing evaluation, as long as the last one took, is kept back.
 *
 * Memory is planned before it is taken, with the longest prompt and completions of max_new_tokens;
 * a memory limit of the context chooses what params leave open (plan.h), in an objective of the host's
 * too, for the run. Each step's report tells micro_batch_tokens, recompute and n_micro_batches, the log
 * at INFO all of it. Where nothing fits, E_LIMIT says what would.
 *
 * With checkpoint_path a run can be taken up again, after a crash too: with resume, and model, handles,
 * options and prompts as before, it goes on with the bits of a run that was never interrupted, up to
 * `steps` in all (where as many are done, it takes up the state, saves and evaluates, and trains
 * nothing); weights, optimizer, sampler, baseline, place in the data and counters come from the file.
 * What the metrics file has beyond the checkpoint is cut off. A damaged file is told in the log, and
 * the one before it is taken; when there is none that is good, the run fails and says why for each.
 * A reference model is the host's: it must be the same, too. learning_rate may change where the optimizer
 * is made here; max_seconds counts anew.
 *
 * checkpoint_path and metrics_path are the run's own: another one of any process at either of them is
 * E_BUSY until this one has ended, in whichever way; the file checkpoint_path.lock, which goes with the
 * run, stands for the first. Relative paths are what they are at the call, wherever the process goes
 * during the run.
 *
 * out (may be NULL) is filled in any case.
 * Errors: E_INVALID and E_LIMIT, naming the prompt or field (a sampler of temperature 0 and groups of one
 * under a group estimator learn nothing); E_MISMATCH (an objective or optimizer of another model,
 * another context; a checkpoint of another run, by the field that differs); E_BUSY (another run is at
 * work on the same files); and those of the calls it
 * wraps. */
PGRAD_API pgrad_status pgrad_train(pgrad_model *model, pgrad_tokenizer *tokenizer,
                                   pgrad_reward *reward, const pgrad_prompts *prompts,
                                   const pgrad_train_params *params, pgrad_train_report *out);

#ifdef __cplusplus
}
#endif
#endif
