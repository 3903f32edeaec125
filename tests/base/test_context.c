#include "base_test.h"

#include <fenv.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <sys/wait.h>
#include <unistd.h>

#include <policygrad/model.h>
#include <policygrad/tokenizer.h>

#include "base/context.h"
#include "base/fail.h"
#include "base/os.h"
#include "kernel/kernel.h"

static const char MODEL[] = "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":32,\"n_embd\":16,"
                            "\"n_layer\":1,\"n_head\":2,\"activation_function\":\"gelu_new\"}";

START_TEST(threads_that_were_asked_for)
{
    static const uint32_t asked[] = {1, 2, 3, 8, 0};
    for (size_t i = 0; i < 5; i++) {
        pgrad_context *context = make_context(asked[i], 0);
        pgrad_context_info info = {.struct_size = sizeof info};
        OK(pgrad_context_get_info(context, &info));
        ck_assert_uint_eq(info.n_threads, asked[i] == 0 ? pgrad__os_cpu_count() : asked[i]);
        ck_assert_uint_eq(info.kernel_set, pgrad__best_kernel_set());
        ck_assert_uint_ne(info.kernel_set, PGRAD_KERNELS_AUTO);
        ck_assert_ptr_nonnull(info.kernel_set_name);
        pgrad_context_free(context);
    }
}
END_TEST

START_TEST(th03_what_is_refused)
{
    pgrad_context_params params;
    pgrad_context *context = NULL;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 257;
    FAILS(PGRAD_E_INVALID, "context.n_threads", pgrad_context_create(&params, &context));
    params.n_threads = (uint32_t)-1;
    FAILS(PGRAD_E_INVALID, "context.n_threads", pgrad_context_create(&params, &context));
    params.n_threads = 1;
    params.kernel_set = 5;
    FAILS(PGRAD_E_INVALID, "context.kernel_set", pgrad_context_create(&params, &context));
    params.kernel_set = pgrad__os_best_kernel_set() == PGRAD_KERNELS_ARMV8A ? PGRAD_KERNELS_HASWELL
                                                                            : PGRAD_KERNELS_ARMV8A;
    FAILS(PGRAD_E_UNSUPPORTED, "context.kernel_set", pgrad_context_create(&params, &context));
    params.kernel_set = 0;
    const pgrad_allocator half = {0};
    params.allocator = &half;
    FAILS(PGRAD_E_INVALID, "allocator", pgrad_context_create(&params, &context));
    ck_assert_ptr_null(context);
    FAILS(PGRAD_E_INVALID, "out", pgrad_context_create(NULL, NULL));
    pgrad_context_free(NULL);
    pgrad__scope scope;
    FAILS(PGRAD_E_INVALID, "NULL", pgrad__enter(NULL, &scope));
    pgrad_context_info info = {.struct_size = sizeof info};
    FAILS(PGRAD_E_INVALID, "context_get_info: context is NULL", pgrad_context_get_info(NULL, &info));
    FAILS(PGRAD_E_INVALID, "context_set_log: context is NULL", pgrad_context_set_log(NULL, NULL, NULL, 0));
    FAILS(PGRAD_E_INVALID, "context_set_progress: context is NULL", pgrad_context_set_progress(NULL, NULL, NULL));
    pgrad_context_cancel(NULL);
    pgrad_context_clear_cancel(NULL);
    OK(pgrad_context_create(NULL, &context));
    FAILS(PGRAD_E_INVALID, "context_get_info: out is NULL", pgrad_context_get_info(context, NULL));
    pgrad_context_free(context);
}
END_TEST

static pgrad_context *cancelled;

static void on_signal(int number)
{
    (void)number;
    pgrad_context_cancel(cancelled);
}

