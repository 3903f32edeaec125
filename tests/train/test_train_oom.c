/* The n-th allocation fails, for every n, in the calls of a step and in pgrad_train: E_NOMEM, no block lost, the
 * weights as they were, and the handle good for the next try, which gives the bits of a run that never failed. */
#include "../failing_allocator.h"
#include "../model/model_test.h"

#include <policygrad.h>

#include "model/gradients.h"

static const char CONFIG[] =
    "{\"model_type\":\"gpt2\",\"vocab_size\":64,\"n_positions\":64,\"n_embd\":16,\"n_layer\":2,\"n_head\":2,"
    "\"activation_function\":\"gelu_new\",\"initializer_range\":0.3}";

enum { GROUPS = 2, GROUP_SIZE = 3, N = GROUPS * GROUP_SIZE, NEW = 6, MAX_FLOATS = 1 << 14, PROMPTS = 4 };

static counted state;
static pgrad_context *context;
static pgrad_model *model, *reference;

static void setup(void)
{
    pgrad_allocator allocator = counted_allocator(&state);
    pgrad_context_params params;
    state = (counted){-1, 0};
    pgrad_context_params_init(&params, sizeof params);
    params.n_threads = 2;
    params.allocator = &allocator;
    OK(pgrad_context_create(&params, &context));
    OK(pgrad_model_create(context, CONFIG, 1, NULL, &model));
    OK(pgrad_model_create(context, CONFIG, 2, NULL, &reference));
}

static void teardown(void)
{
    pgrad_model_free(reference);
    pgrad_model_free(model);
    pgrad_context_free(context);
    ck_assert_int_eq(state.live, 0);
}

/* All tensors, one behind another. */
static size_t read_weights(float *out)
{
    size_t at = 0;
    const char *name;
    for (uint32_t i = 0; (name = pgrad_model_tensor_name(model, i, NULL, NULL)) != NULL; i++) {
        size_t n;
        OK(pgrad_model_tensor_read(model, name, out + at, MAX_FLOATS - at, &n));
        at += n;
    }
    return at;
}

static int32_t by_sequence(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                           pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++)
        pgrad_scores_data(scores)[i] = (float)(pgrad_rollout_tokens(rollout, first + i, NULL)[0] % 5);
    return (int32_t)count;
}

/* The host hears of it in its callback, and fails: E_CALLBACK is then the answer. */
static int callback_had_no_memory;

static int32_t by_token(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                        pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        size_t n;
        float values[NEW];
        const pgrad_token *ids = pgrad_rollout_tokens(rollout, first + i, &n);
        for (size_t t = 0; t < n; t++)
            values[t] = 0.1f * (float)(ids[t] % 7);
        pgrad_status status = pgrad_scores_set_tokens(scores, i, values, n);
        if (status != PGRAD_OK) {
            callback_had_no_memory = status == PGRAD_E_NOMEM;
            return -1;
        }
    }
    return (int32_t)count;
}

static int is_no_memory(pgrad_status status)
{
    return status == PGRAD_E_NOMEM || (status == PGRAD_E_CALLBACK && callback_had_no_memory);
}

/* ---- the calls of a step, each tried again after its failure ---- */

typedef struct step {
    pgrad_rollout *rollout;
    pgrad_reward *parts[2], *reward;
    pgrad_advantage *advantage;
    pgrad_objective *objective;
    pgrad_optimizer *optimizer;
} step;

/* The rows of a step: making and using, in order. */
typedef pgrad_status (*call_fn)(step *s);

static pgrad_status make_rollout(step *s)
{
    pgrad_rollout_params params;
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = GROUP_SIZE;
    params.max_prompts = GROUPS;
    params.max_prompt_tokens = 4;
    params.max_new_tokens = NEW;
    return pgrad_rollout_create(model, NULL, &params, &s->rollout);
}

static pgrad_status fill(step *s)
{
    pgrad_rollout_clear(s->rollout);
    for (uint32_t i = 0; i < N; i++) {
        pgrad_token ids[NEW];
        for (uint32_t t = 0; t < NEW; t++)
            ids[t] = (pgrad_token)((13 * i + 7 * t + t * t) % 64);
        pgrad_status status = PGRAD_OK;
        if (i % GROUP_SIZE == 0)
            status = pgrad_rollout_add_prompt(s->rollout, ids + 1, 3, NULL, NULL);
        if (status == PGRAD_OK)
            status = pgrad_rollout_add_sequence(s->rollout, i / GROUP_SIZE, ids, 1 + i % NEW, NULL);
        if (status != PGRAD_OK)
            return status;
    }
    return PGRAD_OK;
}

static pgrad_status make_first_reward(step *s)
{
    return pgrad_reward_create(context, "sequences", by_sequence, NULL, NULL, &s->parts[0]);
}

static pgrad_status make_second_reward(step *s)
{
    return pgrad_reward_create(context, "tokens", by_token, NULL, NULL, &s->parts[1]);
}

