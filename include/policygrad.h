/* libpolicygrad: policy-gradient fine-tuning of language models on a CPU. This header takes in all
 * the others; read them in this order. */
#ifndef POLICYGRAD_H
#define POLICYGRAD_H

#include <policygrad/types.h>
#include <policygrad/version.h>
#include <policygrad/status.h>
#include <policygrad/params.h>
#include <policygrad/context.h>
#include <policygrad/model.h>
#include <policygrad/tokenizer.h>
#include <policygrad/chat.h>
#include <policygrad/sampler.h>
#include <policygrad/rollout.h>
#include <policygrad/reward.h>
#include <policygrad/advantage.h>
#include <policygrad/metrics.h>
#include <policygrad/objective.h>
#include <policygrad/optimizer.h>
#include <policygrad/plan.h>
#include <policygrad/checkpoint.h>
#include <policygrad/trainer.h>

#endif
