/* One job at a time. Its word `state` holds the job's number, a bit that closes it and the count of
 * workers inside: a worker joins by counting itself in while the job is open, so nobody waits for
 * one that is still asleep. Workers look for the next job for a while, since a decoded token is
 * some two hundred of them, and sleep after that. The while is a time, since a pause takes tens of
 * cycles on one CPU, more than a hundred on another, and thousands under a hypervisor. Where there
 * are more threads than CPUs a worker that looks keeps another from working: it sleeps at once. */
#include "base/pool.h"

#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>

#include "base/alloc.h"
#include "base/context.h"
#include "base/fail.h"
#include "base/os.h"

enum { SPINS_A_LOOK = 64, SPINS_BEFORE_YIELD = 2000 };
static const double SECONDS_BEFORE_SLEEP = 0.5e-3;
#define CLOSED ((uint64_t)1 << 16)
#define INSIDE (CLOSED - 1)
#define JOB ((uint64_t)1 << 17)

struct pgrad__pool {
    _Alignas(64) atomic_uint_fast64_t state;
    _Alignas(64) atomic_size_t next_task;
    _Alignas(64) size_t n_tasks;
    pgrad__task_fn fn;
    void *argument;
    atomic_flag busy;
    atomic_int stop;
    atomic_uint sleepers;
    pthread_mutex_t mutex;
    pthread_cond_t wake;
    uint32_t n_threads; /* the caller's included */
    double patience;    /* seconds that a worker looks for a job before it sleeps */
    struct worker {
        struct pgrad__pool *pool;
        pthread_t thread;
        uint32_t index;
    } workers[];
};

/* The pool this thread is working for, and as which worker: a call from inside a task runs
 * serially. */
static _Thread_local struct {
    const struct pgrad__pool *pool;
    uint32_t worker;
} current __attribute__((tls_model("initial-exec")));

static inline void pause_cpu(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#else
    __asm__ volatile("yield");
#endif
}

static void run_tasks(struct pgrad__pool *pool, uint32_t worker)
{
    for (;;) {
        size_t task = atomic_fetch_add_explicit(&pool->next_task, 1, memory_order_relaxed);
        if (task >= pool->n_tasks)
            return;
        pool->fn(pool->argument, task, worker);
    }
}

/* Sleeps until the state is not `seen` any more, or the pool stops. */
static void sleep_on(struct pgrad__pool *pool, uint64_t seen)
{
    pthread_mutex_lock(&pool->mutex);
    atomic_fetch_add(&pool->sleepers, 1);
    while (atomic_load(&pool->state) / JOB == seen / JOB && !atomic_load(&pool->stop))
        pthread_cond_wait(&pool->wake, &pool->mutex);
    atomic_fetch_sub(&pool->sleepers, 1);
    pthread_mutex_unlock(&pool->mutex);
}

/* Looks at the clock every SPINS_A_LOOK-th time; *since is when the first of `spins` was. */
static int waited_enough(const struct pgrad__pool *pool, uint32_t spins, double *since)
{
    if (spins == 0)
        *since = pgrad__os_seconds();
    return spins % SPINS_A_LOOK == SPINS_A_LOOK - 1 &&
           pgrad__os_seconds() - *since >= pool->patience;
}

static void *work(void *argument)
{
    struct worker *worker = argument;
    struct pgrad__pool *pool = worker->pool;
    (void)pgrad__os_float_begin();
    current.pool = pool;
    current.worker = worker->index;
    uint64_t seen = 0; /* the last job this worker knows of */
    double since = 0.0;
    for (uint32_t spins = 0; !atomic_load_explicit(&pool->stop, memory_order_relaxed);) {
        uint64_t state = atomic_load_explicit(&pool->state, memory_order_acquire);
        if (state / JOB != seen / JOB && !(state & CLOSED)) {
            if (!atomic_compare_exchange_weak(&pool->state, &state, state + 1))
                continue;
            run_tasks(pool, worker->index);
            atomic_fetch_sub_explicit(&pool->state, 1, memory_order_release);
            seen = state;
            spins = 0;
        } else if (waited_enough(pool, spins, &since)) {
            sleep_on(pool, state);
            spins = 0;
        } else {
            pause_cpu();
            spins++;
        }
    }
    return NULL;
}

