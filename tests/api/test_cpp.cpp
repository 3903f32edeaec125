// policygrad.hpp: a reward function may throw, and the exception comes out of the call that ran it.
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <stdexcept>
#include <unistd.h>

#include <policygrad/policygrad.hpp>

namespace {

struct boom : std::runtime_error {
    boom() : std::runtime_error("no score today") {}
};

int failures = 0;

void expect(bool what, const char *text)
{
    if (!what) {
        std::printf("failed: %s\n", text);
        failures++;
    }
}

std::vector<float> read(const pgrad::model &model, const char *name)
{
    std::size_t n = 0;
    pgrad_model_tensor_read(model.get(), name, nullptr, 0, &n);
    std::vector<float> out(n);
    pgrad::check(pgrad_model_tensor_read(model.get(), name, out.data(), out.size(), &n));
    return out;
}

// What a plain C call left behind does not come out of a later, successful one.
void old_exceptions_stay_away(const pgrad::context &context, const pgrad::model &model,
                              const pgrad::tokenizer &tokenizer, const pgrad_prompts &prompts,
                              pgrad_train_params params)
{
    bool bad = true, came_out = false;
    pgrad::reward reward(context, "sometimes", [&](const pgrad_rollout *, uint32_t) -> double {
        if (bad)
            throw std::runtime_error("old");
        return 1.0;
    });
    expect(pgrad_train(model.get(), tokenizer.get(), reward.get(), &prompts, &params, nullptr) ==
               PGRAD_E_CALLBACK,
           "the plain call fails");
    bad = false;
    params.steps = 1;
    try {
        pgrad::train(model, tokenizer, reward, prompts, params);
    } catch (const std::runtime_error &) {
        came_out = true;
    }
    expect(!came_out, "no old exception");
}

// Builtin rewards, and sums of them and of functions, whose exceptions still come out.
void rewards_of_the_library(const pgrad::context &context, pgrad::rollout &rollout)
{
    bool bad = true, came_out = false;
    const pgrad::reward sum = [&]() {
        const pgrad::reward length = pgrad::reward::builtin(context, "length", "{\"target\": 6, \"name\": \"six\"}");
        const pgrad::reward fails(context, "fails", [&](const pgrad_rollout *, uint32_t) -> double {
            if (bad)
                throw std::runtime_error("inside a sum");
            return 1.0;
        });
        return pgrad::reward::combine(context, {&length, &fails}, {2.0, 0.5});
    }();
    try {
        sum.apply(rollout.get());
    } catch (const std::runtime_error &failure) {
        came_out = std::string(failure.what()) == "inside a sum";
    }
    expect(came_out, "an exception comes out of a sum");
    bad = false;
    sum.apply(rollout.get());
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout.get()); i++)
        expect(std::fabs(rollout.sequence(i).reward - (0.5 + rollout.sequence(i).n_tokens / 3.0)) < 1e-6,
               "a builtin reward and a function add up");
    try {
        came_out = false;
        pgrad::reward::builtin(context, "length", "{\"target\": \"six\"}");
    } catch (const pgrad::error &failure) {
        came_out = failure.status() == PGRAD_E_INVALID;
    }
    expect(came_out, "a wrong argument throws");
}

