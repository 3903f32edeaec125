// C++ (11 and later) over the C interface: handles that free themselves, statuses as exceptions, reward
// and report functions that may throw. Header only, nothing is exported; it adds no features.
//
//     pgrad::context context;
//     pgrad::model model = pgrad::model::load(context, "SmolLM2-135M-Instruct");
//     pgrad::tokenizer tokenizer = pgrad::tokenizer::load(context, "SmolLM2-135M-Instruct");
//     pgrad::reward reward(context, "short", [](const pgrad_rollout *rollout, uint32_t i) {
//         return -double(pgrad::text(rollout, i).size());
//     });
//
// An exception thrown in a callback does not cross the C frames: it is kept, the call ends with
// E_CALLBACK, and the wrapper throws it again. A call through the plain C interface cannot do that: it
// returns E_CALLBACK, and the exception waits in reward::rethrow().
//
// Threads: as the C calls.
#ifndef POLICYGRAD_HPP
#define POLICYGRAD_HPP

#include <cstdint>
#include <exception>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include <policygrad.h>

namespace pgrad {

// What a failing call becomes: its status and message.
class error : public std::runtime_error {
public:
    error(pgrad_status status, const char *message) : std::runtime_error(message), status_(status) {}
    pgrad_status status() const noexcept { return status_; }

private:
    pgrad_status status_;
};

inline void check(pgrad_status status)
{
    if (status != PGRAD_OK)
        throw error(status, pgrad_error_message());
}

// Owns a C handle; moves, does not copy. get() gives the handle for the C calls.
template <typename Handle, void (*Free)(Handle *)> class handle {
public:
    handle() noexcept : pointer_(nullptr) {}
    explicit handle(Handle *pointer) noexcept : pointer_(pointer) {}
    handle(handle &&other) noexcept : pointer_(other.release()) {}
    handle &operator=(handle &&other) noexcept
    {
        if (this != &other) {
            Free(pointer_);
            pointer_ = other.release();
        }
        return *this;
    }
    handle(const handle &) = delete;
    handle &operator=(const handle &) = delete;
    ~handle() { Free(pointer_); }

    Handle *get() const noexcept { return pointer_; }
    Handle *release() noexcept
    {
        Handle *pointer = pointer_;
        pointer_ = nullptr;
        return pointer;
    }

protected:
    void adopt(Handle *pointer) noexcept { pointer_ = pointer; } // of an empty one

private:
    Handle *pointer_;
};

// Option structs with the library's defaults.
template <typename Params> Params defaults(void (*init)(Params *, std::size_t))
{
    Params params;
    init(&params, sizeof params);
    return params;
}

class context : public handle<pgrad_context, pgrad_context_free> {
public:
    explicit context(const pgrad_context_params *params = nullptr) : handle(create(params)) {}

    pgrad_context_info info() const
    {
        pgrad_context_info out = pgrad_context_info();
        out.struct_size = sizeof out;
        check(pgrad_context_get_info(get(), &out));
        return out;
    }

private:
    static pgrad_context *create(const pgrad_context_params *params)
    {
        pgrad_context *out = nullptr;
        check(pgrad_context_create(params, &out));
        return out;
    }
};

class model : public handle<pgrad_model, pgrad_model_free> {
public:
    using handle::handle;

