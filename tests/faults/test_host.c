/* What else goes on in the host's process: signals, other threads, a context each or one for two, small stacks, no
 * threads to be had, an exit in the middle, floating-point traps. All of it changes no bit of any result. */
#include "sweep.h"

#include <dlfcn.h>
#include <errno.h>
#include <fenv.h>
#include <pthread.h>
#include <signal.h>
#include <sys/time.h>
#include <sys/wait.h>

/* Nothing here is about what a disk has. */
int fsync(int descriptor)
{
    (void)descriptor;
    return 0;
}

static stage s;
static uint64_t results[N_SCENARIOS];

static void setup(void)
{
    open_stage(&s, NULL, 2);
    for (int i = 0; i < N_SCENARIOS; i++)
        results[i] = undisturbed(&s, &SCENARIOS[i]);
}

static void teardown(void)
{
    close_stage(&s);
}

/* The row's calls have been made: with this status, and the result of all others. */
static void is_undisturbed(int row, pgrad_status status)
{
    ck_assert_msg(status == PGRAD_OK, "%s: %s: %s", SCENARIOS[row].name, pgrad_status_name(status),
                  pgrad_error_message());
    ck_assert_msg(SCENARIOS[row].result(&s) == results[row], "%s: another result", SCENARIOS[row].name);
    clear_stage(&s);
}

/* ---- signals ---- */

static pthread_t main_thread;
static volatile sig_atomic_t n_signals, n_elsewhere;

static void count_signal(int number)
{
    (void)number;
    n_signals = n_signals + 1;
    if (!pthread_equal(pthread_self(), main_thread))
        n_elsewhere = n_elsewhere + 1;
}

static void every(long microseconds)
{
    const struct itimerval timer = {{0, microseconds}, {0, microseconds}};
    ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
}

static void on_alarm(void (*handler)(int))
{
    struct sigaction action = {.sa_handler = handler}; /* without SA_RESTART */
    ck_assert_int_eq(sigaction(SIGALRM, &action, NULL), 0);
}

/* A signal every fifth of a millisecond, in each of the calls. */
START_TEST(th04_storm_of_signals)
{
    enum { MOST = 1000 };
    main_thread = pthread_self();
    on_alarm(count_signal);
    for (int row = 0; row < N_SCENARIOS; row++) {
        n_signals = 0;
        for (int round = 0; round < MOST && (round < 3 || n_signals < 10); round++) {
            SCENARIOS[row].begin(&s);
            every(200);
            pgrad_status status = SCENARIOS[row].run(&s);
            every(0);
            is_undisturbed(row, status);
        }
    }
    on_alarm(SIG_DFL);
    ck_assert_int_gt(n_signals, 0);
    ck_assert_int_eq(n_elsewhere, 0);
}
END_TEST

static void cancel(int number)
{
    (void)number;
    pgrad_context_cancel(s.w.context);
}

/* The n-th of some moments in a call, the last one behind its end. */
static long moment(int n, int of, double seconds)
{
    return 1 + (long)(1.2e6 * seconds * (double)n / (double)of);
}