START_TEST(th05_cancel_from_a_signal_handler)
{
    cancelled = make_context(1, 0);
    OK(pgrad__check_cancel(cancelled));
    ck_assert_ptr_ne(signal(SIGUSR1, on_signal), SIG_ERR);
    raise(SIGUSR1);
    FAILS(PGRAD_E_CANCELLED, "cancel", pgrad__check_cancel(cancelled));
    FAILS(PGRAD_E_CANCELLED, "cancel", pgrad__progress(cancelled, "x", 1, 2));
    pgrad_context_clear_cancel(cancelled);
    OK(pgrad__check_cancel(cancelled));
    (void)signal(SIGUSR1, SIG_DFL);
    pgrad_context_free(cancelled);
    pgrad_context_cancel(NULL);
    pgrad_context_clear_cancel(NULL);
}
END_TEST

static char logged[2048];
static int32_t logged_level;

static void log_line(void *user, int32_t level, const char *line)
{
    ck_assert_ptr_eq(user, logged);
    logged_level = level;
    snprintf(logged, sizeof logged, "%s", line);
}

START_TEST(log_lines)
{
    pgrad_context *context = make_context(1, 0);
    pgrad__log_line(context, PGRAD_LOG_ERROR, "nobody listens");
    OK(pgrad_context_set_log(context, log_line, logged, PGRAD_LOG_WARNING));
    pgrad__log_line(context, PGRAD_LOG_WARNING, "a %d\nb", 5);
    ck_assert_str_eq(logged, "a 5\\x0ab");
    ck_assert_int_eq(logged_level, PGRAD_LOG_WARNING);
    pgrad__log_line(context, PGRAD_LOG_INFO, "too quiet");
    ck_assert_str_eq(logged, "a 5\\x0ab");
    OK(pgrad_context_set_log(context, NULL, NULL, PGRAD_LOG_DEBUG));
    pgrad__log_line(context, PGRAD_LOG_ERROR, "off");
    ck_assert_str_eq(logged, "a 5\\x0ab");
    FAILS(PGRAD_E_INVALID, "level", pgrad_context_set_log(context, log_line, NULL, 4));
    pgrad_context_free(context);
}
END_TEST

/* What a file or its name holds: a long one of many-byte characters, and bytes that are none of UTF-8. */
START_TEST(log_lines_are_utf8)
{
    pgrad_context *context = make_context(1, 0);
    char path[3000];
    OK(pgrad_context_set_log(context, log_line, logged, PGRAD_LOG_WARNING));
    for (size_t shift = 0; shift < 3; shift++) {
        memset(path, '/', shift);
        for (size_t i = shift; i + 3 < sizeof path; i += 3)
            memcpy(path + i, "\xe2\x82\xac", 4);
        pgrad__log_line(context, PGRAD_LOG_WARNING, "%s", path);
        const size_t length = strlen(logged);
        ck_assert_uint_gt(length, 1020);
        ck_assert_uint_lt(length, PGRAD__LINE_MAX);
        ck_assert_uint_eq((length - shift) % 3, 0); /* whole characters */
        ck_assert_mem_eq(logged, path, length);
    }
    pgrad__log_line(context, PGRAD_LOG_WARNING, "%s: missing", "d\xc3\xa9j\xff\xe2\x82/\x1b[2J");
    ck_assert_str_eq(logged, "d\xc3\xa9j\\xff\\xe2\\x82/\\x1b[2J: missing");
    memset(path, '\xff', sizeof path - 1); /* each takes four when it is shown */
    pgrad__log_line(context, PGRAD_LOG_WARNING, "%s", path);
    ck_assert_uint_eq(strlen(logged), 1020);
    ck_assert_str_eq(logged + 1016, "\\xff");
    pgrad_context_free(context);
}
END_TEST

static int32_t answer;

static int32_t progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    ck_assert_ptr_eq(user, &answer);
    ck_assert_str_eq(what, "load");
    ck_assert_uint_eq(done, 3);
    ck_assert_uint_eq(total, 7);
    return answer;
}

