/* Scores of completions: by the host's function, called on whole batches, or by one of the library's.
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
 * Weights must be finite. Errors: E_INVALID (two of one name, or of another context); E_LIMIT; E_NOMEM. */
PGRAD_API pgrad_status pgrad_reward_combine(pgrad_context *context, pgrad_reward *const *rewards,
                                            const double *weights, uint32_t n, pgrad_reward **out);

/* Makes a reward of the library's own by its name, with arguments as a JSON object (NULL: all defaults):
 *
 *     pgrad_reward_builtin(context, "regex", "{\"pattern\": \"^[A-Z].*[.]$\"}", &reward);
 *
 * docs/rewards.md tells names, arguments and formulas. The argument "name" is what reports call it, so
 * that one kind can be combined with itself. Any bytes are valid completions. What applying it may
 * fail with besides, naming reward and sequence: E_STATE (it reads text and the rollout has no
 * tokenizer, or the prompt's data lack the text it compares with); E_FORMAT (that text is not what it
 * must be); E_LIMIT (a pattern's limits, where the arguments ask for an error); E_CANCELLED; E_NOMEM.
 * Errors: E_INVALID (an unknown name or argument, a wrong type or range, what is no JSON: the message
 * names argument, expected and found); E_NOMEM. */
PGRAD_API pgrad_status pgrad_reward_builtin(pgrad_context *context, const char *name,
                                            const char *json_arguments, pgrad_reward **out);

/* Gives the name of builtin reward i, NULL behind the last. Threads: safe. */
PGRAD_API const char *pgrad_reward_builtin_name(uint32_t i);

/* Writes what there is to know about a builtin reward as one JSON object: "name", "report_name", "help",
 * and "arguments", a list of objects with "name", "type" (integer, number, boolean, choice, string,
 * strings), "help", either "default" or "required": true, and "choices", or "min" and "max" of a
 * number, of a string's bytes, of a list's entries. *length is the text's length without the closing
 * NUL. Errors: E_INVALID for an unknown name; E_BUFFER when capacity is at most *length, which then is
 * the length needed; nothing is written. json may be NULL when capacity is 0. Threads: safe. */
PGRAD_API pgrad_status pgrad_reward_builtin_describe(const char *name, char *json, size_t capacity,
                                                     size_t *length);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_reward_free(pgrad_reward *reward);

/* Scores all finished completions of a rollout: R_i = sum of weight * score over what applies.
 * Errors: E_STATE (no completions); E_CALLBACK (the function did not return count; the message names
 * reward and sequence); E_NUMERIC (NaN or infinite, naming reward and sequence); E_BUSY (inside a
 * callback); E_CANCELLED; those of the library's rewards: pgrad_reward_builtin. Where scoring fails the
 * rollout has no rewards. */
PGRAD_API pgrad_status pgrad_reward_apply(pgrad_reward *reward, pgrad_rollout *rollout);

#ifdef __cplusplus
}
#endif
#endif