static double seconds_now(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

/* E_CANCELLED with what was there whole; then a new beginning, of a run from its checkpoint, ends as ever. */
START_TEST(th05_cancelled_at_any_moment)
{
    const int moments = getenv("PGRAD_TEST_SHORT") != NULL ? 15 : 60;
    int n_cancelled = 0;
    on_alarm(cancel);
    for (int row = 0; row < N_SCENARIOS; row++) {
        const scenario *c = &SCENARIOS[row];
        const int train_row = c->restart != NULL;
        c->begin(&s);
        const double before = seconds_now();
        OK(c->run(&s));
        const double seconds = seconds_now() - before;
        clear_stage(&s);
        for (int n = 0; n < (train_row ? moments : 10); n++) {
            const struct itimerval timer = {{0, 0}, {0, moment(n, train_row ? moments : 10, seconds)}};
            c->begin(&s);
            const uint64_t old = c->target == NULL ? 0 : digest_of_target(&s, c->target);
            ck_assert_int_eq(setitimer(ITIMER_REAL, &timer, NULL), 0);
            pgrad_status status = c->run(&s);
            every(0);
            pgrad_context_clear_cancel(s.w.context);
            if (status != PGRAD_OK) {
                n_cancelled++;
                ck_assert_msg(status == PGRAD_E_CANCELLED, "%s: %s: %s", c->name, pgrad_status_name(status),
                              pgrad_error_message());
                all_is_whole(&s, c, old, results[row], c->name);
                if (!train_row)
                    clear_stage(&s);
                (train_row ? c->restart : c->begin)(&s);
                status = c->run(&s);
            }
            is_undisturbed(row, status);
        }
    }
    on_alarm(SIG_DFL);
    ck_assert_int_gt(n_cancelled, 5);
}
END_TEST

/* ---- threads ---- */

typedef struct caller {
    stage *stage;
    const scenario *scenario;
    pgrad_status status;
    pthread_t thread;
} caller;

static void *call(void *argument)
{
    caller *c = argument;
    c->status = c->scenario->run(c->stage);
    return NULL;
}

/* Two contexts, each with threads of its own, in two threads of the host. */
START_TEST(th01_two_contexts)
{
    static stage other;
    static uint64_t others[N_SCENARIOS];
    open_stage(&other, NULL, 3);
    for (int i = 0; i < N_SCENARIOS; i++) {
        others[i] = undisturbed(&other, &SCENARIOS[i]);
        ck_assert_uint_eq(others[i], results[i]);
    }
    for (int i = 0; i < 2 * N_SCENARIOS; i++) {
        const int rows[2] = {i % N_SCENARIOS, (7 * i + i / N_SCENARIOS) % N_SCENARIOS};
        caller callers[2] = {{.stage = &s}, {.stage = &other}};
        for (int k = 0; k < 2; k++) {
            callers[k].scenario = &SCENARIOS[rows[k]];
            callers[k].scenario->begin(callers[k].stage);
        }
        for (int k = 0; k < 2; k++)
            ck_assert_int_eq(pthread_create(&callers[k].thread, NULL, call, &callers[k]), 0);
        for (int k = 0; k < 2; k++)
            pthread_join(callers[k].thread, NULL);
        is_undisturbed(rows[0], callers[0].status);
        ck_assert_int_eq(callers[1].status, PGRAD_OK);
        ck_assert_uint_eq(callers[1].scenario->result(&other), others[rows[1]]);
        clear_stage(&other);
    }
    close_stage(&other);
}
END_TEST

enum { READERS = 3, LENGTH = 40 };
typedef struct reader {
    pthread_t thread;
    pgrad_status status;
    float logits[N_VOCAB];
    pgrad_token ids[64];
    size_t n;
} reader;

static void *read_model(void *argument)
{
    static const char TEXT[] = "he said: hello, he";
    reader *r = argument;
    pgrad_token ids[LENGTH];
    for (int i = 0; i < LENGTH; i++)
        ids[i] = (pgrad_token)(7 * i % 256);
    for (int round = 0; round < 20 && r->status == PGRAD_OK; round++) {
        r->status = pgrad_model_logits(s.w.model, ids, LENGTH, PGRAD_LOGITS_LAST, r->logits, N_VOCAB);
        if (r->status == PGRAD_OK)
            r->status = pgrad_tokenizer_encode(s.w.tokenizer, TEXT, sizeof TEXT - 1, 0, r->ids, 64, &r->n);
    }
    return NULL;
}

/* One context, model and tokenizer, read by several threads. */
START_TEST(th01_a_model_for_all)
{
    static reader readers[READERS + 1];
    (void)read_model(&readers[READERS]);
    OK(readers[READERS].status);
    for (int i = 0; i < READERS; i++)
        ck_assert_int_eq(pthread_create(&readers[i].thread, NULL, read_model, &readers[i]), 0);
    for (int i = 0; i < READERS; i++)
        pthread_join(readers[i].thread, NULL);
    for (int i = 0; i < READERS; i++) {
        ck_assert_int_eq(readers[i].status, PGRAD_OK);
        ck_assert_mem_eq(readers[i].logits, readers[READERS].logits, sizeof readers[i].logits);
        ck_assert_uint_eq(readers[i].n, readers[READERS].n);
        ck_assert_mem_eq(readers[i].ids, readers[READERS].ids, readers[i].n * sizeof(pgrad_token));
    }
}
END_TEST

enum { WRITES = 200 };

static void *write_model(void *argument)
{
    static const float VALUES[16] = {1.0f};
    pgrad_status *status = argument;
    for (int i = 0; i < WRITES && *status == PGRAD_OK; i++)
        *status = pgrad_model_tensor_write(s.w.model, "model.norm.weight", VALUES, 16);
    return NULL;
}

/* A model says what it is while another thread changes it: never E_BUSY, never a race. */
START_TEST(th01_a_model_that_changes_tells_its_version)
{
    pgrad_model_info info = {.struct_size = sizeof info};
    pgrad_status status = PGRAD_OK;
    pthread_t thread;
    OK(pgrad_model_get_info(s.w.model, &info));
    const uint64_t first = info.weight_version;
    ck_assert_int_eq(pthread_create(&thread, NULL, write_model, &status), 0);
    for (int i = 0; i < 10 * WRITES; i++) {
        const uint64_t before = info.weight_version;
        OK(pgrad_model_get_info(s.w.model, &info));
        ck_assert_uint_ge(info.weight_version, before);
    }
    pthread_join(thread, NULL);
    OK(status);
    OK(pgrad_model_get_info(s.w.model, &info));
    ck_assert_uint_eq(info.weight_version, first + WRITES);
}
END_TEST

/* ---- handles that go while another thread works ---- */

/* What is alive of the host's allocator, from any thread. */
static atomic_long alive;

static void *count_alloc(void *user, size_t size, size_t alignment)
{
    (void)user;
    atomic_fetch_add(&alive, 1);
    return aligned_alloc(alignment, size);
}

static void count_free(void *user, void *pointer, size_t size)
{
    (void)user, (void)size;
    atomic_fetch_sub(&alive, 1);
    free(pointer);
}

static const pgrad_allocator COUNTED = {NULL, count_alloc, count_free};

/* A thread's work, and what it is made with. */
typedef struct work {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_reward *reward;
    pgrad_sampler *sampler;
    pgrad_rollout *rollout;
    atomic_int done; /* pieces of it */
    pgrad_status status;
    uint64_t digest;
} work;

enum { PIECES = 8 };

static void begin_work(work *w)
{
    pgrad_context_params context;
    pgrad_rollout_params rollout;
    memset(w, 0, sizeof *w);
    pgrad_context_params_init(&context, sizeof context);
    context.n_threads = 3;
    context.allocator = &COUNTED;
    OK(pgrad_context_create(&context, &w->context));
    OK(pgrad_model_load(w->context, in_stage(&s, "model"), NULL, &w->model));
    OK(pgrad_tokenizer_load(w->context, in_stage(&s, "model"), &w->tokenizer));
    OK(pgrad_reward_builtin(w->context, "length", "{\"target\":3}", &w->reward));
    w->sampler = make_sampler(w->context, NULL);
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    rollout.group_size = STAGE_GROUP;
    rollout.max_prompts = 1;
    rollout.max_prompt_tokens = 4;
    rollout.max_new_tokens = STAGE_NEW;
    OK(pgrad_rollout_create(w->model, w->tokenizer, &rollout, &w->rollout));
}

static void add_to_digest(work *w, const pgrad_rollout *rollout)
{
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        size_t n, length;
        const pgrad_token *ids = pgrad_rollout_tokens(rollout, i, &n);
        w->digest = fnv(w->digest, ids, n * sizeof *ids);
        const char *text = pgrad_rollout_text(rollout, i, &length);
        w->digest = fnv(w->digest, text, length);
    }
}