START_TEST(progress_can_stop)
{
    pgrad_context *context = make_context(1, 0);
    OK(pgrad__progress(context, "load", 3, 7));
    OK(pgrad_context_set_progress(context, progress, &answer));
    answer = 1;
    OK(pgrad__progress(context, "load", 3, 7));
    answer = 0;
    FAILS(PGRAD_E_CALLBACK, "load", pgrad__progress(context, "load", 3, 7));
    answer = -5;
    FAILS(PGRAD_E_CALLBACK, "3 of 7", pgrad__progress(context, "load", 3, 7));
    OK(pgrad_context_set_progress(context, NULL, NULL));
    OK(pgrad__progress(context, "load", 3, 7));
    pgrad_context_free(context);
}
END_TEST

/* What the host's functions below belong to: who they are set for, and what went wrong. */
typedef struct listener {
    pgrad_context *context;
    atomic_int *inside, *wrong;
    atomic_int in_force; /* set before its functions are, taken back when others are */
    volatile int calls;  /* counted without a lock of its own */
} listener;

static void hear(listener *l)
{
    if (atomic_fetch_add(l->inside, 1) != 0 || !atomic_load(&l->in_force))
        atomic_fetch_add(l->wrong, 1);
    const int before = l->calls;
    sched_yield(); /* to a thread that waits, or that does not and shows */
    l->calls = before + 1;
    if (!atomic_load(&l->in_force))
        atomic_fetch_add(l->wrong, 1);
    atomic_fetch_sub(l->inside, 1);
}

static int32_t progress_a(void *user, const char *what, uint64_t done, uint64_t total)
{
    listener *l = user;
    hear(l);
    return strcmp(what, "load") == 0 && done < total ? 1 : 0;
}

static int32_t progress_b(void *user, const char *what, uint64_t done, uint64_t total)
{
    return progress_a((char *)user - 1, what, done, total); /* another function has another user */
}

static void log_a(void *user, int32_t level, const char *line)
{
    listener *l = user;
    hear(l);
    if (level != PGRAD_LOG_INFO || strcmp(line, "line 7") != 0)
        atomic_fetch_add(l->wrong, 1);
}

static void log_b(void *user, int32_t level, const char *line)
{
    log_a((char *)user - 1, level, line);
}

enum { CALLS = 4000 };

typedef struct caller {
    pgrad_context *context;
    atomic_int calls, stop;
    int refused;
} caller;

static void *in_calls(void *argument)
{
    caller *c = argument;
    while (!atomic_load(&c->stop)) {
        c->refused += pgrad__progress(c->context, "load", 3, 7) != PGRAD_OK;
        pgrad__log_line(c->context, PGRAD_LOG_INFO, "line %d", 7);
        atomic_fetch_add(&c->calls, 2);
    }
    return NULL;
}

static void listen(listener *l, int other)
{
    atomic_store(&l->in_force, 1);
    OK(pgrad_context_set_progress(l->context, other ? progress_b : progress_a, (char *)l + other));
    OK(pgrad_context_set_log(l->context, other ? log_b : log_a, (char *)l + other, PGRAD_LOG_INFO));
}

/* Two threads in calls and a third that changes the functions: one at a time, each with its own user, none while or
 * after it is replaced. */
START_TEST(callbacks_of_two_threads_come_one_at_a_time)
{
    pgrad_context *context = make_context(1, 0);
    atomic_int inside = 0, wrong = 0;
    listener both[2];
    caller callers[2];
    pthread_t threads[2];
    int calls = 0;
    for (int i = 0; i < 2; i++)
        both[i] = (listener){.context = context, .inside = &inside, .wrong = &wrong};
    listen(&both[0], 0);
    for (int i = 0; i < 2; i++) {
        callers[i] = (caller){.context = context};
        ck_assert_int_eq(pthread_create(&threads[i], NULL, in_calls, &callers[i]), 0);
    }
    for (int now = 1; atomic_load(&callers[0].calls) < CALLS || atomic_load(&callers[1].calls) < CALLS; now = !now) {
        listen(&both[now], now);
        atomic_store(&both[!now].in_force, 0);
    }
    for (int i = 0; i < 2; i++) {
        atomic_store(&callers[i].stop, 1);
        ck_assert_int_eq(pthread_join(threads[i], NULL), 0);
        ck_assert_int_eq(callers[i].refused, 0);
        calls += callers[i].calls;
    }
    const int n_wrong = atomic_load(&wrong);
    ck_assert_int_eq(n_wrong, 0);
    ck_assert_int_eq(both[0].calls + both[1].calls, calls);
    pgrad_context_free(context);
}
END_TEST

