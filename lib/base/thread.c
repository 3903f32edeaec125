#include "base/thread.h"

#include <pthread.h>
#include <signal.h>
#include <string.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/fail.h"
#include "base/os.h"

struct pgrad__thread {
    pthread_t thread;
    void (*fn)(void *);
    void *argument;
};

static void *run(void *argument)
{
    const struct pgrad__thread *thread = argument;
    (void)pgrad__os_float_begin();
    pgrad__os_low_priority();
    thread->fn(thread->argument);
    return NULL;
}

pgrad_status pgrad__thread_start(pgrad_context *context, void (*fn)(void *), void *argument,
                                 struct pgrad__thread **out)
{
    struct pgrad__thread *made;
    sigset_t all, old;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *made, &made));
    made->fn = fn;
    made->argument = argument;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    const int failed = pthread_create(&made->thread, NULL, run, made);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        pgrad__free(context, made);
        return pgrad__fail(PGRAD_E_LIMIT, "the system gives no thread");
    }
    *out = made;
    return PGRAD_OK;
}

int pgrad__thread_join(pgrad_context *context, struct pgrad__thread *thread)
{
    if (thread == NULL)
        return 1;
    const int ours = context->process == pgrad__os_process();
    if (ours)
        (void)pthread_join(thread->thread, NULL);
    pgrad__free(context, thread);
    return ours;
}

struct pgrad__mutex {
    pthread_mutex_t mutex;
};

pgrad_status pgrad__mutex_create(pgrad_context *context, struct pgrad__mutex **out)
{
    struct pgrad__mutex *made;
    pthread_mutexattr_t recursive;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *made, &made));
    int failed = pthread_mutexattr_init(&recursive);
    if (!failed) {
        failed = pthread_mutexattr_settype(&recursive, PTHREAD_MUTEX_RECURSIVE) != 0 ||
                 pthread_mutex_init(&made->mutex, &recursive) != 0;
        (void)pthread_mutexattr_destroy(&recursive);
    }
    if (failed) {
        pgrad__free(context, made);
        return pgrad__fail(PGRAD_E_NOMEM, "the system gives no mutex");
    }
    *out = made;
    return PGRAD_OK;
}

void pgrad__mutex_free(pgrad_context *context, struct pgrad__mutex *mutex)
{
    if (mutex != NULL && context->process == pgrad__os_process())
        (void)pthread_mutex_destroy(&mutex->mutex);
    pgrad__free(context, mutex);
}

void pgrad__mutex_lock(struct pgrad__mutex *mutex)
{
    (void)pthread_mutex_lock(&mutex->mutex);
}

void pgrad__mutex_unlock(struct pgrad__mutex *mutex)
{
    (void)pthread_mutex_unlock(&mutex->mutex);
}
