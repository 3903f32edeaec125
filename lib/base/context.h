/* What the library sees of a context. The public calls are in context.c, but for its creation,
 * which is in lib/kernel. */
#ifndef PGRAD_BASE_CONTEXT_H
#define PGRAD_BASE_CONTEXT_H

#include <stdatomic.h>

#include <policygrad/context.h>

struct pgrad__pool;
struct pgrad__mutex;
struct pgrad__kernels;

struct pgrad_context {
    atomic_uint references;
    atomic_int cancelled;
    int64_t process; /* id of the process that created it: a fork is told */
    pgrad_allocator allocator;
    uint64_t memory_limit;
    atomic_uint_fast64_t memory_now, memory_peak, n_allocations;
    uint32_t kernel_set;                            /* PGRAD_KERNELS_*, resolved at creation */
    uint32_t kernel_set_asked;                      /* or AUTO */
    _Atomic(const struct pgrad__kernels *) kernels; /* set by lib/kernel at first use */
    struct pgrad__pool *pool;
    struct pgrad__mutex *callbacks; /* held while one of these runs or is changed */
    pgrad_log_fn log;
    void *log_user;
    int32_t log_level;
    pgrad_progress_fn progress;
    void *progress_user;
};

/* All of pgrad_context_create but the choice of the kernel set: that is in lib/kernel, which alone
 * knows what BLIS has. params are complete and checked. */
pgrad_status pgrad__context_create(const pgrad_context_params *params, uint32_t kernel_set,
                                   pgrad_context **out);

void pgrad__context_retain(pgrad_context *context);

extern const char *const pgrad__kernel_set_names[]; /* by PGRAD_KERNELS_*, NULL behind them */

/* Begins a public call that works: E_INVALID for NULL, E_STATE after a fork; sets the default
 * floating-point state. The end restores the caller's. */
typedef struct pgrad__scope {
    uint64_t float_state;
} pgrad__scope;
pgrad_status pgrad__enter(pgrad_context *context, pgrad__scope *scope);
void pgrad__leave(const pgrad__scope *scope);

/* E_CANCELLED when cancel was asked for. */
pgrad_status pgrad__check_cancel(pgrad_context *context);

/* Tells the progress function, then checks cancel: E_CALLBACK or E_CANCELLED. Only on the host's
 * thread. */
pgrad_status pgrad__progress(pgrad_context *context, const char *what, uint64_t done,
                             uint64_t total);

/* Only on the host's thread. */
void pgrad__log_line(pgrad_context *context, int32_t level, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Many readers or one writer, without waiting: E_BUSY on a clash. */
typedef struct pgrad__lock {
    atomic_int state; /* readers, or -1 */
} pgrad__lock;
pgrad_status pgrad__lock_read(pgrad__lock *lock, const char *what);
pgrad_status pgrad__lock_write(pgrad__lock *lock, const char *what);
void pgrad__unlock_read(pgrad__lock *lock);
void pgrad__unlock_write(pgrad__lock *lock);

#endif