static void log_again(void *user, int32_t level, const char *line)
{
    (void)level;
    ck_assert_str_eq(line, "from inside");
    ck_assert_int_eq(pgrad_context_set_log(user, NULL, NULL, PGRAD_LOG_ERROR), PGRAD_OK); /* itself */
}

/* Does what a callback may do: calls, one of which logs; the other functions and itself; a handle freed. */
static int32_t busy_progress(void *user, const char *what, uint64_t done, uint64_t total)
{
    pgrad_context *context = user;
    answer = 1;
    ck_assert_str_eq(what, "load");
    OK(pgrad_context_set_log(context, log_again, context, PGRAD_LOG_WARNING));
    pgrad__log_line(context, PGRAD_LOG_WARNING, "from inside");
    pgrad__log_line(context, PGRAD_LOG_WARNING, "nobody listens");
    OK(pgrad_context_set_progress(context, progress, &answer));
    OK(pgrad__progress(context, what, done, total));
    pgrad_context_free(make_context(2, 0));
    pgrad_context_cancel(context);
    pgrad_context_free(context); /* the host's reference: another keeps it */
    return 1;
}

START_TEST(callbacks_may_call)
{
    pgrad_context *context = make_context(1, 0);
    pgrad__context_retain(context);
    OK(pgrad_context_set_progress(context, busy_progress, context));
    FAILS(PGRAD_E_CANCELLED, "cancel", pgrad__progress(context, "load", 3, 7));
    pgrad_context_clear_cancel(context);
    answer = 1;
    OK(pgrad__progress(context, "load", 3, 7)); /* the one that was set inside */
    pgrad_context_free(context);
}
END_TEST

/* TH08: a call computes to nearest without flush to zero, and gives the host's mode back. */
START_TEST(th08_float_state)
{
    pgrad_context *context = make_context(1, 0);
    pgrad__scope scope;
    volatile double tiny = 0x1p-1022, one = 1, three = 3;
    ck_assert_int_eq(fesetround(FE_UPWARD), 0);
    const double upward = one / three;
    OK(pgrad__enter(context, &scope));
    const double nearest = one / three;
    ck_assert(tiny / 4 != 0);
    pgrad__leave(&scope);
    ck_assert_int_eq(fegetround(), FE_UPWARD);
    ck_assert(one / three == upward);
    fesetround(FE_TONEAREST);
    ck_assert(nearest == one / three);
    ck_assert(nearest != upward);
    pgrad_context_free(context);
}
END_TEST

START_TEST(locks)
{
    pgrad__lock lock = {0};
    OK(pgrad__lock_read(&lock, "model"));
    OK(pgrad__lock_read(&lock, "model"));
    FAILS(PGRAD_E_BUSY, "model", pgrad__lock_write(&lock, "model"));
    pgrad__unlock_read(&lock);
    FAILS(PGRAD_E_BUSY, "read", pgrad__lock_write(&lock, "model"));
    pgrad__unlock_read(&lock);
    OK(pgrad__lock_write(&lock, "model"));
    FAILS(PGRAD_E_BUSY, "changed", pgrad__lock_read(&lock, "model"));
    FAILS(PGRAD_E_BUSY, "changed", pgrad__lock_write(&lock, "model"));
    pgrad__unlock_write(&lock);
    OK(pgrad__lock_read(&lock, "model"));
    pgrad__unlock_read(&lock);
}
END_TEST

START_TEST(references)
{
    pgrad_context *context = make_context(2, 0);
    pgrad__context_retain(context);
    pgrad_context_free(context);
    OK(pgrad__check_cancel(context)); /* still there */
    pgrad_context_free(context);
}
END_TEST