    static model load(const context &in, const std::string &path,
                      const pgrad_model_params *params = nullptr)
    {
        pgrad_model *out = nullptr;
        check(pgrad_model_load(in.get(), path.c_str(), params, &out));
        return model(out);
    }
    static model create(const context &in, const std::string &config_json, uint64_t seed,
                        const pgrad_model_params *params = nullptr)
    {
        pgrad_model *out = nullptr;
        check(pgrad_model_create(in.get(), config_json.c_str(), seed, params, &out));
        return model(out);
    }
    model snapshot() const
    {
        pgrad_model *out = nullptr;
        check(pgrad_model_snapshot(get(), &out));
        return model(out);
    }
    pgrad_model_info info() const
    {
        pgrad_model_info out = pgrad_model_info();
        out.struct_size = sizeof out;
        check(pgrad_model_get_info(get(), &out));
        return out;
    }
    pgrad_memory_report estimate(const pgrad_plan_params *plan = nullptr) const
    {
        pgrad_memory_report out = sized_report();
        check(pgrad_model_estimate(get(), plan, &out));
        return out;
    }
    static pgrad_memory_report estimate_load(const context &in, const std::string &path,
                                             const pgrad_plan_params *plan = nullptr,
                                             const pgrad_model_params *params = nullptr)
    {
        pgrad_memory_report out = sized_report();
        check(pgrad_model_estimate_load(in.get(), path.c_str(), params, plan, &out));
        return out;
    }
    static pgrad_memory_report estimate_create(const context &in, const std::string &config_json,
                                               const pgrad_plan_params *plan = nullptr,
                                               const pgrad_model_params *params = nullptr)
    {
        pgrad_memory_report out = sized_report();
        check(pgrad_model_estimate_create(in.get(), config_json.c_str(), params, plan, &out));
        return out;
    }
    void zero_grad() { check(pgrad_model_zero_grad(get())); }
    void save(const std::string &path, const pgrad_save_params *params = nullptr) const
    {
        check(pgrad_model_save(get(), path.c_str(), params));
    }

private:
    static pgrad_memory_report sized_report()
    {
        pgrad_memory_report out = pgrad_memory_report();
        out.struct_size = sizeof out;
        return out;
    }
};

class tokenizer : public handle<pgrad_tokenizer, pgrad_tokenizer_free> {
public:
    using handle::handle;

    static tokenizer load(const context &in, const std::string &path)
    {
        pgrad_tokenizer *out = nullptr;
        check(pgrad_tokenizer_load(in.get(), path.c_str(), &out));
        return tokenizer(out);
    }
    std::vector<pgrad_token> encode(const std::string &text, uint32_t flags = 0) const
    {
        std::vector<pgrad_token> ids(text.size() + 8);
        std::size_t n = 0;
        pgrad_status status =
            pgrad_tokenizer_encode(get(), text.data(), text.size(), flags, ids.data(), ids.size(), &n);
        ids.resize(n);
        if (status == PGRAD_E_BUFFER)
            status = pgrad_tokenizer_encode(get(), text.data(), text.size(), flags, ids.data(),
                                            ids.size(), &n);
        check(status);
        return ids;
    }
    std::string decode(const std::vector<pgrad_token> &ids, uint32_t flags = 0) const
    {
        std::string text(ids.size() * 8 + 8, '\0');
        std::size_t length = 0;
        pgrad_status status = pgrad_tokenizer_decode(get(), ids.data(), ids.size(), flags, &text[0],
                                                     text.size(), &length);
        if (status == PGRAD_E_BUFFER) {
            text.resize(length + 1);
            status = pgrad_tokenizer_decode(get(), ids.data(), ids.size(), flags, &text[0],
                                            text.size(), &length);
        }
        check(status);
        text.resize(length);
        return text;
    }
};

// The text of completion i, and a text of its prompt's data; empty when there is none.
inline std::string text(const pgrad_rollout *rollout, uint32_t i)
{
    std::size_t length = 0;
    const char *data = pgrad_rollout_text(rollout, i, &length);
    return data == nullptr ? std::string() : std::string(data, length);
}
inline std::string data(const pgrad_rollout *rollout, uint32_t i, const char *key)
{
    pgrad_sequence_info info = pgrad_sequence_info();
    info.struct_size = sizeof info;
    check(pgrad_rollout_sequence(rollout, i, &info));
    std::size_t length = 0;
    const char *found = pgrad_rollout_data(rollout, info.group, key, &length);
    return found == nullptr ? std::string() : std::string(found, length);
}

// What a reward function returns for a completion that it does not apply to.
struct skip_t {};
const skip_t skip = skip_t();

// A completion's score: a number, or skip.
class score {
public:
    score(double value) noexcept : value_(value), applies_(true) {}
    score(skip_t) noexcept : value_(0.0), applies_(false) {}
    bool applies() const noexcept { return applies_; }
    double value() const noexcept { return value_; }

private:
    double value_;
    bool applies_;
};

// A reward whose function gets a rollout and the index of a completion and returns its score, or fills
// the scores of a batch itself: per token with pgrad_scores_set_tokens. It may throw: the exception
// comes out of reward::apply and of pgrad::train.
class reward : public handle<pgrad_reward, pgrad_reward_free> {
public:
    using function = std::function<score(const pgrad_rollout *, uint32_t)>;
    using batch_function =
        std::function<void(const pgrad_rollout *, uint32_t first, uint32_t count, pgrad_scores *)>;