// The step call by call, with rewards per token and a completion that the reward does not apply to.
void step_of_handles(const pgrad::context &context, pgrad::model &loaded,
                     const pgrad::tokenizer &tokenizer)
{
    pgrad_rollout_params sizes = pgrad::defaults(pgrad_rollout_params_init);
    sizes.group_size = 4;
    sizes.max_new_tokens = 6;
    pgrad::rollout rollout(loaded, tokenizer, &sizes);
    pgrad::sampler sampler(context);
    pgrad::advantage advantage(context);
    pgrad::objective objective(loaded);
    pgrad::optimizer optimizer(loaded);
    rollout.set_data(rollout.add_prompt(tokenizer.encode("paint it red:")), "asked", "red");
    rollout.generate(sampler);

    pgrad::reward skips(context, "skips", [](const pgrad_rollout *in, uint32_t i) -> pgrad::score {
        if (i == 1)
            return pgrad::skip;
        return double(pgrad::data(in, i, "asked").size());
    });
    skips.apply(rollout.get());
    const double reward = rollout.sequence(1).reward;
    expect(reward != reward && rollout.sequence(0).reward == 3.0, "skip leaves a completion out");

    pgrad::reward tokens(context, "tokens", [](const pgrad_rollout *in, uint32_t first, uint32_t count,
                                               pgrad_scores *scores) {
        for (uint32_t i = 0; i < count; i++) {
            std::size_t n = 0;
            pgrad_rollout_tokens(in, first + i, &n);
            pgrad::check(pgrad_scores_set_tokens(scores, i, std::vector<float>(n, 0.5f + float(i)).data(), n));
        }
    });
    tokens.apply(rollout.get());
    std::size_t n = 0;
    const float *values = pgrad_rollout_array(rollout.get(), PGRAD_REWARDS, 2, &n);
    expect(n == rollout.sequence(2).n_tokens && values != nullptr && values[0] == 2.5f, "a reward per token");

    rewards_of_the_library(context, rollout);
    tokens.apply(rollout.get());

    const std::vector<float> before = read(loaded, "model.norm.weight");
    pgrad_step_report report;
    pgrad_step_report_init(&report, sizeof report);
    advantage.apply(rollout);
    loaded.zero_grad();
    objective.backward(rollout, {0, 1, 2, 3}, &report);
    optimizer.step(&report);
    rollout.report(report);
    expect(report.step == 1 && report.n_sequences == 4 && report.grad_norm > 0, "the report of the step");
    expect(read(loaded, "model.norm.weight") != before, "the step moved the weights");

    pgrad::reward fails(context, "fails", [](const pgrad_rollout *, uint32_t, uint32_t, pgrad_scores *) {
        throw boom();
    });
    bool came_out = false;
    try {
        fails.apply(rollout.get());
    } catch (const boom &) {
        came_out = true;
    }
    expect(came_out, "a batch function's own exception");
}

// A group of completions of the host's own.
void given(pgrad::rollout &rollout, const pgrad::tokenizer &tokenizer)
{
    const uint32_t group = rollout.add_prompt(tokenizer.encode("paint it red:"));
    rollout.add_sequence(group, tokenizer.encode(" red"));
    rollout.add_sequence(group, tokenizer.encode(" blue red"));
}

template <typename Call> pgrad_status status_of(Call call)
{
    try {
        call();
    } catch (const pgrad::error &failure) {
        return failure.status();
    }
    return PGRAD_OK;
}

void sequences_and_arrays_of_the_host(const pgrad::model &model, const pgrad::tokenizer &tokenizer)
{
    pgrad_rollout_params sizes = pgrad::defaults(pgrad_rollout_params_init);
    sizes.group_size = 2;
    pgrad::rollout rollout(model, tokenizer, &sizes);
    given(rollout, tokenizer);
    expect(rollout.size() == 2 && rollout.text(1) == " blue red", "completions of the host");
    expect(status_of([&] { rollout.add_sequence(0, tokenizer.encode(" red")); }) == PGRAD_E_LIMIT,
           "the group is full");

    rollout.set_array(PGRAD_REWARDS, 0, {0.25f});
    expect(rollout.sequence(0).reward == 0.25, "a reward of the host");
    const std::vector<float> advantages(rollout.sequence(1).n_tokens, -1.5f);
    rollout.set_array(PGRAD_ADVANTAGES, 1, advantages);
    std::size_t n = 0;
    const float *found = pgrad_rollout_array(rollout.get(), PGRAD_ADVANTAGES, 1, &n);
    expect(n == advantages.size() && found != nullptr && std::vector<float>(found, found + n) == advantages,
           "advantages of the host");
    expect(status_of([&] { rollout.set_array(PGRAD_ADVANTAGES, 1, {1, 2, 3, 4, 5, 6, 7, 8, 9}); }) ==
               PGRAD_E_MISMATCH,
           "an array of another length");
}

// The sum of two, alive after their wrappers are gone; what one of them throws comes out of the sum.
void combined_rewards(const pgrad::context &context, const pgrad::model &model,
                      const pgrad::tokenizer &tokenizer)
{
    bool bad = false;
    pgrad_rollout_params sizes = pgrad::defaults(pgrad_rollout_params_init);
    sizes.group_size = 2;
    pgrad::rollout rollout(model, tokenizer, &sizes);
    given(rollout, tokenizer);
    pgrad::reward sum = [&] {
        pgrad::reward one(context, "one", [](const pgrad_rollout *, uint32_t) { return 1.0; });
        pgrad::reward length(context, "length", [&](const pgrad_rollout *in, uint32_t i) -> double {
            if (bad)
                throw boom();
            return double(pgrad::text(in, i).size());
        });
        pgrad::reward both = pgrad::reward::combine(context, {&one, &length}, {10.0, 0.5});
        return pgrad::reward::combine(context, {&both}, {2.0});
    }();
    sum.apply(rollout.get());
    expect(rollout.sequence(0).reward == 24.0 && rollout.sequence(1).reward == 29.0, "the weighted sum");
    bad = true;
    bool came_out = false;
    try {
        sum.apply(rollout.get());
    } catch (const boom &) {
        came_out = true;
    }
    expect(came_out, "the exception of a part");
    bad = false;
    sum.apply(rollout.get());
    expect(status_of([&] { pgrad::reward::combine(context, {&sum}, {}); }) == PGRAD_E_INVALID,
           "a weight for each");
    expect(status_of([&] { pgrad::reward::combine(context, {}, {}); }) == PGRAD_E_INVALID, "a sum of none");
}

