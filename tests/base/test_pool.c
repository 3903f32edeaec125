#include "base_test.h"

#include <dirent.h>
#include <malloc.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "base/context.h"
#include "base/pool.h"

enum { MAX_TASKS = 5000 };

typedef struct counts {
    pgrad_context *context;
    atomic_int times[MAX_TASKS];
    atomic_int workers[16];
    atomic_int inside, too_many;
} counts;

static void count(void *argument, size_t task, uint32_t worker)
{
    counts *c = argument;
    atomic_fetch_add(&c->times[task], 1);
    atomic_fetch_add(&c->workers[worker], 1);
}

START_TEST(every_task_runs_once)
{
    static const uint32_t threads[] = {1, 2, 3, 8};
    static counts c;
    c.context = make_context(threads[_i], 0);
    ck_assert_uint_eq(pgrad__n_workers(c.context), threads[_i] + 1);
    static const size_t sizes[] = {0, 1, 2, 7, 64, MAX_TASKS};
    for (size_t again = 0; again < 50; again++) {
        size_t n = sizes[again % 6];
        memset(c.times, 0, sizeof c.times);
        memset(c.workers, 0, sizeof c.workers);
        pgrad__parallel(c.context, n, count, &c);
        for (size_t i = 0; i < MAX_TASKS; i++)
            ck_assert_int_eq(c.times[i], i < n);
        for (uint32_t w = threads[_i]; w < 16; w++)
            ck_assert_int_eq(c.workers[w], 0);
    }
    pgrad_context_free(c.context);
}
END_TEST

/* A worker's number is in use by one thread at a time: that is what scratch is chosen by. */
typedef struct scratch_check {
    atomic_int in_use[16];
    atomic_int clashes;
} scratch_check;

static void use_scratch(void *argument, size_t task, uint32_t worker)
{
    scratch_check *s = argument;
    if (atomic_fetch_add(&s->in_use[worker], 1) != 0)
        atomic_fetch_add(&s->clashes, 1);
    for (volatile size_t i = 0; i < 200 + task % 7; i = i + 1) {
    }
    atomic_fetch_sub(&s->in_use[worker], 1);
}

START_TEST(workers_have_numbers_of_their_own)
{
    static scratch_check s;
    pgrad_context *context = make_context(8, 0);
    for (int i = 0; i < 20; i++)
        pgrad__parallel(context, 1000, use_scratch, &s);
    ck_assert_int_eq(s.clashes, 0);
    pgrad_context_free(context);
}
END_TEST

static void nest(void *argument, size_t task, uint32_t worker)
{
    counts *c = argument;
    (void)task;
    (void)worker;
    pgrad__parallel(c->context, 10, count, c);
}

START_TEST(calls_inside_tasks_run_there)
{
    static counts c;
    c.context = make_context(3, 0);
    pgrad__parallel(c.context, 40, nest, &c);
    for (size_t i = 0; i < 10; i++)
        ck_assert_int_eq(c.times[i], 40);
    pgrad_context_free(c.context);
}
END_TEST

static void *second_caller(void *argument)
{
    counts *c = argument;
    for (int i = 0; i < 200; i++)
        pgrad__parallel(c->context, 100, count, c);
    return NULL;
}

/* TH02: two threads at once; the second one works alone. */
START_TEST(th02_two_callers)
{
    static counts c;
    pthread_t threads[3];
    c.context = make_context(2, 0);
    for (int i = 0; i < 3; i++)
        ck_assert_int_eq(pthread_create(&threads[i], NULL, second_caller, &c), 0);
    for (int i = 0; i < 3; i++)
        pthread_join(threads[i], NULL);
    for (size_t i = 0; i < 100; i++)
        ck_assert_int_eq(c.times[i], 600);
    pgrad_context_free(c.context);
}
END_TEST

static void block_signals(void *argument, size_t task, uint32_t worker)
{
    atomic_int *seen = argument;
    sigset_t mask;
    (void)task;
    pthread_sigmask(SIG_SETMASK, NULL, &mask);
    if (worker != 0 && !sigismember(&mask, SIGINT))
        atomic_fetch_add(seen, 1);
}

