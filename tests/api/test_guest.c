/* The library is a guest in the process: after a run of all its parts the host finds everything as it was, and the
 * child of a fork is told. The public headers and the shared library, nothing else. */
#include <check.h>
#include <fenv.h>
#include <locale.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <policygrad.h>

#include "../suite.h"

#define MODEL PGRAD_ROOT "/examples/embedded/model"
#define OK(call) ck_assert_msg((call) == PGRAD_OK, "%s: %s", #call, pgrad_error_message())
#define TOLD(call) (told = told && (call) == PGRAD_E_STATE && strstr(pgrad_error_message(), "fork") != NULL)

typedef struct guest {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_sampler *sampler;
    pgrad_rollout *rollout;
    pgrad_reward *reward;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
    char folder[32];
} guest;

static void open_guest(guest *g)
{
    pgrad_context_params context_params;
    pgrad_rollout_params rollout_params;
    memset(g, 0, sizeof *g);
    strcpy(g->folder, "/tmp/test_guest.XXXXXX");
    ck_assert_ptr_nonnull(mkdtemp(g->folder));
    pgrad_context_params_init(&context_params, sizeof context_params);
    context_params.n_threads = 3;
    pgrad_rollout_params_init(&rollout_params, sizeof rollout_params);
    rollout_params.group_size = 4;
    rollout_params.max_new_tokens = 12;
    OK(pgrad_context_create(&context_params, &g->context));
    OK(pgrad_model_load(g->context, MODEL, NULL, &g->model));
    OK(pgrad_tokenizer_load(g->context, MODEL, &g->tokenizer));
    OK(pgrad_sampler_create(g->context, NULL, &g->sampler));
    OK(pgrad_rollout_create(g->model, g->tokenizer, &rollout_params, &g->rollout));
    OK(pgrad_reward_builtin(g->context, "regex", "{\"pattern\": \"red|lamp\"}", &g->reward));
    OK(pgrad_advantage_create(g->context, NULL, &g->advantage));
    OK(pgrad_objective_create(g->model, NULL, &g->objective));
    OK(pgrad_optimizer_create(g->model, NULL, &g->optimizer));
}

static const char *file_in(const guest *g, const char *name)
{
    static char path[64];
    snprintf(path, sizeof path, "%s/%s", g->folder, name);
    return path;
}

/* A number of all bits, in whole numbers: the test itself raises no flags. */
static uint64_t bits_of(const void *values, size_t size, uint64_t hash)
{
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ ((const unsigned char *)values)[i]) * UINT64_C(1099511628211);
    return hash;
}

/* A step, and everything that writes; gives a number that depends on all of it. */
static uint64_t use_guest(guest *g)
{
    enum { MAX_VOCAB = 4096 };
    static const char PROMPT[] = "paint it red:";
    static float logits[MAX_VOCAB];
    pgrad_token ids[32];
    size_t n;
    pgrad_step_report report;
    pgrad_checkpoint *checkpoint;
    pgrad_checkpoint_params params;
    pgrad_step_report_init(&report, sizeof report);
    pgrad_rollout_clear(g->rollout);
    OK(pgrad_tokenizer_encode(g->tokenizer, PROMPT, sizeof PROMPT - 1, PGRAD_ENCODE_ADD, ids, 32, &n));
    OK(pgrad_rollout_add_prompt(g->rollout, ids, n, NULL, NULL));
    OK(pgrad_rollout_generate(g->rollout, g->sampler, NULL));
    OK(pgrad_reward_apply(g->reward, g->rollout));
    OK(pgrad_advantage_apply(g->advantage, g->rollout));
    OK(pgrad_model_zero_grad(g->model));
    OK(pgrad_objective_backward(g->objective, g->rollout, NULL, 0, NULL, &report));
    OK(pgrad_optimizer_step(g->optimizer, &report));
    OK(pgrad_model_save(g->model, file_in(g, "model"), NULL));
    pgrad_checkpoint_params_init(&params, sizeof params);
    params.background = 1;
    OK(pgrad_checkpoint_create(g->context, &checkpoint));
    OK(pgrad_checkpoint_add(checkpoint, "policy", PGRAD_KIND_MODEL, g->model));
    OK(pgrad_checkpoint_write(checkpoint, file_in(g, "state"), &params));
    OK(pgrad_checkpoint_wait(checkpoint));
    pgrad_checkpoint_free(checkpoint);
    OK(pgrad_rollout_report(g->rollout, &report));
    ck_assert_uint_le(pgrad_tokenizer_count(g->tokenizer), MAX_VOCAB);
    memset(logits, 0, sizeof logits);
    OK(pgrad_model_logits(g->model, ids, n, PGRAD_LOGITS_LAST, logits, MAX_VOCAB));
    return bits_of(&report.reward, sizeof report.reward,
                   bits_of(&report.grad_norm, sizeof report.grad_norm, bits_of(logits, sizeof logits, 1)));
}

