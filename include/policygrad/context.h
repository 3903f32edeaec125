/* The context: threads, memory, log, progress, cancel. Everything else hangs on one.
 *
 *     pgrad_context *context = NULL;
 *     pgrad_context_create(NULL, &context);
 *     ...
 *     pgrad_context_free(context);
 *
 * Contexts share nothing: no global state, no environment variables. A context does not survive
 * fork(): in the child, calls that load, create, compute or save return E_STATE, and so do the two
 * that set its functions. Reading what a handle holds, filling a rollout, tokenizing and decoding
 * still work there, and free gives memory back. The process is left as it was: no signal handler, no
 * mask, locale, limit or floating-point mode outlives a call, nor do exception flags of floating-point
 * arithmetic.
 *
 * Callbacks run on a thread that is inside a library call made by the host, never on a worker thread.
 * They must not free or change the handle being worked on. A context's log and progress functions
 * come one at a time, also when several threads are in calls, so they must not wait for another thread
 * that is in a call of this context; they may make calls themselves, and set other functions. Every
 * callback must return: a longjmp or an exception across the library's frames leaves locks held and
 * memory lost.
 *
 * Signals: no handler is installed and no thread of the library's own takes one. A call that a signal
 * interrupts goes on, with or without SA_RESTART; pgrad_context_cancel may be called from a handler.
 *
 * Memory that runs out is E_NOMEM, that of jansson, PCRE2 and utf8proc too; the handle is as it was
 * before the call. A call takes less than 64 KiB of stack.
 *
 * Threads: safe, `create` and `free` as usual excepted. The thread pool serves one call at a time; a
 * second one at the same moment runs on its own thread alone, with the same results. */
#ifndef POLICYGRAD_CONTEXT_H
#define POLICYGRAD_CONTEXT_H

#include <policygrad/types.h>

#ifdef __cplusplus
extern "C" {
#endif

/* The host's allocator. `alloc` returns `size` bytes aligned to `alignment` (a power of two, at
 * least 64) or NULL; `free` gets the same size. A block that is not aligned is given back, and the
 * call fails with E_INVALID. Both may be called from any thread inside a library call. Outside of it
 * are what jansson and utf8proc take for the moment of a call, and the machine code that PCRE2 makes
 * of a tokenizer's regular expressions. */
typedef struct pgrad_allocator {
    void *user;
    void *(*alloc)(void *user, size_t size, size_t alignment);
    void (*free)(void *user, void *pointer, size_t size);
} pgrad_allocator;

/* Kernel sets: which BLIS micro-kernel and which build of the vector code run. All give the same
 * bits. */
enum {
    PGRAD_KERNELS_AUTO = 0,    /* the best this CPU can run */
    PGRAD_KERNELS_GENERIC = 1, /* plain C: any CPU, slow */
    PGRAD_KERNELS_HASWELL = 2, /* AVX2 and FMA */
    PGRAD_KERNELS_SKX = 3,     /* AVX-512 */
    PGRAD_KERNELS_ARMV8A = 4   /* NEON */
};

typedef struct pgrad_context_params {
    size_t struct_size;
    uint32_t n_threads;   /* 0: as many as the affinity mask and the cgroup quota allow; at most 256 */
    uint32_t kernel_set;  /* PGRAD_KERNELS_*; E_UNSUPPORTED when this CPU or this build of the library
                             (-Dblis=shared) does not have it */
    uint64_t memory_limit; /* bytes the library may hold at once, 0: no limit; E_LIMIT beyond */
    const pgrad_allocator *allocator; /* copied; NULL: aligned_alloc and free */
} pgrad_context_params;

/* Writes the size and the defaults, no more than size bytes. */
PGRAD_API void pgrad_context_params_init(pgrad_context_params *params, size_t size);

typedef struct pgrad_context_info {
    size_t struct_size;
    uint32_t n_threads;          /* threads that work inside a call, the caller's included */
    uint32_t kernel_set;         /* the one in use, never AUTO */
    const char *kernel_set_name; /* "skx"; static */
    uint64_t memory_now;         /* bytes held by this context's handles */
    uint64_t memory_peak;        /* the most since the context was created */
    uint64_t memory_limit;
    uint64_t n_allocations;      /* calls of the allocator so far */
} pgrad_context_info;

/* Log levels. */
enum { PGRAD_LOG_ERROR = 0, PGRAD_LOG_WARNING = 1, PGRAD_LOG_INFO = 2, PGRAD_LOG_DEBUG = 3 };

/* Gets one finished line of UTF-8 without a newline; valid during the call. */
typedef void (*pgrad_log_fn)(void *user, int32_t level, const char *line);

/* Told about long work: `what` names it ("load", "generate", "backward"), done of total units.
 * Returns more than zero to go on; zero or less stops the work with E_CALLBACK. */
typedef int32_t (*pgrad_progress_fn)(void *user, const char *what, uint64_t done, uint64_t total);

/* Creates a context and starts its threads. params may be NULL.
 * Errors: E_INVALID, E_UNSUPPORTED (kernel set), E_NOMEM. */
PGRAD_API pgrad_status pgrad_context_create(const pgrad_context_params *params, pgrad_context **out);

/* Drops the caller's reference; the context lives on while handles hang on it. */
PGRAD_API void pgrad_context_free(pgrad_context *context);

/* Tells kernel set, threads and memory. Set out->struct_size first; no more than that is written. */
PGRAD_API pgrad_status pgrad_context_get_info(pgrad_context *context, pgrad_context_info *out);

/* Sends log lines up to `level` to fn; NULL switches the log off, as it is at first. Waits while a
 * log or progress function runs on another thread: when it returns, the function before is done with
 * its `user`. */
PGRAD_API pgrad_status pgrad_context_set_log(pgrad_context *context, pgrad_log_fn fn, void *user,
                                             int32_t level);

/* Has long work reported to fn; NULL switches it off. Waits as pgrad_context_set_log does. */
PGRAD_API pgrad_status pgrad_context_set_progress(pgrad_context *context, pgrad_progress_fn fn,
                                                  void *user);

/* Asks all running calls of this context to return E_CANCELLED soon. May be called from any thread
 * and from a signal handler. Stays in force until cleared. */
PGRAD_API void pgrad_context_cancel(pgrad_context *context);

/* Takes pgrad_context_cancel back. */
PGRAD_API void pgrad_context_clear_cancel(pgrad_context *context);

#ifdef __cplusplus
}
#endif
#endif