    reward(const context &in, const std::string &name, function one)
        : reward(in, name, std::unique_ptr<state>(new state{std::move(one), {}, nullptr}))
    {
    }
    reward(const context &in, const std::string &name, batch_function batch)
        : reward(in, name, std::unique_ptr<state>(new state{{}, std::move(batch), nullptr}))
    {
    }

    // One of docs/rewards.md, with its arguments as a JSON object.
    static reward builtin(const context &in, const std::string &name, const std::string &arguments = "{}")
    {
        pgrad_reward *out = nullptr;
        check(pgrad_reward_builtin(in.get(), name.c_str(), arguments.c_str(), &out));
        return reward(out, {});
    }

    // The weighted sum of rewards, which it keeps alive; an exception of any of them comes out of it.
    static reward combine(const context &in, const std::vector<const reward *> &parts,
                          const std::vector<double> &weights)
    {
        if (parts.size() != weights.size())
            throw error(PGRAD_E_INVALID, "reward::combine: expected a weight for each reward");
        std::vector<pgrad_reward *> handles;
        std::vector<state *> states;
        for (const reward *part : parts) {
            handles.push_back(part->get());
            states.insert(states.end(), part->states_.begin(), part->states_.end());
        }
        pgrad_reward *out = nullptr;
        check(pgrad_reward_combine(in.get(), handles.data(), weights.data(),
                                   static_cast<uint32_t>(handles.size()), &out));
        return reward(out, std::move(states));
    }

    void apply(pgrad_rollout *rollout) const
    {
        forget();
        pgrad_status status = pgrad_reward_apply(get(), rollout);
        rethrow();
        check(status);
    }

    // Drops what waits for rethrow.
    void forget() const noexcept
    {
        for (state *each : states_)
            each->thrown = nullptr;
    }

    // Throws what the function threw last, once; returns when it threw nothing.
    void rethrow() const
    {
        for (state *each : states_) {
            std::exception_ptr thrown;
            std::swap(thrown, each->thrown);
            if (thrown)
                std::rethrow_exception(thrown);
        }
    }

private:
    struct state {
        function one; // either of the two
        batch_function batch;
        std::exception_ptr thrown;
    };

    reward(const context &in, const std::string &name, std::unique_ptr<state> made)
        : states_(1, made.get())
    {
        pgrad_reward *out = nullptr;
        check(pgrad_reward_create(in.get(), name.c_str(), call, made.get(), destroy, &out));
        made.release(); // the reward owns it now
        adopt(out);
    }
    reward(pgrad_reward *made, std::vector<state *> states) : handle(made), states_(std::move(states)) {}

    static void fill(const state *self, const pgrad_rollout *rollout, uint32_t sequence, uint32_t i,
                     pgrad_scores *scores)
    {
        const score found = self->one(rollout, sequence);
        if (found.applies())
            pgrad_scores_data(scores)[i] = static_cast<float>(found.value());
        else
            pgrad_scores_skip(scores, i);
    }

    static int32_t call(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                        pgrad_scores *scores)
    {
        state *self = static_cast<state *>(user);
        uint32_t sequence = self->batch ? UINT32_MAX : first;
        self->thrown = nullptr; // of a call through the C interface, that nobody asked for
        try {
            if (self->batch)
                self->batch(rollout, first, count, scores);
            else
                for (uint32_t i = 0; i < count; i++, sequence++)
                    fill(self, rollout, sequence, i, scores);
            return static_cast<int32_t>(count);
        } catch (const std::exception &failure) {
            pgrad_scores_fail(scores, sequence, failure.what());
            self->thrown = std::current_exception();
        } catch (...) {
            pgrad_scores_fail(scores, sequence, "an exception that is no std::exception");
            self->thrown = std::current_exception();
        }
        return -1;
    }
    static void destroy(void *user) { delete static_cast<state *>(user); }

