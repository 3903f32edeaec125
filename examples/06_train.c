/* The ready loop, with a checkpoint. Started again with more steps it goes on where it was, and
 * ends with the bits of a run that was never interrupted - also when the first one was killed.
 *
 * usage: 06_train [MODEL [OUT [STEPS]]]      leaves OUT.pgrad, the run's state, and OUT, a folder
 * with the model */
#include "common.h"

static const char *const PROMPTS[] = {"paint it red:",   "paint it blue:",  "paint it green:",
                                      "paint it white:", "paint it black:", "paint it gold:"};

/* Called after each step; its number counts over all parts of the run. */
static int32_t show(void *user, const pgrad_step_report *report, const pgrad_rollout *rollout)
{
    (void)user;
    printf("step %2llu  reward %.3f %s\n", (unsigned long long)report->step, report->reward,
           pgrad_rollout_text(rollout, 0, NULL));
    return 1; /* 0 would end the run in order */
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL, *out = argc > 2 ? argv[2] : "trained";
    char checkpoint[1024];
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_reward *reward;
    pgrad_prompts prompts;
    pgrad_train_params params;
    pgrad_train_report report = {.struct_size = sizeof report};
    snprintf(checkpoint, sizeof checkpoint, "%s.pgrad", out);
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_reward_builtin(context, "length", "{\"target\": 6}", &reward));

    pgrad_prompts_init(&prompts, sizeof prompts);
    prompts.n = 6;
    prompts.texts = PROMPTS;

    pgrad_train_params_init(&params, sizeof params);
    params.steps = argc > 3 ? strtoull(argv[3], NULL, 10) : 10; /* in all, those before included */
    params.prompts_per_step = 4;
    params.max_new_tokens = 24;
    params.learning_rate = 1e-3;
    params.report = show;
    params.save_path = out;
    params.checkpoint_path = checkpoint;
    params.checkpoint_every = 5;
    params.resume = PGRAD_RESUME_AUTO; /* begins anew where there is none */
    CHECK(pgrad_train(model, tokenizer, reward, &prompts, &params, &report));
    printf("%llu steps, %llu of them before; reward %.3f -> %.3f\n",
           (unsigned long long)report.steps, (unsigned long long)report.steps_before,
           report.first_reward, report.last_reward);

    pgrad_reward_free(reward);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
