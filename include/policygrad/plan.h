/* What a run takes of memory, told before anything is taken, and choices that fit under a limit.
 *
 *     pgrad_memory_report needed = {.struct_size = sizeof needed};
 *     pgrad_plan_params_init(&plan, sizeof plan);
 *     plan.rollout = &rollout_params;
 *     plan.objective = &objective_params;
 *     plan.optimizer = &optimizer_params;
 *     pgrad_model_estimate_load(context, "SmolLM2-135M-Instruct", NULL, &plan, &needed);
 *
 * Sizes come from the code that takes the memory. They are those of full lengths: every prompt and
 * every completion as long as the plan says. Handles without arrays (rewards, samplers, advantages),
 * the texts of pgrad_rollout_set_data, and what jansson, PCRE2 and utf8proc take are left out, and so
 * is what loading holds for a moment: buffers of a few MiB a thread, and a GGUF file's metadata.
 *
 * Under a memory limit, the context's or the plan's, what params leave open is chosen so that all of
 * it fits, with a 128th of the limit left free for what is left out: batch_size 0, micro_batch_tokens
 * 0, and recompute, moments, kv_storage and keep_activations (which is OFF then) where they are AUTO. The
 * first three change no bit of a rollout, and of gradients nothing but the order of sums
 * (micro-batches). The cheapest choice is taken: rows to compute, a tenth more for recomputing, a
 * little for every micro-batch, and for every step of decoding, of which there are more where fewer
 * sequences are decoded at once. Narrower moments come after all that, narrower keys and values last;
 * how weights are stored is never chosen, since that is another model. The choice depends on params
 * and lengths alone: not on what is held at the moment, and neither on threads nor on the kernel set
 * (it is made for 8 threads and the widest kernels). pgrad_train plans so by itself, with a
 * checkpoint's copy only where there is no limit: under one the copy is made where room is left, else
 * the checkpoint is written before the run goes on. A loop of the host's hands the report's choices to
 * the calls that create. Without a limit everything open has its default.
 *
 * Threads: safe, as reads of the model are. */
#ifndef POLICYGRAD_PLAN_H
#define POLICYGRAD_PLAN_H

#include <policygrad/model.h>
#include <policygrad/objective.h>
#include <policygrad/optimizer.h>
#include <policygrad/rollout.h>
#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgrad_plan_params {
    size_t struct_size;
    const pgrad_rollout_params *rollout;     /* NULL, the default: the model alone */
    const pgrad_objective_params *objective; /* NULL, the default: no backward pass */
    const pgrad_optimizer_params *optimizer; /* NULL, the default: no updates */
    const pgrad_rollout_params *evaluation;  /* a second rollout, kept beside; NULL, the default: none */
    pgrad_tokenizer *tokenizer;  /* of the rollouts; its own memory counts; NULL, the default: none */
    uint32_t prompt_tokens;      /* of a prompt; 0, the default: rollout.max_prompt_tokens */
    uint32_t completion_tokens;  /* of a completion; 0, the default: rollout.max_new_tokens */
    uint32_t in_backward;        /* 1: the optimizer is given to pgrad_objective_backward; default 0 */
    uint32_t reference;          /* 1: a snapshot is kept and scored with; default 0 */
    uint64_t memory_limit;       /* bytes; 0, the default: the context's */
    uint64_t other_bytes;        /* what the host holds in the context beside all this; default 0 */
    uint32_t checkpoint;         /* 1: weights and moments are copied for checkpoints written in the
                                    background; default 0 */
    uint32_t updates_per_rollout; /* default 1; with more, backward passes without kept activations count
                                     beside the first one, which has them */
} pgrad_plan_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_plan_params_init(pgrad_plan_params *params, size_t size);

typedef struct pgrad_memory_report {
    size_t struct_size;
    /* bytes */
    uint64_t weights;     /* in the panels the kernels read, which are their only copy */
    uint64_t gradients;
    uint64_t moments;
    uint64_t activations; /* of passes: generating, scoring, training */
    uint64_t kv_cache;
    uint64_t scratch;     /* of kernels, for each thread, and a chunk of the head's logits */
    uint64_t rollout;     /* arrays of completions, logits and buffers of generating */
    uint64_t reference;
    uint64_t other;       /* names, tables, batches' ids, tokenizer, other_bytes */
    uint64_t total;
    uint64_t peak_rollout;  /* before the first backward pass; after it all stays: total */
    uint64_t memory_limit;  /* what the choices had to fit under; 0: nothing */
    /* the choices: values for the params of the same names */
    uint32_t batch_size; /* may be more than there are sequences */
    uint32_t micro_batch_tokens;
    uint32_t recompute;
    uint32_t kv_storage;
    uint32_t moments_storage;
    uint32_t n_micro_batches; /* of one backward pass */
    uint64_t checkpoint; /* bytes: the copy that a checkpoint in the background is written from */
    uint32_t keep_activations; /* the rollout's: AUTO is OFF under a limit, with recompute, or where it
                                  would come to too much */
    uint32_t reserved;
} pgrad_memory_report;

/* Tells what a plan takes, the model included, with the choices made. plan may be NULL: the model
 * alone. Set out->struct_size first.
 * Errors: E_INVALID; E_STATE (an objective or optimizer for a frozen model); E_NOMEM; E_LIMIT: no choice
 * fits under the memory limit, and the message says what the leanest one needs and what would fit; out
 * then tells of the leanest. */
PGRAD_API pgrad_status pgrad_model_estimate(pgrad_model *model, const pgrad_plan_params *plan,
                                            pgrad_memory_report *out);

/* The same for a model that pgrad_model_load would load: of its files the configuration alone is read,
 * of a GGUF file the metadata. Errors: those of pgrad_model_load too. */
PGRAD_API pgrad_status pgrad_model_estimate_load(pgrad_context *context, const char *path,
                                                 const pgrad_model_params *params,
                                                 const pgrad_plan_params *plan,
                                                 pgrad_memory_report *out);

/* The same for a model that pgrad_model_create would make. Errors: those of pgrad_model_create too. */
PGRAD_API pgrad_status pgrad_model_estimate_create(pgrad_context *context, const char *config_json,
                                                   const pgrad_model_params *params,
                                                   const pgrad_plan_params *plan,
                                                   pgrad_memory_report *out);

#ifdef __cplusplus
}
#endif
#endif
