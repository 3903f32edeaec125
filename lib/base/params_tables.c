/* One table per option struct, from the comments of the public headers. A test walks them: offsets
 * ascend, nothing of a struct is left out. */
#include <math.h>

#include <policygrad.h>

#include "base/context.h"
#include "base/params_tables.h"

static const char *const MODEL_STORAGE[] = {"f32", "bf16", "q8_0", NULL};
static const char *const SAVE_DTYPE[] = {"f32", "bf16", NULL};
static const char *const SEQUENCE_FINISH[] = {"none", "stop", "string", "length", NULL};
static const char *const ROLLOUT_KV_STORAGE[] = {"f32", "f16", "bf16", "auto", NULL};
static const char *const GENERATE_SPECULATE[] = {"off", "on", "auto", NULL};
static const char *const ADVANTAGE_ESTIMATOR[] = {"none", "ema",     "batch_mean", "rloo",
                                                  "grpo", "dr_grpo", NULL};
static const char *const OBJECTIVE_LOSS[] = {"reinforce", "ppo_clip", "supervised", NULL};
static const char *const OBJECTIVE_AGGREGATION[] = {"token_mean",
                                                    "sequence_mean_token_mean",
                                                    "sequence_mean_token_sum",
                                                    "constant",
                                                    "prompt_mean",
                                                    "micro_token_mean",
                                                    NULL};
static const char *const OBJECTIVE_KL[] = {"none", "k3_ratio", "k2", NULL};
static const char *const OPTIMIZER_KIND[] = {"sgd", "adam", "adamw", NULL};
static const char *const OPTIMIZER_MOMENTS[] = {"f32", "bf16", "q8", "auto", NULL};
static const char *const ROLLOUT_KEEP[] = {"off", "on", "auto", NULL};
static const char *const RECOMPUTE[] = {"off", "on", "auto", NULL};
static const char *const TRAIN_RESUME[] = {"off", "on", "auto", NULL};
static const char *const OPTIMIZER_SCHEDULE[] = {"constant", "linear", "cosine", NULL};

#define FIELD(type, struct_, field, initial, min, max, open_min, open_max, choices, help)          \
    {                                                                                              \
#field, PGRAD__FIELD_##type, offsetof(struct_, field), initial, min, max, open_min,        \
            open_max, choices, help                                                                \
    }

static const pgrad__field CONTEXT_FIELDS[] = {
    FIELD(U32, pgrad_context_params, n_threads, 0.0, 0.0, 256.0, 0, 0, NULL,
          "threads of a call, 0: what affinity mask and cgroup quota allow"),
    FIELD(CHOICE, pgrad_context_params, kernel_set, 0.0, 0.0, 4.0, 0, 0, pgrad__kernel_set_names,
          "micro-kernels and vector code"),
    FIELD(U64, pgrad_context_params, memory_limit, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "bytes held at once, 0: no limit"),
    FIELD(POINTER, pgrad_context_params, allocator, 0.0, 0.0, 0.0, 0, 0, NULL,
          "the host's allocator"),
};

static const pgrad__field MODEL_FIELDS[] = {
    FIELD(U32, pgrad_model_params, n_context, 0.0, 0.0, 4294967295.0, 0, 0, NULL,
          "positions to allow, 0: the model's"),
    FIELD(FLAG, pgrad_model_params, frozen, 0.0, 0.0, 1.0, 0, 0, NULL, "no gradients"),
    FIELD(CHOICE, pgrad_model_params, storage, 0.0, 0.0, 2.0, 0, 0, MODEL_STORAGE,
          "how matrices are kept in memory"),
    FIELD(RESERVED, pgrad_model_params, reserved, 0.0, 0.0, 0.0, 0, 0, NULL, "must be 0"),
};

static const pgrad__field SAVE_FIELDS[] = {
    FIELD(CHOICE, pgrad_save_params, dtype, 0.0, 0.0, 1.0, 0, 0, SAVE_DTYPE,
          "element type of the file"),
    FIELD(RESERVED, pgrad_save_params, reserved, 0.0, 0.0, 0.0, 0, 0, NULL, "must be 0"),
    FIELD(POINTER, pgrad_save_params, tokenizer, 0.0, 0.0, 0.0, 0, 0, NULL,
          "its files go into the folder"),
    FIELD(U64, pgrad_save_params, max_shard_bytes, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "of tensors in a file, 0: one file"),
};