// An exception of an earlier call waits for rethrow; a later call, whether it succeeds or fails for a
// reason of its own, does not throw it.
// RW08: what a callback throws comes out of the wrapper's call, never through the C frames.
void exceptions_belong_to_their_call(const pgrad::context &context, const pgrad::model &model,
                                     const pgrad::tokenizer &tokenizer)
{
    bool bad = true;
    pgrad_rollout_params sizes = pgrad::defaults(pgrad_rollout_params_init);
    sizes.group_size = 2;
    pgrad::rollout rollout(model, tokenizer, &sizes), empty(model, tokenizer, &sizes);
    given(rollout, tokenizer);
    pgrad::reward reward(context, "sometimes", [&](const pgrad_rollout *, uint32_t) -> double {
        if (bad)
            throw boom();
        return 1.0;
    });
    for (int which = 0; which < 3; which++) {
        bad = true;
        expect(pgrad_reward_apply(reward.get(), rollout.get()) == PGRAD_E_CALLBACK, "the plain call fails");
        bad = false;
        bool came_out = false;
        try {
            if (which == 0)
                reward.apply(rollout.get());
            else if (which == 1)
                expect(status_of([&] { reward.apply(empty.get()); }) == PGRAD_E_STATE, "its own reason");
            else
                pgrad::reward::combine(context, {&reward}, {1.0}).apply(rollout.get());
        } catch (const boom &) {
            came_out = true;
        }
        expect(!came_out, "an exception of an earlier call");
    }
    bad = true;
    pgrad_reward_apply(reward.get(), rollout.get());
    int thrown = 0;
    for (int i = 0; i < 2; i++)
        try {
            reward.rethrow();
        } catch (const boom &) {
            thrown++;
        }
    expect(thrown == 1, "rethrow throws it once");
}

void checkpoints(const pgrad::context &context, const pgrad::model &model, const char *original)
{
    char path[] = "/tmp/pgrad-cpp-XXXXXX";
    const int descriptor = mkstemp(path);
    expect(descriptor >= 0 && close(descriptor) == 0, "a temporary file");
    pgrad::sampler sampler(context);
    pgrad::checkpoint made(context);
    made.add("policy", model);
    made.add("draws", sampler);
    made.add_text("note", "seen from C++");
    pgrad_checkpoint_params params = pgrad::defaults(pgrad_checkpoint_params_init);
    params.background = 1;
    made.write(path, &params);
    made.wait();
    pgrad::model again = pgrad::model::load(context, original);
    expect(read(again, "model.norm.weight") != read(model, "model.norm.weight"), "it was trained");
    pgrad::checkpoint opened = pgrad::checkpoint::open(context, path);
    opened.restore("policy", again);
    expect(read(again, "model.norm.weight") == read(model, "model.norm.weight"), "and is restored");
    expect(opened.text("note") == "seen from C++", "the text");
    expect(opened.parts().size() == 3 && std::string(opened.parts()[1].name) == "draws", "the parts");
    std::remove(path);
}

} // namespace

/* Before the model is there and after; a limit that nothing fits under comes out as an error. */
static void estimates(const pgrad::context &context, const pgrad::model &model, const std::string &path)
{
    pgrad_plan_params plan = pgrad::defaults(pgrad_plan_params_init);
    const pgrad_rollout_params rollout = pgrad::defaults(pgrad_rollout_params_init);
    const pgrad_objective_params objective = pgrad::defaults(pgrad_objective_params_init);
    const pgrad_optimizer_params optimizer = pgrad::defaults(pgrad_optimizer_params_init);
    plan.rollout = &rollout;
    plan.objective = &objective;
    plan.optimizer = &optimizer;
    const pgrad_memory_report before = pgrad::model::estimate_load(context, path, &plan);
    const pgrad_memory_report after = model.estimate(&plan);
    expect(before.total == after.total && before.total > 4 * before.weights, "the same estimate");
    expect(model.estimate().weights == before.weights, "the model alone");
    bool refused = false;
    plan.memory_limit = before.weights;
    try {
        model.estimate(&plan);
    } catch (const pgrad::error &failure) {
        refused = failure.status() == PGRAD_E_LIMIT &&
                  std::strstr(failure.what(), "memory_limit") != nullptr;
    }
    expect(refused, "a refused plan");
}