/* Threads the host's signals never reach. Fewer than asked for is no error. */
static void start_workers(struct pgrad__pool *pool, uint32_t n_threads)
{
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    pool->n_threads = 1;
    for (uint32_t i = 1; i < n_threads; i++) {
        struct worker *worker = &pool->workers[i - 1];
        worker->pool = pool;
        worker->index = i;
        if (pthread_create(&worker->thread, NULL, work, worker) != 0)
            break;
        pool->n_threads++;
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

pgrad_status pgrad__pool_create(pgrad_context *context, uint32_t n_threads,
                                struct pgrad__pool **out)
{
    struct pgrad__pool *pool;
    PGRAD__TRY(pgrad__calloc(context, 1, sizeof *pool + n_threads * sizeof(struct worker), &pool));
    atomic_init(&pool->state, CLOSED);
    atomic_flag_clear(&pool->busy);
    if (pthread_mutex_init(&pool->mutex, NULL) != 0) {
        pgrad__free(context, pool);
        return pgrad__fail(PGRAD_E_NOMEM, "the system gives no mutex");
    }
    if (pthread_cond_init(&pool->wake, NULL) != 0) {
        pthread_mutex_destroy(&pool->mutex);
        pgrad__free(context, pool);
        return pgrad__fail(PGRAD_E_NOMEM, "the system gives no condition variable");
    }
    pool->patience = n_threads > pgrad__os_cpu_count() ? 0.0 : SECONDS_BEFORE_SLEEP;
    start_workers(pool, n_threads);
    *out = pool;
    return PGRAD_OK;
}

void pgrad__pool_free(pgrad_context *context, struct pgrad__pool *pool)
{
    if (pool == NULL)
        return;
    /* In a forked child the threads do not exist: only the memory is given back. */
    if (context->process == pgrad__os_process()) {
        pthread_mutex_lock(&pool->mutex);
        atomic_store(&pool->stop, 1);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
        for (uint32_t i = 1; i < pool->n_threads; i++)
            pthread_join(pool->workers[i - 1].thread, NULL);
        pthread_cond_destroy(&pool->wake);
        pthread_mutex_destroy(&pool->mutex);
    }
    pgrad__free(context, pool);
}

uint32_t pgrad__pool_threads(const struct pgrad__pool *pool)
{
    return pool->n_threads;
}

uint32_t pgrad__n_workers(const pgrad_context *context)
{
    return context->pool->n_threads + 1;
}

static void run_alone(size_t n_tasks, pgrad__task_fn fn, void *argument, uint32_t worker)
{
    for (size_t task = 0; task < n_tasks; task++)
        fn(argument, task, worker);
}

static void publish(struct pgrad__pool *pool, size_t n_tasks, pgrad__task_fn fn, void *argument)
{
    pool->n_tasks = n_tasks;
    pool->fn = fn;
    pool->argument = argument;
    atomic_store_explicit(&pool->next_task, 0, memory_order_relaxed);
    uint64_t job = atomic_load_explicit(&pool->state, memory_order_relaxed) / JOB + 1;
    atomic_store(&pool->state, job * JOB);
    if (atomic_load(&pool->sleepers) > 0) {
        pthread_mutex_lock(&pool->mutex);
        pthread_cond_broadcast(&pool->wake);
        pthread_mutex_unlock(&pool->mutex);
    }
}

/* Closes the job to those who have not joined and waits for those inside. */
static void finish(struct pgrad__pool *pool)
{
    uint64_t state = atomic_fetch_or(&pool->state, CLOSED);
    for (uint32_t spins = 0; (state & INSIDE) != 0; spins++) {
        if (spins < SPINS_BEFORE_YIELD)
            pause_cpu();
        else
            sched_yield();
        state = atomic_load_explicit(&pool->state, memory_order_acquire);
    }
}

void pgrad__parallel(pgrad_context *context, size_t n_tasks, pgrad__task_fn fn, void *argument)
{
    struct pgrad__pool *pool = context->pool;
    if (current.pool == pool) {
        run_alone(n_tasks, fn, argument, current.worker);
        return;
    }
    if (atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire)) {
        run_alone(n_tasks, fn, argument, pool->n_threads);
        return;
    }
    const struct pgrad__pool *outer = current.pool; /* a task of another context */
    uint32_t outer_worker = current.worker;
    current.pool = pool;
    current.worker = 0;
    if (pool->n_threads == 1 || n_tasks == 1) {
        run_alone(n_tasks, fn, argument, 0);
    } else {
        publish(pool, n_tasks, fn, argument);
        run_tasks(pool, 0);
        finish(pool);
    }
    current.pool = outer;
    current.worker = outer_worker;
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}
