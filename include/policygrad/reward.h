/* The host's scoring function, called on whole batches.
 *
 *     static int32_t shorter(void *user, const pgrad_rollout *rollout, uint32_t first,
 *                            uint32_t count, pgrad_scores *scores)
 *     {
 *         float *score = pgrad_scores_data(scores);
 *         for (uint32_t i = 0; i < count; i++) {
 *             size_t length;
 *             pgrad_rollout_text(rollout, first + i, &length);
 *             score[i] = -(float)length;
 *         }
 *         return (int32_t)count;
 *     }
 *
 * Threads: one at a time. */
#ifndef POLICYGRAD_REWARD_H
#define POLICYGRAD_REWARD_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Scores completions first .. first + count - 1. Returns count for success; anything else stops the
 * step with E_CALLBACK. Zero is never success. A binding must catch its language's exceptions inside the
 * callback and return -1: what a ctypes callback returns that raised is undefined. */
typedef int32_t (*pgrad_reward_fn)(void *user, const pgrad_rollout *rollout, uint32_t first,
                                   uint32_t count, pgrad_scores *scores);

/* Gives the array to fill: count values, NaN at first. A NaN left behind is an error that names the
 * sequence. Valid during the callback. */
PGRAD_API float *pgrad_scores_data(pgrad_scores *scores);

/* Scores completion first + i token by token; n is its length. Its score is the sum; data[i] need not
 * be set. Errors: E_INVALID, E_MISMATCH (n), E_NUMERIC. */
PGRAD_API pgrad_status pgrad_scores_set_tokens(pgrad_scores *scores, uint32_t i, const float *values,
                                               size_t n);

/* Says that this reward does not apply to completion first + i: it is left out of every statistic. */
PGRAD_API void pgrad_scores_skip(pgrad_scores *scores, uint32_t i);

/* Says why the callback fails, for the message of E_CALLBACK: sequence is first + i, or UINT32_MAX
 * for none in particular. The text is copied (at most 200 bytes). */
PGRAD_API void pgrad_scores_fail(pgrad_scores *scores, uint32_t sequence, const char *text);

/* Wraps a function. name (copied, at most 40 bytes) names it in reports. destroy (may be NULL) is called
 * with user when the last reference goes. Errors: E_INVALID, E_NOMEM (destroy is then not called). */
PGRAD_API pgrad_status pgrad_reward_create(pgrad_context *context, const char *name,
                                           pgrad_reward_fn fn, void *user, void (*destroy)(void *),
                                           pgrad_reward **out);

/* Makes the weighted sum of n rewards (at most 16 plain ones in all), each reported by its name.
 * Weights must be finite. */
PGRAD_API pgrad_status pgrad_reward_combine(pgrad_context *context, pgrad_reward *const *rewards,
                                            const double *weights, uint32_t n, pgrad_reward **out);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_reward_free(pgrad_reward *reward);

/* Scores all finished completions of a rollout: R_i = sum of weight * score over what applies.
 * Errors: E_STATE (no completions); E_CALLBACK (the function did not return count; the message names
 * reward and sequence); E_NUMERIC (NaN or infinite, naming reward and sequence). On failure the
 * rollout has no rewards. */
PGRAD_API pgrad_status pgrad_reward_apply(pgrad_reward *reward, pgrad_rollout *rollout);

#ifdef __cplusplus
}
#endif
#endif