static pgrad_status combine(step *s)
{
    const double weights[2] = {1.0, 0.5};
    return pgrad_reward_combine(context, s->parts, weights, 2, &s->reward);
}

static pgrad_status make_advantage(step *s)
{
    pgrad_advantage_params params;
    pgrad_advantage_params_init(&params, sizeof params);
    params.estimator = PGRAD_ADVANTAGE_EMA;
    params.kl_beta = 0.1;
    return pgrad_advantage_create(context, &params, &s->advantage);
}

static pgrad_status make_objective(step *s)
{
    pgrad_objective_params params;
    pgrad_objective_params_init(&params, sizeof params);
    params.kl_beta = 0.1;
    params.entropy_coefficient = 0.01;
    params.micro_batch_tokens = 12;
    return pgrad_objective_create(model, &params, &s->objective);
}

static pgrad_status make_optimizer(step *s)
{
    pgrad_optimizer_params params;
    pgrad_optimizer_params_init(&params, sizeof params);
    params.learning_rate = 1e-2;
    return pgrad_optimizer_create(model, &params, &s->optimizer);
}

static pgrad_status score_old(step *s)
{
    return pgrad_rollout_score(s->rollout, model, PGRAD_OLD);
}

static pgrad_status score_reference(step *s)
{
    return pgrad_rollout_score(s->rollout, reference, PGRAD_REFERENCE);
}

static pgrad_status apply_reward(step *s)
{
    return pgrad_reward_apply(s->reward, s->rollout);
}

static pgrad_status apply_advantage(step *s)
{
    return pgrad_advantage_apply(s->advantage, s->rollout);
}

static pgrad_status backward(step *s)
{
    pgrad_status status = pgrad_model_zero_grad(model);
    if (status == PGRAD_OK)
        status = pgrad_objective_backward(s->objective, s->rollout, NULL, 0, NULL, NULL);
    return status;
}

static pgrad_status update(step *s)
{
    return pgrad_optimizer_step(s->optimizer, NULL);
}

static const struct {
    const char *name;
    call_fn run;
} CALLS[] = {
    {"rollout_create", make_rollout},
    {"add", fill},
    {"reward_create", make_first_reward},
    {"reward_create", make_second_reward},
    {"reward_combine", combine},
    {"advantage_create", make_advantage},
    {"objective_create", make_objective},
    {"optimizer_create", make_optimizer},
    {"score OLD", score_old},
    {"score REFERENCE", score_reference},
    {"reward_apply", apply_reward},
    {"advantage_apply", apply_advantage},
    {"backward", backward},
    {"optimizer_step", update}, /* the last: until here the weights are as they were */
};
enum { N_CALLS = sizeof CALLS / sizeof CALLS[0] };

static void free_step(step *s)
{
    pgrad_optimizer_free(s->optimizer);
    pgrad_objective_free(s->objective);
    pgrad_advantage_free(s->advantage);
    pgrad_reward_free(s->reward);
    pgrad_reward_free(s->parts[0]);
    pgrad_reward_free(s->parts[1]);
    pgrad_rollout_free(s->rollout);
}

/* Runs the calls with the n-th allocation failing, or none for n < 0. The new weights into `out`; 1 when
 * an allocation failed. */
static int run_step(long n, const float *before, float *out)
{
    static float weights[MAX_FLOATS];
    step s = {0};
    int failures = 0;
    callback_had_no_memory = 0;
    state.left = n;
    for (int i = 0; i < N_CALLS; i++) {
        pgrad_status status = CALLS[i].run(&s);
        if (status == PGRAD_OK)
            continue;
        ck_assert_msg(is_no_memory(status), "allocation %ld, %s: %s: %s", n, CALLS[i].name,
                      pgrad_status_name(status), pgrad_error_message());
        failures++;
        state.left = -1;
        size_t count = read_weights(weights);
        ck_assert_msg(memcmp(weights, before, count * sizeof *weights) == 0, "allocation %ld, %s: weights changed",
                      n, CALLS[i].name);
        status = CALLS[i].run(&s);
        ck_assert_msg(status == PGRAD_OK, "allocation %ld, %s, again: %s: %s", n, CALLS[i].name,
                      pgrad_status_name(status), pgrad_error_message());
    }
    const int reached = n > 0 && (failures > 0 || state.left <= 0);
    state.left = -1;
    (void)read_weights(out);
    free_step(&s);
    return reached;
}

static void restore(const float *weights)
{
    size_t at = 0;
    const char *name;
    for (uint32_t i = 0; (name = pgrad_model_tensor_name(model, i, NULL, NULL)) != NULL; i++) {
        size_t n = 0;
        ck_assert_int_eq(pgrad_model_tensor_read(model, name, NULL, 0, &n), PGRAD_E_BUFFER);
        OK(pgrad_model_tensor_write(model, name, weights + at, n));
        at += n;
    }
}

