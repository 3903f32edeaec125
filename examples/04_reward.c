/* A reward in C: a function that gets a run of completions and writes a score for each. What it
 * needs to know of a prompt comes with the prompt, as data.
 *
 * usage: 04_reward [MODEL] */
#include "common.h"

#include <string.h>

enum { COMPLETIONS = 4 };

/* 1 when the completion names the colour of its prompt; a completion that was cut does not count at
 * all. */
static int32_t names_colour(void *user, const pgrad_rollout *rollout, uint32_t first,
                            uint32_t count, pgrad_scores *scores)
{
    (void)user;
    for (uint32_t i = 0; i < count; i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        CHECK(pgrad_rollout_sequence(rollout, first + i, &info));
        const char *colour = pgrad_rollout_data(rollout, info.group, "colour", NULL);
        if (colour == NULL) {
            pgrad_scores_fail(scores, first + i, "the prompt has no colour");
            return -1; /* pgrad_reward_apply fails with E_CALLBACK, this sequence and this text */
        }
        if (info.finish == PGRAD_FINISH_LENGTH)
            pgrad_scores_skip(scores, i);
        else
            pgrad_scores_data(scores)[i] =
                strstr(pgrad_rollout_text(rollout, first + i, NULL), colour) != NULL;
    }
    return (int32_t)count; /* anything else is a failure */
}

static void add_prompt(pgrad_rollout *rollout, pgrad_tokenizer *tokenizer, const char *text,
                       const char *colour)
{
    pgrad_token ids[64];
    size_t n;
    uint32_t group;
    CHECK(pgrad_tokenizer_encode(tokenizer, text, strlen(text), PGRAD_ENCODE_ADD, ids, 64, &n));
    CHECK(pgrad_rollout_add_prompt(rollout, ids, n, NULL, &group));
    CHECK(pgrad_rollout_set_data(rollout, group, "colour", colour, strlen(colour)));
}

int main(int argc, char **argv)
{
    const char *path = argc > 1 ? argv[1] : EXAMPLE_MODEL;
    pgrad_context *context;
    pgrad_model *model;
    pgrad_tokenizer *tokenizer;
    pgrad_rollout_params params;
    pgrad_rollout *rollout;
    pgrad_sampler *sampler;
    pgrad_reward *reward;
    CHECK(pgrad_context_create(NULL, &context));
    CHECK(pgrad_model_load(context, path, NULL, &model));
    CHECK(pgrad_tokenizer_load(context, path, &tokenizer));
    pgrad_rollout_params_init(&params, sizeof params);
    params.group_size = COMPLETIONS;
    params.max_new_tokens = 24;
    CHECK(pgrad_rollout_create(model, tokenizer, &params, &rollout));
    CHECK(pgrad_sampler_create(context, NULL, &sampler));
    CHECK(pgrad_reward_create(context, "names_colour", names_colour, NULL, NULL, &reward));

    add_prompt(rollout, tokenizer, "paint it blue:", "blue");
    add_prompt(rollout, tokenizer, "paint it gold:", "gold");
    CHECK(pgrad_rollout_generate(rollout, sampler, NULL));
    CHECK(pgrad_reward_apply(reward, rollout));
    for (uint32_t i = 0; i < pgrad_rollout_count(rollout); i++) {
        pgrad_sequence_info info = {.struct_size = sizeof info};
        CHECK(pgrad_rollout_sequence(rollout, i, &info));
        printf("group %u  score %3.0f %s\n", info.group, info.reward,
               pgrad_rollout_text(rollout, i, NULL));
    }

    pgrad_reward_free(reward);
    pgrad_sampler_free(sampler);
    pgrad_rollout_free(rollout);
    pgrad_tokenizer_free(tokenizer);
    pgrad_model_free(model);
    pgrad_context_free(context);
    return 0;
}
