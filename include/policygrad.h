/* libpolicygrad: policy-gradient fine-tuning of language models on a CPU. This header takes in all
 * the others; read them in this order.
 *
 * A host makes handles once and then goes round in a loop, a step each time:
 *
 *     context -> model, tokenizer -> rollout, sampler, reward, advantage, objective, optimizer
 *
 *     pgrad_rollout_add_prompt, pgrad_rollout_generate         prompts become completions
 *     pgrad_reward_apply                                       each completion gets its rewards
 *     pgrad_advantage_apply                                    rewards become advantages
 *     pgrad_objective_backward                                 advantages become gradients
 *     pgrad_optimizer_step                                     gradients change the weights
 *
 * pgrad_train is that loop in one call, with data, evaluation, checkpoints and metrics. Every call
 * that may fail returns a status and leaves a message (status.h); every option has a default
 * (params.h). */
#ifndef POLICYGRAD_H
#define POLICYGRAD_H

#include <policygrad/types.h>      /* the handles and the scalar types */
#include <policygrad/version.h>    /* of the header, of the library */
#include <policygrad/status.h>     /* what a call returns, and the message */
#include <policygrad/params.h>     /* option structs by name and as text */
#include <policygrad/context.h>    /* threads, memory, log, cancelling */
#include <policygrad/model.h>      /* weights: load, save, logits, gradients */
#include <policygrad/tokenizer.h>  /* text to ids and back */
#include <policygrad/chat.h>       /* conversations to ids */
#include <policygrad/sampler.h>    /* how the next token is chosen */
#include <policygrad/rollout.h>    /* prompts, completions and their arrays */
#include <policygrad/reward.h>     /* the host's function, or one by name */
#include <policygrad/advantage.h>  /* GRPO, RLOO and the others */
#include <policygrad/metrics.h>    /* the numbers of a step */
#include <policygrad/objective.h>  /* loss and backward pass */
#include <policygrad/optimizer.h>  /* Adam, AdamW, SGD, schedules */
#include <policygrad/plan.h>       /* memory, told beforehand */
#include <policygrad/checkpoint.h> /* the state of a run in a file */
#include <policygrad/trainer.h>    /* a whole run in one call */

#endif