    std::vector<state *> states_; // of the functions it runs, owned by their C handles
};

class sampler : public handle<pgrad_sampler, pgrad_sampler_free> {
public:
    explicit sampler(const context &in, const pgrad_sampler_params *params = nullptr)
    {
        pgrad_sampler *out = nullptr;
        check(pgrad_sampler_create(in.get(), params, &out));
        adopt(out);
    }
};

class rollout : public handle<pgrad_rollout, pgrad_rollout_free> {
public:
    explicit rollout(const model &policy, const pgrad_rollout_params *params = nullptr)
    {
        create(policy.get(), nullptr, params);
    }
    rollout(const model &policy, const tokenizer &words, const pgrad_rollout_params *params = nullptr)
    {
        create(policy.get(), words.get(), params);
    }
    void clear() { pgrad_rollout_clear(get()); }
    uint32_t add_prompt(const std::vector<pgrad_token> &ids, const pgrad_prompt_params *params = nullptr)
    {
        uint32_t group = 0;
        check(pgrad_rollout_add_prompt(get(), ids.data(), ids.size(), params, &group));
        return group;
    }
    void add_sequence(uint32_t group, const std::vector<pgrad_token> &ids,
                      const pgrad_sequence_params *params = nullptr)
    {
        check(pgrad_rollout_add_sequence(get(), group, ids.data(), ids.size(), params));
    }
    void set_data(uint32_t group, const std::string &key, const std::string &text)
    {
        check(pgrad_rollout_set_data(get(), group, key.c_str(), text.data(), text.size()));
    }
    void generate(const sampler &from, const pgrad_generate_params *params = nullptr)
    {
        check(pgrad_rollout_generate(get(), from.get(), params));
    }
    void score(const model &under, uint32_t which)
    {
        check(pgrad_rollout_score(get(), under.get(), which));
    }
    void set_array(uint32_t which, uint32_t i, const std::vector<float> &values)
    {
        check(pgrad_rollout_set_array(get(), which, i, values.data(), values.size()));
    }
    uint32_t size() const noexcept { return pgrad_rollout_count(get()); }
    std::string text(uint32_t i) const { return pgrad::text(get(), i); }
    pgrad_sequence_info sequence(uint32_t i) const
    {
        pgrad_sequence_info out = pgrad_sequence_info();
        out.struct_size = sizeof out;
        check(pgrad_rollout_sequence(get(), i, &out));
        return out;
    }
    void report(pgrad_step_report &into) const { check(pgrad_rollout_report(get(), &into)); }

private:
    void create(pgrad_model *policy, pgrad_tokenizer *words, const pgrad_rollout_params *params)
    {
        pgrad_rollout *out = nullptr;
        check(pgrad_rollout_create(policy, words, params, &out));
        adopt(out);
    }
};

class advantage : public handle<pgrad_advantage, pgrad_advantage_free> {
public:
    explicit advantage(const context &in, const pgrad_advantage_params *params = nullptr)
    {
        pgrad_advantage *out = nullptr;
        check(pgrad_advantage_create(in.get(), params, &out));
        adopt(out);
    }
    void apply(const rollout &to) { check(pgrad_advantage_apply(get(), to.get())); }
};

class objective : public handle<pgrad_objective, pgrad_objective_free> {
public:
    explicit objective(const model &policy, const pgrad_objective_params *params = nullptr)
    {
        pgrad_objective *out = nullptr;
        check(pgrad_objective_create(policy.get(), params, &out));
        adopt(out);
    }
    void backward(const rollout &over, pgrad_step_report *report = nullptr,
                  const pgrad_backward_params *params = nullptr)
    {
        check(pgrad_objective_backward(get(), over.get(), nullptr, 0, params, report));
    }
    void backward(const rollout &over, const std::vector<uint32_t> &indices,
                  pgrad_step_report *report = nullptr, const pgrad_backward_params *params = nullptr)
    {
        static const uint32_t none = 0; // an empty list is not all of them
        check(pgrad_objective_backward(get(), over.get(), indices.empty() ? &none : indices.data(),
                                       static_cast<uint32_t>(indices.size()), params, report));
    }
};

class optimizer : public handle<pgrad_optimizer, pgrad_optimizer_free> {
public:
    explicit optimizer(const model &policy, const pgrad_optimizer_params *params = nullptr)
    {
        pgrad_optimizer *out = nullptr;
        check(pgrad_optimizer_create(policy.get(), params, &out));
        adopt(out);
    }
    void step(pgrad_step_report *report = nullptr) { check(pgrad_optimizer_step(get(), report)); }
};

// The state of a run in a file: add and write, or open and restore. Handles of any kind but reward and
// tokenizer.
class checkpoint : public handle<pgrad_checkpoint, pgrad_checkpoint_free> {
public:
    explicit checkpoint(const context &in)
    {
        pgrad_checkpoint *out = nullptr;
        check(pgrad_checkpoint_create(in.get(), &out));
        adopt(out);
    }
    static checkpoint open(const context &in, const std::string &path)
    {
        pgrad_checkpoint *out = nullptr;
        check(pgrad_checkpoint_open(in.get(), path.c_str(), &out));
        return checkpoint(out);
    }
    template <typename Kind> void add(const std::string &name, const Kind &of)
    {
        check(pgrad_checkpoint_add(get(), name.c_str(), number(of.get()), of.get()));
    }
    void add_text(const std::string &name, const std::string &text)
    {
        check(pgrad_checkpoint_add_text(get(), name.c_str(), text.data(), text.size()));
    }
    void write(const std::string &path, const pgrad_checkpoint_params *params = nullptr)
    {
        check(pgrad_checkpoint_write(get(), path.c_str(), params));
    }
    void wait() { check(pgrad_checkpoint_wait(get())); }
    template <typename Kind> void restore(const std::string &name, const Kind &to)
    {
        check(pgrad_checkpoint_restore(get(), name.c_str(), number(to.get()), to.get()));
    }
    std::string text(const std::string &name)
    {
        std::size_t length = 0;
        const pgrad_status status = pgrad_checkpoint_get_text(get(), name.c_str(), nullptr, 0, &length);
        if (status != PGRAD_E_BUFFER)
            check(status);
        std::vector<char> out(length + 1);
        check(pgrad_checkpoint_get_text(get(), name.c_str(), out.data(), out.size(), &length));
        return std::string(out.data(), length);
    }
    std::vector<pgrad_checkpoint_part> parts() const
    {
        std::vector<pgrad_checkpoint_part> out(pgrad_checkpoint_count(get()));
        for (uint32_t i = 0; i < out.size(); i++) {
            out[i].struct_size = sizeof out[i];
            check(pgrad_checkpoint_get_part(get(), i, &out[i]));
        }
        return out;
    }

private:
    explicit checkpoint(pgrad_checkpoint *opened) : handle(opened) {}
    static int32_t number(const pgrad_model *) { return PGRAD_KIND_MODEL; }
    static int32_t number(const pgrad_optimizer *) { return PGRAD_KIND_OPTIMIZER; }
    static int32_t number(const pgrad_sampler *) { return PGRAD_KIND_SAMPLER; }
    static int32_t number(const pgrad_advantage *) { return PGRAD_KIND_ADVANTAGE; }
    static int32_t number(const pgrad_rollout *) { return PGRAD_KIND_ROLLOUT; }
    static int32_t number(const pgrad_objective *) { return PGRAD_KIND_OBJECTIVE; }
};

// pgrad_train; report (may be empty) gets each step's report and returns whether to go on.
inline pgrad_train_report
train(const model &policy, const tokenizer &words, const reward &score, const pgrad_prompts &prompts,
      pgrad_train_params params,
      const std::function<bool(const pgrad_step_report &, const pgrad_rollout *)> &report = {})
{
    struct state {
        const std::function<bool(const pgrad_step_report &, const pgrad_rollout *)> *report;
        std::exception_ptr thrown;
        static int32_t call(void *user, const pgrad_step_report *step, const pgrad_rollout *rollout)
        {
            state *self = static_cast<state *>(user);
            try {
                return (*self->report)(*step, rollout) ? 1 : 0;
            } catch (...) {
                self->thrown = std::current_exception();
                return 0;
            }
        }
    } self = {&report, nullptr};
    if (report) {
        params.report = state::call;
        params.report_user = &self;
    }
    pgrad_train_report out = pgrad_train_report();
    out.struct_size = sizeof out;
    score.forget();
    pgrad_status status =
        pgrad_train(policy.get(), words.get(), score.get(), &prompts, &params, &out);
    score.rethrow();
    if (self.thrown)
        std::rethrow_exception(self.thrown);
    check(status);
    return out;
}

} // namespace pgrad

#endif
