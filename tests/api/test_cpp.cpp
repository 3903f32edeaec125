// policygrad.hpp: a reward function may throw, and the exception comes out of the call that ran it.
#include <cstdio>
#include <cstring>
#include <stdexcept>

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

} // namespace

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