/* Has the rollout and the sampler, and lets them go at the end. */
static void *sample_pieces(void *argument)
{
    static const pgrad_token PROMPT[] = {'a', 'b'};
    work *w = argument;
    for (int i = 0; i < PIECES && w->status == PGRAD_OK; i++) {
        pgrad_rollout_clear(w->rollout);
        w->status = pgrad_rollout_add_prompt(w->rollout, PROMPT, 2, NULL, NULL);
        atomic_fetch_add(&w->done, 1);
        if (w->status == PGRAD_OK)
            w->status = pgrad_rollout_generate(w->rollout, w->sampler, NULL);
        add_to_digest(w, w->rollout);
    }
    atomic_store(&w->done, PIECES + 1);
    pgrad_rollout_free(w->rollout);
    pgrad_sampler_free(w->sampler);
    return NULL;
}

static int32_t count_steps(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    work *w = user;
    (void)report;
    add_to_digest(w, rollout);
    atomic_fetch_add(&w->done, 1);
    return 1;
}

/* Has nothing: a run holds what it was given. */
static void *train_pieces(void *argument)
{
    static const char *const TEXTS[] = {"ab", "c"};
    work *w = argument;
    pgrad_prompts prompts;
    pgrad_train_params params;
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = 2;
    prompts.texts = TEXTS;
    pgrad_train_params_init(&params, sizeof params);
    params.steps = PIECES;
    params.prompts_per_step = 1;
    params.group_size = STAGE_GROUP;
    params.max_new_tokens = STAGE_NEW;
    params.learning_rate = 1e-2;
    params.sampler = w->sampler;
    params.report = count_steps;
    params.report_user = w;
    w->status = pgrad_train(w->model, w->tokenizer, w->reward, &prompts, &params, NULL);
    atomic_store(&w->done, PIECES + 1);
    return NULL;
}

