/* Several rewards at once: a weighted sum of the library's and one's own. The sum trains, each part
 * is reported.
 *
 * usage: 08_weighted_rewards [MODEL] */
#include "common.h"

#include <string.h>

/* How many different letters a completion has. */
static int32_t variety(void *user, const pgrad_rollout *rollout, uint32_t first, uint32_t count,
                       pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        int seen[256] = {0}, different = 0;
        for (const char *at = pgrad_rollout_text(rollout, first + i, NULL); *at != '\0'; at++)
            different += seen[(unsigned char)*at]++ == 0;
        pgrad_scores_data(scores)[i] = (float)different;
    }
    return (int32_t)count;
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL, *prompt = "paint it white:";
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_reward *parts[3], *sum;
    const double weights[] = {1.0, 0.5, 0.05};
    pgrad_step_report report;
    pgrad_token ids[64];
    size_t n;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_rollout_create(model, tokenizer, NULL, &rollout));
    CHECK(pgrad_sampler_create(context, NULL, &sampler));

    CHECK(pgrad_reward_builtin(context, "regex", "{\"pattern\": \" white \", \"name\": \"obeys\"}",
                               &parts[0]));
    CHECK(pgrad_reward_builtin(context, "repetition", "{\"n\": 2}", &parts[1]));
    CHECK(pgrad_reward_create(context, "variety", variety, NULL, NULL, &parts[2]));
    CHECK(pgrad_reward_combine(context, parts, weights, 3, &sum));
    for (int i = 0; i < 3; i++)
        pgrad_reward_free(parts[i]); /* the sum keeps them */

    CHECK(pgrad_tokenizer_encode(tokenizer, prompt, strlen(prompt), PGRAD_ENCODE_ADD, ids, 64, &n));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, NULL));
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    CHECK(pgrad_reward_apply(sum, rollout));

    pgrad_step_report_init(&report, sizeof report);
    CHECK(pgrad_rollout_report(rollout, &report));
    for (uint32_t i = 0; i < pgrad_metrics_count(&report); i++) {
        const char *name = pgrad_metrics_name(&report, i);
        if (strncmp(name, "reward", 6) == 0)
            printf("%-24s %8.4f\n", name, pgrad_metrics_value(&report, i));
    }

    pgrad_reward_free(sum);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
