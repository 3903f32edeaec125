/* One thread for work behind the host's back: low in priority, without signals. It runs outside of
 * any call of the host: no host function may be called from it, the allocator included. And a mutex
 * for what the host's threads share. */
#ifndef PGRAD_BASE_THREAD_H
#define PGRAD_BASE_THREAD_H

#include <policygrad/types.h>

struct pgrad__thread;

/* E_LIMIT when the system gives no thread. */
pgrad_status pgrad__thread_start(pgrad_context *context, void (*fn)(void *), void *argument,
                                 struct pgrad__thread **out);
/* Waits for its end and frees it; NULL allowed. In a forked child there is no thread to wait for: 0
 * is returned, what it was doing is not done. */
int pgrad__thread_join(pgrad_context *context, struct pgrad__thread *thread);

/* One thread at a time; the one that holds it may lock it again, and unlocks it as often. */
struct pgrad__mutex;
pgrad_status pgrad__mutex_create(pgrad_context *context, struct pgrad__mutex **out);
/* NULL allowed. In a forked child only the memory is given back: another thread may have held it.
 */
void pgrad__mutex_free(pgrad_context *context, struct pgrad__mutex *mutex);
void pgrad__mutex_lock(struct pgrad__mutex *mutex);
void pgrad__mutex_unlock(struct pgrad__mutex *mutex);

#endif