static const pgrad__field ROLLOUT_FIELDS[] = {
    FIELD(U32, pgrad_rollout_params, group_size, 8.0, 1.0, 65536.0, 0, 0, NULL,
          "completions per prompt, G"),
    FIELD(U32, pgrad_rollout_params, max_prompts, 8.0, 1.0, 65536.0, 0, 0, NULL,
          "prompts at once, B"),
    FIELD(U32, pgrad_rollout_params, max_prompt_tokens, 256.0, 1.0, 16777216.0, 0, 0, NULL,
          "of one prompt"),
    FIELD(U32, pgrad_rollout_params, max_new_tokens, 64.0, 1.0, 16777216.0, 0, 0, NULL,
          "of one completion"),
    FIELD(U32, pgrad_rollout_params, batch_size, 0.0, 0.0, 65536.0, 0, 0, NULL,
          "sequences decoded at once, 0: all, at most 64"),
    FIELD(U32, pgrad_rollout_params, prefix_cache_tokens, 0.0, 0.0, 16777216.0, 0, 0, NULL,
          "cache room beyond what decoding needs, for beginnings of sequences"),
    FIELD(CHOICE, pgrad_rollout_params, kv_storage, 0.0, 0.0, 3.0, 0, 0, ROLLOUT_KV_STORAGE,
          "how keys and values are kept"),
    FIELD(CHOICE, pgrad_rollout_params, keep_activations, 2.0, 0.0, 2.0, 0, 0, ROLLOUT_KEEP,
          "whether activations are kept for the backward pass"),
};

static const pgrad__field PROMPT_FIELDS[] = {
    FIELD(U64, pgrad_prompt_params, tag, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "the host's"),
    FIELD(POINTER, pgrad_prompt_params, prefix, 0.0, 0.0, 0.0, 0, 0, NULL, "forced first tokens"),
    FIELD(SIZE, pgrad_prompt_params, n_prefix, 0.0, 0.0, 1099511627776.0, 0, 0, NULL,
          "number of them"),
};

static const pgrad__field SEQUENCE_FIELDS[] = {
    FIELD(F64, pgrad_sequence_params, temperature, 1.0, 0.0, INFINITY, 1, 1, NULL,
          "tau of its log-probabilities"),
    FIELD(CHOICE, pgrad_sequence_params, finish, 1.0, 0.0, 3.0, 0, 0, SEQUENCE_FINISH,
          "what ended it"),
    FIELD(RESERVED, pgrad_sequence_params, reserved, 0.0, 0.0, 0.0, 0, 0, NULL, "must be 0"),
};

static const pgrad__field GENERATE_FIELDS[] = {
    FIELD(POINTER, pgrad_generate_params, event, 0.0, 0.0, 0.0, 0, 0, NULL,
          "called with every token and end"),
    FIELD(POINTER, pgrad_generate_params, user, 0.0, 0.0, 0.0, 0, 0, NULL, "its first argument"),
    FIELD(F64, pgrad_generate_params, max_seconds, INFINITY, 0.0, INFINITY, 0, 0, NULL,
          "stop in order after this"),
    FIELD(CHOICE, pgrad_generate_params, speculate, 2.0, 0.0, 2.0, 0, 0, GENERATE_SPECULATE,
          "drafts from the sequence itself"),
    FIELD(RESERVED, pgrad_generate_params, reserved, 0.0, 0.0, 0.0, 0, 0, NULL, "must be 0"),
};