/* The same options as of load; without them the library's. */
static void models_from_scratch(const pgrad::context &context)
{
    const char *const config = "{\"model_type\":\"gpt2\",\"vocab_size\":24,\"n_positions\":8,\"n_embd\":8,"
                               "\"n_layer\":1,\"n_head\":2,\"activation_function\":\"gelu_new\"}";
    pgrad_model_params params = pgrad::defaults(pgrad_model_params_init);
    params.storage = PGRAD_STORAGE_BF16;
    params.n_context = 4;
    const pgrad_model_info plain = pgrad::model::create(context, config, 7).info();
    const pgrad_model_info asked = pgrad::model::create(context, config, 7, &params).info();
    expect(plain.storage == PGRAD_STORAGE_F32 && plain.n_context == 8, "a model with the defaults");
    expect(asked.storage == PGRAD_STORAGE_BF16 && asked.n_context == 4, "a model as it was asked for");
    bool refused = false;
    params.n_context = 9;
    try {
        pgrad::model::create(context, config, 7, &params);
    } catch (const pgrad::error &failure) {
        refused = failure.status() == PGRAD_E_INVALID && std::strstr(failure.what(), "n_context") != nullptr;
    }
    expect(refused, "more positions than the model has");
}

int main(int, char **argv)
{
    const char *const texts[] = {"paint it red:", "paint it blue:"};
    pgrad::context context;
    pgrad::model model = pgrad::model::load(context, argv[1]);
    pgrad::tokenizer tokenizer = pgrad::tokenizer::load(context, argv[1]);
    expect(tokenizer.decode(tokenizer.encode("the red fox.")) == "the red fox.", "round trip");

    pgrad_prompts prompts;
    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = 2;
    prompts.texts = texts;
    pgrad_train_params params = pgrad::defaults(pgrad_train_params_init);
    params.steps = 2;
    params.prompts_per_step = 2;
    params.max_new_tokens = 8;
    params.learning_rate = 1e-3;

    const std::vector<float> before = read(model, "model.norm.weight");
    pgrad::reward throws(context, "throws", [](const pgrad_rollout *, uint32_t i) -> double {
        if (i == 3)
            throw boom();
        return 1.0;
    });
    bool came_out = false;
    try {
        pgrad::train(model, tokenizer, throws, prompts, params);
    } catch (const boom &thrown) {
        came_out = std::strcmp(thrown.what(), "no score today") == 0;
    }
    expect(came_out, "the reward's own exception");
    expect(std::strstr(pgrad_error_message(), "sequence 3") != nullptr, "the message names the sequence");
    expect(read(model, "model.norm.weight") == before, "the weights are as they were");

    pgrad::reward counts(context, "counts", [](const pgrad_rollout *rollout, uint32_t i) {
        return double(pgrad::text(rollout, i).find("blue") != std::string::npos);
    });
    int steps = 0;
    pgrad_train_report report = pgrad::train(model, tokenizer, counts, prompts, params,
                                             [&](const pgrad_step_report &, const pgrad_rollout *) {
                                                 return ++steps < 2;
                                             });
    expect(report.steps == 2 && steps == 2, "two steps, two reports");
    expect(read(model, "model.norm.weight") != before, "the weights moved");

    models_from_scratch(context);
    estimates(context, model, argv[1]);
    old_exceptions_stay_away(context, model, tokenizer, prompts, params);
    step_of_handles(context, model, tokenizer);
    sequences_and_arrays_of_the_host(model, tokenizer);
    combined_rewards(context, model, tokenizer);
    exceptions_belong_to_their_call(context, model, tokenizer);

    checkpoints(context, model, argv[1]);

    bool status_kept = false;
    try {
        pgrad::model::load(context, "/nonexistent");
    } catch (const pgrad::error &failure) {
        status_kept = failure.status() == PGRAD_E_IO;
    }
    expect(status_kept, "an error carries its status");
    std::printf("%d failed\n", failures);
    return failures != 0;
}
