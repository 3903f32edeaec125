/* How the parts of a step scale with threads, 1 to the machine's: [threads_generate], [threads_backward],
 * [threads_optimizer], speed against one thread's and the limit that many times as fast. Two contexts in one process,
 * each with all threads, working at once: [contexts_together], what both do against one alone, and [contexts_fair],
 * what the slower does of the faster's work. The CPU time of a context that has nothing to do: [threads_idle]. */
#include <pthread.h>
#include <unistd.h>

#include "gpt2.h"

enum { GROUPS = 4, GROUP_SIZE = 8, PROMPT = 64, NEW = 32, ROUNDS = 3, MAX_THREADS = 64 };

typedef struct setup {
    pgrad_context *context;
    pgrad_model *model;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
} setup;

static setup set_up(uint32_t n_threads)
{
    setup s;
    pgrad_context_params context;
    pgrad_rollout_params rollout;
    pgrad_sampler_params sampler;
    pgrad_objective_params objective;
    pgrad_context_params_init(&context, sizeof context);
    context.n_threads = n_threads;
    CHECK(pgrad_context_create(&context, &s.context));
    s.model = gpt2_create(s.context);
    pgrad_rollout_params_init(&rollout, sizeof rollout);
    rollout.group_size = GROUP_SIZE;
    rollout.max_prompts = GROUPS;
    rollout.max_prompt_tokens = PROMPT;
    rollout.max_new_tokens = NEW;
    CHECK(pgrad_rollout_create(s.model, NULL, &rollout, &s.rollout));
    pgrad_sampler_params_init(&sampler, sizeof sampler);
    sampler.ignore_eos = 1;
    CHECK(pgrad_sampler_create(s.context, &sampler, &s.sampler));
    pgrad_objective_params_init(&objective, sizeof objective);
    objective.loss = PGRAD_LOSS_SUPERVISED;
    CHECK(pgrad_objective_create(s.model, &objective, &s.objective));
    CHECK(pgrad_optimizer_create(s.model, NULL, &s.optimizer));
    return s;
}

static void tear_down(setup *s)
{
    pgrad_optimizer_free(s->optimizer);
    pgrad_objective_free(s->objective);
    pgrad_sampler_free(s->sampler);
    pgrad_rollout_free(s->rollout);
    pgrad_model_free(s->model);
    pgrad_context_free(s->context);
}

static void generate(setup *s)
{
    pgrad_token ids[PROMPT];
    pgrad_rollout_clear(s->rollout);
    for (uint32_t group = 0; group < GROUPS; group++) {
        for (uint32_t i = 0; i < PROMPT; i++)
            ids[i] = (pgrad_token)((group * 7919 + i * 104729) % 50000);
        CHECK(pgrad_rollout_add_prompt(s->rollout, ids, PROMPT, NULL, NULL));
    }
    CHECK(pgrad_rollout_generate(s->rollout, s->sampler, NULL));
}

static void backward(setup *s)
{
    CHECK(pgrad_model_zero_grad(s->model));
    CHECK(pgrad_objective_backward(s->objective, s->rollout, NULL, 0, NULL, NULL));
}

static void optimize(setup *s)
{
    CHECK(pgrad_optimizer_step(s->optimizer, NULL));
}

static const struct part {
    const char *name;
    void (*run)(setup *s);
} PARTS[] = {{"generate", generate}, {"backward", backward}, {"optimizer", optimize}};
enum { N_PARTS = sizeof PARTS / sizeof PARTS[0] };

static void measure(setup *s, double seconds[N_PARTS])
{
    double times[N_PARTS][ROUNDS];
    for (int round = -1; round < ROUNDS; round++)
        for (size_t part = 0; part < N_PARTS; part++) {
            const double started = bench_now();
            PARTS[part].run(s);
            if (round >= 0)
                times[part][round] = bench_now() - started;
        }
    for (size_t part = 0; part < N_PARTS; part++)
        seconds[part] = bench_median(times[part], ROUNDS);
}

static void scaling(uint32_t most)
{
    double alone[N_PARTS];
    for (uint32_t n = 1; n <= most; n = n < most && 2 * n > most ? most : 2 * n) {
        double seconds[N_PARTS];
        setup s = set_up(n);
        measure(&s, n == 1 ? alone : seconds);
        for (size_t part = 0; n > 1 && part < N_PARTS; part++) {
            char line[64];
            snprintf(line, sizeof line, "threads_%s", PARTS[part].name);
            bench_print(s.context, line, alone[part] / seconds[part], "times one thread", (double)n);
        }
        tear_down(&s);
    }
}

static double cpu_seconds(void)
{
    struct timespec at;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &at);
    return (double)at.tv_sec + 1e-9 * (double)at.tv_nsec;
}

/* ---- two at once ---- */

typedef struct competitor {
    setup setup;
    pthread_barrier_t *start;
    double until; /* seconds of work */
    double rollouts;
} competitor;

static void *compete(void *argument)
{
    competitor *c = argument;
    generate(&c->setup);
    pthread_barrier_wait(c->start);
    const double started = bench_now();
    double last = 0.0, now = 0.0;
    while (now < c->until) {
        generate(&c->setup);
        last = now;
        now = bench_now() - started;
        c->rollouts += 1.0;
    }
    c->rollouts -= (now - c->until) / (now - last); /* the part of the last that lies behind the time */
    return NULL;
}

static void together(uint32_t most)
{
    competitor c[2];
    pthread_t threads[2];
    pthread_barrier_t start;
    double alone = 0.0;
    for (int i = 0; i < 2; i++)
        c[i] = (competitor){.setup = set_up(most), .start = &start, .until = 20.0};
    pthread_barrier_init(&start, NULL, 1);
    (void)compete(&c[0]);
    alone = c[0].rollouts;
    c[0].rollouts = 0.0;
    pthread_barrier_destroy(&start);
    pthread_barrier_init(&start, NULL, 2);
    for (int i = 0; i < 2; i++)
        pthread_create(&threads[i], NULL, compete, &c[i]);
    for (int i = 0; i < 2; i++)
        pthread_join(threads[i], NULL);
    const double less = c[0].rollouts < c[1].rollouts ? c[0].rollouts : c[1].rollouts;
    const double both = c[0].rollouts + c[1].rollouts;
    bench_print(c[0].setup.context, "contexts_together", both / alone, "times one alone", 1.0);
    bench_print(c[0].setup.context, "contexts_fair", less / (both - less), "of the faster's work", 1.0);
    for (int i = 0; i < 2; i++)
        tear_down(&c[i].setup);
    pthread_barrier_destroy(&start);
}

static void idle(uint32_t most)
{
    setup s = set_up(most);
    generate(&s);
    const double before = cpu_seconds();
    sleep(1);
    bench_print(s.context, "threads_idle", (cpu_seconds() - before) * 1e3, "ms of CPU in a second", 0.0);
    tear_down(&s);
}

int main(void)
{
    const long online = sysconf(_SC_NPROCESSORS_ONLN);
    const uint32_t most = online < 1 ? 1 : online > MAX_THREADS ? MAX_THREADS : (uint32_t)online;
    scaling(most);
    together(most);
    idle(most);
    return 0;
}
