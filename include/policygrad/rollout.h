/* A batch of prompts and their completions, and every array that belongs to a completion.
 *
 *     pgrad_rollout_create(model, tokenizer, &params, &rollout);
 *     for each step:
 *         pgrad_rollout_clear(rollout);
 *         pgrad_rollout_add_prompt(rollout, ids, n, NULL, &group);   (once per prompt)
 *         pgrad_rollout_generate(rollout, sampler, NULL);
 *         pgrad_reward_apply(reward, rollout);
 *         pgrad_advantage_apply(advantage, rollout);
 *         ...
 *
 * A prompt makes a group: group_size completions, numbered group by group. A completion's arrays have
 * one value per completion token, REWARDS and ADVANTAGES per sequence included (they are spread).
 *
 * Pointers given out are valid until the next non-const call on the rollout. Those to a completion's
 * ids and arrays point to memory of the rollout's own, taken once: what stands there changes with such a
 * call, but it may be read as long as the rollout lives, which is what a binding's views need.
 *
 * From inside a callback of generate, score or a reward, calls that would change the rollout return
 * E_BUSY, and clear does nothing.
 *
 * Threads: one at a time; const calls may run in parallel. */
#ifndef POLICYGRAD_ROLLOUT_H
#define POLICYGRAD_ROLLOUT_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

typedef struct pgrad_rollout_params {
    size_t struct_size;
    uint32_t group_size;        /* G: completions per prompt, default 8 */
    uint32_t max_prompts;       /* B: prompts at once, default 8 */
    uint32_t max_prompt_tokens; /* default 256; never more than the model's context */
    uint32_t max_new_tokens;    /* default 64; likewise */
    uint32_t batch_size;        /* sequences decoded at once; 0: all of them, at most 64 */
    uint32_t prefix_cache_tokens; /* room of the key-value cache beyond what decoding may need, for
                                     the beginnings of earlier sequences; default 0: what decoding
                                     does not need at the moment keeps them too */
    uint32_t kv_storage;          /* PGRAD_KV_*, default F32 */
    uint32_t keep_activations;    /* PGRAD_KEEP_*, default AUTO */
} pgrad_rollout_params;

/* How generate keeps keys and values. F16 and BF16 take half the memory: they are rounded to nearest
 * even as they are stored, and all is computed in f32 from the rounded ones. What is sampled still does
 * not depend on batch, threads, kernel set or kept pages, but LOGPROBS are no longer the bits that
 * scoring and training compute from f32 keys and values: on SmolLM2-135M they differ by 6e-4 on average
 * and 0.024 at most with F16, by 5e-3 and 0.097 with BF16, and so does the importance ratio of an
 * on-policy step from 1. Scoring the same weights as PGRAD_OLD makes it exactly 1 again. A key or value of
 * 65520 or more is infinite in F16, and generate fails with E_NUMERIC when that reaches the logits. */
enum {
    PGRAD_KV_F32 = 0,
    PGRAD_KV_F16 = 1,
    PGRAD_KV_BF16 = 2,
    PGRAD_KV_AUTO = 3 /* F16 where a plan under a memory limit says so (plan.h), else F32 */
};

/* Whether generate keeps what each token leaves in every layer until pgrad_objective_backward, which then
 * computes nothing forward but the head: about a quarter less time for that call, the same bits. It
 * serves for completions generated with the very weights that are trained, the first update after
 * generate; whatever else comes is computed as ever. Memory for it is taken as tokens come, used again by
 * the next generate, given back with the rollout, and told by pgrad_rollout_get_info: on SmolLM2-135M
 * 0.7 MB a token of prompts and completions, where the objective takes that much less for its micro-batches
 * as long as no other update comes. Prompts of a call that begin alike share it too, page by page; what
 * earlier calls have left in the cache is computed again then.
 *
 * AUTO: while an objective of the model is there that keeps activations itself (objective.recompute is not
 * in force), without a memory limit of the context, with prefix_cache_tokens 0, and where prompts and
 * completions of full length would take no more than 2 GiB. A refusal of this memory is no error then:
 * nothing is kept. ON always keeps, and a refusal is one: E_LIMIT, E_NOMEM. With a narrow kv_storage AUTO is
 * OFF, and ON is E_INVALID: the bits would be others. OFF is for rollouts nobody trains on, such as those of
 * an evaluation. */