static double cpu_seconds(void)
{
    struct timespec at;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

/* Seven workers that spin would take all of the time that the machine has. */
START_TEST(idle_workers_sleep)
{
    static counts c;
    const struct timespec rest = {.tv_nsec = 300000000};
    c.context = make_context(8, 0);
    pgrad__parallel(c.context, MAX_TASKS, count, &c);
    const double before = cpu_seconds();
    nanosleep(&rest, NULL);
    ck_assert_double_lt(cpu_seconds() - before, 0.05);
    pgrad_context_free(c.context);
}
END_TEST

START_TEST(th04_workers_block_signals)
{
    atomic_int seen = 0;
    pgrad_context *context = make_context(8, 0);
    for (int i = 0; i < 50; i++)
        pgrad__parallel(context, 100, block_signals, &seen);
    ck_assert_int_eq(seen, 0);
    pgrad_context_free(context);
}
END_TEST

/* TH06: the child of a fork is told, does not hang, and may free; the parent goes on. */
START_TEST(th06_fork)
{
    static counts c;
    c.context = make_context(3, 0);
    pgrad__parallel(c.context, 100, count, &c);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        pgrad__scope scope;
        alarm(20);
        int told = pgrad__enter(c.context, &scope) == PGRAD_E_STATE &&
                   strstr(pgrad_error_message(), "fork") != NULL;
        pgrad_context_free(c.context);
        _exit(told ? 17 : 18);
    }
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 17);
    pgrad__parallel(c.context, 100, count, &c);
    ck_assert_int_eq(c.times[99], 2);
    pgrad_context_free(c.context);
}
END_TEST

/* What a process holds. */
typedef struct held {
    long threads, descriptors, bytes;
} held;

static long count_entries(const char *path)
{
    long n = -2;
    DIR *folder = opendir(path);
    ck_assert_ptr_nonnull(folder);
    while (readdir(folder) != NULL)
        n++;
    closedir(folder);
    return n;
}

/* A thread that was joined leaves the list a moment later. */
static held measure(long threads)
{
    for (int patience = 2000; count_entries("/proc/self/task") > threads && patience > 0; patience--)
        usleep(1000);
    return (held){count_entries("/proc/self/task"), count_entries("/proc/self/fd"), (long)mallinfo2().uordblks};
}

static void come_and_go(uint32_t rounds)
{
    for (uint32_t i = 0; i < rounds; i++) {
        pgrad_context *context = make_context(1 + i % 4, 0);
        if (i % 3 == 0) {
            static counts c;
            pgrad__parallel(context, 20, count, &c);
        }
        pgrad_context_free(context);
    }
}

/* The first ones may leave what every later one uses again; then nothing is left, not a block a round. */
START_TEST(al05_contexts_come_and_go)
{
    enum { SMALLEST_BLOCK = 32 };
    const uint32_t rounds = getenv("PGRAD_TEST_LONG") != NULL ? 10000 : 300;
    const long threads = count_entries("/proc/self/task");
    come_and_go(20);
    const held before = measure(threads);
    come_and_go(rounds);
    const held after = measure(threads);
    ck_assert_int_eq(after.threads, threads);
    ck_assert_int_eq(after.descriptors, before.descriptors);
    ck_assert_int_lt(after.bytes - before.bytes, SMALLEST_BLOCK * (long)rounds);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_loop_test(tests, every_task_runs_once, 0, 4);
    tcase_add_test(tests, workers_have_numbers_of_their_own);
    tcase_add_test(tests, calls_inside_tasks_run_there);
    tcase_add_test(tests, th02_two_callers);
    tcase_add_test(tests, idle_workers_sleep);
    tcase_add_test(tests, th04_workers_block_signals);
    tcase_add_test(tests, th06_fork);
    tcase_add_test(tests, al05_contexts_come_and_go);
}

int main(void)
{
    return run_case("base/pool", NULL, NULL, 60, add);
}