static void free_guest(guest *g)
{
    pgrad_optimizer_free(g->optimizer);
    pgrad_objective_free(g->objective);
    pgrad_advantage_free(g->advantage);
    pgrad_reward_free(g->reward);
    pgrad_rollout_free(g->rollout);
    pgrad_sampler_free(g->sampler);
    pgrad_tokenizer_free(g->tokenizer);
    pgrad_model_free(g->model);
    pgrad_context_free(g->context);
}

static void close_guest(guest *g)
{
    char command[64];
    free_guest(g);
    snprintf(command, sizeof command, "rm -rf %s", g->folder);
    ck_assert_int_eq(system(command), 0);
}

static void on_signal(int number)
{
    (void)number;
}

/* What of the process a guest could change. */
typedef struct host_state {
    int rounding, flags, traps;
    sigset_t mask;
    struct sigaction actions[NSIG];
    struct rlimit limits[3];
    mode_t umask;
    int priority;
    size_t n_environment;
    char locale[128], folder[4096];
} host_state;

extern char **environ;

static void look_at_host(host_state *h)
{
    static const int LIMITS[] = {RLIMIT_NOFILE, RLIMIT_STACK, RLIMIT_CORE};
    memset(h, 0, sizeof *h);
    h->rounding = fegetround();
    h->flags = fetestexcept(FE_ALL_EXCEPT);
    h->traps = fegetexcept();
    pthread_sigmask(SIG_SETMASK, NULL, &h->mask);
    for (int i = 1; i < NSIG; i++)
        (void)sigaction(i, NULL, &h->actions[i]); /* two are glibc's own */
    for (int i = 0; i < 3; i++)
        getrlimit((__rlimit_resource_t)LIMITS[i], &h->limits[i]);
    h->umask = umask(0);
    umask(h->umask);
    h->priority = getpriority(PRIO_PROCESS, 0);
    for (h->n_environment = 0; environ[h->n_environment] != NULL;)
        h->n_environment++;
    snprintf(h->locale, sizeof h->locale, "%s", setlocale(LC_ALL, NULL));
    ck_assert_ptr_nonnull(getcwd(h->folder, sizeof h->folder));
}

static void is_as_it_was(const host_state *was, const host_state *is)
{
    ck_assert_int_eq(was->rounding, is->rounding);
    ck_assert_int_eq(was->flags, is->flags);
    ck_assert_int_eq(was->traps, is->traps);
    ck_assert_mem_eq(&was->mask, &is->mask, sizeof was->mask);
    for (int i = 1; i < NSIG; i++)
        ck_assert_msg(was->actions[i].sa_handler == is->actions[i].sa_handler &&
                          was->actions[i].sa_flags == is->actions[i].sa_flags,
                      "signal %d", i);
    ck_assert_mem_eq(was->limits, is->limits, sizeof was->limits);
    ck_assert_uint_eq(was->umask, is->umask);
    ck_assert_int_eq(was->priority, is->priority);
    ck_assert_uint_eq(was->n_environment, is->n_environment);
    ck_assert_str_eq(was->locale, is->locale);
    ck_assert_str_eq(was->folder, is->folder);
}

/* A host with ways of its own: signals blocked and handled. */
static void set_ways(void)
{
    sigset_t blocked;
    sigemptyset(&blocked);
    sigaddset(&blocked, SIGUSR1);
    sigaddset(&blocked, SIGTERM);
    pthread_sigmask(SIG_BLOCK, &blocked, NULL);
    const struct sigaction action = {.sa_handler = on_signal, .sa_flags = SA_RESTART | SA_NODEFER};
    static const int HANDLED[] = {SIGINT, SIGPIPE, SIGFPE, SIGBUS, SIGSEGV, SIGUSR2, SIGCHLD};
    for (size_t i = 0; i < sizeof HANDLED / sizeof HANDLED[0]; i++)
        ck_assert_int_eq(sigaction(HANDLED[i], &action, NULL), 0);
    (void)umask(027);
}