enum { PGRAD_KEEP_OFF = 0, PGRAD_KEEP_ON = 1, PGRAD_KEEP_AUTO = 2 };

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_rollout_params_init(pgrad_rollout_params *params, size_t size);

typedef struct pgrad_prompt_params {
    size_t struct_size;
    uint64_t tag;                /* the host's, given back in pgrad_sequence_info */
    const pgrad_token *prefix;   /* forced first tokens of every completion: not sampled, not learned */
    size_t n_prefix;
} pgrad_prompt_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_prompt_params_init(pgrad_prompt_params *params, size_t size);

typedef struct pgrad_sequence_params {
    size_t struct_size;
    double temperature; /* tau of its log-probabilities, default 1; > 0 */
    uint32_t finish;    /* PGRAD_FINISH_*: what ended it, default STOP */
    uint32_t reserved;
} pgrad_sequence_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_sequence_params_init(pgrad_sequence_params *params, size_t size);

/* Why a completion ended. */
enum {
    PGRAD_FINISH_NONE = 0,   /* it did not: stopped by cancel or deadline; left out of everything */
    PGRAD_FINISH_STOP = 1,   /* an end token or a stop token */
    PGRAD_FINISH_STRING = 2, /* a stop string */
    PGRAD_FINISH_LENGTH = 3  /* max_new_tokens, or the end of the model's context */
};

typedef struct pgrad_sequence_info {
    size_t struct_size;
    uint32_t group;
    uint32_t finish;        /* PGRAD_FINISH_* */
    uint32_t n_prompt;      /* prompt tokens */
    uint32_t n_tokens;      /* completion tokens, the end token included */
    uint64_t tag;
    uint64_t sequence;      /* the sampler's number of it */
    double temperature;     /* tau of its log-probabilities */
    double reward;          /* weighted total of the sequence; NaN: not scored, or not applicable */
    uint32_t sampled;       /* 1: generated here, 0: added */
    uint32_t reserved;
} pgrad_sequence_info;

/* The arrays of a completion. */
enum {
    PGRAD_LOGPROBS = 0,         /* log-softmax(z / tau) of each token when it was sampled */
    PGRAD_LOGPROBS_SAMPLED = 1, /* under the truncated, biased distribution it was drawn from */
    PGRAD_CURRENT = 2,          /* log-probabilities under a model, by pgrad_rollout_score */
    PGRAD_OLD = 3,              /* those the ratio is taken to; LOGPROBS unless scored or set */
    PGRAD_REFERENCE = 4,        /* those of the reference policy, for KL */
    PGRAD_ENTROPY = 5,          /* of softmax(z / tau), nats, when sampled or scored as CURRENT */
    PGRAD_REWARDS = 6,          /* per token; a sequence's reward stands on its last token */
    PGRAD_ADVANTAGES = 7,
    PGRAD_MASK = 8              /* 1: learned from, 0: not (forced prefix) */
};

/* Told what happens during generate. */
enum { PGRAD_EVENT_TOKEN = 1, PGRAD_EVENT_FINISHED = 2 };
typedef struct pgrad_event {
    size_t struct_size;
    uint32_t kind;     /* PGRAD_EVENT_* */
    uint32_t sequence; /* its index in the rollout */
    pgrad_token token; /* EVENT_TOKEN: the new token; FINISHED: -1 */
    float logprob;     /* as PGRAD_LOGPROBS; FINISHED: NaN */
    const char *text;  /* EVENT_TOKEN: characters completed by it, may be empty; FINISHED: the whole;
                          valid during the call */
    size_t length;     /* bytes of text */
} pgrad_event;

/* Returns more than zero to go on; zero or less stops with E_CALLBACK. */
typedef int32_t (*pgrad_event_fn)(void *user, const pgrad_rollout *rollout,
                                  const pgrad_event *event);