/* Number `index` of the handles goes; those that a thread works with itself stay. */
static void let_go(work *w, int index, int is_run)
{
    switch (index) {
    case 0:
        pgrad_context_free(w->context);
        break;
    case 1:
        pgrad_model_free(w->model);
        break;
    case 2:
        pgrad_tokenizer_free(w->tokenizer);
        break;
    default:
        pgrad_reward_free(w->reward);
        if (is_run) {
            pgrad_sampler_free(w->sampler);
            pgrad_rollout_free(w->rollout);
        }
    }
}

/* TH07: the parents of what a thread works with, or all that it gave to a run, go while it works: at any moment of it, in
 * any order. It ends as it would have, and nothing is left. */
START_TEST(th07_freed_while_another_works)
{
    enum { HANDLES = 4 };
    void *(*const works)(void *) = _i == 0 ? sample_pieces : train_pieces;
    uint64_t expected = 0;
    for (int trial = 0; trial <= 2 * PIECES; trial++) { /* the first one is not disturbed */
        static work w;
        pthread_t thread;
        const int first = trial % HANDLES, step = trial % 2 ? 1 : HANDLES - 1;
        begin_work(&w);
        ck_assert_int_eq(pthread_create(&thread, NULL, works, &w), 0);
        while (atomic_load(&w.done) < (trial == 0 ? PIECES + 1 : 1 + (trial - 1) % PIECES))
            sched_yield();
        for (int k = 0; k < HANDLES; k++) {
            let_go(&w, (first + k * step) % HANDLES, _i);
            usleep((useconds_t)(trial * 37 % 5) * 40);
        }
        pthread_join(thread, NULL);
        ck_assert_int_eq(w.status, PGRAD_OK);
        expected = trial == 0 ? w.digest : expected;
        ck_assert_uint_eq(w.digest, expected);
        ck_assert_int_eq(atomic_load(&alive), 0);
    }
}
END_TEST

/* 64 KiB of stack are enough for each of the calls. */
START_TEST(al04_small_stack)
{
#ifdef PGRAD_SANITIZED
    enum { STACK = 1 << 20 };
#else
    enum { STACK = 1 << 16 };
#endif
    pthread_attr_t attributes;
    ck_assert_int_eq(pthread_attr_init(&attributes), 0);
    ck_assert_int_eq(pthread_attr_setstacksize(&attributes, STACK), 0);
    for (int row = 0; row < N_SCENARIOS; row++) {
        caller c = {.stage = &s, .scenario = &SCENARIOS[row]};
        c.scenario->begin(&s);
        ck_assert_int_eq(pthread_create(&c.thread, &attributes, call, &c), 0);
        pthread_join(c.thread, NULL);
        is_undisturbed(row, c.status);
    }
    pthread_attr_destroy(&attributes);
}
END_TEST

