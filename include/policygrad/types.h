/* Types every other header uses: the status, the token, the handles, the export macro.
 *
 * Handles are opaque. A function that creates one has `create` or `load` in its name and gives it
 * through a last `**out` argument, left alone on failure; `pgrad_X_free` drops it. A child holds a
 * reference on its parents, so handles may be freed in any order, and a parent also while another
 * thread is in a call with the child: who lets go last gives the memory back. A handle that is given to
 * a call must be there until the call has ended, unless its header says that it is held. NULL is
 * allowed.
 *
 * Text is UTF-8, given as pointer and length. Scalars are `double`, arrays `float`, counts `size_t`
 * or `uint32_t`, flags `uint32_t`. Structs begin with their size, have no unnamed padding and hold no
 * type that a binding through a foreign-function interface cannot mirror: no bit-fields, no unions,
 * no enums, no `long`.
 *
 * Threads: each header says which of its calls may run at once. */
#ifndef POLICYGRAD_TYPES_H
#define POLICYGRAD_TYPES_H

#include <stddef.h>
#include <stdint.h>

#if defined(__GNUC__)
#define PGRAD_API __attribute__((visibility("default")))
#else
#define PGRAD_API
#endif

#ifdef __cplusplus
extern "C" {
#endif

/* Zero for success, negative for failure: see status.h. What a host's function
 * returns is no status: where its type is declared stands what each value means. */
typedef int32_t pgrad_status;

/* A token id. Ids below zero are never tokens; -1 says "none". A model may have
 * more ids than its tokenizer has tokens; those are never sampled. */
typedef int32_t pgrad_token;

typedef struct pgrad_context pgrad_context;     /* threads, allocator, log: everything hangs on one */
typedef struct pgrad_model pgrad_model;         /* weights, gradients, forward and backward */
typedef struct pgrad_tokenizer pgrad_tokenizer; /* text to ids and back */
typedef struct pgrad_sampler pgrad_sampler;     /* logits to a token */
typedef struct pgrad_rollout pgrad_rollout;     /* a batch of prompts and completions */
typedef struct pgrad_reward pgrad_reward;       /* the host's scoring function */
typedef struct pgrad_scores pgrad_scores;       /* what a reward function fills */
typedef struct pgrad_advantage pgrad_advantage; /* rewards to advantages, keeps running baselines */
typedef struct pgrad_objective pgrad_objective; /* advantages to a loss and its gradients */
typedef struct pgrad_optimizer pgrad_optimizer; /* gradients to new weights */
typedef struct pgrad_checkpoint pgrad_checkpoint; /* the state of a run in a file */

#ifdef __cplusplus
}
#endif
#endif
