// The same in C++: handles free themselves, statuses are exceptions, a lambda is the reward - and what it throws comes
// out of the call that ran it.
//
// usage: 12_cpp [MODEL [STEPS]]
#include <policygrad/policygrad.hpp>

#include <cstdio>
#include <cstdlib>

#ifndef EXAMPLE_MODEL
#define EXAMPLE_MODEL "examples/embedded/model"
#endif

static void learn(const std::string &path, int steps)
{
    const std::string prompts[] = {"paint it red:", "paint it blue:"};
    pgrad::context context;
    pgrad::model model = pgrad::model::load(context, path);
    pgrad::tokenizer tokenizer = pgrad::tokenizer::load(context, path);

    auto rollout_params = pgrad::defaults(pgrad_rollout_params_init);
    rollout_params.group_size = 16;
    rollout_params.max_new_tokens = 24;
    auto optimizer_params = pgrad::defaults(pgrad_optimizer_params_init);
    optimizer_params.learning_rate = 3e-4;
    pgrad::rollout rollout(model, tokenizer, &rollout_params);
    pgrad::sampler sampler(context);
    pgrad::advantage advantage(context);
    pgrad::objective objective(model);
    pgrad::optimizer optimizer(model, &optimizer_params);
    pgrad::reward reward(context, "has_cat", [](const pgrad_rollout *in, uint32_t i) {
        return pgrad::text(in, i).find(" cat ") != std::string::npos ? 1.0 : 0.0;
    });

    for (int step = 1; step <= steps; step++) {
        auto report = pgrad::defaults(pgrad_step_report_init);
        rollout.clear();
        for (const std::string &prompt : prompts)
            rollout.add_prompt(tokenizer.encode(prompt, PGRAD_ENCODE_ADD));
        rollout.generate(sampler);
        reward.apply(rollout.get());
        advantage.apply(rollout);
        model.zero_grad();
        objective.backward(rollout, &report);
        optimizer.step(&report);
        rollout.report(report);
        std::printf("step %2d  reward %.3f\n", step, report.reward);
    }

    // An exception of a callback passes through the library as a failure, and is thrown again behind it.
    pgrad::reward careless(context, "careless", [](const pgrad_rollout *, uint32_t) -> pgrad::score {
        throw std::out_of_range("thrown in the reward");
    });
    try {
        careless.apply(rollout.get());
    } catch (const std::out_of_range &thrown) {
        std::printf("caught: %s\n", thrown.what());
    }
}

int main(int argc, char **argv)
{
    try {
        learn(argc > 1 ? argv[1] : EXAMPLE_MODEL, argc > 2 ? std::atoi(argv[2]) : 20);
    } catch (const pgrad::error &failure) {
        std::fprintf(stderr, "%s: %s\n", pgrad_status_name(failure.status()), failure.what());
        return 1;
    }
}