/* ---- traps ---- */

/* TH08: neither the host's rounding nor its traps reach a computation, and it finds them as they were. */
START_TEST(th08_traps_and_rounding)
{
    for (int row = 0; row < N_SCENARIOS; row++) {
        SCENARIOS[row].begin(&s);
        feclearexcept(FE_ALL_EXCEPT);
        const int trapped = feenableexcept(FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW) != -1; /* not every CPU can */
        ck_assert_int_eq(fesetround(FE_UPWARD), 0);
        pgrad_status status = SCENARIOS[row].run(&s);
        const int round = fegetround(), traps = fegetexcept();
        fedisableexcept(FE_ALL_EXCEPT);
        fesetround(FE_TONEAREST);
        ck_assert_int_eq(round, FE_UPWARD);
        ck_assert(!trapped || traps == (FE_INVALID | FE_DIVBYZERO | FE_OVERFLOW));
        is_undisturbed(row, status);
    }
}
END_TEST

#ifndef PGRAD_SANITIZED

/* ---- no threads ---- */

static int no_threads;

int pthread_create(pthread_t *thread, const pthread_attr_t *attributes, void *(*fn)(void *), void *argument)
{
    int (*real)(pthread_t *, const pthread_attr_t *, void *(*)(void *), void *);
    void *found = dlsym(RTLD_NEXT, "pthread_create");
    if (no_threads)
        return EAGAIN;
    memcpy(&real, &found, sizeof real);
    return real(thread, attributes, fn, argument);
}

START_TEST(al04_no_threads)
{
    static stage alone;
    pgrad_context_info info = {.struct_size = sizeof info};
    no_threads = 1;
    open_stage(&alone, NULL, 8);
    OK(pgrad_context_get_info(alone.w.context, &info));
    ck_assert_uint_eq(info.n_threads, 1);
    for (int i = 0; i < N_SCENARIOS; i++)
        ck_assert_msg(undisturbed(&alone, &SCENARIOS[i]) == results[i], "%s: another result", SCENARIOS[i].name);
    close_stage(&alone);
    no_threads = 0;
}
END_TEST

/* ---- an end in the middle ---- */

static void *work_on(void *argument)
{
    stage *busy = argument;
    for (;;) {
        pgrad_rollout_clear(busy->rollout);
        const pgrad_token ids[] = {'a', 'b'};
        if (pgrad_rollout_add_prompt(busy->rollout, ids, 2, NULL, NULL) != PGRAD_OK || generate(busy) != PGRAD_OK)
            _exit(1);
    }
    return NULL;
}

/* TH07: a process may end while its threads compute. */
START_TEST(th07_exit_in_the_middle)
{
    for (int round = 0; round < 5; round++) {
        int status;
        fflush(NULL);
        pid_t child = fork();
        if (child == 0) {
            static stage busy;
            pthread_t thread;
            alarm(20);
            open_stage(&busy, NULL, 3);
            begin_generate(&busy);
            remove_folder(busy.folder);
            if (pthread_create(&thread, NULL, work_on, &busy) != 0)
                _exit(2);
            usleep(1000 + 7000 * (useconds_t)round);
            exit(17);
        }
        ck_assert_int_eq(waitpid(child, &status, 0), child);
        ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 17, "status %x", (unsigned)status);
    }
}
END_TEST

#endif

int main(void)
{
    Suite *suite = suite_create("host");
    TCase *tests = tcase_create("host");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 240);
    tcase_add_test(tests, th04_storm_of_signals);
    tcase_add_test(tests, th05_cancelled_at_any_moment);
    tcase_add_test(tests, th01_two_contexts);
    tcase_add_test(tests, th01_a_model_for_all);
    tcase_add_test(tests, th01_a_model_that_changes_tells_its_version);
    tcase_add_loop_test(tests, th07_freed_while_another_works, 0, 2);
    tcase_add_test(tests, al04_small_stack);
    tcase_add_test(tests, th08_traps_and_rounding);
#ifndef PGRAD_SANITIZED
    tcase_add_test(tests, al04_no_threads);
    tcase_add_test(tests, th07_exit_in_the_middle);
#endif
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