static const pgrad__field SAMPLER_FIELDS[] = {
    FIELD(F64, pgrad_sampler_params, temperature, 1.0, 0.0, 1e6, 0, 0, NULL, "tau, 0: greedy"),
    FIELD(F64, pgrad_sampler_params, top_p, 1.0, 0.0, 1.0, 1, 0, NULL,
          "smallest set of this probability"),
    FIELD(F64, pgrad_sampler_params, min_p, 0.0, 0.0, 1.0, 0, 1, NULL,
          "at least this share of the largest"),
    FIELD(F64, pgrad_sampler_params, repetition_penalty, 1.0, 0.0, 1e6, 1, 0, NULL,
          "divides logits of seen tokens"),
    FIELD(U64, pgrad_sampler_params, seed, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "of all draws"),
    FIELD(U32, pgrad_sampler_params, top_k, 0.0, 0.0, 4294967295.0, 0, 0, NULL,
          "the k largest, 0: off"),
    FIELD(U32, pgrad_sampler_params, min_new_tokens, 0.0, 0.0, 4294967295.0, 0, 0, NULL,
          "no stop before"),
    FIELD(U32, pgrad_sampler_params, max_new_tokens, 0.0, 0.0, 4294967295.0, 0, 0, NULL,
          "0: what the rollout has room for"),
    FIELD(FLAG, pgrad_sampler_params, ignore_eos, 0.0, 0.0, 1.0, 0, 0, NULL,
          "end tokens do not stop"),
    FIELD(POINTER, pgrad_sampler_params, stop_tokens, 0.0, 0.0, 0.0, 0, 0, NULL,
          "end a completion"),
    FIELD(SIZE, pgrad_sampler_params, n_stop_tokens, 0.0, 0.0, 1099511627776.0, 0, 0, NULL,
          "number of them"),
    FIELD(POINTER, pgrad_sampler_params, stop_strings, 0.0, 0.0, 0.0, 0, 0, NULL,
          "end a completion"),
    FIELD(SIZE, pgrad_sampler_params, n_stop_strings, 0.0, 0.0, 1099511627776.0, 0, 0, NULL,
          "number of them"),
    FIELD(POINTER, pgrad_sampler_params, forbidden_tokens, 0.0, 0.0, 0.0, 0, 0, NULL,
          "never sampled"),
    FIELD(SIZE, pgrad_sampler_params, n_forbidden_tokens, 0.0, 0.0, 1099511627776.0, 0, 0, NULL,
          "number of them"),
    FIELD(POINTER, pgrad_sampler_params, bias_tokens, 0.0, 0.0, 0.0, 0, 0, NULL,
          "tokens of logit_bias"),
    FIELD(POINTER, pgrad_sampler_params, logit_bias, 0.0, 0.0, 0.0, 0, 0, NULL,
          "added to their logits"),
    FIELD(SIZE, pgrad_sampler_params, n_bias_tokens, 0.0, 0.0, 1099511627776.0, 0, 0, NULL,
          "number of them"),
};

static const pgrad__field ADVANTAGE_FIELDS[] = {
    FIELD(CHOICE, pgrad_advantage_params, estimator, 4.0, 0.0, 5.0, 0, 0, ADVANTAGE_ESTIMATOR,
          "rewards to advantages"),
    FIELD(RESERVED, pgrad_advantage_params, reserved, 0.0, 0.0, 0.0, 0, 0, NULL, "must be 0"),
    FIELD(F64, pgrad_advantage_params, epsilon, 1e-4, 0.0, INFINITY, 0, 1, NULL,
          "GRPO: beside the standard deviation"),
    FIELD(F64, pgrad_advantage_params, ema_decay, 0.9, 0.0, 1.0, 0, 1, NULL, "EMA: q"),
    FIELD(F64, pgrad_advantage_params, kl_beta, 0.0, 0.0, INFINITY, 0, 1, NULL,
          "k1 to the reference in the reward"),
};

static const pgrad__field OBJECTIVE_FIELDS[] = {
    FIELD(CHOICE, pgrad_objective_params, loss, 1.0, 0.0, 2.0, 0, 0, OBJECTIVE_LOSS,
          "per-token loss"),
    FIELD(CHOICE, pgrad_objective_params, aggregation, 0.0, 0.0, 5.0, 0, 0, OBJECTIVE_AGGREGATION,
          "weights of the tokens"),
    FIELD(CHOICE, pgrad_objective_params, kl, 1.0, 0.0, 2.0, 0, 0, OBJECTIVE_KL,
          "KL to the reference in the loss"),
    FIELD(U32, pgrad_objective_params, micro_batch_tokens, 0.0, 0.0, 4294967295.0, 0, 0, NULL,
          "token rows at once, 0: 2048 or what a plan says"),
    FIELD(F64, pgrad_objective_params, clip_low, 0.2, 0.0, 1.0, 0, 0, NULL, "PPO_CLIP: below"),
    FIELD(F64, pgrad_objective_params, clip_high, 0.2, 0.0, INFINITY, 0, 1, NULL,
          "PPO_CLIP: above"),
    FIELD(F64, pgrad_objective_params, kl_beta, 0.0, 0.0, INFINITY, 0, 1, NULL,
          "weight of the KL term"),
    FIELD(F64, pgrad_objective_params, entropy_coefficient, 0.0, 0.0, INFINITY, 0, 1, NULL,
          "weight of the entropy bonus"),
    FIELD(U32, pgrad_objective_params, max_new_tokens, 0.0, 0.0, 4294967295.0, 0, 0, NULL,
          "Lmax of CONSTANT, 0: the rollout's"),
    FIELD(FLAG, pgrad_objective_params, share_prefix, 1.0, 0.0, 1.0, 0, 0, NULL,
          "a group's prompt is computed once"),
    FIELD(CHOICE, pgrad_objective_params, recompute, 2.0, 0.0, 2.0, 0, 0, RECOMPUTE,
          "less memory for activations, more time"),
    FIELD(RESERVED, pgrad_objective_params, reserved, 0.0, 0.0, 0.0, 0, 0, NULL, "must be 0"),
};