typedef struct pgrad_generate_params {
    size_t struct_size;
    pgrad_event_fn event; /* NULL: none */
    void *user;
    double max_seconds; /* stop in order after this, finished sequences kept; infinity: the default */
    uint32_t speculate; /* PGRAD_SPECULATE_*; the same tokens, with the same bits, either way */
    uint32_t reserved;
} pgrad_generate_params;

/* Drafts from the sequence itself: where its last tokens came before, those that followed them there
 * are computed together with the next one, and kept as far as sampling draws just them. */
enum {
    PGRAD_SPECULATE_OFF = 0,
    PGRAD_SPECULATE_ON = 1,  /* wherever there is a draft */
    PGRAD_SPECULATE_AUTO = 2 /* while enough come true in all sequences under way; the default */
};

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_generate_params_init(pgrad_generate_params *params, size_t size);

/* Creates a rollout for a model and takes all its memory. tokenizer may be NULL: then there is no
 * text, and every id of the vocabulary may be sampled.
 * Errors: E_INVALID; E_MISMATCH (the tokenizer has more ids than the model); E_LIMIT; E_NOMEM. */
PGRAD_API pgrad_status pgrad_rollout_create(pgrad_model *model, pgrad_tokenizer *tokenizer,
                                            const pgrad_rollout_params *params, pgrad_rollout **out);

/* Takes a reference more for the caller, who drops it with pgrad_rollout_free, and gives the rollout back:
 * for who wants to keep what a callback was shown, one of pgrad_train say, which otherwise goes when that
 * returns. NULL is allowed. Threads: safe. */
PGRAD_API pgrad_rollout *pgrad_rollout_retain(const pgrad_rollout *rollout);

/* Drops the caller's reference. NULL is allowed. */
PGRAD_API void pgrad_rollout_free(pgrad_rollout *rollout);

/* Forgets prompts and completions, keeps the memory. */
PGRAD_API void pgrad_rollout_clear(pgrad_rollout *rollout);

/* Adds a prompt of n ids (at least one) and makes its group; *group (may be NULL) is its number.
 * Errors: E_INVALID (an id outside the vocabulary, with its index; an empty prompt); E_LIMIT
 * (max_prompts; more tokens than max_prompt_tokens or the context, with both numbers); E_BUSY;
 * E_NOMEM. */
PGRAD_API pgrad_status pgrad_rollout_add_prompt(pgrad_rollout *rollout, const pgrad_token *ids,
                                                size_t n, const pgrad_prompt_params *params,
                                                uint32_t *group);

/* Keeps a text with a group under a key (an answer, any column of the data) for reward functions.
 * Copied; a key set twice keeps the later text. Errors: E_INVALID (no such group), E_BUSY, E_LIMIT,
 * E_NOMEM. */
PGRAD_API pgrad_status pgrad_rollout_set_data(pgrad_rollout *rollout, uint32_t group, const char *key,
                                              const char *text, size_t length);

/* Generates group_size completions for every prompt that has none. A prompt is computed once for its
 * group, and the beginning it shares with another prompt, or with an earlier prompt and its
 * completion, in whole pages of 64 tokens, once for all of them: as long as the weights stay the same
 * and the cache has room, also over calls. The model must not change meanwhile. Reports progress as
 * "generate" in tokens.
 * Errors: E_STATE (no prompt); E_INVALID (a token of the sampler's lists outside the vocabulary; stop
 * strings without a tokenizer); E_NUMERIC (logits not finite, with sequence and position); E_BUSY;
 * E_LIMIT, E_NOMEM: the rollout is as it was.
 * E_CANCELLED, E_CALLBACK, E_DEADLINE: finished completions are kept, the others have
 * PGRAD_FINISH_NONE. */
PGRAD_API pgrad_status pgrad_rollout_generate(pgrad_rollout *rollout, pgrad_sampler *sampler,
                                              const pgrad_generate_params *params);

/* What the last call of generate did. */
typedef struct pgrad_rollout_info {
    size_t struct_size;
    uint64_t prompt_tokens_computed; /* prompt tokens that went through the model */
    uint64_t prompt_tokens_reused;   /* whose keys and values were there already */
    uint64_t drafted_tokens;         /* drafts that went through the model beside the next token */
    uint64_t accepted_tokens;        /* of them: those that came true, each a pass saved */
    uint64_t kept_tokens;            /* positions in the cache that a later prompt can begin with */
    uint64_t cache_bytes;            /* memory of the key-value cache */
    uint64_t activation_bytes;       /* memory of kept activations */
} pgrad_rollout_info;