START_TEST(host_finds_all_as_it_was)
{
    static const int ROUNDING[] = {FE_TONEAREST, FE_DOWNWARD, FE_UPWARD};
    static const int FLAGS[] = {0, FE_INVALID | FE_OVERFLOW};
    static host_state before, after;
    static guest g;
    open_guest(&g);
    const uint64_t expected = use_guest(&g);
    close_guest(&g);
    set_ways();
    for (int way = 0; way < 6; way++) {
        fesetround(ROUNDING[way / 2]);
        feclearexcept(FE_ALL_EXCEPT);
        feraiseexcept(FLAGS[way % 2]);
        look_at_host(&before);
        open_guest(&g);
        const uint64_t found = use_guest(&g);
        close_guest(&g);
        look_at_host(&after);
        is_as_it_was(&before, &after);
        ck_assert_int_eq(after.flags & FE_INVALID, FLAGS[way % 2] & FE_INVALID);
        ck_assert_uint_eq(found, expected);
    }
}
END_TEST

START_TEST(it_prints_nothing)
{
    static guest g;
    char printed[] = "/tmp/test_guest.XXXXXX";
    struct stat size;
    const int file = mkstemp(printed), out = dup(1), err = dup(2);
    fflush(NULL);
    dup2(file, 1);
    dup2(file, 2);
    open_guest(&g);
    (void)use_guest(&g);
    close_guest(&g);
    fflush(NULL);
    dup2(out, 1);
    dup2(err, 2);
    ck_assert_int_eq(fstat(file, &size), 0);
    ck_assert_int_eq((int)size.st_size, 0);
    unlink(printed);
    close(file);
}
END_TEST

/* TH06: in the child of a fork what works with what was made before says E_STATE, that can be freed, and what is made
 * anew works. */
static int child_is_told(guest *g)
{
    int told = 1;
    static float logits[4096];
    pgrad_token ids[] = {1, 2}, token;
    pgrad_model *model = NULL;
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    TOLD(pgrad_model_load(g->context, MODEL, NULL, &model));
    TOLD(pgrad_model_snapshot(g->model, &model));
    TOLD(pgrad_model_logits(g->model, ids, 2, PGRAD_LOGITS_LAST, logits, 4096));
    TOLD(pgrad_model_zero_grad(g->model));
    TOLD(pgrad_model_save(g->model, file_in(g, "child"), NULL));
    TOLD(pgrad_sampler_pick(g->sampler, logits, 4096, 0, 0, &token, NULL, NULL, NULL));
    TOLD(pgrad_rollout_generate(g->rollout, g->sampler, NULL));
    TOLD(pgrad_rollout_score(g->rollout, g->model, PGRAD_CURRENT));
    TOLD(pgrad_reward_apply(g->reward, g->rollout));
    TOLD(pgrad_advantage_apply(g->advantage, g->rollout));
    TOLD(pgrad_objective_backward(g->objective, g->rollout, NULL, 0, NULL, &report));
    TOLD(pgrad_optimizer_step(g->optimizer, &report));
    free_guest(g);
    return told;
}

START_TEST(th06_child_of_a_fork)
{
    static guest g, again;
    int status;
    open_guest(&g);
    open_guest(&again);
    const uint64_t expected = use_guest(&again);
    close_guest(&again);
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        alarm(60);
        if (!child_is_told(&g)) {
            fprintf(stderr, "not told: %s\n", pgrad_error_message());
            _exit(18);
        }
        open_guest(&again);
        const uint64_t found = use_guest(&again);
        close_guest(&again);
        _exit(found == expected ? 17 : 19);
    }
    ck_assert_int_eq(waitpid(child, &status, 0), child);
    ck_assert_msg(WIFEXITED(status) && WEXITSTATUS(status) == 17, "status %x", (unsigned)status);
    ck_assert(use_guest(&g) == expected);
    close_guest(&g);
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("guest");
    TCase *tests = tcase_create("guest");
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, host_finds_all_as_it_was);
    tcase_add_test(tests, it_prints_nothing);
    tcase_add_test(tests, th06_child_of_a_fork);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