static const pgrad__field PLAN_FIELDS[] = {
    FIELD(POINTER, pgrad_plan_params, rollout, 0.0, 0.0, 0.0, 0, 0, NULL, "NULL: the model alone"),
    FIELD(POINTER, pgrad_plan_params, objective, 0.0, 0.0, 0.0, 0, 0, NULL,
          "NULL: no backward pass"),
    FIELD(POINTER, pgrad_plan_params, optimizer, 0.0, 0.0, 0.0, 0, 0, NULL, "NULL: no updates"),
    FIELD(POINTER, pgrad_plan_params, evaluation, 0.0, 0.0, 0.0, 0, 0, NULL,
          "a second rollout beside"),
    FIELD(POINTER, pgrad_plan_params, tokenizer, 0.0, 0.0, 0.0, 0, 0, NULL, "of the rollouts"),
    FIELD(U32, pgrad_plan_params, prompt_tokens, 0.0, 0.0, 16777216.0, 0, 0, NULL,
          "of a prompt, 0: the rollout's most"),
    FIELD(U32, pgrad_plan_params, completion_tokens, 0.0, 0.0, 16777216.0, 0, 0, NULL,
          "of a completion, 0: the rollout's most"),
    FIELD(FLAG, pgrad_plan_params, in_backward, 0.0, 0.0, 1.0, 0, 0, NULL,
          "the optimizer is given to backward"),
    FIELD(FLAG, pgrad_plan_params, reference, 0.0, 0.0, 1.0, 0, 0, NULL,
          "a snapshot is kept and scored with"),
    FIELD(U64, pgrad_plan_params, memory_limit, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "bytes, 0: the context's"),
    FIELD(U64, pgrad_plan_params, other_bytes, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "held beside all this"),
    FIELD(FLAG, pgrad_plan_params, checkpoint, 0.0, 0.0, 1.0, 0, 0, NULL,
          "weights and moments are copied for checkpoints"),
    FIELD(U32, pgrad_plan_params, updates_per_rollout, 1.0, 0.0, 65536.0, 0, 0, NULL,
          "more than 1: with the passes that kept activations do not serve"),
};

static const pgrad__field BACKWARD_FIELDS[] = {
    FIELD(F64, pgrad_backward_params, normalizer_total, 0.0, 0.0, INFINITY, 0, 1, NULL,
          "denominator of the whole step, 0: this call's"),
    FIELD(F64, pgrad_backward_params, n_tokens_total, 0.0, 0.0, INFINITY, 0, 1, NULL,
          "learned tokens of the whole step, 0: this call's"),
    FIELD(POINTER, pgrad_backward_params, optimizer, 0.0, 0.0, 0.0, 0, 0, NULL,
          "updates tensors as their gradients are complete"),
};

static const pgrad__field OPTIMIZER_FIELDS[] = {
    FIELD(CHOICE, pgrad_optimizer_params, kind, 2.0, 0.0, 2.0, 0, 0, OPTIMIZER_KIND, "update rule"),
    FIELD(CHOICE, pgrad_optimizer_params, schedule, 0.0, 0.0, 2.0, 0, 0, OPTIMIZER_SCHEDULE,
          "curve of the learning rate"),
    FIELD(F64, pgrad_optimizer_params, learning_rate, 1e-5, 0.0, INFINITY, 0, 1, NULL, "step size"),
    FIELD(F64, pgrad_optimizer_params, beta1, 0.9, 0.0, 1.0, 0, 1, NULL,
          "decay of the first moment"),
    FIELD(F64, pgrad_optimizer_params, beta2, 0.999, 0.0, 1.0, 0, 1, NULL,
          "decay of the second moment"),
    FIELD(F64, pgrad_optimizer_params, epsilon, 1e-8, 0.0, INFINITY, 1, 1, NULL,
          "outside the root"),
    FIELD(F64, pgrad_optimizer_params, weight_decay, 0.0, 0.0, INFINITY, 0, 1, NULL,
          "decoupled for ADAMW, L2 else; vectors exempt"),
    FIELD(F64, pgrad_optimizer_params, momentum, 0.0, 0.0, 1.0, 0, 1, NULL, "SGD"),
    FIELD(F64, pgrad_optimizer_params, max_grad_norm, 1.0, 0.0, INFINITY, 1, 0, NULL,
          "global-norm clipping, infinity: none"),
    FIELD(F64, pgrad_optimizer_params, final_factor, 0.0, 0.0, 1.0, 0, 0, NULL,
          "end of the schedule"),
    FIELD(U64, pgrad_optimizer_params, warmup_steps, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "linear, from 1 / warmup_steps"),
    FIELD(U64, pgrad_optimizer_params, total_steps, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "length of the schedule"),
    FIELD(FLAG, pgrad_optimizer_params, nesterov, 0.0, 0.0, 1.0, 0, 0, NULL, "SGD"),
    FIELD(CHOICE, pgrad_optimizer_params, moments, 0.0, 0.0, 3.0, 0, 0, OPTIMIZER_MOMENTS,
          "how moments are stored"),
    FIELD(U64, pgrad_optimizer_params, seed, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "of stochastic rounding"),
};