/* Tells what the last call of generate did. Set out->struct_size first. Errors: E_INVALID. */
PGRAD_API pgrad_status pgrad_rollout_get_info(const pgrad_rollout *rollout, pgrad_rollout_info *out);

/* Adds a completion that was not sampled here (supervised, replayed) to a group. It counts against
 * group_size. Rewards of pgrad_reward_apply are gone with it, as with pgrad_rollout_generate; those
 * that the host has set stay. Errors: E_INVALID; E_LIMIT (group_size, max_new_tokens or the context);
 * E_BUSY; E_NOMEM. */
PGRAD_API pgrad_status pgrad_rollout_add_sequence(pgrad_rollout *rollout, uint32_t group,
                                                  const pgrad_token *ids, size_t n,
                                                  const pgrad_sequence_params *params);

/* Computes log-probabilities of all completions under a model, with each sequence's own tau, into
 * PGRAD_CURRENT, PGRAD_OLD or PGRAD_REFERENCE. For completions sampled from the same weights CURRENT
 * has the bits of LOGPROBS (where kv_storage is F32).
 * Errors: E_INVALID; E_MISMATCH (another vocabulary; a completion longer than the model's context);
 * E_STATE (no completions); E_NUMERIC; E_BUSY; E_LIMIT; E_NOMEM; E_CANCELLED, E_CALLBACK: the arrays
 * stay as they were. */
PGRAD_API pgrad_status pgrad_rollout_score(pgrad_rollout *rollout, pgrad_model *model, uint32_t which);

/* Counts the completions. */
PGRAD_API uint32_t pgrad_rollout_count(const pgrad_rollout *rollout);

/* Counts the prompts. */
PGRAD_API uint32_t pgrad_rollout_count_groups(const pgrad_rollout *rollout);

/* Tells about completion i. Set out->struct_size first. Errors: E_INVALID. */
PGRAD_API pgrad_status pgrad_rollout_sequence(const pgrad_rollout *rollout, uint32_t i,
                                              pgrad_sequence_info *out);

/* Gives the ids of completion i, NULL for a wrong index. */
PGRAD_API const pgrad_token *pgrad_rollout_tokens(const pgrad_rollout *rollout, uint32_t i, size_t *n);

/* Gives the ids of a group's prompt, NULL for a wrong index. */
PGRAD_API const pgrad_token *pgrad_rollout_prompt(const pgrad_rollout *rollout, uint32_t group,
                                                  size_t *n);

/* Gives the text of completion i, without end token and stop string, closed by a NUL; NULL for a wrong
 * index or without a tokenizer. */
PGRAD_API const char *pgrad_rollout_text(const pgrad_rollout *rollout, uint32_t i, size_t *length);

/* Gives the text kept under a key, NULL when there is none. */
PGRAD_API const char *pgrad_rollout_data(const pgrad_rollout *rollout, uint32_t group, const char *key,
                                         size_t *length);

/* Gives an array (PGRAD_LOGPROBS ...) of completion i; NULL when it was not filled, or for a wrong
 * index. */
PGRAD_API const float *pgrad_rollout_array(const pgrad_rollout *rollout, uint32_t which, uint32_t i,
                                           size_t *n);

/* Sets an array: REWARDS, ADVANTAGES, OLD, REFERENCE, MASK; for hosts with an estimator of their own,
 * and for controls. n is the completion's length, or 1 to give every token the same value (for
 * REWARDS: the sequence's reward).
 * Errors: E_INVALID (a mask must be 0 or 1), E_MISMATCH (n), E_NUMERIC (NaN, or infinite, with its
 * index), E_BUSY. */
PGRAD_API pgrad_status pgrad_rollout_set_array(pgrad_rollout *rollout, uint32_t which, uint32_t i,
                                               const float *values, size_t n);

#ifdef __cplusplus
}
#endif
#endif
