/* The thread pool of a context. Work is split by output: a task's result depends on its index
 * alone, never on which thread runs it or how many there are. */
#ifndef PGRAD_BASE_POOL_H
#define PGRAD_BASE_POOL_H

#include <policygrad/types.h>

struct pgrad__pool;

/* worker is below pgrad__n_workers: use it to choose scratch, nothing else. */
typedef void (*pgrad__task_fn)(void *argument, size_t task, uint32_t worker);

/* n_threads counts the caller's thread. Fewer are started when the system refuses some. */
pgrad_status pgrad__pool_create(pgrad_context *context, uint32_t n_threads,
                                struct pgrad__pool **out);
void pgrad__pool_free(pgrad_context *context, struct pgrad__pool *pool);
uint32_t pgrad__pool_threads(const struct pgrad__pool *pool);

/* Runs tasks 0 .. n_tasks - 1 and returns when all are done. Tasks are taken in ascending order. A
 * second call at the same moment runs on its own thread alone, as worker n_threads. A call from
 * inside a task runs on that thread, as its worker. Nothing is allocated. */
void pgrad__parallel(pgrad_context *context, size_t n_tasks, pgrad__task_fn fn, void *argument);

/* Workers that scratch must be ready for: n_threads, and one for a call that runs alone. */
uint32_t pgrad__n_workers(const pgrad_context *context);

#endif