static const pgrad__field CHECKPOINT_FIELDS[] = {
    FIELD(U32, pgrad_checkpoint_params, keep, 1.0, 1.0, 100.0, 0, 0, NULL,
          "files kept, the new one included"),
    FIELD(FLAG, pgrad_checkpoint_params, background, 0.0, 0.0, 1.0, 0, 0, NULL,
          "copied, and written by a thread"),
};

static const pgrad__field TRAIN_FIELDS[] = {
    FIELD(U64, pgrad_train_params, steps, 100.0, 1.0, 18446744073709551615.0, 0, 0, NULL,
          "optimizer steps"),
    FIELD(U32, pgrad_train_params, prompts_per_step, 8.0, 1.0, 65536.0, 0, 0, NULL, "B"),
    FIELD(U32, pgrad_train_params, group_size, 8.0, 1.0, 65536.0, 0, 0, NULL, "G"),
    FIELD(U32, pgrad_train_params, max_new_tokens, 64.0, 1.0, 16777216.0, 0, 0, NULL,
          "of one completion"),
    FIELD(U32, pgrad_train_params, epochs_per_step, 1.0, 1.0, 1024.0, 0, 0, NULL,
          "optimizer steps per rollout"),
    FIELD(F64, pgrad_train_params, learning_rate, 1e-5, 0.0, INFINITY, 0, 1, NULL,
          "of the optimizer made here"),
    FIELD(F64, pgrad_train_params, max_seconds, INFINITY, 0.0, INFINITY, 0, 0, NULL,
          "ends the run in order"),
    FIELD(F64, pgrad_train_params, target_reward, INFINITY, -INFINITY, INFINITY, 0, 0, NULL,
          "ends the run when reached"),
    FIELD(U64, pgrad_train_params, target_window, 10.0, 1.0, 1000000.0, 0, 0, NULL,
          "steps the reward is averaged over"),
    FIELD(U64, pgrad_train_params, seed, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "of prompts' order and sampler"),
    FIELD(POINTER, pgrad_train_params, sampler, 0.0, 0.0, 0.0, 0, 0, NULL, "NULL: made here"),
    FIELD(POINTER, pgrad_train_params, advantage, 0.0, 0.0, 0.0, 0, 0, NULL, "NULL: made here"),
    FIELD(POINTER, pgrad_train_params, objective, 0.0, 0.0, 0.0, 0, 0, NULL, "NULL: made here"),
    FIELD(POINTER, pgrad_train_params, optimizer, 0.0, 0.0, 0.0, 0, 0, NULL, "NULL: made here"),
    FIELD(POINTER, pgrad_train_params, reference, 0.0, 0.0, 0.0, 0, 0, NULL, "for KL"),
    FIELD(POINTER, pgrad_train_params, report, 0.0, 0.0, 0.0, 0, 0, NULL, "called after each step"),
    FIELD(POINTER, pgrad_train_params, report_user, 0.0, 0.0, 0.0, 0, 0, NULL,
          "its first argument"),
    FIELD(POINTER, pgrad_train_params, on_advantages, 0.0, 0.0, 0.0, 0, 0, NULL,
          "called before they are used"),
    FIELD(POINTER, pgrad_train_params, on_advantages_user, 0.0, 0.0, 0.0, 0, 0, NULL,
          "its first argument"),
    FIELD(POINTER, pgrad_train_params, metrics_path, 0.0, 0.0, 0.0, 0, 0, NULL, "JSON lines"),
    FIELD(POINTER, pgrad_train_params, save_path, 0.0, 0.0, 0.0, 0, 0, NULL,
          "where the model goes"),
    FIELD(U64, pgrad_train_params, save_every, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "steps, 0: at the end"),
    FIELD(POINTER, pgrad_train_params, eval_prompts, 0.0, 0.0, 0.0, 0, 0, NULL, "held out"),
    FIELD(U64, pgrad_train_params, eval_every, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "steps, 0: start and end"),
    FIELD(CHOICE, pgrad_train_params, kv_storage, 0.0, 0.0, 3.0, 0, 0, ROLLOUT_KV_STORAGE,
          "how the rollout's keys and values are kept"),
    FIELD(CHOICE, pgrad_train_params, moments, 0.0, 0.0, 3.0, 0, 0, OPTIMIZER_MOMENTS,
          "of the optimizer made here"),
    FIELD(U32, pgrad_train_params, micro_batch_tokens, 0.0, 0.0, 4294967295.0, 0, 0, NULL,
          "of the objective made here"),
    FIELD(CHOICE, pgrad_train_params, recompute, 2.0, 0.0, 2.0, 0, 0, RECOMPUTE,
          "of the objective made here"),
    FIELD(POINTER, pgrad_train_params, checkpoint_path, 0.0, 0.0, 0.0, 0, 0, NULL,
          "where the run's state goes"),
    FIELD(U64, pgrad_train_params, checkpoint_every, 0.0, 0.0, 18446744073709551615.0, 0, 0, NULL,
          "steps, 0: at the end"),
    FIELD(U32, pgrad_train_params, checkpoint_keep, 2.0, 1.0, 100.0, 0, 0, NULL, "files kept"),
    FIELD(FLAG, pgrad_train_params, checkpoint_background, 1.0, 0.0, 1.0, 0, 0, NULL,
          "written behind the steps that follow"),
    FIELD(CHOICE, pgrad_train_params, resume, 0.0, 0.0, 2.0, 0, 0, TRAIN_RESUME,
          "takes up the run at checkpoint_path"),
    FIELD(CHOICE, pgrad_train_params, keep_activations, 2.0, 0.0, 2.0, 0, 0, ROLLOUT_KEEP,
          "whether activations are kept for the backward pass"),
    FIELD(POINTER, pgrad_train_params, on_checkpoint, 0.0, 0.0, 0.0, 0, 0, NULL,
          "called before one is written"),
    FIELD(POINTER, pgrad_train_params, on_checkpoint_user, 0.0, 0.0, 0.0, 0, 0, NULL,
          "its first argument"),
};