/* The child of a fork is told by what works; what was there can be read and freed. */
static int told_in_child(pgrad_context *context, pgrad_model *model, pgrad_tokenizer *tokenizer)
{
    pgrad_context_info info = {.struct_size = sizeof info};
    pgrad_model_info model_info = {.struct_size = sizeof model_info};
    pgrad_token ids[16];
    size_t n = 0;
    float weights[24 * 16];
    pgrad_context *fresh = NULL;
    pgrad_model *other = NULL;
    alarm(20);
    const int refused = pgrad_context_set_log(context, log_line, logged, PGRAD_LOG_INFO) == PGRAD_E_STATE &&
                        pgrad_context_set_progress(context, progress, &answer) == PGRAD_E_STATE &&
                        pgrad_model_zero_grad(model) == PGRAD_E_STATE &&
                        pgrad_model_create(context, MODEL, 1, NULL, &other) == PGRAD_E_STATE &&
                        strstr(pgrad_error_message(), "fork") != NULL && other == NULL;
    const int read = pgrad_context_get_info(context, &info) == PGRAD_OK && info.n_threads == 3 &&
                     pgrad_model_get_info(model, &model_info) == PGRAD_OK && model_info.n_vocab == 24 &&
                     pgrad_model_tensor_read(model, "transformer.wte.weight", weights, 24 * 16, &n) == PGRAD_OK && n == 24 * 16 &&
                     pgrad_tokenizer_encode(tokenizer, "a b", 3, 0, ids, 16, &n) == PGRAD_OK && n > 0 && n <= 16;
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    pgrad_context_params params;
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 1; /* more would end a child under ThreadSanitizer */
    const int anew = pgrad_context_create(&params, &fresh) == PGRAD_OK;
    pgrad_context_free(fresh);
    return (refused ? 1 : 0) + (read ? 2 : 0) + (anew ? 4 : 0);
}

START_TEST(what_a_forked_child_may_do)
{
    pgrad_context *context = make_context(3, 0);
    pgrad_model *model = NULL;
    pgrad_tokenizer *tokenizer = NULL;
    OK(pgrad_model_create(context, MODEL, 1, NULL, &model));
    OK(pgrad_tokenizer_load(context, PGRAD_ROOT "/examples/embedded/model", &tokenizer));
    fflush(NULL);
    const pid_t child = fork();
    if (child == 0)
        _exit(told_in_child(context, model, tokenizer));
    int status;
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert(WIFEXITED(status));
    ck_assert_int_eq(WEXITSTATUS(status), 7);
    OK(pgrad_model_zero_grad(model));
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
}
END_TEST

static void *free_it(void *context)
{
    pgrad_context_free(context);
    return NULL;
}

START_TEST(th09_made_here_freed_there)
{
    pthread_t thread;
    ck_assert_int_eq(pthread_create(&thread, NULL, free_it, make_context(3, 0)), 0);
    ck_assert_int_eq(pthread_join(thread, NULL), 0);
}
END_TEST

static void add(TCase *tests)
{
    tcase_add_test(tests, threads_that_were_asked_for);
    tcase_add_test(tests, th03_what_is_refused);
    tcase_add_test(tests, th05_cancel_from_a_signal_handler);
    tcase_add_test(tests, log_lines);
    tcase_add_test(tests, log_lines_are_utf8);
    tcase_add_test(tests, progress_can_stop);
    tcase_add_test(tests, callbacks_of_two_threads_come_one_at_a_time);
    tcase_add_test(tests, callbacks_may_call);
    tcase_add_test(tests, th08_float_state);
    tcase_add_test(tests, locks);
    tcase_add_test(tests, references);
    tcase_add_test(tests, what_a_forked_child_may_do);
    tcase_add_test(tests, th09_made_here_freed_there);
}

int main(void)
{
    return run_case("base/context", NULL, NULL, 60, add);
}
