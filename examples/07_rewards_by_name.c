/* Rewards that are there already, by name with arguments in JSON: lists them, and scores some
 * sentences with a few. No model samples here: the completions are added as they are.
 *
 * usage: 07_rewards_by_name [MODEL] */
#include "common.h"

#include <string.h>

static const char *const SENTENCES[] = {"the green cat carries the green stone by the sea.",
                                        "The answer is 42.", "the the the the the the the the"};
static const char *const REWARDS[][2] = {
    {"regex", "{\"pattern\": \"^[A-Z].*[.]$\", \"where\": \"whole\"}"},
    {"numeric", "{\"column\": \"answer\"}"},
    {"repetition", "{\"n\": 2, \"unit\": \"words\"}"},
    {"length", "{\"target\": 8, \"unit\": \"words\"}"},
};

static void score(pgrad_context *context, pgrad_rollout *rollout, const char *name,
                  const char *arguments)
{
    pgrad_reward *reward;
    CHECK(pgrad_reward_builtin(context, name, arguments, &reward));
    CHECK(pgrad_reward_apply(reward, rollout));
    printf("%-12s", name);
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        CHECK(pgrad_rollout_sequence(rollout, i, &info));
        printf("%8.2f", info.reward);
    }
    printf("\n");
    pgrad_reward_free(reward);
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout *rollout;
    pgrad_token ids[128];
    uint32_t group;
    size_t n;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    CHECK(pgrad_rollout_create(model, tokenizer, NULL, &rollout));

    printf("there are:");
    for (uint32_t i = 0; pgrad_reward_builtin_name(i) != NULL; i++)
        printf(" %s", pgrad_reward_builtin_name(i));
    printf("\n\n");

    CHECK(pgrad_tokenizer_encode(tokenizer, "paint it:", 9, PGRAD_ENCODE_ADD, ids, 128, &n));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, &group));
    CHECK(pgrad_rollout_set_data(rollout, group, "answer", "42",
                                 2)); /* what `numeric` compares with */
    for (int i = 0; i < 3; i++) {
        CHECK(
            pgrad_tokenizer_encode(tokenizer, SENTENCES[i], strlen(SENTENCES[i]), 0, ids, 128, &n));
        CHECK(pgrad_rollout_add_sequence(rollout, group, ids, n, NULL));
        printf("%d: %s\n", i, pgrad_rollout_text(rollout, (uint32_t)i, NULL));
    }
    printf("\n%12s%8d%8d%8d\n", "", 0, 1, 2);
    for (int i = 0; i < 4; i++)
        score(context, rollout, REWARDS[i][0], REWARDS[i][1]);

    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