#define TABLE(name, fields)                                                                        \
    {                                                                                              \
#name, sizeof(pgrad_##name##_params), fields, sizeof fields / sizeof fields[0]             \
    }
#define PLAIN(name)                                                                                \
    {                                                                                              \
#name, sizeof(pgrad_##name), NULL, 0                                                       \
    }

/* Option structs first; then the others, whose size is all that is asked for. */
const pgrad__params_table pgrad__params_tables[] = {
    TABLE(context, CONTEXT_FIELDS),
    TABLE(model, MODEL_FIELDS),
    TABLE(save, SAVE_FIELDS),
    TABLE(rollout, ROLLOUT_FIELDS),
    TABLE(prompt, PROMPT_FIELDS),
    TABLE(sequence, SEQUENCE_FIELDS),
    TABLE(generate, GENERATE_FIELDS),
    TABLE(sampler, SAMPLER_FIELDS),
    TABLE(advantage, ADVANTAGE_FIELDS),
    TABLE(objective, OBJECTIVE_FIELDS),
    TABLE(backward, BACKWARD_FIELDS),
    TABLE(optimizer, OPTIMIZER_FIELDS),
    TABLE(plan, PLAN_FIELDS),
    TABLE(checkpoint, CHECKPOINT_FIELDS),
    TABLE(train, TRAIN_FIELDS),
    PLAIN(context_info),
    PLAIN(model_info),
    PLAIN(sequence_info),
    PLAIN(rollout_info),
    PLAIN(memory_report),
    PLAIN(event),
    PLAIN(prompts),
    PLAIN(step_report),
    PLAIN(train_report),
    PLAIN(checkpoint_part),
    PLAIN(allocator),
    PLAIN(message),
};

const size_t pgrad__n_params_tables = sizeof pgrad__params_tables / sizeof pgrad__params_tables[0];
