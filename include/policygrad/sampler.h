/* Logits to a token.
 *
 * The order of the steps, for a row of logits z: forbidden tokens, tokens without an entry in the
 * tokenizer and, below min_new_tokens, stop tokens get -infinity; logit bias is added; the
 * repetition penalty divides positive and multiplies negative logits of tokens seen in prompt or
 * completion (Keskar et al. 2019); z is divided by the temperature; top_k, top_p, min_p cut the
 * tail in this order; what is left is drawn from.
 *
 * A draw is a pure function of (seed, sequence number, position): Philox 4x32-10 (Salmon et al.
 * 2011), inverse CDF over blocks of 256 tokens, whose masses are those of the log-softmax, and in double
 * precision inside the block. Results do not depend on batching or threads.
 *
 * Threads: one at a time. */
#ifndef POLICYGRAD_SAMPLER_H
#define POLICYGRAD_SAMPLER_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* All pointed-to arrays are copied by pgrad_sampler_create. */
typedef struct pgrad_sampler_params {
    size_t struct_size;
    double temperature;        /* tau >= 0; 0: the largest logit (greedy). Default 1 */
    double top_p;              /* in (0, 1]: smallest set of probability >= top_p. Default 1: off */
    double min_p;              /* in [0, 1): at least min_p times the largest. Default 0: off */
    double repetition_penalty; /* > 0. Default 1: off */
    uint64_t seed;             /* default 0 */
    uint32_t top_k;            /* 0: off, the default */
    uint32_t min_new_tokens;   /* no stop before this many tokens; at most max_new_tokens where that
                                  is set. Default 0 */
    uint32_t max_new_tokens;   /* 0: what the rollout has room for, the default */
    uint32_t ignore_eos;       /* 1: the tokenizer's and model's end tokens do not stop. Default 0 */
    const pgrad_token *stop_tokens; /* end a completion beside the end tokens; count as its last token */
    size_t n_stop_tokens;
    const char *const *stop_strings; /* UTF-8, NUL-terminated, not empty: end it when its text holds one.
                                        One that begins in a forced prefix is not found */
    size_t n_stop_strings;
    const pgrad_token *forbidden_tokens; /* never sampled */
    size_t n_forbidden_tokens;
    const pgrad_token *bias_tokens; /* logit_bias[i] is added to the logit of bias_tokens[i] */
    const float *logit_bias;
    size_t n_bias_tokens;
} pgrad_sampler_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_sampler_params_init(pgrad_sampler_params *params, size_t size);

/* Creates a sampler whose next sequence is number 0. Errors: E_INVALID naming the field; E_LIMIT;
 * E_NOMEM. */
PGRAD_API pgrad_status pgrad_sampler_create(pgrad_context *context,
                                            const pgrad_sampler_params *params, pgrad_sampler **out);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_sampler_free(pgrad_sampler *sampler);

/* Picks one token from n_vocab logits as the draw (seed, sequence, position) does, without history:
 * repetition penalty and stop rules do not apply. The outputs may be NULL: logprob is the token's
 * log-softmax(z / tau), untruncated; logprob_sampled under the distribution drawn from; entropy
 * (nats) of softmax(z / tau). With temperature 0 tau counts as 1.
 * Errors: E_INVALID; E_NUMERIC (a NaN or +infinity among the logits, with its index; or no token
 * left); E_LIMIT, E_NOMEM (with more logits than before). */
PGRAD_API pgrad_status pgrad_sampler_pick(pgrad_sampler *sampler, const float *logits, size_t n_vocab,
                                          uint64_t sequence, uint64_t position, pgrad_token *token,
                                          float *logprob, float *logprob_sampled, float *entropy);

/* Gives the number the next sequence will get. It rises by one with each completion; set it to repeat
 * or to continue a run. */
PGRAD_API uint64_t pgrad_sampler_next_sequence(pgrad_sampler *sampler);

/* Sets that number. Errors: E_INVALID. */
PGRAD_API pgrad_status pgrad_sampler_set_next_sequence(pgrad_sampler *sampler, uint64_t sequence);

#ifdef __cplusplus
}
#endif
#endif