START_TEST(every_call_of_a_step)
{
    static float before[MAX_FLOATS], wanted[MAX_FLOATS], found[MAX_FLOATS];
    size_t count = read_weights(before);
    (void)run_step(-1, before, wanted);
    ck_assert(memcmp(before, wanted, count * sizeof *before) != 0);
    restore(before);
    const long live = state.live;
    long n = 1;
    for (; n < 5000; n++) {
        int reached = run_step(n, before, found);
        ck_assert_msg(state.live == live, "allocation %ld: %ld blocks lost", n, state.live - live);
        ck_assert_msg(memcmp(found, wanted, count * sizeof *found) == 0, "allocation %ld: other weights", n);
        restore(before);
        if (!reached)
            break;
    }
    ck_assert_msg(n > 40 && n < 5000, "%ld allocations", n);
}
END_TEST

/* ---- pgrad_train ---- */

static pgrad_status train(const char *metrics, pgrad_train_report *report)
{
    static const pgrad_token ids[PROMPTS] = {1, 2, 3, 4};
    const pgrad_token *pointers[PROMPTS] = {ids, ids + 1, ids + 2, ids + 3};
    const size_t lengths[PROMPTS] = {1, 1, 1, 1};
    pgrad_prompts prompts, held_out;
    pgrad_train_params params;
    step s = {0};
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = PROMPTS;
    prompts.ids = pointers;
    prompts.n_ids = lengths;
    held_out = prompts;
    held_out.n = 2;
    pgrad_train_params_init(&params, sizeof params);
    params.keep_activations = PGRAD_KEEP_ON; /* refused memory is an error then */
    params.steps = 1;
    params.prompts_per_step = 2;
    params.group_size = GROUP_SIZE;
    params.max_new_tokens = NEW;
    params.reference = reference;
    params.eval_prompts = &held_out;
    params.metrics_path = metrics;
    pgrad_status status = make_first_reward(&s);
    for (int i = 3; i <= 6 && status == PGRAD_OK; i++) /* the rest of reward, advantage, objective */
        status = CALLS[i].run(&s);
    params.advantage = s.advantage;
    params.objective = s.objective;
    if (status == PGRAD_OK)
        status = pgrad_train(model, NULL, s.reward, &prompts, &params, report);
    free_step(&s);
    return status;
}

/* Where the step was not done the weights are as they were; a failure behind it keeps them. */
START_TEST(every_allocation_of_train)
{
    static float before[MAX_FLOATS], after[MAX_FLOATS];
    char folder[512], metrics[600];
    const long stride = getenv("PGRAD_TEST_SHORT") != NULL ? 7 : 1;
    const long live = state.live;
    size_t count = read_weights(before);
    long n = 1;
    temporary_folder(folder);
    snprintf(metrics, sizeof metrics, "%s/metrics", folder);
    for (; n < 20000; n += stride) {
        pgrad_train_report report = {.struct_size = sizeof report};
        callback_had_no_memory = 0;
        state.left = n;
        pgrad_status status = train(metrics, &report);
        int failed = state.left <= 0;
        state.left = -1;
        pgrad__gradients_free(model); /* they stay with the model otherwise */
        ck_assert_msg(state.live == live, "allocation %ld: %ld blocks lost", n, state.live - live);
        (void)read_weights(after);
        ck_assert_msg((memcmp(before, after, count * sizeof *before) == 0) == (report.steps == 0),
                      "allocation %ld: %llu steps and weights do not fit", n, (unsigned long long)report.steps);
        restore(before);
        if (!failed) {
            OK(status);
            break;
        }
        ck_assert_msg(is_no_memory(status), "allocation %ld: %s", n, pgrad_status_name(status));
    }
    ck_assert_msg(n > 80 && n < 20000, "%ld allocations", n);
    remove_folder(folder);
}
END_TEST

/* A full disk under the metrics: its name and the reason, and nothing is lost. */
START_TEST(metrics_on_a_full_disk)
{
    const long live = state.live;
    pgrad_train_report report = {.struct_size = sizeof report};
    if (access("/dev/full", W_OK) != 0)
        return;
    FAILS(PGRAD_E_IO, "/dev/full", train("/dev/full", &report));
    ck_assert_uint_eq(report.stopped, PGRAD_STOPPED_ERROR);
    pgrad__gradients_free(model);
    ck_assert_int_eq(state.live, live);
    OK(train(NULL, &report));
}
END_TEST

int main(void)
{
    Suite *suite = suite_create("train_oom");
    TCase *tests = tcase_create("train_oom");
    tcase_add_checked_fixture(tests, setup, teardown);
    tcase_set_timeout(tests, 120);
    tcase_add_test(tests, every_call_of_a_step);
    tcase_add_test(tests, every_allocation_of_train);
    tcase_add_test(tests, metrics_on_a_full_disk);
    suite_add_tcase(suite, tests);
    return run_suite(suite);
}
